"""The config as validated, frozen models: what each key is, its default, and what a single value may be.

What only several values together can get wrong (a ring's version that does not exist, weights over 100) is in
``semantics.py``. Read a file with ``load.load_settings``, which runs both, never by building these models by hand.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    StrictBool,
    StringConstraints,
    WithJsonSchema,
)

from router.config.admin import AdminSettings
from router.config.audiences import Entry
from router.config.backends import (
    Balance,
    Breaker,
    Connections,
    Health,
    Mirror,
    Outliers,
    Overload,
    Retries,
    Version,
)
from router.config.edge import ClientTls, Limits, Listener, Listeners, ListenerTimeouts, Protocol, listeners_schema
from router.config.files import Files
from router.config.guards import KEEP, Guard, OnRingChange
from router.config.identity import Identity
from router.config.model import Bytes, Model, Percent, RingName, Seconds, SecondsOrNone, Text
from router.config.problems import redacted_url
from router.config.processes import Recycle, Shutdown, Sidecar, Watchdog
from router.config.records import AccessLog, AccessLogSettings, Tracing, access_log_schema
from router.config.trust import Issuer, Mode, SigningKey
from router.config.values import check_host, check_path, check_proxy, check_redis_url
from router.core.spec import Login, Override, ServiceSpec, TimeoutsSpec

_TIMEOUTS: Final = TimeoutsSpec()
_SERVICE: Final = ServiceSpec("", (), ())
MAX_WORKERS: Final = 256

ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""Safe in Redis keys, metric labels and file names."""
InstanceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]


def _workers(value: object) -> int | str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value == "auto" or (whole and 1 <= value <= MAX_WORKERS):  # type: ignore[operator]
        return value  # type: ignore[return-value]
    raise ValueError(f"workers is auto, or a whole number from 1 to {MAX_WORKERS}")


Workers = Annotated[
    int | Literal["auto"],
    PlainValidator(_workers),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MAX_WORKERS}]}),
]


class ServiceTimeouts(Model):
    """How long a version may take."""

    connect: Seconds = Field(default=_TIMEOUTS.connect, description="To accept a connection.")
    first_byte: Seconds = Field(
        default=_TIMEOUTS.first_byte, description="From the request to the head of the response."
    )
    between_bytes: Seconds = Field(default=_TIMEOUTS.between_bytes, description="Without a byte of the response.")


class Ring(Model):
    """One audience and the version it gets."""

    name: RingName = Field(description="What the ring is called: in Redis, in headers, in metrics.")
    version: RingName = Field(description="The version the ring runs: a key of `versions`.")
    basis_points: Percent = Field(
        default=0, alias="weight", description="Percent of users by hash; Redis overrides it live."
    )
    audience: tuple[Entry, ...] = Field(default=(), description="Rules: any of the entries lets a request in.")
    members: tuple[Text, ...] = Field(default=(), description="Users (identity keys) who are in this ring by name.")
    deny: tuple[Entry, ...] = Field(
        default=(),
        description="For whom one of these entries holds is not in this ring, neither by name nor by rule nor by hash.",
    )
    floor: Percent = Field(
        default=0,
        description="Percent that live weights have to leave the default ring; another ring below it is warned of.",
    )
    ceiling: Percent = Field(default=10_000, description="Percent: the most that a live weight may widen it to.")
    on_change: OnRingChange = Field(
        default=KEEP,
        json_schema_extra={"default": "keep"},
        description="WebSockets and event streams of who gets another ring or version: keep, close or {drain: 30s}.",
    )
    fallback: Literal["outward", "closed"] = Field(
        default="outward",
        description="When its version has no healthy endpoint: the next outer ring's (outward), or 503 (closed).",
    )
    mirror: Mirror | None = Field(default=None, description="Copy requests to another version; absent: none.")


class Service(Model):
    """One routed application."""

    hosts: tuple[Annotated[str, AfterValidator(check_host)], ...] = Field(
        default=(), description="Hosts it answers for; none: any."
    )
    paths: tuple[Annotated[str, AfterValidator(check_path)], ...] = Field(
        default=(), description="Path prefixes; none: all."
    )
    salt: str = Field(
        default="", description="Put before the key in the hash. Empty: a user is in the same ring in every service."
    )
    identity: tuple[Identity, ...] = Field(
        default=(), description="Where the user's key stands; the first that has one wins."
    )
    versions: Annotated[dict[RingName, Version], Field(min_length=1)] = Field(description="Version → its endpoints.")
    rings: Annotated[tuple[Ring, ...], Field(min_length=1)] = Field(
        description="Inner to outer; the last one is the default ring and takes the rest."
    )
    login: Login = Field(
        default=_SERVICE.login,
        description="Whose hash counts for who has an anonymous cookie and logs in: anonymous_first, user_wins, "
        "or outer_wins (the ring further out).",
    )
    override: Override = Field(
        default=_SERVICE.override,
        description="Who may name a ring: passes (signed), trusted (X-Ring-Override of trusted proxies too), "
        "insecure (of anybody) or off.",
    )
    guard: Guard = Field(default=Guard(), description="What live weights may do at the most.")
    response_headers: StrictBool = Field(default=True, description="Say X-Ring and X-Ring-Version on each response.")
    server_timing: StrictBool = Field(
        default=False, description="Say Server-Timing: how long the router and the backend took, in milliseconds."
    )
    timeouts: ServiceTimeouts = Field(default=ServiceTimeouts(), description="How long a version may take.")
    tls: ClientTls = Field(default=ClientTls(), description="How https:// endpoints are spoken to.")
    body_bytes: Bytes | None = Field(
        default=None, description="Of a request body, at the most; 0: no limit. Default: limits.body_bytes."
    )
    error_pages: dict[int, Text] = Field(
        default={}, description="Status → an HTML, text or JSON file shown instead of the router's own words."
    )
    resolve: Annotated[Seconds, Field(ge=1)] = Field(
        default=10.0, description="How often the names of endpoints are looked up anew, in DNS or /etc/hosts."
    )
    balance: Balance = Field(default=Balance(), description="Which endpoint of its version a request gets.")
    connections: Connections = Field(default=Connections(), description="What is kept open to an endpoint.")
    health: Health | None = Field(
        default=None, description="How endpoints are asked whether they are well; absent: not."
    )
    outliers: Outliers = Field(
        default=Outliers(), description="When an endpoint that answers badly is left alone for a while."
    )
    retries: Retries = Field(default=Retries(), description="When a request is sent once more.")
    overload: Overload = Field(default=Overload(), description="How much a version may have to do at a time.")
    breaker: Breaker = Field(
        default=Breaker(), description="When a worker sends a ring's users outward because its version fails massively."
    )
    return_after: SecondsOrNone = Field(
        default=_SERVICE.return_after,
        description="How long a version has to be well before its rings' users come back to it.",
    )


class Settings(Model):
    """The configuration of a ring router."""

    listen: Listeners = Field(
        default=(Listener(),),
        json_schema_extra=listeners_schema,
        description="Where requests come in: an address, or a list of addresses and listeners.",
    )
    admin: AdminSettings = Field(
        default=AdminSettings(), description="The admin side: health, metrics, API, dashboard."
    )
    workers: Workers = Field(default="auto", description="Worker processes; auto is one per core.")
    state_dir: Text = Field(default="/var/lib/ring-router", description="Where the last known good snapshot is kept.")
    access_log: AccessLog = Field(
        default=AccessLogSettings(),
        json_schema_extra=access_log_schema,
        description="A line for each request: the format alone, or all of it.",
    )
    tracing: Tracing | None = Field(default=None, description="Spans by OpenTelemetry; absent: none.")
    redis: Annotated[str, AfterValidator(check_redis_url)] | None = Field(
        default=None,
        repr=False,
        description="Redis, Sentinel or Cluster URL (docs/redis.md); absent: weights come from this file alone.",
    )
    instance: InstanceName | None = Field(
        default=None, description="This router's name among several; default hostname:port."
    )
    trusted_proxies: tuple[Annotated[str, AfterValidator(check_proxy)], ...] = Field(
        default=(), description="Networks (CIDR) whose forwarding headers are believed; unix: for unix sockets."
    )
    mode: Mode = Field(
        default="edge",
        description="edge: a ring that a request carries is taken off it; sidecar: it is believed of trusted peers, "
        "or signed.",
    )
    baggage: StrictBool = Field(default=True, description="Send the ring on as a member of W3C Baggage, too.")
    signing_keys: tuple[SigningKey, ...] = Field(
        default=(), description="What passes, cookies and propagated rings are signed with: the first one; all verify."
    )
    tokens: dict[RingName, Issuer] = Field(
        default={}, description="Issuer → whose JSON Web Tokens are believed (needs the extra jwt)."
    )
    protocol: Protocol = Field(default=Protocol(), description="What of HTTP is done, where there is a choice.")
    limits: Limits = Field(default=Limits(), description="What one client may take.")
    timeouts: ListenerTimeouts = Field(default=ListenerTimeouts(), description="How long a client may take.")
    watchdog: Watchdog = Field(
        default=2.0, description="A worker that gives no sign of life for so long is killed and replaced; off: never."
    )
    orphans: Seconds = Field(default=30.0, description="How long workers serve on when their parent was killed.")
    recycle: Recycle = Field(default=Recycle(), description="When a worker is replaced by a new one.")
    shutdown: Shutdown = Field(default=Shutdown(), description="What happens on SIGTERM before the workers drain.")
    sidecar: Sidecar | None = Field(default=None, description="Runs beside an application and ends after it.")
    services: Annotated[dict[ServiceName, Service], Field(min_length=1)] = Field(
        description="Service name → how its requests are routed."
    )

    _files: Files = PrivateAttr(default=Files())

    @property
    def files(self) -> Files:
        """What the files that the config names hold."""
        return self._files

    @property
    def spans_to(self) -> tuple[str, str] | None:
        """Where spans are sent to, and what the router is called there."""
        return None if self.tracing is None else (self.tracing.url, self.tracing.service_name)

    def with_files(self, files: Files) -> Settings:
        """A copy that knows its files."""
        copy = self.model_copy()
        copy._files = files
        return copy

    @property
    def redacted_redis(self) -> str | None:
        """The Redis URL fit to be logged."""
        return None if self.redis is None else redacted_url(self.redis)


def json_schema() -> dict[str, Any]:
    """JSON Schema of the config file, for editors."""
    schema = Settings.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ring-router configuration"} | {
        key: value for key, value in schema.items() if key != "title"
    }
