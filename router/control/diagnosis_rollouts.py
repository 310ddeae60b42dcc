"""What ``doctor`` finds of rollouts: whether Redis lets anybody lead one, and whether the ones under way are led.

A script is tried on a scratch key of its own, which it deletes again; the rollout's keys with commands that leave them
as they are.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from router.config.values import parse_duration
from router.control.finding import NOBODY, Finding, say
from router.control.keys import key_of
from router.control.leading import COMMANDS, LEASE_SECONDS, OBSERVED, ROLLOUT, SEEN
from router.control.link import error_text
from router.control.rollouts import decode_progress

LATE_SECONDS: Final = 30.0
"""Behind three ticks: instances have two to say theirs."""
VACANT_SECONDS: Final = 3.0
"""Between two leaders there may be none for about a second."""
DEFAULT_TICK: Final = 10.0

_CALLS: Final = (
    ("HSET", ", 'n', '1'"),
    ("HGET", ", 'n'"),
    ("HDEL", ", 'n'"),
    ("XADD", ", 'MAXLEN', '~', 1, '*', 'n', '1'"),
    ("INCR", ""),
    ("SET", ", '1', 'PX', 1000"),
    ("GET", ""),
    ("PEXPIRE", ", 1000"),
    ("RPUSH", ", 'wish'"),
    ("LTRIM", ", 1, -1"),
    ("DEL", ""),
)
"""All that ``leading`` says in its scripts, and how a wish is made: Redis holds each line of a script against the
rights of whoever runs it. One by one, as Redis 7 does not say which of them it was."""
_NOTHING: Final = "return redis.call('HDEL', KEYS[1], ARGV[1])"


async def of_rollouts(client: Redis, services: list[str]) -> list[Finding]:
    """Of these services; the rights of the first stand for all."""
    found = [await _rights(client, services[0])] if services else []
    for service in services:
        found += await _leading(client, service)
    return found


async def _rights(client: Redis, service: str) -> Finding:
    def key(name: str) -> str:
        return key_of(service, name)

    needed: tuple[tuple[Any, ...], ...] = (
        *(("EVAL", _NOTHING, 1, key(name), NOBODY) for name in (ROLLOUT, SEEN, "weights", "versions", "control")),
        ("EXISTS", key("leader"), key("leader:epoch")),
        ("HGETALL", key("acks")),
        ("HDEL", key("acks"), NOBODY),
        ("LRANGE", key(COMMANDS), 0, 0),
        ("LTRIM", key(COMMANDS), 0, -1),
        ("XRANGE", key(OBSERVED), "-", "+", "COUNT", 1),
        ("XTRIM", key(OBSERVED), "MAXLEN", "~", 1_000_000_000),
    )
    refused: dict[str, str] = {}

    async def attempt(name: str, *words: Any) -> None:
        try:
            await say(client, *words)
        except ResponseError as error:
            said = error_text(error)
            if "WRONGTYPE" not in said:
                refused.setdefault(name, said)

    for command, arguments in _CALLS:
        script = f"redis.call('{command}', KEYS[1]{arguments}); redis.call('DEL', KEYS[1])"
        await attempt(f"{command} in a script", "EVAL", script, 1, key("doctor"))
    for words in needed:
        await attempt(str(words[0]), *words)
    if not refused:
        return Finding("ok", "the router may lead a rollout in Redis")
    what = "; ".join(f"{command}: {said}" for command, said in refused.items())
    return Finding(
        "warning", f"the router can lead no rollout, as Redis refuses it what that takes ({what})",
        "allow it what docs/redis.md lists for rr-instance, on rings:* (ACL SETUSER)",
    )  # fmt: skip


async def _leading(client: Redis, service: str) -> list[Finding]:
    """Nothing, where no rollout is under way."""
    try:
        raw: Any = await client.hmget(key_of(service, ROLLOUT), ["id", "progress", "plan"])
        id_, shown, plan = raw
        if id_ is None:
            return []
        progress = decode_progress(shown or b"")
        if progress is None:
            said = f"the rollout {id_.decode('utf-8', 'replace')} of {service} cannot be read: was it changed by hand?"
            return [Finding("bad", said, f"`DEL '{key_of(service, ROLLOUT)}'`, and start it anew")]
        if progress.ended_at is not None:
            return []
        holder, left = await _lease(client, service)
        seconds, micros = await say(client, "TIME")
    except ResponseError as error:
        said = f"whether the rollout of {service} is led cannot be seen: {error_text(error)}"
        return [Finding("warning", said, "allow HMGET, GET, PTTL and TIME on rings:* (ACL SETUSER)")]
    what = f"the rollout of {service} to {progress.candidate} ({progress.phase.replace('_', ' ')})"
    late = int(seconds) + int(micros) / 1e6 - progress.at
    if not holder:
        said = f"{what} has no leader, so nothing is judged, for {late:.0f} s by now"
        return [Finding("bad", said, "start a router with this Redis, or see in its log why it does not lead")]
    key = key_of(service, "leader")
    if not 0 <= left <= 1000 * LEASE_SECONDS:
        said = f"{what} can be led by nobody but {holder}: the lease {key} does not end by itself"
        return [Finding("bad", said, f"somebody has changed it by hand: `DEL '{key}'`, and whoever is there takes it")]
    if late > 3 * _tick(plan) + LATE_SECONDS:
        said = f"{what} is led by {holder}, which has judged nothing for {late:.0f} s"
        return [Finding("bad", said, "its log says why; stop that router, and another one leads after ten seconds")]
    return [Finding("ok", f"{what} is led by {holder}, and was judged {max(0.0, late):.0f} s ago")]


async def _lease(client: Redis, service: str) -> tuple[str, int]:
    """Whose it is, empty: nobody's, and how many milliseconds are left of it; -1: it does not end."""
    until = time.monotonic() + VACANT_SECONDS
    while True:
        holder: Any = await client.get(key_of(service, "leader"))
        if holder is not None:
            return holder.decode("utf-8", "replace").partition("|")[0], int(
                await client.pttl(key_of(service, "leader"))
            )
        if time.monotonic() > until:
            return "", 0
        await asyncio.sleep(VACANT_SECONDS / 10)


def _tick(plan: bytes | None) -> float:
    try:
        return parse_duration(json.loads(plan or b"{}").get("tick", DEFAULT_TICK))
    except (ValueError, AttributeError):
        return DEFAULT_TICK
