"""The member tables that a worker has open: those that its snapshot names, each mapped once.

A table that goes on being named is not opened again; one that no snapshot names any more is let go, and unmapped with
the last request that looks into it. A file that cannot be opened lists nobody, and that is said: the rest of the
snapshot must not wait for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from router.core.lookup import Lookup, no_tables
from router.members.files import open_table


def _to_stderr(sentence: str) -> None:
    sys.stderr.write(f"worker {os.getpid()}: {sentence}\n")


class OpenTables:
    """Give ``get`` to a snapshot, and call ``settle`` when it has been compiled."""

    def __init__(self, say: Callable[[str], None] = _to_stderr) -> None:
        self._say = say
        self._open: dict[str, Lookup] = {}
        self._named: dict[str, Lookup] = {}

    def __len__(self) -> int:
        return len(self._open)

    def get(self, path: str) -> Lookup:
        """The table in a file."""
        known = self._named.get(path) or self._open.get(path)
        if known is not None:
            self._named[path] = known
            return known
        try:
            table = self._named[path] = open_table(path)
        except (OSError, ValueError) as error:
            self._say(f"the member table {path} cannot be used ({error}): until the next one, nobody is listed in it")
            return no_tables(path)
        return table

    def settle(self) -> None:
        """Keep what was asked for since the last time, and let go of the rest."""
        self._open, self._named = self._named, {}
