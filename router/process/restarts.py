"""Why processes were started again, and whether others serve in their place: a page that the parent writes.

Control reads it. It is restarted itself, and the page stays; a message would have to be said again to each new one.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from router.process.pulse import Wish

CRASH: Final = "crash"
WATCHDOG: Final = "watchdog"
CONTROL: Final = "control"
"""Not a worker: the control process, for whatever reason."""
OF_WISH: Final = {Wish.AGE: "age", Wish.REQUESTS: "requests", Wish.MEMORY: "memory"}
REASONS: Final = (CRASH, WATCHDOG, *OF_WISH.values(), CONTROL)


class Restarts:
    """The page; both sides hold one, over the same descriptor. Without one it is in memory of its own."""

    def __init__(self, descriptor: int = -1) -> None:
        self._counts = memoryview(mmap.mmap(descriptor, mmap.PAGESIZE)).cast("Q")

    def add(self, reason: str) -> None:
        """The parent's side: one more for this reason."""
        self._counts[REASONS.index(reason)] += 1

    def yield_to_others(self) -> None:
        """The parent's side: another router serves from now on."""
        self._counts[len(REASONS)] = 1

    @property
    def has_yielded(self) -> bool:
        """Known before anything that the parent does next: a signal may come after its consequences."""
        return bool(self._counts[len(REASONS)])

    def read(self) -> dict[str, int]:
        """Reason → restarts since the router's start."""
        return dict(zip(REASONS, self._counts, strict=False))


def restarts_page() -> int:
    """The parent's side: the descriptor of an empty page."""
    descriptor = os.memfd_create("ring-router restarts")
    os.ftruncate(descriptor, mmap.PAGESIZE)
    return descriptor
