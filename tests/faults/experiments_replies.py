"""Redis says what cannot be meant, says nothing useful, says it late, or forgets to say it. Rows 40 to 43."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Final

from redis.exceptions import RedisError

from router.control.link import make_client
from tests.faults.experiments_machine import lag_watched
from tests.faults.findings import Findings
from tests.faults.live import (
    BY_USER,
    CONTROL,
    LIVE,
    USERS,
    VERSIONS,
    WEIGHTS,
    ask,
    behind_a_shim,
    change,
    is_applied,
    judge,
    moved,
    refused,
    store_state,
    weight,
)
from tests.faults.processes import resident
from tests.faults.rig import Experiment, Stage
from tests.faults.shim import Script, to_all, to_reads
from tests.waiting import until

GOOD: Final = "30"
_PIECE: Final = 1000


def poisons(stage: Stage) -> Iterator[tuple[str, tuple[str | bytes, ...]]]:
    """A name, and one command; whatever else it writes is a good 44 for the canary, which must not be taken either."""
    size = stage.many(10_000_000, 100_000)
    yield "a string where a hash is expected", ("SET", WEIGHTS, "30")
    for value in ("NaN", "-1", "101", "1e1", "5.123", "{", "", "٤٤", " 44", "0x2c"):
        yield f"{value!r}", ("HSET", WEIGHTS, "canary", value)
    yield f"{size / 1e6:g} MB value", ("HSET", WEIGHTS, "canary", "4" * size)
    yield "unknown ring", ("HSET", WEIGHTS, "canary", "44", "canaries", "1")
    yield "the default ring", ("HSET", WEIGHTS, "canary", "44", "everyone", "56")
    yield "NUL in a name", ("HSET", WEIGHTS, "canary", "44", b"ca\0nary", "1")
    yield "CRLF in a name", ("HSET", WEIGHTS, "canary", "44", b"x\r\nHost: evil", "1")
    yield "bytes that are no text", ("HSET", WEIGHTS, "canary", "44", b"\xff\xfe", b"\xff")
    yield "unknown version", ("HSET", VERSIONS, "canary", "v9")
    yield "version of an unknown ring", ("HSET", VERSIONS, "nobody", "v1")
    yield "kill of an unknown ring", ("HSET", CONTROL, "kill", "nobody")
    yield "unknown field in control", ("HSET", CONTROL, "kil", "canary")


async def poisoned(stage: Stage, found: Findings) -> None:
    await change(stage, 30)
    silent: list[str] = []
    partial: list[str] = []
    said = 0
    async with stage.load(BY_USER) as load, lag_watched(stage) as lags:
        await load.some("before", stage.many(1600, USERS))
        everybody = [stage.router.control_pid(), *stage.router.workers()]
        before = resident(everybody)
        load.phase = "fault"
        for name, words in poisons(stage):
            await ask(stage, *words)
            said += await _is_said(stage, name, silent)
            if await weight(stage) != 30:
                partial.append(name)
            await _heal(stage)
        count = stage.many(1_000_000, 3000)
        await _crowded(stage, count)
        said += await _is_said(stage, f"{count} fields", silent)
        if await weight(stage) != 30:
            partial.append(f"{count} fields")
        await _heal(stage)
        grown = (resident(everybody) - before) / 2**20
        await load.some("fault", 20)
        await load.some("after", stage.many(3200, USERS))
    found.note(f"{said} kinds of poison refused and reported")
    found.none("not reported", silent)
    found.none("applied in part", partial)
    found.none("errors", load.bad())
    found.counted("users moved", moved(load.outcomes), most=0)
    found.timed("longest stall of a worker's loop", max(lags), most=20)
    found.size("control and workers grew by", grown, most=20)


async def _is_said(stage: Stage, name: str, silent: list[str]) -> bool:
    async def is_so() -> bool:
        return bool(await refused(stage))

    try:
        await until(is_so, within=20)
    except AssertionError:
        silent.append(name)
        return False
    return True


async def _heal(stage: Stage) -> None:
    """A whole good state in one step."""
    assert stage.redis is not None
    client = make_client(stage.redis.url)
    async with client.pipeline(transaction=True) as pipe:
        pipe.unlink(WEIGHTS, VERSIONS, CONTROL)
        pipe.hset(WEIGHTS, "canary", GOOD)
        await pipe.execute()
    await client.aclose()

    async def is_content() -> bool:
        return all("control" in sentence or "versions" in sentence for sentence in await refused(stage))

    await until(is_content, within=20)


async def _crowded(stage: Stage, count: int) -> None:
    assert stage.redis is not None
    client = make_client(stage.redis.url)
    for begin in range(0, count, _PIECE):
        names = {f"user-{number}": "1" for number in range(begin, min(count, begin + _PIECE))}
        await client.hset(WEIGHTS, mapping=names)
    await client.aclose()


# -- replies -----------------------------------------------------------------------------------------------------------

REPLIES: Final[dict[str, Script]] = {
    "-LOADING": to_all(b"-LOADING Redis is loading the dataset in memory\r\n"),
    "-NOAUTH": to_all(b"-NOAUTH Authentication required.\r\n"),
    "-READONLY": to_reads(b"-READONLY You can't write against a read only replica.\r\n"),
    "-OOM": to_reads(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"),
    "-MOVED": to_reads(b"-MOVED 3999 127.0.0.1:6381\r\n"),
    "half a reply": to_reads(b"*3\r\n$5\r\nab"),
    "the wrong type": to_reads(b":42\r\n"),
    "no RESP at all": to_reads(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}


async def scripted(stage: Stage, found: Findings) -> None:
    seconds = 0.0
    unnoticed: list[str] = []
    shim = await behind_a_shim(stage)
    await change(stage, 30)
    async with stage.load(BY_USER) as load:
        await load.some("before", stage.many(1600, USERS))
        lines = stage.router.said().count("\n")
        for name, script in _replies(stage):
            began = time.monotonic()
            shim.script = script
            shim.cut()
            load.phase = "fault"
            told = shim.answered + stage.many(2, 1)
            await until(lambda told=told: shim.answered >= told, within=15)
            if not await _is_state(stage, "down"):
                unnoticed.append(name)
            await load.some("fault", stage.many(1200, 20))
            seconds += time.monotonic() - began
        lines = stage.router.said().count("\n") - lines
        still = await weight(stage)
        connects = len([at for at in shim.connected if at > time.monotonic() - seconds])
        shim.script = None
        shim.cut()
        load.phase = "healed"
        fresh = await change(stage, 31)
        await load.some("after", stage.many(3200, USERS))
    judge(load, found, 1.05)
    found.note(f"{stage.many(len(REPLIES), 3)} kinds of reply, {seconds:.0f} s")
    found.none("taken for an answer", unnoticed)
    found.holds("the weight stayed", still == 30)
    found.counted("users moved", moved(load.of("before", "fault")), most=0)
    found.timed("log lines per second", lines / seconds, most=1, unit="/s")
    found.timed("connects per second", connects / seconds, most=4, unit="/s")
    found.timed("a change afterwards took", fresh, most=4, unit="s")


def _replies(stage: Stage) -> list[tuple[str, Script]]:
    """All, or each third."""
    return list(REPLIES.items())[:: stage.many(1, 3)]


async def _is_state(stage: Stage, state: str) -> bool:
    async def is_so() -> bool:
        return await store_state(stage) == state

    try:
        await until(is_so, within=10)
    except AssertionError:
        return False
    return True


async def slow(stage: Stage, found: Findings) -> None:
    shim = await behind_a_shim(stage)
    await change(stage, 30)
    async with stage.load(BY_USER) as load:
        await load.some("before", stage.many(1600, USERS))
        shim.delay_seconds = 0.5
        load.phase = "change"
        took = await change(stage, 31)
        await load.some("fault", stage.many(4000, USERS))
        took = max(took, await change(stage, 32))
        shim.delay_seconds = 0.0
        await load.some("after", stage.many(3200, USERS))
    judge(load, found, 1.02)
    found.timed("a change took", took, most=3, unit="s")


async def silenced(stage: Stage, found: Findings) -> None:
    """The router has no pubsub connection: it hears of changes on the connection it reads from, which is killed too."""
    seconds: dict[str, float] = {}
    shim = await behind_a_shim(stage)
    await change(stage, 30)
    async with stage.load(BY_USER) as load:
        await load.some("before", stage.many(1600, USERS))
        load.phase = "fault"
        for turn in range(stage.many(10, 2)):
            shim.loses_pushes = True
            took = await change(stage, 40 + turn)
            seconds["pushes lost"] = max(seconds.get("pushes lost", 0.0), took)
            shim.loses_pushes = False
            began = time.monotonic()
            await asyncio.gather(
                ask(stage, "HSET", WEIGHTS, "canary", str(60 + turn)),
                _killed(stage, "pubsub"),
                _killed(stage, "normal"),
            )
            await is_applied(stage, 60 + turn)
            took = time.monotonic() - began
            seconds["connections killed"] = max(seconds.get("connections killed", 0.0), took)
        await load.some("after", stage.many(3200, USERS))
    found.none("errors", load.bad())
    found.counted("pushes lost", shim.pushes_lost, least=1)
    for words, longest in seconds.items():
        found.timed(f"{words}: both workers agree after", longest, most=5, unit="s")


async def _killed(stage: Stage, kind: str) -> None:
    try:
        await ask(stage, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    except (RedisError, OSError):
        return  # it was this one's own connection


EXPERIMENTS = [
    Experiment(
        40, "poison: wrong types, NaN, negative, 101 %, 10 MB, unknown names, NUL and CRLF, a million fields",
        "the whole hash is refused, the error reported, the old state stays",
        "0 errors; 0 partial updates; loop stall ≤ 20 ms; control and workers + ≤ 20 MiB", poisoned, LIVE,
    ),
    Experiment(
        41, "Redis answers `-LOADING`, `-NOAUTH`, `-READONLY`, `-OOM`, `-MOVED`, half a reply, a wrong type, no RESP",
        "as if it were away, with back-off", "0 errors; ≤ 1 log line per second", scripted, LIVE,
    ),
    Experiment(
        42, "500 ms for each command of Redis", "no command on the way of a request", "p99 ≤ 1.02x", slow, LIVE,
    ),
    Experiment(
        43, "notifications lost, and `CLIENT KILL` of every connection during a change", "read again from time to time",
        "the new state everywhere ≤ 5 s", silenced, LIVE,
    ),
]  # fmt: skip
