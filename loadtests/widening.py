"""Does anybody move outward while a ring is widened? ``python -m loadtests.widening``.

Five thousand users with a key of their own ask again and again, over several connections and workers, while canary
goes from 1 to 5, 25, 50 and 100 percent in Redis. Counted: users who were seen further out than before, failed
requests, and what ``ringrouter_ring_flips_total`` says; then the ring is narrowed, so that a count that cannot rise is
found out. Writes results/widening.json.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvloop

from loadtests import report, rig
from router.control.redis_server import free_port, launch
from tests.running import Router, Tally, running_router, steady_load
from tests.waiting import until

KEY = "rings:{shop}:weights"
STEPS = (1, 5, 25, 50, 100)
PLACES = {"canary": 0, "everyone": 1}
FLIPS = r'ringrouter_ring_flips_total\{service="shop"\}'
ROUND_SECONDS = 180.0


async def measure(users: int, connections: int, workers: int) -> dict[str, Any]:
    """The figures of one run."""
    with tempfile.TemporaryDirectory(prefix="ring-router-load-") as name:
        server = launch(free_port(), Path(name) / "redis")
        try:
            await _write(server.port, "0")
            async with (
                running_router(Path(name), redis=server.url, workers=workers) as router,
                steady_load(router, users=users, connections=connections) as tally,
            ):
                steps = {}
                for percent in STEPS:
                    await _set(server.port, router, percent)
                    await _everybody(tally, users)
                    steps[str(percent)] = dict(Counter(seen[-1] for seen in tally.rings.values()))
                    print(f"canary {percent} %: {steps[str(percent)]}", flush=True)
                outward = _outward(tally)
                await _reported(router, tally)
                flips = router.metric(FLIPS)
                answered, failed = tally.answered, len(tally.failures)
                await _set(server.port, router, STEPS[0])
                await _everybody(tally, users)
                narrowed = _outward(tally)
                await until(lambda: router.metric(FLIPS) >= narrowed, within=30)
                flips_narrowed = router.metric(FLIPS)
        finally:
            server.stop()
    return {
        "users": users,
        "workers": workers,
        "requests": answered,
        "failed_requests": failed,
        "steps": steps,
        "users_who_moved_outward": outward,
        "ring_flips_total": flips,
        "users_who_moved_outward_when_narrowed": narrowed,
        "ring_flips_total_when_narrowed": flips_narrowed,
    }


async def _write(port: int, canary: str) -> None:
    reader, writer = await asyncio.open_connection(rig.HOST, port)
    writer.write(rig.resp("HSET", KEY, "canary", canary, "early", "0"))
    await reader.readline()
    writer.close()


async def _set(port: int, router: Router, percent: int) -> None:
    await _write(port, str(percent))
    await until(lambda: router.weights()["canary"] == percent and router.is_everywhere(), within=10)


async def _everybody(tally: Tally, users: int) -> None:
    """Each user has asked at least once since now."""
    wanted = tally.answered + 2 * users
    await until(lambda: tally.answered >= wanted and len(tally.rings) == users, within=ROUND_SECONDS)


async def _reported(router: Router, tally: Tally) -> None:
    """What has been answered until now is in the workers' reports."""
    answered = tally.answered
    await until(lambda: router.metric("ringrouter_requests_total") >= answered, within=30)


def _outward(tally: Tally) -> int:
    """Users who were seen further out than before."""
    return sum(any(PLACES[after] > PLACES[before] for before, after in pairwise(seen)) for seen in tally.rings.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    found = uvloop.run(measure(options.users, options.connections, options.workers))
    print("  ".join(f"{name} {value}" for name, value in found.items() if name != "steps"))
    report.save("widening", options, {"summary": found})


if __name__ == "__main__":
    report.run(main)
