"""Furniture for stories of failing backends: backends that die and come back, clients that count, black holes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from tests.house import RunningPlane, Serve, header, read_head
from tests.waiting import until


class Backend:
    """One endpoint on a port of its own; ``dies`` and ``comes_back`` on the same one. Knows what it was sent."""

    def __init__(self, name: str, serve: Serve | None = None) -> None:
        self.name = name
        self.serve = serve or self.answers
        self.port = 0
        self.status = 200
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.delivered: Counter[str] = Counter()
        """Requests by their X-Request-Id."""
        self.connections = 0
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None

    async def comes_back(self) -> None:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def dies(self) -> None:
        """As a process does that is killed: nobody listens, and what was open is reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer, task in tuple(self._open.items()):
            reset(writer)
            task.cancel()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open[writer] = task
        try:
            await self.serve(reader, writer)
        except (OSError, EOFError, RuntimeError, asyncio.CancelledError):
            pass  # RuntimeError: uvloop's, where a stream goes on reading from what was closed meanwhile
        finally:
            del self._open[writer]
            writer.close()

    async def takes(self, reader: asyncio.StreamReader) -> bytes:
        """A whole request; its head."""
        head = await read_head(reader)
        self.heads.append(head)
        self.delivered[header(head, "x-request-id")[0]] += 1
        length = header(head, "content-length")
        body = b""
        if length:
            body = await reader.readexactly(int(length[0]))
        elif header(head, "transfer-encoding"):
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        self.bodies.append(body)
        return head

    def says(self, status: int = 200, head: bytes = b"") -> bytes:
        """An answer that says who gives it."""
        body = b"" if head.startswith(b"HEAD ") else self.name.encode()
        return b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n%b" % (status, len(self.name), body)

    async def answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await self.takes(reader)
            writer.write(self.says(self.status, head))

    async def hangs(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes one request and never answers it."""
        await self.takes(reader)
        await reader.read()

    async def resets(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes a request and slams the door."""
        await self.takes(reader)
        reset(writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as the kernel does for a process that was killed with something unread."""
    peer = writer.get_extra_info("socket")
    if peer is None:  # it is closed already
        return
    with contextlib.suppress(OSError, ValueError):  # it is closed already
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def backends(*names: str) -> AsyncIterator[list[Backend]]:
    found = [Backend(name) for name in names]
    for one in found:
        await one.comes_back()
    try:
        yield found
    finally:
        for one in found:
            await one.dies()


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose connections are never made: its queue is full, and SYNs are dropped (faults.md §1)."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        with socket.create_connection(hole.getsockname()):
            yield hole.getsockname()[1]


@dataclass
class Answer:
    status: int
    head: bytes
    body: bytes
    request_id: str = ""

    def one(self, name: str) -> str:
        """The value of a field; empty if there is none."""
        return (header(self.head, name) or [""])[0]

    @property
    def version(self) -> str:
        return self.one("x-ring-version")

    @property
    def reason(self) -> str:
        return self.one("x-ring-reason")


class Client:
    """One user on a kept connection, made anew when the router closes it. Each request has an id of its own."""

    numbers = 0

    def __init__(self, router: RunningPlane, user: str = "", lines: str = "") -> None:
        self.router = router
        self.lines = lines + (f"X-User-Id: {user}\r\n" if user else "")
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str = "GET", body: bytes = b"", *, within: float = 10.0) -> Answer:
        async with asyncio.timeout(within):
            name = await self.send(method, body)
            answer = await self.answer(method)
        answer.request_id = name
        return answer

    async def send(self, method: str = "GET", body: bytes = b"") -> str:
        """The head with the body; the request's id."""
        if self.writer is None or self.writer.is_closing():
            self.reader, self.writer = await self.router.connect()
        Client.numbers += 1
        name = f"id-{Client.numbers}"
        length = f"Content-Length: {len(body)}\r\n" if body or method in ("POST", "PUT") else ""
        head = f"{method} /{name} HTTP/1.1\r\nHost: shop\r\nX-Request-Id: {name}\r\n{self.lines}{length}\r\n"
        self.writer.write(head.encode() + body)
        return name

    async def answer(self, method: str = "GET") -> Answer:
        assert self.reader is not None
        head = await read_head(self.reader)
        body = b""
        if method != "HEAD":
            body = await self.reader.readexactly(int((header(head, "content-length") or ["0"])[0]))
        if header(head, "connection") == ["close"]:
            self.close()
        return Answer(int(head.split(b" ")[1]), head, body)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


CANARY = "X-Ring: canary\r\n"


async def settled(router: RunningPlane) -> None:
    """Nothing is in flight any more, nothing waits, and what was decided is what was answered."""
    plane = router.plane

    def is_settled() -> bool:
        counters = plane.collect(whole=True)
        return (
            all(ring.in_flight == 0 for ring in counters.rings.values())
            and all(endpoint.active == 0 for endpoint in plane.pools.endpoints.values())
            and all(
                not pool.in_flight and not pool.waiting and not pool.copies for pool in plane.pools.versions.values()
            )
        )

    await until(is_settled)
    rings = plane.collect(whole=True).rings.values()
    assert all(count >= 0 for ring in rings for count in ring.reasons.values())
    decided = sum(sum(ring.reasons.values()) for ring in rings)
    gone = sum(sum(meter._gone.values()) for meter in plane.tally.meters.values())
    assert decided + gone == sum(sum(ring.codes.values()) for ring in rings)


def reasons(router: RunningPlane, ring: str, version: str) -> dict[str, int]:
    """What was decided for a ring and a version, by reason."""
    found = router.plane.collect(whole=True).rings.get(("shop", ring, version))
    return {} if found is None else {word: count for word, count in found.reasons.items() if count}
