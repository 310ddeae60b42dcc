"""The part of the config that faces versions: where they run, what is done when they fail, who gets copies.

Defaults are those of ``core.spec``, which says where they come from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from router.config.model import Bytes, Count, Model, Percent, RingName, Seconds, SecondsOrNone, Text
from router.config.values import (
    check_authority,
    check_method,
    check_retried,
    check_target,
    parse_endpoint,
    parse_statuses,
)
from router.core.spec import (
    BalanceSpec,
    BreakerSpec,
    ConnectionsSpec,
    EndpointSpec,
    HealthCheckSpec,
    MirrorSpec,
    OutlierSpec,
    OverloadSpec,
    RetrySpec,
)

_BALANCE: Final = BalanceSpec()
_CONNECTIONS: Final = ConnectionsSpec()
_OUTLIERS: Final = OutlierSpec()
_RETRIES: Final = RetrySpec()
_OVERLOAD: Final = OverloadSpec()
_BREAKER: Final = BreakerSpec()
_HEALTH: Final = HealthCheckSpec()
_MIRROR: Final = MirrorSpec("")
MAX_WEIGHT: Final = 1000

EndpointUrl = Annotated[
    EndpointSpec,
    PlainValidator(parse_endpoint),
    PlainSerializer(
        lambda endpoint: endpoint.address if endpoint.path else f"http{'s' * bool(endpoint.tls)}://{endpoint.address}"
    ),
    WithJsonSchema({"type": "string", "pattern": "^(https?://|unix:/)"}),
]
Statuses = Annotated[
    tuple[int, int],
    PlainValidator(parse_statuses),
    PlainSerializer(lambda ends: "-".join(map(str, ends))),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 100, "maximum": 599},
                {"type": "string", "pattern": r"^[1-5][0-9]{2}(\s*-\s*[1-5][0-9]{2})?$"},
            ]
        }
    ),
]


class Endpoint(Model):
    """One address of a version; in YAML also as text, its URL alone."""

    url: EndpointUrl = Field(description="http://host:port, https:// for TLS, or unix:/path.")
    weight: Annotated[int, Field(strict=True, ge=0, le=MAX_WEIGHT)] = Field(
        default=1, description="Its share of requests beside its siblings'; 0: no new ones."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _or_text(cls, value: object, handler: ModelWrapValidatorHandler[Endpoint]) -> Endpoint:
        if isinstance(value, dict | Endpoint):
            return handler(value)
        # Not handed on as a mapping: what is wrong with the text stands where the text does.
        return cls.model_construct(url=parse_endpoint(value))

    @property
    def spec(self) -> EndpointSpec:
        """As the config has it: neither looked up nor with the files of its TLS."""
        return replace(self.url, weight=self.weight)


def _endpoints_schema(schema: dict[str, Any]) -> None:
    url = {"type": "string", "pattern": "^(https?://|unix:/)"}
    schema["items"] = {"anyOf": [url, schema["items"]]}


class Health(Model):
    """Active checks of endpoints, by control, once for all workers."""

    path: Annotated[str, AfterValidator(check_target)] | None = Field(
        default=None, description="Asked for with GET: a path, with a query if it has to be."
    )
    tcp: Literal[True] | None = Field(
        default=None, description="true: it is enough that a connection can be made, instead of `path`."
    )
    host: Annotated[str, AfterValidator(check_authority)] | None = Field(
        default=None, description="The Host of the check; default: the endpoint's."
    )
    status: Annotated[tuple[Statuses, ...], Field(min_length=1)] = Field(
        default=_HEALTH.statuses,
        json_schema_extra={"default": ["200-299"]},
        description='Statuses that are well: numbers, and ranges such as "300-399".',
    )
    body: Text | None = Field(default=None, description="Text that the answer has to contain, in its first 64 KiB.")
    interval: Seconds = Field(default=_HEALTH.interval, description="Between two checks of an endpoint.")
    timeout: Seconds = Field(default=_HEALTH.timeout, description="For a whole check.")
    passes: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=_HEALTH.passes, description="In a row, until an endpoint that is down is up again."
    )
    failures: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=_HEALTH.failures, description="In a row, until an endpoint is down."
    )

    @model_validator(mode="after")
    def _one(self) -> Health:
        if (self.path is None) == (self.tcp is None):
            why = "it has none" if self.path is None else "not path and tcp"
            raise PydanticCustomError("choice", f"a health check has exactly one of path, tcp: {why}")
        asked = [name for name in ("host", "status", "body") if name in self.model_fields_set]
        if self.tcp and asked:
            raise PydanticCustomError(
                "choice", f"a health check with `tcp` asks for nothing: remove {' and '.join(asked)}, or give a `path`"
            )
        if self.timeout > self.interval:
            raise PydanticCustomError(
                "choice", "a health check's timeout is at most its interval: make one of them other"
            )
        return self

    @property
    def spec(self) -> HealthCheckSpec:
        return HealthCheckSpec(
            "tcp" if self.tcp else "http", self.path or _HEALTH.path, self.host or "", self.status, self.body or "",
            self.interval, self.timeout, self.passes, self.failures,
        )  # fmt: skip


class Version(Model):
    """A version and where it runs."""

    endpoints: Annotated[tuple[Endpoint, ...], Field(min_length=1, json_schema_extra=_endpoints_schema)] = Field(
        description="Addresses: [http://host:port], https:// for TLS, or unix:/path; or {url, weight}."
    )
    health: Health | None = Field(default=None, description="Instead of the service's, as a whole.")


class Balance(Model):
    """Which endpoint of its version a request gets."""

    by: Literal["least_in_flight", "round_robin", "affinity"] = Field(
        default=_BALANCE.kind,
        description="The less busy of two at random, in turn, or the same one for the same user.",
    )
    slow_start: SecondsOrNone = Field(
        default=_BALANCE.slow_start, description="In which one that comes back grows into its share; 0: at once."
    )

    @property
    def spec(self) -> BalanceSpec:
        return BalanceSpec(self.by, self.slow_start)


class Connections(Model):
    """Connections kept open to an endpoint, in each worker."""

    idle: Seconds = Field(default=_CONNECTIONS.idle, description="Without a request, until one is closed.")
    idle_per_endpoint: Count = Field(
        default=_CONNECTIONS.idle_per_endpoint, description="Kept without a request; 0: none."
    )
    max_age: SecondsOrNone = Field(
        default=_CONNECTIONS.max_age, description="After which one takes no further request; 0: no limit."
    )

    @property
    def spec(self) -> ConnectionsSpec:
        return ConnectionsSpec(self.idle, self.idle_per_endpoint, self.max_age)


class Outliers(Model):
    """When an endpoint that answers badly is left alone for a while, by each worker for itself."""

    consecutive_errors: Count = Field(
        default=_OUTLIERS.consecutive_errors, description="5xx, broken connections and time-outs in a row; 0: never."
    )
    ejection: Seconds = Field(
        default=_OUTLIERS.ejection, description="For how long, times how often it happened lately."
    )
    max_ejection: Seconds = Field(default=_OUTLIERS.max_ejection, description="For how long at the most.")
    max_ejected: Percent = Field(
        default=_OUTLIERS.max_ejected_basis_points,
        json_schema_extra={"default": _OUTLIERS.max_ejected_basis_points / 100},
        description="Percent of a version's endpoints at a time.",
    )
    success_rate: StrictBool = Field(
        default=_OUTLIERS.success_rate, description="Also one that succeeds much less often than its siblings."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Outliers:
        if self.max_ejection < self.ejection:
            raise PydanticCustomError(
                "choice", f"`max_ejection` is at least `ejection`, {self.ejection:g} s: make one of them other"
            )
        return self

    @property
    def spec(self) -> OutlierSpec:
        return OutlierSpec(
            self.consecutive_errors, self.ejection, self.max_ejection, self.max_ejected, self.success_rate
        )


class Retries(Model):
    """When a request is sent once more, to another endpoint if there is one."""

    attempts: Annotated[int, Field(strict=True, ge=0, le=10)] = Field(
        default=_RETRIES.attempts, description="Beyond the first; 0: never."
    )
    statuses: tuple[Annotated[int, Field(strict=True), AfterValidator(check_retried)], ...] = Field(
        default=_RETRIES.statuses, description="Answers after which it is tried again, such as 503; default: none."
    )
    per_try: SecondsOrNone = Field(
        default=_RETRIES.per_try, description="Until the head of a response; 0: only timeouts.first_byte."
    )
    budget: Percent = Field(
        default=_RETRIES.budget_basis_points,
        json_schema_extra={"default": _RETRIES.budget_basis_points / 100},
        description="Percent of a version's requests that may be retries.",
    )
    replay_bytes: Bytes = Field(
        default=_RETRIES.replay_bytes, description="Of a request body that are kept for a retry; 0: none."
    )

    @property
    def spec(self) -> RetrySpec:
        return RetrySpec(self.attempts, self.statuses, self.per_try, self.budget, self.replay_bytes)


class Overload(Model):
    """How much a version may have to do at a time, over all workers."""

    in_flight: Count = Field(default=_OVERLOAD.in_flight, description="Requests of the version; 0: no limit.")
    endpoint_in_flight: Count = Field(
        default=_OVERLOAD.endpoint_in_flight, description="Requests of one endpoint; 0: no limit."
    )
    queue: Count = Field(default=_OVERLOAD.queue, description="Requests that wait; beyond: 503.")
    queue_time: Seconds = Field(default=_OVERLOAD.queue_seconds, description="For which one waits; then: 503.")

    @property
    def spec(self) -> OverloadSpec:
        return OverloadSpec(self.in_flight, self.endpoint_in_flight, self.queue, self.queue_time)


class Breaker(Model):
    """When a worker sends a ring's users outward on its own: their version fails massively, the outer one does not."""

    failed: Percent = Field(
        default=_BREAKER.failed_basis_points,
        json_schema_extra={"default": _BREAKER.failed_basis_points / 100},
        description="Percent of requests that fail; 0: never.",
    )
    minimum: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = Field(
        default=_BREAKER.minimum, description="Failed requests, at the least."
    )
    slices: Annotated[int, Field(strict=True, ge=1, le=64)] = Field(
        default=_BREAKER.slices, description="Of 64 slices of users that they come from, at the least."
    )
    window: Seconds = Field(default=_BREAKER.window, description="Over which is counted.")
    open: Seconds = Field(default=_BREAKER.open, description="Until the version is tried again; doubles each time.")

    @property
    def spec(self) -> BreakerSpec:
        return BreakerSpec(self.failed, self.minimum, self.slices, self.window, self.open)


class Mirror(Model):
    """Copies of a ring's requests for another version, whose answers are thrown away."""

    version: RingName = Field(description="The version that gets the copies: a key of `versions`.")
    share: Percent = Field(
        default=_MIRROR.basis_points,
        json_schema_extra={"default": _MIRROR.basis_points / 100},
        description="Percent of the ring's requests.",
    )
    methods: Annotated[tuple[Annotated[str, AfterValidator(check_method)], ...], Field(min_length=1)] = Field(
        default=_MIRROR.methods, description="Of requests that are copied; a copied POST is done twice."
    )
    body_bytes: Bytes = Field(default=_MIRROR.body_bytes, description="Requests with a longer body are not copied.")
    in_flight: Annotated[int, Field(strict=True, ge=1, le=100_000)] = Field(
        default=_MIRROR.in_flight, description="Copies at a time, in each worker; beyond: none."
    )

    @property
    def spec(self) -> MirrorSpec:
        return MirrorSpec(self.version, self.share, self.methods, self.body_bytes, self.in_flight)
