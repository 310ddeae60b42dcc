"""Does a rollout ever roll back a candidate that is as good as the stable version? ``python -m loadtests.rollouts``.

A thousand rollouts of four hours at ten-second ticks in each of several worlds, with the guardrails and levels of the
default plan and copies that start half an hour apart; beside it a z-test that is looked at every tick, as dashboards
are. Then how long harm and proof take. No request is sent: users and failures are drawn, the decision is the product's
(its arithmetic on arrays, held against ``router.rollout.statistics`` on a sample). Writes results/rollouts.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np

from loadtests import report
from loadtests.rollout_times import error_times, latency_times
from loadtests.rollout_worlds import (
    CONTROL_PER_RING,
    LATE,
    PEOPLE,
    STEADY,
    SWINGING,
    TICK_SECONDS,
    TICKS,
    VISITS_AN_HOUR,
    WIDENING,
    World,
    first_seen,
    tail,
    unseen,
)
from loadtests.two_ring_arrays import Floats, Many, check
from router.rollout.plan import GROSS, TOLERATED
from router.rollout.statistics.latency import SHIFT, shift_factor
from router.rollout.statistics.levels import harm_level
from router.rollout.statistics.two_ring import COPIES, Margin, Side, TwoRing

ALPHA: Final = 0.01
GUARDRAILS: Final = {
    "errors": TOLERATED,
    "p99": Margin(),
    "p50": Margin(),
    "http_4xx": Margin(1.25, 0.005),
}
ROLLS_BACK: Final = ("errors", "p99", "fast")
LEVEL: Final = harm_level(ALPHA, tests=len(GUARDRAILS), copies=COPIES)
FAST_LEVEL: Final = harm_level(0.001)
Z: Final = 2.3263
"""The one-sided 1 % point of the normal distribution."""
SAMPLE: Final = 2
"""Rollouts that the product's own code works out again."""


@dataclass
class Outcome:
    """Of the rollouts in one world."""

    rollouts: int
    false_rollbacks: int
    false_pauses: int
    z_test: int
    """How many would have been rolled back by a z-test on all requests' errors at 1 %, looked at every tick."""
    detected_at: Floats
    """Tick at which errors were first found, NaN: never."""
    detected_by_one: Floats
    """The same with one copy, which has counted since the beginning."""


def means(world: World, tick: int) -> dict[str, tuple[float, float]]:
    """Guardrail → mean outcome of the ring's users and of the control's."""
    errors = world.errors(tick)
    found = {"errors": (errors * world.times(tick), errors), "http_4xx": (world.http_4xx, world.http_4xx)}
    for name, quantile in (("p99", 0.99), ("p50", 0.5)):
        found[name] = (tail(quantile, shift_factor(SHIFT)), 1 - quantile)
    if world.is_at_limit:
        for name, margin in GUARDRAILS.items():
            control = found[name][1]
            found[name] = (min(1.0, margin.ratio * control + margin.absolute), control)
    return found


def simulate(world: World, rollouts: int, seed: int, ticks: int = TICKS, sample: int = SAMPLE) -> Outcome:
    """Run them all. Raises AssertionError if the product's code comes to something else on the sample."""
    chance = np.random.default_rng(seed)
    rounds = [start for start in world.rounds if start < ticks]
    tests = {name: Many(TwoRing(Side.HARM, margin), (rollouts, len(rounds))) for name, margin in GUARDRAILS.items()}
    fast = Many(TwoRing(Side.HARM, GROSS), (rollouts,))
    kept: dict[str, list[Floats]] = {name: [] for name in tests}
    totals = [np.zeros(rollouts) for _ in range(4)]
    z_alarm = np.zeros(rollouts, dtype=bool)
    detected, detected_by_one = np.full(rollouts, np.nan), np.full(rollouts, np.nan)
    number = 0
    for tick in range(ticks):
        if number + 1 < len(rounds) and tick >= rounds[number + 1]:
            number += 1
        ring_people = PEOPLE * world.weight(tick)
        control_people = min(PEOPLE - ring_people, CONTROL_PER_RING * ring_people)
        share = first_seen(tick - rounds[number])
        strata = _strata(rounds, number)
        expected = means(world, tick)
        ring = [chance.poisson(ring_people * share * part, rollouts) for part in strata]
        control = [chance.poisson(control_people * share * part, rollouts) for part in strata]
        for name, many in tests.items():
            ring_mean, control_mean = expected[name]
            failed = [chance.binomial(units, ring_mean) for units in ring]
            control_failed = [chance.binomial(units, control_mean) for units in control]
            columns = tuple(_by_copy(one) for one in (ring, failed, control, control_failed))
            now = many.after(*columns)
            if sample:
                kept[name].append(np.stack(columns)[:, :sample])
            if name == "errors":
                _first(detected, now.max(axis=1) >= LEVEL, tick)
                _first(detected_by_one, now[:, 0] >= harm_level(ALPHA, tests=len(GUARDRAILS)), tick)
        requests = VISITS_AN_HOUR * TICK_SECONDS / 3600
        ring_mean, control_mean = expected["errors"]
        asked, asked_control = (chance.poisson(people * requests, rollouts) for people in (ring_people, control_people))
        columns = tuple(
            one.astype(float)
            for one in (
                asked,
                chance.binomial(asked, ring_mean),
                asked_control,
                chance.binomial(asked_control, control_mean),
            )
        )
        fast.after(*columns)
        for total, column in zip(totals, columns, strict=True):
            total += column
        z_alarm |= _z(*totals) > Z
    for name, many in tests.items():
        for run in range(sample):
            for copy in range(len(rounds)):
                check(many, (run, copy), [one[:, run, copy] for one in kept[name] if copy < one.shape[2]])
    fired = {name: (many.peak >= LEVEL).any(axis=1) for name, many in tests.items()}
    fired["fast"] = fast.peak >= FAST_LEVEL
    back = np.logical_or.reduce([fired[name] for name in ROLLS_BACK])
    paused = np.logical_or.reduce([found for name, found in fired.items() if name not in ROLLS_BACK])
    return Outcome(
        rollouts, int(back.sum()), int((paused & ~back).sum()), int(z_alarm.sum()), detected, detected_by_one
    )


def _strata(rounds: Sequence[int], number: int) -> list[float]:
    """Of those first seen in this round: the shares who were last seen in round −1 (never), 0, 1, …"""
    lengths = [after - start for start, after in pairwise(rounds)][:number]
    not_since = [1.0]
    for length in reversed(lengths):
        not_since.insert(0, not_since[0] * unseen(length))
    return [not_since[0], *(later - earlier for earlier, later in pairwise(not_since))]


def _by_copy(strata: Sequence[Any]) -> Floats:
    """Copy c, which began with round c, counts those who were last seen before it."""
    return np.cumsum(np.stack(strata, axis=1), axis=1).astype(float)


def _first(found: Floats, is_now: Any, tick: int) -> None:
    found[np.isnan(found) & is_now] = tick


def _z(ring: Floats, failed: Floats, control: Floats, control_failed: Floats) -> Floats:
    """Of the difference of two proportions, pooled."""
    n_r, n_b = np.maximum(ring, 1), np.maximum(control, 1)
    pooled = (failed + control_failed) / (n_r + n_b)
    deviation = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / n_r + 1 / n_b), 1e-300))
    z: Floats = np.where(failed + control_failed >= 5, (failed / n_r - control_failed / n_b) / deviation, 0.0)
    return z


GOOD: Final = (STEADY, SWINGING, WIDENING)
WORLDS: Final = {world.name: world for world in (*GOOD, *(one.at_limit() for one in GOOD), LATE)}


def _run(name: str, rollouts: int, seed: int) -> tuple[str, Outcome]:
    return name, simulate(WORLDS[name], rollouts, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=1000, help="in each world")
    parser.add_argument("--runs", type=int, default=200, help="for each figure of the tables of times")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=8)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes) as pool:
        found = dict(pool.map(partial(_run, rollouts=options.rollouts, seed=options.seed), WORLDS))
        late = found.pop(LATE.name)
        summary = {
            name: {
                "rollouts": one.rollouts,
                "false_rollbacks": one.false_rollbacks,
                "false_pauses": one.false_pauses,
                "z_test_rollbacks": one.z_test,
            }
            for name, one in found.items()
        }
        report.table(
            ("world", "false rollbacks", "false pauses", "z-test at 1 %, looked at every tick"),
            [
                (
                    name,
                    *(f"{100 * one[key] / one['rollouts']:.1f} %" for key in ("false_rollbacks", "false_pauses")),
                    "" if "limit" in name else f"{100 * one['z_test_rollbacks'] / one['rollouts']:.1f} %",
                )
                for name, one in summary.items()
            ],
        )
        regression = {"copies": _minutes(late.detected_at), "one_copy": _minutes(late.detected_by_one)}
        print(f"\n{LATE.name}: minutes until it is found")
        for name, times in regression.items():
            print(
                f"  {name}: median {times['median']}, p90 {times['p90']}; found in {100 * (times['found'] or 0):.0f} %"
            )
        print()
        errors = error_times(options.runs, options.seed, pool)
        latency = latency_times(options.runs, options.seed, pool)
    save = {"summary": summary, "late_regression_minutes": regression, "errors": errors, "latency": latency}
    report.save("rollouts", options, save)


def _minutes(ticks: Floats) -> dict[str, float | None]:
    """After the regression began; p90 of all, None where so many never found it."""
    began = 3 * TICKS // 4
    minutes = np.where(np.isnan(ticks), np.inf, (ticks - began + 1) * TICK_SECONDS / 60)
    median, p90 = (float(np.quantile(minutes, share, method="higher")) for share in (0.5, 0.9))
    found = float(np.isfinite(minutes).mean())
    return {
        "median": median if np.isfinite(median) else None, "p90": p90 if np.isfinite(p90) else None, "found": found,
    }  # fmt: skip


if __name__ == "__main__":
    report.run(main)
