"""Taking endpoints out of service on purpose, and back: the field ``drain`` that anybody can HSET, plus an audit trail.

Judged by the watcher's own parser and written in one MULTI … EXEC that fails if somebody else was faster. It must never
lift a kill or a freeze by the way, and never write what an instance would refuse.
"""

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
from redis.exceptions import WatchError

from router.control.in_force import FRESH_SECONDS
from router.control.keys import RawFault, RawService, key_of
from router.control.parse import parse
from router.control.rules import ServiceRules
from router.control.weights import ATTEMPTS, AUDIT_LENGTH, UNSET, Current, Refused, actor, read_current

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
    for _ in range(ATTEMPTS):
        try:
            return await _try_change(client, rules, address, out_of_service, reason)
        except WatchError:
            continue
    raise Refused(f"somebody else keeps changing {key_of(rules.name, 'control')}: try again")


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


async def _try_change(client: Redis, rules: ServiceRules, address: str, out_of_service: bool, reason: str) -> Drained:
    key = key_of(rules.name, "control")
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch(key)
        current = await read_current(client, rules)
        before = current.parsed.live.drained
        after = (*before, address) if out_of_service else tuple(one for one in before if one != address)
        if address in before and out_of_service:
            after = before
        fields = _fields(current, after)
        judged = parse(RawService(control=fields), rules, current.parsed.live, time.time())
        wrong = [problem.message for problem in judged.problems if problem.key == key]
        if isinstance(current.raw.control, RawFault) or wrong:
            raise Refused(" ".join(wrong or [one.message for one in current.parsed.problems if one.key == key]))
        change = Drained(before, after, shlex.join(["HSET", key, "drain", " ".join(after)]))
        if before == after:
            return change
        pipe.multi()  # type: ignore[no-untyped-call]
        pipe.hset(key, mapping=cast("Any", fields))
        who, host = actor()
        entry = {
            "actor": who, "host": host, "action": "drain" if out_of_service else "undrain", "field": "drain",
            "from": ",".join(before) or UNSET, "to": ",".join(after) or UNSET, "reason": reason,
            "rev": current.revision, "at": f"{time.time():.3f}",
        }  # fmt: skip
        pipe.xadd(key_of(rules.name, "audit"), cast("Any", entry), maxlen=AUDIT_LENGTH, approximate=True)
        await pipe.execute()
        return change


def _fields(current: Current, drained: tuple[str, ...]) -> dict[bytes, bytes]:
    """The hash with another ``drain``.

    Where it is missing, instances hold the kills and the freeze that they know: a hash that is there again without
    them would lift them.
    """
    live = current.parsed.live
    fields = {} if isinstance(current.raw.control, RawFault) else dict(current.raw.control)
    if not fields:
        held = {b"kill": " ".join(live.killed).encode(), b"freeze": live.freeze.encode()}
        fields = {name: value for name, value in held.items() if value}
    return {**fields, b"drain": " ".join(drained).encode()}
