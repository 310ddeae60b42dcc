"""The people of the demo: some two hundred requests a second of twenty thousand users, each after the other.

They keep their connections, so that what a request costs is the router's work and hardly theirs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Final

REQUESTS_PER_SECOND: Final = 200
USERS: Final = 20_000
CONNECTIONS: Final = 40
"""Those that wait for a request that hangs are missing meanwhile."""
ANSWER_SECONDS: Final = 5.0


class Visitor:
    """One connection, that many users share."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, user: str) -> str:
        """One request; ``ring (version)`` from the response, ``error`` for 5xx, empty if there was none."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                head = await self._exchange(user)
        except (OSError, EOFError, ValueError, TimeoutError):
            self.close()
            return ""
        lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if ": " in line)
        if fields.get("connection") == "close":
            self.close()
        if lines[0].split(" ")[1:2] >= ["500"]:
            return "error"
        return f"{fields['x-ring']} ({fields.get('x-ring-version', '?')})" if "x-ring" in fields else ""

    async def _exchange(self, user: str) -> str:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"GET / HTTP/1.1\r\nHost: shop.local\r\nX-User-Id: {user}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = head.partition("content-length: ")[2].partition("\r\n")[0]
        await reader.readexactly(int(length))
        return head

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def visit(port: int, seen: Counter[str]) -> None:
    """Be the visitors until cancelled; what each got is counted in ``seen``."""
    async with asyncio.TaskGroup() as crowd:
        for number in range(CONNECTIONS):
            crowd.create_task(_stroll(port, seen, number), name=f"visitor {number}")


async def _stroll(port: int, seen: Counter[str], number: int) -> None:
    visitor, chance = Visitor(port), Random(number)
    every = CONNECTIONS / REQUESTS_PER_SECOND
    await asyncio.sleep(every * number / CONNECTIONS)
    loop = asyncio.get_running_loop()
    due = loop.time()
    try:
        while True:
            seen[await visitor.ask(f"user-{chance.randrange(USERS)}") or "no answer"] += 1
            due = max(due + every, loop.time() - every)
            await asyncio.sleep(due - loop.time())
    finally:
        with suppress(RuntimeError):
            visitor.close()
