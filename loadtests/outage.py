"""What does a Redis outage cost? ``python -m loadtests.outage --rounds 5``.

Under a steady load Redis is killed and started again, then stopped (SIGSTOP) and continued, round by round. Printed,
and written to results/outage.json: the time from the return of Redis until every worker routes by a weight written
right then, and failed requests.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from loadtests import report
from router.control.link import make_client
from router.control.redis_server import free_port, launch
from tests.running import Router, running_router, some_more, steady_load
from tests.waiting import until

KEY = "rings:{shop}:weights"


async def applied(router: Router, url: str, weight: float) -> float:
    """Seconds from now until every worker has this weight, written now."""
    started = time.time()
    client = make_client(url)
    await client.hset(KEY, "canary", f"{weight:g}")
    await client.aclose()
    await until(lambda: router.weights()["canary"] == weight and router.is_everywhere(), within=30)
    return max(worker["applied_at"] for worker in router.state()["workers"]) - started


async def measure(rounds: int) -> dict[str, Any]:
    """Seconds for each fault, round by round; requests and failed ones of them all."""
    with tempfile.TemporaryDirectory() as name:
        directory, port = Path(name), free_port()
        server = launch(port, directory / "redis")
        taken: dict[str, list[float]] = {"killed": [], "stopped": []}
        try:
            async with running_router(directory, redis=server.url) as router, steady_load(router) as tally:
                weight = 5.0
                for _ in range(rounds):
                    for fault, times in taken.items():
                        if fault == "killed":
                            server.kill()
                        else:
                            server.send(signal.SIGSTOP)
                        await until(lambda: router.state()["store"]["state"] == "down", within=10)
                        await some_more(tally, 500)
                        if fault == "killed":
                            server = await asyncio.to_thread(launch, port, directory / "redis")
                        else:
                            server.send(signal.SIGCONT)
                        weight += 1
                        times.append(await applied(router, server.url, weight))
        finally:
            server.stop()
    return {
        "summary": {fault: report.spread(times) for fault, times in taken.items()},
        "requests": tally.answered,
        "failed_requests": len(tally.failures),
        "seconds": taken,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = uvloop.run(measure(options.rounds))
    for fault, one in found["summary"].items():
        print(f"Redis {fault}: next HSET applied after {one['median']:.2f} s (longest {one['max']:.2f})")
    print(f"{found['requests']} requests, {found['failed_requests']} failed")
    report.save("outage", options, found)


if __name__ == "__main__":
    report.run(main)
