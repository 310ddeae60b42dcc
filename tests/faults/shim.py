"""A small forwarder in front of Redis, which can be slow, say other things, lose pushes, and point somewhere else."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Final

COMMAND: Final = re.compile(rb"\*\d+\r\n\$")
Script = Callable[[bytes], bytes | None]
"""What came from the client → what it is answered; None: it is Redis's to answer."""


def to_reads(reply: bytes) -> Script:
    """This reply to each command of a read (MULTI … EXEC); connections are opened as usual."""
    return lambda data: reply * len(COMMAND.findall(data)) if b"MULTI" in data else None


def to_all(reply: bytes) -> Script:
    return lambda data: reply * len(COMMAND.findall(data))


class Shim:
    """Forwards connections to ``upstream``, a port of this machine, between ``start`` and ``stop``."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self.delay_seconds = 0.0
        self.script: Script | None = None
        self.answered = 0
        """Times that the script had something to say."""
        self.loses_pushes = False
        self.pushes_lost = 0
        self.connected: list[float] = []
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.close()
        self.cut()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """End every connection, as a failing machine does."""
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected.append(time.monotonic())
        self._open.add(writer)
        try:
            there, answers = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            self._open.discard(writer)
            writer.transport.abort()
            return
        self._open.add(answers)
        try:
            await asyncio.gather(self._ask(reader, writer, answers), self._tell(there, writer))
        except OSError:
            pass
        finally:
            for one in (writer, answers):
                self._open.discard(one)
                one.transport.abort()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(1 << 16):
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            said = self.script(data) if self.script is not None else None
            self.answered += said is not None
            (answers if said is None else writer).write(data if said is None else said)
        raise ConnectionResetError

    async def _tell(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await there.read(1 << 20):
            if self.loses_pushes and data.startswith(b">"):
                self.pushes_lost += 1
                continue
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
