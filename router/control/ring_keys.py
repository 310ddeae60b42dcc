"""The keys of a ring's members in Redis, for an engine whose routes compare keys and ask no table: Envoy.

Beside the table, which alone knows who is a member: keys are in force only while they are those whom the table has, to
the last one, so that nobody is left out in silence. Kept in the state directory: a restart without Redis goes on with
them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Final

import msgspec
from xxhash import xxh64_intdigest

from router.control.disk import Rejected, read_own, replace_whole
from router.members.writer import normal

MOST: Final = 4096
"""Members of a ring that routes are made of; as many as a set is read whole with (``member_sync.LOOSE_AT_ONCE``)."""
_MOST_BYTES: Final = 1 << 24

Proof = tuple[int, int]
"""How many members a table has, and their fingerprints, xor: two tables that have it alike have the same members."""


def proof_of(keys: Iterable[str]) -> Proof:
    """What a table of these has."""
    prints = {normal(xxh64_intdigest(key.encode())) for key in keys}
    return len(prints), reduce(xor, prints, 0)


class RingKeys:
    """Of one ring; ``file`` outlives the process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._sources: dict[str, frozenset[str]] = {}
        self._strange: set[str] = set()
        self._is_settled = False
        self._proof: Proof = (0, 0)
        self.unread: set[str] = set()
        """Sets of Redis that were too long to keep: to be read again when there are fewer members."""
        self.trouble: OSError | None = None
        """Why a restart would not know them."""
        self.has_loaded = False
        self.known: tuple[str, ...] = ()
        self.is_whole = False
        """Whether ``known`` are all members."""

    def __repr__(self) -> str:
        return f"<RingKeys {self._file.name} {len(self.known)}>"

    def load(self, proof: Proof) -> None:
        """Those of last time, where the last good table has just them."""
        self.has_loaded = True
        with contextlib.suppress(Rejected, msgspec.DecodeError):
            self.known = msgspec.json.decode(read_own(self._file, _MOST_BYTES) or b"[]", type=tuple[str, ...])
        self.is_whole = bool(self.known) and proof_of(self.known) == proof

    def read(self, source: str, members: Sequence[bytes] | None) -> None:
        """What a set in Redis has; None where that is too much."""
        self._sources.pop(source, None)
        self._strange.discard(source)
        self.unread.discard(source)
        self._is_settled = False
        if members is None or len(members) > MOST:
            self.unread.add(source)
            return
        try:
            keys = frozenset(one.decode() for one in members)
        except UnicodeDecodeError:
            self._strange.add(source)
            return
        if len(keys.union(*self._sources.values())) > MOST:
            self.unread.add(source)
        else:
            self._sources[source] = keys

    async def settle(self, proof: Proof) -> bool:
        """The table has these members now; whether the keys are others than before."""
        if self._is_settled and proof == self._proof and self.trouble is None:
            return False
        before = self.known, self.is_whole
        read = frozenset[str]().union(*self._sources.values())
        # Where Redis cannot say that who is gone is meant to be, the table keeps them, and so do the keys.
        choice = () if self._strange or self.unread else (read, read.union(self.known))
        found = next((some for some in choice if proof_of(some) == proof), None)
        self.is_whole, self._is_settled, self._proof = found is not None, True, proof
        if found is not None:
            self.known = tuple(sorted(found))
        is_other = (self.known, self.is_whole) != before
        if is_other or self.trouble is not None:
            self.trouble = None
            try:
                await asyncio.to_thread(replace_whole, self._file, msgspec.json.encode(self.known))
            except OSError as error:
                self.trouble = error
        return is_other

    def forget(self) -> None:
        """The ring has left the config."""
        with contextlib.suppress(OSError):
            self._file.unlink()
