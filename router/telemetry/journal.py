"""What a worker has counted since its last report, in memory that outlives it.

Reports come once a second, and a process that is killed has no last word: what it had counted since would be gone. So
each request that is over leaves a record of 44 bytes in an unnamed file in memory, which control has open too and reads
when the worker is gone (``replay``). Nobody waits for anybody here, and nothing is written to a disk.

The file has two halves. A report that goes out begins an epoch, whose records go into the other half: what came before
stays readable until the next report, when this one is safely in the kernel's hands. Behind the halves stand the names
of what is counted, one a line, each when it is counted first; records say the number of the line.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from typing import Final

RECORD: Final = struct.Struct("=QQqIIIHHI")
"""Bytes sent, bytes received, decisions; microseconds in all, and until the response head; name, status, flags; epoch.

The epoch is written last: half a record is none.
"""
RECORDS: Final = 32_768
"""In a half: more requests than a worker answers in a second. When it is full, a report is due at once."""
HALF: Final = RECORDS * RECORD.size
NAMES_AT: Final = 2 * HALF
SEPARATOR: Final = "\x1f"
"""Between the words of a name; no name of a service, ring or version has it."""
IS_ERROR: Final = 1
IS_ABORTED: Final = 2
HAS_UPSTREAM: Final = 4
IS_SETTLED: Final = 8
"""No request: decisions of a lane that are counted anew from here."""
IS_COUNT: Final = 16
"""No request: the name's own count grows by one."""
LONGEST: Final = 0xFFFF_FFFF
"""Microseconds; what lasted longer is said to have lasted so long."""

_pack: Final = RECORD.pack_into


class Journal:
    """The worker's side. Without ``is_shared`` nobody but this process sees it."""

    __slots__ = ("_at", "_end", "_epoch", "_is_told", "_names", "_names_at", "_on_full", "_page", "descriptor")

    def __init__(self, on_full: Callable[[], None] | None = None, *, is_shared: bool = False) -> None:
        self.descriptor = -1
        if is_shared:
            self.descriptor = os.memfd_create("ring-router journal")
            os.ftruncate(self.descriptor, NAMES_AT)
        self._page = mmap.mmap(self.descriptor, NAMES_AT)
        self._names: dict[str, int] = {}
        self._names_at = NAMES_AT
        self._on_full = on_full
        self._is_told = False
        self._epoch = 1
        self._at = HALF
        self._end = NAMES_AT

    def number(self, name: str) -> int:
        """The number of a name; from 1 on, so that 0 is none."""
        number = self._names.get(name, 0)
        if not number:
            number = self._names[name] = len(self._names) + 1
            if self.descriptor >= 0:
                self._names_at += os.pwrite(self.descriptor, (name + "\n").encode(), self._names_at)
        return number

    def finished(
        self, number: int, status: int, is_error: bool, is_aborted: bool, micros: int, waited: int,
        received: int, sent: int, decided: int,
    ) -> None:  # fmt: skip
        """A request of a lane is over; ``waited`` is below 0 where no backend answered.

        ``decided`` are the lane's decisions since the last report.
        """
        at = self._at
        if at >= self._end:
            self._overflow()
            return
        flags = IS_ERROR if is_error else 0
        if is_aborted:
            flags |= IS_ABORTED
        if waited >= 0:
            flags |= HAS_UPSTREAM
        else:
            waited = 0
        _pack(
            self._page, at, sent, received, decided, micros if micros < LONGEST else LONGEST,
            waited if waited < LONGEST else LONGEST, number, status, flags, self._epoch,
        )  # fmt: skip
        self._at = at + 44

    def settle(self, number: int, decided: int) -> None:
        """A lane's decisions are reported by its meter from here on; below 0 for those that went on elsewhere."""
        self._write(number, IS_SETTLED, decided)

    def count(self, name: str) -> None:
        """Something without a lane happened."""
        self._write(self.number(name), IS_COUNT, 0)

    def _write(self, number: int, flags: int, decided: int) -> None:
        if self._at >= self._end:
            self._overflow()
            return
        _pack(self._page, self._at, 0, 0, decided, 0, 0, number, 0, flags, self._epoch)
        self._at += 44

    def _overflow(self) -> None:
        if not self._is_told and self._on_full is not None:
            self._is_told = True
            self._on_full()

    @property
    def place(self) -> tuple[int, int]:
        """The epoch, and how many records it has."""
        return self._epoch, (self._at - (self._epoch % 2) * HALF) // RECORD.size

    def turn(self) -> int:
        """A report holds all that has happened until now: a new epoch begins, which is the answer."""
        self._epoch += 1
        self._is_told = False
        self._at = (self._epoch % 2) * HALF
        self._end = self._at + HALF
        return self._epoch
