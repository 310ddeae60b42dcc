"""Furniture for the stories: snapshots built in a line, a data plane on a real socket, raw backends and raw clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from router.core.audience import ConditionSpec, IdentitySpec
from router.core.records import NO_LOG
from router.core.spec import EndpointSpec, ListenerSpec, RingSpec, ServiceSpec, SnapshotSpec, TimeoutsSpec, VersionSpec
from router.proxy.headcount import Headcount
from router.proxy.plane import DataPlane

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def endpoint(port: int) -> EndpointSpec:
    return EndpointSpec("127.0.0.1", port)


def shop(
    v1: tuple[int, ...], v2: tuple[int, ...], *, canary: int = 500, early: int = 2000, **changes: object
) -> ServiceSpec:
    """The service of the examples: canary and early run v2, everyone v1; X-Ring forces canary."""
    fields: dict[str, object] = {
        "name": "shop",
        "versions": (
            VersionSpec("v1", tuple(endpoint(p) for p in v1)),
            VersionSpec("v2", tuple(endpoint(p) for p in v2)),
        ),
        "rings": (
            RingSpec("canary", "v2", canary, (ConditionSpec("header", "X-Ring", "equals", ("canary",)),)),
            RingSpec("early", "v2", early),
            RingSpec("everyone", "v1"),
        ),
        "identity": (IdentitySpec("header", "X-User-Id"), IdentitySpec("cookie", "uid")),
        "timeouts": TimeoutsSpec(connect=0.5, first_byte=1.0, between_bytes=1.0),
    }
    return ServiceSpec(**{**fields, **changes})  # type: ignore[arg-type]


def snapshot(*services: ServiceSpec, generation: int = 1, listener: ListenerSpec | None = None) -> SnapshotSpec:
    return SnapshotSpec(generation, services, listener or ListenerSpec(), access_log=NO_LOG)


@dataclass
class RunningPlane:
    """A data plane that listens on ``port`` in this loop."""

    plane: DataPlane
    port: int
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, raw: bytes) -> bytes:
        """Send bytes, half-close nothing, read until the router closes."""
        reader, writer = await self.connect()
        writer.write(raw)
        async with asyncio.timeout(10):
            data = await reader.read()
        writer.close()
        return data


@asynccontextmanager
async def running_plane(spec: SnapshotSpec, headcount: Headcount | None = None) -> AsyncIterator[RunningPlane]:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: object, *, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = loop.create_task(work, name=name)  # type: ignore[arg-type]
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    raised: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: raised.append(context))
    plane = DataPlane(loop, spawn, 1 if headcount is None else 2, headcount)
    plane.install(spec)
    server = await loop.create_server(plane.accept, "127.0.0.1", 0)
    try:
        yield RunningPlane(plane, server.sockets[0].getsockname()[1], tasks)
    finally:
        server.close()
        plane.close()
        for task in tuple(tasks):
            task.cancel()
        loop.set_exception_handler(None)
    assert not raised, raised


@asynccontextmanager
async def raw_backend(serve: Serve) -> AsyncIterator[int]:
    """A backend that speaks bytes; yields its port."""
    writers: set[asyncio.StreamWriter] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            await serve(reader, writer)
        except (OSError, EOFError, RuntimeError):
            pass  # RuntimeError: uvloop's, where a stream goes on reading from what was closed meanwhile
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def fixed(response: bytes, seen: list[bytes] | None = None) -> Serve:
    """Answers every bodiless request with the same bytes; notes the heads it saw."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            if seen is not None:
                seen.append(head)
            writer.write(response)

    return serve


def header(head: bytes, name: str) -> list[str]:
    """The values of a field in a raw head."""
    lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].lower() == name.lower()]
