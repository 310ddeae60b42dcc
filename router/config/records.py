"""The part of the config about what is written down of requests: the access log and traces."""

from __future__ import annotations

import importlib.util
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from router.config.document import Document
from router.config.model import Model, Text
from router.config.trust import SigningKey
from router.core.records import AccessLogSpec, LogFormat, TracingSpec

_STDOUT: Final = "stdout"
_TRACES: Final = "/v1/traces"
_PERSON: Final = b"access log"
"""So that what is hashed here is no hash of anything else with the same key."""


def _check_log_path(value: str) -> str:
    if value != _STDOUT and not value.startswith("/"):
        raise ValueError(f"{value!r} is neither {_STDOUT} nor a path from the root, such as /var/log/ring-router.log")
    return value


Share = Annotated[float, Field(strict=True, ge=0, le=1)]


def _check_endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("where spans are sent is a URL such as http://127.0.0.1:4318")
    if parts.path.rstrip("/").endswith(_TRACES):
        raise ValueError(f"leave {_TRACES} out: it is put behind the URL")
    return value


class Sample(Model):
    """The share of requests that has a line, by the class of its status."""

    informational: Share = Field(default=1.0, alias="1xx", description="WebSockets.")
    successful: Share = Field(default=1.0, alias="2xx", description="Of them all, such as 0.01 for one in a hundred.")
    redirection: Share = Field(default=1.0, alias="3xx", description="Likewise.")
    client_error: Share = Field(default=1.0, alias="4xx", description="Likewise.")
    server_error: Share = Field(
        default=1.0, alias="5xx", description="Likewise; answers of 2xx and 3xx that were broken off are among them."
    )

    @property
    def rates(self) -> tuple[float, ...]:
        """From 1xx to 5xx; empty where every request has a line."""
        found = (self.informational, self.successful, self.redirection, self.client_error, self.server_error)
        return () if min(found) == 1.0 else found


class AccessLogSettings(Model):
    """The access log."""

    format: LogFormat = Field(
        default="json", description="json, ecs (Elastic Common Schema), combined (as Apache), or off."
    )
    path: Annotated[Text, AfterValidator(_check_log_path)] = Field(
        default=_STDOUT, description="stdout, or a file; SIGUSR1 has it opened anew."
    )
    sample: Sample = Field(default=Sample(), description="The share of requests that has a line, by status class.")
    identity: Literal["off", "hashed"] = Field(
        default="off", description="hashed: lines have a hash of the user's key, keyed with the first of signing_keys."
    )

    def spec(self, keys: tuple[SigningKey, ...]) -> AccessLogSpec:
        key = b""
        if self.identity == "hashed" and keys:
            key = blake2b(keys[0].secret.encode(), person=_PERSON, digest_size=32).digest()
        path = "" if self.path == _STDOUT else self.path
        return (
            AccessLogSpec(self.format, path, self.sample.rates, key) if self.format != "off" else AccessLogSpec("off")
        )


class Tracing(Model):
    """Spans of requests, sent by OTLP over HTTP; needs the extra otel."""

    endpoint: Annotated[str, AfterValidator(_check_endpoint)] = Field(
        description="Of a collector, such as http://127.0.0.1:4318; /v1/traces is put behind it."
    )
    sample: Share = Field(
        default=0.001, description="The share of requests that has a span, where their caller does not decide."
    )
    service_name: Text = Field(default="ring-router", description="What the router is called in traces.")

    @property
    def spec(self) -> TracingSpec:
        return TracingSpec(self.sample)

    @property
    def url(self) -> str:
        """Where spans are sent to."""
        return self.endpoint.rstrip("/") + _TRACES


def _has_exporter() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def _log(value: object) -> object:
    """A word alone is the format."""
    return {"format": value} if isinstance(value, str) else value


def access_log_schema(schema: dict[str, Any]) -> None:
    """The same in JSON Schema."""
    mapping = {key: schema.pop(key) for key in ("$ref", "allOf") if key in schema}
    schema["anyOf"] = [{"enum": ["json", "ecs", "combined", "off"]}, mapping]


AccessLog = Annotated[AccessLogSettings, BeforeValidator(_log)]


def check_records(document: Document) -> None:
    """Note what only several values together can get wrong."""
    data = document.data if isinstance(document.data, dict) else {}
    log = data.get("access_log")
    if isinstance(log, dict) and log.get("identity") == "hashed" and not data.get("signing_keys"):
        document.add_at(
            ("access_log", "identity"),
            "`identity: hashed` needs a key that nobody else has: add one to `signing_keys`, or leave the key out",
        )
    if data.get("tracing") is not None and not _has_exporter():
        why = "spans are sent by OpenTelemetry's exporter, which is not installed"
        document.add_at(("tracing",), f"{why}: pip install 'ring-router[otel]'", at_key=True)
