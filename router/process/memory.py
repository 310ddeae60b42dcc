"""What a worker holds, and giving back what it does not need any more."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from collections.abc import Callable
from typing import Final

CROWD: Final = 500
"""Connections; what fewer leave behind is not worth the look."""


def resident_bytes() -> int:
    """This process's resident memory."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Trimmer:
    """The C library keeps freed memory for the next crowd. When a crowd has left, it is given back to the system."""

    def __init__(self) -> None:
        self._most = 0
        self._trim: Callable[[int], object] | None = None
        with contextlib.suppress(OSError, AttributeError):  # there is no such thing outside of glibc
            self._trim = ctypes.CDLL(None).malloc_trim

    def look(self, connections: int) -> None:
        """Call it now and then; ``connections`` are there now. Takes milliseconds when it does something."""
        self._most = max(self._most, connections)
        if self._trim is not None and self._most >= CROWD and connections < self._most // 8:
            self._most = connections
            self._trim(0)
