"""Backends that break: killed, reset, stopped, refused, swallowed, and kept connections that die. Rows 1 to 6, 9."""

from __future__ import annotations

import asyncio
import random
import signal
import time

from tests.faults.client import End, Outcome, Request
from tests.faults.findings import Findings
from tests.faults.load import P50, P99, Load, Shape
from tests.faults.processes import BlackHole
from tests.faults.rig import Experiment, Setup, Stage
from tests.waiting import until

QUIET = Shape(rate=0)
LIMIT = 2.0
"""``first_byte`` of the stage, seconds."""


def gets_and_posts(name: str, number: int) -> Request:
    return Request(name, "POST", upload=512) if number % 3 == 0 else Request(name)


async def are_flowing(load: Load, count: int, size: int) -> None:
    """Return when this many answers of this size are half there."""
    await until(
        lambda: sum(one.request.size == size and 2 * one.got >= size for one in load.in_flight) >= count, within=30
    )


def of_size(load: Load, size: int) -> list[Outcome]:
    return [one for one in load.outcomes if one.request.size == size]


async def killed_in_a_body(stage: Stage, found: Findings) -> None:
    size, count = stage.many(10_000_000, 500_000), stage.many(40, 8)
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        load.phase = "fault"
        for number in range(count):
            query = f"rate={stage.many(1_000_000, 500_000)}"
            load.begin(Request(f"{load.prefix}-big{number}", size=size, query=query, deadline=30))
        await are_flowing(load, count, size)
        killed_at = time.monotonic()
        stage["a"].kill()
        await load.some("fault", stage.many(400, 40))
        await stage["a"].start()
        await load.some("after", stage.many(3200, 60))
    broken = [one for one in of_size(load, size) if one.backend == "a"]
    found.counted("transfers cut", len(broken), least=1)
    found.share("detectable", sum(one.end is End.BROKEN for one in broken), len(broken), least=100)
    found.timed("close after the kill", 1000 * max(one.ended - killed_at for one in broken), most=100)
    others = [one for one in of_size(load, size) if one.backend == "b"]
    found.counted("transfers of the other backend that failed", sum(one.end is not End.RIGHT for one in others), most=0)


async def killed_without_a_length(stage: Stage, found: Findings) -> None:
    """Chunked, close-delimited to HTTP/1.1, and close-delimited to HTTP/1.0, which has no chunks to leave open.

    A close-delimited body that ends with FIN looks whole to everybody (RFC 9112 §8): its backend dies with RST.
    """
    kinds = {"chunked": ("chunked", "1.1"), "close-delimited": ("close", "1.1"), "to HTTP/1.0": ("close", "1.0")}
    size, rate = 200_000, 400_000
    cut: dict[str, list[Outcome]] = {kind: [] for kind in kinds}
    each = stage.many(30, 4)
    async with stage.load(QUIET) as load:
        for turn in range(stage.many(12, 1)):
            for framing, version in kinds.values():
                for number in range(each):
                    name = f"{load.prefix}-{framing}{version[2]}-{turn}-{number}"
                    request = Request(
                        name, size=size, query=f"framing={framing}&rate={rate}&dies_hard=1", version=version
                    )
                    load.begin(request, is_fresh=True)
            await are_flowing(load, len(kinds) * each, size)
            for name in ("a", "b"):
                stage[name].kill()
            await until(lambda: not load.in_flight, within=20)
            for name in ("a", "b"):
                await stage[name].start()
    for kind, (framing, version) in kinds.items():
        cut[kind] = [one for one in load.outcomes if f"-{framing}{version[2]}-" in one.request.id]
        whole = [one for one in cut[kind] if one.end is not End.BROKEN]
        found.counted(f"{kind}: complete-looking of {len(cut[kind])}", len(whole), most=0)


async def reset_before_the_head(stage: Stage, found: Findings) -> None:
    async with stage.load(Shape(make=gets_and_posts)) as load:
        await load.some("before", stage.many(1600, 40))
        await stage["a"].be(reset="pooled")
        await load.some("pooled", stage.many(2000, 80))
        await load.some("between", stage.many(40, 10))  # what is in flight now may meet either
        await stage["a"].be(reset="all")
        await load.some("all", stage.many(2000, 80))
        await stage["a"].be()
        await load.some("after", stage.many(3200, 60))
    asked = [one for one in stage.ledgers() if one.kind == "asked" and one.method == "POST"]
    twice = len(asked) - len({one.id for one in asked})
    found.counted("POSTs delivered twice", twice, most=0)
    for phase, words in (("pooled", "RST on pooled connections"), ("all", "RST on all")):
        gets = load.of(phase, method="GET")
        found.share(f"{words}: GETs answered", len(gets) - len(load.bad(phase, method="GET")), len(gets), least=99.99)
    strange = [one for one in load.bad() if one.end is not End.MARKED or one.status not in (502, 503)]
    found.none("failures that are no marked 502 or 503", strange)


async def stopped(stage: Stage, found: Findings) -> None:
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        stage["a"].signal(signal.SIGSTOP)
        try:
            await load.some("fault", stage.many(4000, 100))
            load.phase = "stopped"
            await until(lambda: not any(one.phase == "fault" for one in load.in_flight), within=20)
        finally:
            stage["a"].signal(signal.SIGCONT)
        await load.some("after", stage.many(3200, 60))
    was = load.p(P99, [one for one in load.of("before") if one.backend == "b"])
    now = load.p(P99, [one for one in load.of("fault") if one.backend == "b"])
    found.timed("p99 of the healthy backend before", was)
    found.timed("during", now, most=max(1.2 * was, was + 2))
    late = [one for one in load.of("fault") if one.status == 504]
    found.note(f"{len(late)} of {len(load.of('fault'))} requests got 504")
    found.near_limit(LIMIT, [one.took for one in load.unstalled(late)], most=100)
    strange = [one for one in load.bad("fault") if one.status not in (502, 503, 504)]
    found.none("failures that are no marked 50x", strange)
    found.counted("wrong answers", sum(one.end is End.WRONG for one in load.outcomes), most=0)


async def refused(stage: Stage, found: Findings) -> None:
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        stage["a"].kill()
        await load.some("kill", stage.many(80, 40))  # what was in flight at the kill is row 1's and 12's
        await load.some("one down", stage.many(3000, 100))
        await load.some("kill", stage.many(40, 20))
        stage["b"].kill()
        await load.some("kill", stage.many(80, 40))
        await load.some("both down", stage.many(2000, 80))
        load.phase = "start"
        await asyncio.gather(stage["a"].start(), stage["b"].start())
        up_at = time.monotonic()
        await load.some("returning", stage.many(600, 400))  # the second that may have errors
        await load.some("after", stage.many(3200, 80))
    found.none("one down: errors", load.bad("one down"))
    slower = load.p(P50, load.of("one down")) - load.p(P50, load.of("before"))
    found.timed("p50 longer by", max(0.0, slower), most=1)
    both = load.of("both down")
    right = [one for one in both if one.end is End.MARKED and one.status in (502, 503)]
    found.share("both down: marked 502 or 503", len(right), len(both), least=100)
    found.timed("error p99", load.p(P99, both), most=20)
    last = max((one.due - up_at for one in (*load.bad("returning"), *load.bad("after"))), default=0.0)
    found.timed("last error after the start", 1000 * max(0.0, last), most=1000)


async def black_hole(stage: Stage, found: Findings) -> None:
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        stage["a"].kill()
        with BlackHole(stage["a"].port):
            await load.some("kill", stage.many(80, 40))
            begun = time.monotonic()
            await load.some("fault", stage.many(4000, 120))
            load.phase = "hole"
            await until(lambda: not any(one.phase == "fault" for one in load.in_flight), within=20)
            seconds = time.monotonic() - begun
        await stage["a"].start()
        await load.some("after", stage.many(3200, 60))
    faults = load.of("fault")
    slow = [one for one in faults if one.took > 0.9]
    allowed = 3 * stage.setup.workers * max(1.0, seconds / 10)
    found.counted(f"slow requests in {seconds:.0f} s and {stage.setup.workers} workers", len(slow), most=allowed)
    found.none("errors", load.bad("fault"))
    was, now = load.p(P99, load.of("before")), load.p(P99, [one for one in faults if one.took <= 0.9])
    found.timed("p99 before", was)
    found.timed("of the others", now, most=max(1.2 * was, was + 2))


async def keep_alive_race(stage: Stage, found: Findings) -> None:
    """Bursts every 200 ± 2 ms, so that each connection rests as long as the backend lets it; it closes at 200 ms.

    Beside it, bursts of POSTs after pauses around the pool's own 4 s, at a backend that closes after 5 s.
    """
    chance = random.Random(9)
    each, bursts = stage.many(80, 20), stage.many(130, 8)
    for name in ("a", "b"):
        await stage[name].be(idle_close=0.2)
    await stage["z"].be(idle_close=5)
    async with stage.load(Shape(rate=0, kept=each)) as load:

        async def race() -> None:
            due = time.monotonic()
            for burst in range(bursts):
                due += 0.2 + chance.uniform(-0.002, 0.002)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                load.phase = "race"
                for number in range(each):
                    request = gets_and_posts(f"{load.prefix}-{burst}-{number}", number)
                    load.begin(request, due)

        async def pauses() -> None:
            for burst in range(stage.many(7, 1)):
                for number in range(stage.many(300, 20)):
                    name = f"{load.prefix}-pause{burst}-{number}"
                    request = Request(name, "POST", upload=100, fields=("X-Ring: canary",))
                    load.begin(request, is_fresh=True)
                if not stage.is_short:
                    await asyncio.sleep(chance.uniform(3.9, 4.1))

        await asyncio.gather(race(), pauses())
    rested = [one for one in load.outcomes if "-pause" in one.request.id]
    gets = load.of(method="GET")
    posts = [one for one in load.of(method="POST") if one not in set(rested)]
    lost = [one for one in posts if one.end is not End.RIGHT]
    found.note(f"{len(gets) + len(posts)} races")
    found.none("GET errors", load.bad(method="GET"))
    asked = [one for one in stage.ledgers() if one.kind == "asked" and one.method == "POST"]
    found.counted("POST duplicates", len(asked) - len({one.id for one in asked}), most=0)
    found.counted("POSTs with something else than a right answer or a marked 502", sum(
        one.end is not End.MARKED or one.status != 502 for one in lost), most=0)  # fmt: skip
    found.note(f"{len(lost)} of {len(posts)} POSTs got 502")
    late = [one for one in rested if one.end is not End.RIGHT]
    found.none(f"POST errors with the pool's 4 s before the backend's 5 s, of {len(rested)}", late)


EXPERIMENTS = [
    Experiment(
        1, "backend SIGKILLed at half of a 10 MB Content-Length response at 1 MB/s",
        "the client sees a short body and a closed connection; never padded, never a second head",
        "100 % detectable truncation; close ≤ 100 ms after the kill", killed_in_a_body,
    ),
    Experiment(
        2, "the same with chunked and with close-delimited responses",
        "no final `0` chunk; close-delimited becomes chunked without an end, or RST for HTTP/1.0",
        "0 complete-looking truncations in 1000", killed_without_a_length,
    ),
    Experiment(
        3, "RST before the response head, GET and POST, on fresh and pooled connections, from one of two backends",
        "GET on a pooled connection is retried, POST never; else 502",
        "POST deliveries per id ≤ 1; GET success ≥ 99.99 %", reset_before_the_head,
    ),
    Experiment(
        4, "one of two backends SIGSTOPped for 10 s, then SIGCONT",
        "the other keeps serving; time-outs are 504 at the limit; late answers are discarded",
        "healthy backend's p99 ≤ 1.2x; 504 at the limit ± 100 ms; 0 wrong answers", stopped,
    ),
    Experiment(
        5, "connection refused: one of two backends down, then both",
        "another backend of the same ring for any method (nothing was sent); both: 502 or 503 at once",
        "one down: 0 errors, p50 ≤ +1 ms; both: error p99 ≤ 20 ms; recovery ≤ 1 s after the start", refused,
    ),
    Experiment(
        6, "one of two backends is a black hole: connections are neither accepted nor refused",
        "connect time-out (1 s), then the other backend; the hole is left alone",
        "≤ 3 slow requests per worker and 10 s; the others' p99 ≤ 1.2x", black_hole,
    ),
    Experiment(
        9, "keep-alive race: backend closes idle connections after 200 ms, requests come every 200 ± 2 ms",
        "idempotent: one retry on a fresh connection; others: 502, unless no byte was sent",
        "GET errors 0, POST duplicates 0 in 10 000 races; POST errors 0 with the pool's idle time-out below",
        keep_alive_race, Setup(),
    ),
]  # fmt: skip
