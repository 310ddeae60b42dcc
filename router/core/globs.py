"""Patterns with ``*`` (any bytes, or none) and ``?`` (one byte). There are no classes, and nothing is escaped.

Each piece between two stars is looked for once, from left to right, and never again: a value takes steps by its length
times that of the pattern at the most, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Callable


def compile_glob(pattern: bytes) -> Callable[[bytes], bool]:
    """Asks a value whether the whole of it is as the pattern says."""
    first, *rest = [_Piece(part) for part in pattern.split(b"*")]
    if not rest:
        return lambda value: len(value) == first.size and first.is_at(value, 0)
    last = rest.pop()
    between = tuple(piece for piece in rest if piece.size)

    def matches(value: bytes) -> bool:
        end = len(value) - last.size
        at = first.size
        if at > end or not first.is_at(value, 0) or not last.is_at(value, end):
            return False
        for piece in between:
            at = piece.find(value, at, end)
            if at < 0:
                return False
            at += piece.size
        return True

    return matches


class _Piece:
    """What stands between two stars: literal runs, each at its place, and anything where the question marks are."""

    __slots__ = ("_runs", "_longest", "_offset", "size")

    def __init__(self, text: bytes) -> None:
        self.size = len(text)
        runs: list[tuple[int, bytes]] = []
        at = 0
        for run in text.split(b"?"):
            if run:
                runs.append((at, run))
            at += len(run) + 1
        self._offset, self._longest = max(runs, key=lambda run: len(run[1]), default=(0, b""))
        self._runs = tuple(run for run in runs if run != (self._offset, self._longest))

    def is_at(self, value: bytes, at: int) -> bool:
        """Whether it stands at this place; the value is long enough there."""
        if not value.startswith(self._longest, at + self._offset):
            return False
        for offset, run in self._runs:
            if not value.startswith(run, at + offset):
                return False
        return True

    def find(self, value: bytes, start: int, end: int) -> int:
        """The first place between ``start`` and ``end`` where all of it stands; -1 if there is none."""
        last = end - self.size
        at = start
        while at <= last:
            found = value.find(self._longest, at + self._offset, last + self._offset + len(self._longest))
            if found < 0:
                return -1
            at = found - self._offset
            if self.is_at(value, at):
                return at
            at += 1
        return -1
