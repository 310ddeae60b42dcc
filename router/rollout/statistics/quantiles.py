"""Confidence sequences of latency quantiles, for display, read from base-2 histograms.

Howard & Ramdas, Bernoulli 2022 (arXiv 1906.09712), for a quantile that is fixed beforehand. If s of n values are at
most the true p-quantile, then with r = n_opt / (2 ln(1/α) + ln(1 + 2 ln(1/α))) − 1

    ln M(s, n; p) = lnB(rp+s, r(1−p)+n−s) − lnB(rp, r(1−p)) − s ln p − (n−s) ln(1−p)

is below ln(1/α) at every moment with 1 − α. They suppose that latencies are alike throughout the epoch, and are drawn,
not acted upon: what decides is ``latency``. Buckets are taken outward, so that their width does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import e, floor, inf, log, sqrt
from typing import Final

from router.rollout.statistics.sequences import Interval
from router.rollout.statistics.special import log_beta, log_power
from router.telemetry.meters import HISTOGRAM_BUCKETS, upper_edge_seconds
from router.telemetry.quantiles import quantile_seconds

BEST_AT: Final = 10_000
"""n_opt: the number of requests at which the interval is as narrow as it can be made."""


def tuning(alpha: float, best_at: int = BEST_AT) -> float:
    """r, from the number of requests at which the interval should be narrowest."""
    twice = -2 * log(alpha)
    return best_at / (twice + log(1 + twice)) - 1


def log_m(below: int, total: int, quantile: float, r: float) -> float:
    """ln M(below, total; quantile)."""
    a, b = r * quantile, r * (1 - quantile)
    mixture = log_beta(a + below, b + total - below) - log_beta(a, b)
    return mixture - log_power(below, quantile) - log_power(total - below, 1 - quantile)


def ranks(total: int, quantile: float, alpha: float, best_at: int = BEST_AT) -> tuple[int | None, int | None]:
    """k_lo, k_hi: the quantile is above the k_lo-th of the sorted values and not above the k_hi-th; None: not known.

    ln M is convex in ``below``, so on each side of the quantile one step is found by halving.
    """
    r, level, middle = tuning(alpha, best_at), -log(alpha), floor(quantile * total)
    low, high = None, None
    if total and log_m(0, total, quantile, r) >= level:
        low, below = 0, middle + 1  # ln M(low) ≥ level, and below it is less
        while below - low > 1:
            half = (low + below) // 2
            low, below = (half, below) if log_m(half, total, quantile, r) >= level else (low, half)
    if total and log_m(total, total, quantile, r) >= level:
        high, under = total, middle
        while high - under > 1:
            half = (high + under) // 2
            high, under = (half, under) if log_m(half, total, quantile, r) >= level else (high, half)
    return low, high


def quantile_sequence(
    histogram: Mapping[int, int], quantile: float, alpha: float = 0.05, best_at: int = BEST_AT
) -> Interval:
    """The quantile in seconds with what covers it; from 0 to infinity where nothing is known."""
    total = sum(histogram.values())
    low_rank, high_rank = ranks(total, quantile, alpha, best_at)
    low, high, seen = 0.0, inf, 0
    for bucket in sorted(histogram):
        before, seen = seen, seen + histogram[bucket]
        if low_rank is not None and before <= low_rank < seen and bucket > 0:
            low = upper_edge_seconds(bucket - 1)
        if high_rank is not None and before < high_rank <= seen and bucket < HISTOGRAM_BUCKETS - 1:
            high = upper_edge_seconds(bucket)
    return Interval(quantile_seconds(histogram, quantile) or 0.0, low, high)


def quantile_difference(
    ring: Mapping[int, int], control: Mapping[int, int], quantile: float, alpha: float = 0.05
) -> Interval:
    """The ring's quantile minus the control's in seconds: a sequence for each at α/2, [L_r − U_b, U_r − L_b]."""
    one, other = (quantile_sequence(histogram, quantile, alpha / 2) for histogram in (ring, control))
    return Interval(one.estimate - other.estimate, one.low - other.high, one.high - other.low)


def band_radius(total: int, alpha: float) -> float:
    """Half the height of a band around the empirical distribution function, for all quantiles and moments at once:
    0.85 sqrt((ln ln(e t) + 0.8 ln(1612/α)) / t), ibid. Corollary 2."""
    if total < 1:
        return 1.0
    return min(1.0, 0.85 * sqrt((log(log(e * total)) + 0.8 * log(1612 / alpha)) / total))
