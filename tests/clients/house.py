"""A whole router as its own processes, real servers behind it, and what reached them. Clients may block: servers run in
a thread and a loop of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from multidict import CIMultiDict

from tests.running import CONFIG, Router, free_ports, start_router, stop_router
from tests.waiting import until

T = TypeVar("T")

CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.lower().endswith("_proxy") and not name.startswith(("PIP_", "GIT_", "AWS_"))
}
"""The environment of client programs: nothing that sends them to another proxy, index or account."""


def noise(size: int, name: str = "noise") -> bytes:
    """Bytes that no compression makes smaller, always the same for a name."""
    return hashlib.shake_128(name.encode()).digest(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Seen:
    """A request as it reached a server."""

    version: str
    method: str
    target: str
    headers: CIMultiDict[str]
    http: str = "1.1"
    body: bytes = field(default=b"", repr=False)
    notes: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Servers:
    """Servers in a thread and a loop of their own."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers", daemon=True)
        self._stack = AsyncExitStack()
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], within: float = 60.0) -> T:
        """What a coroutine returns, run in the servers' loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within)

    def enter(self, server: AbstractAsyncContextManager[T]) -> T:
        return self.run(self._stack.enter_async_context(server))

    def close(self) -> None:
        try:
            self.run(self._stack.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()


@contextmanager
def servers() -> Iterator[Servers]:
    running = Servers()
    try:
        yield running
    finally:
        running.close()


@dataclass
class House:
    """A router, and what reached the versions behind it since the last ``forget``."""

    router: Router
    servers: Servers
    seen: list[Seen]

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.router.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def forget(self) -> None:
        self.seen.clear()

    def at(self, path: str) -> list[Seen]:
        """Requests for a path that reached a version, in order; each must have come through the router."""
        found = [seen for seen in self.seen if seen.path == path]
        for seen in found:
            assert_ringed(seen, self.host)
        return found

    def one(self, path: str) -> Seen:
        """The only request for a path."""
        found = self.at(path)
        assert len(found) == 1, [f"{seen.method} {seen.target}" for seen in self.seen]
        return found[0]


def assert_ringed(seen: Seen, host: str) -> None:
    """The router says which ring this is, and who asks; Host is the client's own, once."""
    headers = seen.headers
    ring = "everyone" if seen.version == "v1" else "canary"
    assert [headers.getall(name, []) for name in ("X-Ring", "X-Ring-Version")] == [[ring], [seen.version]], headers
    assert headers.getall("Host", []) == [host]
    assert headers.getall("X-Forwarded-For", []) == ["127.0.0.1"]
    assert headers.getall("X-Forwarded-Proto", []) == ["http"]
    assert headers.getall("X-Forwarded-Host", []) == [host]
    assert len(headers.getall("X-Request-Id", [])) == 1


Serve = Callable[[str, list[Seen]], AbstractAsyncContextManager[int]]
"""A version's server: its name and where to note what it sees → its port."""


@contextmanager
def house_of(directory: Path, serve: Serve) -> Iterator[House]:
    """A router before two versions of the same server; it must stop cleanly and have had nothing to complain of."""
    seen: list[Seen] = []
    with servers() as running:
        ports = {version: running.enter(serve(version, seen)) for version in ("v1", "v2")}
        with router_before(running, directory, **ports) as router:
            yield House(router, running, seen)


@contextmanager
def router_before(running: Servers, directory: Path, v1: int, v2: int) -> Iterator[Router]:
    """A router before two ports; nobody's connection may be cut off when it stops."""
    port, admin = free_ports(2)
    config, state = directory / "router.yaml", directory / "state"
    state.mkdir()
    config.write_text(CONFIG.format(port=port, admin=admin, workers=2, state=state, v1=v1, v2=v2, redis=""))
    router = start_router(config, port, admin, directory / "router.log")
    try:
        running.run(until(router.is_ready, within=20))
        yield router
    finally:
        code = running.run(stop_router(router))
    log = router.log.read_text()
    assert code == 0, log
    assert "Traceback" not in log, log
