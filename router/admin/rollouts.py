"""The API's rollouts: how each stands and what came of it; start one, and tell the one that runs what to do."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web

from router.admin import bodies, intake
from router.admin.openapi import ROLLOUT
from router.admin.reads import VIEW, give
from router.admin.shapes import Rollouts, RolloutSummary
from router.admin.trouble import Trouble
from router.admin.writes import CALLER, check_reason
from router.rollout.observation import VERBS, Verb
from router.rollout.progress import Progress
from router.rollout.report import markdown, report

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes() -> list[tuple[str, str, Handler]]:
    """Method, path below ``/api/v1``, handler."""
    return [
        ("GET", "/rollouts", _all), ("GET", ROLLOUT, _one), ("GET", f"{ROLLOUT}/report", _report),
        ("POST", ROLLOUT, _start),
        *(("POST", f"{ROLLOUT}/{verb}", _order(verb)) for verb in VERBS),
    ]  # fmt: skip


async def _all(request: web.Request) -> web.Response:
    view = request.app[VIEW]
    found = (view.progress_of(service) for service in view.state()["services"])
    return give(Rollouts([_summary(progress) for progress in found if progress is not None]))


async def _one(request: web.Request) -> web.Response:
    intake.query_of(request, frozenset())
    return give(_progress(request))


async def _report(request: web.Request) -> web.Response:
    form = intake.query_of(request, frozenset({"format"})).get("format", "json")
    if form not in ("json", "markdown"):
        raise Trouble("malformed", "format is json or markdown.")
    progress = _progress(request)
    if form == "json":
        return give(report(progress))
    return web.Response(text=markdown(progress), content_type="text/markdown", charset="utf-8")


async def _start(request: web.Request) -> web.Response:
    service = _service(request)
    wanted = await intake.read_body(request, bodies.StartRollout)
    return await _done(
        request, service, "start", wanted.reason, lambda actor: request.app[VIEW].start_rollout(service, wanted, actor)
    )


def _order(verb: Verb) -> Handler:
    async def give_order(request: web.Request) -> web.Response:
        service = _service(request)
        wanted = await intake.read_body(request, bodies.ORDERS[verb])
        return await _done(
            request, service, verb, wanted.reason, lambda actor: request.app[VIEW].order(service, verb, wanted, actor)
        )

    return give_order


async def _done(
    request: web.Request, service: str, verb: str, reason: str, do: Callable[[str], Awaitable[Progress]]
) -> web.Response:
    """Do it, and say in the log what came of it."""
    check_reason(reason)
    actor = request[CALLER].name or "?"
    log = structlog.get_logger().bind(actor=actor, service=service, rollout=verb, address=request.remote)
    try:
        progress = await do(actor)
    except Trouble as trouble:
        log.warning(f"not done: {trouble.detail}", code=trouble.code, reason=reason)
        raise
    log.info(f"done: {progress.headline}", reason=reason, id=progress.id)
    return give(progress)


def _service(request: web.Request) -> str:
    """Of the path, and there. Raises ``Trouble``."""
    name = request.match_info["service"]
    if not re.fullmatch(bodies.SERVICE, name) or request.app[VIEW].service_state(name) is None:
        raise Trouble("not_found", "There is no service of this name.")
    return name


def _progress(request: web.Request) -> Progress:
    service = _service(request)
    progress = request.app[VIEW].progress_of(service)
    if progress is None:
        raise Trouble("not_found", f"{service} has had no rollout yet. Start one: ring-router rollout start plan.yaml")
    return progress


def _summary(one: Progress) -> RolloutSummary:
    names: tuple[str, ...] = RolloutSummary.__struct_fields__
    fields: dict[str, Any] = {name: getattr(one, name) for name in names}
    return RolloutSummary(**{**fields, "steps": len(one.steps)})
