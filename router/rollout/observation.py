"""What a rollout is told at the end of each tick: all that its verdicts rest on, and nothing of whose users it was.

Kept in Redis as it was said, so that whoever has the plan and the observations gets every verdict again
(``rollout.machine`` is a fold over them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Verb = Literal["pause", "resume", "approve", "promote", "rollback", "abort"]
How = Literal["", "adopt", "restore", "accept", "superseded"]
VERBS: Final[tuple[Verb, ...]] = ("pause", "resume", "approve", "promote", "rollback", "abort")


@dataclass(frozen=True, slots=True)
class Command:
    """What a person wants. ``how`` of ``resume``: ``""``, ``adopt`` (go on from the weights that somebody has set),
    ``restore`` (put the plan's back), ``accept`` (count the step as done without its proof). Of ``rollback``:
    ``superseded`` (another plan takes its place)."""

    id: str
    verb: Verb
    actor: str
    reason: str = ""
    how: How = ""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Users of one stratum whose windows closed in this tick, as units of one guardrail.

    They were first seen in ``round``, and since the round ``since`` not before that: a test that began in between, both
    included, counts them now and has not counted them yet.
    """

    guardrail: str
    stratum: str
    since: int
    round: int
    ring_units: int
    ring_outcomes: float
    control_units: int
    control_outcomes: float


@dataclass(frozen=True, slots=True)
class Observation:
    """One tick."""

    tick: int
    """Its number: Unix time // tick length."""
    at: float
    """When it was evaluated, Unix time of Redis."""
    is_whole: bool = True
    """False for a look between two ticks, which has no figures: only people, routing and what instances have applied.
    """
    cohorts: tuple[Cohort, ...] = ()
    ring_requests: int = 0
    """Of the candidate, by users who can be compared, in this tick; then those that failed, and in how many slices."""
    ring_errors: int = 0
    failing_slices: int = 0
    """A set of bits: the slices (0 to 63) that failed requests of the candidate come from."""
    users_hurt: int = 0
    """Of the candidate, users to whom a request has failed for the first time."""
    control_requests: int = 0
    control_errors: int = 0
    all_requests: int = 0
    """Of the whole service, whoever asked."""
    arrived: tuple[int, int] = (0, 0)
    """Users whom the hash gave the candidate, and those whom it did not and who are looked at, each counted once since
    the step began; for the sample-ratio test."""
    share: float = 0.0
    """How large the first part of them should be."""
    slices: tuple[tuple[str, tuple[int, ...], tuple[float, ...]], ...] = ()
    """A/A: guardrail, and per slice of the control its units and outcomes."""
    weights: tuple[tuple[str, int], ...] = ()
    """As Redis holds them, config file filled in: ring → basis points, without the default ring."""
    versions: tuple[tuple[str, str], ...] = ()
    holdbacks: tuple[tuple[str, int], ...] = ()
    killed: tuple[str, ...] = ()
    freeze: str = ""
    live: tuple[str, ...] = ()
    """Instances that are there."""
    waiting: tuple[str, ...] = ()
    """Those of them that do not route by this yet."""
    applied_at: float = 0.0
    """When the last of the others said that it does; 0: nobody has."""
    reporting: int = 0
    """Those of them whose figures of this tick are there."""
    open_breakers: int = 0
    """Workers that send the candidate's users outward on their own."""
    missing: tuple[str, ...] = ()
    """Guardrails that could not be asked: an error is never evidence."""
    lost: tuple[str, ...] = ()
    """Dependencies that do not hold, as sentences."""
    closed: str = ""
    """The window that forbids to go on, as a sentence; empty: none does."""
    commands: tuple[Command, ...] = ()
