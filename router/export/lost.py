"""What an export loses, said in words: where it stands in the config, why it is lost, and what happens instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Loss(NamedTuple):
    """``place`` is that in the config: ``services.shop.rings.canary``.

    ``is_wrong``: somebody would be in another ring than the config says, so that nothing is written unless asked for.
    """

    place: str
    reason: str
    instead: str
    is_wrong: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}; {self.instead}"


class CannotSayError(ValueError):
    """A condition that the other proxy cannot ask for."""


def comment(title: str, found: Sequence[Loss]) -> str:
    """The head of the file: every line of it is a comment, whatever the config holds."""
    lines = [title, ""]
    for name, is_wrong in (("WRONG, as was asked for (--lossy)", True), ("Lost", False)):
        mine = [str(one) for one in found if one.is_wrong is is_wrong]
        if mine:
            lines += [f"{name}:", *(f"  - {one}" for one in mine), ""]
    return "".join(f"# {printable(line)}".rstrip() + "\n" for line in lines)


def printable(text: str) -> str:
    """The text on one line, whatever it holds."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
