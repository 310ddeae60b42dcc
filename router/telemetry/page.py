"""The text of a scrape: Prometheus' format 0.0.4, or OpenMetrics 1.0.

Written by hand: a router with some hundred rings has tens of thousands of lines, and the client library takes a
quarter of a second for them, in the process that every change of a weight goes through.

OpenMetrics without ``_created``, which nobody here knows of a series, and without exemplars.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Final

from router.telemetry.catalogue import PREFIX, Metric
from router.telemetry.meters import HISTOGRAM_BUCKETS, upper_edge_seconds

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def labels(**named: str) -> str:
    """Labels as they stand in a sample."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in named.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@functools.cache
def limits(bounds: tuple[float, ...]) -> list[int]:
    """For each bound, how many buckets of ``meters`` lie below it altogether.

    The bounds are no edges of these buckets. One that straddles a bound is counted above it: so a cumulative count is
    never too high, and misses at most the requests within 4.43 percent below the bound.
    """
    edges = [upper_edge_seconds(index) for index in range(HISTOGRAM_BUCKETS)]
    return [sum(edge <= bound for edge in edges) for bound in bounds]


class Page:
    """A scrape that is being written, metric after metric."""

    def __init__(self, *, is_open: bool = False) -> None:
        self._is_open = is_open
        self._parts: list[str] = []
        self._name = ""
        self._suffixes: list[str] = []
        self._limits: list[int] = []

    def begin(self, metric: Metric) -> None:
        """Samples that follow are of this metric."""
        self._name = PREFIX + metric.name
        name = metric.family if self._is_open else self._name
        self._head(name, metric.kind, metric.unit, metric.meaning)
        if metric.bounds:
            self._limits = limits(metric.bounds)
            self._suffixes = [f'le="{bound}"}} ' for bound in metric.bounds]

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

    def histogram(self, labelled: str, buckets: Mapping[int, int], micros: int) -> None:
        """Of the buckets of ``meters``, with their sum, which is shown in seconds."""
        counts, count = self._cumulative(buckets)
        comma = "," if labelled else ""
        start = f"{self._name}_bucket{{{labelled}{comma}"
        self._parts += [f"{start}{suffix}{n}\n" for suffix, n in zip(self._suffixes, counts, strict=True)]
        braced = f"{{{labelled}}}" if labelled else ""
        self._parts.append(
            f'{start}le="+Inf"}} {count}\n{self._name}_sum{braced} {micros / 1e6}\n{self._name}_count{braced} {count}\n'
        )

    def _cumulative(self, buckets: Mapping[int, int]) -> tuple[list[int], int]:
        """How many lie below each bound, and all."""
        if not buckets:
            return [0] * len(self._limits), 0
        filled, counts, below, at = sorted(buckets.items()), [], 0, 0
        for limit in self._limits:
            while at < len(filled) and filled[at][0] < limit:
                below += filled[at][1]
                at += 1
            counts.append(below)
        return counts, below + sum(count for _, count in filled[at:])

    def foreign(self, name: str, kind: str, meaning: str, value: float) -> None:
        """A metric that is not ours, with one sample."""
        self._head(name.removesuffix("_total") if self._is_open else name, kind, "", meaning)
        self._parts.append(f"{name} {value}\n")

    def text(self) -> bytes:
        end = "# EOF\n" if self._is_open else ""
        return ("".join(self._parts) + end).encode()
