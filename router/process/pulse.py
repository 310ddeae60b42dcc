"""A worker's sign of life: a page of memory that it writes and its parent reads, with no message and no waiting.

The page is an unnamed file in memory, so that neither a slow nor a full disk can stop a heart. The worker writes from
its loop's timer: a loop that is blocked, or a process that is stopped, does not beat.
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
import time
from typing import Final

_FORM: Final = struct.Struct("=QBB")
"""When it last beat (monotonic nanoseconds, the same clock for all processes of a machine), state, wish."""


class State(enum.IntEnum):
    """What a worker is doing."""

    STARTING = 0
    SERVING = 1
    INSTALLING = 2
    """It takes in a snapshot, which may take longer than a beat."""
    DRAINING = 3


class Wish(enum.IntEnum):
    """Why a worker asks to be replaced, if it does."""

    NONE = 0
    AGE = 1
    REQUESTS = 2
    MEMORY = 3


REASONS: Final = {Wish.AGE: "its age", Wish.REQUESTS: "the requests it has answered", Wish.MEMORY: "its memory"}


class Pulse:
    """One worker's page; both sides hold one, over the same descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        self.state = State.STARTING
        self.wish = Wish.NONE

    @classmethod
    def create(cls) -> Pulse:
        """The parent's side: a page that nothing is written to yet. The caller closes it."""
        descriptor = os.memfd_create("ring-router pulse")
        os.ftruncate(descriptor, mmap.PAGESIZE)
        return cls(descriptor)

    def beat(self) -> None:
        """The worker's side: alive, in this state, with this wish."""
        _FORM.pack_into(self._page, 0, time.monotonic_ns(), self.state, self.wish)

    def enter(self, state: State) -> None:
        """The worker's side: from now on in this state."""
        self.state = state
        self.beat()

    def look(self) -> float:
        """The parent's side: take over state and wish; when it last beat, in seconds of time.monotonic()."""
        nanoseconds, state, wish = _FORM.unpack_from(self._page)
        self.state, self.wish = State(state), Wish(wish)
        return float(nanoseconds) / 1e9

    def close(self) -> None:
        self._page.close()
        os.close(self.descriptor)
