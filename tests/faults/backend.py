"""A backend with manners that can be changed while it runs: by its control socket for all, by a query for one request.

It answers ``/ID?size=…`` with the body that follows from the id, and notes every id in its ledger. It is a process of
its own, so that it can be killed, stopped and started like a real one.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import re
import socket
import struct
import zlib
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import uvloop

from loadtests import wire
from tests.faults.ledger import ANSWERED, ASKED, CONNECTED, LEFT, TAKEN, Ledger, body_of, digest

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_KEY: Final = re.compile(rb"\r\nsec-websocket-key: *([^\r]+)", re.IGNORECASE)
_STEPS: Final = 20
"""Pieces a second that a body with a ``rate`` is sent in."""
_PIECE: Final = 1 << 16


@dataclass
class Manners:
    """How requests are answered; the defaults are good manners."""

    size: int = 1024
    """Bytes of the body."""
    framing: str = "length"
    """``length``, ``chunked`` or ``close``."""
    rate: int = 0
    """Bytes of the body per second; 0: at once."""
    stall_at: int = 0
    """Bytes of the body after which nothing comes any more; 0: never."""
    head_after: float = 0.0
    """Seconds."""
    reset: str = ""
    """RST instead of a head: to requests on ``fresh`` connections, on ``pooled`` ones, or ``all``."""
    dies_hard: int = 0
    """1: its connection ends with RST when it is killed."""
    silent: int = 0
    """1: never an answer."""
    idle_close: float = 0.0
    """Seconds after an answer in which the next request has to come, or the connection is closed; 0: never."""
    close_after: int = 0
    """A connection is closed behind every nth answer without a word of it, n from 1 to this; 0: never."""
    failing: int = 0
    """Percent of the ids, by their hash, that are answered with 503."""
    early: str = ""
    """An answer before the upload is over: ``413`` and a close, ``401`` and RST, ``200`` and the rest is read."""
    early_after: int = 1 << 16
    """Bytes of the upload."""

    def changed(self, given: dict[str, Any]) -> Manners:
        kinds = {field.name: type(field.default) for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: kinds[name](value) for name, value in given.items() if name in kinds})


def is_failing(name: str, percent: int) -> bool:
    """Whether this id is among the failing: both ends know."""
    return zlib.crc32(name.encode()) % 100 < percent


class Backend:
    """What the connections share."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self.ledger = ledger
        self.manners = Manners()
        self.loop = asyncio.get_running_loop()
        self.open: set[Connection] = set()
        self.requests = self.in_flight = self.most_in_flight = self.most_open = self.received = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work, name="answer")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A line of JSON with the new manners (what is not named is good); ``null`` only asks."""
        wanted = json.loads(await reader.readline())
        if wanted is not None:
            self.manners = Manners().changed(wanted)
        figures = {
            "open": len(self.open), "requests": self.requests, "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight, "most_open": self.most_open, "received": self.received,
        }  # fmt: skip
        if wanted is not None:
            self.most_in_flight, self.most_open = self.in_flight, len(self.open)
        writer.write(json.dumps(figures).encode() + b"\n")
        writer.close()


class Connection(asyncio.Protocol):
    """One connection from the router, one request at a time."""

    transport: asyncio.Transport

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.count = 0
        self.is_lost = False
        self._buffer = bytearray()
        self._name = ""
        self._method = ""
        self._left = -1
        """Bytes of the upload that are missing; -1: no request, -2: chunks."""
        self._upload = bytearray()
        self._seen = 0
        self._written = 0
        self._answer: asyncio.Task[None] | None = None
        self._is_tunnel = False
        self._is_early = False
        self._is_discarding = False
        self._idle: asyncio.TimerHandle | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.backend.open.add(self)
        self.backend.most_open = max(self.backend.most_open, len(self.backend.open))
        self.backend.ledger.note(CONNECTED)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self.backend.open.discard(self)
        if self._name and not self._is_tunnel:
            self.backend.ledger.note(LEFT, self._name, self._method, self._written)
            self.backend.in_flight -= 1
        if self._answer is not None:
            self._answer.cancel()
        if self._idle is not None:
            self._idle.cancel()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def _rest(self) -> None:
        seconds = self.backend.manners.idle_close
        if seconds:
            self._idle = self.backend.loop.call_later(seconds, self.transport.close)

    # -- the request ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._is_discarding:
            return
        if self._is_tunnel:
            self._echo(data)
            return
        self._buffer += data
        if self._left == -1 and not self._name and not self._read_head():
            return
        self._read_body()

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[: end + 2])
        del self._buffer[: end + 4]
        if self._idle is not None:
            self._idle.cancel()
        method, target, _ = head.split(b" ", 2)
        path, _, query = target.decode().partition("?")
        self._name, self._method = path.strip("/") or "-", method.decode()
        self.manners = self.backend.manners.changed(dict(parse_qsl(query)))
        self.count += 1
        self.backend.requests += 1
        self.backend.in_flight += 1
        self.backend.most_in_flight = max(self.backend.most_in_flight, self.backend.in_flight)
        self.backend.ledger.note(ASKED, self._name, self._method, self.count)
        if self.manners.reset == "all" or self.manners.reset == ("fresh" if self.count == 1 else "pooled"):
            self._slam()
            return False
        if self.manners.dies_hard:
            self._harden()
        key = _KEY.search(head)
        if key is not None:
            self._is_tunnel = True
            self.backend.in_flight -= 1
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (wire.accept(key[1]), self._marks())
            )
            return False
        length = _LENGTH.search(head)
        self._left = -2 if _CHUNKED.search(head) else int(length[1]) if length else 0
        self._upload.clear()
        self._seen = self._written = 0
        self._is_early = False
        return True

    def _read_body(self) -> None:
        if self._left == -1:
            return
        before = self._seen
        if self._left == -2:
            self._read_chunks()
        else:
            piece = bytes(self._buffer[: self._left])
            del self._buffer[: len(piece)]
            self._left -= len(piece)
            self._upload += piece
            self._seen += len(piece)
        self.backend.received += self._seen - before
        if self.manners.early and not self._is_early and self._seen >= self.manners.early_after:
            self._answer_early()
        if self._left == 0:
            self._left = -1
            self.backend.ledger.note(TAKEN, self._name, self._method, self._seen)
            if self._is_early:
                self._end()
            else:
                self._begin()

    def _read_chunks(self) -> None:
        while (end := self._buffer.find(b"\r\n")) >= 0:
            size = int(bytes(self._buffer[:end]), 16)
            if len(self._buffer) < end + size + 4:
                return
            self._upload += self._buffer[end + 2 : end + 2 + size]
            self._seen += size
            del self._buffer[: end + size + 4]
            if not size:
                self._left = 0
                return

    # -- the answer ----------------------------------------------------------------------------------------------------

    def _marks(self) -> bytes:
        return f"X-Fault-Id: {self._name}\r\nX-Backend: {self.backend.name}\r\n".encode()

    def _harden(self) -> None:
        """A close that does not linger is RST."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _slam(self) -> None:
        self._harden()
        self.transport.abort()

    def _answer_early(self) -> None:
        self._is_early = True
        status = int(self.manners.early)
        body = body_of(self._name, self.manners.size)
        self.transport.write(
            b"HTTP/1.1 %d Early\r\nContent-Length: %d\r\n%b%b\r\n%b"
            % (status, len(body), self._marks(), b"" if status == 200 else b"Connection: close\r\n", body)
        )
        if status == 200:
            return
        self._is_discarding = True
        if status == 401:
            self._slam()
        else:
            self.transport.write_eof()
            self.backend.loop.call_later(2.0, self.transport.close)

    def _begin(self) -> None:
        manners = self.manners
        if manners.silent:
            return
        if manners.head_after or manners.rate or manners.stall_at or manners.size > _PIECE:
            self._answer = self.backend.spawn(self._slowly())
            return
        body = body_of(self._name, manners.size)
        self.transport.write(b"".join((self._head(), self._framed(body), self._final())))
        self._end()

    def _head(self) -> bytes:
        manners = self.manners
        line = b"HTTP/1.1 503 Asked For\r\n" if is_failing(self._name, manners.failing) else b"HTTP/1.1 200 OK\r\n"
        upload = f"X-Upload: {digest(self._upload)}\r\n".encode() if self._upload else b""
        framing = {
            "length": b"Content-Length: %d\r\n" % manners.size,
            "chunked": b"Transfer-Encoding: chunked\r\n",
            "close": b"Connection: close\r\n",
        }[manners.framing]
        return b"%b%b%b%b\r\n" % (line, framing, self._marks(), upload)

    def _framed(self, piece: memoryview) -> bytes | memoryview:
        if self._method == "HEAD":
            return b""
        return b"%x\r\n%b\r\n" % (len(piece), piece) if self.manners.framing == "chunked" and piece else piece

    def _final(self) -> bytes:
        return b"0\r\n\r\n" if self.manners.framing == "chunked" else b""

    async def _slowly(self) -> None:
        manners = self.manners
        await asyncio.sleep(manners.head_after)
        self.transport.write(self._head())
        body = body_of(self._name, manners.size)
        step = max(1, manners.rate // _STEPS) if manners.rate else manners.stall_at or _PIECE
        for at in range(0, len(body), step):
            piece = body[at : at + step]
            self.transport.write(self._framed(piece))
            self._written += len(piece)
            await self._may_write.wait()
            if 0 < manners.stall_at <= self._written:
                return
            if manners.rate:
                await asyncio.sleep(len(piece) / manners.rate)
        self.transport.write(self._final())
        self._end()

    def _end(self) -> None:
        self.backend.ledger.note(ANSWERED, self._name, self._method)
        self.backend.in_flight -= 1
        self._name, self._answer, self._left = "", None, -1
        turn = self.manners.close_after
        if self.manners.framing == "close" or (turn and self.count >= 1 + zlib.crc32(b"%d" % id(self)) % turn):
            self.transport.close()
            return
        self._rest()
        if self._buffer:
            self.backend.loop.call_soon(self.data_received, b"")

    def _echo(self, data: bytes) -> None:
        """Every message is sent back; a close is answered and ends it."""
        self._buffer += data
        found, rest = wire.frames(bytes(self._buffer))
        self._buffer[:] = rest
        for frame in found:
            self.transport.write(frame)
            if frame[:1] == wire.CLOSE_FRAME[:1]:
                self.transport.close()


async def serve(options: argparse.Namespace) -> None:
    backend = Backend(options.name, Ledger(options.ledger))
    options.control.unlink(missing_ok=True)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(backend), "127.0.0.1", options.port, backlog=4096)
    control = await asyncio.start_unix_server(backend.control, options.control)
    async with server, control:
        await asyncio.Event().wait()


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    words.add_argument("--name", required=True)
    words.add_argument("--port", type=int, required=True)
    words.add_argument("--control", type=Path, required=True)
    words.add_argument("--ledger", type=Path, required=True)
    uvloop.run(serve(words.parse_args()))
