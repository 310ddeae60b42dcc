"""The config's part about processes: when they are watched, replaced and ended."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from router.config.edge import Socket
from router.config.model import Bytes, Model, Seconds
from router.config.values import parse_duration
from router.core.spec import RecycleSpec


def _wait(value: object) -> float:
    """Seconds; 0 is allowed here, and is no wait."""
    return 0.0 if value in (0, "0s") and not isinstance(value, bool) else parse_duration(value)


def _watchdog(value: object) -> float:
    """Seconds; 0 for off."""
    return 0.0 if value == "off" else parse_duration(value)


_DURATION: Final[dict[str, Any]] = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)$"}
Wait = Annotated[
    float,
    PlainValidator(_wait),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 86400}, _DURATION]}),
]
Watchdog = Annotated[
    float,
    PlainValidator(_watchdog),
    PlainSerializer(lambda seconds: seconds or "off"),
    WithJsonSchema({"anyOf": [{"const": "off"}, {"type": "number", "exclusiveMinimum": 0}, _DURATION]}),
]
Whole = Annotated[int, Field(strict=True, ge=1, le=10**15)]


class Recycle(Model):
    """When a worker is replaced by a new one, give or take a tenth; absent: never."""

    after: Seconds | None = Field(default=None, description="Its age.")
    requests: Whole | None = Field(default=None, description="The requests it has answered.")
    resident: Bytes | None = Field(default=None, description="Its resident memory.")

    def spec(self) -> RecycleSpec:
        return RecycleSpec(self.after or 0.0, self.requests or 0, self.resident or 0)


class Shutdown(Model):
    """What happens on SIGTERM before the workers drain."""

    delay: Wait = Field(default=0.0, description="/ready says no for so long, and everything is still served.")
    deadline: Seconds = Field(default=30.0, description="How long a sidecar waits for its application to end.")


class Sidecar(Model):
    """On SIGTERM listeners marked `inbound` close at once; the others serve until the application is gone."""

    app: Socket = Field(description="Where the application listens: host:port, [ipv6]:port or unix:/path.")
