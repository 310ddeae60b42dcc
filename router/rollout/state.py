"""Where a rollout stands between two ticks: frozen, plain, and all that ``machine.advance`` needs beside the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Literal

from router.rollout import guards
from router.rollout.guards import Guard
from router.rollout.plan import Plan, Step
from router.rollout.progress import ENDS, Event, Judged, Phase
from router.rollout.statistics.budget import Excess
from router.rollout.statistics.two_ring import Evidence

MOST_EVENTS: Final = 200
GOING_ON: Final = ("shifting", "baking", "proving", "approval", "finalising")
Kind = Literal["transition", "verdict", "override", "command", "leader"]
Why = Literal[
    "", "manual", "inconclusive", "signal", "srm", "no_data", "no_traffic", "override", "dependency", "uncalibrated",
    "harm",
]  # fmt: skip
HEALING: Final = ("no_data", "no_traffic", "dependency")
"""Pauses that end by themselves when their reason is gone."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who wants something, and why; nobody: the rollout itself."""

    name: str = ""
    reason: str = ""


ITSELF: Final = Who()


@dataclass(frozen=True, slots=True)
class Routing:
    """What Redis holds, with the config file filled in: of the rings that the plan names."""

    weights: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    holdbacks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """Times are Unix time."""

    id: str
    started_at: float
    started_by: str
    reason: str
    before: Routing
    """What routed when it began: where a rollback leads."""
    expected: Routing
    """What should route now; anything else is somebody's own doing."""
    guards: Mapping[str, Guard]
    fast: Evidence
    excess: Excess
    phase: Phase = "pending"
    why: Why = ""
    paused_in: Phase = "pending"
    judged: Judged = "inconclusive"
    step: int = 0
    round: int = 1
    step_round: int = 1
    round_at: float = 0.0
    """When the last copy of the harm tests began."""
    written_at: float = 0.0
    """When ``expected`` was written last."""
    entered_at: tuple[float, ...] = ()
    """Of each step so far."""
    left_at: tuple[float, ...] = ()
    left_users: tuple[int, ...] = ()
    """Users on the smaller side when it was left."""
    phase_at: float = 0.0
    baked: float = 0.0
    tick: int = 0
    clean_tick: int = 0
    """The first one of this step in which everybody was routed by it from its beginning."""
    at: float = 0.0
    arrived: tuple[int, int] = (0, 0)
    split_peak: float = 0.0
    fast_slices: int = 0
    recent: tuple[tuple[int, int, int, int, int, int], ...] = ()
    """Of the breaker's window: tick, requests, errors, slices; requests and errors of the control."""
    quiet_since: float = 0.0
    """Since when the candidate has had no traffic, or figures have not been whole; 0: it has, they are."""
    dark_since: float = 0.0
    fresh: int = 0
    """Whole ticks in a row."""
    first_user_at: float = 0.0
    requests_hurt: int = 0
    users_hurt: int = 0
    approvals: tuple[tuple[str, float], ...] = ()
    cause: str = ""
    """Of a rollback."""
    verdict_at: float = 0.0
    applied_after: float | None = None
    supersedes: bool = False
    ended_at: float | None = None
    live: int = 0
    waiting: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    done: tuple[str, ...] = ()
    """Commands that have been dealt with, the last hundred."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Of them, those that could not be followed, and why."""

    @property
    def has_ended(self) -> bool:
        return self.phase in ENDS

    def step_of(self, plan: Plan) -> Step:
        return plan.steps[min(self.step, len(plan.steps) - 1)]

    def users(self, plan: Plan) -> int:
        """Users of this step who have been counted, on the smaller side; by the guardrail that has most of them."""
        return max(
            (min(guard.units[0], guard.units[2]) for name, guard in self.guards.items() if name in _of_users(plan)),
            default=0,
        )

    def event(self, kind: Kind, before: str, after: str, sentence: str, by: Who = ITSELF) -> State:
        one = Event(self.at, self.tick, kind, before, after, sentence, by.name, by.reason)
        return replace(self, events=(*self.events[1 - MOST_EVENTS :], one))


def to_plain(state: State) -> dict[str, Any]:
    """For JSON; ``from_plain`` gives back exactly this."""
    plain = {one.name: getattr(state, one.name) for one in fields(state)}
    plain["guards"] = {name: guards.to_plain(guard) for name, guard in state.guards.items()}
    plain["fast"], plain["excess"] = state.fast.to_plain(), state.excess.to_plain()
    for name in ("before", "expected"):
        plain[name] = asdict(getattr(state, name))
    plain["events"] = [asdict(event) for event in state.events]
    return plain


def from_plain(plain: Mapping[str, Any]) -> State:
    """Raises ValueError, KeyError or TypeError for what ``to_plain`` cannot have made."""
    known = dict(plain)
    known["guards"] = {name: guards.from_plain(guard) for name, guard in plain["guards"].items()}
    known["fast"], known["excess"] = Evidence.from_plain(plain["fast"]), Excess.from_plain(plain["excess"])
    for name in ("before", "expected"):
        known[name] = Routing(**plain[name])
    known["events"] = tuple(Event(**event) for event in plain["events"])
    for name in ("entered_at", "left_at", "left_users", "arrived", "waiting", "done"):
        known[name] = tuple(plain[name])
    for name in ("recent", "approvals"):
        known[name] = tuple(tuple(one) for one in plain[name])
    return State(**known)


def _of_users(plan: Plan) -> set[str]:
    return {one.name for one in plan.guardrails if one.source is None}
