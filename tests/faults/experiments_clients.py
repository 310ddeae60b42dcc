"""Clients that leave, dawdle, crowd in and never read. Rows 14 to 21."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from tests.faults.client import Request, Wire, read_head
from tests.faults.crowd import crowd, leave_a_response, leave_uploads, sip, trickle
from tests.faults.experiments_broken import gets_and_posts
from tests.faults.experiments_slow import CANARY, CAP
from tests.faults.findings import Findings
from tests.faults.ledger import ASKED, LEFT, TAKEN
from tests.faults.load import P99, Load, Shape
from tests.faults.processes import resident
from tests.faults.rig import Experiment, Setup, Stage
from tests.waiting import until

HEAD_SECONDS = 3
RATE_SECONDS = 20
"""An upload's first seconds are free of ``limits.body_rate``."""
MIB = 2**20
PIPELINED = 65_536
"""Bytes of the answers to pipelined requests: more than the kernel holds for sixty-four of them."""


@contextlib.asynccontextmanager
async def meanwhile(load: Load, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do it beside the load until the block ends."""
    task = load.start(work)
    try:
        yield
    finally:
        task.cancel()


def judge_others(load: Load, found: Findings, most: float) -> None:
    """What the good traffic had of it: no errors, and a p99 of at most so many times what it was."""
    was, now = load.p(P99, load.of("before")), load.p(P99, load.of("fault"))
    found.none("errors of good traffic", load.bad("before", "fault", "after"))
    found.timed("its p99 before", was)
    found.timed("during", now, most=max(most * was, was + 2))


async def gone_from_a_response(stage: Stage, found: Findings) -> None:
    rate, after = 2_000_000, 65_536
    left_at: dict[str, float] = {}

    async def leave(load: Load, name: str) -> None:
        outcome = await leave_a_response(load, Request(name, size=10_000_000, query=f"rate={rate}"), after)
        left_at[name] = outcome.ended

    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        load.phase = "leaving"
        count = stage.many(500, 10)
        for number in range(count):
            load.start(leave(load, f"{load.prefix}-left{number}"))
            if number % 10 == 9:
                await load.some("leaving", 40)
        await until(lambda: len(left_at) == count, within=30)
        await until(lambda: sum("-left" in one.id for one in stage.ledgers() if one.kind == LEFT) == count, within=10)
        await load.some("after", stage.many(3200, 60))
    lost = {one.id: one for one in stage.ledgers() if one.kind == LEFT}
    found.note(f"{count} clients left")
    found.timed("upstream closed after", 1000 * max(lost[name].at - at for name, at in left_at.items()), most=1000)
    most = max(lost[name].number - after for name in left_at)
    found.timed("bytes the backend sent beyond what the client read", most / 1000, most=256, unit="kB")
    found.counted("errors of good traffic", len(load.bad("before", "leaving", "after")) - count, most=0)


async def gone_from_an_upload(stage: Stage, found: Findings) -> None:
    left_at: dict[str, float] = {}

    def seen(kind: str, names: set[str]) -> bool:
        return names <= {one.id for one in stage.ledgers() if one.kind == kind}

    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        load.phase = "leaving"
        for turn in range(stage.many(20, 1)):
            requests = [
                Request(f"{load.prefix}-left{turn}-{number}", "POST", upload=200_000, is_chunked=number % 4 >= 2)
                for number in range(20)
            ]
            names = {request.id for request in requests}
            for outcome in await leave_uploads(load, requests, lambda names=names: seen(ASKED, names)):
                left_at[outcome.request.id] = outcome.ended
            await until(lambda names=names: seen(LEFT, names), within=20)
        await load.some("after", stage.many(3200, 60))
    ledger = [one for one in stage.ledgers() if one.id in left_at]
    found.note(f"{len(left_at)} clients left, half of them with RST")
    found.counted("complete requests", sum(one.kind == TAKEN for one in ledger), most=0)
    longest = max((one.at - left_at[one.id] for one in ledger if one.kind == LEFT), default=0.0)
    found.timed("backend connection closed after", 1000 * longest, most=1000)


async def slow_readers(stage: Stage, found: Findings) -> None:
    count = stage.many(200, 10)
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        before = resident(stage.router.workers())
        async with crowd(stage.port, count, is_narrow=True) as guests:
            for number, guest in enumerate(guests):
                request = Request(f"slow-{stage.prefix}{number}", size=10_000_000, fields=CANARY)
                guest.transport.write(request.head())
            async with meanwhile(load, sip(guests)):
                await load.some("fault", stage.many(4000, 200))
                grown = (resident(stage.router.workers()) - before) / MIB
                await until(lambda: all(guest.got for guest in guests), within=20)
        await load.some("after", stage.many(3200, 60))
    found.note(f"{count} clients, {max(guest.got for guest in guests) / 1000:.0f} kB read at the most")
    found.size("workers grew by", grown, most=count * 128 / 1024)
    judge_others(load, found, 1.2)


async def slow_heads(stage: Stage, found: Findings) -> None:
    count = stage.many(2000, 40)
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        before = resident(stage.router.workers())
        async with crowd(stage.port, count) as guests:
            for guest in guests:
                guest.transport.write(b"GET / HTTP/1.1\r\nHost: shop\r\nX-Slow: ")
            async with meanwhile(load, trickle(guests, lambda turn: b"x")):
                await load.some("fault", stage.many(1000, 40))
                grown = (resident(stage.router.workers()) - before) / MIB
                await until(lambda: all(guest.gone_at for guest in guests), within=HEAD_SECONDS + 10)
        await load.some("after", stage.many(3200, 60))
    longest = max(guest.gone_at - guest.came_at for guest in guests)
    found.share("turned away with 408", sum(guest.status == 408 for guest in guests), count, least=99)
    found.timed("the last was gone after", longest, most=HEAD_SECONDS + 2, unit="s")
    found.size("workers grew by", grown, most=40)
    judge_others(load, found, 1.2)


async def slow_bodies(stage: Stage, found: Findings) -> None:
    count = stage.many(500, 70)
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        await stage["z"].be()
        async with crowd(stage.port, count) as guests:
            for number, guest in enumerate(guests):
                request = Request(f"slow-{stage.prefix}{number}", "POST", upload=100_000, fields=CANARY)
                guest.transport.write(request.head())
            async with meanwhile(load, trickle(guests, lambda turn: b"x")):
                await load.some("fault", stage.many(1000, 200))
                figures = await stage["z"].figures()
                if not stage.is_short:
                    await until(lambda: all(guest.gone_at for guest in guests), within=RATE_SECONDS + 15)
        await load.some("after", stage.many(3200, 60))
    if not stage.is_short:
        longest = max(guest.gone_at - guest.came_at for guest in guests)
        found.timed("the last was gone after", longest, most=RATE_SECONDS + 3, unit="s")
        answers = {status: sum(guest.status == status for guest in guests) for status in (408, 503)}
        found.note(f"answers {answers}")
    found.counted("connections to their backend", figures["most_open"], most=CAP)
    judge_others(load, found, 1.2)


async def idle_connections(stage: Stage, found: Findings) -> None:
    count = stage.many(10_000, 200)
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        before = resident(stage.router.workers())
        async with crowd(stage.port, count) as guests:
            for number, guest in enumerate(guests):
                guest.transport.write(Request(f"idle-{stage.prefix}{number}", size=10).head())
                if number % 100 == 99:
                    await load.some("asking", 10)
            await until(lambda: all(guest.got for guest in guests), within=30)
            grown = resident(stage.router.workers()) - before
            await load.some("fault", stage.many(3200, 60))
            gone = sum(guest.gone_at > 0 for guest in guests)
        await load.some("after", stage.many(3200, 60))
    found.counted(f"of {count} closed", gone, most=0)
    found.timed("each holds", grown / 1024 / count, most=10, unit="KiB")
    judge_others(load, found, 1.1)


async def pipeline(stage: Stage, found: Findings) -> None:
    prefix = f"pipe-{stage.prefix}"

    def asked() -> int:
        return sum(one.kind == ASKED and one.id.startswith(prefix) for name in ("a", "b", "z")
                   for one in stage[name].ledger())  # fmt: skip

    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        before = resident(stage.router.workers())
        async with crowd(stage.port, 1, is_narrow=True) as (guest,):
            guest.transport.pause_reading()
            for number in range(stage.many(10_000, 1000)):
                guest.transport.write(Request(f"{prefix}{number}", size=PIPELINED, fields=CANARY).head())
            await load.some("fault", stage.many(4000, 200))
            seen, grown = asked(), (resident(stage.router.workers()) - before) / MIB
            guest.transport.resume_reading()
            await until(lambda: guest.got > 2 * seen * PIPELINED, within=30)
        await load.some("after", stage.many(3200, 60))
    found.counted("seen by the backend", seen, most=64, least=1)
    found.size("workers grew by", grown, most=1)
    judge_others(load, found, 1.2)


async def too_many(stage: Stage, found: Findings) -> None:
    limit = stage.settings()["limits"]["connections"]
    async with stage.load(Shape(make=gets_and_posts, fresh=0)) as load:
        await load.some("before", stage.many(1600, 40))
        # The load's own come on top: as many as are over the limit then, whichever of them is open just now.
        async with crowd(stage.port, round(0.75 * limit)) as first:
            await load.some("established", 40)
            async with crowd(stage.port, round(0.5 * limit)) as second:
                await until(lambda: sum(guest.status == 503 for guest in second) >= 0.25 * limit, within=20)
                await load.some("fault", stage.many(2000, 80))
                turned = sum(guest.status == 503 and guest.gone_at > 0 for guest in second)
                ended = sum(guest.gone_at > 0 for guest in first)
        left_at = time.monotonic()
        await until(lambda: _answers(stage), within=10)
        back = time.monotonic() - left_at
        await load.some("after", stage.many(3200, 60))
    found.note(f"limit {limit}: {len(first)} were there, {len(second)} more came")
    found.counted("of those got 503 and a close", turned, least=0.25 * limit)
    found.counted("established connections closed", ended, most=0)
    found.timed("a newcomer is answered again after", 1000 * back, most=1000)
    judge_others(load, found, 1.2)


async def _answers(stage: Stage) -> bool:
    """Whether a new connection is served: on each worker, so five of them in a row."""
    statuses = []
    for number in range(5):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            wire = await Wire.open(stage.port)
            wire.writer.write(Request(f"back-{stage.prefix}{number}").head())
            statuses.append((await read_head(wire.reader))[0])
            wire.close()
    return statuses == [200] * 5


EXPERIMENTS = [
    Experiment(
        14, "client gone (RST) after 64 kB of a 10 MB response",
        "the transfer from the backend is cancelled",
        "upstream closed ≤ 1 s; ≤ 256 kB from the backend after the RST", gone_from_a_response,
    ),
    Experiment(
        15, "client gone in the middle of an upload, with a length and in chunks, by RST and by FIN",
        "the backend never sees a complete request",
        "0 complete requests; backend connection closed ≤ 1 s", gone_from_an_upload,
    ),
    Experiment(
        16, "200 clients read 10 MB at some kB/s",
        "back-pressure: the router reads from the backend only what it can pass on",
        "workers + ≤ 200 x 128 KiB; fast clients' p99 ≤ 1.2x", slow_readers,
    ),
    Experiment(
        17, f"slow heads: 2000 connections, 1 byte/s (head time-out {HEAD_SECONDS} s)",
        "408 at the head time-out, whatever trickles in",
        f"good traffic 0 errors; all gone ≤ {HEAD_SECONDS + 2} s; workers + ≤ 40 MiB", slow_heads,
        Setup(config={"timeouts": {"head": f"{HEAD_SECONDS}s"}}),
    ),
    Experiment(
        18, "slow bodies: 500 POSTs, 1 byte/s",
        "a minimum rate; backend connections are capped",
        f"good traffic 0 errors; connections to their backend ≤ {CAP}", slow_bodies,
        Setup(service={"overload": {"endpoint_in_flight": CAP, "queue": 10, "queue_time": 0.5}}),
    ),
    Experiment(
        19, "10 000 idle keep-alive connections", "bounded cost per connection",
        "≤ 10 KiB each; good p99 ≤ 1.1x", idle_connections,
    ),
    Experiment(
        20, "one connection pipelines 10 000 GETs and never reads", "read-ahead stops",
        "workers + ≤ 1 MiB; the backend sees ≤ 64 of them until the client reads", pipeline,
    ),
    Experiment(
        21, "2500 connections where `limits.connections` is 2000",
        "the excess gets 503 and a close; established ones do not suffer",
        "established: 0 errors; recovery ≤ 1 s", too_many,
        Setup(config={"limits": {"connections": 2000}}, short_config={"limits": {"connections": 400}}),
    ),
]  # fmt: skip
