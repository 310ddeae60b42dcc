"""A client and a backend that keep what they see, and the stage they stand on: here with real sockets.

`memory` has the same stage without a kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from tests.conformance.reader import Message, ProtestError, read_requests
from tests.house import RunningPlane, running_plane, shop, snapshot

CASE_SECONDS = 3.0
"""How long a case on sockets waits for something that must come: it is there in a few milliseconds, or never."""
RESET = struct.pack("ii", 1, 0)
OK = b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 11:34:13 GMT\r\nContent-Length: 2\r\n\r\nok"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""Sec-WebSocket-Accept for the key of RFC 6455 §1.3."""
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    + ACCEPT
    + b"\r\n\r\n"
)
PROBE_TARGET = b"/probe"


def send(transport: asyncio.Transport, data: bytes) -> None:
    """Write, unless the other side has ended the connection: uvloop would raise."""
    if not transport.is_closing():
        transport.write(data)


class Client(asyncio.Protocol):
    """Keeps what came. It stays when the router ends its half: what would come behind it is a mistake to be seen."""

    transport: asyncio.Transport

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.data = bytearray()
        self.is_ended = False
        self.is_reset = False
        self.read: tuple[object, tuple[list[Message], bytes]] | None = None
        """What the data was last read as, and which data it was."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.stage.moved()

    def eof_received(self) -> bool:
        self.is_ended = True
        self.stage.moved()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_ended = True
        self.is_reset = self.is_reset or exc is not None
        self.stage.moved()


class Backend(asyncio.Protocol):
    """Reads requests strictly and notes them. Answers at once, but for what the stage wants to answer itself."""

    transport: asyncio.Transport

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.number = len(stage.backends)
        self._data = b""
        self._is_tunnel = False
        self._is_continued = False
        self.is_pending = False
        stage.backends.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stage.moved()

    def data_received(self, data: bytes) -> None:
        self.stage.moved()
        if self._is_tunnel:
            send(self.transport, data)
            return
        self._data += data
        try:
            while self._next():
                pass
        except ProtestError as protest:
            self.stage.protests.append(f"backend: {protest}")
            self.transport.abort()

    def _next(self) -> bool:
        """Read a request if there is one; whether there was."""
        if b"\r\n\r\n" not in self._data:
            return False
        message, end = read_requests(self._data, 0)
        if message is None:
            return False
        if not self._is_continued:
            self._is_continued = True
            if self.stage.answers_early:
                self.is_pending = True
                self.stage.pending = self
            elif self.stage.is_quick and message.values(b"expect"):
                send(self.transport, CONTINUE)
        if not message.is_whole:
            return False
        self._data = self._data[end:]
        self._is_continued = False
        message.connection = self.number
        self.stage.seen.append(message)
        if self.stage.is_quick or message.second == PROBE_TARGET:
            self._answer(message)
        elif not self.stage.answers_early:
            self.is_pending = True
            self.stage.pending = self
        return True

    def _answer(self, message: Message) -> None:
        if message.values(b"upgrade"):
            self._is_tunnel = True
            send(self.transport, SWITCHING + self._data)
            self._data = b""
        elif message.first == b"HEAD":
            send(self.transport, OK[:-2])
        else:
            send(self.transport, OK)


class Stage:
    """A data plane, a backend and clients. ``is_quick``: the backend answers every request with OK by itself."""

    def __init__(self) -> None:
        self.seen: list[Message] = []
        self.protests: list[str] = []
        self.backends: list[Backend] = []
        self.pending: Backend | None = None
        self.is_quick = True
        self.answers_early = False

    def moved(self) -> None:
        """Something happened."""

    async def connect(self) -> Client:
        raise NotImplementedError

    async def breathe(self) -> None:
        """Let a piece arrive by itself."""
        raise NotImplementedError

    async def settle(self, until: Callable[[], bool]) -> None:
        """Wait until this is so, or until it is plain that it will not be."""
        raise NotImplementedError

    async def emptied(self) -> None:
        """Wait until the router has no connection any more: one that is about to end must not be lent."""
        raise NotImplementedError

    async def clear(self) -> None:
        """Forget everything, so that the next play finds fresh connections."""
        for backend in self.backends:
            backend.transport.abort()
        await self.emptied()
        self.seen, self.protests, self.backends, self.pending = [], [], [], None


class Sockets(Stage):
    """Real connections on loopback."""

    def __init__(self) -> None:
        super().__init__()
        self.router: RunningPlane | None = None
        self._event = asyncio.Event()

    def moved(self) -> None:
        self._event.set()

    async def connect(self) -> Client:
        assert self.router is not None
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: Client(self), "127.0.0.1", self.router.port)
        return client

    async def emptied(self) -> None:
        assert self.router is not None
        plane = self.router.plane
        async with asyncio.timeout(CASE_SECONDS):
            while plane.collect().connections or any(
                endpoint.active or endpoint.reserve.idle for endpoint in plane.pools.endpoints.values()
            ):
                await asyncio.sleep(0)

    async def breathe(self) -> None:
        await asyncio.sleep(0)

    async def settle(self, until: Callable[[], bool]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CASE_SECONDS):
                while not until():
                    self._event.clear()
                    await self._event.wait()


@asynccontextmanager
async def on_sockets(hosts: tuple[str, ...] = ()) -> AsyncIterator[Stage]:
    """A stage with real sockets. Fails at its end if anything in the loop raised."""
    stage = Sockets()
    server = await asyncio.get_running_loop().create_server(lambda: Backend(stage), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with running_plane(snapshot(shop((port,), (port,), hosts=hosts))) as router:
            stage.router = router
            yield stage
    finally:
        server.close()
