"""What a backend has seen, line by line in a file that outlives it: the only witness that a killed process leaves.

Both ends also find here what a body has to be: it follows from the request's id, so that any byte of another's is seen.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
import zlib
from pathlib import Path
from typing import Final, NamedTuple

CONNECTED: Final = "connected"
ASKED: Final = "asked"
"""The head of a request is there; ``number`` is its place on its connection, from 1."""
TAKEN: Final = "taken"
"""The whole request is there; ``number`` is the bytes of its body."""
ANSWERED: Final = "answered"
LEFT: Final = "left"
"""The connection ended before the answer did, or before the request; ``number`` is the bytes that were written."""
MOST: Final = 12_000_000
"""Bytes of a body."""
_BEGINNINGS: Final = 1 << 22
_NOISE: Final = memoryview(random.Random(5).randbytes(_BEGINNINGS + MOST))


def body_of(name: str, size: int) -> memoryview:
    """The body of the answer to the request with this id; the upload's is that of ``up-`` and the id.

    A window of one long noise that begins where the id says: it costs nothing, and no two of a row begin alike.
    """
    begin = zlib.crc32(name.encode()) % _BEGINNINGS
    return _NOISE[begin : begin + size]


def digest(data: bytes | bytearray | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class Entry(NamedTuple):
    """``at`` is CLOCK_MONOTONIC in seconds, which all processes share."""

    kind: str
    id: str
    method: str
    number: int
    at: float


class Ledger:
    """One write for each entry, so that none is lost with the process."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, kind: str, name: str = "-", method: str = "-", number: int = 0) -> None:
        os.write(self._descriptor, f"{kind} {name} {method} {number} {time.monotonic():.6f}\n".encode())


def read_ledger(path: Path) -> list[Entry]:
    if not path.exists():
        return []
    rows = (line.split(" ") for line in path.read_text().splitlines())
    return [Entry(kind, name, method, int(number), float(at)) for kind, name, method, number, at in rows]
