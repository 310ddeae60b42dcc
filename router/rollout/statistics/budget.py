"""How much worse the ring can be at most, and how far it may be widened on that: the proven bound and the risk budget.

Safe tests with ρ = 1 run for a grid of δ. The bound δ* is the smallest δ that has been rejected together with all
larger ones. **Guarantee**: P(ever δ* < the true excess) ≤ β, by inversion: of all δ up to the true excess, the largest
would have to be rejected falsely. The excess meant is one that holds in every tick.

The next weight w' is the largest with (w' − w) · users per bake · δ* ≤ budget: that many users may be hurt before
anybody could know. After the risk-based ramps of Uber and LinkedIn (SQR).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Final

from router.rollout.statistics.levels import proof_level
from router.rollout.statistics.two_ring import Evidence, Margin, Side, Tick, TwoRing

EXCESS_PPM: Final = (500, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000)
"""The grid of δ in parts per million: 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5 and 10 pp."""
_TESTS: Final = tuple(TwoRing(Side.SAFE, Margin(1.0, ppm / 1e6)) for ppm in EXCESS_PPM)
WHOLE: Final = 10_000
"""Basis points."""


@dataclass(frozen=True, slots=True)
class Excess:
    """The safe tests of the whole grid."""

    evidence: tuple[Evidence, ...]

    @classmethod
    def begin(cls) -> Excess:
        return cls(tuple(test.begin() for test in _TESTS))

    def after(self, tick: Tick) -> Excess:
        return Excess(tuple(test.after(known, tick) for test, known in zip(_TESTS, self.evidence, strict=True)))

    def bound_ppm(self, beta: float = 0.05) -> int | None:
        """δ* in parts per million; None while not even the largest of the grid is ruled out."""
        level, bound = proof_level(beta), None
        for ppm, known in zip(reversed(EXCESS_PPM), reversed(self.evidence), strict=True):
            if known.peak < level:
                break
            bound = ppm
        return bound

    def to_plain(self) -> list[dict[str, object]]:
        """For JSON; ``from_plain`` gives back exactly this."""
        return [known.to_plain() for known in self.evidence]

    @classmethod
    def from_plain(cls, plain: object) -> Excess:
        """Raises ValueError for what ``to_plain`` cannot have made."""
        if not isinstance(plain, list) or len(plain) != len(EXCESS_PPM):
            raise ValueError(f"the evidence of {len(EXCESS_PPM)} tests is needed, not {plain!r}")
        known = []
        for one, test in zip(plain, _TESTS, strict=True):
            if not isinstance(one, Mapping):
                raise ValueError(f"not the evidence of a two-ring test: {one!r}")
            evidence = Evidence.from_plain(one)
            if len(evidence.logs) != len(test.multiples):
                raise ValueError(f"{len(test.multiples)} alternatives are needed, not {len(evidence.logs)}")
            known.append(evidence)
        return cls(tuple(known))


def next_weight(
    weight: int,
    bound_ppm: int | None,
    *,
    users_per_bake: int,
    budget_users: int,
    min_step: int = 50,
    max_factor: float = 5.0,
) -> int:
    """The weight in basis points that the budget allows next; the same weight: hold, there is not enough proof yet.

    ``users_per_bake`` is how many users the whole service sees in a bake, ``min_step`` (basis points) what a step has
    to be worth, ``max_factor`` how many times the present weight it may reach. The last step to everybody may be
    smaller.
    """
    if not 0 <= weight <= WHOLE or users_per_bake < 0 or budget_users < 0 or max_factor < 1:
        raise ValueError(f"a weight in 0…{WHOLE} basis points and a budget of whole users are needed")
    if bound_ppm is None or weight == WHOLE:
        return weight
    hurt_per_whole = users_per_bake * bound_ppm
    step = WHOLE if hurt_per_whole == 0 else budget_users * 1_000_000 * WHOLE // hurt_per_whole
    reached = min(weight + step, WHOLE)
    if weight > 0:
        reached = min(reached, floor(weight * max_factor))
    is_worth_it = reached - weight >= min_step or (reached == WHOLE > weight)
    return reached if is_worth_it else weight
