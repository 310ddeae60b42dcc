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
    model_validator,
)
from pydantic_core import PydanticCustomError

from router.config.admin import AdminSettings
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
from router.config.model import Bytes, Model, Percent, RingName, Seconds, SecondsOrNone, Text
from router.config.problems import redacted_url
from router.config.processes import Recycle, Shutdown, Sidecar, Watchdog
from router.config.values import (
    check_cookie_name,
    check_header_name,
    check_host,
    check_path,
    check_proxy,
    check_redis_url,
)
from router.core.spec import Comparison, IdentityKind, ServiceSpec, TimeoutsSpec

_TIMEOUTS: Final = TimeoutsSpec()
_RETURN_AFTER: Final = ServiceSpec("", (), ()).return_after
MAX_WORKERS: Final = 256

ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""Safe in Redis keys, metric labels and file names."""
HeaderName = Annotated[str, AfterValidator(check_header_name)]
CookieName = Annotated[str, AfterValidator(check_cookie_name)]
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


def _exactly_one(model: Model, names: tuple[str, ...], what: str) -> str:
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        chosen = f"not {' and '.join(given)}" if given else "it has none"
        raise PydanticCustomError("choice", f"{what} has exactly one of {', '.join(names)}: {chosen}")
    return given[0]


class AccessLogSettings(Model):
    """The access log, on standard output."""

    format: Literal["json", "combined", "off"] = Field(default="json", description="json, combined (as Apache) or off.")


class ServiceTimeouts(Model):
    """How long a version may take."""

    connect: Seconds = Field(default=_TIMEOUTS.connect, description="To accept a connection.")
    first_byte: Seconds = Field(
        default=_TIMEOUTS.first_byte, description="From the request to the head of the response."
    )
    between_bytes: Seconds = Field(default=_TIMEOUTS.between_bytes, description="Without a byte of the response.")


class Identity(Model):
    """One place to look for the user's key: exactly one of the three."""

    header: HeaderName | None = Field(default=None, description="A request header that holds the key.")
    cookie: CookieName | None = Field(default=None, description="A cookie that holds the key.")
    anonymous_cookie: CookieName | None = Field(
        default=None, description="A cookie the router itself sets on who has no key."
    )

    @model_validator(mode="after")
    def _one(self) -> Identity:
        _exactly_one(self, ("header", "cookie", "anonymous_cookie"), "an identity source")
        return self

    @property
    def kind(self) -> IdentityKind:
        if self.header is not None:
            return "header"
        return "cookie" if self.cookie is not None else "anonymous_cookie"

    @property
    def name(self) -> str:
        return self.header or self.cookie or self.anonymous_cookie or ""


class _Comparison(Model):
    equals: str | None = Field(default=None, description="The whole value, exact in case.")
    prefix: Text | None = Field(default=None, description="What the value begins with.")
    suffix: Text | None = Field(default=None, description="What the value ends with.")
    contains: Text | None = Field(default=None, description="What stands anywhere in the value.")
    one_of: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, description="One of several whole values."
    )
    present: Literal[True] | None = Field(default=None, description="true: it is there, whatever its value.")
    inverted: StrictBool = Field(
        default=False, description="Holds when the comparison does not; also when there is no value."
    )

    @model_validator(mode="after")
    def _one(self) -> _Comparison:
        _exactly_one(self, ("equals", "prefix", "suffix", "contains", "one_of", "present"), "a comparison")
        return self

    @property
    def compare(self) -> Comparison:
        names: tuple[Comparison, ...] = ("equals", "prefix", "suffix", "contains", "one_of", "present")
        return next(name for name in names if getattr(self, name) is not None)

    @property
    def values(self) -> tuple[str, ...]:
        if self.compare == "present":
            return ()
        value: str | tuple[str, ...] = getattr(self, self.compare)
        return (value,) if isinstance(value, str) else value


class HeaderComparison(_Comparison):
    """A comparison of one request header."""

    name: HeaderName = Field(description="The header's name; upper and lower case are the same.")


class CookieComparison(_Comparison):
    """A comparison of one cookie."""

    name: CookieName = Field(description="The cookie's name, exact in case.")


class Entry(Model):
    """One way into an audience: all of the keys that are given hold."""

    header: HeaderComparison | None = Field(default=None, description="A header compares so.")
    cookie: CookieComparison | None = Field(default=None, description="A cookie compares so.")
    all_of: Annotated[tuple[Entry, ...], Field(min_length=1)] | None = Field(
        default=None, description="All of these hold."
    )
    any_of: Annotated[tuple[Entry, ...], Field(min_length=1)] | None = Field(
        default=None, description="One of these holds."
    )

    @model_validator(mode="after")
    def _some(self) -> Entry:
        if self.header is None and self.cookie is None and self.all_of is None and self.any_of is None:
            raise PydanticCustomError("choice", "an audience entry has one or more of header, cookie, all_of, any_of")
        return self


class Ring(Model):
    """One audience and the version it gets."""

    name: RingName = Field(description="What the ring is called: in Redis, in headers, in metrics.")
    version: RingName = Field(description="The version the ring runs: a key of `versions`.")
    basis_points: Percent = Field(
        default=0, alias="weight", description="Percent of users by hash; Redis overrides it live."
    )
    audience: tuple[Entry, ...] = Field(default=(), description="Rules: any of the entries lets a request in.")
    members: tuple[Text, ...] = Field(default=(), description="Users (identity keys) who are in this ring by name.")
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
    response_headers: StrictBool = Field(default=True, description="Say X-Ring and X-Ring-Version on each response.")
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
        default=_RETURN_AFTER, description="How long a version has to be well before its rings' users come back to it."
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
    access_log: AccessLogSettings = Field(
        default=AccessLogSettings(), description="The access log, on standard output."
    )
    redis: Annotated[str, AfterValidator(check_redis_url)] | None = Field(
        default=None, repr=False, description="Redis URL; absent: weights come from this file alone."
    )
    instance: InstanceName | None = Field(
        default=None, description="This router's name among several; default hostname:port."
    )
    trusted_proxies: tuple[Annotated[str, AfterValidator(check_proxy)], ...] = Field(
        default=(), description="Networks (CIDR) whose forwarding headers are believed; unix: for unix sockets."
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
