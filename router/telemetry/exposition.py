"""``/metrics``: what is counted, filled into the catalogue. Labels come from the config alone; a user key is never one.

Every series is there at 0 as soon as the snapshot is. Rings, versions and endpoints that the config no longer has are
not shown: names come and go, and a list of all of them only grows. What they counted is kept, in case they come back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric as ForeignMetric

from router.core.health import is_version_up
from router.core.snapshot import default_basis_points, outward
from router.core.spec import ServiceSpec, SnapshotSpec, VersionSpec
from router.telemetry import catalogue
from router.telemetry.backends import Backend, backends
from router.telemetry.catalogue import Backends, Control, Processes, Rings, Traffic, shown_code
from router.telemetry.counters import PROOFS, EndpointKey, RingCounters, VersionCounters, WorkerCounters
from router.telemetry.exposed_rollouts import RolloutsFigures, rollouts
from router.telemetry.meters import ERROR, UPSTREAM, Durations
from router.telemetry.page import Kept, Page, labels


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
    revisions: Mapping[str, int] = field(default_factory=dict)
    """service → rev"""
    poll_durations: Mapping[int, int] = field(default_factory=dict)
    poll_micros: int = 0


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


@dataclass(slots=True)
class IssuerFigures:
    """What is shown of an issuer of tokens whose keys are fetched."""

    has_keys: bool
    fetched_at: float
    """Unix time of the last good answer."""
    fetches: Mapping[str, int]
    """Result → how often."""


@dataclass(slots=True)
class ProcessFigures:
    """What is shown of the router's processes."""

    connected: int = 0
    expected: int = 0
    resident_bytes: Mapping[int, int] = field(default_factory=dict)
    """Place of a worker → bytes; of two while one replaces the other, both."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """Reason → workers; and ``control``."""
    parent: tuple[ForeignMetric, ...] = ()
    """``process_*`` of the parent."""


@dataclass(slots=True)
class Figures:
    """One scrape."""

    counters: WorkerCounters
    spec: SnapshotSpec | None
    store: StoreFigures
    config: ConfigFigures
    processes: ProcessFigures
    last_change_at: float
    build: Mapping[str, str]
    actual: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(service, ring) → share of the service's requests lately, 0 to 1."""
    checks: Mapping[EndpointKey, EndpointChecks] = field(default_factory=dict)
    """Of the endpoints that have active checks."""
    issuers: Mapping[str, IssuerFigures] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """service → ring → members in its table"""
    flips: Mapping[str, int] = field(default_factory=dict)
    """service → users seen in a ring further out than before"""
    admin: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """(path of the admin side, status) → requests"""
    streams: int = 0
    rollouts: RolloutsFigures = field(default_factory=RolloutsFigures)

    @property
    def services(self) -> tuple[ServiceSpec, ...]:
        return self.spec.services if self.spec is not None else ()


def render(figures: Figures, *, is_open: bool = False, kept: Kept | None = None) -> bytes:
    """The exposition of one scrape; as OpenMetrics if it ``is_open``.

    ``kept`` is what the scrape before left, and becomes what this one leaves.
    """
    page = Page(is_open=is_open, before=kept)
    _requests(page, figures)
    _answers(page, figures)
    _endpoints(page, figures)
    _versions(page, figures)
    _rings(page, figures)
    rollouts(page, [service.name for service in figures.services], figures.rollouts)
    _store(page, figures)
    _config(page, figures)
    _processes(page, figures)
    if kept is not None:
        kept.clear()
        kept.update(page.kept)
    return page.text()


# -- requests ----------------------------------------------------------------------------------------------------------


def _ways(figures: Figures) -> Iterator[tuple[str, RingCounters]]:
    """Labels and counters of every ring × version that the snapshot can send to, or that has had requests."""
    had: dict[tuple[str, str], dict[str, RingCounters]] = {}
    for (service_name, ring_name, version), counters in figures.counters.rings.items():
        had.setdefault((service_name, ring_name), {})[version] = counters
    for service in figures.services:
        versions = {version.name for version in service.versions}
        for ring in service.rings:
            known = dict.fromkeys((ring.version, *outward(service, ring.name)), RingCounters())
            known |= had.get((service.name, ring.name), {})
            for version, counters in known.items():
                if version in versions:
                    yield labels(service=service.name, ring=ring.name, version=version), counters


def _requests(page: Page, figures: Figures) -> None:
    ways = [(labelled, one, Durations(one.durations)) for labelled, one in _ways(figures)]
    page.begin(Traffic.REQUESTS)
    for labelled, one, _ in ways:
        codes: dict[str, int] = {}
        for status, count in one.codes.items():
            code = shown_code(status)
            codes[code] = codes.get(code, 0) + count
        page.add_each(labelled, "code", dict.fromkeys((*catalogue.FIRST_CODES, *codes)), codes)
    page.begin(Traffic.DURATION)
    for labelled, one, durations in ways:
        page.histogram(labelled + ',outcome="success"', durations, one.success_micros)
        page.histogram(labelled + ',outcome="error"', durations, one.error_micros, ERROR)
    page.begin(Traffic.UPSTREAM)
    for labelled, one, durations in ways:
        page.histogram(labelled + ',outcome="success"', durations, one.upstream_success_micros, UPSTREAM)
        page.histogram(labelled + ',outcome="error"', durations, one.upstream_error_micros, UPSTREAM + ERROR)
    page.begin(Traffic.OVERHEAD)
    page.histogram("", Durations(figures.counters.overhead), figures.counters.overhead_micros)
    for metric, name in (
        (Traffic.IN_FLIGHT, "in_flight"), (Traffic.RECEIVED, "request_bytes"), (Traffic.SENT, "response_bytes"),
        (Traffic.ABORTS, "client_aborts"),
    ):  # fmt: skip
        page.begin(metric)
        for labelled, one, _ in ways:
            page.add(labelled, getattr(one, name))
    for metric, name in ((Traffic.UPGRADES, "upgrades"), (Traffic.UPGRADED, "tunnels")):
        page.begin(metric)
        for labelled, one, _ in ways:
            page.add(labelled + ',protocol="websocket"', getattr(one, name))


def _answers(page: Page, figures: Figures) -> None:
    counters = figures.counters
    reasons: dict[tuple[str, str], dict[str, int]] = {}
    for (service, ring, _), one in counters.rings.items():
        found = reasons.setdefault((service, ring), {})
        for reason, count in one.reasons.items():
            found[reason] = found.get(reason, 0) + count
    page.begin(Traffic.DECISIONS)
    for spec in figures.services:
        for shown in spec.rings:
            labelled = labels(service=spec.name, ring=shown.name)
            page.add_each(labelled, "reason", catalogue.REASONS, reasons.get((spec.name, shown.name), {}))
    page.begin(Traffic.ANSWERS)
    page.add_each("", "word", catalogue.ANSWERS, counters.router_answers)
    page.begin(Traffic.FAILURES)
    page.add_each("", "word", catalogue.WORDS, counters.failures)
    page.begin(Traffic.PROOFS)
    for spec in figures.services:
        for kind, words in PROOFS.items():
            values = {word: counters.proofs.get((spec.name, kind, word), 0) for word in words}
            page.add_each(labels(service=spec.name, kind=kind), "result", words, values)


# -- versions and endpoints --------------------------------------------------------------------------------------------


def _endpoints(page: Page, figures: Figures) -> None:
    known: list[tuple[str, Backend]] = [
        (labels(service=one.service, version=one.version, endpoint=one.endpoint.address), one)
        for service in figures.services
        for one in backends(service, figures.counters.endpoints)
    ]
    page.begin(Backends.FAILURES)
    for labelled, one in known:
        page.add_each(labelled, "kind", catalogue.FAILURE_KINDS, one.counters.failures)
    page.begin(Backends.CONNECTIONS)
    for labelled, one in known:
        found = {"active": one.counters.active, "idle": one.counters.idle}
        page.add_each(labelled, "state", ("active", "idle"), found)
    page.begin(Backends.UP)
    for labelled, one in known:
        page.add(labelled, int(one.is_well))
    page.begin(Backends.EJECTIONS)
    for labelled, one in known:
        said = {event.replace(" ", "_"): count for event, count in one.counters.ejections.items()}
        page.add_each(labelled, "reason", catalogue.EJECTIONS, said)
    page.begin(Backends.CHECKS)
    for (service_name, version, endpoint), checks in figures.checks.items():
        labelled = labels(service=service_name, version=version, endpoint=endpoint)
        page.add_each(labelled, "result", ("passed", "failed"), {"passed": checks.passed, "failed": checks.failed})


def _versions(page: Page, figures: Figures) -> None:
    known: list[tuple[str, VersionSpec, VersionCounters]] = [
        (
            labels(service=service.name, version=one.name),
            one,
            figures.counters.versions.get((service.name, one.name)) or VersionCounters(),
        )
        for service in figures.services
        for one in service.versions
    ]
    page.begin(Backends.VERSION_UP)
    for labelled, version, _ in known:
        page.add(labelled, int(is_version_up(version)))
    for metric, name in (
        (Backends.AVOIDED, "sick"), (Backends.BREAKER_OPEN, "open"), (Backends.WAITING, "waiting"),
        (Backends.TRIPS, "trips"),
    ):  # fmt: skip
        page.begin(metric)
        for labelled, _, counters in known:
            page.add(labelled, getattr(counters, name))
    for metric, label, values, name in (
        (Backends.RETRIES, "reason", catalogue.RETRIES, "retries"),
        (Backends.SHED, "limit", catalogue.SHED, "shed"),
        (Backends.MIRRORED, "result", catalogue.MIRRORED, "mirrored"),
    ):
        page.begin(metric)
        for labelled, _, counters in known:
            page.add_each(labelled, label, values, getattr(counters, name))


# -- the router itself -------------------------------------------------------------------------------------------------


def _rings(page: Page, figures: Figures) -> None:
    known = [
        (service, ring, labels(service=service.name, ring=ring.name))
        for service in figures.services
        for ring in service.rings
    ]
    page.begin(Rings.TARGET)
    for service, ring, labelled in known:
        points = default_basis_points(service) if ring is service.rings[-1] else ring.basis_points
        page.add(labelled, points / 10_000)
    page.begin(Rings.ACTUAL)
    for service, ring, labelled in known:
        page.add(labelled, figures.actual.get((service.name, ring.name), 0))
    page.begin(Rings.INFO)
    for service, ring, labelled in known:
        source = figures.store.sources.get(service.name, "config")
        page.add(f"{labelled},{labels(version=ring.version, source=source)}", 1)
    page.begin(Rings.KILLED)
    for service, ring, labelled in known:
        page.add(labelled, int(ring.name in service.killed))
    page.begin(Rings.FLIPS)
    for service in figures.services:
        page.add(labels(service=service.name), figures.flips.get(service.name, 0))
    page.begin(Rings.MEMBERS)
    for service_name, counts in figures.members.items():
        for ring_name, count in counts.items():
            page.add(labels(service=service_name, ring=ring_name), count)


def _store(page: Page, figures: Figures) -> None:
    store = figures.store
    page.begin(Control.GENERATION)
    page.add("", figures.spec.generation if figures.spec else 0)
    page.begin(Control.REVISION)
    for service in figures.services:
        page.add(labels(service=service.name), store.revisions.get(service.name, 0))
    page.begin(Control.CHANGED)
    page.add("", figures.last_change_at)
    page.begin(Control.REJECTED)
    for service in figures.services:
        found = {reason: count for (name, reason), count in store.rejected.items() if name == service.name}
        page.add_each(labels(service=service.name), "reason", catalogue.REJECTIONS, found)
    page.begin(Control.STORE_UP)
    page.add("", int(store.is_up))
    page.begin(Control.STALENESS)
    page.add("", store.staleness_seconds)
    page.begin(Control.STORE_ERRORS)
    page.add_each("", "kind", catalogue.STORE_ERRORS, store.errors)
    page.begin(Control.POLLS)
    page.histogram("", Durations(dict(store.poll_durations)), store.poll_micros)


def _config(page: Page, figures: Figures) -> None:
    config = figures.config
    page.begin(Control.RELOADS)
    page.add_each("", "result", catalogue.RELOADS, config.reloads)
    page.begin(Control.ADMIN)
    asked = {(path, 404 if path == "none" else 200): 0 for path in catalogue.ADMIN_PATHS} | dict(figures.admin)
    for (path, code), count in asked.items():
        page.add(labels(path=path, code=shown_code(code)), count)
    page.begin(Control.STREAMS)
    page.add("", figures.streams)
    page.begin(Control.RELOADED)
    page.add("", int(config.is_last_successful))
    page.begin(Control.RELOADED_AT)
    page.add("", config.last_success_at)
    page.begin(Control.EXPIRY)
    for certificate, at in config.certificates.items():
        page.add(labels(certificate=certificate), at)
    page.begin(Control.ISSUER_KEYS)
    for name, issuer in figures.issuers.items():
        page.add(labels(issuer=name), int(issuer.has_keys))
    page.begin(Control.ISSUER_FETCHED)
    for name, issuer in figures.issuers.items():
        page.add(labels(issuer=name), issuer.fetched_at)
    page.begin(Control.ISSUER_FETCHES)
    for name, issuer in figures.issuers.items():
        page.add_each(labels(issuer=name), "result", catalogue.FETCHES, issuer.fetches)


def _processes(page: Page, figures: Figures) -> None:
    counters, processes = figures.counters, figures.processes
    page.begin(Processes.BUILD)
    page.add(labels(**figures.build), 1)
    page.begin(Processes.WORKERS)
    page.add_each(
        "", "state", ("connected", "expected"), {"connected": processes.connected, "expected": processes.expected}
    )
    page.begin(Processes.RESTARTS)
    page.add_each("", "reason", catalogue.RESTARTS, processes.restarts)
    page.begin(Processes.CONTROL_RESTARTS)
    page.add("", processes.restarts.get("control", 0))
    page.begin(Processes.MEMORY)
    for slot in range(processes.expected):
        page.add(labels(worker=str(slot)), processes.resident_bytes.get(slot, 0))
    page.begin(Processes.LAG)
    page.histogram("", Durations(counters.loop_lag), counters.loop_lag_micros)
    page.begin(Processes.CONNECTIONS)
    page.add("", counters.connections)
    page.begin(Processes.DROPPED)
    page.add("", counters.access_log_dropped)
    for foreign in processes.parent:
        for sample in foreign.samples:
            page.foreign(sample.name, foreign.type, foreign.documentation, sample.value)
