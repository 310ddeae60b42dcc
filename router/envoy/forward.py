"""Where Envoy's threads send their lines: Fluentd's forward protocol (v1, forward mode) over a unix socket.

A socket and not a file: nothing grows on a disk while the bridge is away, Envoy throws away what nobody takes (and
counts it), and no request waits for it. Each message is ``[tag, [[time, record], …]]`` in MessagePack, without a
length in front: ``end_of`` finds where it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from router.envoy.access_log import USERS_SOCKET
from router.envoy.users import Record

LONGEST: Final = 8 * 1024 * 1024
"""Of a message; Envoy's are as long as its buffer and one line."""
READ_BYTES: Final = 256 * 1024
_FIXED: Final = {
    0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5,
    0xD3: 9, 0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,
}  # fmt: skip
"""First byte → length of the whole value."""
_SIZED: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""First byte → bytes of the length that follows: binary and text."""
_NESTED: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""First byte → bytes of the count that follows, and values for each: arrays and maps."""


def end_of(data: bytes | bytearray, at: int = 0) -> int:
    """Where the MessagePack value at ``at`` ends; -1: not all of it is here. Raises ValueError for what is none."""
    left, size = 1, len(data)
    while left:
        if at >= size:
            return -1
        first = data[at]
        left -= 1
        if first < 0x80 or first >= 0xE0:
            at += 1
        elif first < 0xA0:
            left += (first & 0x0F) * (2 if first < 0x90 else 1)
            at += 1
        elif first < 0xC0:
            at += 1 + (first & 0x1F)
        elif first in _FIXED:
            at += _FIXED[first]
        elif first in _SIZED:
            width = _SIZED[first]
            at += 1 + width + int.from_bytes(data[at + 1 : at + 1 + width], "big")
        elif first in _NESTED:
            width, times = _NESTED[first]
            if at + 1 + width > size:
                return -1
            left += times * int.from_bytes(data[at + 1 : at + 1 + width], "big")
            at += 1 + width
        else:
            raise ValueError(f"not MessagePack: {first:#x}")
    return at if at <= size else -1


_Message = tuple[str, list[tuple[float, dict[str, object]]]]
_decoder: Final = msgspec.msgpack.Decoder(_Message)


class Forward:
    """Listens in Envoy's directory; hands on each record."""

    def __init__(self, directory: Path, took: Callable[[Record], None]) -> None:
        self._path = directory / USERS_SOCKET
        self._took = took
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._server = await asyncio.start_unix_server(self._serve, path=str(self._path))
        self._path.chmod(0o660)  # users' keys come in here: whoever is of Envoy's group may send them

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = bytearray()
        try:
            while len(data) <= LONGEST:
                more = await reader.read(READ_BYTES)
                if not more:
                    return
                data += more
                while data and (end := end_of(data)) > 0:
                    for _, record in _decoder.decode(data[:end])[1]:
                        self._took(record)
                    del data[:end]
        except (OSError, ValueError):  # msgspec's are ValueErrors: what comes after such a message cannot be read
            pass
        finally:
            writer.close()
