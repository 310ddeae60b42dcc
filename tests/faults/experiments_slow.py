"""Backends that are slow, silent, hasty, flapping or full of errors. Rows 7, 8, 10, 12 and 13."""

from __future__ import annotations

import collections
import time

from tests.faults.backend import is_failing
from tests.faults.client import End, Outcome, Request
from tests.faults.findings import Findings
from tests.faults.load import P99, Load, Shape
from tests.faults.processes import resident
from tests.faults.rig import Experiment, Setup, Stage
from tests.waiting import until

CANARY = ("X-Ring: canary",)
CAP = 50
IN_FLIGHT_SECONDS = 0.25
"""Around a kill: what was due within it may have been in flight, on this machine."""


def to_canary(name: str, _: int) -> Request:
    return Request(name, fields=CANARY)


def named(load: Load, word: str) -> list[Outcome]:
    return [one for one in load.outcomes if f"-{word}" in one.request.id]


async def slow(stage: Stage, found: Findings) -> None:
    """Beside the load on ring everyone, the canary's backend is slow in each way; ``between_bytes`` is 2 s."""
    size = stage.many(8, 4)
    queries = {
        "head": f"head_after={stage.many(5, 1)}",
        "trickle": "rate=1",
        "stall": "stall_at=512",
    }
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        load.phase = "slow"
        for word, query in queries.items():
            for number in range(stage.many(20, 3)):
                asked = size if word == "trickle" else 1024
                request = Request(f"{load.prefix}-{word}{number}", size=asked, query=query, fields=CANARY)
                load.begin(request, is_fresh=True)
        await load.some("fault", stage.many(4000, 400))
        await load.some("after", stage.many(3200, 60))
    was, now = load.p(P99, load.of("before")), load.p(P99, load.of("fault"))
    found.timed("p99 of the others before", was)
    found.timed("during", now, most=max(1.1 * was, was + 2))
    found.none("errors of the others", load.bad("before", "fault", "after"))
    for word, words in (("head", "heads after 5 s"), ("trickle", "bodies at 1 byte/s")):
        all_of = named(load, word)
        found.share(words, sum(one.end is End.RIGHT for one in all_of), len(all_of), least=100)
    stalled = named(load, "stall")
    found.share("stalls broken off", sum(one.end is End.BROKEN for one in stalled), len(stalled), least=100)
    found.near_limit(2, [one.took for one in load.unstalled(stalled)], most=100)


async def silent(stage: Stage, found: Findings) -> None:
    await stage["z"].be(silent=1)
    before = resident(stage.router.workers())
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        async with stage.load(Shape(rate=200, make=to_canary, fresh=0, kept=0)) as lost:
            load.phase = "fault"
            await lost.some("silent", stage.many(2000, 120))
            grown = (resident(stage.router.workers()) - before) / 2**20
            figures = await stage["z"].figures()
        await stage["z"].be()
        await load.some("after", stage.many(3200, 60))
    late = [one for one in lost.outcomes if one.status == 504]
    turned_away = [one for one in lost.outcomes if one.status == 503]
    found.note(f"{len(late)} of {len(lost.outcomes)} got 504, {len(turned_away)} got 503")
    strange = [one for one in lost.outcomes if one.end is not End.MARKED or one.status not in (503, 504)]
    found.none("something else", strange)
    found.near_limit(2, [one.took for one in lost.unstalled(late)], most=600)
    found.counted("in flight at the backend", figures["most_in_flight"], most=CAP)
    found.size("workers grew by", grown, most=20)
    found.none("errors of the other ring", load.bad())


async def early(stage: Stage, found: Findings) -> None:
    """Uploads of 10 MB that are answered after 64 kB; the requests behind them have to get their own answers."""
    size, count = stage.many(10_000_000, 2_000_000), stage.many(100, 6)
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        for status in ("413", "200", "401"):
            for number in range(count):
                is_chunked = number % 2 == 1
                name = f"{load.prefix}-early{status}-{number}"
                request = Request(name, "POST", upload=size, is_chunked=is_chunked, query=f"early={status}")
                load.begin(request, is_fresh=True)
                if number % 4 == 3:
                    await load.some("fault", stage.many(20, 5))
            await until(lambda: not any("-early" in one.request.id for one in load.in_flight), within=40)
        await load.some("after", stage.many(3200, 60))
    for status, words, least in (
        ("413", "413 and close", 99),
        ("200", "200 and drain", 99),
        ("401", "401 and RST", 90),
    ):
        answers = named(load, f"early{status}")
        seen = sum(one.status == int(status) and one.end is End.RIGHT for one in answers)
        found.share(f"{words}: seen", seen, len(answers), least=least)
    whole = {one.id for one in stage.ledgers() if one.kind == "taken" and one.number >= size}
    found.note(f"{len(whole)} uploads were read to their end")
    others = [one for one in load.bad() if "-early" not in one.request.id]
    found.none("errors of other requests", others)


async def flapping(stage: Stage, found: Findings) -> None:
    kills: list[float] = []
    dead_seconds = 0.0
    pattern = f'ringrouter_upstream_failures_total.*:{stage["a"].port}".*kind="(connect|timeout)"'
    async with stage.load() as load:
        await load.some("before", stage.many(1600, 40))
        refused = await stage.router.count(pattern)
        for _ in range(stage.many(5, 2)):
            kills.append(time.monotonic())
            stage["a"].kill()
            await load.some("fault", stage.many(800, 80))
            await stage["a"].start()
            dead_seconds += time.monotonic() - kills[-1]
            await load.some("fault", stage.many(800, 80))
        await load.some("after", stage.many(3200, 100))
    refused = await stage.router.count(pattern) - refused

    def was_in_flight(one: Outcome) -> bool:
        return any(one.due - IN_FLIGHT_SECONDS <= at <= one.ended for at in kills)

    found.note(f"{len(kills)} kills, {len(load.bad())} failures")
    found.counted("of requests not in flight at a kill", sum(not was_in_flight(one) for one in load.bad()), most=0)
    a_second = refused / dead_seconds / stage.setup.workers
    found.counted("connects per second and worker to the dead backend", a_second, most=2 * stage.many(1, 10))


async def failing(stage: Stage, found: Findings) -> None:
    for name in ("a", "b"):
        await stage[name].be(failing=50)
    errors = await stage.router.count("ringrouter_failures_total")
    async with stage.load(Shape(fresh=20, make=lambda name, _: Request(name))) as load:
        await load.some("fault", stage.many(4000, 200))
    expected = collections.Counter(503 if is_failing(one.request.id, 50) else 200 for one in load.outcomes)
    seen = collections.Counter(one.status for one in load.outcomes)
    asked = collections.Counter(one.id for one in stage.ledgers() if one.kind == "asked")
    found.note(f"clients {dict(sorted(seen.items()))}, backends {dict(sorted(expected.items()))}")
    found.holds("the same counts", seen == expected)
    changed = [one for one in load.outcomes if one.end is not End.RIGHT]
    found.none("changed", changed)
    found.counted("sent more than once", sum(times > 1 for times in asked.values()), most=0)
    found.counted("counted as the router's", await stage.router.count("ringrouter_failures_total") - errors, most=0)


EXPERIMENTS = [
    Experiment(
        7, "slow backend of one ring: head after 5 s, body at 1 byte/s, a body that stalls",
        "no request waits for another's; the time-out is one of idleness, not of the whole",
        "others' p99 ≤ 1.1x; stall detected at the limit ± 100 ms", slow,
        Setup(service={"timeouts": {"first_byte": "10s"}}),
    ),
    Experiment(
        8, "the backend of one ring accepts and never answers",
        "504; a cap of requests in flight gives 503 instead of a growing queue",
        f"in flight ≤ {CAP}; workers + ≤ 20 MiB; other rings 0 errors", silent,
        Setup(wishes={"overload": {"endpoint_in_flight": CAP, "queue": 10, "queue_seconds": 0.5}}),
    ),
    Experiment(
        10, "early response during a 10 MB upload, after 64 kB: 413 and close; 200 and the rest is read; 401 and RST",
        "the response reaches the client; the upload stops; the connection is reused only if the body was read",
        "seen in ≥ 99 % (RST: ≥ 90 %); 0 wrong answers to other requests", early,
    ),
    Experiment(
        12, "backend flapping: killed and started again every 2 s, five times",
        "health follows; no herd of connects",
        "errors only for requests in flight at a kill; ≤ 2 connects per second and worker to the dead one", flapping,
    ),
    Experiment(
        13, "both backends answer 503 to half of the requests",
        "passed through unchanged, not retried, not counted as the router's errors",
        "backend count = client count", failing,
    ),
]  # fmt: skip
