"""The API's reads: what the view shows, as JSON. They change nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final, cast, get_args

import msgspec
from aiohttp import web

from router.admin import events, intake
from router.admin.bodies import NAME, SERVICE, Asked
from router.admin.openapi import document
from router.admin.shapes import Dropped
from router.admin.trouble import Trouble
from router.admin.view import View
from router.telemetry.picture import Metric, Scope

VIEW: Final = web.AppKey("view", View)
DOCUMENT: Final = web.AppKey("document", bytes)
AUDIT_ENTRIES: Final = 100
MOST_AUDIT_ENTRIES: Final = 1000
TAP_RATE: Final = 10
MOST_PAIRS: Final = 5
LONGEST_PAIR: Final = 250
LONGEST_LINKED_PATH: Final = 1000
MOST_TAP_RATE: Final = 1000
_AUDIT_ID: Final = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")


def give(data: Any, status: int = 200) -> web.Response:
    """JSON."""
    return web.Response(status=status, body=events.encode(data), content_type="application/json")


async def openapi(request: web.Request) -> web.Response:
    return web.Response(body=request.app[DOCUMENT], content_type="application/json")


def openapi_bytes() -> bytes:
    return events.encode(document())


async def state(request: web.Request) -> web.Response:
    return give(request.app[VIEW].state())


async def rings(request: web.Request) -> web.Response:
    query = intake.query_of(request, frozenset({"service", "scope"}))
    scope = query.get("scope", "fleet")
    if scope not in get_args(Scope):
        raise Trouble("malformed", "scope is fleet or instance.")
    if scope == "fleet":
        await request.app[VIEW].looked()
    picture = request.app[VIEW].picture(cast("Scope", scope))
    service = _service(query)
    if service is not None:
        if service not in picture.services:
            raise _unknown(service)
        picture = msgspec.structs.replace(picture, services={service: picture.services[service]})
    return give(picture)


async def series(request: web.Request) -> web.Response:
    query = intake.query_of(request, frozenset({"service", "ring", "version", "metric", "from", "step"}))
    missing = [name for name in ("service", "ring", "metric") if name not in query]
    if missing:
        raise Trouble("malformed", f"The parameter {missing[0]} is missing.")
    metric = query["metric"]
    if metric not in get_args(Metric):
        raise Trouble("malformed", f"metric is one of {', '.join(get_args(Metric))}.")
    step = intake.number_of(query, "step", 1, 1, 60)
    if step not in (1, 60):
        raise Trouble("malformed", "step is 1 or 60.")
    try:
        begin = float(query.get("from", "0"))
    except ValueError:
        begin = -1.0
    if not 0 <= begin < 1e12:
        raise Trouble("malformed", "from is a time in Unix seconds.")
    service, ring, version = _service(query) or "", _name(query, "ring") or "", _name(query, "version")
    try:
        return give(request.app[VIEW].series(service, ring, version, cast("Metric", metric), begin, step))
    except KeyError as error:
        raise Trouble("not_found", f"There is no {error.args[0] if error.args else 'such series'}.") from None


async def backends(request: web.Request) -> web.Response:
    service = _service(intake.query_of(request, frozenset({"service"})))
    found = request.app[VIEW].backends()
    if service is not None:
        _demand_service(request, service)
        found = msgspec.structs.replace(found, backends=[one for one in found.backends if one.service == service])
    return give(found)


async def config(request: web.Request) -> web.Response:
    return give(request.app[VIEW].config())


async def audit(request: web.Request) -> web.Response:
    query = intake.query_of(request, frozenset({"service", "count", "before"}))
    count = intake.number_of(query, "count", AUDIT_ENTRIES, 1, MOST_AUDIT_ENTRIES)
    before = query.get("before", "")
    if before and not _AUDIT_ID.fullmatch(before):
        raise Trouble("malformed", "before is the id of an entry, such as 1764044000123-0.")
    service = _service(query)
    if service is not None:
        _demand_service(request, service)
    elif before:
        raise Trouble("malformed", "before is the id of an entry of one service: name the service too.")
    return give(await request.app[VIEW].trail([] if service is None else [service], count, before))


async def fleet(request: web.Request) -> web.Response:
    await request.app[VIEW].looked()
    return give(request.app[VIEW].fleet())


async def explain(request: web.Request) -> web.Response:
    """GET with a query, for what fits into a link; POST takes longer ones."""
    if request.method == "POST":
        return give(request.app[VIEW].explain(await intake.read_body(request, Asked)))
    one, several = frozenset({"service", "host", "path", "method", "user", "client"}), frozenset({"header", "cookie"})
    plain: dict[str, Any] = dict(intake.query_of(request, one, several))
    if len(plain.get("path", "")) > LONGEST_LINKED_PATH:
        raise Trouble("malformed", f"In a link a path has {LONGEST_LINKED_PATH} letters at the most: POST takes more.")
    plain.pop("header", None)
    plain.pop("cookie", None)
    plain["headers"] = _pairs(request.query.getall("header", []), ":", "a header is `Name: value`")
    plain["cookies"] = _pairs(request.query.getall("cookie", []), "=", "a cookie is `name=value`")
    try:
        asked = msgspec.convert(plain, Asked, strict=True)
    except msgspec.ValidationError as error:
        raise Trouble("malformed", f"{error}.") from None
    return give(request.app[VIEW].explain(asked))


async def tap(request: web.Request, may_listen: Callable[[], bool]) -> web.StreamResponse:
    """Live requests, as long as who listens may."""
    query = intake.query_of(request, frozenset({"service", "ring", "rate"}))
    service, ring = _service(query), _name(query, "ring")
    rate = intake.number_of(query, "rate", TAP_RATE, 1, MOST_TAP_RATE)
    listener = request.app[VIEW].tap(service or "", ring or "", rate)
    response = web.StreamResponse(headers=events.HEADERS)
    try:
        await response.prepare(request)
        await response.write(b": listening\n\n")
        async for requests, dropped in listener.batches():
            if not may_listen():
                break
            lines = [b"data: %b\n\n" % events.encode(one) for one in requests]
            if dropped:
                lines.append(events.event("dropped", Dropped(dropped)))
            async with asyncio.timeout(events.SEND_SECONDS):
                await response.write(b"".join(lines) or events.PING)
        await response.write_eof()
    except (OSError, TimeoutError):
        pass  # they have left, or do not read
    finally:
        listener.close()
    return response


def _service(query: dict[str, str]) -> str | None:
    name = query.get("service")
    if name is not None and not re.fullmatch(SERVICE, name):
        raise Trouble("malformed", "service is the name of a service.")
    return name


def _name(query: dict[str, str], what: str) -> str | None:
    name = query.get(what)
    if name is not None and not re.fullmatch(NAME, name):
        raise Trouble("malformed", f"{what} is the name of a {what}.")
    return name


def _demand_service(request: web.Request, service: str) -> None:
    if request.app[VIEW].service_state(service) is None:
        raise _unknown(service)


def _unknown(service: str) -> Trouble:
    return Trouble("not_found", f"There is no service {service}.")


def _pairs(lines: list[str], separator: str, rule: str) -> dict[str, str]:
    if len(lines) > MOST_PAIRS or any(len(line) > LONGEST_PAIR for line in lines):
        raise Trouble("malformed", f"A link has {MOST_PAIRS} of each, of {LONGEST_PAIR} letters: POST takes more.")
    found: dict[str, str] = {}
    for line in lines:
        name, there, value = line.partition(separator)
        if not there or not name.strip():
            raise Trouble("malformed", f"{rule[0].upper()}{rule[1:]}, not {line[:60]!r}.")
        name = name.strip()
        found[name] = f"{found[name]}, {value.strip()}" if name in found else value.strip()
    return found
