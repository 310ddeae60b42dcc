"""The worker's counters: plain ints and lists of ints, sent to control as cumulative values.

Latencies go into base-2 exponential histograms of scale 4 (OpenTelemetry's exponential histogram): bucket j holds
(2^(j/16), 2^((j+1)/16)] microseconds, so any quantile read from it is off by at most 4.43 percent, and merging is
adding.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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


def _empty() -> list[int]:
    return [0] * HISTOGRAM_BUCKETS


@dataclass(slots=True)
class RingCounters:
    """One service × ring × version. Durations are histograms as above plus their sum in seconds."""

    codes: dict[int, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    client_aborts: int = 0
    retries: int = 0
    duration_success: list[int] = field(default_factory=_empty)
    duration_error: list[int] = field(default_factory=_empty)
    upstream: list[int] = field(default_factory=_empty)
    duration_success_sum: float = 0.0
    duration_error_sum: float = 0.0
    upstream_sum: float = 0.0


@dataclass(slots=True)
class EndpointCounters:
    """One service × version × endpoint."""

    failures: dict[str, int] = field(default_factory=dict)
    active: int = 0
    idle: int = 0


RingKey = tuple[str, str, str]
"""service, ring, version"""
EndpointKey = tuple[str, str, str]
"""service, version, endpoint address"""


@dataclass(slots=True)
class WorkerCounters:
    """Everything one worker counts; cumulative since the worker started, but for the gauges it names so."""

    rings: dict[RingKey, RingCounters] = field(default_factory=dict)
    endpoints: dict[EndpointKey, EndpointCounters] = field(default_factory=dict)
    connections: int = 0
    router_answers: dict[str, int] = field(default_factory=dict)
    """Requests the router answered itself before they had a ring, by the failure's word."""
    access_log_dropped: int = 0
    loop_lag_seconds: float = 0.0
    resident_bytes: int = 0

    def ring(self, key: RingKey) -> RingCounters:
        return self.rings.setdefault(key, RingCounters())

    def endpoint(self, key: EndpointKey) -> EndpointCounters:
        return self.endpoints.setdefault(key, EndpointCounters())


class Changes:
    """Picks out of a worker's counters what has moved since the last look, so that a report costs what happened."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[RingKey, tuple[int, int, int, int]] = {}

    def since_last(self, counters: WorkerCounters) -> WorkerCounters:
        """The same counters without the rings where nothing happened. Their values stay cumulative."""
        moved: dict[RingKey, RingCounters] = {}
        for key, ring in counters.rings.items():
            if not ring.reasons:
                continue
            now = (sum(ring.reasons.values()), sum(ring.codes.values()), ring.in_flight, ring.retries)
            if self._seen.get(key) != now:
                self._seen[key] = now
                moved[key] = ring
        return replace(counters, rings=moved)


def _add(into: dict[str, int], other: dict[str, int]) -> None:
    for name, count in other.items():
        into[name] = into.get(name, 0) + count


def fold(into: WorkerCounters, other: WorkerCounters, *, gauges: bool) -> None:
    """Add one worker's counters to a total. A dead worker is folded without its gauges: it holds nothing any more."""
    for key, theirs in other.rings.items():
        mine = into.ring(key)
        for code, count in theirs.codes.items():
            mine.codes[code] = mine.codes.get(code, 0) + count
        _add(mine.reasons, theirs.reasons)
        mine.request_bytes += theirs.request_bytes
        mine.response_bytes += theirs.response_bytes
        mine.client_aborts += theirs.client_aborts
        mine.retries += theirs.retries
        for name in ("duration_success", "duration_error", "upstream"):
            setattr(mine, name, [a + b for a, b in zip(getattr(mine, name), getattr(theirs, name), strict=True)])
            total = name + "_sum"
            setattr(mine, total, getattr(mine, total) + getattr(theirs, total))
        if gauges:
            mine.in_flight += theirs.in_flight
    for endpoint_key, their_endpoint in other.endpoints.items():
        endpoint = into.endpoint(endpoint_key)
        _add(endpoint.failures, their_endpoint.failures)
        if gauges:
            endpoint.active += their_endpoint.active
            endpoint.idle += their_endpoint.idle
    _add(into.router_answers, other.router_answers)
    into.access_log_dropped += other.access_log_dropped
    if gauges:
        into.connections += other.connections
        into.resident_bytes += other.resident_bytes
        into.loop_lag_seconds = max(into.loop_lag_seconds, other.loop_lag_seconds)
