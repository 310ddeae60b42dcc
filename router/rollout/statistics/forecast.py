"""How many more units a test will probably need: an estimate for people ("about 2,400 more"), not a promise."""

from __future__ import annotations

from typing import Final

from router.rollout.statistics.two_ring import Evidence, Tick, TwoRing

FAR: Final = 10_000_000
"""Ring units beyond which it is "never"."""


def units_to_reach(
    test: TwoRing,
    evidence: Evidence,
    level: float,
    *,
    ring_mean: float,
    control_mean: float,
    control_per_ring: float,
) -> int | None:
    """Ring units until ln E reaches ``level``, were every outcome from now on exactly its mean; None: not in reach.

    Along that way ln E is convex in the number of units, so below the level it crosses only once, found by halving.
    """

    def log_e(units: int) -> float:
        control = round(units * control_per_ring)
        tick = Tick(units, min(units * ring_mean, units), control, min(control * control_mean, control))
        return test.log_e(test.after(evidence, tick))

    if test.log_e(evidence) >= level:
        return 0
    low, high = 0, 1
    while log_e(high) < level:
        low, high = high, high * 2
        if high > FAR:
            return None
    while high - low > 1:
        half = (low + high) // 2
        low, high = (half, high) if log_e(half) < level else (low, half)
    return high
