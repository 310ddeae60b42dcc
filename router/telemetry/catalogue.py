"""Every metric there is: what ``/metrics`` renders, docs/metrics.md lists, and the alerts and the dashboard may name.

A label's values come from the configuration, or stand here. Nothing that a client sends is ever one: ``code`` is the
only label that a backend has a say in, and what is no registered status is counted under its class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import chain
from typing import Final, Literal

from router.core.snapshot import Reason
from router.telemetry.counters import PROOFS

PREFIX: Final = "ringrouter_"
Kind = Literal["counter", "gauge", "histogram"]
Values = tuple[str, ...]
CONFIG: Final[Values] = ()
"""Of a label: its values are names of the configuration, or the numbers of the workers that it asks for."""

DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds; OpenTelemetry's advice for http.server.request.duration."""
SHORT: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
"""Seconds, for what should take less than one thousandth."""
LAGS: Final = (*SHORT[4:], 0.1, 0.25, 0.5, 1.0)
"""Seconds; timers of the loop are a thousandth late at the best, and a tenth is what somebody should hear of."""

CODES: Final[Values] = (
    *sorted({"499", *(str(status.value) for status in HTTPStatus)}), "1xx", "2xx", "3xx", "4xx", "5xx", "other",
)  # fmt: skip
FIRST_CODES: Final[Values] = ("200", "499", "502", "503", "504")
"""There from the start; the others with their first response."""
OUTCOMES: Final[Values] = ("success", "error")
REASONS: Final[Values] = tuple(reason.value for reason in Reason)
FAILURE_KINDS: Final[Values] = ("connect", "tls", "timeout", "reset", "protocol")
EJECTIONS: Final[Values] = ("connect_failed", "outlier")
RETRIES: Final[Values] = ("connect", "stale", "reset", "status", "timeout", "no_budget")
SHED: Final[Values] = ("queue_full", "queue_time")
MIRRORED: Final[Values] = ("answered", "failed", "dropped")
FETCHES: Final[Values] = ("good", "unreachable", "status", "too_long", "not_keys")
REJECTIONS: Final[Values] = (
    "unknown_ring", "unknown_field", "unknown_version", "not_a_number", "out_of_range", "sum_above_100", "default_ring",
    "wrong_type", "too_many_fields", "unreadable", "frozen", "held_missing", "not_a_time", "max_step", "min_bake",
    "ceiling", "floor",
)  # fmt: skip
STORE_ERRORS: Final[Values] = tuple(
    f"{write}{kind}" for write in ("", "status_")
    for kind in ("loading", "auth", "permission", "timeout", "reply", "url", "connection", "other")
)  # fmt: skip
RELOADS: Final[Values] = ("success", "failure", "unchanged")
RESTARTS: Final[Values] = ("crash", "watchdog", "age", "requests", "memory")
WORDS: Final[Values] = (
    "bad_request", "bad_handshake", "no_service", "method_refused", "request_timeout", "slow_reader", "body_too_large",
    "uri_too_long", "expectation_failed", "upgrade_required", "too_many_of_client", "head_too_large", "unknown_coding",
    "connect_failed", "tls_failed", "upstream_reset", "upstream_protocol", "no_endpoint", "overloaded", "not_ready",
    "too_many_connections", "no_descriptors", "connect_timeout", "upstream_timeout", "deadline", "version_refused",
)  # fmt: skip
"""Of the table of failures."""
PHASES: Final[Values] = (
    "pending", "waiting", "shifting", "baking", "proving", "approval", "finalising", "succeeded", "paused",
    "rolling_back", "rolled_back", "rollback_stalled", "superseded", "aborted",
)  # fmt: skip
PAUSES: Final[Values] = (
    "manual", "inconclusive", "signal", "srm", "no_data", "no_traffic", "override", "dependency", "uncalibrated",
    "harm",
)  # fmt: skip
STANDINGS: Final[Values] = ("collecting", "within", "breached", "no_data", "uncalibrated")
NOTICES: Final[Values] = ("sent", "dropped")
ADMIN_PATHS: Final[Values] = (
    "/", "/live", "/ready", "/metrics", "/ui", "/ui/login", "/ui/{name}",
    *(f"/api/v1/{name}" for name in (
        "audit", "backends", "config", "drain", "events", "explain", "fleet", "freeze", "kill", "login", "logout",
        "members", "openapi.json", "reload", "rings", "rollouts", "series", "session", "state", "tap", "undo",
        "versions", "weights",
    )),
    "/api/v1/rollouts/{service}",
    *(f"/api/v1/rollouts/{{service}}/{name}" for name in (
        "abort", "approve", "pause", "promote", "report", "resume", "rollback",
    )),
    "none",
)  # fmt: skip
"""Of the admin side, as they are routed; ``none``: there is no such path."""
ANSWERS: Final[Values] = (*WORDS, "redirect", "last_hop", "pass_link", "client_gone", "bad_proxy_header")
"""And of what the router answers by itself."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``name`` is without the prefix, and has the suffix that its samples have."""

    name: str
    kind: Kind
    meaning: str
    labels: Mapping[str, Values] = field(default_factory=dict)
    """Label → its values, or ``CONFIG``."""
    bounds: tuple[float, ...] = ()
    since: str = "0.1.0"

    @property
    def family(self) -> str:
        """The name without what its samples add to it."""
        return PREFIX + (self.name.removesuffix("_total") if self.kind == "counter" else self.name)

    @property
    def samples(self) -> tuple[str, ...]:
        """The names that samples of it have."""
        whole = PREFIX + self.name
        return tuple(f"{whole}_{part}" for part in ("bucket", "sum", "count")) if self.bounds else (whole,)

    @property
    def unit(self) -> str:
        """The unit that its name ends with; empty where it is a number of things."""
        last = self.family.rsplit("_", 1)[1]
        return last if last in ("seconds", "bytes", "ratio") else ""

    @property
    def series_each(self) -> int:
        """Series at the most, for one combination of names of the config."""
        count = len(self.bounds) + 3 if self.bounds else 1
        for values in self.labels.values():
            count *= len(values) or 1
        return count


SERVICE: Final = {"service": CONFIG}
VERSION: Final = {**SERVICE, "version": CONFIG}
ENDPOINT: Final = {**VERSION, "endpoint": CONFIG}
IN_RING: Final = {**SERVICE, "ring": CONFIG}
RING: Final = {**IN_RING, "version": CONFIG}
GUARDRAIL: Final = {**SERVICE, "guardrail": CONFIG}
"""Of the plan: twenty at the most."""


def _counter(name: str, meaning: str, labels: Mapping[str, Values] = {}) -> Metric:
    return Metric(name + "_total", "counter", meaning, labels)


def _gauge(name: str, meaning: str, labels: Mapping[str, Values] = {}) -> Metric:
    return Metric(name, "gauge", meaning, labels)


def _histogram(name: str, meaning: str, bounds: tuple[float, ...], labels: Mapping[str, Values] = {}) -> Metric:
    return Metric(name, "histogram", meaning, labels, bounds)


class Traffic:
    """Requests and their rings."""

    REQUESTS = _counter(
        "requests", "Finished requests. 499: the client left before the response. A status that is not registered is "
        "counted by its class.", {**RING, "code": CODES},
    )  # fmt: skip
    DURATION = _histogram(
        "request_duration_seconds", "From a request's head to the end of its response; of a WebSocket, to its opening. "
        "Error: 5xx, or broken off.", DURATIONS, {**RING, "outcome": OUTCOMES},
    )  # fmt: skip
    UPSTREAM = _histogram(
        "upstream_duration_seconds", "From the request sent to the endpoint to its response head. A request over a "
        "connection that was there begins with its own head.", DURATIONS, {**RING, "outcome": OUTCOMES},
    )  # fmt: skip
    OVERHEAD = _histogram(
        "overhead_seconds",
        "What the router itself takes: from a request's head to its being sent on, and from the "
        "response head to its being written. Measured on every sixteenth request over a connection that was there.",
        SHORT,
    )
    IN_FLIGHT = _gauge("requests_in_flight", "Requests being served.", RING)
    RECEIVED = _counter("request_bytes", "Bodies of requests, without their framing.", RING)
    SENT = _counter("response_bytes", "Bodies of responses, without their framing.", RING)
    ABORTS = _counter("client_aborts", "Clients that left before their response was complete.", RING)
    UPGRADES = _counter("upgrades", "WebSockets that were opened.", {**RING, "protocol": ("websocket",)})
    UPGRADED = _gauge("upgraded_connections", "WebSockets that are open.", {**RING, "protocol": ("websocket",)})
    DECISIONS = _counter("route_decisions", "Requests sorted into a ring, by reason.", {**IN_RING, "reason": REASONS})
    ANSWERS = _counter("router_answers", "Requests that the router answered before they had a ring.", {"word": ANSWERS})
    FAILURES = _counter(
        "failures", "Requests that had a ring, and were answered or broken off by the router.", {"word": WORDS}
    )
    PROOFS = _counter(
        "proofs", "Claims of requests that need a proof, and what that was worth.",
        {**SERVICE, "kind": tuple(PROOFS), "result": tuple(dict.fromkeys(chain.from_iterable(PROOFS.values())))},
    )  # fmt: skip


class Backends:
    """Versions, their endpoints, and what checks say of them."""

    FAILURES = _counter("upstream_failures", "Failures of an endpoint.", {**ENDPOINT, "kind": FAILURE_KINDS})
    CONNECTIONS = _gauge(
        "endpoint_connections", "Connections to an endpoint. Idle ones are shared: each service and version that names "
        "the address shows them.", {**ENDPOINT, "state": ("active", "idle")},
    )  # fmt: skip
    UP = _gauge(
        "endpoint_up", "1 while checks pass and a worker would send the endpoint requests; a drained one can be up.",
        ENDPOINT,
    )  # fmt: skip
    EJECTIONS = _counter(
        "endpoint_ejections", "Times that a worker left an endpoint alone.", {**ENDPOINT, "reason": EJECTIONS}
    )
    CHECKS = _counter(
        "health_checks", "Active checks of the endpoints that have some.", {**ENDPOINT, "result": ("passed", "failed")}
    )
    VERSION_UP = _gauge("version_up", "1 while the version has an endpoint that is neither down nor drained.", VERSION)
    AVOIDED = _gauge("version_avoided", "Workers that send the version's users to the next one outward.", VERSION)
    BREAKER_OPEN = _gauge("version_breaker_open", "Of these, those that do because it fails massively.", VERSION)
    WAITING = _gauge("requests_waiting", "Requests that wait for room in the version.", VERSION)
    TRIPS = _counter("breaker_trips", "Times that a worker's breaker opened.", VERSION)
    RETRIES = _counter("retries", "Requests sent once more; no_budget: those that were not.",
                       {**VERSION, "reason": RETRIES})  # fmt: skip
    SHED = _counter("requests_shed", "Requests refused because there was too much to do.", {**VERSION, "limit": SHED})
    MIRRORED = _counter("mirrored_requests", "Copies of requests; dropped: those not sent.",
                        {**VERSION, "result": MIRRORED})  # fmt: skip


class Rings:
    """What the rings are now."""

    TARGET = _gauge("ring_target_ratio", "Share of the hash space that the ring has, 0 to 1.", IN_RING)
    ACTUAL = _gauge(
        "ring_actual_ratio", "Share of the service's requests in the last 60 s that were sorted into the ring, 0 to 1; "
        "0 where there were none.", IN_RING,
    )  # fmt: skip
    INFO = _gauge("ring_info", "1; which version the ring runs, and where its weight comes from.",
                  {**RING, "source": ("config", "disk", "redis")})  # fmt: skip
    KILLED = _gauge("ring_killed", "1 while a kill keeps everybody out of the ring.", IN_RING)
    FLIPS = _counter(
        "ring_flips",
        "Users whom the hash was seen to sort into a ring further out than in an earlier generation. "
        "Widening makes none; narrowing a ring and killing one do, for each of the users who leave it and come again.",
        SERVICE,
    )
    MEMBERS = _gauge("members", "Users whom a list has in the ring, by the table of it.", IN_RING)


class Rollouts:
    """How the rollout of a service stands, or how its last one ended: the same in every instance"""

    INFO = _gauge("rollout_info", "1; which versions it is about; mode: enforce, or observe.",
                  {**SERVICE, "stable": CONFIG, "candidate": CONFIG, "mode": ("enforce", "observe")})  # fmt: skip
    PHASE = _gauge("rollout_phase", "1 for the phase that it is in, 0 for the others.", {**SERVICE, "phase": PHASES})
    PAUSED = _gauge("rollout_paused", "1 for the reason that it is paused for, 0 for the others.",
                    {**SERVICE, "why": PAUSES})  # fmt: skip
    STEP = _gauge("rollout_step", "Which step it is in, from 1; 0 before the first one.", SERVICE)
    STEPS = _gauge("rollout_steps", "How many steps its plan has.", SERVICE)
    ENTERED = _gauge("rollout_step_timestamp_seconds", "When the step was entered, Unix time of Redis; 0: none was.",
                     SERVICE)  # fmt: skip
    LAG = _gauge(
        "rollout_lag_seconds", "By how much the last tick that was judged is older than a tick, while it is under way: "
        "it grows where nobody leads, and while Redis is away.", SERVICE,
    )  # fmt: skip
    LEADS = _gauge("rollout_leads", "1 if this instance was the one that leads it when it last asked Redis.", SERVICE)
    LED = _counter("rollout_leads_taken", "Times that this instance has taken the lead.", SERVICE)
    INSTANCES = _gauge("rollout_instances", "Instances that are there, and those of them that route by the step.",
                       {**SERVICE, "state": ("live", "applied")})  # fmt: skip
    TRANSITIONS = _counter(
        "rollout_transitions", "Changes of phase that this instance has written as the leader, by the phase they led "
        "to; human: somebody wanted it.", {**SERVICE, "phase": PHASES, "actor": ("auto", "human")},
    )  # fmt: skip
    SPLIT = _gauge(
        "split_mismatch", "How well users arrive in the shares that were asked for in this step: an always-valid "
        "p-value, 1 while nothing is wrong.", SERVICE,
    )  # fmt: skip
    UNITS = _gauge("rollout_units", "Users (or units of a source) that count in this step.",
                   {**GUARDRAIL, "side": ("candidate", "control")})  # fmt: skip
    DIFFERENCE = _gauge(
        "rollout_difference", "The candidate's rate less the control's in this step, 1 being all; low and high are its "
        "always-valid 95 % band. Not there while nothing is known.",
        {**GUARDRAIL, "bound": ("estimate", "low", "high")},
    )  # fmt: skip
    LIMIT = _gauge("rollout_limit", "How much of that difference is tolerated now. Not there without a control.",
                   GUARDRAIL)  # fmt: skip
    EVIDENCE = _gauge("rollout_log_e", "ln E of a guardrail: its greatest of harm in this rollout, of proof in this "
                      "step.", {**GUARDRAIL, "test": ("harm", "proof")})  # fmt: skip
    LEVEL = _gauge("rollout_log_e_level", "The ln E at which it counts.", {**GUARDRAIL, "test": ("harm", "proof")})
    STANDING = _gauge("rollout_standing", "1 for how the guardrail stands, 0 for the others.",
                      {**GUARDRAIL, "standing": STANDINGS})  # fmt: skip
    ROLLBACK = _gauge(
        "rollout_rollback_seconds", "From the verdict of its rollback until the last live instance had applied it; 0: "
        "there was none, or it is not over.", SERVICE,
    )  # fmt: skip
    LOST = _counter("rollout_evidence_lost", "Parts of evidence that Redis was away too long for.")
    NOTICES = _counter("rollout_notices", "What plans' webhooks were told.", {"result": NOTICES})


class Control:
    """Redis, the config file, keys and certificates."""

    GENERATION = _gauge("generation", "The routing state in force; each change has the next number.")
    REVISION = _gauge(
        "weights_revision", "The `rev` beside the weights in Redis that are in force; 0 where nobody gave one.", SERVICE
    )
    CHANGED = _gauge("weights_last_change_timestamp_seconds", "When the routing state last changed, Unix time.")
    REJECTED = _counter("weights_rejected", "Values in Redis that were refused.", {**SERVICE, "reason": REJECTIONS})
    STORE_UP = _gauge("store_up", "1 while Redis answers.")
    STALENESS = _gauge("store_staleness_seconds", "Since Redis was last read.")
    STORE_ERRORS = _counter(
        "store_errors", "Failures of the connection to Redis; status_: while the status was written there.",
        {"kind": STORE_ERRORS},
    )  # fmt: skip
    POLLS = _histogram("store_poll_duration_seconds", "One read of everything from Redis.", SHORT)
    RELOADS = _counter("config_reloads", "Reads of a changed config file.", {"result": RELOADS})
    RELOADED = _gauge("config_last_reload_successful", "1 if the config file on disk is the one in force.")
    RELOADED_AT = _gauge("config_last_reload_success_timestamp_seconds", "When a config was last accepted, Unix time.")
    ADMIN = _counter(
        "admin_requests", "Requests to the admin side; streams when they end.", {"path": ADMIN_PATHS, "code": CODES}
    )
    STREAMS = _gauge("sse_clients", "Open streams of events: tabs of the dashboard.")
    EXPIRY = _gauge(
        "certificate_expiry_timestamp_seconds", "When a listener's certificate expires, Unix time.",
        {"certificate": CONFIG},
    )  # fmt: skip
    ISSUER_KEYS = _gauge("issuer_has_keys", "1 while tokens of the issuer can be verified.", {"issuer": CONFIG})
    ISSUER_FETCHED = _gauge(
        "issuer_keys_fetched_timestamp_seconds", "When its keys were last had from its jwks_url, Unix time.",
        {"issuer": CONFIG},
    )  # fmt: skip
    ISSUER_FETCHES = _counter("issuer_key_fetches", "Fetches of its keys.", {"issuer": CONFIG, "result": FETCHES})


class Processes:
    """The router itself."""

    BUILD = _gauge("build_info", "1; what is running.", {"version": CONFIG, "python": CONFIG, "loop": CONFIG})
    WORKERS = _gauge("workers", "Worker processes.", {"state": ("connected", "expected")})
    RESTARTS = _counter("worker_restarts", "Workers that were started in place of another one.", {"reason": RESTARTS})
    CONTROL_RESTARTS = _counter("control_restarts", "Times that the control process was started again.")
    MEMORY = _gauge("worker_resident_memory_bytes", "Resident memory, by the worker's place.", {"worker": CONFIG})
    LAG = _histogram("event_loop_lag_seconds", "How late a worker's timer was that comes twenty times a second.", LAGS)
    CONNECTIONS = _gauge("connections", "Client connections that are open.")
    DROPPED = _counter("accesslog_dropped", "Lines of the access log that could not be written.")


PARTS: Final = (Traffic, Backends, Rings, Rollouts, Control, Processes)
PROCESS: Final = (
    "process_cpu_seconds_total", "process_max_fds", "process_open_fds", "process_resident_memory_bytes",
    "process_start_time_seconds", "process_virtual_memory_bytes",
)  # fmt: skip
"""Of the parent, in the client libraries' own names; without the prefix."""


def metrics_of(part: type) -> Iterator[Metric]:
    """The metrics of one part, in their order."""
    yield from (one for one in vars(part).values() if isinstance(one, Metric))


METRICS: Final = tuple(metric for part in PARTS for metric in metrics_of(part))


def shown_code(status: int) -> str:
    """A status as a label."""
    code = str(status)
    if code in _CODES:
        return code
    return f"{code[0]}xx" if 100 <= status <= 599 else "other"


_CODES: Final = frozenset(CODES)
