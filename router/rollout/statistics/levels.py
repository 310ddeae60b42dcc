"""When evidence is enough: the levels that ln E is held against, and what several tests cost together.

Ville's inequality: for an e-process, P(ever E ≥ 1/α) ≤ α under its null. Looking more often costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

from router.rollout.statistics.special import log_sum_exp


def harm_level(alpha: float, tests: int = 1, copies: int = 1) -> float:
    """ln(copies · tests / α): any of ``tests`` may fire, and together they fire wrongly with at most α.

    ``copies`` is for delayed starts that are separate processes, because each counts every user once since its own
    start: then the union over the copies is paid for here instead of by a mixture inside ``TwoRing``.
    """
    if not 0 < alpha < 1 or tests < 1 or copies < 1:
        raise ValueError(f"alpha must be between 0 and 1 and there must be a test, not {alpha}, {tests}, {copies}")
    return log(copies) + log(tests) - log(alpha)


def proof_level(beta: float) -> float:
    """ln(1/β), however many tests there are: all must hold, and one that holds wrongly is enough to be wrong
    (intersection-union), so there is nothing to correct."""
    return harm_level(beta)


def always_valid_p(peak: float) -> float:
    """min(1, 1/max E), a p-value that may be looked at whenever one likes; ``peak`` is the greatest ln E so far."""
    return min(1.0, exp(-peak)) if peak > 0 else 1.0


def log_mean_e(log_es: Sequence[float]) -> float:
    """ln of the mean of several e-values, itself an e-value whatever they have to do with each other.

    The other way to spend α on several guardrails: fire when the mean reaches 1/α (Vovk & Wang, Annals of Statistics
    2021).
    """
    if not log_es:
        raise ValueError("the mean of no e-values: name at least one test")
    return log_sum_exp(log_es) - log(len(log_es))
