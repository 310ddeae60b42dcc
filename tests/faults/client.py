"""One request as a client sees it: what it asked for, and the one way it ended."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from loadtests import wire
from tests.faults.ledger import body_of, digest

DEADLINE: Final = 15.0
_BIND_ADDRESS_NO_PORT: Final = 24
_KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="


class End(Enum):
    """Every request ends in one of these; the last two never may."""

    RIGHT = "the backend's answer, whole and its own"
    MARKED = "an error the router made and marked"
    BROKEN = "an end the client can detect"
    REFUSED = "no connection"
    WRONG = "an answer that is not its own"
    HUNG = "no end before the deadline"


@dataclass(frozen=True, slots=True)
class Request:
    """``query`` goes to the backend: see its ``Manners``. ``upload`` are bytes; a WebSocket sends its id and waits."""

    id: str
    method: str = "GET"
    size: int = 1024
    query: str = ""
    upload: int = 0
    is_chunked: bool = False
    is_websocket: bool = False
    fields: tuple[str, ...] = ()
    version: str = "1.1"
    deadline: float = DEADLINE

    def head(self) -> bytes:
        target = f"/{self.id}?size={self.size}" + (f"&{self.query}" if self.query else "")
        lines = [f"{self.method} {target} HTTP/{self.version}", "Host: shop", *self.fields]
        if self.is_websocket:
            lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
            lines += [f"Sec-WebSocket-Key: {_KEY.decode()}"]
        if self.is_chunked:
            lines += ["Transfer-Encoding: chunked"]
        elif self.upload or self.method == "POST":
            lines += [f"Content-Length: {self.upload}"]
        return "\r\n".join([*lines, "", ""]).encode()

    def body(self) -> memoryview:
        return body_of(f"up-{self.id}", self.upload)


@dataclass(slots=True, eq=False)
class Outcome:
    """Seconds; ``due`` and ``ended`` on CLOCK_MONOTONIC. ``status`` is 0 without a head."""

    request: Request
    due: float
    phase: str = ""
    end: End = End.HUNG
    status: int = 0
    word: str = ""
    """The router's, of an error it made; else what was wrong."""
    ended: float = 0.0
    fields: dict[str, str] = field(default_factory=dict)
    got: int = 0
    """Bytes of the body."""
    is_newcomer: bool = False
    """A connection was made for it."""

    @property
    def took(self) -> float:
        return self.ended - self.due

    @property
    def backend(self) -> str:
        return self.fields.get("x-backend", "")

    def __str__(self) -> str:
        return f"{self.request.method} {self.request.id} ({self.phase}): {self.end.name} {self.status} {self.word}"


@dataclass(slots=True)
class Wire:
    """A connection to the router."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int, source: str = "") -> Wire:
        """From ``source``, another of this machine's addresses, where one is named: it has ports of its own."""
        if not source:
            return cls(*await asyncio.open_connection("127.0.0.1", port))
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)  # a port that is bound is nobody else's
        sock.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=sock))

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


async def ask(wire_: Wire | None, outcome: Outcome, connect: Callable[[], Awaitable[Wire]]) -> bool:
    """Ask on a connection, or on one of its own, and fill the outcome. Whether the connection can be used again."""
    request = outcome.request
    own = wire_
    may_be_used = False
    try:
        async with asyncio.timeout(request.deadline):
            if own is None:
                try:
                    own = await connect()
                except OSError as error:
                    outcome.end, outcome.word = End.REFUSED, repr(error)
                    return False
            own.writer.write(request.head())
            upload = asyncio.get_running_loop().create_task(_upload(own, request)) if request.upload else None
            try:
                may_be_used = await _answer(own, outcome)
            finally:
                if upload is not None:
                    may_be_used = may_be_used and upload.done()
                    upload.cancel()
                    await asyncio.wait([upload])
    except (OSError, asyncio.IncompleteReadError) as error:
        outcome.end, outcome.word = End.BROKEN, type(error).__name__
    except (ValueError, asyncio.LimitOverrunError) as error:
        outcome.end, outcome.word = End.WRONG, repr(error)[:100]
    except TimeoutError:
        outcome.end = End.HUNG
    finally:
        outcome.ended = time.monotonic()
        if own is not None and wire_ is None:
            own.close()
    return may_be_used


async def _upload(own: Wire, request: Request) -> None:
    """The router may have answered and left before all of it is written: that is the answer's to say."""
    body = request.body()
    with contextlib.suppress(OSError):
        for at in range(0, len(body), 1 << 16):
            piece = body[at : at + (1 << 16)]
            own.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if request.is_chunked else piece)
            await own.writer.drain()
        if request.is_chunked:
            own.writer.write(b"0\r\n\r\n")


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and fields of the final head; a field that comes twice is wrong. ValueError for what is no head."""
    while True:
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial and not error.partial.startswith(b"HTTP/1.1 "[: len(error.partial)]):
                raise ValueError(f"not a head: {error.partial[:40]!r}") from None
            raise
        line, *rest = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        if not line.startswith("HTTP/1.1 "):
            raise ValueError(f"not a head: {line[:40]!r}")
        status = int(line[9:12])
        if status >= 200 or status == 101:
            return status, {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}


async def _answer(own: Wire, outcome: Outcome) -> bool:
    """Read the answer and judge it. Whether the connection goes on."""
    request, reader = outcome.request, own.reader
    outcome.status, outcome.fields = await read_head(reader)
    fields = outcome.fields
    if outcome.status == 101:
        await _echo(own, outcome)
        return False
    pieces = []
    if request.method == "HEAD" or outcome.status in (204, 304):
        pass
    elif fields.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            pieces.append(await reader.readexactly(size))
            outcome.got += size
            if await reader.readexactly(2) != b"\r\n":
                raise ValueError("no end of a chunk")
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("no end of the chunks")
    elif "content-length" in fields:
        left = int(fields["content-length"])
        while left:
            piece = await reader.read(min(left, 1 << 16))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            pieces.append(piece)
            outcome.got += len(piece)
            left -= len(piece)
    elif request.version == "1.0":
        while piece := await reader.read(1 << 16):
            pieces.append(piece)
            outcome.got += len(piece)
    else:
        raise ValueError("an answer without framing, to a client of HTTP/1.1")
    judge(outcome, b"".join(pieces))
    return fields.get("connection", "").lower() != "close" and outcome.end in (End.RIGHT, End.MARKED)


def judge(outcome: Outcome, body: bytes) -> None:
    """Whose answer is it, and is it whole?"""
    request, fields, status = outcome.request, outcome.fields, outcome.status
    if "x-fault-id" not in fields:
        first, _, rest = body.partition(b" ")
        is_marked = status >= 400 and "x-request-id" in fields and first == b"%d" % status
        outcome.end = End.MARKED if is_marked else End.WRONG
        outcome.word = rest.partition(b":")[0].decode("latin-1")[:40]
    elif fields["x-fault-id"] != request.id:
        outcome.end, outcome.word = End.WRONG, f"the answer to {fields['x-fault-id']}"
    elif request.method != "HEAD" and body != body_of(request.id, request.size):
        outcome.end, outcome.word = End.WRONG, f"{len(body)} bytes of another body"
    elif fields.get("x-upload", digest(request.body())) != digest(request.body()):
        outcome.end, outcome.word = End.WRONG, "another upload"
    else:
        outcome.end = End.RIGHT


async def _echo(own: Wire, outcome: Outcome) -> None:
    """A message there and back on the tunnel, then the closing handshake."""
    request = outcome.request
    if not request.is_websocket or outcome.fields.get("x-fault-id") != request.id:
        raise ValueError("a tunnel nobody asked for")
    said = wire.message(request.id.encode())
    own.writer.write(wire.masked(said))
    if await own.reader.readexactly(len(said)) != said:
        raise ValueError("another message")
    own.writer.write(wire.masked(wire.CLOSE_FRAME))
    if await own.reader.readexactly(4) != wire.CLOSE_FRAME:
        raise ValueError("no closing frame")
    outcome.end = End.RIGHT
