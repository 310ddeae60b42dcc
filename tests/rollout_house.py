"""A fleet under a rollout: routers that share a Redis, two versions whose faults can be dialled, and users."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis

from router.config.load import load_settings
from router.control import rollouts
from router.control.authors import Author
from router.control.rules import ServiceRules, service_rules
from router.rollout.progress import Progress
from router.telemetry.tasks import spawn
from tests.house import raw_backend, read_head
from tests.running import Router, free_ports, start_router, stop_router
from tests.waiting import until, until_said

ADA = Author("ada", "desk")
CONFIG = """\
listen: 127.0.0.1:{port}
instance: {name}
admin: {{listen: 127.0.0.1:{admin}}}
workers: {workers}
state_dir: {state}
access_log: {{format: "off"}}
redis: {redis}
services:
  shop:
    identity: [{{header: X-User-Id}}]
    timeouts: {{first_byte: 1s}}
    retries: {{attempts: 0}}
    breaker: {{failed: 0}}
    versions:
      v1: {{endpoints: ["http://127.0.0.1:{v1}"]}}
      v2: {{endpoints: ["http://127.0.0.1:{v2}"]}}
    rings:
      - {{name: canary, version: v1, weight: 0}}
      - {{name: early, version: v1, weight: 0}}
      - {{name: everyone, version: v1}}
"""


def plan(**more: Any) -> dict[str, Any]:
    """Steps of seconds, and margins that some hundred users can prove."""
    return {
        "stable": "v1",
        "candidate": "v2",
        "tick": "1s",
        "window": "2s",
        "restart": "30s",
        "copies": 4,
        "steps": [
            {"ring": "canary", "version": "v2", "weight": 30, "bake": "3s", "min_users": 100},
            {"ring": "early", "version": "v2", "weight": 30, "bake": "3s", "min_users": 100},
            {"ring": "everyone", "version": "v2", "final_bake": "3s"},
        ],
        "guardrails": [
            {"name": "errors", "outcome": "errors", "margin": {"ratio": 1.5, "abs": "2pp"}, "on_harm": "rollback",
             "required": True},
            {"name": "p90", "latency": {"quantile": 0.9, "shift_buckets": 8}, "on_harm": "rollback", "required": True},
        ],
        "checks": {
            "no_traffic": {"grace": "3s", "action": "pause"}, "no_data": {"grace": "4s", "action": "pause"},
            "breaker": {"errors": "60%", "window": "4s", "min_requests": 40, "min_slices": 5},
        },
        "rollback": {"cooldown": "0s"},
        **more,
    }  # fmt: skip


@dataclass
class Dial:
    """What is wrong with a version."""

    errors: float = 0.0
    hangs: float = 0.0
    slower: float = 1.0
    random: random.Random = field(default_factory=lambda: random.Random(7))
    served: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await read_head(reader):
            del head
            self.served += 1
            if self.random.random() < self.hangs:
                await reader.read(1)  # until the router has had enough
            await asyncio.sleep(self.slower * self.random.lognormvariate(-3.5, 0.6))
            status = b"503 No" if self.random.random() < self.errors else b"200 OK"
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nok" % status)


class Wire:
    """Between an instance and its Redis; it can be cut, and then nothing comes through, nor is anything refused."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.is_cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                while self.is_cut:
                    await asyncio.sleep(0.05)
                sink.write(data)
            sink.close()

        try:
            await asyncio.gather(pass_on(reader, ours), pass_on(theirs, writer))
        finally:
            ours.close()


@dataclass
class Fleet:
    """Routers of one service with one Redis."""

    redis: Redis
    url: str
    rules: ServiceRules
    routers: list[Router]
    stable: Dial
    candidate: Dial
    wires: list[Wire]
    versions: Counter[str] = field(default_factory=Counter)
    skips: Any = lambda _user: False
    """Users who do not come any more."""

    async def start(self, wanted: dict[str, Any], **more: Any) -> Progress:
        return await rollouts.start(self.redis, self.rules, wanted, reason="v2 is ready", by=ADA, **more)

    async def progress(self) -> Progress:
        found = await rollouts.read(self.redis, "shop")
        assert found is not None
        return found

    async def reaches(self, *phases: str, within: float = 60.0, step: int | None = None) -> Progress:
        """Wait for one of these phases; the story that it told on the way, where it does not come to it."""

        async def there() -> bool:
            found = await self.progress()
            return found.phase in phases and (step is None or found.step >= step)

        try:
            await until(there, within=within)
        except AssertionError as error:
            raise AssertionError(story(await self.progress())) from error
        return await self.progress()


def story(progress: Progress) -> str:
    lines = [f"{progress.phase} {progress.why}: {progress.headline}", progress.next]
    lines += [
        f"  {event.at:.2f} {event.kind} {event.before} → {event.after}: {event.sentence}" for event in progress.events
    ]
    lines += [
        f"  {gauge.sentence} harm {gauge.harm.peak:.1f}/{gauge.harm.level:.1f} {gauge.ring} {gauge.control}"
        for gauge in progress.gauges
    ]
    return "\n".join(lines)


Start = Callable[[Path, int, int], Awaitable[Router]]
"""Starts the router of a config file, with its port and its admin side's."""


async def by_itself(config: Path, port: int, admin: int) -> Router:
    return start_router(config, port, admin, config.parent / "router.log")


@asynccontextmanager
async def fleet(
    directory: Path,
    url: str,
    redis: Redis,
    *,
    instances: int = 1,
    workers: int = 1,
    per_second: float = 300,
    start: Start = by_itself,
    stop: Callable[[Any], Awaitable[object]] = stop_router,
) -> AsyncIterator[Fleet]:
    """``start`` and ``stop`` are those of another engine, where there is one."""
    async with AsyncExitStack() as house:
        stable, candidate = Dial(), Dial(random=random.Random(8))
        v1 = await house.enter_async_context(raw_backend(stable.serve))
        v2 = await house.enter_async_context(raw_backend(candidate.serve))
        routers = []
        wires = []
        for number in range(instances):
            wires.append(Wire(urlsplit(url).port or 0))
            wire = await house.enter_async_context(raw_backend(wires[-1].serve))
            port, admin = free_ports(2)
            home = directory / f"router-{number}"
            (home / "state").mkdir(parents=True)
            file = home / "router.yaml"
            file.write_text(
                CONFIG.format(
                    port=port,
                    admin=admin,
                    workers=workers,
                    state=home / "state",
                    v1=v1,
                    v2=v2,
                    redis=f"redis://127.0.0.1:{wire}/0",
                    name=f"router-{number}",
                )
            )
            routers.append(await start(file, port, admin))
        rules = service_rules(load_settings(directory / "router-0" / "router.yaml"))["shop"]
        made = Fleet(redis, url, rules, routers, stable, candidate, wires)
        try:
            for router in routers:
                await until_said(router.is_ready, within=60)
            async with users(made, per_second):
                yield made
        finally:
            await asyncio.gather(*(stop(router) for router in routers))


@asynccontextmanager
async def users(fleet: Fleet, per_second: float) -> AsyncIterator[None]:
    """Open-loop arrivals of ever new users, over kept connections to all routers."""
    idle: dict[int, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {}
    names = iter(range(10**9))

    async def one(number: int) -> None:
        user = f"user-{number % 40_000}"
        if fleet.skips(user):
            return
        router = fleet.routers[number % len(fleet.routers)]
        with suppress(OSError, EOFError, asyncio.IncompleteReadError):
            pool = idle.setdefault(router.port, [])
            reader, writer = pool.pop() if pool else await asyncio.open_connection("127.0.0.1", router.port)
            try:
                writer.write(f"GET / HTTP/1.1\r\nHost: shop\r\nX-User-Id: {user}\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                await reader.readexactly(length)
                version = head.lower().partition(b"x-ring-version: ")[2].partition(b"\r\n")[0].decode()
                fleet.versions[version] += 1
            except BaseException:
                writer.close()
                raise
            if b"connection: close" in head.lower():
                writer.close()
            else:
                pool.append((reader, writer))

    async def arrivals() -> None:
        tasks: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        try:
            while True:
                due += 1 / per_second
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if len(tasks) < 300:
                    task = spawn(one(next(names)), name="a user")
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        finally:
            for task in tasks:
                task.cancel()

    coming = spawn(arrivals(), name="users")
    try:
        yield
    finally:
        coming.cancel()
        with suppress(asyncio.CancelledError):
            await coming
        for pool in idle.values():
            for _, writer in pool:
                writer.close()
