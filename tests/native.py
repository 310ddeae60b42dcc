"""Which of the two runs of `make test` this is: interpreted, or on native code; see the Makefile."""

from __future__ import annotations

import os
import shutil
from typing import Final

IS_NATIVE: Final = os.environ.get("RING_ROUTER_TESTS") == "compiled"
IS_RUN_AGAIN: Final = not IS_NATIVE and shutil.which("cc") is not None
"""The data plane's tests come a second time, on native code: all of their cases, where this run takes every fourth."""


def examples(count: int) -> int:
    """So many examples of a property of the data plane."""
    return count // 4 if IS_RUN_AGAIN else count
