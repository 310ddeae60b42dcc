"""Counters as they are reported, added up and shown: plain data, cumulative, histograms sparse (``meters``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from router.telemetry.counts import add
from router.telemetry.meters import RingMeter

_Key = TypeVar("_Key")
Histogram = dict[int, int]
"""Bucket → count; the buckets are those of ``meters.histogram_index``."""
RingKey = tuple[str, str, str]
"""service, ring, version"""
EndpointKey = tuple[str, str, str]
"""service, version, endpoint address"""
VersionKey = tuple[str, str]
"""service, version"""
ProofKey = tuple[str, str, str]
"""service, kind of proof, what it was worth: see ``PROOFS``"""
PROOFS: Final[Mapping[str, tuple[str, ...]]] = {
    "pass": ("valid", "expired", "forged", "revoked", "foreign", "malformed", "off"),
    "override": ("valid", "foreign", "untrusted", "off"),
    "baggage": ("valid", "expired", "forged", "malformed", "untrusted"),
    "token": ("valid", "expired", "forged", "foreign", "malformed"),
    "cookie": ("forged",),
}
"""Kinds of proofs, and what one may turn out to be worth. Nothing but ``valid`` has any effect."""


class RingCounters(msgspec.Struct, array_like=True, gc=False):
    """One service × ring × version; sums of durations in microseconds."""

    codes: dict[int, int] = {}
    reasons: dict[str, int] = {}
    in_flight: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    client_aborts: int = 0
    upgrades: int = 0
    """WebSockets that were opened."""
    tunnels: int = 0
    """Those that are open; a gauge."""
    durations: Histogram = {}
    """Four histograms in one: see ``meters.UPSTREAM``."""
    success_micros: int = 0
    error_micros: int = 0
    upstream_success_micros: int = 0
    upstream_error_micros: int = 0


class EndpointCounters(msgspec.Struct, array_like=True, gc=False):
    """One service × version × endpoint."""

    failures: dict[str, int] = {}
    ejections: dict[str, int] = {}
    """Times it was left alone, by what happened."""
    active: int = 0
    idle: int = 0
    """Both are set where workers are added up: see ``WorkerCounters.levels``."""
    states: dict[str, int] = {}
    """Word (up, slow start, ejected, unreachable …) → workers that say it; a gauge. Nobody says anything: up."""


class VersionCounters(msgspec.Struct, array_like=True, gc=False):
    """One service × version; only those where something has happened are reported."""

    trips: int = 0
    """Times its breaker opened."""
    retries: dict[str, int] = {}
    """Requests sent once more, by why; ``no_budget``: those that were not."""
    shed: dict[str, int] = {}
    """Requests refused because there was too much to do, by which limit."""
    mirrored: dict[str, int] = {}
    """Copies of requests that it was sent, by what became of them; ``dropped``: those that were not sent."""
    waiting: int = 0
    sick: int = 0
    """Workers that send its rings' users outward."""
    open: int = 0
    """Workers whose breaker is open."""

    @property
    def has_news(self) -> bool:
        return bool(self.trips or self.retries or self.shed or self.mirrored or self.waiting or self.sick or self.open)


@dataclass(slots=True)
class WorkerCounters:
    """Everything one worker counts; cumulative since the worker started, but for the gauges it names so.

    In a report, ``rings`` are those that moved since the last one, and their histograms hold the buckets that did;
    ``endpoints`` likewise, unless ``has_all_endpoints``.
    """

    rings: dict[RingKey, RingCounters] = field(default_factory=dict)
    endpoints: dict[EndpointKey, EndpointCounters] = field(default_factory=dict)
    has_all_endpoints: bool = True
    levels: list[int] = field(default_factory=list)
    """Gauges of all endpoints, in the order of the last report that had all of them: of each, how many requests are
    under way there, and how many connections rest."""
    versions: dict[VersionKey, VersionCounters] = field(default_factory=dict)
    connections: int = 0
    router_answers: dict[str, int] = field(default_factory=dict)
    """Requests the router answered itself before they had a ring, by the failure's word."""
    failures: dict[str, int] = field(default_factory=dict)
    """Requests that failed in the router's hands when they had a ring, by the failure's word."""
    proofs: dict[ProofKey, int] = field(default_factory=dict)
    """What requests claimed with a proof, and what that was worth."""
    access_log_dropped: int = 0
    overhead: Histogram = field(default_factory=dict)
    """What the router itself took, of one request in sixteen."""
    overhead_micros: int = 0
    loop_lag: Histogram = field(default_factory=dict)
    """How late timers were."""
    loop_lag_micros: int = 0
    resident_bytes: int = 0

    def ring(self, key: RingKey) -> RingCounters:
        return self.rings.setdefault(key, RingCounters())

    def endpoint(self, key: EndpointKey) -> EndpointCounters:
        return self.endpoints.setdefault(key, EndpointCounters())


REPORTED_RINGS: Final = 1000
"""Rings in one report at the most: some 10 ms of the worker's time. The others follow in the next ones."""


def read_meters(meters: dict[RingKey, RingMeter], *, whole: bool) -> dict[RingKey, RingCounters]:
    """The rings that moved since the last reading, and of their histograms the buckets that did; or everything.

    ``meters`` is kept in the order of their last reading, so that those that did not fit come first the next time.
    """
    found: dict[RingKey, RingCounters] = {}
    moved = [key for key, meter in meters.items() if meter.has_moved or whole]
    for key in moved if whole else moved[:REPORTED_RINGS]:
        meter = meters[key] = meters.pop(key)
        found[key] = RingCounters(
            meter.codes, dict(meter.reasons), meter.in_flight, meter.request_bytes, meter.response_bytes,
            meter.client_aborts, meter.upgrades, meter.tunnels, meter.read(whole=whole), meter.success_micros,
            meter.error_micros, meter.upstream_success_micros, meter.upstream_error_micros,
        )  # fmt: skip
    return found


def fold(into: WorkerCounters, other: WorkerCounters, *, gauges: bool) -> None:
    """Add one worker's counters to a total. A dead worker is folded without its gauges: it holds nothing any more."""
    for key, theirs in other.rings.items():
        mine = into.ring(key)
        add(mine.codes, theirs.codes)
        add(mine.reasons, theirs.reasons)
        mine.request_bytes += theirs.request_bytes
        mine.response_bytes += theirs.response_bytes
        mine.client_aborts += theirs.client_aborts
        mine.upgrades += theirs.upgrades
        add(mine.durations, theirs.durations)
        mine.success_micros += theirs.success_micros
        mine.error_micros += theirs.error_micros
        mine.upstream_success_micros += theirs.upstream_success_micros
        mine.upstream_error_micros += theirs.upstream_error_micros
        if gauges:
            mine.in_flight += theirs.in_flight
            mine.tunnels += theirs.tunnels
    for endpoint_key, their_endpoint in other.endpoints.items():
        endpoint = into.endpoint(endpoint_key)
        add(endpoint.failures, their_endpoint.failures)
        add(endpoint.ejections, their_endpoint.ejections)
        if gauges:
            add(endpoint.states, their_endpoint.states)
    if gauges:
        for endpoint_key, active, idle in zip(other.endpoints, other.levels[::2], other.levels[1::2], strict=False):
            endpoint = into.endpoints[endpoint_key]
            endpoint.active += active
            endpoint.idle += idle
    fold_versions(into.versions, other.versions, gauges=gauges)
    add(into.router_answers, other.router_answers)
    add(into.failures, other.failures)
    add(into.proofs, other.proofs)
    into.access_log_dropped += other.access_log_dropped
    add(into.overhead, other.overhead)
    into.overhead_micros += other.overhead_micros
    add(into.loop_lag, other.loop_lag)
    into.loop_lag_micros += other.loop_lag_micros
    if gauges:
        into.connections += other.connections
        into.resident_bytes += other.resident_bytes


def fold_versions(
    into: dict[VersionKey, VersionCounters], other: Mapping[VersionKey, VersionCounters], *, gauges: bool
) -> None:
    """The part of ``fold`` that is about versions."""
    for key, theirs in other.items():
        version = into.setdefault(key, VersionCounters())
        version.trips += theirs.trips
        for name in ("retries", "shed", "mirrored"):
            add(getattr(version, name), getattr(theirs, name))
        if gauges:
            version.waiting += theirs.waiting
            version.sick += theirs.sick
            version.open += theirs.open
