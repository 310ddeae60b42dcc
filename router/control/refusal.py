"""Why (a part of) what Redis holds is not applied, as plain data; and bytes from Redis as text to be shown. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

REPORTED: Final = 5
"""Bad fields named per hash: a screen full of junk helps nobody."""

Reason = Literal[
    "unknown_ring", "unknown_field", "unknown_version", "not_a_number", "out_of_range", "sum_above_100", "default_ring",
    "wrong_type", "too_many_fields", "unreadable", "frozen", "held_missing", "not_a_time",
    "max_step", "min_bake", "ceiling", "floor",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason, for status, metric (``reason``), log and dashboard."""

    key: str
    field: str
    value: str
    reason: Reason
    message: str
    """One sentence, with the remedy."""
    until: float = 0.0
    """Unix time at which the same value is judged again; 0: when something has changed."""

    def __str__(self) -> str:
        return self.message


def show(value: bytes) -> str:
    """Any bytes as short printable text, in quotes."""
    text = repr(text_of(value))
    return text if len(text) <= 60 else text[:57] + "…'"


def text_of(value: bytes) -> str:
    """Text for comparing: bytes that are not UTF-8 become something that equals no name of a config file."""
    return value.decode("utf-8", "backslashreplace")


def printable(value: bytes) -> str:
    """Text for showing: whatever cannot be shown is one replacement character."""
    return "".join(char if char.isprintable() else "\ufffd" for char in value.decode("utf-8", "replace"))
