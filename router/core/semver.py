"""Versions in the order of Semantic Versioning 2.0.0 (semver.org), and requirements on them: ``>=5.2``, ``<6``.

Two things are forgiven: parts that are missing count as 0, and a leading ``v``. What is no version even then
(``5.2.0.1``, ``05.2``, ``latest``) meets no requirement at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

Version = tuple[int, int, int, tuple[tuple[int, int, bytes], ...]]
"""Major, minor, patch and what orders pre-releases. Compares as semver.org §11 says: see ``_RELEASED``."""

LONGEST: Final = 256
"""Bytes. No version is longer, and a longer number takes time to read."""
_RELEASED: Final = ((2, 0, b""),)
"""A version without a pre-release comes after all of its pre-releases (§11.3)."""
_DIGITS: Final = frozenset(b"0123456789")
_IDENTIFIER: Final = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-")
_OPERATORS: Final = (">=", "<=", "==", ">", "<", "=")


def parse_version(text: bytes) -> Version | None:
    """The version that a text is, without its build metadata (§10); None if it is none."""
    if len(text) > LONGEST:
        return None
    text, plus, build = text.strip(b" \t").partition(b"+")
    if plus and not _are_identifiers(build.split(b".")):
        return None
    if text[:1] in (b"v", b"V"):
        text = text[1:]
    core, dash, pre = text.partition(b"-")
    numbers = core.split(b".")
    if len(numbers) > 3 or not all(map(_is_number, numbers)):
        return None
    major, minor, patch = (int(number) for number in (*numbers, b"0", b"0")[:3])
    if not dash:
        return major, minor, patch, _RELEASED
    names = pre.split(b".")
    if not _are_identifiers(names):
        return None
    order: list[tuple[int, int, bytes]] = []
    for name in names:
        if not _DIGITS.issuperset(name):
            order.append((1, 0, name))  # §11.4.2 and §11.4.3: letters in ASCII order, above all numbers
        elif _is_number(name):
            order.append((0, int(name), b""))
        else:
            return None
    return major, minor, patch, tuple(order)


def _is_number(text: bytes) -> bool:
    """Digits without a leading zero (§2)."""
    return bool(text) and _DIGITS.issuperset(text) and (text[:1] != b"0" or len(text) == 1)


def _are_identifiers(names: list[bytes]) -> bool:
    return all(name and _IDENTIFIER.issuperset(name) for name in names)


def requirements(values: Sequence[str]) -> tuple[tuple[str, Version], ...]:
    """What has to hold, all of it: operator and version. Each value may hold several, with commas between.

    Raises ValueError that names the one that is none.
    """
    found: list[tuple[str, Version]] = []
    for value in values:
        for text in value.split(","):
            wanted = text.strip()
            operator = next((known for known in _OPERATORS if wanted.startswith(known)), "")
            version = parse_version(wanted[len(operator) :].encode())
            if version is None:
                raise ValueError(f"{wanted!r} is no requirement on a version; write one like '>=5.2', '<6' or '=1.2.3'")
            found.append((operator or "=", version))
    return tuple(found)


def meets(values: Sequence[str]) -> Callable[[bytes], bool]:
    """Asks a text whether it is a version that meets all of the requirements; raises ValueError as they do."""
    wanted = requirements(values)

    def is_met(text: bytes) -> bool:
        version = parse_version(text)
        if version is None:
            return False
        for operator, bound in wanted:
            if version == bound:
                if operator in (">", "<"):
                    return False
            elif operator[:1] != (">" if version > bound else "<"):
                return False
        return True

    return is_met
