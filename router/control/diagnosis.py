"""What ``doctor`` finds in Redis: whether it is near, what it lets us do, and whether it keeps what it is told.

Nothing is changed: what has to be allowed is tried with deletions of a field that nobody has.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from router.control.diagnosis_rollouts import of_rollouts
from router.control.finding import NOBODY, Finding, say
from router.control.keys import HASHES, key_of
from router.control.link import TROUBLE, error_text, hang_up, make_client, safe_url

SLOW_SECONDS: Final = 0.02
SKEW_SECONDS: Final = (1.0, 10.0)
"""Passes, freezes and statuses have times in them: doubtful, and bad."""
MOST_SERVICES: Final = 100


def of_redis(url: str | None, services: list[str]) -> list[Finding]:
    """Of the Redis at a URL."""
    if url is None:
        return [Finding("warning", "there is no `redis:`: weights change with the config file alone", "set `redis:`")]
    return asyncio.run(_ask(url, services))


async def _ask(url: str, services: list[str]) -> list[Finding]:
    client = make_client(url)
    try:
        found = [await _latency(client, url)]
        found.append(await _clock(client))
        for look in (_rights, of_rollouts, _ttl):
            found += await look(client, services)
        found += await _keeping(client)
    except TROUBLE as error:
        remedy = "is it running, is the address right, does a firewall stand between?"
        return [Finding("bad", f"Redis {safe_url(url)} cannot be asked: {error_text(error)}", remedy)]
    finally:
        await hang_up(client)
    return found


async def _latency(client: Redis, url: str) -> Finding:
    durations = []
    for _ in range(20):
        before = time.perf_counter()
        await say(client, "PING")
        durations.append(time.perf_counter() - before)
    median = statistics.median(durations)
    said = f"Redis {safe_url(url)} answers in {1000 * median:.2f} ms (median of {len(durations)})"
    if median > SLOW_SECONDS:
        return Finding("warning", said, "changes take as long to arrive: put it nearer")
    return Finding("ok", said)


async def _clock(client: Redis) -> Finding:
    before = time.time()
    try:
        seconds, micros = await say(client, "TIME")
    except ResponseError as error:
        said = f"the clocks of Redis and this machine cannot be compared: {error_text(error)}"
        return Finding("warning", said, "allow TIME (ACL SETUSER … +time)")
    skew = int(seconds) + int(micros) / 1e6 - (before + time.time()) / 2
    said = f"the clocks of Redis and this machine differ by {abs(skew):.2f} s"
    doubtful, bad = SKEW_SECONDS
    if abs(skew) > doubtful:
        return Finding("bad" if abs(skew) > bad else "warning", said, "let both follow NTP")
    return Finding("ok", said)


async def _rights(client: Redis, services: list[str]) -> list[Finding]:
    """What the ACL allows; one service stands for all."""
    if not services:
        return []
    status, audit, weights = (key_of(services[0], name) for name in ("status", "audit", "weights"))
    needed: dict[str, tuple[Any, ...]] = {
        "read what operators change": ("HGETALL", weights),
        "be told of changes": ("CLIENT", "TRACKING", "OFF"),
        "say what it has applied": ("HDEL", status, NOBODY),
        "exchange figures": ("HDEL", f"{key_of(services[0], 'stats')}:0", NOBODY),
        "tell what a rollout rests on": ("HDEL", f"{key_of(services[0], 'evidence')}:0", NOBODY),
        "read the audit": ("XREVRANGE", audit, "+", "-", "COUNT", "1"),
        "count people": ("PFCOUNT", f"{key_of(services[0], 'seen')}:00:0"),
        "change weights for the API": ("HDEL", weights, NOBODY),
        "write the audit": ("XTRIM", audit, "MAXLEN", "~", "1000000000"),
    }
    refused, rights = [], []
    for what, words in needed.items():
        try:
            await say(client, *words)
        except ResponseError as error:
            said = error_text(error)
            if "WRONGTYPE" in said:
                continue
            refused.append(what)
            rights.append(" ".join(words[:2]) if words[0] == "CLIENT" else str(words[0]))
    if not refused:
        return [Finding("ok", "the router may do in Redis all that it needs")]
    remedy = f"allow it {', '.join(dict.fromkeys(rights))} on rings:* (ACL SETUSER)"
    return [Finding("warning", f"Redis does not let the router {', '.join(refused)}", remedy)]


async def _ttl(client: Redis, services: list[str]) -> list[Finding]:
    """Keys that end by themselves take the weights with them."""
    keys = [key_of(service, name) for service in services[:MOST_SERVICES] for name in HASHES]
    ending = [key for key in keys if await say(client, "TTL", key) >= 0]
    if ending:
        remedy = f"`PERSIST {ending[0]}`, and whoever sets it should not"
        return [Finding("bad", f"{', '.join(ending)} will end by themselves (TTL)", remedy)]
    return [Finding("ok", "no key of the operators has a TTL")]


async def _keeping(client: Redis) -> list[Finding]:
    """Whether what operators change is still there when memory is short, and after a restart."""
    try:
        info: dict[str, Any] = await client.info()
    except ResponseError as error:
        said = f"whether Redis keeps what it is told cannot be seen: {error_text(error)}"
        return [Finding("warning", said, "allow INFO, or look at maxmemory-policy and appendonly there")]
    policy = str(info.get("maxmemory_policy", "noeviction"))
    found = [
        Finding("bad", f"Redis may throw weights away when memory is short (maxmemory-policy {policy})",
                "`CONFIG SET maxmemory-policy noeviction`, or a Redis of its own")
        if policy.startswith("allkeys")
        else Finding("ok", f"Redis throws no weights away (maxmemory-policy {policy})")
    ]  # fmt: skip
    saves = info.get("aof_enabled") or int(info.get("connected_slaves", 0)) or await _saves(client)
    if not saves:
        said = "Redis keeps nothing over a restart (no save, no appendonly, no replica)"
        found.append(Finding("warning", said, "`CONFIG SET appendonly yes`; routers go on with what they knew last"))
    return found


async def _saves(client: Redis) -> bool:
    try:
        return bool((await client.config_get("save")).get("save"))
    except ResponseError:
        return True  # it is not said, so nothing is said of it
