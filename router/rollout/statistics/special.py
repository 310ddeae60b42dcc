"""The few special functions that the rest is written in; natural logarithms throughout."""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, inf, lgamma, log


def log_beta(a: float, b: float) -> float:
    """ln B(a, b). With a + b = 10⁸ it is right to about 10⁻⁶, with less to better."""
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def log_power(count: float, base: float) -> float:
    """count · ln base, where nothing to the power of nothing is one."""
    if count == 0:
        return 0.0
    return count * log(base) if base > 0 else -inf


def log_sum_exp(logs: Iterable[float]) -> float:
    """ln Σ exp(x), without ever leaving the range of a float; −∞ for nothing."""
    values = list(logs)
    top = max(values, default=-inf)
    if top in (inf, -inf):
        return top
    return top + log(sum(exp(value - top) for value in values))
