"""The API's writes: a body in, one lever pulled, and a line in the log whatever came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from router.admin import bodies, intake
from router.admin.auth import Caller
from router.admin.reads import VIEW, give
from router.admin.trouble import Trouble

CALLER: Final = web.RequestKey("caller", Caller)
"""Where a request keeps who asks."""

LEVERS: Final[dict[str, type[bodies.Change] | type[bodies.Reload]]] = {
    "/weights": bodies.SetWeights,
    "/versions": bodies.SetVersions,
    "/kill": bodies.SetKilled,
    "/freeze": bodies.SetFrozen,
    "/members": bodies.ChangeMembers,
    "/drain": bodies.SetDrained,
    "/undo": bodies.Undo,
    "/reload": bodies.Reload,
}
"""Path below ``/api/v1`` → what its body is."""


def lever(path: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of one of them."""
    kind = LEVERS[path]

    async def pull(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        actor = caller.name or "?"
        log = structlog.get_logger().bind(actor=actor, lever=path[1:], address=request.remote)
        wanted = await intake.read_body(request, kind)
        _check(wanted)
        try:
            done = await request.app[VIEW].change(wanted, actor)
        except Trouble as trouble:
            log.warning(f"not done: {trouble.detail}", code=trouble.code, reason=wanted.reason)
            raise
        if not done.dry_run:
            log.info(f"done: {'; '.join(done.changes) or 'nothing to change'}", reason=wanted.reason, rev=done.rev)
        return give(done)

    return pull


def check_reason(reason: str) -> None:
    """Raises ``Trouble``."""
    if not reason.isprintable():
        raise Trouble("malformed", "The reason is one line of printable text.")


def _check(wanted: bodies.Change | bodies.Reload) -> None:
    """What a type cannot say. Raises ``Trouble``."""
    check_reason(wanted.reason)
    match wanted:
        case bodies.SetWeights(weights=weights, reset=reset) if bool(weights) == reset:
            raise Trouble("malformed", "Give either weights, or reset: true.")
        case bodies.ChangeMembers(add=add, remove=remove) if not add and not remove:
            raise Trouble("malformed", "Give users to add, or to remove.")
        case bodies.ChangeMembers(add=add, remove=remove) if set(add) & set(remove):
            raise Trouble("malformed", "The same user cannot be added and removed.")
        case _:
            pass
