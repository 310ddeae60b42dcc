"""A machine that runs out: of disk, of patience, of descriptors, memory, time and ports. Rows 22 to 28."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from tests.faults import kernel
from tests.faults.client import End, Request
from tests.faults.crowd import crowd, sip, trickle
from tests.faults.experiments_clients import judge_others, meanwhile
from tests.faults.experiments_slow import CANARY
from tests.faults.findings import Findings
from tests.faults.load import P99, Load, Shape, get
from tests.faults.processes import ROOT, popen
from tests.faults.restart import restarted
from tests.faults.rig import Experiment, Setup, Stage
from tests.waiting import until

DROPPED: Final = "ringrouter_accesslog_dropped_total"
REQUESTS: Final = r"ringrouter_requests_total\{"
LAG: Final = "ringrouter_event_loop_lag_seconds"
QUEUE_LINES: Final = 10_000
_PAUSE: Final = 0.05


def parsed(path: Path) -> tuple[int, int]:
    """Lines that are JSON, and lines that are not."""
    good = bad = 0
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            json.loads(line)
            good += 1
        except ValueError:
            bad += 1
    return good, bad


async def is_counted(stage: Stage) -> None:
    """Wait until the workers have reported everything: the figures stand still for a second and a half."""
    last, since = -1.0, time.monotonic()
    deadline = since + 15
    while time.monotonic() < deadline:
        now = await stage.router.count(REQUESTS) + await stage.router.count(DROPPED)
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > 1.5:
            return
        await asyncio.sleep(_PAUSE)


@contextlib.asynccontextmanager
async def lag_watched(stage: Stage) -> AsyncIterator[list[float]]:
    """How late the workers' timers were, milliseconds; they say it once a second."""
    seen: list[float] = []

    async def look() -> None:
        before = (0.0, 0.0)
        while True:
            with contextlib.suppress(OSError):
                now = await stage.router.count(f"{LAG}_sum"), await stage.router.count(f"{LAG}_count")
                if before[1] and now[1] > before[1]:
                    seen.append(1000 * (now[0] - before[0]) / (now[1] - before[1]))
                before = now
            await asyncio.sleep(0.25)

    watch = asyncio.get_running_loop().create_task(look(), name="lag")
    try:
        yield seen
    finally:
        watch.cancel()
        await asyncio.wait([watch])


# -- the access log ----------------------------------------------------------------------------------------------------


async def full_disk(stage: Stage, found: Findings) -> None:
    if not stage.is_short:
        await restarted(stage, access_log=Path("/dev/full"))
        async with stage.load() as load:
            await load.some("/dev/full", 2000)
        await is_counted(stage)
        found.none("/dev/full: errors", load.bad())
        missing = await stage.router.count(REQUESTS) - await stage.router.count(DROPPED)
        found.counted("lines missing and not counted", missing, most=0)
    disk = stage.directory / "disk"
    disk.mkdir()
    kernel.mount(disk, 64)
    stage.later(lambda: kernel.unmount(disk))
    log = disk / "access.log"
    await restarted(stage, access_log=log)
    async with stage.load() as load:

        async def is_full() -> bool:
            return await stage.router.count(DROPPED) > 0

        await load.some("before", stage.many(100, 40))
        load.phase = "fault"
        await until(is_full, within=30)
        await load.some("fault", stage.many(4000, 100))
        size = log.stat().st_size
        kernel.enlarge(disk, 16 * 1024)
        freed_at = time.monotonic()
        load.phase = "space"
        await until(lambda: log.stat().st_size > size, within=20)
        resumed = time.monotonic() - freed_at
        await load.some("after", stage.many(3200, 100))
    await is_counted(stage)
    requests, dropped = await stage.router.count(REQUESTS), await stage.router.count(DROPPED)
    good, torn = parsed(log)
    found.none("disk of 64 KiB: errors", load.bad())
    found.note(f"{requests:g} requests, {good} lines, {dropped:g} counted as dropped, {torn} torn")
    found.counted("lines missing and not counted", abs(requests - good - dropped), most=0)
    found.timed("logging again after", 1000 * resumed, most=5000)


async def blocked_log(stage: Stage, found: Findings) -> None:
    pipe, kept = stage.directory / "log.pipe", stage.directory / "kept.log"
    os.mkfifo(pipe)
    with kept.open("wb") as out:
        reader = popen(["cat", str(pipe)], out, out, core=stage.other_core)
    stage.later(reader.kill)
    stage.later(lambda: reader.send_signal(signal.SIGCONT))
    await restarted(stage, access_log=pipe)
    rate = stage.many(1200, 400)
    async with stage.load(Shape(rate=rate, make=get, fresh=20)) as load:
        await load.some("before", stage.many(2400, 40))
        reader.send_signal(signal.SIGSTOP)
        async with lag_watched(stage) as lags:
            await load.some("fault", stage.many(26_000, 600))
        dropped = await stage.router.count(DROPPED)
        reader.send_signal(signal.SIGCONT)
        await load.some("after", stage.many(6 * rate + 2400, 60))
    await is_counted(stage)
    requests = await stage.router.count(REQUESTS)
    total = await stage.router.count(DROPPED)
    with contextlib.suppress(AssertionError):
        await until(lambda: parsed(kept)[0] + total >= requests, within=5)
    good, torn = parsed(kept)
    found.none("errors", load.bad())
    found.note(f"{requests:g} requests, {good} lines, {total:g} counted as dropped")
    found.counted("lines missing and not counted", abs(requests - good - total), most=0)
    found.counted("torn lines", torn, most=0)
    found.timed("longest stall of a loop", max(lags), most=20)
    waiting = len(load.of("fault")) - dropped
    found.counted("lines waiting in 2 workers and the pipe", waiting, most=2 * QUEUE_LINES + 1000)


# -- descriptors, memory, time on the core, ports ----------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def no_descriptors(stage: Stage, found: Findings) -> None:
    (worker,) = stage.router.workers()
    before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    count = 200
    async with stage.load(Shape(rate=100, make=get, kept=16, fresh=0)) as load:
        await load.answers("before", stage.many(400, 40))
        # All 16 are established now, whatever the load's own stalls are.
        await asyncio.gather(*(load.ask(Request(f"{load.prefix}-all{one}"), phase="before") for one in range(16)))
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (64, before[1]))
        try:
            used, began = cpu_seconds(worker), time.monotonic()
            async with crowd(stage.port, count) as guests:
                for number, guest in enumerate(one for one in guests if not one.transport.is_closing()):
                    guest.transport.write(Request(f"crowd-{stage.prefix}{number}").head())
                await load.some("fault", stage.many(1000, 150))
                served = sum(guest.status == 200 for guest in guests)
                errors = sum(guest.status >= 500 for guest in guests)
                ended = sum(guest.gone_at > 0 and not guest.first for guest in guests)
            share = 100 * (cpu_seconds(worker) - used) / (time.monotonic() - began)
        finally:
            resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
        raised_at = time.monotonic()
        while (
            await load.ask(Request(f"{load.prefix}-back{load.sent}"), is_fresh=True, phase="back")
        ).end is not End.RIGHT:
            assert time.monotonic() - raised_at < 15, "nobody is served any more"
            await asyncio.sleep(_PAUSE)
        back = time.monotonic() - raised_at
        await load.some("after", stage.many(800, 60))
    found.note(f"of {count} newcomers {served} served, {errors} got 5xx, {ended} closed without a word")
    found.counted("newcomers left waiting", count - served - errors - ended, most=0)
    found.timed("CPU of the worker", share, most=30, unit="%")
    # A request that finds none of the 16 free is a newcomer, too.
    established = sum(not one.is_newcomer for one in load.of("fault"))
    found.counted("requests on established connections meanwhile", established, least=stage.many(500, 50))
    bad = [one for one in load.bad("before", "fault", "after") if not one.is_newcomer]
    found.none("errors on established connections", bad)
    found.timed("newcomers are served again after", 1000 * back, most=1000)


async def little_memory(stage: Stage, found: Findings) -> None:
    """Rows 16, 17 and 19 at once: slow readers, slow heads, idle connections."""
    mib = 200
    group = kernel.MemoryGroup(mib)
    stage.later(group.remove)
    await restarted(stage, prefix=group.prefix, config={"limits": {"connections": 14_000}})
    readers, heads, idle = stage.many(200, 10), stage.many(2000, 40), stage.many(10_000, 100)
    used = group.most_used / 2**20
    async with stage.load() as load, contextlib.AsyncExitStack() as house:
        await load.some("before", stage.many(1600, 40))
        slow = await house.enter_async_context(crowd(stage.port, readers, is_narrow=True))
        for number, guest in enumerate(slow):
            request = Request(f"slow-{stage.prefix}{number}", size=10_000_000, fields=CANARY)
            guest.transport.write(request.head())
        await house.enter_async_context(meanwhile(load, sip(slow)))
        dribbling = await house.enter_async_context(crowd(stage.port, heads))
        for guest in dribbling:
            guest.transport.write(b"GET / HTTP/1.1\r\nHost: shop\r\nX-Slow: ")
        await house.enter_async_context(meanwhile(load, trickle(dribbling, lambda turn: b"x")))
        resting = await house.enter_async_context(crowd(stage.port, idle))
        for number, guest in enumerate(resting):
            if not guest.transport.is_closing():  # turned away, perhaps: there is a limit
                guest.transport.write(Request(f"idle-{stage.prefix}{number}", size=10).head())
            if number % 100 == 99:
                await load.some("asking", 10)
        await load.some("fault", stage.many(4000, 100))
        answered = sum(guest.status == 200 for guest in resting)
        turned = sum(guest.status == 503 for guest in (*slow, *dribbling, *resting))
        await house.aclose()
        await load.some("after", stage.many(3200, 60))
    most = group.most_used / 2**20
    found.note(f"{mib} MiB for all of the router's processes: {used:.0f} after the start, {most:.0f} at the most")
    found.note(f"{answered} of {idle} idle ones were answered, {turned} clients got 503")
    found.counted("OOM kills", group.kills, most=0)
    judge_others(load, found, 1.5)


async def contention(stage: Stage, found: Findings) -> None:
    async with stage.load(Shape(rate=200)) as load:
        await load.some("before", stage.many(1200, 40))
        with (stage.directory / "busy.out").open("wb") as out:
            busy = popen([sys.executable, "-c", "while True: pass"], out, out, core=stage.router_core)
        try:
            await load.some("fault", stage.many(4000, 200))
        finally:
            busy.kill()
            busy.wait()
        await load.some("after", stage.many(2000, 60))
    was, now = load.p(P99, load.of("before")), load.p(P99, load.of("fault"))
    found.none("errors", load.bad())
    found.timed("p99 before", was)
    found.timed("during", now, most=5 * was)


async def few_ports(_: Stage, found: Findings) -> None:
    """This stage only waits."""
    await in_a_small_network(found)


async def in_a_small_network(found: Findings) -> None:
    """All of it on a stage in a network of its own, by ``tests/faults/within.py``."""
    words = ["--short"] if found.is_short else []
    command = ["unshare", "--net", sys.executable, "-m", "tests.faults.within", *words]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, f"it ended with {process.returncode}"
    inside = json.loads(out.splitlines()[-1])
    found.figures += inside["figures"]
    found.broken += inside["broken"]


# -- the wall clock ----------------------------------------------------------------------------------------------------


async def wall_clock_jumps(stage: Stage, found: Findings) -> None:
    clock = stage.directory / "clock"
    limit = 2.0
    dates: list[float] = []
    with kernel.wall_clock(clock) as environment:
        await restarted(stage, environment=environment, config={"access_log": {"format": "off"}})
    state = await stage.router.look()
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        jumps = ["+3600", "-3600"] if stage.is_short else ["+3600", "-3600", *["+30", "-30"] * 5]
        for number, jump in enumerate(jumps):
            load.phase = "fault"
            for turn in range(4):
                request = Request(f"{load.prefix}-late{number}-{turn}", query="silent=1", fields=CANARY)
                load.begin(request, is_fresh=True)
            await load.some("fault", 10)
            clock.write_text(f"{jump}\n")
            dates.append(await _ahead(load, int(jump)))
            await load.some("fault", stage.many(400, 100))
        clock.write_text("+0\n")
        await load.some("after", stage.many(3200, 60))
    late = [one for one in load.outcomes if "-late" in one.request.id]
    others = [one for one in load.bad() if "-late" not in one.request.id]
    now = await stage.router.look()
    found.note(f"the router's Date was {', '.join(f'{seconds:+.0f} s' for seconds in dates[:4])} away")
    shown = [abs(seconds - int(jump)) for seconds, jump in zip(dates, jumps, strict=True)]
    found.counted(f"Date furthest from the clock it was given, {len(jumps)} jumps, s", max(shown), most=2)
    found.none("errors", others)
    found.share("time-outs of 2 s that came, as 504", sum(one.status == 504 for one in late), len(late), least=100)
    found.timed("furthest from the limit", 1000 * max(abs(one.took - limit) for one in late), most=150)
    found.counted("changes of the routing", now["generation"] - state["generation"], most=0)
    found.counted("failures of the link to Redis", await stage.router.count("ringrouter_store_errors_total"), most=0)
    found.note("steps of a ring that follow a schedule do not exist yet")


async def _ahead(load: Load, expected: int) -> float:
    """By how many seconds the router's Date is ahead; asked again for some seconds, until it is as expected.

    ValueError for a Date that is none.
    """
    deadline = time.monotonic() + 5
    while True:
        outcome = await load.ask(Request(f"{load.prefix}-date{time.monotonic_ns()}"), is_fresh=True)
        seconds = parsedate_to_datetime(outcome.fields["date"]).timestamp() - time.time()
        if abs(seconds - expected) < 2 or time.monotonic() > deadline:
            return seconds
        await asyncio.sleep(_PAUSE)


EXPERIMENTS = [
    Experiment(
        22, "access log on a full disk: `/dev/full`, and 64 KiB of which later more are free",
        "traffic goes on, lost lines are counted, logging resumes by itself",
        "0 failed requests; dropped counter = missing lines; resumes ≤ 5 s after there is space", full_disk,
        waived={"I7": "lines are lost on purpose"}, possible=kernel.why_no_disk,
    ),
    Experiment(
        23, "access log blocked: a pipe whose reader is stopped",
        "the event loop never waits for the log", "loop stall ≤ 20 ms; ≤ 10 000 lines wait, further ones are counted",
        blocked_log, waived={"I7": "lines are lost on purpose"},
    ),
    Experiment(
        24, "no file descriptors: `prlimit --nofile=64` on the worker, 200 connections come",
        "newcomers are closed at once, no spinning; the rest goes on",
        "CPU ≤ 30 %; established connections 0 errors; recovery ≤ 1 s", no_descriptors,
        Setup(workers=1), waived={"I7": "connections are lost on purpose"},
    ),
    Experiment(
        25, "a memory group of 200 MiB, with slow readers, slow heads and idle connections at once (rows 16, 17, 19)",
        "limits hold before the OOM killer comes", "0 OOM kills; 503 instead", little_memory,
        possible=kernel.why_no_memory_group,
    ),
    Experiment(
        26, "a busy loop of equal weight on the router's core", "slower, not wrong; no time-out by our own delay",
        "0 errors at 200 requests/s; p99 ≤ 5x", contention,
    ),
    Experiment(
        27, "a network namespace with 100 ephemeral ports, 150 requests at a time to one backend",
        "503 at once, the pool keeps working", "pooled requests 0 errors; no hang", few_ports,
        possible=kernel.why_no_namespace,
    ),
    Experiment(
        28, "the wall clock jumps by an hour, there and back, then ± 30 s again and again (libfaketime)",
        "all time-outs are on the monotonic clock; Date stays well-formed; no ring changes",
        "0 errors, 0 early or missed time-outs, 0 changes of the routing", wall_clock_jumps,
        Setup(redis=True), possible=kernel.why_no_faketime,
        waived={"I7": "without access log, whose thread cannot sleep under libfaketime"},
    ),
]  # fmt: skip
