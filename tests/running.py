"""A whole router as its own processes: parent, control, workers, with real versions behind it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests import rig
from tests.house import Serve, fixed, raw_backend
from tests.waiting import until, until_said

BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%b"

CONFIG = """\
listen: 127.0.0.1:{port}
admin: {{listen: 127.0.0.1:{admin}}}
workers: {workers}
state_dir: {state}
access_log: {{format: "off"}}
{redis}
services:
  shop:
    identity: [{{header: X-User-Id}}, {{cookie: uid}}]
    versions:
      v1: {{endpoints: ["http://127.0.0.1:{v1}"]}}
      v2: {{endpoints: ["http://127.0.0.1:{v2}"]}}
    rings:
      - {{name: canary, version: v2, weight: 5, audience: [{{header: {{name: X-Ring, equals: canary}}}}]}}
      - {{name: early, version: v2, weight: 20}}
      - {{name: everyone, version: v1}}
"""


free_ports = rig.free_ports
"""Below those that the kernel gives to connections: three test processes make many of them."""


@dataclass
class Router:
    """A router started with `ring-router run`."""

    process: subprocess.Popen[bytes]
    config: Path
    port: int
    admin: int
    log: Path
    token: str = ""
    """Of the admin side, where it wants one."""

    def get(self, path: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=5) as response:
            data: bytes = response.read()
        return data

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.get("/api/v1/state"))
        return state

    def metric(self, pattern: str) -> float:
        """The sum of all samples whose line begins with this pattern."""
        lines = self.get("/metrics").decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(pattern, line))

    def weights(self) -> dict[str, float]:
        return {ring["ring"]: ring["weight"] for ring in self.state()["services"]["shop"]["rings"]}

    def is_everywhere(self) -> bool:
        """Every worker routes by the generation that control has."""
        state = self.state()
        return bool(state["applied_everywhere"] == state["generation"])

    def is_ready(self) -> bool:
        try:
            return self.get("/ready").startswith(b"ready")
        except OSError:
            return False

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.state()["workers"]]

    def control_pid(self) -> int:
        return self._child("control")

    def _child(self, name: str) -> int:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().strip(b"\0").decode()
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
                # Releases before the first that forked: a rolling upgrade begins with one.
                is_earlier = f"router.process.{name}" in command.split("\0")
                if parent == self.process.pid and (is_earlier or command == f"ring-router: {name}"):
                    return int(entry.name)
        raise AssertionError(f"no {name}")

    async def ring_of(self, user: str) -> tuple[str, str]:
        """Ring and version of a user, and that the body came from that version."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            return await ask_on(reader, writer, user)
        finally:
            writer.close()


async def ask_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str) -> tuple[str, str]:
    """One request on a kept connection."""
    ring, body, _ = await exchange_on(reader, writer, user)
    return ring, body


async def exchange_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str) -> tuple[str, str, bool]:
    """One request on a kept connection; ring, body, and whether the answer says that it was the last one."""
    writer.write(f"GET / HTTP/1.1\r\nHost: shop\r\nX-User-Id: {user}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    assert head.startswith("HTTP/1.1 200 "), head
    body = (await reader.readexactly(2)).decode()
    fields = {k.lower(): v for k, _, v in (line.partition(": ") for line in head.split("\r\n")[1:])}
    assert fields["x-ring-version"] == body, head
    return fields["x-ring"], body, fields.get("connection") == "close"


async def exchange_raw(router: Router, fields: str) -> str:
    """The head of the answer to one request with these fields, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: shop\r\n{fields}\r\n".encode())
        return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    finally:
        writer.close()


async def rings_of(router: Router, users: list[str], connections: int = 8) -> dict[str, str]:
    """user → ring, asked over several connections so that every worker answers some."""
    rings: dict[str, str] = {}

    async def some(mine: list[str]) -> None:
        for start in range(0, len(mine), 50):
            reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
            for user in mine[start : start + 50]:
                rings[user] = (await ask_on(reader, writer, user))[0]
            writer.close()

    await asyncio.gather(*(some(users[i::connections]) for i in range(connections)))
    return rings


@dataclass
class Tally:
    """What a steady load saw: counts, failures with their cause, and each user's rings in order."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    rings: dict[str, list[str]] = field(default_factory=dict)
    stop: bool = False


@asynccontextmanager
async def steady_load(router: Router, users: int = 200, connections: int = 8) -> AsyncIterator[Tally]:
    """Requests back to back over kept connections, each renewed now and then, until the block ends."""
    tally = Tally()

    async def client(mine: list[str]) -> None:
        reader, writer, uses = None, None, 0
        while not tally.stop:
            for user in mine:
                try:
                    if writer is None or reader is None:
                        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
                        uses = 0
                    async with asyncio.timeout(10):
                        ring, _, is_last = await exchange_on(reader, writer, user)
                except (OSError, EOFError, AssertionError, TimeoutError) as error:
                    tally.failures.append(repr(error)[:200])
                    writer = None
                    await asyncio.sleep(0.01)
                    continue
                tally.answered += 1
                seen = tally.rings.setdefault(user, [])
                if not seen or seen[-1] != ring:
                    seen.append(ring)
                uses += 1
                if uses == 50 or is_last:
                    writer.close()
                    writer = None
                if tally.stop:
                    break
        if writer is not None:
            writer.close()

    names = [f"user-{i}" for i in range(users)]
    async with asyncio.TaskGroup() as group:
        for i in range(connections):
            group.create_task(client(names[i::connections]))
        try:
            yield tally
        finally:
            tally.stop = True


async def some_more(tally: Tally, answers: int = 300) -> None:
    """Wait until the load has had this many more answers."""
    goal = tally.answered + answers
    await until(lambda: tally.answered >= goal, within=20)


@asynccontextmanager
async def running_router(
    directory: Path, *, redis: str = "", workers: int = 2, serve: Serve | None = None, config: str = CONFIG
) -> AsyncIterator[Router]:
    """A router with v1 (or ``serve``) and v2 behind it; ready when the block begins, gone by pid when it ends."""
    async with written_config(directory, redis=redis, workers=workers, serve=serve, config=config) as (
        file,
        port,
        admin,
    ):
        router = start_router(file, port, admin, directory / "router.log")
        try:
            await until_said(router.is_ready, within=60)
            yield router
        finally:
            await stop_router(router)


@asynccontextmanager
async def written_config(
    directory: Path, *, redis: str = "", workers: int = 2, serve: Serve | None = None, config: str = CONFIG
) -> AsyncIterator[tuple[Path, int, int]]:
    """A config file with its port and the admin side's, and v1 (or ``serve``) and v2 that it names."""
    async with AsyncExitStack() as house:
        v1 = await house.enter_async_context(raw_backend(serve or fixed(BODY % b"v1")))
        v2 = await house.enter_async_context(raw_backend(fixed(BODY % b"v2")))
        port, admin = free_ports(2)
        file = directory / "router.yaml"
        text = config.format(
            port=port, admin=admin, workers=workers, state=directory / "state", v1=v1, v2=v2,
            redis=f"redis: {redis}" if redis else "",
        )  # fmt: skip
        (directory / "state").mkdir(exist_ok=True)
        file.write_text(text)
        yield file, port, admin


def start_router(config: Path, port: int, admin: int, log: Path, command: Sequence[str] = ("run",)) -> Router:
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "router.cli", *command, "-c", str(config)],
            stderr=out, stdout=out, env={**os.environ},
        )  # fmt: skip
    return Router(process, config, port, admin, log)


async def stop_router(router: Router) -> int:
    """SIGTERM, and the exit code; the processes it leaves must be none."""
    if router.process.poll() is None:
        router.process.send_signal(signal.SIGTERM)
    await until(lambda: router.process.poll() is not None, within=45)
    return router.process.returncode
