"""What a rollout is to do: one candidate version, walked outward step by step, and what it has to prove on the way.

Plain data; ``rollout.document`` makes it from YAML or JSON and says what is wrong with that. A plan does not change
while it runs, so that its margins cannot be fitted to what has been seen.

Durations are seconds, weights and holdbacks basis points, rates 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from router.rollout.statistics.two_ring import Margin

OnHarm = Literal["rollback", "pause"]
Outcome = Literal["errors", "http_4xx", "aborts"]
"""Of one request: 5xx or no answer at all; 4xx but 499; the client left before its answer was whole (499)."""
OnDeadline = Literal["pause", "rollback", "promote"]
OnManualEdit = Literal["pause", "adopt", "revert"]
Applies = Literal["start", "expand"]
TOLERATED: Final = Margin(1.25, 0.001)
DROP: Final = Margin(0.9)
"""Of what is worse when there is less of it."""
GROSS: Final = Margin(2.0, 0.01)
Days = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[Days, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Approval:
    """How many people have to say yes before the step is left, and how long their yes counts."""

    count: int = 1
    expires: float = 12 * 3600.0


@dataclass(frozen=True, slots=True)
class Step:
    """One ring that is widened (``weight``), or promoted (``version``: it runs the candidate from here on), or both."""

    ring: str
    promotes: bool = False
    weight: int | None = None
    holdback: int | None = None
    """Of the ring's users, those who keep the version of the next ring outward: the control of a ring whose members
    chose to be there. None: as it is."""
    bake: float = 1800.0
    """Since every live instance has applied the step."""
    min_users: int = 1000
    """On each side."""
    deadline: float | None = None
    margin: Margin | None = None
    """Of the proof of error guardrails in this step; None: the guardrail's own."""
    approval: Approval | None = None
    is_final: bool = False
    """The last one: it is left after its bake without a proof, because nobody is left to compare with."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Compared is the share of each user's requests above the control's quantile; see ``statistics.latency``."""

    quantile: float = 0.99
    shift_buckets: int = 2


@dataclass(frozen=True, slots=True)
class Source:
    """Where figures come from that the router does not count: [n_r, x_r, n_b, x_b], cumulative, asked once a tick."""

    kind: Literal["webhook", "promql"]
    url: str
    queries: tuple[str, ...] = ()
    """promql: four, in that order."""
    timeout: float = 2.0
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Guardrail:
    """Something that must not become worse. Exactly one of ``outcome``, ``latency`` and ``source`` is given."""

    name: str
    outcome: Outcome | None = None
    latency: Latency | None = None
    source: Source | None = None
    margin: Margin = TOLERATED
    """Of ``outcome`` and ``source``."""
    alpha: float = 0.01
    beta: float = 0.05
    on_harm: OnHarm = "pause"
    required: bool = False
    """Whether a step waits for its proof."""
    is_lower_worse: bool = False
    """``direction: decrease``: orders, logins. Then harm is a ring below ``margin.ratio`` (< 1) times the control."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """So many requests of the candidate fail within a window that nobody needs a control to know."""

    errors: float = 0.2
    window: float = 60.0
    min_requests: int = 20
    min_slices: int = 3


@dataclass(frozen=True, slots=True)
class Fast:
    """Gross harm, seen in requests instead of users."""

    margin: Margin = GROSS
    alpha: float = 0.001
    min_slices: int = 5


@dataclass(frozen=True, slots=True)
class Checks:
    """What makes a comparison trustworthy, or needless. None: not looked at."""

    srm_alpha: float | None = 0.001
    srm_tolerance: float = 0.05
    """Of each ring's share: a wrong split that is smaller is let pass."""
    no_traffic_grace: float | None = 600.0
    no_data_grace: float | None = 180.0
    min_reporting: float = 0.9
    """Of the live instances, before a tick is evidence."""
    breaker: Breaker | None = Breaker()
    fast: Fast | None = Fast()
    aa_most_alarms: int | None = 2
    """Of 64 slices of the control; with more a guardrail is uncalibrated and may only pause."""


@dataclass(frozen=True, slots=True)
class RiskBudget:
    """``expansion: {strategy: risk_budget}``: see ``statistics.budget``. Weights in basis points."""

    users: int = 50
    min_step: int = 50
    max_factor: float = 5.0


@dataclass(frozen=True, slots=True)
class Window:
    """When a rollout must not start or go on: minutes of these days in this time zone. It may always go back."""

    days: tuple[Days, ...]
    begin: int = 0
    end: int = 24 * 60
    """Minutes since midnight; one at or before ``begin`` is of the next day."""
    timezone: str = "UTC"
    applies: tuple[Applies, ...] = ("start", "expand")


@dataclass(frozen=True, slots=True)
class Dependency:
    """Another service's ring that has to run a version (or a later one is not known: exactly this one)."""

    service: str
    version: str
    ring: str


@dataclass(frozen=True, slots=True)
class Notify:
    """A webhook; ``slack``: its text form, else the event as JSON."""

    url: str
    form: Literal["json", "slack"] = "json"
    events: tuple[str, ...] = ("transition", "verdict", "override")


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it. ``steps`` is never empty, and exactly the last one may be final."""

    service: str
    stable: str
    candidate: str
    steps: tuple[Step, ...]
    guardrails: tuple[Guardrail, ...]
    mode: Literal["enforce", "observe"] = "enforce"
    checks: Checks = Checks()
    tick: float = 10.0
    """Seconds; evidence is taken in at its end."""
    window: float = 600.0
    """Seconds that a user is watched for, from when they are first seen in a round; then they count, once."""
    restart: float = 1800.0
    """Seconds between delayed starts of the harm tests."""
    copies: int = 16
    """Of each harm test, at the most."""
    shift_seconds: float = 60.0
    """How long a step waits for instances that have not applied it, before it bakes without them and says so."""
    budget: RiskBudget | None = None
    on_deadline: OnDeadline = "pause"
    on_manual_edit: OnManualEdit = "pause"
    cooldown: float = 3600.0
    """After a rollback, before the same candidate may be tried again."""
    forward_only: bool = False
    """Harm pauses instead of rolling back."""
    after_success: float = 7 * 86400.0
    """How long ``rollback`` still works when it has succeeded."""
    windows: tuple[Window, ...] = ()
    depends_on: tuple[Dependency, ...] = ()
    notify: tuple[Notify, ...] = ()
