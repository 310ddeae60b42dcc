"""Is the ring slower than tolerated: the shift test, on mergeable histograms, with the two-ring e-process.

Buckets are those of ``router.telemetry.meters``: bucket i holds (2^(i/16), 2^((i+1)/16)] µs. *Edge* j is 2^(j/16) µs,
so what is above edge j is in the buckets from j on. At the start of a tick j is chosen as the edge at or above the
control's p-quantile in *earlier* ticks. In the tick, x_b counts the control's requests above edge j and x_r the ring's
above edge j + s, and the two-ring test gets them with ρ = 1, δ = 0. With v the edge and L a latency,

    harm   H0: P(L_r > v 2^(s/16)) ≤ P(L_b > v)       rejected: slower than tolerated, at that quantile
    safe   H0: the reverse                            rejected: proven not slower than 2^(s/16) times the control

s = 1, 2, 3, 4 buckets are factors of 1.0443, 1.0905, 1.1388 and 1.1892. Nothing is interpolated, latencies need no
shape and may drift, the edge may follow the day: it only has to be chosen before the tick is seen. Guarantee and
papers: ``two_ring``. In users' units, feed each user's share of requests above the edge.

A request that hangs completes nothing and would never be slow: count it as above the edge when its age passes the edge
(``edge_seconds``), in the tick in which that happens, and not again when it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from router.rollout.statistics.two_ring import Tick
from router.telemetry.meters import HISTOGRAM_BUCKETS, SCALE, upper_edge_seconds
from router.telemetry.quantiles import quantile_bucket

SHIFT: Final = 2
"""Buckets; a factor of 1.0905."""
REMEMBERED: Final = 20_000
"""Requests of the control that the choice of the edge rests on, at most; older ones fade by halves."""
TAIL: Final = 10
"""Requests that have to be above a quantile before an edge is chosen there: of p99, with 1,000 requests."""


def shift_factor(shift: int) -> float:
    """The tolerance of so many buckets: 2^(shift/16)."""
    return float(2.0 ** (shift / SCALE))


def edge_seconds(edge: int) -> float:
    """Edge j in seconds."""
    return upper_edge_seconds(edge - 1)


def above(histogram: Mapping[int, int], edge: int) -> int:
    """How many were longer than edge ``edge``."""
    return sum(count for bucket, count in histogram.items() if bucket >= edge)


@dataclass(frozen=True, slots=True)
class Earlier:
    """The control's latencies of the ticks that are over: bucket and count, in order of bucket."""

    counts: tuple[tuple[int, int], ...] = ()

    def after(self, control: Mapping[int, int]) -> Earlier:
        """One more tick. When there are too many, all are halved, so that later requests weigh more."""
        counts = dict(self.counts)
        for bucket, count in control.items():
            counts[bucket] = counts.get(bucket, 0) + count
        while sum(counts.values()) > REMEMBERED:
            counts = {bucket: count // 2 for bucket, count in counts.items()}
        return Earlier(tuple(sorted((bucket, count) for bucket, count in counts.items() if count)))

    def edge(self, quantile: float, shift: int = SHIFT) -> int | None:
        """The edge at or above the quantile; None while there is too little to know it by.

        The last edge that leaves room for ``shift`` buckets above it is as far as it goes.
        """
        histogram = dict(self.counts)
        bucket = quantile_bucket(histogram, quantile)
        if bucket is None or sum(histogram.values()) * (1 - quantile) < TAIL - 1e-9:
            return None
        return min(bucket + 1, HISTOGRAM_BUCKETS - 1 - shift)

    def to_plain(self) -> list[list[int]]:
        """For JSON; ``from_plain`` gives back exactly this."""
        return [[bucket, count] for bucket, count in self.counts]

    @classmethod
    def from_plain(cls, plain: object) -> Earlier:
        """Raises ValueError for what ``to_plain`` cannot have made."""
        pairs = []
        for pair in plain if isinstance(plain, list | tuple) else [None]:
            match pair:
                case [int(bucket), int(count)] if 0 <= bucket < HISTOGRAM_BUCKETS and count > 0:
                    pairs.append((bucket, count))
                case _:
                    raise ValueError(f"not the earlier latencies of a control: {plain!r}")
        return cls(tuple(sorted(pairs)))


def shift_tick(ring: Mapping[int, int], control: Mapping[int, int], edge: int, shift: int = SHIFT) -> Tick:
    """The latencies of one tick as outcomes: slower than the edge, and for the ring than ``shift`` buckets above it."""
    return Tick(
        sum(ring.values()), above(ring, edge + shift),
        sum(control.values()), above(control, edge),
    )  # fmt: skip
