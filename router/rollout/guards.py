"""One guardrail's evidence through a rollout: is harm proven, is this step proven to be within tolerance?

*Harm* runs for the whole rollout, in copies that begin with rounds: hours of good data do not hide a leak that comes
late. Each copy counts a user once since its own start, so what any of them may say is paid for by the union over
copies and guardrails: ln E ≥ ln(copies · M / α). *Proof* begins anew with each step, and is never carried over; all
required guardrails must have it, each at 1/β. See ``statistics.two_ring`` for what that guarantees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from router.rollout.observation import Cohort
from router.rollout.plan import Guardrail, Plan, Step
from router.rollout.statistics.calibration import Calibration
from router.rollout.statistics.levels import harm_level, proof_level
from router.rollout.statistics.two_ring import Evidence, Margin, Side, Tick, TwoRing

NO_MARGIN: Final = Margin()


@dataclass(frozen=True, slots=True)
class Tests:
    """What of a plan a guardrail is tested by, in one of its steps."""

    harm: TwoRing
    proof: TwoRing
    harm_level: float
    proof_level: float
    copies: int
    alpha: float


def tests_of(plan: Plan, guardrail: Guardrail, step: Step) -> Tests:
    """``step.margin`` is of the proof of what is counted by outcome: early steps with few users tolerate more."""
    margin = NO_MARGIN if guardrail.latency is not None else guardrail.margin
    proven = step.margin if step.margin is not None and guardrail.outcome is not None else margin
    sides = (Side.SAFE, Side.HARM) if guardrail.is_lower_worse else (Side.HARM, Side.SAFE)
    return Tests(
        TwoRing(sides[0], margin), TwoRing(sides[1], proven),
        harm_level(guardrail.alpha, tests=len(plan.guardrails), copies=plan.copies), proof_level(guardrail.beta),
        plan.copies, guardrail.alpha,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Copy:
    """One harm test, and the round that it began in."""

    begun: int
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Guard:
    """What is known of one guardrail."""

    copies: tuple[Copy, ...]
    proof: Copy
    units: tuple[int, float, int, float] = (0, 0.0, 0, 0.0)
    """Of this step: ring units and their outcomes, control units and theirs."""
    aa: Calibration | None = None

    @property
    def peak(self) -> float:
        """The greatest ln E of harm that any copy ever had."""
        return max((copy.evidence.peak for copy in self.copies), default=0.0)


def begin(tests: Tests, round_: int) -> Guard:
    first = Copy(round_, tests.harm.begin())
    return Guard((first,), Copy(round_, tests.proof.begin()), aa=Calibration.begin(tests.harm))


def with_step(guard: Guard, tests: Tests, round_: int) -> Guard:
    """A new step: the proof begins anew, and another copy of the harm test if there may be one."""
    return replace(with_copy(guard, tests, round_), proof=Copy(round_, tests.proof.begin()), units=(0, 0.0, 0, 0.0))


def with_copy(guard: Guard, tests: Tests, round_: int) -> Guard:
    """A delayed start."""
    if len(guard.copies) >= tests.copies:
        return guard
    return replace(guard, copies=(*guard.copies, Copy(round_, tests.harm.begin())))


def let_pass(guard: Guard, tests: Tests, round_: int) -> Guard:
    """Somebody has decided about a harm that was found: what is counted from here on may find it again."""
    return replace(guard, copies=(Copy(round_, tests.harm.begin()),)) if is_harmful(guard, tests) else guard


def after(
    guard: Guard, tests: Tests, cohorts: Sequence[Cohort], slices: tuple[Sequence[int], Sequence[float]] | None
) -> Guard:
    """One more tick. ``cohorts`` are this guardrail's alone; ``slices`` are units and outcomes of the control's."""
    copies = tuple(
        Copy(copy.begun, _fed(tests.harm, copy.evidence, _ticks(cohorts, copy.begun))) for copy in guard.copies
    )
    proof = Copy(guard.proof.begun, _fed(tests.proof, guard.proof.evidence, _ticks(cohorts, guard.proof.begun)))
    units = guard.units
    for tick in _ticks(cohorts, guard.proof.begun):
        units = (
            units[0] + tick.ring_units, units[1] + tick.ring_outcomes,
            units[2] + tick.control_units, units[3] + tick.control_outcomes,
        )  # fmt: skip
    aa = guard.aa
    if aa is not None and slices is not None:
        aa = aa.after(tests.harm, *slices)
    return Guard(copies, proof, units, aa)


def _ticks(cohorts: Iterable[Cohort], begun: int) -> list[Tick]:
    """What a test that began in a round gets of a tick: a tick for each stratum."""
    strata: dict[str, list[float]] = {}
    for one in cohorts:
        if one.since <= begun <= one.round:
            total = strata.setdefault(one.stratum, [0, 0.0, 0, 0.0])
            total[0] += one.ring_units
            total[1] += one.ring_outcomes
            total[2] += one.control_units
            total[3] += one.control_outcomes
    return [
        Tick(int(total[0]), min(total[1], total[0]), int(total[2]), min(total[3], total[2]))
        for total in strata.values()
    ]


def _fed(test: TwoRing, evidence: Evidence, ticks: Iterable[Tick]) -> Evidence:
    for tick in ticks:
        evidence = test.after(evidence, tick)
    return evidence


def is_harmful(guard: Guard, tests: Tests) -> bool:
    return guard.peak >= tests.harm_level


def is_proven(guard: Guard, tests: Tests) -> bool:
    return guard.proof.evidence.peak >= tests.proof_level


def is_calibrated(guard: Guard, tests: Tests, most: int | None) -> bool:
    return guard.aa is None or most is None or guard.aa.is_calibrated(tests.alpha, most)


def to_plain(guard: Guard) -> dict[str, Any]:
    """For JSON; ``from_plain`` gives back exactly this."""
    return {
        "copies": [[copy.begun, copy.evidence.to_plain()] for copy in guard.copies],
        "proof": [guard.proof.begun, guard.proof.evidence.to_plain()],
        "units": [*guard.units],
        "aa": None if guard.aa is None else guard.aa.to_plain(),
    }


def from_plain(plain: Mapping[str, Any]) -> Guard:
    """Raises ValueError, KeyError or TypeError for what ``to_plain`` cannot have made."""
    n_r, x_r, n_b, x_b = plain["units"]
    return Guard(
        tuple(Copy(int(begun), Evidence.from_plain(one)) for begun, one in plain["copies"]),
        Copy(int(plain["proof"][0]), Evidence.from_plain(plain["proof"][1])),
        (int(n_r), float(x_r), int(n_b), float(x_b)),
        None if plain["aa"] is None else Calibration.from_plain(plain["aa"]),
    )
