"""False decisions of whole rollouts, looked at every ten seconds for four hours: few enough, however the world turns.

The short form keeps the sizes small and the bounds the same; the whole is `make test-slow` (and ``loadtests.rollouts``,
which prints the figures of docs/rollouts.md).
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.rollout_times import ERROR_TESTS, users_until
from loadtests.rollout_worlds import LATE, STEADY, SWINGING, TICKS, WIDENING, World
from loadtests.rollouts import simulate
from loadtests.two_ring_arrays import Many, check
from router.rollout.statistics.two_ring import Margin, Side, TwoRing

SHORT = 40
WHOLE = 1000
IDS = ("steady", "swinging", "widening")


def judged(world: World, rollouts: int, *, z_at_least: float) -> None:
    """At most α of good candidates go back, while a z-test that one looks at sends back many of them."""
    found = simulate(world, rollouts, seed=8)
    assert found.false_rollbacks <= 0.01 * rollouts
    assert found.false_pauses <= 0.01 * rollouts
    assert found.z_test >= z_at_least * rollouts


@pytest.mark.parametrize(("world", "z_at_least"), [(SWINGING, 0.05), (WIDENING, 0.9)], ids=["swinging", "widening"])
def test_a_good_candidate_is_not_rolled_back_whatever_the_day_does(world: World, z_at_least: float) -> None:
    judged(world, SHORT, z_at_least=z_at_least)


@pytest.mark.slow
@pytest.mark.parametrize(("world", "z_at_least"), [(STEADY, 0.05), (SWINGING, 0.05), (WIDENING, 0.9)], ids=IDS)
def test_of_a_thousand_good_candidates_at_most_ten_are_rolled_back(world: World, z_at_least: float) -> None:
    judged(world, WHOLE, z_at_least=z_at_least)


@pytest.mark.slow
@pytest.mark.parametrize("world", [STEADY, SWINGING, WIDENING], ids=IDS)
def test_not_even_candidates_that_are_exactly_as_bad_as_is_tolerated(world: World) -> None:
    found = simulate(world.at_limit(), WHOLE, seed=8)
    assert found.false_rollbacks + found.false_pauses <= 0.01 * WHOLE


def test_a_late_regression_is_found_sooner_by_copies_that_began_later() -> None:
    found = simulate(LATE, 8, seed=8, sample=0)
    began = 3 * TICKS // 4
    assert np.nanmin(found.detected_at) >= began
    late = np.nanmedian(np.where(np.isnan(found.detected_at), np.inf, found.detected_at))
    alone = np.nanmedian(np.where(np.isnan(found.detected_by_one), np.inf, found.detected_by_one))
    assert late < alone


@pytest.mark.parametrize("name", [*ERROR_TESTS])
def test_harm_and_proof_come_where_they_should_and_nowhere_else(name: str) -> None:
    test, level = ERROR_TESTS[name]
    harmful, good = (0.025, 0.005), (0.005, 0.005)
    there, absent = (harmful, good) if test.side is Side.HARM else (good, harmful)
    reached = users_until(there, test, level, runs=20, seed=8)
    assert reached["p90"] is not None
    assert reached["p90"] < 40_000
    other, chance = Many(test, (20,)), np.random.default_rng(8)
    for _ in range(400):
        failed, control_failed = chance.binomial(50, absent[0], 20), chance.binomial(500, absent[1], 20)
        other.after(*(np.broadcast_to(np.asarray(one, float), (20,)) for one in (50, failed, 500, control_failed)))
    assert (other.peak < level).all()


@settings(max_examples=50)
@given(
    st.sampled_from([Side.HARM, Side.SAFE]),
    st.floats(0.5, 3.0),
    st.floats(0.0, 0.02),
    st.lists(
        st.tuples(st.integers(0, 500), st.floats(0, 1), st.integers(0, 5000), st.floats(0, 1)), min_size=1, max_size=30
    ),
)
def test_arrays_and_the_product_agree(
    side: Side, ratio: float, absolute: float, drawn: list[tuple[int, float, int, float]]
) -> None:
    many = Many(TwoRing(side, Margin(ratio, absolute)), (1,))
    ticks = [np.array([ring, ring * bad, control, control * worse]) for ring, bad, control, worse in drawn]
    for tick in ticks:
        many.after(*(tick[place : place + 1] for place in range(4)))
    check(many, (0,), ticks)
