"""What workers found out by themselves, as sentences: versions whose users they send outward. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from router.telemetry.counters import VersionCounters, VersionKey


@dataclass(frozen=True, slots=True)
class Trouble:
    """How many workers send a version's users outward, and how many of them because their breaker is open."""

    sick: int
    open: int


def troubles(versions: Mapping[VersionKey, VersionCounters]) -> dict[VersionKey, Trouble]:
    """The versions that at least one worker finds unwell."""
    return {key: Trouble(one.sick, one.open) for key, one in versions.items() if one.sick}


def news(before: Mapping[VersionKey, Trouble], after: Mapping[VersionKey, Trouble], workers: int) -> list[str]:
    """A sentence for each version that has become unwell, for another reason now, or well again."""
    said = []
    for key, now in after.items():
        was = before.get(key)
        if was is None or bool(was.open) != bool(now.open):
            said.append(f"{key[0]} {key[1]} is avoided by {now.sick} of {workers} workers: {_why(now)}")
    said += [f"{service} {version} is well again" for service, version in before if (service, version) not in after]
    return said


def warning(version: str, trouble: Trouble) -> str:
    """The same as a state."""
    return f"version {version} is avoided by {trouble.sick} worker{'s' * (trouble.sick > 1)}: {_why(trouble)}"


def _why(trouble: Trouble) -> str:
    if trouble.open:
        return "it fails massively, and the next version outward does not; its users go there until it is tried again"
    return (
        "no endpoint of it can be used, or not for long enough yet (return_after); its users go to the next version "
        "outward, where there is one"
    )
