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


ERROR: Final = HISTOGRAM_BUCKETS
UPSTREAM: Final = 2 * HISTOGRAM_BUCKETS
"""Where the other two histograms of a ring begin: all three are one dict, which is one place in memory to go to."""


class RingMeter:
    """One service × ring × version; cumulative since the worker started.

    With a thousand services each request comes to another meter, cold in the cache: plain numbers beside one another,
    and dicts only for what is rare or has to be sparse.
    """

    __slots__ = (
        "_codes", "_counts", "_moved", "_ok", "client_aborts", "error_seconds", "has_moved", "in_flight", "reasons",
        "request_bytes", "response_bytes", "retries", "success_seconds", "upstream_seconds",
    )  # fmt: skip

    def __init__(self) -> None:
        self.has_moved = False
        self.in_flight = 0
        self._ok = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.success_seconds = 0.0
        self.error_seconds = 0.0
        self.upstream_seconds = 0.0
        self.client_aborts = 0
        self.retries = 0
        self.reasons: dict[str, int] = {}
        self._codes: dict[int, int] = {}
        self._counts: dict[int, int] = {}
        self._moved: dict[int, int] = {}

    def decided(self, reason: str, count: int) -> None:
        """So many requests were sorted into the ring for this reason; below 0 for those that went on elsewhere."""
        self.has_moved = True
        self.reasons[reason] = self.reasons.get(reason, 0) + count

    def left(self) -> None:
        """A request that was in flight here goes on elsewhere."""
        self.has_moved = True
        self.in_flight -= 1

    def answered(self, seconds: float) -> None:
        """The backend's response head came, so long after the request was sent."""
        index = UPSTREAM + histogram_index(seconds)
        self._moved[index] = self._moved.get(index, 0) + 1
        self.upstream_seconds += seconds

    def finished(self, status: int, seconds: float, received: int, sent: int, is_error: bool) -> None:
        """A request is over: ``seconds`` from its head to its response, and the bytes of both bodies."""
        self.has_moved = True
        self.in_flight -= 1
        if status == 200:
            self._ok += 1
        else:
            self._codes[status] = self._codes.get(status, 0) + 1
        self.request_bytes += received
        self.response_bytes += sent
        index = histogram_index(seconds)
        if is_error:
            index += ERROR
            self.error_seconds += seconds
        else:
            self.success_seconds += seconds
        self._moved[index] = self._moved.get(index, 0) + 1

    @property
    def codes(self) -> dict[int, int]:
        """Finished requests by status."""
        return {200: self._ok, **self._codes} if self._ok else dict(self._codes)

    def read(self, *, whole: bool) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
        """Three histograms, success, error and upstream: the buckets that moved since the last reading, or all."""
        counts, moved = self._counts, self._moved
        for index, count in moved.items():
            moved[index] = counts[index] = counts.get(index, 0) + count
        self._moved = {}
        self.has_moved = False
        found: tuple[dict[int, int], dict[int, int], dict[int, int]] = ({}, {}, {})
        for index, count in (counts if whole else moved).items():
            found[index // HISTOGRAM_BUCKETS][index % HISTOGRAM_BUCKETS] = count
        return found
