"""How long from a write in Redis until every worker routes by it? ``python -m loadtests.propagation --workers 4``.

Starts Redis, two versions and the router on loopback, keeps a load on it, and writes weights over one connection as
redis-cli would. Applied is the moment a worker has swapped its snapshot, by its own clock (the same machine's); a
change counts when the last worker has it. Also counted: failed requests, and users who left canary. Writes
results/propagation.json.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import uvloop

from loadtests import report, rig
from router.control.redis_server import free_port, launch
from tests.running import Router, running_router, steady_load

KEY = "rings:{shop}:weights"
PAUSE_SECONDS = 0.05
"""Between a write and the look at who has it, and so between writes: a person at a prompt, not a flood."""


async def measure(workers: int, writes: int, connections: int) -> dict[str, float]:
    """The figures of one run."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        server = launch(free_port(), directory / "redis")
        try:
            async with (
                running_router(directory, redis=server.url, workers=workers) as router,
                steady_load(router, connections=connections) as tally,
            ):
                taken = await _writes(router, server.port, writes)
        finally:
            server.stop()
    left = sum(
        any(before == "canary" and after != "canary" for before, after in pairwise(seen))
        for seen in tally.rings.values()
    )
    taken.sort()
    return {
        "workers": workers,
        "writes": writes,
        "min_ms": taken[0] * 1e3,
        "p50_ms": statistics.median(taken) * 1e3,
        "p99_ms": taken[int(len(taken) * 0.99)] * 1e3,
        "max_ms": taken[-1] * 1e3,
        "requests": tally.answered,
        "failed_requests": len(tally.failures),
        "users_who_left_canary": left,
    }


async def _writes(router: Router, port: int, writes: int) -> list[float]:
    """Widen canary by 0.01 percent again and again; seconds from each write to the last worker's swap."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken = []
    for i in range(writes):
        weight = f"{5 + (i + 1) / 100:.2f}"
        said = rig.resp("HSET", KEY, "canary", weight)
        started = time.time()
        writer.write(said)
        await reader.readline()
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            state = await asyncio.to_thread(router.state)
            ring = state["services"]["shop"]["rings"][0]
            if abs(ring["weight"] - float(weight)) < 1e-9 and state["applied_everywhere"] == state["generation"]:
                break
        taken.append(max(worker["applied_at"] for worker in state["workers"]) - started)
    writer.close()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--writes", type=int, default=200)
    parser.add_argument("--connections", type=int, default=4, help="Load while measuring.")
    options = parser.parse_args()
    found = {}
    for workers in options.workers:
        figures = found[str(workers)] = uvloop.run(measure(workers, options.writes, options.connections))
        print("  ".join(f"{name} {value:g}" if isinstance(value, int) else f"{name} {value:.2f}"
                        for name, value in figures.items()), flush=True)  # fmt: skip
    report.save("propagation", options, {"summary": found})


if __name__ == "__main__":
    report.run(main)
