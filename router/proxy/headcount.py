"""How many clients all workers serve together: a page of memory with a number per worker. Who drains is not in it.

The kernel spreads connections by hash, and workers take them from each other's queues. A limit that each worker kept
for its share would refuse somebody while the others have room.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Final

_NUMBER: Final = struct.calcsize("i")


class Headcount:
    """One worker's view of the page; over the same descriptor in all of them, or in memory of its own."""

    def __init__(self, slot: int = 0, workers: int = 1, descriptor: int = -1) -> None:
        self._slot = slot
        self._page = mmap.mmap(descriptor, _size(workers))
        self._counts = memoryview(self._page).cast("i")[:workers]

    def note(self, here: int) -> None:
        """This worker serves so many."""
        self._counts[self._slot] = here

    @property
    def everywhere(self) -> int:
        return sum(self._counts)


def headcount_page(workers: int) -> int:
    """The parent's side: the descriptor of an empty page, for as long as the workers' family lives."""
    descriptor = os.memfd_create("ring-router headcount")
    os.ftruncate(descriptor, _size(workers))
    return descriptor


def _size(workers: int) -> int:
    return -(-workers * _NUMBER // mmap.PAGESIZE) * mmap.PAGESIZE
