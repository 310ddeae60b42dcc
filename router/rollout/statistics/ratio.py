"""Did users arrive in the shares that were asked for: the anytime-valid sample-ratio test.

Users, not requests, since the last change of weights, without forced assignments (overrides, members, rules). If the
shares are not those of the weights, the two groups are not alike, and no comparison between them means anything.

    ln E = lnΓ(k) − lnΓ(k+n) + Σ_i [lnΓ(kθ_i + n_i) − lnΓ(kθ_i) − n_i ln θ_i]        prior Dirichlet(kθ)

Lindon & Malek, NeurIPS 2022 (arXiv 2011.03567) §2. **Guarantee**: P(ever E ≥ 1/α) ≤ α while the split is right.

With a tolerance ε (so that nobody is alarmed by 0.02 pp among 10⁸ users), one ring against the rest: the null's best
share p* = s/n, kept within θ ± ε, is what the likelihood is compared with:

    ln E = lnB(kθ+s, k(1−θ)+n−s) − lnB(kθ, k(1−θ)) − s ln p* − (n−s) ln(1−p*)

Universal inference: Wasserman, Ramdas & Balakrishnan, PNAS 2020. With K rings, α/K each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, isclose, lgamma, log
from typing import Final

from router.rollout.statistics.special import log_beta, log_power

CONCENTRATION: Final = 100.0
"""k of the prior."""
RELATIVE_TOLERANCE: Final = 0.05
LEAST_TOLERANCE: Final = 1e-5
"""10 per million; shares nearer to 0 or 1 than this have their prior there."""


def log_e_shares(counts: Sequence[int], shares: Sequence[float], concentration: float = CONCENTRATION) -> float:
    """ln E that ``counts`` did not come by ``shares``, which sum to 1; without tolerance.

    Somebody in a ring whose share is 0 is infinite evidence.
    """
    if len(counts) != len(shares) or not isclose(sum(shares), 1, abs_tol=1e-6) or min(counts) < 0:
        raise ValueError(f"one count per share, and shares that sum to 1, not {counts} and {shares}")
    if any(count and not share for count, share in zip(counts, shares, strict=True)):
        return inf
    total = lgamma(concentration) - lgamma(concentration + sum(counts))
    for count, share in zip(counts, shares, strict=True):
        if share:
            prior = concentration * share
            total += lgamma(prior + count) - lgamma(prior) - log_power(count, share)
    return total


def tolerance(share: float) -> float:
    """The ε that is put up with by default: 5 % of the share, and 10 per million at least."""
    return max(RELATIVE_TOLERANCE * share, LEAST_TOLERANCE)


def log_e_share(count: int, total: int, share: float, epsilon: float, concentration: float = CONCENTRATION) -> float:
    """ln E that ``count`` of ``total`` users did not come by any share within ``share`` ± ``epsilon``."""
    if not (0 <= count <= total and 0 <= share <= 1 and epsilon >= 0):
        raise ValueError(f"{count} of {total} users against a share of {share} ± {epsilon}")
    if total == 0:
        return 0.0
    likely = min(max(count / total, share - epsilon, 0.0), share + epsilon, 1.0)
    centre = min(max(share, LEAST_TOLERANCE), 1 - LEAST_TOLERANCE)
    a, b = concentration * centre, concentration * (1 - centre)
    mixture = log_beta(a + count, b + total - count) - log_beta(a, b)
    return mixture - log_power(count, likely) - log_power(total - count, 1 - likely)


@dataclass(frozen=True, slots=True)
class Split:
    """How the rings' users compare to their shares, since the last change of weights. The state is its own plain data:
    one number per ring."""

    peaks: tuple[float, ...]
    """Per ring the greatest ln E so far, with tolerance."""

    @classmethod
    def begin(cls, rings: int) -> Split:
        return cls((0.0,) * rings)

    def after(self, counts: Sequence[int], shares: Sequence[float]) -> Split:
        """``counts`` are the users since the last change of weights, per ring."""
        if not len(counts) == len(shares) == len(self.peaks):
            raise ValueError(f"{len(self.peaks)} rings, but {len(counts)} counts and {len(shares)} shares")
        total = sum(counts)
        return Split(
            tuple(
                max(peak, log_e_share(count, total, share, tolerance(share)))
                for peak, count, share in zip(self.peaks, counts, shares, strict=True)
            )
        )

    @property
    def p_values(self) -> tuple[float, ...]:
        """Per ring, always valid, corrected for the number of rings."""
        return tuple(min(1.0, exp(log(len(self.peaks)) - peak)) for peak in self.peaks)

    @property
    def p_value(self) -> float:
        """Of the split as a whole."""
        return min(self.p_values, default=1.0)
