"""The part of the config that faces clients: listeners, TLS, limits, timeouts, what of HTTP is done."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, StrictBool, WithJsonSchema

from router.config.model import Bytes, Count, Model, Seconds, Text
from router.config.values import Address, check_name, parse_socket
from router.core.spec import LimitsSpec, ListenerSpec

_LISTEN: Final = Address("0.0.0.0", 8080)  # noqa: S104  # an edge proxy is there to be reached
_LISTENER: Final = ListenerSpec()
_LIMITS: Final = LimitsSpec()

Socket = Annotated[
    Address,
    PlainValidator(parse_socket),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": r"^(.+:[0-9]{1,5}|unix:/.+)$"}),
]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


def _version(value: object) -> str:
    if str(value) in ("1.2", "1.3"):
        return str(value)
    raise ValueError("TLS below 1.2 is not spoken: 1.2 or 1.3")


class Certificate(Model):
    """A certificate with its key."""

    certificate: Text = Field(description="PEM file: the certificate and the chain above it.")
    key: Text = Field(description="PEM file: its private key, without a passphrase.")


class ServerTls(Model):
    """TLS of a listener. Files are looked at every second, and taken when they change and are good."""

    certificates: Annotated[tuple[Certificate, ...], Field(min_length=1)] = Field(
        description="Chosen by the names in them (SNI); the first is for everybody else."
    )
    client_ca: Text | None = Field(default=None, description="PEM file: who may have signed clients' certificates.")
    client_certificate: Literal["none", "optional", "required"] = Field(
        default="none", description="Whether clients show a certificate."
    )
    min_version: Annotated[
        Literal["1.2", "1.3"], PlainValidator(_version), WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]})
    ] = Field(default="1.2", description="The lowest version of TLS: 1.2 or 1.3.")
    hsts_seconds: Count = Field(
        default=0, description="Strict-Transport-Security: max-age on every response; 0: not said."
    )


class ClientTls(Model):
    """TLS towards the endpoints of a service."""

    ca: Text | None = Field(default=None, description="PEM file of authorities; default: the system's.")
    certificate: Text | None = Field(default=None, description="PEM file shown to the endpoint (mTLS).")
    key: Text | None = Field(default=None, description="PEM file: its private key.")
    server_name: Annotated[str, AfterValidator(check_name)] | None = Field(
        default=None, description="What the endpoint's certificate has to name; default: its host."
    )
    verify: StrictBool = Field(default=True, description="false: any certificate will do (not for production).")


class Listener(Model):
    """One listening socket."""

    address: Socket = Field(
        default=_LISTEN,
        json_schema_extra={"default": str(_LISTEN)},
        description="host:port, [ipv6]:port or unix:/path.",
    )
    tls: ServerTls | None = Field(default=None, description="Certificates; absent: plain HTTP.")
    proxy_protocol: StrictBool = Field(
        default=False, description="Every connection begins with a PROXY header (version 1 or 2) that names its client."
    )
    redirect_to_https: Port | None = Field(
        default=None, description="Send all clients to https on this port instead of serving them."
    )
    inbound: StrictBool = Field(default=False, description="Closes at once on SIGTERM (sidecar).")
    outbound: StrictBool = Field(
        default=False, description="The application's own calls come in here: the ring they carry is believed."
    )


def _listeners(value: object) -> object:
    """One address alone, or a list of addresses and mappings, as a list of mappings."""
    items = value if isinstance(value, list | tuple) else [value]
    return [item if isinstance(item, dict | Listener) else {"address": item} for item in items]


def listeners_schema(schema: dict[str, Any]) -> None:
    """The same in JSON Schema."""
    items = schema.pop("items")
    schema.pop("type")
    address = {"type": "string"}
    schema["anyOf"] = [
        address,
        {"type": "array", "minItems": schema.pop("minItems"), "items": {"anyOf": [address, items]}},
    ]
    schema["default"] = str(_LISTEN)


Listeners = Annotated[tuple[Listener, ...], Field(min_length=1), BeforeValidator(_listeners)]


class ListenerTimeouts(Model):
    """How long a client may take."""

    head: Seconds = Field(default=_LISTENER.head_timeout, description="For a complete request head.")
    idle: Seconds = Field(default=_LISTENER.idle_timeout, description="Between two requests of one connection.")
    body: Seconds = Field(default=_LISTENER.body_timeout, description="Without a byte of the request body.")
    send: Seconds = Field(default=_LISTENER.send_timeout, description="Without taking a byte of the response.")
    request: Seconds | None = Field(default=None, description="For a whole request; default: no limit.")
    tunnel: Seconds = Field(default=_LISTENER.tunnel_timeout, description="Without a byte on a WebSocket.")
    drain: Seconds = Field(
        default=_LISTENER.drain_timeout, description="For running requests to end when the router stops."
    )


class Limits(Model):
    """What one client may take; 0 is no limit, where that is possible."""

    head_bytes: Annotated[Bytes, Field(ge=1024)] = Field(default=_LIMITS.head_bytes, description="Of a request head.")
    uri_bytes: Annotated[Bytes, Field(ge=256)] = Field(default=_LIMITS.uri_bytes, description="Of a request target.")
    fields: Annotated[int, Field(strict=True, ge=10, le=10_000)] = Field(
        default=_LIMITS.fields, description="Header fields of a request."
    )
    body_bytes: Bytes = Field(default=_LIMITS.body_bytes, description="Of a request body; 0: no limit.")
    body_rate: Count = Field(
        default=_LIMITS.body_rate, description="Bytes per second an upload keeps after its first 20 s; 0: any."
    )
    requests_per_connection: Count = Field(
        default=_LIMITS.requests_per_connection, description="Before a connection is closed; 0: no limit."
    )
    connections: Count = Field(
        default=_LIMITS.connections, description="Of clients, over all workers; 0: as many as open files allow."
    )
    connections_per_client: Count = Field(
        default=_LIMITS.connections_per_client, description="From one address, in each worker; 0: no limit."
    )


class Protocol(Model):
    """What of HTTP is done, where there is a choice."""

    via: Literal["request", "both", "off"] = Field(
        default=_LISTENER.via, description="Say Via: to backends (request), to clients too (both), or not at all."
    )
    trace: StrictBool = Field(default=False, description="Let TRACE through; it shows what others added to a request.")
    expect: Literal["forward", "answer"] = Field(
        default="forward", description="Expect: 100-continue is the backend's to answer, or answered here at once."
    )
