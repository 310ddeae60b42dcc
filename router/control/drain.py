"""Taking endpoints out of service on purpose, and back (``levers``), and waiting until every instance has done so."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis

from router.control.in_force import FRESH_SECONDS
from router.control.keys import key_of
from router.control.levers import set_drained
from router.control.rules import ServiceRules

APPLIED_SECONDS: Final = 5.0
"""An instance reads a change within milliseconds, at the latest with its heartbeat, and says so at once."""
LOOK_AGAIN_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Drained:
    """A change of what is drained; ``before`` and ``after`` are equal when there was nothing to do."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    command: str
    """What would have done the same by hand."""


async def change_drain(
    client: Redis, rules: ServiceRules, address: str, *, out_of_service: bool, reason: str = ""
) -> Drained:
    """Add an address to what is drained, or take it out. Raises ``Refused`` before anything is written."""
    change = await set_drained(client, rules, address, out_of_service, reason=reason)
    before = change.live.drained if change.before is None else change.before.drained
    after = change.live.drained
    return Drained(before, after, shlex.join(["HSET", key_of(rules.name, "control"), "drain", " ".join(after)]))


async def applied_by(
    client: Redis, service: str, wanted: tuple[str, ...], within: float = APPLIED_SECONDS
) -> dict[str, bool]:
    """Instance → whether it says that exactly these addresses are drained; waits until all of them do, or ``within``.

    Instances that have not written for a minute are not waited for: they may be gone.
    """
    deadline = time.monotonic() + within
    while True:
        fields: Mapping[Any, Any] = await cast("Awaitable[Any]", client.hgetall(key_of(service, "status")))
        said: dict[str, bool] = {}
        for instance, text in fields.items():
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                report = json.loads(text)
                if report["at"] > time.time() - FRESH_SECONDS:
                    said[instance.decode("utf-8", "replace")] = set(report.get("drained", ())) == set(wanted)
        if (said and all(said.values())) or time.monotonic() >= deadline:
            return said
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
