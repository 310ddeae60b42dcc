"""The backend of the soak test: what it answers follows from the target, /KIND/STATUS/OFFSET/SIZE/NUMBER.

Kinds: l with a length, c in chunks, x until it closes, n without a body, h never at all, s half of it and then no more,
w WebSocket that echoes. Each answer says which request it is for and what came with it (``wire.mark``).
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Final, cast

import uvloop

from loadtests import wire

PAUSE_SECONDS: Final = 0.001
_KEY: Final = re.compile(rb"\r\nSec-WebSocket-Key: *([^\r]*)", re.IGNORECASE)


class Answering(asyncio.Protocol):
    """One connection of the router."""

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader = wire.Reader()
        self._is_tunnel = False
        self._partial = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._is_tunnel:
            self._echo(data)
        elif self._reader.feed(data):
            self._answer()
            self._reader.next()

    def _answer(self) -> None:
        method, target, _ = self._reader.head.split(b" ", 2)
        if target == b"/":
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            self.transport.close()
            return
        _, kind, status, offset, size, number = target.split(b"/")
        head = b"HTTP/1.1 %b Soaked\r\n%b: %b\r\n" % (status, wire.MARK, wire.mark(number, self._reader.body))
        body = wire.payload(int(offset), int(size))
        if kind == b"w":
            self._upgrade(head)
            return
        if kind == b"l":
            head += b"Content-Length: %d\r\n\r\n" % len(body)
        elif kind == b"c":
            head += b"Transfer-Encoding: chunked\r\n\r\n"
            body = wire.chunked(body, len(body) // 3)
        elif kind == b"x":
            head += b"Connection: close\r\n\r\n"
        elif kind == b"n":
            head, body = head + b"\r\n", b""
        elif kind == b"s":
            self.transport.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[: len(body) // 2])
            return
        else:
            return
        if method == b"HEAD":
            body = b""
        if int(offset) % 8 == 0 and body:
            # One in eight comes in two pieces, so that the router passes on what is not whole yet.
            self.transport.write(head + body[: len(body) // 2])
            self._loop.call_later(PAUSE_SECONDS, self._end, body[len(body) // 2 :], kind == b"x")
        else:
            self._end(head + body, kind == b"x")

    def _end(self, data: bytes, closes: bool) -> None:
        self.transport.write(data)
        if closes:
            self.transport.close()

    def _upgrade(self, head: bytes) -> None:
        key = _KEY.search(self._reader.head)
        assert key is not None
        self._is_tunnel = True
        head += b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %b\r\n\r\n" % wire.accept(key[1])
        self.transport.write(head)
        if self._reader.rest:
            self._echo(self._reader.rest)

    def _echo(self, data: bytes) -> None:
        frames, self._partial = wire.frames(self._partial + data)
        self.transport.write(b"".join(frames))
        if wire.CLOSE_FRAME in frames:
            self.transport.close()


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(loop), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
