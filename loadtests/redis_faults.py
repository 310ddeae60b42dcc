"""What does a fault of Redis cost? ``python -m loadtests.redis_faults``.

A real router serves under load while the primary behind Sentinels is killed, stopped or failed over by hand, while a
slot of a Cluster moves, its owner is killed or stopped, and while a TLS server restarts. An operator writes a weight
every tenth of a second through the router's own client. Detected: the router's log says that the link is down. In sync:
the router applies a value that was written after the fault to the server that is the primary from now on; both in
seconds since the fault. Then ten single writes, each until it is applied. Writes results/redis_faults.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop

from loadtests import report
from loadtests.redis_kinds import Nodes, Watched, cluster, command, primary_and_sentinels, reached, tls_server
from router.control.link import TROUBLE, make_client
from tests.running import Router, running_router, steady_load

KEY: Final = "rings:{shop}:weights"
WRITE_SECONDS: Final = 0.1
WITHIN_SECONDS: Final = 40.0
SETTLE_WRITES: Final = 10
MEASURED_BEFORE: Final = {
    "sentinel kill": "2.2–3.2 s", "sentinel stop": "+2.6 s", "sentinel manual": "1.5 s (11.3 s without looking)",
    "cluster migrate": "0.55 s", "cluster kill": "3.3 s", "cluster stop": "", "tls restart": "0.8–1.1 s",
}  # fmt: skip
"""The watcher alone, before it was part of the router."""

NewPrimary = Callable[[], Awaitable[int]]
"""The port of whoever took over; 0: nobody yet; -1: there is only one."""
Fault = Callable[[], Awaitable[NewPrimary]]
"""Breaks something."""


async def one(url: str, directory: Path, fault: Fault) -> dict[str, float]:
    """One fault under load."""
    client = make_client(url)
    written: dict[float, float] = {}
    """Weight → when it was acknowledged."""
    weight = 0.0
    try:
        await client.hset(KEY, "canary", "1")
        async with (
            running_router(directory, redis=url, workers=1) as router,
            steady_load(router, connections=4) as tally,
        ):
            await reached(partial(_has, router, 1.0), "the first weight is applied")
            is_over = asyncio.Event()

            async def write() -> None:
                nonlocal weight
                while not is_over.is_set():
                    weight += 0.01
                    with contextlib.suppress(TimeoutError, *TROUBLE):
                        async with asyncio.timeout(1):
                            await client.hset(KEY, "canary", f"{1 + weight:.2f}")
                        written[round(1 + weight, 2)] = time.monotonic()
                    await asyncio.sleep(WRITE_SECONDS)

            before = router.log.read_text().count(" is down")
            began = time.monotonic()
            new_primary = await fault()
            writing = asyncio.gather(write(), _down(router, before, began))

            async def is_ordered() -> bool:
                return await new_primary() != 0

            ordered = await reached(is_ordered, "the new order holds", WITHIN_SECONDS)
            port = await new_primary()

            async def is_in_sync() -> bool:
                now = round((await asyncio.to_thread(router.weights))["canary"], 2)
                if written.get(now, 0.0) <= ordered:
                    return False
                return port < 0 or float(await command(port, "HGET", KEY, "canary") or 0) >= now

            synced = await reached(is_in_sync, "a change after the fault is applied", WITHIN_SECONDS)
            is_over.set()
            _, detected = await writing
            taken = []
            for number in range(SETTLE_WRITES):
                value, at = 50.0 + number, time.time()
                await client.hset(KEY, "canary", str(value))
                await reached(partial(_has, router, value), "a change is applied")
                state = await asyncio.to_thread(router.state)
                taken.append(max(worker["applied_at"] for worker in state["workers"]) - at)
            return {
                "detected_s": detected,
                "new_primary_s": ordered - began,
                "in_sync_s": synced - began,
                "write_to_applied_ms": 1e3 * statistics.median(taken),
                "requests": float(tally.answered),
                "failed_requests": float(len(tally.failures)),
            }
    finally:
        await client.aclose()


async def _has(router: Router, weight: float) -> bool:
    return abs((await asyncio.to_thread(router.weights))["canary"] - weight) < 1e-9


async def _down(router: Router, before: int, began: float) -> float:
    """Seconds until the log says so; -1: it never had to."""
    while time.monotonic() - began < WITHIN_SECONDS / 4:
        if router.log.read_text().count(" is down") > before:
            return time.monotonic() - began
        await asyncio.sleep(0.01)
    return -1.0


def _another(where: Callable[[], Awaitable[int]], old: int) -> NewPrimary:
    """Who has taken over; 0 until somebody has."""

    async def is_new() -> int:
        now = await where()
        return 0 if now == old else now

    return is_new


async def sentinel(directory: Path, how: str) -> dict[str, float]:
    async with primary_and_sentinels(directory) as house:
        old = await house.primary()

        async def fault() -> NewPrimary:
            await _sentinel_fault(house, old, how)
            return _another(house.primary, old)

        return await one(house.url, directory, fault)


async def _sentinel_fault(house: Watched, old: int, how: str) -> None:
    if how == "kill":
        house.servers[old].kill()
    elif how == "stop":
        house.servers[old].send(signal.SIGSTOP)
    else:
        await command(next(iter(house.sentinels)), "SENTINEL", "FAILOVER", "routing")


async def slots(directory: Path, how: str) -> dict[str, float]:
    async with cluster(directory, KEY) as house:
        old = await house.owner()

        async def fault() -> NewPrimary:
            await _slot_fault(house, old, how)
            return _another(house.owner, old)

        return await one(house.url, directory, fault)


async def _slot_fault(house: Nodes, old: int, how: str) -> None:
    if how == "kill":
        house.servers[old].kill()
    elif how == "stop":
        house.servers[old].send(signal.SIGSTOP)
    else:
        others = [port for port in list(house.servers)[:3] if port != old]
        await house.migrate(old, others[0])


async def tls(directory: Path, _: str) -> dict[str, float]:
    async with tls_server(directory) as house:

        async def fault() -> NewPrimary:
            await house.restart()

            async def is_back() -> int:
                return -1

            return is_back

        return await one(house.url, directory, fault)


KINDS: Final = {"sentinel": sentinel, "cluster": slots, "tls": tls}


async def measure(names: list[str]) -> dict[str, dict[str, float]]:
    found = {}
    for name in names:
        kind, how = name.split()
        with tempfile.TemporaryDirectory(prefix="ring-router-redis-") as directory:
            found[name] = await KINDS[kind](Path(directory), how)
        print(f"{name}:  " + "  ".join(f"{key} {value:.3g}" for key, value in found[name].items()), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", nargs="+", default=list(MEASURED_BEFORE), choices=list(MEASURED_BEFORE))
    asked = parser.parse_args()
    found: dict[str, Any] = uvloop.run(measure(asked.faults))
    head = ["fault", "detected s", "new primary s", "in sync s", "write → applied ms", "failed requests", "before"]
    keys = ("detected_s", "new_primary_s", "in_sync_s", "write_to_applied_ms", "failed_requests")
    report.table(
        head, [[name, *(f"{one[key]:.3g}" for key in keys), MEASURED_BEFORE[name]] for name, one in found.items()]
    )
    report.save("redis_faults", asked, {"summary": found})


if __name__ == "__main__":
    report.run(main)
