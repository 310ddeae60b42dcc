"""What does it cost to look? ``python -m loadtests.watching``. Everything on loopback; writes results/watching.json.

* **visible**: from an HSET to the figure on the page, in a real Chromium if there is one, and to the stream's event.
* **tabs**: CPU of the control process with so many open event streams, less what it takes without, as a part of a core.
* **fleet**: CPU of Redis and of one control process while so many other instances exchange figures (real ``Fleet``
  objects in one process of their own), less what both take without them, as a part of a core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
from redis.asyncio import Redis

from loadtests import report, rig
from router.control.fleet import Fleet
from router.control.keys import key_of
from router.control.redis_server import free_port, launch
from router.telemetry.buckets import Piece, Pieces
from router.telemetry.tasks import spawn
from tests.running import Router, running_router, steady_load
from tests.waiting import until

STATUS_SECONDS: Final = 10.0
CHROMIUM: Final = shutil.which("chromium")


def busy_seconds(pid: int) -> float:
    """CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def control_of(router: Router) -> int:
    """The process id of a router's control process."""
    for pid in rig.family(router.process.pid):
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ring-router: control"):
            return pid
    raise rig.RigError("the router has no control process")


async def share(pids: list[int], seconds: float) -> list[float]:
    """Which part of a core each process takes, in percent."""
    before, began = [busy_seconds(pid) for pid in pids], time.monotonic()
    await asyncio.sleep(seconds)
    taken = time.monotonic() - began
    return [100 * (busy_seconds(pid) - one) / taken for pid, one in zip(pids, before, strict=True)]


# -- visible -----------------------------------------------------------------------------------------------------------


async def in_stream(router: Router, client: Redis, rounds: int) -> list[float]:
    """Milliseconds from the write to the ``change`` event."""
    taken = []
    url = f"http://127.0.0.1:{router.admin}/api/v1/events"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        for number in range(rounds):
            began = time.perf_counter()
            await client.hset(key_of("shop", "weights"), mapping={"canary": str(1 + number % 50)})
            async for line in response.content:
                if line.startswith(b"event: change"):
                    break
            taken.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(0.2)
    return taken


async def on_page(router: Router, client: Redis, rounds: int) -> list[float]:
    """Milliseconds from the write until the page's text says the new weight."""
    from playwright.async_api import async_playwright

    taken = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = await browser.new_page()
            await page.goto(f"http://127.0.0.1:{router.admin}/ui/")
            await page.wait_for_selector("svg")
            for number in range(rounds):
                weight = f"{1 + number % 50}.{10 + number % 80}"
                began = time.perf_counter()
                await client.hset(key_of("shop", "weights"), mapping={"canary": weight})
                seen = f"() => document.body.textContent.includes('{float(weight):g} % target')"
                await page.wait_for_function(seen, polling=10, timeout=20_000)
                taken.append(1000 * (time.perf_counter() - began))
                await asyncio.sleep(0.3)
        finally:
            await browser.close()
    return taken


# -- tabs --------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def tabs(router: Router, count: int) -> AsyncIterator[None]:
    """So many who listen to events and read what they get."""

    async def listen() -> None:
        async with session.get(f"http://127.0.0.1:{router.admin}/api/v1/events") as response:
            if response.status != 200:
                raise rig.RigError(f"a stream was refused: {response.status}")
            nonlocal open_tabs
            open_tabs += 1
            async for _ in response.content.iter_any():
                pass

    open_tabs = 0
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        tasks = [spawn(listen(), name="tab") for _ in range(count)]
        try:
            await until(lambda: open_tabs == count, within=30)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


# -- fleet -------------------------------------------------------------------------------------------------------------


async def crowd(url: str, count: int, status: dict[str, Any]) -> None:
    """So many other instances, each with five rings that have traffic, until this process is ended."""
    rings = ("canary", "early", "everyone", "staff", "beta")

    def pieces(_bucket: int) -> dict[str, Pieces]:
        codes = {200: int(time.time() * 10) % 10_000, 404: 3, 503: 1}
        histogram = dict.fromkeys(range(150, 210), 7)
        return {"shop": {(ring, "v2"): Piece(codes, {"hash": codes[200]}, histogram) for ring in rings}}

    fleets = [Fleet(url, f"other-{number}:8080", lambda: ["shop"], pieces, lambda: True) for number in range(count)]
    client = Redis.from_url(url)
    for fleet in fleets:
        fleet.start()
        await asyncio.sleep(2.0 / count)  # they did not start in the same moment
    while True:
        for number in range(count):
            said = json.dumps({**status, "at": round(time.time(), 3)})
            await client.hset(key_of("shop", "status"), f"other-{number}:8080", said)
            await asyncio.sleep(STATUS_SECONDS / count)


@asynccontextmanager
async def others(router: Router, url: str, count: int, status: dict[str, Any]) -> AsyncIterator[None]:
    words = [sys.executable, "-m", "loadtests.watching", "--crowd", url, str(count), json.dumps(status)]
    process = await asyncio.to_thread(subprocess.Popen, words)
    try:
        await until(lambda: process.poll() is not None or fleet_count(router) > count, within=60)
        if process.poll() is not None:
            raise rig.RigError("the other instances ended by themselves")
        yield
    finally:
        process.terminate()
        process.wait(10)


# -- all of it ---------------------------------------------------------------------------------------------------------


def shown(name: str, values: list[float], unit: str) -> dict[str, float]:
    ordered = sorted(values)
    found = {"median": statistics.median(ordered), "max": ordered[-1], "min": ordered[0]}
    print(f"{name}: median {found['median']:.2f} {unit} ({found['min']:.2f} to {found['max']:.2f})", flush=True)
    return found


def fleet_count(router: Router) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{router.admin}/api/v1/fleet", timeout=5) as response:
        return int(json.load(response)["count"])


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ring-router-load-") as name:
        directory = Path(name)
        server = launch(free_port(), directory / "redis")
        try:
            async with AsyncExitStack() as house:
                router = await house.enter_async_context(running_router(directory, redis=server.url, workers=2))
                client = await house.enter_async_context(Redis.from_url(server.url))
                await house.enter_async_context(gentle_load(router))
                return await _measure(options, router, client, server.url, server.pid)
        finally:
            server.stop()


@asynccontextmanager
async def gentle_load(router: Router) -> AsyncIterator[None]:
    """Some users, so that there is something to see."""

    async def pulse() -> None:
        while True:
            async with steady_load(router, users=50, connections=2) as tally:
                await until(lambda: tally.answered >= 50, within=30)
            await asyncio.sleep(0.5)

    task = spawn(pulse(), name="gentle load")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, ExceptionGroup):
            await task


async def _measure(options: argparse.Namespace, router: Router, client: Redis, url: str, redis: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    await asyncio.sleep(3)
    found["visible_in_stream_ms"] = shown("HSET to event", await in_stream(router, client, options.writes), "ms")
    if CHROMIUM is None:
        print("no chromium (Debian package chromium): the page itself was not looked at")
    else:
        found["visible_on_page_ms"] = shown("HSET to page", await on_page(router, client, options.writes), "ms")
    control = control_of(router)
    more = []
    for _ in range(options.rounds):
        (without,) = await share([control], options.seconds)
        async with tabs(router, options.tabs):
            await asyncio.sleep(1)
            (with_tabs,) = await share([control], options.seconds)
        more.append(with_tabs - without)
    found["tabs_percent"] = shown(f"{options.tabs} tabs, % of a core more in control", more, "%")
    status = json.loads(await client.hget(key_of("shop", "status"), router.state()["instance"]) or b"{}")
    of_redis, of_control = [], []
    for _ in range(options.rounds):
        before = await share([redis, control], options.seconds)
        async with others(router, url, options.instances - 1, status):
            during = await share([redis, control], options.seconds)
        of_redis.append(during[0] - before[0])
        of_control.append(during[1] - before[1])
        await client.delete(key_of("shop", "status"))
    found["fleet_redis_percent"] = shown(f"{options.instances} instances, % of a core more in Redis", of_redis, "%")
    found["fleet_control_percent"] = shown("the same in one control process", of_control, "%")
    return found


def main() -> None:
    parser = report.parser("What it costs to look: pages, tabs and a fleet.", rounds=5, seconds=10)
    parser.add_argument("--writes", type=int, default=30, help="changes of a weight that are waited for")
    parser.add_argument("--tabs", type=int, default=50)
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--crowd", nargs=3, metavar=("URL", "COUNT", "STATUS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.crowd is not None:
        url, count, status = options.crowd
        with suppress(KeyboardInterrupt):
            asyncio.run(crowd(url, int(count), json.loads(status)))
        return
    del options.crowd
    report.save("watching", options, {"summary": asyncio.run(measure(options))})


if __name__ == "__main__":
    report.run(main)
