"""How a rollout stands, in the words and figures that people are shown: the API, the command line and the dashboard
say nothing else.

Weights are percent, rates 0 to 1, durations seconds, times Unix time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Phase = Literal[
    "pending", "waiting", "shifting", "baking", "proving", "approval", "finalising", "succeeded",
    "paused", "rolling_back", "rolled_back", "rollback_stalled", "superseded", "aborted",
]  # fmt: skip
"""The last five but ``paused`` and ``rolling_back``, and ``succeeded``, are ends."""
ENDS: tuple[Phase, ...] = ("succeeded", "rolled_back", "rollback_stalled", "superseded", "aborted")
Judged = Literal["successful", "failed", "inconclusive", "error"]
Standing = Literal["collecting", "within", "breached", "no_data", "uncalibrated"]


@dataclass(frozen=True, slots=True)
class StepProgress:
    """One stage of the pipeline."""

    ring: str
    promotes: bool
    weight: float | None
    holdback: float | None
    bake: float
    min_users: int
    deadline: float | None
    approvals: int
    """How many yeses it takes."""
    stands: Literal["done", "current", "ahead"]
    entered_at: float | None = None
    left_at: float | None = None
    baked: float = 0.0
    users: int = 0
    """On the smaller side."""
    approved_by: tuple[str, ...] = ()
    sentence: str = ""
    """``canary runs v2 at 5 %``"""


@dataclass(frozen=True, slots=True)
class Proof:
    """One direction of one guardrail: ln E, the level that it has to reach, and about how many more ring users."""

    log_e: float
    level: float
    peak: float
    is_reached: bool
    units_needed: int | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """What came of one side in this step: users, and the sum of their outcomes."""

    units: int
    outcomes: float


@dataclass(frozen=True, slots=True)
class Gauge:
    """One guardrail: what a tile of the dashboard shows."""

    name: str
    kind: Literal["outcome", "latency", "source"]
    title: str
    """``errors: at most 1.25 × the control's + 0.1 points``"""
    on_harm: str
    is_required: bool
    standing: Standing
    harm: Proof
    proof: Proof
    ring: Side
    control: Side
    difference: tuple[float, float, float] | None = None
    """Estimate, low and high of the ring's rate minus the control's (always valid, 95 %)."""
    limit: float | None = None
    """What is tolerated of it now."""
    alarms: int = 0
    """A/A slices of 64 that ever cried wolf."""
    sentence: str = ""
    """``p99 not yet proven (ln E 1.9 of 3.0, about 2,400 more users)``"""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, as the audit has it."""

    at: float
    tick: int
    kind: Literal["transition", "verdict", "override", "command", "leader"]
    before: str
    after: str
    sentence: str
    actor: str = ""
    """Empty: the rollout itself."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a rollback cost, and how long it took."""

    cause: str
    seconds_to_verdict: float
    """Since the candidate had its first user in the step."""
    users_hurt: int
    requests_hurt: int
    seconds_to_apply: float | None = None
    """From the verdict until the last live instance had applied it; None: not yet."""


@dataclass(frozen=True, slots=True)
class Point:
    """Of the curve of one guardrail: a tick's time, and the difference with its band (see ``Gauge``)."""

    at: float
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything about one rollout."""

    id: str
    """``shop-1764061200``"""
    service: str
    stable: str
    candidate: str
    mode: Literal["enforce", "observe"]
    phase: Phase
    why: str
    """Of a pause: manual, inconclusive, signal, srm, no_data, no_traffic, override, dependency, uncalibrated."""
    judged: Judged
    headline: str
    """``holding canary at 5 %: p99 not yet proven (ln E 1.9 of 3.0, about 2,400 more users)``"""
    next: str
    """What happens next, and what would make it go back."""
    step: int
    steps: tuple[StepProgress, ...]
    gauges: tuple[Gauge, ...]
    notes: tuple[str, ...]
    """Checks that are not silent: instances that wait, a wrong split, an uncalibrated guardrail."""
    events: tuple[Event, ...]
    """The oldest first."""
    started_at: float
    started_by: str
    reason: str
    at: float
    """Of the last tick."""
    tick: int
    leader: str
    live: int
    applied: int
    """Of the live instances, those that route by it."""
    rollback: Rollback | None = None
    curves: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    """Guardrail → at most 200 points of this rollout."""
    markers: tuple[tuple[float, str], ...] = ()
    """When a step began, and its sentence."""
    ended_at: float | None = None
    split_p: float = 1.0
    """Of users arriving in the shares that were asked for, in this step: an always-valid p-value."""
