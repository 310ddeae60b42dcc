"""The picture of the rings: what is known of each service × ring × version, as plain data that is shown as it is.

Whoever counts fills it, whoever shows it encodes it. No traffic is None, never 0: nobody has failed where nobody asked.
Shares and weights are percent, durations milliseconds, instants Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

POINTS: Final = 60
"""Of a sparkline: one a second, the newest last."""

Scope = Literal["fleet", "instance"]
Verdict = Literal["within", "breached", "collecting", "no_data"]
"""within: proven not worse than what is tolerated; breached: proven worse; collecting: neither yet; no_data: no traffic
here, or none to compare it with."""
Metric = Literal["rps", "success", "share", "p50", "p95", "p99"]
Unit = Literal["requests/s", "percent", "ms"]
UNITS: Final[Mapping[Metric, Unit]] = {
    "rps": "requests/s", "success": "percent", "share": "percent", "p50": "ms", "p95": "ms", "p99": "ms",
}  # fmt: skip


class Estimate(msgspec.Struct, frozen=True):
    """A figure with the bounds between which the truth is, whenever one looks (a confidence sequence)."""

    value: float
    low: float
    high: float


class Difference(msgspec.Struct, frozen=True):
    """A ring's version beside its outer ring's. ``errors`` in percentage points, the others in milliseconds."""

    metric: Literal["errors", "p50", "p95", "p99"]
    verdict: Verdict
    sentence: str
    """``errors 0.21 % against 0.06 %: between 0.02 and 0.30 points more``"""
    estimate: Estimate | None = None
    limit: float | None = None
    """What is tolerated, where something is said about that."""


class Spark(msgspec.Struct, frozen=True):
    """The last minute, one point a second, the newest last; in a ``tick`` the newest alone."""

    rps: list[float]
    success: list[float | None]
    p95: list[float | None]


class VersionFigures(msgspec.Struct, frozen=True):
    """What the users of one ring experience with one version, over the picture's window."""

    version: str
    is_target: bool
    """Whether the ring runs this version now. Others have what fell outward, and what was under way at a change."""
    requests: int
    rps: float
    share: float | None
    """Of the ring's requests."""
    codes: dict[str, int]
    """Status → requests."""
    reasons: dict[str, int]
    """How they came into the ring → requests."""
    success: Estimate | None
    p50: float | None
    p95: float | None
    p99: float | None
    in_flight: int
    compared_with: str | None
    """``ring/version`` that the differences are to; None for the default ring."""
    differences: list[Difference]
    verdict: Verdict
    spark: Spark


class RingFigures(msgspec.Struct, frozen=True):
    """One audience. ``target`` is what the hash gives it, ``actual`` its share of the service's requests."""

    ring: str
    version: str
    """The one it runs."""
    is_default: bool
    is_killed: bool
    target: float
    actual: Estimate | None
    by_hash: float | None
    """Its share of those requests that the hash decided: what is comparable with ``target``."""
    members: int
    rps: float
    versions: list[VersionFigures]
    """The one it runs first."""
    verdict: Verdict


class Split(msgspec.Struct, frozen=True):
    """Whether the shares are what the weights say: the always-valid test of the sample ratio."""

    verdict: Verdict
    p_value: float | None
    sentence: str


class ServiceFigures(msgspec.Struct, frozen=True):
    """One service; ``rings`` inner → outer."""

    service: str
    rev: str
    """What a write has to name in ``expected_rev``; "" where there is no Redis."""
    source: Literal["redis", "disk", "config"]
    freeze: str
    rps: float
    verdict: Verdict
    split: Split
    rings: list[RingFigures]
    weights_rev: str = ""
    """The ``rev`` field of the weights hash, as it was written; for people."""


class Picture(msgspec.Struct, frozen=True):
    """Everything at one moment. ``scope`` instance: this router alone, because that was asked or Redis is away."""

    at: float
    scope: Scope
    window_seconds: int
    instances: int
    generation: int
    applied_everywhere: int
    store: Literal["live", "poll", "down", "off"]
    services: dict[str, ServiceFigures]


class Series(msgspec.Struct, frozen=True):
    """One metric over time. ``points[i]`` covers ``[begin + i × step, begin + (i + 1) × step)``; None: no traffic."""

    service: str
    ring: str
    version: str
    metric: Metric
    unit: Unit
    begin: float
    step: int
    points: list[float | None]


class Instance(msgspec.Struct, frozen=True):
    """One router of the fleet, as it said last of itself."""

    instance: str
    is_self: bool
    is_fresh: bool
    """Whether it wrote within the last minute."""
    at: float
    generation: int
    rev: dict[str, str]
    """Service → the weights' ``rev`` that it has applied."""
    source: dict[str, str]
    refused: list[str]
    warnings: list[str]
    is_current: bool
    """Whether it routes by what Redis holds now: by generation they cannot be compared, each counts its own."""


class Fleet(msgspec.Struct, frozen=True):
    """Which instances there are, and how many of them route by what is in force."""

    is_complete: bool
    """False: Redis is away, and this is this instance alone."""
    instances: list[Instance]
    current: int
    count: int
    sentence: str
    """``17 of 18 instances route by what Redis holds now``"""
