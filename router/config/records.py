"""The part of the config about what is written down of requests: the access log and traces."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from router.config.document import Document
from router.config.model import Model, Text
from router.config.trust import SigningKey
from router.core.records import AccessLogSpec, LogFormat

_STDOUT: Final = "stdout"
_PERSON: Final = b"access log"
"""So that what is hashed here is no hash of anything else with the same key."""


def _check_log_path(value: str) -> str:
    if value != _STDOUT and not value.startswith("/"):
        raise ValueError(f"{value!r} is neither {_STDOUT} nor a path from the root, such as /var/log/ring-router.log")
    return value


Share = Annotated[float, Field(strict=True, ge=0, le=1)]


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
