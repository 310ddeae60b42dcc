"""What is written down of requests, as plain data: the access log and traces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

LogFormat = Literal["json", "combined", "ecs", "off"]


@dataclass(frozen=True, slots=True)
class AccessLogSpec:
    """The access log of every worker. ``path`` empty: standard output."""

    format: LogFormat = "json"
    path: str = ""
    rates: tuple[float, ...] = ()
    """The share of lines that is written, for statuses from 1xx to 5xx; empty: all of them."""
    identity_key: bytes = b""
    """What users' keys are hashed with; empty: lines say nothing of users."""


@dataclass(frozen=True, slots=True)
class TracingSpec:
    """Which requests have a span: those whose caller says so, and a share of those whose caller says nothing."""

    rate: float


JSON_LOG: Final = AccessLogSpec()
NO_LOG: Final = AccessLogSpec("off")
