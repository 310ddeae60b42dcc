"""What all Envoys have counted since the bridge began, as a worker's counters. Pure.

The reports are those of a worker: cumulative, so that a report twice is a report once. What is a gauge in them is as
each Envoy said last, and of those that cannot be asked nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from router.core.spec import SnapshotSpec
from router.envoy.access_log import Lane, parsed_lane
from router.envoy.stats import Bins, News, Reading, histogram_of
from router.envoy.upstreams import Upstream, tried_version
from router.telemetry.counters import (
    EndpointCounters,
    EndpointKey,
    RingCounters,
    RingKey,
    VersionCounters,
    VersionKey,
    WorkerCounters,
)
from router.telemetry.counts import add
from router.telemetry.meters import ERROR

FAILURES: Final[Mapping[str, str]] = {
    "UH": "no_endpoint", "NC": "no_endpoint", "UF": "connect_failed", "UO": "overloaded", "UT": "upstream_timeout",
    "UC": "upstream_reset", "UR": "upstream_reset", "LR": "upstream_reset", "URX": "upstream_reset",
    "UPE": "upstream_protocol", "DT": "deadline", "UMSDR": "deadline",
}  # fmt: skip
"""Envoy's response flags → words of ``proxy.failures``, the most telling first."""
ANSWERS: Final[Mapping[int, str]] = {
    400: "bad_request", 404: "no_service", 408: "request_timeout", 413: "body_too_large", 414: "uri_too_long",
    431: "head_too_large", 503: "overloaded",
}  # fmt: skip
"""What Envoy answers before a route was found."""
CLIENT_LEFT: Final = 499
"""As nginx and this router's own log have it; Envoy says 0."""
_LEFT: Final = ("DC", "DR")


def failure_of(flags: Iterable[str]) -> str:
    """Why Envoy answered for a backend, or broke its answer off; empty where it did not."""
    return next((word for flag, word in FAILURES.items() if flag in flags), "")


class Books:
    """``add`` what is new, ``look`` at what is; ``report`` says it."""

    def __init__(self) -> None:
        self._rings: dict[RingKey, RingCounters] = {}
        self._moved: set[RingKey] = set()
        self._versions: dict[VersionKey, VersionCounters] = {}
        self._endpoints: dict[EndpointKey, EndpointCounters] = {}
        self._answers: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._defaults: frozenset[tuple[str, str]] = frozenset()
        self._connections = 0

    def installed(self, spec: SnapshotSpec) -> None:
        """This is what Envoy routes by: endpoints that it has no more are told no more."""
        self._defaults = frozenset((one.name, one.rings[-1].name) for one in spec.services)
        named = {(s.name, v.name, e.address) for s in spec.services for v in s.versions for e in v.endpoints}
        self._endpoints = {key: kept for key, kept in self._endpoints.items() if key in named}
        for key in named:
            self._endpoints.setdefault(key, EndpointCounters())

    def add(self, came: News, failed: Mapping[EndpointKey, Mapping[str, int]]) -> None:
        """What one Envoy counted since the last look; ``failed``: of endpoints, by what happened."""
        for text in came.durations.keys() | came.flagged.keys():
            lane = parsed_lane(text)
            if lane is not None:
                self._count(lane, came.durations.get(text, {}), came.flagged.get(text, 0))
        for key, failures in failed.items():
            if key in self._endpoints:
                add(self._endpoints[key].failures, dict(failures))

    def _count(self, lane: Lane, bins: Bins, flagged: int) -> None:
        requests = flagged if lane.flags else sum(bins.values())
        if not requests:
            return
        if not lane.ring:
            word = ANSWERS.get(lane.status)
            if word is not None:
                self._answers[word] = self._answers.get(word, 0) + requests
            return
        key = (lane.service, lane.ring, lane.version)
        ring = self._ring(key)
        has_left = any(flag in lane.flags for flag in _LEFT)
        status = lane.status or (CLIENT_LEFT if has_left else 502)
        ring.codes[status] = ring.codes.get(status, 0) + requests
        reason = self._reason(lane)
        ring.reasons[reason] = ring.reasons.get(reason, 0) + requests
        ring.client_aborts += requests if has_left else 0
        word = failure_of(lane.flags)
        if word:
            self._failures[word] = self._failures.get(word, 0) + requests
        histogram, micros = histogram_of(bins)
        if status >= 500 or word:
            add(ring.durations, {ERROR + bucket: count for bucket, count in histogram.items()})
            ring.error_micros += micros
        else:
            add(ring.durations, histogram)
            ring.success_micros += micros

    def _reason(self, lane: Lane) -> str:
        if lane.is_outward:
            return "fallback"
        if lane.reason == "hash" and (lane.service, lane.ring) in self._defaults:
            return "default"
        return lane.reason

    def _ring(self, key: RingKey) -> RingCounters:
        self._moved.add(key)
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = RingCounters({}, {}, durations={})
        return ring

    def look(self, readings: Iterable[tuple[Reading, Mapping[EndpointKey, Upstream]]]) -> None:
        """What is now, in all Envoys that can be asked."""
        self._connections = 0
        flying: dict[RingKey, int] = {}
        for version in self._versions.values():
            version.sick = 0
        for endpoint in self._endpoints.values():
            endpoint.active, endpoint.idle, endpoint.states = 0, 0, {}
        for reading, upstreams in readings:
            for name, value in reading.numbers.items():
                self._gauge(name, value, reading, flying)
            for key, upstream in upstreams.items():
                known = self._endpoints.get(key)
                if known is not None:
                    known.active += upstream.active
                    known.idle += upstream.idle
                    word = upstream.standing.value
                    known.states[word] = known.states.get(word, 0) + 1
        for place in flying.keys() | self._rings.keys():
            count = flying.get(place, 0)
            if count or (place in self._rings and self._rings[place].in_flight):
                self._ring(place).in_flight = count

    def _gauge(self, name: str, value: int, reading: Reading, flying: dict[RingKey, int]) -> None:
        kind, _, rest = name.partition(".")
        inner, _, what = rest.rpartition(".")
        if kind == "http" and what == "downstream_cx_active" and inner != "admin":
            self._connections += value
        place = tried_version(inner) if kind == "cluster" else None
        if place is None:
            return
        service, _, version = place
        if what == "upstream_rq_active":
            flying[place] = flying.get(place, 0) + value
        if what == "membership_healthy" and not value and reading.numbers.get(f"cluster.{inner}.membership_total"):
            self._versions.setdefault((service, version), VersionCounters()).sick = 1

    def report(self, resident_bytes: int, *, whole: bool) -> WorkerCounters:
        """What moved since the last report, or everything."""
        moved = self._rings.keys() if whole else self._moved
        rings = {key: self._rings[key] for key in moved}
        self._moved = set()
        levels = [level for one in self._endpoints.values() for level in (one.active, one.idle)]
        return WorkerCounters(
            rings=rings, endpoints=self._endpoints, levels=levels,
            versions={key: one for key, one in self._versions.items() if one.sick}, connections=self._connections,
            router_answers=self._answers, failures=self._failures, resident_bytes=resident_bytes,
        )  # fmt: skip
