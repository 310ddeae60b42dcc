"""The API's rollouts, handed to the module that the command line starts and steers them with."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from router.admin.bodies import Ordered, Resume, StartRollout
from router.admin.trouble import Trouble
from router.control import rollouts
from router.control.authors import Author
from router.control.rules import ServiceRules
from router.control.weights import Client, Refused, Unreachable, open_redis
from router.rollout.observation import Verb
from router.rollout.progress import ENDS, Progress

if TYPE_CHECKING:
    from router.process.control import Control


async def start(control: Control, service: str, wanted: StartRollout, actor: str) -> Progress:
    """Raises ``Trouble``."""
    async with _asking(control, service) as (client, rules):
        try:
            progress = await rollouts.start(
                client, rules, wanted.plan, reason=wanted.reason, by=_author(actor), supersedes=wanted.supersedes
            )
        except Refused as refused:
            now = await rollouts.read(client, service)
            if now is not None and now.phase not in ENDS and not wanted.supersedes:
                raise _not_now(refused, now) from None
            raise Trouble("refused", str(refused)) from None
    return _heard(control, progress)


async def order(control: Control, service: str, verb: Verb, wanted: Ordered, actor: str) -> Progress:
    """Raises ``Trouble``."""
    how = wanted.how if isinstance(wanted, Resume) else ""
    async with _asking(control, service) as (client, rules):
        try:
            progress = await rollouts.command(client, rules, verb, reason=wanted.reason, by=_author(actor), how=how)
        except Refused as refused:
            raise _not_now(refused, await rollouts.read(client, service)) from None
    return _heard(control, progress)


@asynccontextmanager
async def _asking(control: Control, service: str) -> AsyncIterator[tuple[Client, ServiceRules]]:
    rules = control.rules.get(service)
    if rules is None:
        raise Trouble("not_found", f"There is no service {service}.")
    if control.redis is None:
        raise Trouble("not_available", "This router has no `redis:`, and a rollout needs one.")
    try:
        async with open_redis(control.redis) as client:
            yield client, rules
    except Unreachable as gone:
        raise Trouble("redis_away", str(gone), retry_after=1) from None


def _author(actor: str) -> Author:
    return Author(actor, socket.gethostname(), "api")


def _not_now(refused: Refused, now: Progress | None) -> Trouble:
    return Trouble("not_now", str(refused), current=None if now is None else msgspec.to_builtins(now))


def _heard(control: Control, progress: Progress) -> Progress:
    """Whoever asks this instance next is told no older one."""
    control.conductor.progress[progress.service] = progress
    return progress
