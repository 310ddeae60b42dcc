"""An asymptotic confidence sequence of a mean, for display of what is not in [0, 1]: bytes, revenue, per user.

    ± σ̂ sqrt( 2 (tρ²+1) / (t²ρ²) · ln( sqrt(tρ²+1) / α ) )        ρ² = (−2 ln α + ln(−2 ln α + 1)) / t*

Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, Annals of Statistics 2024 (arXiv 2103.06476). It is narrowest at t = t*.
Only for users (independent), at least 1,000 of them: below, its coverage is not what it says. It never decides.
"""

from __future__ import annotations

from math import inf, log, sqrt
from typing import Final

BEST_AT: Final = 5_000
"""t*"""
LEAST_USERS: Final = 1_000


def mean_radius(users: int, deviation: float, alpha: float = 0.05, best_at: int = BEST_AT) -> float:
    """Half the width around the mean of ``users``, whose standard deviation is ``deviation``; infinite below 1,000."""
    if users < LEAST_USERS:
        return inf
    rho2 = (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / best_at
    grown = users * rho2 + 1
    return deviation * sqrt(2 * grown / (users**2 * rho2) * log(sqrt(grown) / alpha))
