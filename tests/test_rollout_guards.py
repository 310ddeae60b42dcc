"""One guardrail's evidence: what proves harm, what proves a step, and which users each test counts."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.rollout import guards
from router.rollout.guards import Guard
from router.rollout.observation import Cohort
from router.rollout.plan import Guardrail, Source, Step
from router.rollout.statistics.two_ring import Margin, Side, Tick, TwoRing
from tests.rollout_hand import ERRORS, P99, PLAN, REFUSED

TIGHT = replace(ERRORS, margin=Margin(1.25, 0.001))
ORDERS = Guardrail(
    "orders", source=Source("webhook", "https://kpi.example/orders"), margin=Margin(0.9), is_lower_worse=True,
    required=True,
)  # fmt: skip


def made_for(guardrail: Guardrail, step: Step = PLAN.steps[1], **plan: Any) -> guards.Tests:
    return guards.tests_of(replace(PLAN, guardrails=(guardrail, P99, REFUSED), **plan), guardrail, step)


def cohort(
    n_r: int, x_r: float, n_b: int, x_b: float, since: int = 1, round_: int = 1, stratum: str = "hash"
) -> Cohort:
    return Cohort("errors", stratum, since, round_, n_r, x_r, n_b, x_b)


def fed(guard: Guard, tests: guards.Tests, *cohorts: Cohort) -> Guard:
    return guards.after(guard, tests, cohorts, None)


def test_harm_is_paid_for_by_all_guardrails_and_copies_and_proof_by_nobody_else() -> None:
    tests = made_for(replace(TIGHT, alpha=0.02, beta=0.1), copies=8)
    assert tests.harm_level == pytest.approx(log(8 * 3 / 0.02))
    assert tests.proof_level == pytest.approx(log(1 / 0.1))


def test_a_guard_says_what_the_vectors_of_the_statistics_say() -> None:
    tests = made_for(TIGHT)
    guard = fed(guards.begin(tests, 1), tests, cohort(1000, 12, 99_000, 99))
    assert tests.harm.log_e(guard.copies[0].evidence) == pytest.approx(8.238369042)
    guard = fed(guards.begin(tests, 1), tests, cohort(5000, 5, 495_000, 495))
    assert tests.proof.log_e(guard.proof.evidence) == pytest.approx(1.233357962)


def test_one_tick_after_the_other_is_the_sequence_of_the_statistics() -> None:
    tests = made_for(TIGHT)
    guard, found = guards.begin(tests, 1), []
    for tick in [(1000, 4, 99_000, 105), (1020, 9, 98_000, 98), (5000, 55, 95_000, 101), (5000, 60, 95_000, 90)]:
        guard = fed(guard, tests, cohort(*tick))
        found.append(tests.harm.log_e(guard.copies[0].evidence))
    assert found == pytest.approx([-0.281599, 3.455753, 39.404930, 86.198890], abs=1e-5)
    assert guard.units == (12_020, 128.0, 387_000, 394.0)
    assert guards.is_harmful(guard, tests)


def test_harm_that_was_found_stays_found_and_its_level_is_met_exactly() -> None:
    tests = made_for(TIGHT)
    guard = fed(guards.begin(tests, 1), tests, cohort(1000, 60, 99_000, 99))
    assert guards.is_harmful(guard, replace(tests, harm_level=guard.peak))
    assert not guards.is_harmful(guard, replace(tests, harm_level=guard.peak + 1e-9))
    for _ in range(50):
        guard = fed(guard, tests, cohort(1000, 0, 9_000, 90))
    assert guards.is_harmful(guard, tests)


def test_any_copy_may_find_harm_and_a_late_one_finds_what_hours_of_good_data_hide() -> None:
    tests = made_for(TIGHT)
    guard = guards.begin(tests, 1)
    for _ in range(30):
        guard = fed(guard, tests, cohort(5000, 5, 45_000, 45))
    guard = guards.with_copy(guard, tests, 2)
    for _ in range(8):
        guard = fed(guard, tests, cohort(1000, 8, 9_000, 9, since=1, round_=2))
    early, late = (tests.harm.log_e(copy.evidence) for copy in guard.copies)
    assert early < 0 < tests.harm_level < late
    assert guards.is_harmful(guard, tests)


def test_there_are_no_more_copies_than_are_paid_for() -> None:
    tests = made_for(TIGHT, copies=3)
    guard = guards.begin(tests, 1)
    for round_ in range(2, 9):
        guard = guards.with_copy(guard, tests, round_)
    assert [copy.begun for copy in guard.copies] == [1, 2, 3]


def test_a_new_step_proves_from_nothing_and_its_harm_goes_on() -> None:
    tests = made_for(TIGHT)
    guard = fed(guards.begin(tests, 1), tests, cohort(50_000, 10, 450_000, 450))
    assert guards.is_proven(guard, tests)
    stepped = guards.with_step(guard, tests, 2)
    assert not guards.is_proven(stepped, tests)
    assert stepped.units == (0, 0.0, 0, 0.0)
    assert stepped.copies[0] == guard.copies[0]
    assert [copy.begun for copy in stepped.copies] == [1, 2]
    assert guards.is_proven(fed(stepped, tests, cohort(50_000, 10, 450_000, 450, since=1, round_=2)), tests)


@pytest.mark.parametrize(
    ("since", "round_", "counted_by"),
    [(1, 3, [1, 2, 3]), (2, 3, [2, 3]), (3, 3, [3]), (1, 2, [1, 2]), (1, 1, [1]), (4, 4, []), (2, 2, [2])],
)
def test_each_copy_counts_those_who_are_new_since_it_began(since: int, round_: int, counted_by: list[int]) -> None:
    tests = made_for(TIGHT)
    guard = guards.begin(tests, 1)
    guard = guards.with_copy(guards.with_copy(guard, tests, 2), tests, 3)
    after = fed(guard, tests, cohort(100, 50, 1000, 1, since=since, round_=round_))
    moved = [copy.begun for copy, was in zip(after.copies, guard.copies, strict=True) if copy != was]
    assert moved == counted_by


def test_strata_are_compared_each_for_itself() -> None:
    """A ring of people who fail often, with a holdback who do as well, is not worse than anybody (Simpson)."""
    tests = made_for(TIGHT)
    chosen, hashed = cohort(9000, 900, 1000, 100, stratum="early"), cohort(1000, 1, 90_000, 90)
    apart = fed(guards.begin(tests, 1), tests, chosen, hashed)
    assert apart.peak < 1
    assert apart.units == (10_000, 901.0, 91_000, 190.0)
    together = fed(guards.begin(tests, 1), tests, chosen, replace(hashed, stratum="early"))
    assert guards.is_harmful(together, tests)


def test_of_one_stratum_all_that_a_copy_counts_is_one_tick() -> None:
    tests = made_for(TIGHT)
    halves = [cohort(500, 6, 40_000, 40, since=1, round_=2), cohort(500, 6, 59_000, 59, since=2, round_=2)]
    guard = fed(guards.with_copy(guards.begin(tests, 1), tests, 2), tests, *halves)
    assert tests.harm.log_e(guard.copies[1].evidence) == pytest.approx(8.238369042)


def test_where_less_is_worse_a_ring_with_fewer_orders_is_harmed_and_one_with_as_many_is_proven() -> None:
    tests = made_for(ORDERS)
    assert (tests.harm.side, tests.proof.side) == (Side.SAFE, Side.HARM)
    fewer, as_many = (
        fed(guards.begin(tests, 1), tests, cohort(20_000, orders, 200_000, 60_000)) for orders in (4_000, 6_000)
    )
    assert guards.is_harmful(fewer, tests)
    assert not guards.is_proven(fewer, tests)
    assert guards.is_proven(as_many, tests)
    assert not guards.is_harmful(as_many, tests)


def test_a_steps_margin_is_of_the_proof_of_errors_and_of_nothing_else() -> None:
    step = replace(PLAN.steps[0], margin=Margin(3.0, 0.2))
    errors, p99, orders = (made_for(one, step) for one in (TIGHT, P99, ORDERS))
    assert errors.proof.margin == Margin(3.0, 0.2)
    assert errors.harm.margin == TIGHT.margin
    assert p99.proof.margin == p99.harm.margin == Margin()
    assert orders.proof.margin == orders.harm.margin == Margin(0.9)


@pytest.mark.parametrize(("noisy", "is_calibrated"), [(2, True), (3, False)])
def test_more_slices_that_cry_wolf_than_are_let_pass_make_it_uncalibrated(noisy: int, is_calibrated: bool) -> None:
    tests = made_for(TIGHT)
    outcomes = [100.0] * noisy + [0.0] * (64 - noisy)
    guard = guards.after(guards.begin(tests, 1), tests, (), ([100] * 64, outcomes))
    assert guard.aa is not None
    assert guard.aa.alarms(tests.alpha) == noisy
    assert guards.is_calibrated(guard, tests, 2) is is_calibrated
    assert guards.is_calibrated(guard, tests, None)
    assert guard.peak == 0


def test_harm_that_was_let_pass_is_forgotten_and_what_was_none_is_not() -> None:
    tests = made_for(TIGHT)
    begun = guards.begin(tests, 1)
    worse, good = fed(begun, tests, cohort(1000, 500, 9000, 9)), fed(begun, tests, cohort(1000, 1, 9000, 9))
    passed = guards.let_pass(worse, tests, 5)
    assert (passed.peak, [copy.begun for copy in passed.copies], passed.proof) == (0.0, [5], worse.proof)
    assert guards.let_pass(good, tests, 5) == good


units = st.integers(0, 10_000)
shares = st.floats(0, 1)
cohorts = st.builds(
    lambda n_r, x_r, n_b, x_b, since, more, of: cohort(n_r, n_r * x_r, n_b, n_b * x_b, since, since + more, of),
    units, shares, units, shares, st.integers(0, 4), st.integers(0, 3), st.sampled_from(["hash", "early"]),
)  # fmt: skip
sides = st.sampled_from([TIGHT, REFUSED, ORDERS, P99])


@given(sides, st.lists(st.lists(cohorts, max_size=3), max_size=6), st.integers(1, 4))
def test_a_guard_is_its_tests_run_one_by_one_and_survives_json(
    guardrail: Guardrail, ticks: list[list[Cohort]], begun: int
) -> None:
    tests = made_for(guardrail)
    guard = guards.with_step(guards.begin(tests, 1), tests, begun)
    for tick in ticks:
        guard = guards.after(guard, tests, tick, None)
    for copy, test in [*((copy, tests.harm) for copy in guard.copies), (guard.proof, tests.proof)]:
        assert copy.evidence == _alone(test, copy.begun, ticks)
    assert guards.from_plain(json.loads(json.dumps(guards.to_plain(guard)))) == guard


def _alone(test: TwoRing, begun: int, ticks: list[list[Cohort]]) -> Any:
    evidence = test.begin()
    for tick in ticks:
        mine = [one for one in tick if one.since <= begun <= one.round]
        for stratum in dict.fromkeys(one.stratum for one in mine):
            of = [one for one in mine if one.stratum == stratum]
            n_r, n_b = sum(one.ring_units for one in of), sum(one.control_units for one in of)
            x_r, x_b = sum(one.ring_outcomes for one in of), sum(one.control_outcomes for one in of)
            evidence = test.after(evidence, Tick(n_r, min(x_r, n_r), n_b, min(x_b, n_b)))
    return evidence
