"""A real Redis-compatible server per test, on a port of its own; and a store that watches it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from loadtests.rig import ROOT, free_ports
from router.control.link import make_client
from router.control.redis_server import EmbeddedRedis, launch
from router.control.rules import ServiceRules
from router.control.store import Store
from router.core.live import Live

SHOP = ServiceRules(
    name="shop",
    rings=("canary", "early", "everyone"),
    weights={"canary": 100, "early": 1000},
    versions={"canary": "v2", "early": "v2", "everyone": "v1"},
    version_names=frozenset({"v1", "v2", "v3"}),
)
WEIGHTS, VERSIONS, CONTROL, STATUS, AUDIT = (
    f"rings:{{shop}}:{name}" for name in ("weights", "versions", "control", "status", "audit")
)

ACCOUNTS = {
    line.split()[2]: line.replace("SECRET", "first").split()
    for line in (ROOT / "docs" / "redis.md").read_text("utf-8").splitlines()
    if line.startswith("ACL SETUSER rr-")
}
"""Those of docs/redis.md, each as the words of its command; the secret is ``first``."""


@dataclass
class Server:
    """A server that can be stopped, killed and started again on the same port."""

    port: int
    directory: Path
    running: EmbeddedRedis
    arguments: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.running.url

    def start(self) -> None:
        self.running = launch(self.port, self.directory, arguments=self.arguments)

    def redis_cli(self, *words: str | bytes) -> str:
        """What an operator would type: the real redis-cli, or where there is none its substitute."""
        typed = ["redis-cli", "-p", str(self.port)]
        if shutil.which("redis-cli") is None:
            typed = [sys.executable, "-m", "router.cli", "redis", "--url", self.url]
        done = subprocess.run([*typed, *words], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=20)
        return done.stdout.decode("utf-8", "replace").strip()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Server]:
    (port,), directory = free_ports(1), tmp_path / "redis"
    server = Server(port, directory, launch(port, directory))
    try:
        yield server
    finally:
        server.running.stop()


@pytest.fixture
async def redis_client(redis_server: Server) -> AsyncIterator[Redis]:
    client = make_client(redis_server.url)
    yield client
    await client.aclose()


class Diary:
    """A log that remembers its sentences."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def _write(self, sentence: str, **_: Any) -> None:
        self.lines.append(sentence)

    info = warning = error = _write

    def has(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    def count(self, words: str) -> int:
        return sum(words in line for line in self.lines)


class Watched:
    """A store with its diary, and every set of live values it announced."""

    def __init__(
        self,
        url: str | None,
        state_dir: Path,
        rules: Mapping[str, ServiceRules] | None = None,
        instance: str = "test:1",
    ) -> None:
        self.diary = Diary()
        self.announced: list[Mapping[str, Live]] = []
        services = {"shop": SHOP} if rules is None else rules
        self.store = Store(url, services, state_dir, instance, self.announced.append, self.diary)

    @property
    def weights(self) -> Mapping[str, int]:
        return self.store.live["shop"].weights

    @property
    def live(self) -> Live:
        return self.store.live["shop"]

    @property
    def reasons(self) -> list[str]:
        return [refusal.reason for refusal in self.store.refusals["shop"]]

    async def __aenter__(self) -> Watched:
        await self.store.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.stop()


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"
