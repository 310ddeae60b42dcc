"""``/metrics``: the Prometheus text of what is counted. Labels come from the config alone; a user key is never one.

Latency buckets are read from the base-2 histograms: a log bucket that straddles a bound is counted above it, so a
cumulative count is never too high and misses at most the requests within 4.43 percent below the bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from router.core.health import is_version_up
from router.core.snapshot import Reason, default_basis_points
from router.core.spec import SnapshotSpec
from router.telemetry.backends import backends
from router.telemetry.counters import PROOFS, EndpointKey, RingCounters, VersionCounters, WorkerCounters
from router.telemetry.meters import upper_edge_seconds

DURATION_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""OpenTelemetry's advice for http.server.request.duration."""
POLL_BOUNDS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
"""For what should take less than a millisecond."""
ENDPOINT: Final = ("service", "version", "endpoint")


@dataclass(slots=True)
class StoreFigures:
    """What is shown of Redis."""

    is_up: bool = False
    staleness_seconds: float = 0.0
    errors: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(service, reason) → refused writes."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """service → config, disk or redis"""
    poll_durations: Mapping[int, int] = field(default_factory=dict)
    poll_seconds_sum: float = 0.0


@dataclass(slots=True)
class ConfigFigures:
    """What is shown of the config file."""

    reloads: Mapping[str, int] = field(default_factory=dict)
    is_last_successful: bool = True
    last_success_at: float = 0.0
    certificates: Mapping[str, float] = field(default_factory=dict)
    """File → Unix time when it expires."""


@dataclass(slots=True)
class EndpointChecks:
    """What is shown of an endpoint that is checked."""

    passed: int
    failed: int


class MemberCounts(Protocol):
    """What is shown of a service's members."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Ring → members."""
        ...

    @property
    def age_seconds(self) -> float: ...

    @property
    def round_seconds(self) -> float: ...


@dataclass(slots=True)
class Figures:
    """One scrape."""

    counters: WorkerCounters
    spec: SnapshotSpec | None
    store: StoreFigures
    config: ConfigFigures
    workers_connected: int
    workers_expected: int
    last_change_at: float
    build: Mapping[str, str]
    checks: Mapping[EndpointKey, EndpointChecks] = field(default_factory=dict)
    """Of the endpoints that have active checks."""
    members: Mapping[str, MemberCounts] = field(default_factory=dict)
    """Of the services that have members in Redis."""


def render(figures: Figures) -> bytes:
    """The exposition of one scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(figures))
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        yield from _traffic(figures)
        yield from _upstream(figures)
        yield from _versions(figures)
        yield from _proofs(figures)
        yield from _rings(figures)
        yield from _members(figures)
        yield from _health(figures)
        yield from _control(figures)


def _counter(name: str, text: str, labels: Iterable[str]) -> CounterMetricFamily:
    return CounterMetricFamily(f"ringrouter_{name}", text, labels=list(labels))


def _gauge(name: str, text: str, labels: Iterable[str] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ringrouter_{name}", text, labels=list(labels))


def _known_rings(figures: Figures) -> dict[tuple[str, str, str], RingCounters]:
    """Every ring × version there is: a series exists before its first request does."""
    known = {
        (service.name, ring.name, ring.version): RingCounters()
        for service in (figures.spec.services if figures.spec else ())
        for ring in service.rings
    }
    return {**known, **figures.counters.rings}


def _traffic(figures: Figures) -> Iterator[Metric]:
    ring = ("service", "ring", "version")
    requests = _counter(
        "requests", "Finished requests; 499 is a client that left before the response.", (*ring, "code")
    )
    duration = HistogramMetricFamily(
        "ringrouter_request_duration_seconds", "Request head read to response written.", labels=[*ring, "outcome"]
    )
    upstream = HistogramMetricFamily(
        "ringrouter_upstream_duration_seconds", "Request sent to response head.", labels=list(ring)
    )
    in_flight = _gauge("requests_in_flight", "Requests being served.", ring)
    received = _counter("request_bytes", "Request bodies.", ring)
    sent = _counter("response_bytes", "Response bodies.", ring)
    aborts = _counter("client_aborts", "Clients that left before the response was complete.", ring)
    retries = _counter("upstream_retries", "Requests sent again on a fresh connection.", ring)
    decisions = _counter("route_decisions", "Requests sorted into a ring, by reason.", ("service", "ring", "reason"))
    reasons: dict[tuple[str, str, str], int] = {}
    for key, counters in _known_rings(figures).items():
        for code in {200: 0} | counters.codes:
            requests.add_metric([*key, str(code)], counters.codes.get(code, 0))
        for outcome, buckets, total in (
            ("success", counters.duration_success, counters.duration_success_sum),
            ("error", counters.duration_error, counters.duration_error_sum),
        ):
            duration.add_metric([*key, outcome], buckets=_buckets(buckets), sum_value=total)
        upstream.add_metric(key, buckets=_buckets(counters.upstream), sum_value=counters.upstream_sum)
        in_flight.add_metric(key, counters.in_flight)
        received.add_metric(key, counters.request_bytes)
        sent.add_metric(key, counters.response_bytes)
        aborts.add_metric(key, counters.client_aborts)
        retries.add_metric(key, counters.retries)
        for reason in Reason:
            place = (key[0], key[1], reason.value)
            reasons[place] = reasons.get(place, 0) + counters.reasons.get(reason.value, 0)
    for place, count in reasons.items():
        decisions.add_metric(place, count)
    yield from (requests, duration, upstream, in_flight, received, sent, aborts, retries, decisions)
    answers = _counter("router_answers", "Requests answered by the router before they had a ring.", ("word",))
    for word, count in figures.counters.router_answers.items():
        answers.add_metric([word], count)
    yield answers
    failures = _counter(
        "failures", "Requests that had a ring and were answered, or broken off, by the router.", ("word",)
    )
    for word, count in figures.counters.failures.items():
        failures.add_metric([word], count)
    yield failures


def _buckets(histogram: Mapping[int, int], bounds: tuple[float, ...] = DURATION_BOUNDS) -> list[tuple[str, float]]:
    filled = sorted(histogram.items())
    cumulative, rows, at = 0, [], 0
    for bound in bounds:
        while at < len(filled) and upper_edge_seconds(filled[at][0]) <= bound:
            cumulative += filled[at][1]
            at += 1
        rows.append((str(bound), float(cumulative)))
    rows.append(("+Inf", float(cumulative + sum(count for _, count in filled[at:]))))
    return rows


def _upstream(figures: Figures) -> Iterator[Metric]:
    """Of the endpoints that there are: those that come and go with DNS would be ever more series."""
    failures = _counter("upstream_failures", "Failures of an endpoint.", (*ENDPOINT, "kind"))
    connections = _gauge(
        "endpoint_connections",
        "Connections to an endpoint. Idle ones are shared: each service and version that names the address shows them.",
        (*ENDPOINT, "state"),
    )
    up = _gauge(
        "endpoint_up",
        "1 while checks pass and a worker would send the endpoint requests; a drained one can be up.",
        ENDPOINT,
    )
    ejections = _counter("endpoint_ejections", "Times that a worker left an endpoint alone.", (*ENDPOINT, "reason"))
    for service in figures.spec.services if figures.spec else ():
        for one in backends(service, figures.counters.endpoints):
            key, known = (one.service, one.version, one.endpoint.address), one.counters
            for kind in ("connect", "tls", "timeout", "reset", "protocol"):
                failures.add_metric([*key, kind], known.failures.get(kind, 0))
            connections.add_metric([*key, "active"], known.active)
            connections.add_metric([*key, "idle"], known.idle)
            up.add_metric(key, float(one.is_well))
            for event in ("connect failed", "outlier"):
                ejections.add_metric([*key, event.replace(" ", "_")], known.ejections.get(event, 0))
    yield from (failures, connections, up, ejections)


def _versions(figures: Figures) -> Iterator[Metric]:
    version = ("service", "version")
    avoided = _gauge("version_avoided", "Workers that send the version's users to the next one outward.", version)
    is_open = _gauge("version_breaker_open", "Of these, those that do because it fails massively.", version)
    waiting = _gauge("requests_waiting", "Requests that wait for room in the version.", version)
    trips = _counter("breaker_trips", "Times that a worker's breaker opened.", version)
    again = _counter("retries", "Requests sent once more; no_budget: those that were not.", (*version, "reason"))
    shed = _counter("requests_shed", "Requests refused because there was too much to do.", (*version, "limit"))
    mirrored = _counter("mirrored_requests", "Copies of requests; dropped: those not sent.", (*version, "result"))
    for service in figures.spec.services if figures.spec else ():
        for one in service.versions:
            key = (service.name, one.name)
            counters = figures.counters.versions.get(key) or VersionCounters()
            avoided.add_metric(key, counters.sick)
            is_open.add_metric(key, counters.open)
            waiting.add_metric(key, counters.waiting)
            trips.add_metric(key, counters.trips)
            for reason in ("connect", "stale", "reset", "status", "timeout", "no_budget"):
                again.add_metric([*key, reason], counters.retries.get(reason, 0))
            for limit in ("queue_full", "queue_time"):
                shed.add_metric([*key, limit], counters.shed.get(limit, 0))
            for result in ("answered", "failed", "dropped"):
                mirrored.add_metric([*key, result], counters.mirrored.get(result, 0))
    yield from (avoided, is_open, waiting, trips, again, shed, mirrored)


def _proofs(figures: Figures) -> Iterator[Metric]:
    proofs = _counter(
        "proofs", "Claims of requests that need a proof, and what that was worth.", ("service", "kind", "result")
    )
    for service in figures.spec.services if figures.spec else ():
        for kind, words in PROOFS.items():
            for word in words:
                count = figures.counters.proofs.get((service.name, kind, word), 0)
                proofs.add_metric([service.name, kind, word], count)
    yield proofs


def _rings(figures: Figures) -> Iterator[Metric]:
    target = _gauge("ring_target_ratio", "Share of the hash space the ring has now, 0 to 1.", ("service", "ring"))
    info = _gauge(
        "ring_info", "What the ring runs and where its weight comes from.", ("service", "ring", "version", "source")
    )
    killed = _gauge("ring_killed", "1 while a kill keeps everybody out of the ring.", ("service", "ring"))
    for service in figures.spec.services if figures.spec else ():
        source = figures.store.sources.get(service.name, "config")
        for ring in service.rings:
            is_default = ring is service.rings[-1]
            points = default_basis_points(service) if is_default else ring.basis_points
            target.add_metric([service.name, ring.name], points / 10_000)
            info.add_metric([service.name, ring.name, ring.version, source], 1)
            killed.add_metric([service.name, ring.name], float(ring.name in service.killed))
    yield from (target, info, killed)


def _members(figures: Figures) -> Iterator[Metric]:
    members = _gauge("members", "Users who are in the ring by Redis' sets of members.", ("service", "ring"))
    age = _gauge("members_age_seconds", "Since members were last known to be as Redis has them.", ("service",))
    took = _gauge("members_sync_seconds", "What the last change took, from its news to the tables.", ("service",))
    for service, one in figures.members.items():
        for ring, count in one.counts.items():
            members.add_metric([service, ring], count)
        age.add_metric([service], one.age_seconds)
        took.add_metric([service], one.round_seconds)
    yield from (members, age, took)


def _health(figures: Figures) -> Iterator[Metric]:
    up = _gauge(
        "version_up", "1 while the version has an endpoint that is neither down nor drained.", ("service", "version")
    )
    for service in figures.spec.services if figures.spec else ():
        for version in service.versions:
            up.add_metric([service.name, version.name], float(is_version_up(version)))
    checks = _counter("health_checks", "Active checks.", (*ENDPOINT, "result"))
    for key, one in figures.checks.items():
        checks.add_metric([*key, "passed"], one.passed)
        checks.add_metric([*key, "failed"], one.failed)
    yield from (up, checks)


def _control(figures: Figures) -> Iterator[Metric]:
    store, config = figures.store, figures.config
    yield _value("generation", "The routing state in force.", figures.spec.generation if figures.spec else 0)
    yield _value(
        "weights_last_change_timestamp_seconds", "When the routing state last changed.", figures.last_change_at
    )
    rejected = _counter("weights_rejected", "Values in Redis that were refused.", ("service", "reason"))
    for (service, reason), count in store.rejected.items():
        rejected.add_metric([service, reason], count)
    yield rejected
    yield _value("store_up", "1 while Redis answers.", float(store.is_up))
    yield _value("store_staleness_seconds", "Since Redis was last read.", store.staleness_seconds)
    errors = _counter("store_errors", "Failures of the connection to Redis.", ("kind",))
    for kind, count in store.errors.items():
        errors.add_metric([kind], count)
    yield errors
    polls = HistogramMetricFamily(
        "ringrouter_store_poll_duration_seconds", "One read of everything from Redis.", labels=[]
    )
    polls.add_metric([], buckets=_buckets(store.poll_durations, POLL_BOUNDS), sum_value=store.poll_seconds_sum)
    yield polls
    reloads = _counter("config_reloads", "Reads of a changed config file.", ("result",))
    for result in ("success", "failure", "unchanged"):
        reloads.add_metric([result], config.reloads.get(result, 0))
    yield reloads
    yield _value(
        "config_last_reload_successful",
        "1 if the config file on disk is the one in force.",
        float(config.is_last_successful),
    )
    yield _value(
        "config_last_reload_success_timestamp_seconds", "When a config was last accepted.", config.last_success_at
    )
    expiry = _gauge("certificate_expiry_timestamp_seconds", "When a listener's certificate expires.", ("certificate",))
    for certificate, at in config.certificates.items():
        expiry.add_metric([certificate], at)
    yield expiry
    workers = _gauge("workers", "Worker processes.", ("state",))
    workers.add_metric(["connected"], figures.workers_connected)
    workers.add_metric(["expected"], figures.workers_expected)
    yield workers
    yield _value("connections", "Client connections open.", figures.counters.connections)
    yield _value("upgraded_connections", "Of these, WebSockets.", figures.counters.tunnels)
    yield _value("worker_resident_memory_bytes", "Resident memory of all workers.", figures.counters.resident_bytes)
    yield _value(
        "event_loop_lag_seconds", "Lateness of the slowest worker's last timer.", figures.counters.loop_lag_seconds
    )
    dropped = _counter("accesslog_dropped", "Access-log lines that could not be written.", ())
    dropped.add_metric([], figures.counters.access_log_dropped)
    yield dropped
    build = _gauge("build_info", "What is running.", tuple(figures.build))
    build.add_metric(list(figures.build.values()), 1)
    yield build


def _value(name: str, text: str, value: float) -> Metric:
    gauge = _gauge(name, text)
    gauge.add_metric([], value)
    return gauge
