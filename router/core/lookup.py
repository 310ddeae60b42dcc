"""Who is listed somewhere: what the decision asks of a member table, however that is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol


class Lookup(Protocol):
    """A list of users by the fingerprints of their keys (``xxh64(key)``), asked in O(1)."""

    def has(self, fingerprint: int, /) -> bool:
        """Whether a user with this fingerprint is listed."""
        ...


Tables = Callable[[str], Lookup]
"""Turns the path of a member table's file into what can be asked."""


class _Nobody:
    __slots__ = ()

    def has(self, fingerprint: int, /) -> bool:
        return False


_NOBODY: Final = _Nobody()


def no_tables(path: str) -> Lookup:
    """For a snapshot that is compiled away from its tables: nobody is listed anywhere."""
    return _NOBODY
