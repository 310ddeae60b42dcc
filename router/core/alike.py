"""One copy of what many services have alike."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

Thing = TypeVar("Thing")


class Alike:
    """Of equal things, which nobody changes, the first one.

    With a thousand services each request comes to another service's rules, intervals and header lines, which are in no
    cache then; most services have the same ones.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}

    def one(self, thing: Thing) -> Thing:
        """This one, or an equal one that came before."""
        found: Thing = self._kept.setdefault(thing, thing)
        return found

    def find(self, key: Hashable) -> Any:
        """What was made of an equal key; None if nothing was."""
        return self._kept.get(key)

    def keep(self, key: Hashable, made: Thing) -> Thing:
        self._kept[key] = made
        return made
