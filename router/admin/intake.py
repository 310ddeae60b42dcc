"""A request's body and query, read strictly: what is not what it should be is refused before anybody acts on it."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from router.admin.trouble import Trouble

BODY_BYTES: Final = 64 * 1024
BODY_SECONDS: Final = 10.0
DEEPEST: Final = 8
"""Levels of nesting; a rollout's plan has six, no other body more than three."""

_Body = TypeVar("_Body")


async def read_body(request: web.Request, kind: type[_Body]) -> _Body:
    """The JSON body as the type that it has to be. Raises ``Trouble``: not_json, too_large, too_slow, malformed."""
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() != "utf-8":
        raise Trouble("not_json", "Send `Content-Type: application/json`.")
    if "Content-Encoding" in request.headers:
        raise Trouble("not_json", "Send the body as it is, without Content-Encoding.")
    if (request.content_length or 0) > BODY_BYTES:
        raise Trouble("too_large", f"A body has {BODY_BYTES} bytes at the most.")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Trouble("too_large", f"A body has {BODY_BYTES} bytes at the most.") from None
    except TimeoutError:
        raise Trouble("too_slow", f"The body did not come within {BODY_SECONDS:g} s.") from None
    return decode(raw, kind)


def decode(raw: bytes, kind: type[_Body]) -> _Body:
    """JSON (RFC 8259) as a type; repeated keys, NaN, unknown keys and what is nested too deep are refused."""
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)
        _measure(data, DEEPEST)
        return msgspec.convert(data, kind, strict=True)
    except RecursionError:
        raise Trouble("malformed", "This is nested too deep.") from None
    except UnicodeDecodeError:
        raise Trouble("malformed", "This is not UTF-8.") from None
    except msgspec.ValidationError as error:
        raise Trouble("malformed", f"{error}.") from None
    except ValueError as error:
        raise Trouble("malformed", f"This is not JSON: {error}.") from None


def query_of(request: web.Request, known: frozenset[str], lists: frozenset[str] = frozenset()) -> dict[str, str]:
    """The query, each parameter once but for ``lists``; unknown ones are refused. Raises ``Trouble``."""
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in known and name not in lists:
            raise Trouble("malformed", f"There is no parameter {name[:60]!r} here: {', '.join(sorted(known | lists))}.")
        if name in found and name not in lists:
            raise Trouble("malformed", f"{name} is there twice.")
        found.setdefault(name, value)
    return found


def number_of(query: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    """A whole number of a query. Raises ``Trouble``."""
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15 or not least <= int(text) <= most:
        raise Trouble("malformed", f"{name} is a whole number from {least} to {most}.")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise ValueError(f"the key {twice[:60]!r} is there twice")
    return made


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _measure(data: Any, left: int) -> None:
    if left == 0:
        raise Trouble("malformed", f"This is nested deeper than {DEEPEST} levels.")
    if isinstance(data, dict):
        for value in data.values():
            _measure(value, left - 1)
    elif isinstance(data, list):
        for value in data:
            _measure(value, left - 1)
