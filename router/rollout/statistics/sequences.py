"""Confidence sequences of rates, for display: at every moment at once they cover the truth with 1 − α.

They suppose that units are independent and that a ring's rate is the same throughout the epoch, which the evidence of
``two_ring`` does not. Draw them; never act on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log

from router.rollout.statistics.special import log_beta, log_power

PRIOR = 0.5
"""Of ``rate_sequence``: Beta(1/2, 1/2)."""
RATIO_PRIOR = 2.0
"""k of ``ratio_sequence``."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and what covers the truth; an end that is not known is infinite."""

    estimate: float
    low: float
    high: float


def _edges(log_e: Callable[[float], float], best: float, level: float) -> tuple[float, float]:
    """Where ``log_e``, convex on (0, 1) and least at ``best``, reaches ``level``: by halving, outward to 2⁻⁶⁰."""

    def edge(inside: float, outside: float) -> float:
        for _ in range(200):
            middle = (inside + outside) / 2
            if middle in (inside, outside) or abs(outside - inside) < 1e-12 * max(inside, outside):
                break
            if log_e(middle) < level:
                inside = middle
            else:
                outside = middle
        return outside

    return (edge(best, 0.0) if best > 0 else 0.0), (edge(best, 1.0) if best < 1 else 1.0)


def rate_sequence(failed: float, units: int, alpha: float = 0.05) -> Interval:
    """The mean outcome of a ring in [0, 1], all values θ with

        lnB(½+x, ½+n−x) − lnB(½, ½) − x ln θ − (n−x) ln(1−θ) < ln(1/α)

    the ratio of prior to posterior being a martingale at the true θ (Waudby-Smith & Ramdas, NeurIPS 2020, arXiv
    2006.04347). Units: outcomes 0 or 1. Nobody there: everything is possible.
    """
    if not 0 <= failed <= units:
        raise ValueError(f"{units} units cannot have {failed} failures")
    if units == 0:
        return Interval(0.0, 0.0, 1.0)
    known = log_beta(PRIOR + failed, PRIOR + units - failed) - log_beta(PRIOR, PRIOR)
    best = failed / units

    def log_e(rate: float) -> float:
        return known - log_power(failed, rate) - log_power(units - failed, 1 - rate)

    low, high = _edges(log_e, best, -log(alpha))
    return Interval(best, low, high)


def difference_sequence(
    ring_failed: float, ring_units: int, control_failed: float, control_units: int, alpha: float = 0.05
) -> Interval:
    """The ring's rate minus the control's: a sequence for each at α/2, and what their ends allow. Without units in one
    of the two the estimate is 0 and means nothing."""
    ring = rate_sequence(ring_failed, ring_units, alpha / 2)
    control = rate_sequence(control_failed, control_units, alpha / 2)
    estimate = ring.estimate - control.estimate if ring_units and control_units else 0.0
    return Interval(estimate, ring.low - control.high, ring.high - control.low)


def ratio_sequence(
    ring_failed: float, ring_units: int, control_failed: float, control_units: int, alpha: float = 0.05
) -> Interval:
    """The ring's rate divided by the control's, while weights stay as they are: Lindon & Malek, NeurIPS 2022 (arXiv
    2011.03567) §4. With q0 = n_r/(n_r+n_b), prior Beta(k q0, k(1−q0)) and k = 2, all θ with

        lnB(k q0+x_r, k(1−q0)+x_b) − lnB(k q0, k(1−q0)) − x_r ln θ − x_b ln(1−θ) < ln(1/α)

    and the ratio is θ/(1−θ) · n_b/n_r. The control did not fail: no upper end.
    """
    for failed, units in ((ring_failed, ring_units), (control_failed, control_units)):
        if not 0 <= failed <= units:
            raise ValueError(f"{units} units cannot have {failed} failures")
    if not ring_units or not control_units or ring_failed + control_failed == 0:
        return Interval(1.0, 0.0, inf)
    share = ring_units / (ring_units + control_units)
    a, b = RATIO_PRIOR * share, RATIO_PRIOR * (1 - share)
    known = log_beta(a + ring_failed, b + control_failed) - log_beta(a, b)

    def log_e(theta: float) -> float:
        return known - log_power(ring_failed, theta) - log_power(control_failed, 1 - theta)

    def ratio(theta: float) -> float:
        return inf if theta == 1 else theta / (1 - theta) * control_units / ring_units

    best = ring_failed / (ring_failed + control_failed)
    low, high = _edges(log_e, best, -log(alpha))
    return Interval(ratio(best), ratio(low), ratio(high))
