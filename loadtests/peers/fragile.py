"""A backend that can be told to fail: closes connections after random counts, answers 503, or resets every request.

``GET /-/count`` answers how many other requests came. Requests have no body, or a small one with a Content-Length.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import struct
from typing import Final, cast

import uvloop

COUNT: Final = b"GET /-/count "


class Fragile(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport
    count = 0

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.data = b""
        self.left = random.randint(1, asked.closes_after) if asked.closes_after else 1 << 60

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0 and not self.transport.is_closing():
            head = self.data[:end].lower()
            at = head.find(b"content-length:")
            body = int(head[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else 0
            if len(self.data) < end + 4 + body:
                return
            request, self.data = self.data[: end + 4], self.data[end + 4 + body :]
            self.answer(request)

    def answer(self, request: bytes) -> None:
        if request.startswith(COUNT):
            said = b"%d" % Fragile.count
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
            return
        Fragile.count += 1
        if self.asked.fails == "reset":
            peer = self.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        status = b"503 Service Unavailable" if self.asked.fails == "status" else b"200 OK"
        said = self.asked.says.encode()
        self.transport.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(said), said))
        self.left -= 1
        if self.left <= 0:
            self.transport.close()


async def serve(asked: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Fragile(asked), "127.0.0.1", asked.port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--says", default="v1", help="the body of every answer")
    parser.add_argument("--closes-after", type=int, default=0, help="1 to so many answers on a connection")
    parser.add_argument("--fails", choices=["never", "status", "reset"], default="never")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
