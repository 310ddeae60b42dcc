"""What do a million members of a ring cost? ``python -m loadtests.members``.

Imports them with the router's own command, starts a router with nothing on its disk, then one that has the table, adds
users one by one, and compares the CPU of requests with that of a router without members. All of it on loopback. Writes
results/members.json.

In effect is a new member once every one of the kept connections is answered by the ring; they are many more than
workers, so that each worker has some.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from loadtests import report, rig
from router.control.keys import members_key, shard_of
from router.control.redis_server import free_port, launch
from tests.running import Router, ask_on, running_router
from tests.waiting import until

RING, WEIGHTS = "canary", "rings:{shop}:weights"
SYNC_SECONDS = 120.0
CONNECTIONS_PER_WORKER = 10
MEMBERS_AMONG_USERS = 10
"""Each tenth user of the load is a member."""


def names(count: int) -> list[str]:
    """Members, among them each tenth user of the load."""
    of_the_load = [f"user-{number}" for number in range(0, rig.USERS, MEMBERS_AMONG_USERS)]
    return [*of_the_load, *(f"customer-{number:09}" for number in range(count - len(of_the_load)))]


def held_kib(pid: int) -> int:
    """Proportional set size: what is shared with others counts by its share."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def counted(router: Router) -> int:
    return int(router.state()["services"]["shop"]["members"].get(RING, 0))


async def start(house: AsyncExitStack, directory: Path, redis: str, workers: int) -> Router:
    await asyncio.to_thread(directory.mkdir, exist_ok=True)
    return await house.enter_async_context(running_router(directory, redis=redis, workers=workers))


async def synced(directory: Path, redis: str, workers: int, wanted: int) -> float:
    """Seconds from the start of a router until a member is routed by all of the table."""
    began = time.monotonic()
    async with AsyncExitStack() as house:
        router = await start(house, directory, redis, workers)

        async def are_there() -> bool:
            ring, _ = await router.ring_of("customer-000000007")
            return ring == RING and await asyncio.to_thread(counted, router) == wanted

        await until(are_there, within=SYNC_SECONDS)
        return time.monotonic() - began


async def effects(router: Router, port: int, workers: int, adds: int) -> dict[str, list[float]]:
    """Milliseconds from SADD to the last connection that sees it: into a shard of the long list, into a short one."""
    streams = [await asyncio.open_connection(rig.HOST, router.port) for _ in range(CONNECTIONS_PER_WORKER * workers)]
    redis_reader, redis = await asyncio.open_connection(rig.HOST, port)
    taken: dict[str, list[float]] = {"shard": [], "short list": []}
    try:
        for number in range(adds):
            for way in taken:
                user = await _outsider(*streams[0], f"{way.replace(' ', '-')}-{number}")
                shard = shard_of(user.encode()) if way == "shard" else ""
                said = rig.resp("SADD", members_key("shop", RING, shard), user)
                began = time.monotonic()
                redis.write(said)
                if await redis_reader.readline() != b":1\r\n":
                    raise rig.RigError("SADD added nobody")
                async with asyncio.timeout(30):
                    await asyncio.gather(*(_until_inside(*one, user) for one in streams))
                taken[way].append((time.monotonic() - began) * 1e3)
    finally:
        for _, writer in streams:
            writer.close()
        redis.close()
    return taken


async def _outsider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> str:
    """A new user whom the hash leaves outside of the ring."""
    number = 0
    while (await ask_on(reader, writer, f"{name}-{number}"))[0] == RING:
        number += 1
    return f"{name}-{number}"


async def _until_inside(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str) -> None:
    while (await ask_on(reader, writer, user))[0] != RING:  # noqa: ASYNC110 - a user asks, nobody tells
        await asyncio.sleep(0.001)


def pinned(router: Router) -> rig.Child:
    """A router whose processes are all on the core of the proxies; its workers are what is counted."""
    for pid in rig.family(router.process.pid):
        os.sched_setaffinity(pid, {rig.PROXY_CORE})
    return rig.Child("router", router.process, router.log, pids=router.worker_pids())


async def cost(routers: dict[str, Router], script: Path, rounds: int, seconds: float) -> list[dict[str, float]]:
    """CPU microseconds per request, round by round, each contestant first in turn."""
    children = {name: pinned(router) for name, router in routers.items()}
    found = []
    for _, order in rig.turns(list(routers), rounds):
        one = {}
        for name in order:
            measured = await asyncio.to_thread(rig.measure, children[name], script, routers[name].port, seconds)
            if measured["errors"]:
                raise rig.RigError(f"{measured['errors']:g} errors of {name}")
            one[name] = measured["cpu_us"]
        found.append(one)
        print(f"  with {one['with']:.1f} µs, without {one['without']:.1f} µs: {one['with'] / one['without']:.3f}")
    return found


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory(prefix="ring-router-load-") as name:
        directory = Path(name)
        server, empty = launch(free_port(), directory / "redis"), launch(free_port(), directory / "empty-redis")
        try:
            return await _measure(options, directory, server.url, server.port, empty.url)
        finally:
            server.stop()
            empty.stop()


async def _measure(options: argparse.Namespace, directory: Path, url: str, port: int, other: str) -> dict[str, Any]:
    found: dict[str, Any] = {"members": options.members, "workers": options.workers}
    crowd = names(options.members)
    list_file = directory / "list.txt"
    list_file.write_text("\n".join(crowd) + "\n")
    async with AsyncExitStack() as house:
        router = await start(house, directory / "importing", url, 1)
        command = [
            sys.executable,
            "-m",
            "router.cli",
            "members",
            "import",
            RING,
            str(list_file),
            "-c",
            str(router.config),
        ]
        began = time.monotonic()
        await asyncio.to_thread(lambda: subprocess.run(command, check=True, capture_output=True))
        found["import_s"] = time.monotonic() - began
    print(f"imported in {found['import_s']:.1f} s", flush=True)
    found["sync_from_empty_s"] = await synced(directory / "with", url, options.workers, options.members)
    found["restart_s"] = await synced(directory / "with", url, options.workers, options.members)
    print(f"in force {found['sync_from_empty_s']:.1f} s after a start from nothing, {found['restart_s']:.1f} s after "
          f"one with a table", flush=True)  # fmt: skip
    async with AsyncExitStack() as house:
        router = await start(house, directory / "with", url, options.workers)
        plain = await start(house, directory / "without", other, options.workers)
        await until(lambda: counted(router) == options.members, within=SYNC_SECONDS)
        tables = [one for one in (directory / "with" / "state" / "members").iterdir() if one.is_file()]
        found["table_bytes_each"] = sum(one.stat().st_size for one in tables) / options.members
        taken = await effects(router, port, options.workers, options.adds)
        for way, ones in taken.items():
            ones.sort()
            shown = {"p50": statistics.median(ones), "p99": ones[int(len(ones) * 0.99)], "max": ones[-1]}
            found[f"effect_{way.replace(' ', '_')}_ms"] = shown
            print(f"in effect ({way}), ms: " + ", ".join(f"{k} {v:.1f}" for k, v in shown.items()), flush=True)
        pss = {}
        for label, one in (("with", router), ("without", plain)):
            pss[label] = sum(held_kib(pid) for pid in rig.family(one.process.pid)) * 1024
        found["whole_router_bytes_each"] = (pss["with"] - pss["without"]) / options.members
        print(f"bytes per member: table {found['table_bytes_each']:.1f}, whole router more by "
              f"{found['whole_router_bytes_each']:.1f}", flush=True)  # fmt: skip
    async with AsyncExitStack() as house:
        routers = {
            "with": await start(house, directory / "with", url, 1),
            "without": await start(house, directory / "without", other, 1),
        }
        await until(lambda: counted(routers["with"]) >= options.members, within=SYNC_SECONDS)
        script = directory / "load.lua"
        script.write_text(rig.lua())
        os.sched_setaffinity(0, {rig.LOAD_CORE})
        rounds = await cost(routers, script, options.rounds, options.seconds)
    ratios = [one["with"] / one["without"] for one in rounds]
    found["cpu_us"] = rounds
    found["cpu_ratio"] = statistics.median(ratios)
    found["cpu_ratio_min"], found["cpu_ratio_max"] = min(ratios), max(ratios)
    print(f"CPU with ÷ without: {found['cpu_ratio']:.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--adds", type=int, default=100, help="New members of each way.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=4.0, help="Of load per round and router.")
    options = parser.parse_args()
    rig.say_cores()
    rig.raise_open_files()
    report.save("members", options, {"summary": asyncio.run(measure(options))})


if __name__ == "__main__":
    report.run(main)
