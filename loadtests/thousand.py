"""What do a thousand instances cost one Redis? ``python -m loadtests.thousand --instances 100 1000``.

Starts Redis and, in two processes, so many instances without workers (``thousand_clients``), which come in the course
of seconds. Then, in turn: nobody does anything; an operator writes weights; somebody looks at the fleet; Redis is
killed and started again. Counted is what Redis says of itself, its CPU as the kernel counts it, and when the last
instance has applied a weight. The clients have the two cores of a small machine to share with Redis, where in a fleet
each has its own: times are upper bounds, and ``clients_cpu`` (in cores) says how near they were to their limit. Writes
results/thousand.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import uvloop
from redis.asyncio import Redis

from loadtests import report, rig
from router.control.link import make_client
from router.control.redis_server import EmbeddedRedis, free_port, launch

KEY = "rings:{shop}:weights"
PROCESSES = 2
LINE_BYTES = 4 * 1024 * 1024


class Clients:
    """The two processes."""

    def __init__(self, processes: list[Process]) -> None:
        self._processes = processes

    @classmethod
    async def start(cls, url: str, instances: int, directory: Path) -> Clients:
        each, processes = instances // PROCESSES, []
        for number in range(PROCESSES):
            log = (directory / f"clients-{number}.log").open("wb")
            command = [*rig.python_module("loadtests.thousand_clients", url, number * each, each), str(directory)]
            processes.append(
                await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=log, limit=LINE_BYTES)
            )
            log.close()
        return cls(processes)

    async def _line(self, process: Process, key: str, within: float) -> dict[str, Any]:
        """The next thing it says that has this key."""
        assert process.stdout is not None
        try:
            async with asyncio.timeout(within):
                while line := await process.stdout.readline():
                    said: dict[str, Any] = json.loads(line)
                    if key in said:
                        return said
        except TimeoutError:
            raise rig.RigError(f"the clients did not say `{key}` within {within:g} s") from None
        raise rig.RigError("a process of clients died")

    async def heard(self, key: str, within: float) -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(self._line(process, key, within) for process in self._processes)))

    async def ask(self, word: str) -> dict[str, float]:
        """Figures of both together; the first one's of what is known of others."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{word}\n".encode())
        first, *more = await self.heard("cpu_seconds", 30)
        for key in ("cpu_seconds", "resident_mib", "up", "fleets_read_lately"):
            first[key] += sum(one[key] for one in more)
        return first

    async def end(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(process.wait() for process in self._processes))


async def span(redis: Redis, pid: int, clients: Clients, seconds: float) -> dict[str, float]:
    """What so many seconds cost: per second, CPU in percent of a core."""

    async def now() -> tuple[float, float, dict[str, Any], dict[str, float]]:
        info = await redis.info()
        return time.monotonic(), rig.cpu_seconds(pid), info, await clients.ask("figures")

    begun, cpu, info, asked = await now()
    await asyncio.sleep(seconds)
    ended, cpu_after, info_after, asked_after = await now()
    taken = ended - begun

    def rate(name: str) -> float:
        return float((info_after[name] - info[name]) / taken)

    return {
        "redis_cpu_percent": 100 * (cpu_after - cpu) / taken,
        "redis_memory_mib": info_after["used_memory"] / 2**20,
        "out_mb_per_second": rate("total_net_output_bytes") / 1e6,
        "in_mb_per_second": rate("total_net_input_bytes") / 1e6,
        "commands_per_second": rate("total_commands_processed"),
        "clients_cpu_percent": 100 * (asked_after["cpu_seconds"] - asked["cpu_seconds"]) / taken,
        "statuses_known": asked_after["statuses_known"],
        "fleets_read_lately": asked_after["fleets_read_lately"],
        "instances_up": asked_after["up"],
    }


async def changes(redis: Redis, clients: Clients, count: int, pause: float) -> dict[str, Any]:
    """Seconds from a write until the first, the median and the last instance routes by it."""
    lasts, medians = [], []
    for number in range(count):
        points = 500 + number
        started = time.time()
        await redis.hset(KEY, "canary", f"{points / 100:.2f}")
        told = await clients.heard("applied", 60)
        while any(one["applied"] != points for one in told):
            told = await clients.heard("applied", 60)
        times = sorted(moment - started for one in told for moment in one["times"])
        lasts.append(times[-1])
        medians.append(times[len(times) // 2])
        await asyncio.sleep(pause)
    return {"last_instance_seconds": report.spread(lasts), "median_instance_seconds": report.spread(medians)}


async def outage(clients: Clients, server: EmbeddedRedis, port: int, home: Path) -> tuple[float, EmbeddedRedis]:
    """Seconds from the return of a killed Redis until the last instance has applied what was written right then."""
    server.kill()
    await asyncio.sleep(5)
    server = await asyncio.to_thread(launch, port, home, arguments=SERVER)
    started, redis = time.time(), make_client(server.url)
    await redis.hset(KEY, "canary", "9.00")
    await redis.aclose()
    told = await clients.heard("applied", 60)
    while any(one["applied"] != 900 for one in told):
        told = await clients.heard("applied", 60)
    return max(moment - started for one in told for moment in one["times"]), server


SERVER = ["--maxclients", "20000"]


async def measure(instances: int, seconds: float, count: int, run: rig.Rig) -> dict[str, Any]:
    """The figures of one size of fleet."""
    rig.raise_open_files()
    home, port = run.directory / f"of-{instances}", free_port()
    home.mkdir()
    server = launch(port, home / "redis", arguments=SERVER)
    redis = make_client(server.url)
    clients = await Clients.start(server.url, instances, home)
    try:
        started = time.monotonic()
        await clients.heard("live", 120)
        found: dict[str, Any] = {"joined_seconds": time.monotonic() - started}
        await asyncio.sleep(25)  # until the whole fleet has read what the last one wrote
        found["steady"] = await span(redis, server.pid, clients, seconds)
        found["changes"] = await changes(redis, clients, count, 1.0)
        await clients.ask("look")
        await asyncio.sleep(10)
        found["looked_at"] = await span(redis, server.pid, clients, seconds)
        await redis.aclose()
        found["after_outage_seconds"], server = await outage(clients, server, port, home / "redis")
        await asyncio.sleep(5)
        found |= {name: value for name, value in (await clients.ask("figures")).items() if name == "resident_mib"}
    finally:
        await clients.end()
        server.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--seconds", type=float, default=20, help="Length of each span that is measured.")
    parser.add_argument("--changes", type=int, default=20)
    options = parser.parse_args()
    found = {}
    with rig.Rig() as run:
        for instances in options.instances:
            found[str(instances)] = one = uvloop.run(measure(instances, options.seconds, options.changes, run))
            print(f"{instances} instances: {json.dumps(one, indent=1)}", file=sys.stderr, flush=True)
            for name in ("steady", "looked_at"):
                cost = one[name]
                print(
                    f"{instances} instances, {name}: Redis {cost['redis_cpu_percent']:.0f} % of a core, "
                    f"{cost['redis_memory_mib']:.1f} MiB, {cost['out_mb_per_second']:.2f} MB/s out, "
                    f"{cost['in_mb_per_second']:.2f} in; clients {cost['clients_cpu_percent']:.0f} % of a core",
                    flush=True,
                )
            last = one["changes"]["last_instance_seconds"]
            print(f"  the last instance applies a weight after {report.shown(last, 3)} s, after an outage "
                  f"{one['after_outage_seconds']:.2f} s", flush=True)  # fmt: skip
    report.save("thousand", options, {"summary": found})


if __name__ == "__main__":
    report.run(main)
