"""How many users of the ring it takes until harm is found, or until it is proven that there is none.

Levels are those of the default plan: harm at ln(16 · 4 / 0.01), proof at ln 20; ten users of the control for each of
the ring. Median and nine tenths of the runs; a dash: not within so many users.
"""

from __future__ import annotations

from concurrent.futures import Executor
from functools import partial
from typing import Final

import numpy as np

from loadtests import report
from loadtests.rollout_worlds import CONTROL_PER_RING, tail
from loadtests.two_ring_arrays import Many
from router.rollout.plan import TOLERATED
from router.rollout.statistics.latency import SHIFT, shift_factor
from router.rollout.statistics.levels import harm_level, proof_level
from router.rollout.statistics.two_ring import COPIES, Margin, Side, TwoRing

MOST: Final = 150_000
PER_TICK: Final = 50
BASES: Final = (0.001, 0.005, 0.02)
RATIOS: Final = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
SLOWDOWNS: Final = (1.0, 1.05, shift_factor(SHIFT), 1.2, 1.35, 1.5, 2.0)
QUANTILES: Final = (0.5, 0.9, 0.99)
HARM: Final = harm_level(0.01, tests=4, copies=COPIES)
PROOF: Final = proof_level(0.05)
CANARY: Final = Margin(1.5, 0.005)
ERROR_TESTS: Final = {
    "harm 1.25 × + 0.1 pp": (TwoRing(Side.HARM, TOLERATED), HARM),
    "proof 1.25 × + 0.1 pp": (TwoRing(Side.SAFE, TOLERATED), PROOF),
    "proof 1.5 × + 0.5 pp": (TwoRing(Side.SAFE, CANARY), PROOF),
}
Times = dict[str, float | None]
"""``median`` and ``p90``; None: never."""


def users_until(means: tuple[float, float], test: TwoRing, level: float, runs: int, seed: int) -> Times:
    """Ring users until ln E reaches the level, with these mean outcomes of ring and control."""
    chance = np.random.default_rng(seed)
    many = Many(test, (runs,))
    reached = np.full(runs, np.inf)
    control = round(PER_TICK * CONTROL_PER_RING)
    ring_units, control_units = np.full(runs, float(PER_TICK)), np.full(runs, float(control))
    for tick in range(1, MOST // PER_TICK + 1):
        ring_failed, control_failed = (
            chance.binomial(units, mean, runs).astype(float)
            for units, mean in ((PER_TICK, means[0]), (control, means[1]))
        )
        many.after(ring_units, ring_failed, control_units, control_failed)
        reached[np.isinf(reached) & (many.peak >= level)] = tick * PER_TICK
        if np.isfinite(reached).all():
            break
    quantiles = (float(np.quantile(reached, share, method="higher")) for share in (0.5, 0.9))
    return dict(zip(("median", "p90"), (one if np.isfinite(one) else None for one in quantiles), strict=True))


def error_times(runs: int, seed: int, pool: Executor) -> list[dict[str, object]]:
    """Each base rate and each factor that the ring is worse by; printed as a table."""
    cases = [(base, ratio) for base in BASES for ratio in RATIOS]
    found: list[dict[str, object]] = [{"base": base, "ring": ratio} for base, ratio in cases]
    for name, (test, level) in ERROR_TESTS.items():
        ask = partial(users_until, test=test, level=level, runs=runs, seed=seed)
        for row, times in zip(found, pool.map(ask, [(base * ratio, base) for base, ratio in cases]), strict=True):
            row[name] = times
    report.table(
        ("control", "ring", *ERROR_TESTS),
        [
            (f"{100 * base:g} %", f"× {ratio:g}", *(_shown(row[name]) for name in ERROR_TESTS))
            for (base, ratio), row in zip(cases, found, strict=True)
        ],
    )
    print()
    return found


def latency_times(runs: int, seed: int, pool: Executor) -> list[dict[str, object]]:
    """Each factor that the ring is slower by, for each quantile; printed as a table."""
    tests = {"harm": (TwoRing(Side.HARM), HARM), "proof": (TwoRing(Side.SAFE), PROOF)}
    found: list[dict[str, object]] = [{"slowdown": slowdown} for slowdown in SLOWDOWNS]
    names = [(quantile, side) for quantile in QUANTILES for side in tests]
    for quantile, side in names:
        test, level = tests[side]
        ask = partial(users_until, test=test, level=level, runs=runs, seed=seed)
        # The ring is slower by a factor, and what it is held against is later by the tolerance.
        means = [(tail(quantile, shift_factor(SHIFT) / slowdown), 1 - quantile) for slowdown in SLOWDOWNS]
        for row, times in zip(found, pool.map(ask, means), strict=True):
            row[f"p{100 * quantile:g} {side}"] = times
    report.table(
        ("slower by", *(f"p{100 * quantile:g} {side}" for quantile, side in names)),
        [
            (f"× {slowdown:.4g}", *(_shown(row[f"p{100 * quantile:g} {side}"]) for quantile, side in names))
            for slowdown, row in zip(SLOWDOWNS, found, strict=True)
        ],
    )
    return found


def _shown(times: object) -> str:
    if not isinstance(times, dict):
        raise TypeError(f"median and p90 are needed, not {times!r}")
    return " / ".join("–" if one is None else f"{one:,.0f}" for one in times.values())
