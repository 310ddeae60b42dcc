"""The router's own processes: killed, stopped, told to end, replaced, and given another config. Rows 29 to 34."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterable
from typing import Any, Final

from router.process.orphans import started_at
from tests.faults.client import End, Outcome, Request
from tests.faults.experiments_machine import lag_watched
from tests.faults.findings import Findings
from tests.faults.load import P99, Shape, get
from tests.faults.processes import resident
from tests.faults.restart import unobserved
from tests.faults.rig import Experiment, Setup, Stage
from tests.waiting import until

COUNTERS_BEGIN_ANEW: Final = "counters begin anew with the router; the access log is held against the clients instead"
CLOSING_SECONDS: Final = 0.05
"""A killed process needs a moment until its sockets are closed: what is sent meanwhile was in flight."""
_ID: Final = re.compile(rb'"target":"/([\w-]+)')
SLOWLY: Final = Setup(config={"timeouts": {"drain": "10s"}})
_BACKENDS: Final = {"v1": "ab", "v2": "z"}


def logged(stage: Stage) -> collections.Counter[str]:
    """Id → lines in the access log."""
    return collections.Counter(name.decode() for name in _ID.findall(stage.access_log.read_bytes()))


async def without_a_line(stage: Stage, outcomes: Iterable[Outcome]) -> int:
    """Good answers that have not exactly one line, as soon as there are none, or after some seconds."""
    answered = {one.request.id for one in outcomes if one.end is End.RIGHT}
    wrong: list[str] = []

    def is_right() -> bool:
        lines = logged(stage)
        wrong[:] = [name for name in answered if lines[name] != 1]
        return not wrong

    try:
        await until(is_right, within=3)
    except AssertionError:
        return len(wrong)
    return 0


def ends_of(outcomes: Iterable[Outcome]) -> str:
    return ", ".join(f"{count} {word}" for word, count in collections.Counter(
        f"{one.end.name} {one.status or ''}".strip() for one in outcomes).items()) or "none"  # fmt: skip


async def serves_without(stage: Stage, gone: int) -> None:
    """Wait until control knows of as many workers with a snapshot as there should be, and this pid is not one."""

    async def has() -> bool:
        workers = [one for one in (await stage.router.look())["workers"] if one["connected"] and one["generation"]]
        return len(workers) == stage.setup.workers and gone not in {one["pid"] for one in workers}

    await until(has, within=20)


# -- workers -----------------------------------------------------------------------------------------------------------


async def worker_killed(stage: Stage, found: Findings) -> None:
    kills: list[float] = []
    in_flight: set[Outcome] = set()
    seconds: list[float] = []
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        for turn in range(stage.many(10, 1)):
            await load.some("fault", stage.many(2400, 60))
            victim = sorted(stage.router.workers())[turn % 2]
            stage.planned.add(victim)
            in_flight |= load.in_flight
            kills.append(time.monotonic())
            os.kill(victim, signal.SIGKILL)
            await serves_without(stage, victim)
            seconds.append(time.monotonic() - kills[-1])
        await load.some("after", stage.many(3200, 60))
    bad = load.bad()
    later = [
        one for one in bad
        if one not in in_flight and not any(one.due - CLOSING_SECONDS <= at <= one.ended for at in kills)
    ]  # fmt: skip
    found.note(f"{len(kills)} kills, {len(in_flight)} requests in flight, failures: {ends_of(bad)}")
    found.none("failures of requests not in flight at a kill", later)
    found.counted("failures that are no detectable break", sum(one.end is not End.BROKEN for one in bad), most=0)
    found.timed("the new worker serves after", 1000 * max(seconds), most=1000)
    lost = await without_a_line(stage, load.outcomes)
    found.note(f"{lost} of {len(load.outcomes)} good answers have no line in the access log")


async def worker_stopped(stage: Stage, found: Findings) -> None:
    async with stage.load() as load, stage.load(Shape(rate=50, make=get, kept=0, fresh=50)) as newcomers:
        newcomers.phase = "before"
        await load.some("before", stage.many(1600, 60))
        victim = stage.router.workers()[0]
        stage.planned.add(victim)
        stopped_at = time.monotonic()
        os.kill(victim, signal.SIGSTOP)
        caught = set(newcomers.in_flight)
        load.phase = newcomers.phase = "fault"
        try:
            await until(lambda: not started_at(victim), within=20)
        finally:
            if started_at(victim):
                os.kill(victim, signal.SIGCONT)
        killed = time.monotonic() - stopped_at
        newcomers.phase = "after"
        await serves_without(stage, victim)
        await load.some("after", stage.many(3200, 60))
    new = newcomers.of("fault")
    found.note(f"{len(new)} new connections while it was stopped")
    found.timed("their p99", newcomers.p(P99, new), most=200)
    found.none("their failures", [one for one in newcomers.bad() if one not in caught])
    found.timed("killed after", killed, most=2.5, least=1.5, unit="s")
    bad = load.bad() + [one for one in newcomers.bad() if one in caught]
    found.note(f"failures of those who were connected to it: {ends_of(bad)}")
    found.counted("failures that are no detectable break", sum(one.end is not End.BROKEN for one in bad), most=0)
    found.counted("of requests due after it was killed", sum(one.due > stopped_at + killed for one in bad), most=0)


# -- the whole router --------------------------------------------------------------------------------------------------


async def parent_killed(stage: Stage, found: Findings) -> None:
    orphans, old = stage.router.workers(), stage.router
    stage.later(lambda: [os.kill(pid, signal.SIGKILL) for pid in orphans if started_at(pid)])
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        async with unobserved(stage):
            old.process.kill()
            old.process.wait()
            killed_at = time.monotonic()
            await load.some("orphans", stage.many(4400, 200))
            alone = time.monotonic() - killed_at
            alive = sum(started_at(pid) > 0 for pid in orphans)
            load.phase = "relief"
            await stage.start_router()
            await until(lambda: not any(started_at(pid) for pid in orphans), within=30)
        await load.some("after", stage.many(3200, 60))
    found.note(f"{alive} workers served on for {alone:.1f} s without a parent, then a new one was started")
    found.none("failures without a parent", load.bad("orphans"))
    found.none("failures while the new one took over", load.bad("relief"))
    found.none("later", load.bad("after"))
    left = sum(started_at(pid) > 0 for pid in orphans)
    found.counted("orphans that still hold the port", left, most=0)
    found.counted("good answers without exactly one line", await without_a_line(stage, load.outcomes), most=0)


async def told_to_end(stage: Stage, found: Findings) -> None:
    in_flight: list[Outcome] = []
    longest = 0.0
    codes: list[int] = []
    for _ in range(stage.many(10, 1)):
        async with contextlib.AsyncExitStack() as away:
            async with stage.load() as load:
                await load.some("before", stage.many(400, 40))
                for number in range(8):
                    request = Request(f"{load.prefix}-long{number}", size=20_000, query="rate=20000")
                    load.begin(request, is_fresh=True)
                await until(lambda load=load: sum(one.got > 2000 for one in load.in_flight) == 8, within=10)
                await away.enter_async_context(unobserved(stage))
                in_flight += load.in_flight
                began = time.monotonic()
                stage.router.process.terminate()
                load.phase = "stopping"
                await until(lambda: stage.router.process.poll() is not None, within=20)
                longest = max(longest, time.monotonic() - began)
            codes.append(stage.router.process.returncode)
            await stage.start_router()
    outcomes = stage.outcomes()
    bad = [one for one in outcomes if one.end is not End.RIGHT or one.status >= 400]
    found.note(f"{len(codes)} times, {len(in_flight)} requests in flight; other ends: {ends_of(bad)}")
    found.counted("failures of requests in flight", sum(one in bad for one in in_flight), most=0)
    lost = [one for one in bad if one.end is not End.REFUSED]
    served = len(outcomes) - len(bad)
    most = -(-served // 10_000)
    found.counted(f"lost on idle connections, of {served} served", len(lost), most=most)
    early = [one for one in bad if one.end is End.REFUSED and one.phase != "stopping"]
    found.counted("refused before it was told", len(early), most=0)
    found.counted("exit codes other than 0", sum(code != 0 for code in codes), most=0)
    found.timed("the last was gone after (longest request: 1 s)", longest, most=3, unit="s")
    found.counted("good answers without exactly one line", await without_a_line(stage, outcomes), most=0)


async def taken_over(stage: Stage, found: Findings) -> None:
    seconds: list[float] = []
    codes: list[int | None] = []
    async with stage.load(Shape(rate=400, fresh=200)) as load:
        await load.some("before", stage.many(1600, 100))
        load.phase = "fault"
        for _ in range(stage.many(50, 1)):
            before, began = stage.router, time.monotonic()
            await stage.start_router("--take-over")
            await until(lambda before=before: before.process.poll() is not None, within=60)
            seconds.append(time.monotonic() - began)
            codes.append(before.process.returncode)
        stage.workers_before = stage.router.workers()
        await load.some("after", stage.many(max(3200, 100_400 - load.sent), 100))
    ends = collections.Counter(one.end for one in load.bad())
    found.note(f"{len(codes)} times, each within {max(seconds):.1f} s; failures: {ends_of(load.bad())}")
    found.counted("requests, half of them on new connections", len(load.outcomes), least=stage.many(100_000, 300))
    found.counted("refused", ends[End.REFUSED], most=0)
    found.counted("broken off", ends[End.BROKEN], most=0)
    found.counted("failed in another way", len(load.bad()) - ends[End.REFUSED] - ends[End.BROKEN], most=0)
    found.counted("exit codes other than 0", sum(code != 0 for code in codes), most=0)
    found.counted("good answers without exactly one line", await without_a_line(stage, load.outcomes), most=0)


# -- the config --------------------------------------------------------------------------------------------------------


def _running(config: dict[str, Any], version: str) -> bytes:
    rings = config["services"]["shop"]["rings"]
    rings[-1]["version"] = version
    return json.dumps(config).encode()


async def _take_up(stage: Stage, content: bytes) -> None:
    """Replace the config file whole, ask the router to look, and wait until every worker routes by it."""
    before = (await stage.router.look())["generation"]
    new = stage.config.with_suffix(".new")
    new.write_bytes(content)
    os.replace(new, stage.config)
    stage.router.process.send_signal(signal.SIGHUP)

    async def is_everywhere() -> bool:
        state = await stage.router.look()
        return bool(state["generation"] > before and state["applied_everywhere"] == state["generation"])

    await until(is_everywhere, within=20)


def _bad_files(good: bytes, is_short: bool) -> dict[str, bytes]:
    size = 100_000 if is_short else 10_000_000
    line = b"    - a line that means nothing here\n"
    return {
        "invalid": good.replace(b'"versions"', b'"version"', 1),
        "half-written": good[: len(good) // 2],
        "empty": b"",
        f"{size / 1e6:g} MB": good[:-1] + b', "more": [\n' + line * (size // len(line)) + b"]}",
    }


async def reloaded(stage: Stage, found: Findings) -> None:
    config = json.loads(stage.config.read_text())
    good = _running(config, "v1")
    seconds: dict[str, float] = {}
    kept = True
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        before = resident(stage.router.workers())
        load.phase = "reloads"
        async with lag_watched(stage) as lags:
            times = stage.many(100, 10)
            for turn in range(times):
                await _take_up(stage, _running(config, ("v2", "v1")[turn % 2]))
                await load.some("reloads", 20)
        grown = (resident(stage.router.workers()) - before) / 2**20
        generation = (await stage.router.look())["generation"]
        load.phase = "bad files"
        for name, content in _bad_files(good, stage.is_short).items():
            began = time.monotonic()
            await _is_refused(stage, content)
            seconds[name] = time.monotonic() - began
            await load.some("bad files", 40)
            kept = kept and (await stage.router.look())["generation"] == generation
            stage.config.write_bytes(good)
            stage.router.process.send_signal(signal.SIGHUP)
            await until(lambda: _is_well(stage), within=10)
        await load.some("after", stage.many(3200, 60))
    torn = [
        one for one in load.outcomes
        if one.end is End.RIGHT and one.backend not in _BACKENDS[one.fields["x-ring-version"]]
    ]  # fmt: skip
    found.none(f"{times} reloads: failures", load.bad())
    found.counted("answers of another version than the decision's", len(torn), most=0)
    found.timed("longest stall of a worker's loop", max(lags), most=20)
    found.size("workers grew by", grown, most=2)
    found.holds("bad files change nothing", kept)
    said = ", ".join(f"{name} after {one:.2f} s" for name, one in seconds.items())
    found.note(f"refused and reported: {said}")


async def _is_refused(stage: Stage, content: bytes) -> None:
    """Write it over the config file, as an editor that is not careful does, and wait until the router complains."""
    stage.config.write_bytes(content)
    stage.router.process.send_signal(signal.SIGHUP)

    async def complains() -> bool:
        try:
            return bool((await stage.router.look())["config"]["error"])
        except OSError:
            return False

    await until(complains, within=60)


async def _is_well(stage: Stage) -> bool:
    return not (await stage.router.look())["config"]["error"]


EXPERIMENTS = [
    Experiment(
        29, "one of two workers SIGKILLed under load",
        "only its requests in flight fail, detectably; the listener survives; the parent starts another",
        "failures only of requests in flight; 0 refused; the new worker serves ≤ 1 s", worker_killed, SLOWLY,
        waived={"I7": "a killed worker takes its last moment with it: up to 0.2 s of lines, a second of counts"},
    ),
    Experiment(
        30, "one of two workers SIGSTOPped", "the watchdog kills it; its sibling takes new connections meanwhile",
        "new connections p99 ≤ 200 ms; killed after 2 ± 0.5 s", worker_stopped, SLOWLY,
        waived={"I7": "a killed worker takes its last moment with it: up to 0.2 s of lines, a second of counts"},
    ),
    Experiment(
        31, "parent SIGKILLed, a new one started ten seconds later",
        "workers serve on, and are relieved by the next parent; never two parents",
        "0 failed requests for ≥ 10 s; no orphan holds the port after the restart", parent_killed, SLOWLY,
        waived={"I7": COUNTERS_BEGIN_ANEW},
    ),
    Experiment(
        32, "SIGTERM under load, ten times",
        "everything in flight is answered, then `Connection: close`, then the end",
        "0 failed requests in flight; idle connections: ≤ 1 lost per 10 000; gone ≤ 3 s", told_to_end,
        SLOWLY, waived={"I7": COUNTERS_BEGIN_ANEW},
    ),
    Experiment(
        33, "rolling restart by take-over, fifty times, at 400 requests/s, half of them on new connections",
        "no connection refused, no request broken off", "0 refused, 0 broken off in ≥ 100 000 requests", taken_over,
        SLOWLY, waived={"I7": COUNTERS_BEGIN_ANEW},
    ),
    Experiment(
        34, "config reloaded 100 times under load, then invalid, half-written, empty and 10 MB files",
        "an atomic switch; a bad file changes nothing and is reported",
        "0 failed requests; loop stall ≤ 20 ms; every request judged by one version; workers + ≤ 2 MiB", reloaded,
        SLOWLY,
    ),
]  # fmt: skip
