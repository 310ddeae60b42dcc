"""A child's tie to its parent: it learns of its death, whatever kills it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel for a signal when the parent dies (the router runs on Linux).

    ``parent`` is the process id the child was told; if it is gone already, the child ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def unblock_signals() -> None:
    """The parent waits for signals with them blocked; its children inherit that and must not keep it."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
