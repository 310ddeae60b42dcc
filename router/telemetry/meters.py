"""What a worker counts on the request's way: ints and small dicts, read once a second.

Latencies go into base-2 exponential histograms of scale 4 (OpenTelemetry's exponential histogram): bucket j holds
(2^(j/16), 2^((j+1)/16)] microseconds, so any quantile read from it is off by at most 4.43 percent, and merging is
adding. They are sparse: a ring's latencies fill some dozens of the 512 buckets, and a thousand services have thousands
of histograms. A meter remembers which buckets moved, so that a report costs what happened since the last one.
"""

from __future__ import annotations

from math import log2
from typing import Final

SCALE: Final = 16
"""Buckets per doubling (2 to the power of scale 4)."""
HISTOGRAM_BUCKETS: Final = 512
"""1 µs … 2^32 µs (71 minutes); what is beyond lands in the last bucket."""


def histogram_index(seconds: float) -> int:
    """The bucket of a duration in seconds."""
    micros = seconds * 1e6
    if micros <= 1.0:
        return 0
    index = int(log2(micros) * SCALE)
    return index if index < HISTOGRAM_BUCKETS else HISTOGRAM_BUCKETS - 1


def upper_edge_seconds(index: int) -> float:
    """The upper edge of a bucket in seconds."""
    return float(2.0 ** ((index + 1) / SCALE)) / 1e6


class Meter:
    """One histogram of durations: bucket → count, and the sum in seconds."""

    __slots__ = ("_counts", "_moved", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._counts: dict[int, int] = {}
        self._moved: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        index = histogram_index(seconds)
        moved = self._moved
        moved[index] = moved.get(index, 0) + 1
        self.seconds += seconds

    def read(self, *, whole: bool) -> dict[int, int]:
        """The buckets that moved since the last reading (or all there are), with what they hold now."""
        counts, moved = self._counts, self._moved
        for index, count in moved.items():
            moved[index] = counts[index] = counts.get(index, 0) + count
        self._moved = {}
        return dict(counts) if whole else moved


class RingMeter:
    """One service × ring × version. What is not a ``Meter`` is cumulative since the worker started."""

    __slots__ = (
        "client_aborts", "codes", "duration_error", "duration_success", "has_moved", "in_flight", "reasons",
        "request_bytes", "response_bytes", "retries", "upstream",
    )  # fmt: skip

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.reasons: dict[str, int] = {}
        self.in_flight = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.client_aborts = 0
        self.retries = 0
        self.duration_success = Meter()
        self.duration_error = Meter()
        self.upstream = Meter()
        self.has_moved = False

    def decided(self, reason: str) -> None:
        """A request was sorted into the ring."""
        self.has_moved = True
        self.in_flight += 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def finished(self, status: int, seconds: float, received: int, sent: int, is_error: bool) -> None:
        """A request is over: ``seconds`` from its head to its response, and the bytes of both bodies."""
        self.has_moved = True
        self.in_flight -= 1
        self.codes[status] = self.codes.get(status, 0) + 1
        self.request_bytes += received
        self.response_bytes += sent
        if is_error:
            self.duration_error.add(seconds)
        else:
            self.duration_success.add(seconds)
