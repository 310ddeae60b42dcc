"""Everything at random, one after the other, for as long as there is time. Row 46."""

from __future__ import annotations

import asyncio
import collections
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

from router.process.orphans import started_at
from tests.faults.client import End, Request
from tests.faults.crowd import crowd, leave_a_response
from tests.faults.experiments_processes import ends_of, serves_without
from tests.faults.findings import Findings
from tests.faults.live import BY_USER, LIVE, WEIGHTS, ask, change
from tests.faults.load import Load
from tests.faults.processes import resident
from tests.faults.restart import unobserved
from tests.faults.rig import Experiment, Stage
from tests.waiting import until, until_said

MINUTES: Final = float(os.environ.get("RING_ROUTER_SOAK_MINUTES", "5"))
"""The promise is one of eight hours: `RING_ROUTER_SOAK_MINUTES=480 make faults`."""
EVERY_SECONDS: Final = 5.0
Break = Callable[[Stage, Load], Awaitable[None]]


async def some_seconds(stage: Stage, load: Load, seconds: float) -> None:
    await load.some("fault", 1 + round(seconds * load.shape.rate * stage.many(10, 2) / 10))


async def backend_killed(stage: Stage, load: Load) -> None:
    stage["a"].kill()
    await some_seconds(stage, load, 1)
    await stage["a"].start()


async def backend_stopped(stage: Stage, load: Load) -> None:
    stage["b"].signal(signal.SIGSTOP)
    try:
        await some_seconds(stage, load, 1)
    finally:
        stage["b"].signal(signal.SIGCONT)


async def backend_resets(stage: Stage, load: Load) -> None:
    await stage["a"].be(reset="pooled")
    await some_seconds(stage, load, 1)
    await stage["a"].be()


async def backend_fails(stage: Stage, load: Load) -> None:
    await stage["a"].be(failing=50)
    await some_seconds(stage, load, 1)
    await stage["a"].be()


async def clients_crowd_in(stage: Stage, load: Load) -> None:
    async with crowd(stage.port, 200) as guests:
        for guest in guests:
            guest.transport.write(b"GET / HTTP/1.1\r\nHost: shop\r\nX-Slow: ")
        await some_seconds(stage, load, 1)


async def client_leaves(stage: Stage, load: Load) -> None:
    request = Request(f"{load.prefix}-left{time.monotonic_ns()}", size=2_000_000, query="rate=2000000")
    await leave_a_response(load, request, 65_536)


async def worker_killed(stage: Stage, load: Load) -> None:
    victim = stage.router.workers()[0]
    async with unobserved(stage):
        os.kill(victim, signal.SIGKILL)
        await serves_without(stage, victim)


async def worker_stopped(stage: Stage, load: Load) -> None:
    victim = stage.router.workers()[-1]
    async with unobserved(stage):
        os.kill(victim, signal.SIGSTOP)
        await until(lambda: not started_at(victim), within=20)
        await serves_without(stage, victim)


async def control_killed(stage: Stage, load: Load) -> None:
    async with unobserved(stage):
        os.kill(stage.router.control_pid(), signal.SIGKILL)
        await until_said(stage.router.is_ready, within=20)


async def taken_over(stage: Stage, load: Load) -> None:
    before = stage.router
    async with unobserved(stage):
        await stage.start_router("--take-over")
        await until(lambda: before.process.poll() is not None, within=60)
        await until_said(stage.router.is_ready, within=20)


async def reloaded(stage: Stage, load: Load) -> None:
    config = json.loads(stage.config.read_text())
    config["limits"] = {"fields": 100 + (config.get("limits", {}).get("fields", 100) + 1) % 100}
    stage.config.write_text(json.dumps(config))
    stage.router.process.send_signal(signal.SIGHUP)
    await some_seconds(stage, load, 0.5)


async def config_spoilt(stage: Stage, load: Load) -> None:
    good = stage.config.read_text()
    stage.config.write_text(good[: len(good) // 2])
    stage.router.process.send_signal(signal.SIGHUP)
    await some_seconds(stage, load, 1)
    stage.config.write_text(good)
    stage.router.process.send_signal(signal.SIGHUP)


async def weight_moves(stage: Stage, load: Load) -> None:
    await change(stage, 1 + time.monotonic_ns() % 50)


async def redis_killed(stage: Stage, load: Load) -> None:
    assert stage.redis is not None
    stage.redis.running.kill()
    await some_seconds(stage, load, 1)
    await asyncio.to_thread(stage.redis.start)


async def redis_stopped(stage: Stage, load: Load) -> None:
    assert stage.redis is not None
    stage.redis.running.send(signal.SIGSTOP)
    try:
        await some_seconds(stage, load, 2)
    finally:
        stage.redis.running.send(signal.SIGCONT)


async def redis_poisoned(stage: Stage, load: Load) -> None:
    await ask(stage, "HSET", WEIGHTS, "canary", "NaN")
    await some_seconds(stage, load, 0.5)
    await ask(stage, "FLUSHALL")


FAULTS: Final[tuple[Break, ...]] = (
    backend_killed, backend_stopped, backend_resets, backend_fails, clients_crowd_in, client_leaves, worker_killed,
    worker_stopped, control_killed, taken_over, reloaded, config_spoilt, weight_moves, redis_killed, redis_stopped,
    redis_poisoned,
)  # fmt: skip
SHORT: Final = (backend_resets, worker_killed, reloaded, redis_killed, client_leaves, control_killed, config_spoilt)


async def soak(stage: Stage, found: Findings) -> None:
    chance = random.Random(46)
    happened: collections.Counter[str] = collections.Counter()
    grown: list[float] = []
    began = time.monotonic()
    async with stage.load(BY_USER) as load:
        await load.some("before", stage.many(1600, 100))
        while True:
            one = chance.choice(FAULTS) if not stage.is_short else SHORT[happened.total()]
            due = time.monotonic() + stage.many(1, 0) * EVERY_SECONDS
            load.phase = "fault"
            await one(stage, load)
            happened[one.__name__.replace("_", " ")] += 1
            grown.append(resident(stage.router.workers()) / 2**20)
            is_over = happened.total() == len(SHORT) if stage.is_short else time.monotonic() - began > 60 * MINUTES
            if is_over:
                break
            while time.monotonic() < due:
                await load.some("fault", 20)
        minutes = (time.monotonic() - began) / 60
        stage.workers_before = stage.router.workers()
        await load.some("after", stage.many(3200, 100))
    bad = load.bad()
    found.note(f"{minutes:.1f} minutes instead of 8 hours, {happened.total()} faults of {len(FAULTS)} kinds: "
               + ", ".join(f"{word} {times}" for word, times in sorted(happened.items())))  # fmt: skip
    found.note(f"ends that are not the backend's good answer: {ends_of(bad)}")
    found.counted("of them wrong or without an end", sum(one.end in (End.WRONG, End.HUNG) for one in bad), most=0)
    late = [one for one in load.bad("after") if one.due > min(two.due for two in load.of("after")) + 5]
    found.none("failures 5 s after the last fault", late)
    found.note(f"workers held {min(grown):.0f} to {max(grown):.0f} MiB")
    last = (len(grown) + 2) // 3
    found.size("the last third of the time more than the first", sum(grown[-last:]) / last - sum(grown[:last]) / last,
               most=10)  # fmt: skip


EXPERIMENTS = [
    Experiment(
        46, f"soak for {MINUTES:g} minutes (8 hours with RING_ROUTER_SOAK_MINUTES=480): a random fault every 5 s",
        "all invariants", "0 violations of I1 to I3, descriptors flat, memory flat (+ ≤ 10 MiB in minutes)", soak, LIVE,
        waived={"I7": "killed workers take their last moment with them; counters begin anew with a new router"},
    ),
]  # fmt: skip
