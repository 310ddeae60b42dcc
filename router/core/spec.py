"""The snapshot as plain data: what control writes, what the channel carries, what workers compile.

Nothing here knows YAML, Redis or sockets. Weights are whole basis points (1/100 percent), names are text, and every
value has been validated before it gets here: strict at the door, trusting inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from router.core.audience import ConditionSpec, IdentitySpec, TrustSpec
from router.core.records import JSON_LOG, AccessLogSpec, TracingSpec

Login = Literal["anonymous_first", "user_wins", "outer_wins"]
Override = Literal["passes", "trusted", "insecure", "off"]
OnChange = Literal["keep", "drain", "close"]
NOBODY: Final = TrustSpec()
"""No key signs, and no issuer is believed."""


@dataclass(frozen=True, slots=True)
class ClientTlsSpec:
    """How an endpoint is spoken to over TLS. Paths of PEM files; ``digest`` changes when what they hold does.

    ``ca`` empty: the system's authorities. ``name`` empty: the endpoint's host is what its certificate has to name.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    name: str = ""
    verify: bool = True
    digest: str = ""


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One address of a version: a ``host`` (an IP address or a name) and a port, or the ``path`` of a unix socket.

    ``name`` is what the address was resolved from; empty where the config has the address itself. ``weight`` is its
    share of the version's requests beside its siblings'; 0 gives it none.
    """

    host: str
    port: int
    path: str = ""
    tls: ClientTlsSpec | None = None
    weight: int = 1
    name: str = ""

    @property
    def address(self) -> str:
        """``host:port``, with brackets around an IPv6 address, or ``unix:/path``."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """A version and where it runs; ``down`` and ``drained`` are addresses of its endpoints.

    ``down``: active checks found them sick. ``drained``: an operator wants no new requests there.
    """

    name: str
    endpoints: tuple[EndpointSpec, ...]
    down: tuple[str, ...] = ()
    drained: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MirrorSpec:
    """A share of a ring's requests is copied to another version; what that answers is thrown away."""

    version: str
    basis_points: int = 10_000
    methods: tuple[str, ...] = ("GET", "HEAD")
    body_bytes: int = 64 * 1024
    """Requests with a longer body are not copied."""
    in_flight: int = 64
    """Copies on their way at a time, in each worker; beyond, requests are not copied."""


@dataclass(frozen=True, slots=True)
class RingSpec:
    """One audience. The rules are any-of; ``basis_points`` of the default (last) ring is what the others leave."""

    name: str
    version: str
    basis_points: int = 0
    rules: tuple[ConditionSpec, ...] = ()
    members: tuple[str, ...] = ()
    falls_outward: bool = True
    """False: this ring's users get 503 rather than another version."""
    mirror: MirrorSpec | None = None
    denied: tuple[ConditionSpec, ...] = ()
    """Whoever one of these holds for is in this ring neither by name nor by rule nor by hash, but further out."""
    tables: tuple[str, ...] = ()
    """Files of member tables: the lists that are too long for ``members``, and those of Redis."""
    on_change: OnChange = "keep"
    """What becomes of WebSockets and event streams whose user is in another ring, or gets another version, now."""
    change_drain: float = 0.0
    """Seconds until they are closed, for ``drain``."""
    floor: int = 0
    """Basis points that live weights have to leave the default ring; of another, those below which there is a warning.
    Only control reads it, and ``ceiling``: the most that live weights may widen this ring to."""
    ceiling: int = 10_000
    holdback: int = 0
    """Basis points of its users who keep the version of the next ring outward: a control among themselves."""


@dataclass(frozen=True, slots=True)
class BalanceSpec:
    """How a request's endpoint is chosen among those of its version."""

    kind: Literal["least_in_flight", "round_robin", "affinity"] = "least_in_flight"
    slow_start: float = 10.0
    """Seconds in which an endpoint that comes back grows into its full share; 0: at once."""


@dataclass(frozen=True, slots=True)
class ConnectionsSpec:
    """Connections that are kept to an endpoint, in each worker. Seconds; 0 for ``max_age`` is no limit."""

    idle: float = 4.0
    """Below the 5 s at which common backends close theirs, like linkerd's 3 s."""
    idle_per_endpoint: int = 1024
    max_age: float = 0.0


@dataclass(frozen=True, slots=True)
class OutlierSpec:
    """When an endpoint that answers badly is left alone for a while, by each worker for itself."""

    consecutive_errors: int = 5
    """5xx answers, broken connections and time-outs without a good answer between; 0: never. Envoy takes 5."""
    ejection: float = 10.0
    """Seconds, times how often it was ejected lately."""
    max_ejection: float = 300.0
    max_ejected_basis_points: int = 5000
    """Of a version's endpoints, so that a bad release or a bad network does not empty it. Envoy takes 10 percent."""
    success_rate: bool = True
    """Whether one that answers much worse than its siblings is ejected (Envoy's success rate outlier)."""


@dataclass(frozen=True, slots=True)
class RetrySpec:
    """When a request is sent once more, to another endpoint if there is one."""

    attempts: int = 2
    """Beyond the first."""
    statuses: tuple[int, ...] = ()
    per_try: float = 0.0
    """Seconds until the head of a response; 0: only the version's ``first_byte``."""
    budget_basis_points: int = 2000
    """Retries of a version in each worker, as a share of its requests (Finagle and linkerd take 20 percent)."""
    replay_bytes: int = 64 * 1024
    """Of a request body that are kept to be sent again; a longer body is sent once."""


@dataclass(frozen=True, slots=True)
class OverloadSpec:
    """How much a version may have to do at a time, over all workers; 0 is no limit. What is beyond waits in a queue."""

    in_flight: int = 0
    endpoint_in_flight: int = 0
    queue: int = 100
    queue_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class BreakerSpec:
    """When a worker takes a ring's version out on its own: it fails massively, and the next one outward does not."""

    failed_basis_points: int = 5000
    """0: never."""
    minimum: int = 20
    """Failed requests."""
    slices: int = 5
    """Of 64 slices of users, that failed requests have to come from: one user's broken data breaks nothing."""
    window: float = 10.0
    open: float = 30.0
    """Seconds until the version is tried again; doubles each time, up to ten minutes."""


@dataclass(frozen=True, slots=True)
class HealthCheckSpec:
    """What control asks each endpoint of a service, again and again. Workers do not read this. Seconds."""

    kind: Literal["http", "tcp"] = "http"
    """``tcp``: only whether a connection can be made, with the handshake where the endpoint speaks TLS."""
    path: str = "/"
    host: str = ""
    """The Host field; empty: the endpoint's name and port."""
    statuses: tuple[tuple[int, int], ...] = ((200, 299),)
    """Ranges of statuses that pass, both ends included."""
    body: str = ""
    """What the first 64 KiB of the answer have to contain; empty: anything."""
    interval: float = 5.0
    """HAProxy asks every 2 s, nginx every 5 s."""
    timeout: float = 1.0
    """Of a whole check: connection, handshake, answer."""
    passes: int = 2
    """In a row, until an endpoint that is down is up again. HAProxy takes 2."""
    failures: int = 3
    """In a row, until an endpoint is down. HAProxy takes 3."""


@dataclass(frozen=True, slots=True)
class TimeoutsSpec:
    """Seconds. Idle limits restart with each byte that moves."""

    connect: float = 1.0
    first_byte: float = 30.0
    between_bytes: float = 60.0


@dataclass(frozen=True, slots=True)
class ErrorPageSpec:
    """What a service's clients see instead of the router's own words; ``body`` is the file's content."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class GuardSpec:
    """What a live change of weights may do at the most. Only control reads this; narrowing is always allowed."""

    max_step: int = 0
    """Basis points by which a ring's outer border may move outward in one change; 0: any."""
    min_bake: float = 0.0
    """Seconds between two changes that widen a ring; 0: none."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One routed application. ``rings`` run from the inner one to the default ring, which is last."""

    name: str
    versions: tuple[VersionSpec, ...]
    rings: tuple[RingSpec, ...]
    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    salt: str = ""
    identity: tuple[IdentitySpec, ...] = ()
    killed: tuple[str, ...] = ()
    response_headers: bool = True
    server_timing: bool = False
    """Whether responses say how long the router and the backend took."""
    timeouts: TimeoutsSpec = TimeoutsSpec()
    body_bytes: int | None = None
    """Of a request, at the most; 0 for no limit, None for the listener's."""
    error_pages: tuple[ErrorPageSpec, ...] = ()
    balance: BalanceSpec = BalanceSpec()
    connections: ConnectionsSpec = ConnectionsSpec()
    outliers: OutlierSpec = OutlierSpec()
    retries: RetrySpec = RetrySpec()
    overload: OverloadSpec = OverloadSpec()
    breaker: BreakerSpec = BreakerSpec()
    return_after: float = 5.0
    """Seconds that a version has to be well before its rings' users come back to it."""
    login: Login = "anonymous_first"
    """Whose hash counts when a user with an anonymous cookie has a key of their own as well."""
    override: Override = "passes"
    """Who may name a ring: passes; X-Ring-Override of trusted proxies too; that of anybody; nobody."""
    revoked: tuple[str, ...] = ()
    """Passes that count no more: ``pass:<id>``, ``key:<id>``."""
    guard: GuardSpec = GuardSpec()


@dataclass(frozen=True, slots=True)
class LimitsSpec:
    """What one client may take. 0 is no limit, where that is possible."""

    head_bytes: int = 64 * 1024
    """Of a request head. HAProxy's buffer holds 16 KiB, nginx's four of 8 KiB, Envoy's 60 KiB."""
    uri_bytes: int = 16 * 1024
    """Of a request target. RFC 9110 §4.1 asks for 8,000 at least; nginx takes 8 KiB."""
    fields: int = 200
    """Of a head. Envoy and Apache take 100, HAProxy 101; nginx limits their bytes alone."""
    body_bytes: int = 0
    """Of a request body. nginx takes 1 MiB, HAProxy and Envoy anything."""
    body_rate: int = 500
    """Bytes per second that an upload has to keep, after its first 20 s (Apache's RequestReadTimeout)."""
    requests_per_connection: int = 0
    """nginx closes after 1,000, Envoy and HAProxy never."""
    connections: int = 0
    """Of all clients at a time, over all workers; 0: as many as the open files of a worker allow."""
    connections_per_client: int = 0
    """Of one address at a time, in each worker; trusted proxies are exempt."""


@dataclass(frozen=True, slots=True)
class CertificateSpec:
    """A certificate chain with its key (PEM files), and the lower-case names it is for; ``*.`` matches one label."""

    certificate: str
    key: str
    names: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class ServerTlsSpec:
    """How a listener speaks TLS. The first certificate is for clients that name no host, or an unknown one."""

    certificates: tuple[CertificateSpec, ...]
    client_ca: str = ""
    client_certificate: Literal["none", "optional", "required"] = "none"
    client_ca_digest: str = ""
    min_version: Literal["1.2", "1.3"] = "1.2"
    hsts_seconds: int = 0


@dataclass(frozen=True, slots=True)
class SocketSpec:
    """One listening socket; ``redirect_port`` not 0: it only sends its clients to https there."""

    address: str
    tls: ServerTlsSpec | None = None
    proxy_protocol: bool = False
    redirect_port: int = 0
    is_inbound: bool = False
    """Whether it closes as soon as the router is told to stop (sidecar)."""
    is_outbound: bool = False
    """Whether the application's own calls come in here: the ring that they carry is believed."""


@dataclass(frozen=True, slots=True)
class RecycleSpec:
    """When a worker asks to be replaced: its age in seconds, requests it answered, its memory. 0: never for that."""

    after: float = 0.0
    requests: int = 0
    resident_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ListenerSpec:
    """What a worker needs to know about those who connect to it. Timeouts in seconds; 0 for ``request`` is none."""

    trusted_proxies: tuple[str, ...] = ()
    head_timeout: float = 10.0
    idle_timeout: float = 75.0
    body_timeout: float = 60.0
    send_timeout: float = 60.0
    request_timeout: float = 0.0
    tunnel_timeout: float = 3600.0
    drain_timeout: float = 30.0
    limits: LimitsSpec = LimitsSpec()
    via: Literal["request", "both", "off"] = "request"
    serves_trace: bool = False
    answers_expect: bool = False
    sockets: tuple[SocketSpec, ...] = (SocketSpec(""),)
    recycle: RecycleSpec = RecycleSpec()
    mode: Literal["edge", "sidecar"] = "edge"
    """``edge``: a ring that a request carries is taken off it. ``sidecar``: believed of trusted peers, or signed."""
    sends_baggage: bool = True
    """Whether the ring goes on as a member of ``baggage`` (W3C Baggage) too."""


@dataclass(frozen=True, slots=True)
class SnapshotSpec:
    """The whole routing state, swapped whole. ``generation`` only grows within one installation directory."""

    generation: int
    services: tuple[ServiceSpec, ...]
    listener: ListenerSpec = ListenerSpec()
    access_log: AccessLogSpec = JSON_LOG
    trust: TrustSpec = NOBODY
    tracing: TracingSpec | None = None
