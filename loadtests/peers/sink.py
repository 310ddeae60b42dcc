"""A backend for bodies: GET /N answers N MiB, PUT takes any body and answers how many bytes it had."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop

PIECE = bytes(1 << 20)


class Sink(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.received = self.left = 0
        self.can_write = True

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.url, self.received = b"", 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.received += len(body)

    def on_message_complete(self) -> None:
        if self.parser.get_method() != b"GET":
            body = b"%d" % self.received
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            return
        number = self.url.strip(b"/")
        self.left = int(number) if number.isdigit() else 0
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (self.left << 20))
        self.send()

    def send(self) -> None:
        while self.left and self.can_write:
            self.left -= 1
            self.transport.write(PIECE)

    def pause_writing(self) -> None:
        self.can_write = False

    def resume_writing(self) -> None:
        self.can_write = True
        self.send()


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
