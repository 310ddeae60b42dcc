"""What a worker counts on the request's way: ints and small dicts, read once a second.

Latencies go into base-2 exponential histograms of scale 4 (OpenTelemetry's exponential histogram): bucket j holds
(2^(j/16), 2^((j+1)/16)] microseconds, so any quantile read from it is off by at most 4.43 percent, and merging is
adding. They are sparse: a ring's latencies fill some dozens of the 512 buckets, and a thousand services have thousands
of histograms. A meter remembers which buckets moved, so that a report costs what happened since the last one.

Durations are whole microseconds: sums of floats depend on their order, and one that is added up in another order after
a worker's death would go down by its last digit, which Prometheus takes for a restart.
"""

from __future__ import annotations

from math import log2
from typing import Final

SCALE: Final = 16
"""Buckets per doubling (2 to the power of scale 4)."""
HISTOGRAM_BUCKETS: Final = 512
"""1 µs … 2^32 µs (71 minutes); what is beyond lands in the last bucket."""


def micros_of(seconds: float) -> int:
    """A duration as it is counted."""
    return int(seconds * 1e6 + 0.5)


def histogram_index(micros: int) -> int:
    """The bucket of a duration in microseconds."""
    if micros <= 1:
        return 0
    index = int(log2(micros) * SCALE)
    return index if index < HISTOGRAM_BUCKETS else HISTOGRAM_BUCKETS - 1


def upper_edge_seconds(index: int) -> float:
    """The upper edge of a bucket in seconds."""
    return float(2.0 ** ((index + 1) / SCALE)) / 1e6


ERROR: Final = HISTOGRAM_BUCKETS
UPSTREAM: Final = 2 * HISTOGRAM_BUCKETS
"""Where a ring's other histograms begin: durations of errors, those of the backend, and those of errors again at the
sum of both. All four are one dict, on the request's way and in reports: one place in memory to go to, one to update."""


class RingMeter:
    """One service × ring × version; cumulative since the worker started.

    With a thousand services each request comes to another meter, cold in the cache: plain numbers beside one another,
    and dicts only for what is rare or has to be sparse.
    """

    __slots__ = (
        "_codes", "_counts", "_gone", "_moved", "_ok", "client_aborts", "error_micros", "has_moved", "in_flight",
        "reasons", "request_bytes", "response_bytes", "success_micros", "tunnels", "upgrades",
        "upstream_error_micros", "upstream_success_micros",
    )  # fmt: skip

    def __init__(self) -> None:
        self.in_flight = 0
        self.has_moved = False
        self._ok = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.success_micros = 0
        self.upstream_success_micros = 0
        self._moved: dict[int, int] = {}
        self.error_micros = 0
        self.upstream_error_micros = 0
        self.client_aborts = 0
        self.upgrades = 0
        self.tunnels = 0
        self.reasons: dict[str, int] = {}
        self._gone: dict[str, int] = {}
        self._codes: dict[int, int] = {}
        self._counts: dict[int, int] = {}

    def decided(self, reason: str, count: int) -> None:
        """So many requests were sorted into the ring for this reason; below 0 for those that went on elsewhere.

        Counters only grow, and those were perhaps reported already: they are made up for by the next ones.
        """
        self.has_moved = True
        count += self._gone.pop(reason, 0)
        if count > 0:
            self.reasons[reason] = self.reasons.get(reason, 0) + count
        elif count < 0:
            self._gone[reason] = count

    def left(self) -> None:
        """A request that was in flight here goes on elsewhere."""
        self.has_moved = True
        self.in_flight -= 1

    def opened(self) -> None:
        """A request has become a tunnel."""
        self.has_moved = True
        self.upgrades += 1
        self.tunnels += 1

    def finished(self, status: int, micros: int, received: int, sent: int, is_error: bool, waited: int = -1) -> None:
        """A request is over: microseconds from its head to its response, and the bytes of both bodies.

        ``waited``: from the request sent to the backend's response head; below 0 where none came.
        """
        self.has_moved = True
        self.in_flight -= 1
        if status == 200:
            self._ok += 1
        else:
            self._codes[status] = self._codes.get(status, 0) + 1
        self.request_bytes += received
        self.response_bytes += sent
        index = histogram_index(micros)
        if is_error:
            index += ERROR
            self.error_micros += micros
        else:
            self.success_micros += micros
        moved = self._moved
        moved[index] = moved.get(index, 0) + 1
        if waited >= 0:
            index = UPSTREAM + histogram_index(waited)
            if is_error:
                index += ERROR
                self.upstream_error_micros += waited
            else:
                self.upstream_success_micros += waited
            moved[index] = moved.get(index, 0) + 1

    @property
    def codes(self) -> dict[int, int]:
        """Finished requests by status."""
        return {200: self._ok, **self._codes} if self._ok else dict(self._codes)

    def read(self, *, whole: bool) -> dict[int, int]:
        """The buckets that moved since the last reading, as they stand now; or all."""
        counts, moved = self._counts, self._moved
        for index, count in moved.items():
            moved[index] = counts[index] = counts.get(index, 0) + count
        self._moved = {}
        self.has_moved = False
        return dict(counts) if whole else moved


class Durations:
    """The four histograms of one dict as a scrape needs them: all compared at once, and all counted at once."""

    __slots__ = ("_bounds", "_counted", "_equal", "_places")

    def __init__(self, counted: dict[int, int]) -> None:
        self._counted = counted
        self._equal: Durations | None = None
        """The one that was found to be equal last."""
        self._places: list[int] = []
        self._bounds: list[list[int]] = []

    def is_as(self, other: Durations) -> bool:
        if self._equal is not other and self._counted == other._counted:
            self._equal = other
        return self._equal is other

    def by_bounds(self, first: int, places: list[int], bounds: int) -> list[int]:
        """Counts of the histogram that begins at ``first``: so many as there are bounds, each bucket's at its place."""
        if self._places is not places:
            self._places = places
            self._bounds = [[0] * bounds for _ in range(4)]
            for index, count in self._counted.items():
                self._bounds[index // HISTOGRAM_BUCKETS][places[index % HISTOGRAM_BUCKETS]] += count
        return self._bounds[first // HISTOGRAM_BUCKETS]


def latencies(now: dict[int, int], before: dict[int, int]) -> dict[int, int]:
    """Durations of success and error together, without those of the backend: what came after ``before``.

    ``now`` may hold only what moved since then.
    """
    found: dict[int, int] = {}
    for index, count in now.items():
        if index < UPSTREAM:
            more = count - before.get(index, 0)
            if more:
                if index >= ERROR:
                    index -= ERROR
                found[index] = found.get(index, 0) + more
    return found
