"""Members by the million: an open-addressing table of 64-bit fingerprints in memory that several processes share.

One process writes (``router.members.writer``), any number read, without a lock. A fingerprint is ``xxh64(key)``, the
number that the bucket is taken from where the salt is empty. What is mapped here is a file's content; opening files is
``router.members.files``' affair. This must never write, and never be asked about a key: only about its fingerprint.

The layout, in 64-bit words of the machine's own byte order: eight words of header (``MAGIC``, ``LAYOUT``, the number of
slots, members, slots in use, digest, what is being changed, spare), then the slots, a power of two of them. A slot is
``EMPTY``, ``TOMBSTONE`` (a member was here, look on), or a fingerprint. A search begins at the fingerprint modulo the
number of slots and goes on to the next slot until one is empty: linear probing (Knuth, TAOCP 3, §6.4, Algorithm L).
"""

from __future__ import annotations

from typing import Final

MAGIC: Final = int.from_bytes(b"RINGMEM\x01", "little")
"""Where the bytes are in another order, it reads as another number."""
LAYOUT: Final = 1
HEADER_WORDS: Final = 8
CAPACITY_AT: Final = 2
COUNT_AT: Final = 3
USED_AT: Final = 4
DIGEST_AT: Final = 5
"""All members' fingerprints, xor: their order does not matter, and a change costs one step."""
PENDING_AT: Final = 6
"""The fingerprint that is being added or removed: a writer that was killed in the middle leaves it here."""
EMPTY: Final = 0
TOMBSTONE: Final = 1


class BadTable(ValueError):
    """Not a table of this layout; the message says why."""


class MemberTable:
    """Who is a member, over ``words``: the mapped file as a memoryview of ``Q``. Raises ``BadTable``.

    It answers by fingerprint: with a million members and a million other users, the chance that any one of those is
    taken for a member is 10^12 / 2^64, about 1 in 18 million; for a single user it is 1 in 18 million million.

    A reader never sees half a slot. A slot is eight bytes at a multiple of eight, and CPython reads and writes an item
    of such a view with one eight-byte copy, which compilers make one load or store; those are atomic on x86-64 (Intel
    SDM 3A, §9.1.1) and on AArch64 (Arm ARM, B2.2.1). Nothing else is needed: the writer changes one slot at a time,
    each of these changes leaves a whole table, and members never move.
    """

    __slots__ = ("_mask", "_slots", "capacity")

    def __init__(self, words: memoryview) -> None:
        self.capacity = checked_capacity(words)
        self._mask = self.capacity - 1
        self._slots = words[HEADER_WORDS:]

    def __repr__(self) -> str:
        return f"<MemberTable of {self.capacity} slots>"

    def has(self, fingerprint: int) -> bool:
        """Whether somebody with this fingerprint is a member. Seldom more than two looks: at most 0.6 is in use."""
        if fingerprint <= TOMBSTONE:
            fingerprint += 2  # as the writer does
        slots = self._slots
        mask = self._mask
        at = fingerprint & mask
        found = slots[at]
        while found:
            if found == fingerprint:
                return True
            at = (at + 1) & mask
            found = slots[at]
        return False


def checked_capacity(words: memoryview) -> int:
    """The number of slots, if this is the content of a table. Raises ``BadTable``."""
    if len(words) < HEADER_WORDS + 2:
        raise BadTable("too short for a table")
    if words[0] != MAGIC:
        raise BadTable("not a table, or one of a machine with another byte order")
    if words[1] != LAYOUT:
        raise BadTable(f"a table of layout {words[1]}, not {LAYOUT}")
    capacity = int(words[CAPACITY_AT])
    if capacity & (capacity - 1) or len(words) != HEADER_WORDS + capacity:
        raise BadTable(f"it says {capacity} slots and has room for {len(words) - HEADER_WORDS}")
    return capacity
