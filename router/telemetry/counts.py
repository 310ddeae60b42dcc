"""Counts by key, added and taken away: the innermost loops of what control does once a second for every ring."""

from __future__ import annotations

from typing import TypeVar

_Key = TypeVar("_Key")


def add(into: dict[_Key, int], other: dict[_Key, int]) -> None:
    """Counts onto others."""
    if not into:
        into.update(other)
        return
    for name, count in other.items():
        into[name] = into.get(name, 0) + count


def minus(now: dict[_Key, int], before: dict[_Key, int]) -> dict[_Key, int]:
    """What came between: of ``now``, those that are others than ``before``, which may have more of them."""
    found: dict[_Key, int] = {}
    for key, count in now.items():
        more = count - before.get(key, 0)
        if more:
            found[key] = more
    return found
