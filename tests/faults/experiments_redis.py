"""Redis down, stopped, replaced and emptied. Rows 35 to 39."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Final

from redis.exceptions import RedisError

from tests.faults.experiments_clients import meanwhile
from tests.faults.experiments_processes import COUNTERS_BEGIN_ANEW, without_a_line
from tests.faults.findings import Findings
from tests.faults.live import (
    BY_USER,
    ERRORS,
    LIVE,
    STALENESS,
    USERS,
    WEIGHTS,
    ask,
    change,
    is_applied,
    judge,
    moved,
    refused,
    store_state,
    weight,
)
from tests.faults.load import Load, Shape
from tests.faults.processes import ROOT
from tests.faults.restart import restarted, unobserved
from tests.faults.rig import Experiment, Stage
from tests.faults.sentinels import Sentinels, command, replica_of
from tests.waiting import until

_PAUSE: Final = 0.02


# -- away --------------------------------------------------------------------------------------------------------------


async def down_at_start(stage: Stage, found: Findings) -> None:
    assert stage.redis is not None
    await change(stage, 30)
    kept = stage.directory / "state" / "live-shop.json"
    await until(lambda: kept.exists() and '"canary": 3000' in kept.read_text(), within=10)
    async with stage.load(BY_USER) as load:
        await load.some("before", 2 * USERS)
    async with unobserved(stage):
        await stage.router.stop()
        stage.redis.running.kill()
        began = time.monotonic()
        await stage.start_router()
        ready = time.monotonic() - began
    said = (await asyncio.to_thread(stage.router.get, "/ready")).decode().strip()
    async with stage.load(BY_USER) as again:
        await again.some("after", stage.many(3200, 2 * USERS))
    outcomes = [*load.outcomes, *again.outcomes]
    found.timed("ready after", ready, most=2, unit="s")
    found.holds(f"it says {said!r}", "degraded" in said)
    found.counted("failed requests", len(load.bad()) + len(again.bad()), most=0)
    found.counted(f"of {USERS} users in another ring than before", moved(outcomes), most=0)
    found.counted("good answers without exactly one line", await without_a_line(stage, outcomes), most=0)
    await asyncio.to_thread(stage.redis.start)
    await until(lambda: _is(stage, "live"), within=10)
    found.timed("a change is followed again within", await change(stage, 35), most=2, unit="s")


async def _is(stage: Stage, state: str) -> bool:
    return await store_state(stage) == state


async def killed(stage: Stage, found: Findings) -> None:
    assert stage.redis is not None
    await change(stage, 30)
    async with stage.load(BY_USER) as load:
        await load.some("before", stage.many(1600, USERS))
        errors, began = await stage.router.count(ERRORS), time.monotonic()
        stage.redis.running.kill()
        await load.some("fault", stage.many(2000, 2 * USERS))
        tried = (await stage.router.count(ERRORS) - errors) / (time.monotonic() - began)
        await asyncio.to_thread(stage.redis.start)
        still = await weight(stage)
        load.phase = "changed"
        fresh = await change(stage, 40)
        await load.some("after", stage.many(3200, USERS))
    judge(load, found, 1.05)
    found.counted("users moved while it was away", moved(load.of("before", "fault")), most=0)
    found.holds("the weight stayed", still == 30)
    found.timed("fresh data after the restart", fresh, most=2, unit="s")
    found.timed("attempts to connect per second (control's alone: workers never do)", tried, most=2, unit="/s")


async def paused(stage: Stage, found: Findings) -> None:
    """``CLIENT PAUSE … ALL``, then SIGSTOP."""
    assert stage.redis is not None
    await change(stage, 30)
    seen: list[tuple[float, float]] = []
    async with stage.load(BY_USER) as load:
        await load.some("before", stage.many(1600, USERS))
        load.phase = "fault"
        after_pause = 0.0 if stage.is_short else await _paused_by_command(stage, load)
        stage.redis.running.send(signal.SIGSTOP)
        try:
            ends = time.monotonic() + stage.many(20, 3)
            load.phase = "fault"
            while time.monotonic() < ends:
                seen.append((time.monotonic(), await stage.router.count(STALENESS)))
                await asyncio.sleep(0.2)
        finally:
            stage.redis.running.send(signal.SIGCONT)
        load.phase = "changed"
        after_stop = await change(stage, 32)
        await load.some("after", stage.many(3200, USERS))
    judge(load, found, 1.05)
    late = [one for one in seen if one[0] > seen[0][0] + 1.5]
    slope = (late[-1][1] - late[0][1]) / (late[-1][0] - late[0][0])
    found.counted("staleness per second of standstill", slope, most=1.05, least=0.95)
    found.timed("a change after the pause took", after_pause, most=2, unit="s")
    found.timed("after SIGCONT", after_stop, most=2, unit="s")


async def _paused_by_command(stage: Stage, load: Load) -> float:
    """The seconds a change takes afterwards."""
    await ask(stage, "CLIENT", "PAUSE", "10000", "ALL")
    await until(lambda: _is(stage, "down"), within=10)
    await until(lambda: _is(stage, "live"), within=20)
    load.phase = "changed"
    return await change(stage, 31)


# -- other data --------------------------------------------------------------------------------------------------------


async def failover(stage: Stage, found: Findings) -> None:
    """The router is given the three Sentinels, and asks them where the primary is."""
    assert stage.redis is not None
    first = stage.redis
    second = replica_of(stage, first.port)
    sentinels = Sentinels(stage, first.port)
    await sentinels.know_each_other(1)
    backwards: list[tuple[float, float]] = []
    seconds: dict[str, float] = {}
    await restarted(stage, config={"redis": sentinels.url})
    await command(first.port, "HSET", WEIGHTS, "canary", "10", "rev", "1")
    await is_applied(stage, 10)
    async with stage.load(BY_USER) as load, stage.load(Shape(rate=0)) as beside:
        async with meanwhile(beside, _watch(stage, backwards)), _followed(beside, sentinels) as primaries:
            await load.some("before", stage.many(1600, USERS))
            load.phase = "fault"
            began = time.monotonic()
            first.running.kill()
            seconds["SIGKILL: visible after"] = await _written_by_the_next(stage, sentinels, first.port, 11) - began
            first.arguments = ["--replicaof", "127.0.0.1", str(second.port)]
            await asyncio.to_thread(first.start)
            await until(lambda: _is_copy(first.port, "11"), within=20)
            await sentinels.know_each_other(1)
            began = time.monotonic()
            second.running.send(signal.SIGSTOP)
            try:
                seconds["SIGSTOP: visible after"] = (
                    await _written_by_the_next(stage, sentinels, second.port, 12) - began
                )
            finally:
                second.running.send(signal.SIGCONT)
            with contextlib.suppress(RedisError, OSError):  # READONLY, if it has heard the news already
                await command(second.port, "HSET", WEIGHTS, "canary", "77", "rev", "77")
            await load.some("fault", stage.many(1200, USERS))
            await load.some("after", stage.many(3200, USERS))
    judge(load, found, 1.05)
    for words, took in seconds.items():
        found.timed(words, took, most=5, unit="s")
    found.counted("fail-overs", len(primaries) - 1, least=2, most=2)
    found.counted("steps backwards, or of the old primary", len(backwards), most=0)


async def _watch(stage: Stage, backwards: list[tuple[float, float]]) -> None:
    """What control applies only grows here, by one."""
    last = await weight(stage)
    while True:
        now = await weight(stage)
        if now < last or now > last + 1:
            backwards.append((last, now))
        last = now
        await asyncio.sleep(_PAUSE)


@contextlib.asynccontextmanager
async def _followed(load: Load, sentinels: Sentinels) -> AsyncIterator[list[int]]:
    """Every primary that the Sentinels name until the block ends, in turn."""
    primaries = [await sentinels.primary()]
    is_over = asyncio.Event()  # not a cancellation: a client of Redis may take it for a time-out of its own

    async def follow() -> None:
        while not is_over.is_set():
            with contextlib.suppress(RedisError, OSError):
                primary = await sentinels.primary()
                if primary != primaries[-1]:
                    primaries.append(primary)
            await asyncio.sleep(_PAUSE)

    load.start(follow())
    try:
        yield primaries
    finally:
        is_over.set()


async def _written_by_the_next(stage: Stage, sentinels: Sentinels, gone: int, percent: int) -> float:
    """Write to the new primary as soon as there is one; when that was applied."""

    async def is_written() -> bool:
        with contextlib.suppress(RedisError, OSError):
            primary = await sentinels.primary()
            if primary != gone:
                await command(primary, "HSET", WEIGHTS, "canary", str(percent), "rev", str(percent))
                return True
        return False

    await until(is_written, within=30)
    await is_applied(stage, percent, within=20)
    return time.monotonic()


async def _is_copy(port: int, percent: str) -> bool:
    with contextlib.suppress(RedisError, OSError):
        return await command(port, "HGET", WEIGHTS, "canary") == percent.encode()
    return False


async def wiped(stage: Stage, found: Findings) -> None:
    assert stage.redis is not None
    await change(stage, 30)
    seconds: dict[str, float] = {}
    async with stage.load(BY_USER) as load:
        await load.some("before", stage.many(1600, USERS))
        began = time.monotonic()
        await ask(stage, "FLUSHALL")
        load.phase = "fault"
        await until(lambda: _complains(stage, "weights"), within=20)
        seconds["FLUSHALL"] = time.monotonic() - began
        await load.some("fault", stage.many(1600, USERS))
        await ask(stage, "HSET", WEIGHTS, "canary", "30")
        await until(lambda: _is_content(stage), within=10)
        began = time.monotonic()
        stage.redis.running.kill()
        await asyncio.to_thread(stage.redis.start)
        await until(lambda: _complains(stage, "weights"), within=20)
        seconds["an empty server in its place"] = time.monotonic() - began
        await load.some("fault", stage.many(1600, USERS))
        still = await weight(stage)
        load.phase = "reset"
        words = ["weights", "reset", "-c", str(stage.config), "--reason", "the data is gone"]
        reset = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "router.cli", *words, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL
        )
        code = await reset.wait()
        took = await is_applied(stage, 0)
        await load.some("after", stage.many(3200, USERS))
    found.none("errors", load.bad())
    found.counted("users in another ring", moved(load.of("before", "fault")), most=0)
    found.holds("the weight stayed", still == 30)
    for words_, one in seconds.items():
        found.timed(f"{words_}: said after", one, most=5, unit="s")
    found.holds(f"`weights reset` works (exit code {code}), applied {took:.2f} s later", code == 0)


async def _complains(stage: Stage, word: str) -> bool:
    return any(word in sentence for sentence in await refused(stage))


async def _is_content(stage: Stage) -> bool:
    return not await refused(stage)


EXPERIMENTS = [
    Experiment(
        35, "Redis down at the start",
        "start from the last snapshot on disk; readiness says degraded",
        "ready ≤ 2 s; 0 failed requests; the rings are those of the snapshot", down_at_start, LIVE,
        waived={"I7": COUNTERS_BEGIN_ANEW},
    ),
    Experiment(
        36, "Redis SIGKILLed under load, started again (empty) after 5 s", "no request waits for Redis",
        "0 errors; p99 ≤ 1.05x; fresh data ≤ 2 s after the restart; ≤ 2 attempts to connect per second", killed, LIVE,
    ),
    Experiment(
        37, "Redis paused: `CLIENT PAUSE 10000 ALL`, then SIGSTOP for 20 s",
        "a time-out for reads, the old state is kept",
        "0 errors; staleness grows as the clock does; a change is followed ≤ 2 s later", paused, LIVE,
    ),
    Experiment(
        38, "primary replaced through 3 Sentinels (down after 1 s): SIGKILL; SIGSTOP of its successor, which returns",
        "follow the new primary; never apply a write of the old one afterwards",
        "0 errors; new data visible ≤ 5 s; 0 steps backwards", failover, LIVE,
    ),
    Experiment(
        39, "data wiped: `FLUSHALL`, then an empty server in its place",
        "an empty store is no configuration: keep the last known good, say so",
        "0 ring changes; said ≤ 5 s; an explicit reset works", wiped, LIVE,
    ),
]  # fmt: skip
