"""The keys of a ring's members in Redis, for an engine whose routes compare keys and ask no table: Envoy.

Beside the table, which alone knows who is a member: keys are in force only while there are as many of them as the table
counts, so that nobody is ever left out in silence. Kept in the state directory: a restart without Redis goes on with
them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

MOST: Final = 4096
"""Keys of a ring that routes are made of. What is more stays a table."""


class RingKeys:
    """Of one ring; ``file`` outlives the process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._sources: dict[str, frozenset[str]] = {}
        self._strange: set[str] = set()
        self.unread: set[str] = set()
        """Sets of Redis that were too long to keep: to be read again when there are fewer members."""
        self.trouble: OSError | None = None
        """Why a restart would not know them."""
        self.known: tuple[str, ...] = ()
        self.is_whole = False
        """Whether ``known`` are all members."""

    def __repr__(self) -> str:
        return f"<RingKeys {self._file.name} {len(self.known)}>"

    def load(self, count: int | None) -> None:
        """Those of last time; ``count`` is how many members the last good table has, None where there is no table."""
        try:
            self.known = msgspec.json.decode(self._file.read_bytes(), type=tuple[str, ...])
        except (OSError, msgspec.DecodeError):
            self.known = ()
        self.is_whole = count is None or len(self.known) == count

    def read(self, source: str, members: Sequence[bytes] | None) -> None:
        """What a set in Redis has; None where that is too much."""
        self._sources.pop(source, None)
        self._strange.discard(source)
        self.unread.discard(source)
        if members is None or sum(map(len, self._sources.values())) + len(members) > MOST:
            self.unread.add(source)
            return
        try:
            self._sources[source] = frozenset(one.decode() for one in members)
        except UnicodeDecodeError:
            self._strange.add(source)

    def settle(self, count: int) -> bool:
        """The table has so many members now; whether the keys are others than before."""
        before = self.known, self.is_whole
        known = frozenset(self.known)
        read = frozenset[str]().union(*self._sources.values())
        # Where Redis cannot say that who is gone is meant to be, the table keeps them, and so do the keys.
        choice = () if self._strange or self.unread else (read, read | known, known)
        found = next((some for some in choice if len(some) == count), None)
        self.is_whole = found is not None
        if found is not None and found != known:
            self.known = tuple(sorted(found))
        if (self.known, self.is_whole) == before:
            return False
        try:
            self._keep()
        except OSError as error:
            self.trouble = error
        else:
            self.trouble = None
        return True

    def _keep(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self._file.with_name(f"{self._file.name}.new")
        new.write_bytes(msgspec.json.encode(self.known))
        os.replace(new, self._file)

    def forget(self) -> None:
        """The ring has left the config."""
        self._file.unlink(missing_ok=True)
