"""What Envoy's admin side says in numbers, and what of it is new since the last look. Pure.

Envoy counts from its own start on. What came between two looks is the difference, and after a restart all that is
there: nothing is counted twice, and nothing goes down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from router.envoy.access_log import DURATION, FLAGGED, PREFIX
from router.telemetry.counts import minus
from router.telemetry.meters import histogram_index

LOOKED_AT: Final = (
    rf"^{PREFIX}\.(duration|flagged)\.|^server\.uptime$|^http\..*\.downstream_cx_active$"
    r"|^cluster\..*\.(upstream_rq_active|membership_(healthy|total))$"
)
"""The names of the statistics that are asked for, as Envoy's ``filter``."""
RESTART_SECONDS: Final = 5
"""Envoy's uptime is in whole seconds, as old as its last flush, and its answer may take two seconds: one that seems to
have begun so much later is another one. An earlier restart shows by figures that have become less."""

Bins = dict[int, int]
"""Microseconds in the middle of one of Envoy's bins → count. Its bins are 1 to 10 percent wide (two decimal digits)."""


@dataclass(slots=True)
class Reading:
    """One look. ``began_at`` is Unix time in seconds, as far as Envoy tells. Lanes are texts (``access_log``)."""

    began_at: float
    durations: dict[str, Bins] = field(default_factory=dict)
    flagged: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    """All other counters and gauges, by their names."""
    texts: dict[str, str] = field(default_factory=dict)

    def versions(self, of: str) -> list[str]:
        """Those that are in force of ``cds``, ``lds`` or ``rds.<name>``: of each who is subscribed, one."""
        inner, end = f".{of}.", ".version_text"
        return [text for name, text in self.texts.items() if name.endswith(end) and inner in name]

    def refusals(self, of: str) -> int:
        """How often an update of such resources was refused."""
        inner, end = f".{of}.", ".update_rejected"
        return sum(count for name, count in self.numbers.items() if name.endswith(end) and inner in name)


class _Bin(msgspec.Struct):
    lower_bound: float
    width: float
    count: int


class _Histogram(msgspec.Struct):
    name: str
    totals: list[_Bin] = []


class _Histograms(msgspec.Struct):
    details: list[_Histogram] = []


class _Stat(msgspec.Struct):
    name: str = ""
    value: Any = None
    histograms: _Histograms | None = None


class _Stats(msgspec.Struct):
    stats: list[_Stat] = []


_decoder: Final = msgspec.json.Decoder(_Stats)


def read(data: bytes, now: float) -> Reading:
    """An answer of ``/stats?format=json&histogram_buckets=detailed``. Raises ``msgspec.DecodeError`` for others."""
    reading = Reading(now)
    for stat in _decoder.decode(data).stats:
        name, value = stat.name, stat.value
        if stat.histograms is not None:
            for one in stat.histograms.details:
                if one.name.startswith(DURATION):
                    reading.durations[one.name.removeprefix(DURATION)] = _bins(one.totals)
        elif isinstance(value, str):
            reading.texts[name] = value
        elif name.startswith(FLAGGED):
            reading.flagged[name.removeprefix(FLAGGED)] = int(value)
        elif isinstance(value, int):
            reading.numbers[name] = value
    reading.began_at = now - reading.numbers.get("server.uptime", 0)
    return reading


def _bins(totals: Iterable[_Bin]) -> Bins:
    found: Bins = {}
    for one in totals:
        middle = int(one.lower_bound + one.width / 2 + 0.5)
        found[middle] = found.get(middle, 0) + one.count
    return found


@dataclass(slots=True)
class News:
    """What is new since the look before."""

    durations: dict[str, Bins] = field(default_factory=dict)
    flagged: dict[str, int] = field(default_factory=dict)


def news(now: Reading, before: Reading) -> News:
    """All that is there, if this is another Envoy than before."""
    if is_restarted(now, before):
        before = Reading(now.began_at)
    durations = {}
    for lane, bins in now.durations.items():
        known = before.durations.get(lane, {})
        more = minus(bins, known)
        if more:
            durations[lane] = more
    return News(durations, minus(now.flagged, before.flagged))


def is_restarted(now: Reading, before: Reading) -> bool:
    """Whether this is another Envoy than before: it began later, or something that only grows has become less.

    Before without numbers nobody was there at that time.
    """
    if not before.numbers:
        return now.began_at > before.began_at
    if now.began_at > before.began_at + RESTART_SECONDS:
        return True
    if any(count > now.flagged.get(lane, 0) for lane, count in before.flagged.items()):
        return True
    return any(
        sum(bins.values()) > sum(now.durations.get(lane, {}).values()) for lane, bins in before.durations.items()
    )


def histogram_of(bins: Mapping[int, int]) -> tuple[dict[int, int], int]:
    """The router's own buckets, and the sum of all in microseconds."""
    found: dict[int, int] = {}
    total = 0
    for micros, count in bins.items():
        index = histogram_index(micros)
        found[index] = found.get(index, 0) + count
        total += micros * count
    return found, total
