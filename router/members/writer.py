"""The one who writes a member table (``router.core.table``), in place, while others read it.

One writer per table, one slot at a time: each step leaves a table that a reader may look into, and a writer that is
killed between two steps leaves one that can be told whole. It must never move a member, and never use the last of the
empty slots: a search ends at one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from router.core.table import (
    CAPACITY_AT,
    COUNT_AT,
    DIGEST_AT,
    EMPTY,
    HEADER_WORDS,
    LAYOUT,
    MAGIC,
    PENDING_AT,
    TOMBSTONE,
    USED_AT,
    BadTable,
    checked_capacity,
)

SMALLEST: Final = 1024
"""Slots: 8 KiB, so that the first six hundred members cost no second file."""
USED_AT_MOST: Final = 0.6
"""Of the slots, tombstones included. A search for somebody who is no member then takes 3.6 looks on average (Knuth,
TAOCP 3, §6.4); at 0.5, where a new table begins at the most, 2.5."""
SLICE: Final = 1 << 15
"""Slots that are looked through in one step: some milliseconds."""


class TableFull(Exception):
    """No slot is left for another member: a larger table has to take this one's place."""


def capacity_for(members: int) -> int:
    """Slots of a new table: a power of two, at least twice the members."""
    return int(max(SMALLEST, 1 << (2 * members - 1).bit_length()))


def words_for(capacity: int) -> int:
    """The length of a table in 64-bit words."""
    return HEADER_WORDS + capacity


def normal(fingerprint: int) -> int:
    """The fingerprint as a slot can hold it: 0 and 1 mean something else there."""
    return fingerprint if fingerprint > TOMBSTONE else fingerprint + 2


def begin(words: memoryview) -> None:
    """Make a table out of zeros: no member, every slot empty."""
    words[1], words[CAPACITY_AT] = LAYOUT, len(words) - HEADER_WORDS
    words[0] = MAGIC


def verify(words: memoryview) -> Iterator[int]:
    """Count the members and hold them against the digest, some milliseconds a step; at last yields their number.

    Yields -1 at each step before. Raises ``BadTable``. A change that was begun and not finished does no harm: whether
    its slot was written or not, the table is one that was true.
    """
    capacity = checked_capacity(words)
    members = tombstones = digest = 0
    for start in range(HEADER_WORDS, HEADER_WORDS + capacity, SLICE):
        some = words[start : start + SLICE].tolist()
        gone = some.count(TOMBSTONE)
        members += len(some) - some.count(EMPTY) - gone
        tombstones += gone
        for one in some:
            digest ^= one
        yield -1
    digest ^= tombstones & 1  # each of them was taken for a one
    if digest not in (words[DIGEST_AT], words[DIGEST_AT] ^ words[PENDING_AT]):
        raise BadTable("its members are not those it was written with")
    if members + tombstones > int(capacity * USED_AT_MOST) + 1:
        raise BadTable("it has more members than a table of its size may have")
    yield members


class TableWriter:
    """Adds and removes, in place. ``words`` is the mapped file as a writable memoryview of ``Q``."""

    __slots__ = ("_mask", "_most", "_slots", "_words", "capacity")

    def __init__(self, words: memoryview) -> None:
        self.capacity = checked_capacity(words)
        self._words = words
        self._slots = words[HEADER_WORDS:]
        self._mask = self.capacity - 1
        self._most = int(self.capacity * USED_AT_MOST)

    def __repr__(self) -> str:
        return f"<TableWriter of {self.count} members in {self.capacity} slots>"

    def __contains__(self, fingerprint: int) -> bool:
        return self._slots[self._find(normal(fingerprint))] != EMPTY

    @property
    def count(self) -> int:
        """Members."""
        return int(self._words[COUNT_AT])

    @property
    def digest(self) -> int:
        """The fingerprints of all members, xor."""
        return int(self._words[DIGEST_AT])

    @property
    def used(self) -> int:
        """Slots that are not empty: those of members, and tombstones."""
        return int(self._words[USED_AT])

    @property
    def is_full(self) -> bool:
        """Whether another member may find no slot."""
        return self.used >= self._most

    def fill(self, fingerprints: Iterable[int]) -> list[int]:
        """Add to a table that nobody reads yet; those that were in it already are given back. Raises ``TableFull``.

        The header follows at the end: a table whose writer died in here is no whole one.
        """
        slots, mask = self._slots, self._mask
        again: list[int] = []
        added = digest = 0
        room = self._most - self.used
        for fingerprint in fingerprints:
            wanted = fingerprint if fingerprint > TOMBSTONE else fingerprint + 2
            at = wanted & mask
            found = slots[at]
            while found and found != wanted:
                at = (at + 1) & mask
                found = slots[at]
            if found:
                again.append(wanted)
                continue
            if added == room:
                raise TableFull
            slots[at] = wanted
            added += 1
            digest ^= wanted
        words = self._words
        words[DIGEST_AT] ^= digest
        words[COUNT_AT] += added
        words[USED_AT] += added
        return again

    def add(self, fingerprint: int) -> bool:
        """One more member; False if it was one already. Raises ``TableFull``."""
        wanted = normal(fingerprint)
        slots, mask, words = self._slots, self._mask, self._words
        at, free = wanted & mask, -1
        # To the end, past any tombstone: it may stand behind one.
        while (found := slots[at]) != EMPTY:
            if found == wanted:
                return False
            if found == TOMBSTONE and free < 0:
                free = at
            at = (at + 1) & mask
        if free < 0:
            if words[USED_AT] >= self._most:
                raise TableFull
            free = at
            words[USED_AT] += 1
        words[PENDING_AT] = wanted
        slots[free] = wanted
        words[DIGEST_AT] ^= wanted
        words[PENDING_AT] = 0
        words[COUNT_AT] += 1
        return True

    def remove(self, fingerprint: int) -> bool:
        """One member less; False if it was none."""
        wanted = normal(fingerprint)
        slots, mask, words = self._slots, self._mask, self._words
        at = self._find(wanted)
        if slots[at] == EMPTY:
            return False
        words[PENDING_AT] = wanted
        if slots[(at + 1) & mask] != EMPTY:
            slots[at] = TOMBSTONE
        else:
            # Nobody's search goes on beyond the next slot, so none has to come through this one, nor through
            # tombstones right before it.
            slots[at] = EMPTY
            words[USED_AT] -= 1
            before = (at - 1) & mask
            while slots[before] == TOMBSTONE:
                slots[before] = EMPTY
                words[USED_AT] -= 1
                before = (before - 1) & mask
        words[DIGEST_AT] ^= wanted
        words[PENDING_AT] = 0
        words[COUNT_AT] -= 1
        return True

    def _find(self, wanted: int) -> int:
        """Its slot, or the empty one where the search ends."""
        slots, mask = self._slots, self._mask
        at = wanted & mask
        while (found := slots[at]) != EMPTY and found != wanted:
            at = (at + 1) & mask
        return at
