"""What does a Redis outage cost? ``python -m loadtests.outage --rounds 5``.

Under a steady load Redis is killed and started again, then stopped (SIGSTOP) and continued, round by round. Printed:
the time from the return of Redis until every worker routes by a weight written right then, and failed requests.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

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


async def measure(rounds: int) -> None:
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
    for fault, times in taken.items():
        print(f"Redis {fault}: next HSET applied after {statistics.median(times):.2f} s (longest {max(times):.2f})")
    print(f"{tally.answered} requests, {len(tally.failures)} failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    uvloop.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
