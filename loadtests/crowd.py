"""A closed loop of clients that notice everything: each request has one end, with its time, status and body.

A client whose connection the router closes between two requests opens another one; one that closes before the answer to
a request is a failure of that request, unless not a byte of it could be sent. Those who send no `Connection: close`
themselves honour it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from loadtests.rig import HOST

ANSWER_SECONDS: Final = 10.0
BROKEN: Final = 0
"""The status of a request that got no whole answer."""


@dataclass(slots=True)
class Outcome:
    """One request; times on the monotonic clock."""

    at: float
    took: float
    status: int
    body: bytes


@dataclass
class Crowd:
    """So many clients, each with one request at a time, to one port."""

    port: int
    clients: int = 32
    headers: str = ""
    pause: float = 0.0
    """Seconds between an answer and the next request."""
    fresh: float = 0.0
    """Share of the clients that open a connection for each request."""
    wanted: int = 1 << 60
    """Requests in all."""
    puts: int = 0
    """Every so many requests one is a PUT with a small body; 0: none."""
    outcomes: list[Outcome] = field(default_factory=list)
    is_over: bool = False
    started: int = 0

    async def run(self) -> None:
        """Until ``is_over``, or all that was wanted was asked."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                group.create_task(self._client(number), name=f"client {number}")

    async def _client(self, number: int) -> None:
        is_fresh = number < self.fresh * self.clients
        wire: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self.is_over and self.started < self.wanted:
            self.started += 1
            begun = time.monotonic()
            status, body, keeps = BROKEN, b"", False
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    if wire is None or wire[0].at_eof() or wire[1].is_closing():
                        wire = await asyncio.open_connection(HOST, self.port)
                    wire[1].write(self._request(number, is_fresh=is_fresh))
                    status, body, keeps = await _answer(wire[0])
            except (OSError, EOFError, ValueError, TimeoutError):
                status = BROKEN
            self.outcomes.append(Outcome(begun, time.monotonic() - begun, status, body))
            if wire is not None and (not keeps or is_fresh):
                wire[1].close()
                wire = None
            if self.pause:
                await asyncio.sleep(self.pause)
        if wire is not None:
            wire[1].close()

    def _request(self, number: int, *, is_fresh: bool) -> bytes:
        is_put = self.puts and self.started % self.puts == 0
        close = "Connection: close\r\n" if is_fresh else ""
        length = "Content-Length: 5\r\n" if is_put else ""
        head = (
            f"{'PUT' if is_put else 'GET'} / HTTP/1.1\r\nHost: a\r\nX-User-Id: user-{number}\r\n{self.headers}{close}"
        )
        return f"{head}{length}\r\n{'12345' if is_put else ''}".encode()

    def statuses(self, since: float = 0.0, until: float = float("inf")) -> Counter[int]:
        """How requests that began in a time ended."""
        return Counter(one.status for one in self.outcomes if since <= one.at < until)

    def failed(self, since: float = 0.0, until: float = float("inf")) -> int:
        return sum(count for status, count in self.statuses(since, until).items() if status != 200)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body and whether the connection may be used again. ValueError or EOFError when it is not whole."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    return int(head.split(b" ", 2)[1]), body, b"connection: close" not in head
