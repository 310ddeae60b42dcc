"""The stage without a kernel: a wire in memory on which every piece arrives by itself, and at once.

Nothing waits for a clock: the stage is settled when nothing has moved for a few turns of the loop. That is what makes
it possible to cut every message at every position.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from tests.conformance.wire import RESET, Backend, Client, Stage
from tests.house import RunningPlane, running_plane, shop, snapshot

QUIET_TURNS = 4
"""Of the loop, until the wire in memory counts as settled while a task runs: making a connection takes a few."""
IDLE_TURNS = 2
"""The same when no task runs: all that is left are callbacks, and what they write is seen to move."""


class Memory(Stage):
    """No sockets: each write is one delivery, in one of the next turns of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.router: RunningPlane | None = None
        self._moves = 0

    def moved(self) -> None:
        self._moves += 1

    async def connect(self) -> Client:
        assert self.router is not None
        client = Client(self)
        join(self, client, self.router.plane.accept())
        return client

    async def breathe(self) -> None:
        await self.settle(lambda: True)

    async def emptied(self) -> None:
        await self.settle(lambda: True)

    async def settle(self, until: Callable[[], bool]) -> None:
        assert self.router is not None
        quiet, tasks = 0, self.router.tasks
        while quiet < (QUIET_TURNS if tasks else IDLE_TURNS):
            moves = self._moves
            await asyncio.sleep(0)
            quiet = quiet + 1 if moves == self._moves else 0


class Cable(asyncio.Transport):
    """One end of a connection in memory. Unlike a socket it has no buffer that could fill."""

    peer: Cable

    def __init__(self, stage: Memory, protocol: asyncio.BaseProtocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2), "socket": self})
        self._stage = stage
        self._protocol = cast(asyncio.Protocol, protocol)
        self._soon = asyncio.get_running_loop().call_soon
        self._held: list[bytes] | None = None
        """What came while reading is paused; an empty piece is the end of the other half."""
        self._is_closing = False
        self._is_lost = False
        self._is_half_closed = False
        self._resets = False

    def setsockopt(self, _level: int, option: int, value: object) -> None:
        """The end of a socket that the router looks at: lingering for no time makes a reset of the close."""
        self._resets = self._resets or (option == socket.SO_LINGER and value == RESET)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._is_closing and not self._is_half_closed and data:
            self._stage.moved()
            self._soon(self.peer._arrive, bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._is_closing and not self._is_half_closed:
            self._is_half_closed = True
            self._stage.moved()
            self._soon(self.peer._arrive, b"")

    def close(self) -> None:
        self.write_eof()
        if not self._is_closing:
            self._is_closing = True
            self._stage.moved()
            self._soon(self._lose, None)

    def abort(self) -> None:
        if self._resets and not self._is_closing:
            self._is_half_closed = True
            self._soon(self.peer._lose, ConnectionResetError())
        self.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def is_reading(self) -> bool:
        return self._held is None

    def pause_reading(self) -> None:
        if self._held is None:
            self._held = []

    def resume_reading(self) -> None:
        if self._held is not None:
            self._soon(self._release)

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (0, 65_536)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for piece in held:
            self._arrive(piece)

    def _arrive(self, piece: bytes) -> None:
        if self._is_closing:
            return
        self._stage.moved()
        if self._held is not None:
            self._held.append(piece)
        elif piece:
            self._protocol.data_received(piece)
        elif not self._protocol.eof_received():
            self.close()

    def _lose(self, exc: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = self._is_closing = True
            self._stage.moved()
            self._protocol.connection_lost(exc)


def join(stage: Memory, one: asyncio.BaseProtocol, other: asyncio.BaseProtocol) -> Cable:
    """A connection between two protocols; the end of ``other``."""
    near, far = Cable(stage, one), Cable(stage, other)
    near.peer, far.peer = far, near
    one.connection_made(near)
    other.connection_made(far)
    return far


class MemoryLoop(asyncio.AbstractEventLoop):
    """The running loop, but connections lead to the stage's backend. It has what the data plane asks of a loop."""

    def __init__(self, stage: Memory) -> None:
        loop = asyncio.get_running_loop()
        self._stage = stage
        for name in ("call_soon", "call_later", "call_at", "create_future", "create_task", "time", "get_debug"):
            setattr(self, name, getattr(loop, name))

    async def create_connection(  # type: ignore[override] # only what the data plane uses
        self, factory: Callable[[], asyncio.BaseProtocol], *_: object, **__: object
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        self._stage.moved()
        protocol = factory()
        return join(self._stage, Backend(self._stage), protocol), protocol


@asynccontextmanager
async def in_memory(hosts: tuple[str, ...] = ()) -> AsyncIterator[Stage]:
    """A stage without a kernel. Fails at its end if anything in the loop raised."""
    stage = Memory()
    async with running_plane(snapshot(shop((1,), (1,), hosts=hosts))) as router:
        loop: Any = MemoryLoop  # abstract: it has what is used
        router.plane.loop = loop(stage)
        stage.router = router
        yield stage
