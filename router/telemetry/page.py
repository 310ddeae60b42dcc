"""The text of a scrape: Prometheus' format 0.0.4, or OpenMetrics 1.0.

Written by hand: a router with some hundred rings has tens of thousands of lines, and the client library takes a
quarter of a second for them, in the process that every change of a weight goes through.

OpenMetrics without ``_created``, which nobody here knows of a series, and without exemplars.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Final

from router.telemetry.catalogue import PREFIX, Metric
from router.telemetry.meters import HISTOGRAM_BUCKETS, Durations, upper_edge_seconds

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
Kept = dict[tuple[str, str], tuple[int, Durations, str]]
"""Histograms as they were written: name and labels → sum, durations, text. Most rings of a large fleet rest mostly."""


def labels(**named: str) -> str:
    """Labels as they stand in a sample."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in named.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@functools.cache
def _places(bounds: tuple[float, ...]) -> list[int]:
    """For each bucket of ``meters``, the first bound that it lies below altogether; beyond the last one there is none.

    The bounds are no edges of these buckets. One that straddles a bound is counted above it: so a cumulative count is
    never too high, and misses at most the requests within 4.43 percent below the bound.
    """
    edges = [upper_edge_seconds(index) for index in range(HISTOGRAM_BUCKETS)]
    return [next((n for n, bound in enumerate(bounds) if edge <= bound), len(bounds)) for edge in edges]


class Page:
    """A scrape that is being written, metric after metric."""

    def __init__(self, *, is_open: bool = False, before: Kept | None = None) -> None:
        self._is_open = is_open
        self._before: Kept = before or {}
        self.kept: Kept = {}
        """Of this scrape, for the next one."""
        self._parts: list[str] = []
        self._name = ""
        self._suffixes: list[str] = []
        self._places: list[int] = []

    def begin(self, metric: Metric) -> None:
        """Samples that follow are of this metric."""
        self._name = PREFIX + metric.name
        name = metric.family if self._is_open else self._name
        self._head(name, metric.kind, metric.unit, metric.meaning)
        if metric.bounds:
            self._places = _places(metric.bounds)
            self._suffixes = [f'le="{bound}"}} ' for bound in (*metric.bounds, "+Inf")]

    def _head(self, name: str, kind: str, unit: str, meaning: str) -> None:
        said = meaning.replace("\\", r"\\").replace("\n", r"\n")
        self._parts.append(f"# HELP {name} {said}\n# TYPE {name} {kind}\n")
        if unit and self._is_open:
            self._parts.append(f"# UNIT {name} {unit}\n")

    def add(self, labelled: str, value: float) -> None:
        """One sample; ``labelled`` is empty, or what ``labels`` made."""
        self._parts.append(f"{self._name}{{{labelled}}} {value}\n" if labelled else f"{self._name} {value}\n")

    def add_each(self, labelled: str, label: str, values: Iterable[str], found: Mapping[str, float]) -> None:
        """A sample for each of a label's values; 0 for those that were not found."""
        start = f'{self._name}{{{labelled}{"," if labelled else ""}{label}="'
        get = found.get
        self._parts += [f'{start}{value}"}} {get(value, 0)}\n' for value in values]

    def histogram(self, labelled: str, durations: Durations, micros: int, first: int = 0) -> None:
        """The one that begins at ``first``, with its sum, which is shown in seconds."""
        key = (self._name, labelled)
        known = self._before.get(key)
        if known is None or known[0] != micros or not durations.is_as(known[1]):
            known = (micros, durations, self._histogram(labelled, durations, micros, first))
        self.kept[key] = known
        self._parts.append(known[2])

    def _histogram(self, labelled: str, durations: Durations, micros: int, first: int) -> str:
        below = list(accumulate(durations.by_bounds(first, self._places, len(self._suffixes))))
        start = f"{self._name}_bucket{{{labelled}{',' if labelled else ''}"
        lines = [f"{start}{suffix}{count}\n" for suffix, count in zip(self._suffixes, below, strict=True)]
        braced = f"{{{labelled}}}" if labelled else ""
        lines.append(f"{self._name}_sum{braced} {micros / 1e6}\n{self._name}_count{braced} {below[-1]}\n")
        return "".join(lines)

    def foreign(self, name: str, kind: str, meaning: str, value: float) -> None:
        """A metric that is not ours, with one sample."""
        self._head(name.removesuffix("_total") if self._is_open else name, kind, "", meaning)
        self._parts.append(f"{name} {value}\n")

    def text(self) -> bytes:
        end = "# EOF\n" if self._is_open else ""
        return ("".join(self._parts) + end).encode()
