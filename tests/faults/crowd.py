"""Clients that do not behave: they say little or too much, read slowly or not at all, and leave without a word."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, cast

from tests.faults.client import End, Outcome, Request, Wire, read_head
from tests.faults.load import Load
from tests.waiting import until

HARD: Final = struct.pack("ii", 1, 0)
_AT_ONCE: Final = 200
_SMALL: Final = 4096


class Guest(asyncio.Protocol):
    """One connection; ``gone_at`` is when the router ended it, 0 while it has not. It reads when it is told to."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.came_at = time.monotonic()
        self.gone_at = 0.0
        self.got = 0
        self.first = b""
        self.is_sipping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        if self.is_sipping:
            self.transport.pause_reading()
        self.first = (self.first + data)[:64]

    def eof_received(self) -> None:
        self.gone_at = self.gone_at or time.monotonic()

    def connection_lost(self, error: Exception | None) -> None:
        self.gone_at = self.gone_at or time.monotonic()

    @property
    def status(self) -> int:
        return int(self.first[9:12]) if self.first.startswith(b"HTTP/1.1 ") else 0


@contextlib.asynccontextmanager
async def crowd(port: int, count: int, *, is_narrow: bool = False) -> AsyncIterator[list[Guest]]:
    """So many connections, gone when the block ends. ``is_narrow``: the kernel holds next to nothing for them."""
    loop = asyncio.get_running_loop()
    guests: list[Guest] = []

    async def come() -> Guest:
        sock = socket.socket()
        sock.setblocking(False)
        if is_narrow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        _, guest = await loop.create_connection(Guest, sock=sock)
        return guest

    try:
        while len(guests) < count:
            guests += await asyncio.gather(*(come() for _ in range(min(_AT_ONCE, count - len(guests)))))
        yield guests
    finally:
        for guest in guests:
            guest.transport.abort()


async def trickle(guests: list[Guest], byte: Callable[[int], bytes], seconds: float = 1.0) -> None:
    """A byte a second from each that is still there, spread over the second, until it is cancelled."""
    turn = 0
    while True:
        for number, guest in enumerate(guests):
            if not guest.gone_at:
                guest.transport.write(byte(turn))
            if number % 50 == 49:
                await asyncio.sleep(seconds * 50 / len(guests))
        turn += 1
        await asyncio.sleep(seconds if len(guests) < 50 else 0)


async def sip(guests: list[Guest], seconds: float = 1.0) -> None:
    """Each reads what its narrow socket holds, once a second (some kilobytes), until this is cancelled."""
    for guest in guests:
        guest.is_sipping = True
    while True:
        for number, guest in enumerate(guests):
            if not guest.gone_at:
                guest.transport.resume_reading()
            if number % 20 == 19:
                await asyncio.sleep(seconds * 20 / len(guests))
        await asyncio.sleep(seconds if len(guests) < 20 else 0)


async def leave_a_response(load: Load, request: Request, after: int) -> Outcome:
    """Read so many bytes of the body, then RST. ``ended`` is when it left."""
    outcome = Outcome(request, time.monotonic(), load.phase, End.BROKEN)
    wire = await Wire.open(load.port)
    wire.writer.write(request.head())
    async with asyncio.timeout(request.deadline):
        outcome.status, outcome.fields = await read_head(wire.reader)
        outcome.got = len(await wire.reader.readexactly(after))
    _reset(wire)
    await load.note(outcome)
    return outcome


async def leave_uploads(load: Load, requests: list[Request], arrived: Callable[[], bool]) -> list[Outcome]:
    """Send half of each upload, wait until all have ``arrived``, then leave: by RST and FIN in turn."""
    outcomes = [Outcome(request, time.monotonic(), load.phase, End.BROKEN) for request in requests]
    wires = await asyncio.gather(*(Wire.open(load.port) for _ in requests))
    for wire, request in zip(wires, requests, strict=True):
        half = request.body()[: request.upload // 2]
        wire.writer.write(request.head())
        wire.writer.write(b"%x\r\n%b\r\n" % (len(half), half) if request.is_chunked else half)
    await until(arrived, within=20)
    for number, (wire, outcome) in enumerate(zip(wires, outcomes, strict=True)):
        if number % 2:
            wire.close()
        else:
            _reset(wire)
        await load.note(outcome)
    return outcomes


def _reset(wire: Wire) -> None:
    wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HARD)
    wire.abort()
