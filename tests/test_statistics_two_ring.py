"""The two-ring e-process: the known answers, a second way to work them out, and that its mean is at most 1."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from math import comb, exp, isclose, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.rollout.statistics.levels import always_valid_p, harm_level, log_mean_e, proof_level
from router.rollout.statistics.two_ring import (
    HARM_MULTIPLES,
    SAFE_MULTIPLES,
    Evidence,
    Margin,
    Side,
    Tick,
    TwoRing,
    is_restart_due,
)

HARM, SAFE = Side.HARM, Side.SAFE
GUARDRAIL = Margin(1.25, 0.001)


def evidence_of(test: TwoRing, ticks: list[Tick]) -> Evidence:
    evidence = test.begin()
    for tick in ticks:
        evidence = test.after(evidence, tick)
    return evidence


def log_e_of(test: TwoRing, ticks: list[Tick]) -> float:
    return test.log_e(evidence_of(test, ticks))


@pytest.mark.parametrize(
    ("side", "margin", "multiples", "tick", "expected"),
    [
        (HARM, Margin(1, 0), (2,), Tick(1000, 3, 99000, 99), 1.064507795),
        (HARM, Margin(1, 0.001), (2,), Tick(1000, 3, 99000, 99), 0.084309775),
        (HARM, GUARDRAIL, (4,), Tick(1000, 12, 99000, 99), 9.703417645),
        (SAFE, GUARDRAIL, (0.5,), Tick(1000, 1, 99000, 99), 0.429108964),
        (HARM, Margin(1, 0), (2,), Tick(5000, 10, 5000, 5), 0.849495184),
        (HARM, Margin(1, 0), (2,), Tick(1000, 2.5, 99000, 98.75), 0.725396953),
        (HARM, GUARDRAIL, (), Tick(1000, 12, 99000, 99), 8.238369042),
        (SAFE, GUARDRAIL, (), Tick(5000, 5, 495000, 495), 1.233357962),
    ],
)
def test_one_tick_gives_the_known_answer(
    side: Side, margin: Margin, multiples: tuple[float, ...], tick: Tick, expected: float
) -> None:
    assert log_e_of(TwoRing(side, margin, multiples), [tick]) == pytest.approx(expected, abs=1e-9)


def test_a_run_of_ticks_gives_the_known_answers() -> None:
    ticks = [
        Tick(1000, 4, 99000, 105),
        Tick(1020, 9, 98000, 98),
        Tick(5000, 55, 95000, 101),
        Tick(5000, 60, 95000, 90),
    ]
    harm, safe = TwoRing(HARM, GUARDRAIL), TwoRing(SAFE, GUARDRAIL)
    so_far = [ticks[:length] for length in (1, 2, 3, 4)]
    assert [log_e_of(harm, part) for part in so_far] == pytest.approx(
        [-0.281599, 3.455753, 39.404930, 86.198890], abs=1e-6
    )
    assert [log_e_of(safe, part) for part in so_far] == pytest.approx(
        [-0.979361, -1.843430, -3.927825, -5.498825], abs=1e-6
    )
    assert harm.p_value(evidence_of(harm, ticks)) == pytest.approx(3.667e-38, rel=1e-3)


def test_good_ticks_build_proof_and_take_from_the_harm() -> None:
    good = [Tick(1000, 1, 99000, 99)] * 6
    safe = [log_e_of(TwoRing(SAFE, GUARDRAIL), good[:length]) for length in range(1, 7)]
    harm = [log_e_of(TwoRing(HARM, GUARDRAIL), good[:length]) for length in range(1, 7)]
    assert safe == pytest.approx([0.109605, 0.336741, 0.610975, 0.912370, 1.233358, 1.569876], abs=1e-6)
    assert [harm[0], harm[-1]] == pytest.approx([-1.294666, -2.416705], abs=1e-6)
    assert proof_level(0.05) == pytest.approx(2.996, abs=1e-3)


def test_a_delayed_start_gives_the_known_answer() -> None:
    test, tick = TwoRing(HARM, Margin(), (2,), copies=2), Tick(1000, 3, 99000, 99)
    evidence = test.after(test.begin(), tick)
    assert test.log_e(evidence) == pytest.approx(0.667678471, abs=1e-9)
    assert test.log_e(test.after(test.restarted(evidence), tick)) == pytest.approx(1.732186265, abs=1e-9)


def test_failing_ring_units_that_it_takes_with_a_control_without_failures() -> None:
    test, level = TwoRing(HARM, GUARDRAIL), harm_level(0.01)

    def needed(units: int) -> int:
        return next(
            failed for failed in range(units + 1) if log_e_of(test, [Tick(units, failed, 99 * units, 0)]) >= level
        )

    assert [needed(units) for units in (100, 1000, 10_000)] == [3, 7, 24]


@pytest.mark.parametrize("tick", [Tick(0, 0, 1000, 500), Tick(1000, 500, 0, 0), Tick(0, 0, 0, 0)])
def test_a_tick_without_units_on_one_side_changes_nothing(tick: Tick) -> None:
    test = TwoRing(HARM, GUARDRAIL)
    evidence = test.after(test.begin(), Tick(1000, 9, 9000, 9))
    assert test.after(evidence, tick) == evidence


# Another way to the same number: fractions, and copies kept one by one.

UNITS = st.integers(1, 400)


@st.composite
def ticks(draw: st.DrawFn) -> Tick:
    ring, control = draw(UNITS), draw(UNITS)
    return Tick(ring, draw(st.integers(0, ring)), control, draw(st.integers(0, control)))


def fraction_gain(test: TwoRing, multiple: float, tick: Tick) -> float:
    """ℓ_k of one tick by the formula as it is written, without a float until the logarithms."""
    rho, delta = Fraction(test.margin.ratio), Fraction(test.margin.absolute)
    rho_k, n_r, n_b = rho * Fraction(multiple), tick.ring_units, tick.control_units
    a = rho_k * (rho * n_r + n_b) / (rho * (rho_k * n_r + n_b))
    b = (rho * n_r + n_b) / (rho_k * n_r + n_b)
    return tick.ring_outcomes * log(a) + tick.control_outcomes * log(b) - float(delta * n_r * (a - 1))


TESTS = st.builds(
    lambda side, ratio, absolute, copies: TwoRing(side, Margin(ratio, absolute), copies=copies),
    st.sampled_from(Side),
    st.sampled_from([0.9, 1.0, 1.25, 2.0]),
    st.sampled_from([-0.01, 0.0, 0.001, 0.05]),
    st.integers(1, 4),
)


@given(TESTS, st.lists(st.one_of(ticks(), st.just("restart")), max_size=12))
@settings(max_examples=60)
def test_it_is_the_mean_over_alternatives_and_copies_kept_one_by_one(test: TwoRing, events: list[Tick | str]) -> None:
    evidence = test.begin()
    copies, peak = [[0.0] * len(test.multiples)], 0.0

    def mean() -> float:
        logs = [ell for copy in copies for ell in copy]
        top = max(logs)
        scaled = sum(exp(ell - top) for ell in logs) / len(test.multiples)
        return log((scaled + (test.copies - len(copies)) * exp(-top)) / test.copies) + top

    for event in events:
        if isinstance(event, Tick):
            evidence = test.after(evidence, event)
            for copy in copies:
                for place, multiple in enumerate(test.multiples):
                    copy[place] += fraction_gain(test, multiple, event)
            peak = max(peak, mean())
        elif len(copies) < test.copies:
            evidence = test.restarted(evidence)
            copies.append([0.0] * len(test.multiples))
    assert isclose(test.log_e(evidence), mean(), rel_tol=1e-9, abs_tol=1e-8)
    assert isclose(evidence.peak, peak, rel_tol=1e-9, abs_tol=1e-8)


# The guarantee, by going through everything that can happen.


def chances(units: int, mean: Fraction) -> list[Fraction]:
    return [comb(units, k) * mean**k * (1 - mean) ** (units - k) for k in range(units + 1)]


@given(
    st.sampled_from(Side),
    st.integers(1, 7),
    st.integers(1, 7),
    st.fractions(0, 1, max_denominator=20),
    st.sampled_from([Fraction(1), Fraction(5, 4), Fraction(1, 2)]),
    st.sampled_from([Fraction(0), Fraction(1, 50), Fraction(-1, 50)]),
)
@settings(max_examples=150)
def test_its_mean_is_at_most_one_at_the_edge_of_the_null(
    side: Side, n_r: int, n_b: int, control: Fraction, ratio: Fraction, absolute: Fraction
) -> None:
    ring = ratio * control + absolute
    if not 0 <= ring <= 1:
        return
    test = TwoRing(side, Margin(float(ratio), float(absolute)))
    mean = sum(
        float(p * q) * exp(log_e_of(test, [Tick(n_r, x_r, n_b, x_b)]))
        for x_r, p in enumerate(chances(n_r, ring))
        for x_b, q in enumerate(chances(n_b, control))
    )
    assert mean <= 1 + 1e-9


@pytest.mark.parametrize("side", Side)
def test_without_an_absolute_margin_the_mean_is_at_most_one_exactly(side: Side) -> None:
    """In fractions from end to end, for every alternative alone."""
    n_r, n_b, control = 4, 9, Fraction(1, 5)
    for multiple in HARM_MULTIPLES if side is HARM else SAFE_MULTIPLES:
        rho, rho_k = Fraction(5, 4), Fraction(5, 4) * Fraction(multiple)
        a = rho_k * (rho * n_r + n_b) / (rho * (rho_k * n_r + n_b))
        b = (rho * n_r + n_b) / (rho_k * n_r + n_b)
        # E[a^x] of a binomial is (1 + μ(a−1))^n.
        assert (1 + rho * control * (a - 1)) ** n_r * (1 + control * (b - 1)) ** n_b <= 1


def test_its_mean_is_at_most_one_with_a_restart_between_two_ticks() -> None:
    test, mean_r, mean_b = TwoRing(HARM, Margin(1.5, 0.05), copies=2), Fraction(2, 5), Fraction(7, 30)
    outcomes = [
        (p * q, x_r, x_b) for x_r, p in enumerate(chances(3, mean_r)) for x_b, q in enumerate(chances(3, mean_b))
    ]
    total = 0.0
    for p, x_r, x_b in outcomes:
        first = test.restarted(test.after(test.begin(), Tick(3, x_r, 3, x_b)))
        total += sum(
            float(p * q) * exp(test.log_e(test.after(first, Tick(3, y_r, 3, y_b)))) for q, y_r, y_b in outcomes
        )
    assert total <= 1 + 1e-9


def test_in_the_alternative_its_mean_is_above_one() -> None:
    """Else the tests above would also hold for something that never finds anything."""
    test = TwoRing(HARM, Margin())
    mean = sum(
        float(p * q) * exp(log_e_of(test, [Tick(5, x_r, 5, x_b)]))
        for x_r, p in enumerate(chances(5, Fraction(4, 5)))
        for x_b, q in enumerate(chances(5, Fraction(1, 5)))
    )
    assert mean > 2


@given(ticks(), TESTS)
@settings(max_examples=100)
def test_one_failure_more_in_the_ring_is_more_harm_and_less_proof(tick: Tick, test: TwoRing) -> None:
    if tick.ring_outcomes == tick.ring_units:
        return
    worse = Tick(tick.ring_units, tick.ring_outcomes + 1, tick.control_units, tick.control_outcomes)
    before, then = log_e_of(test, [tick]), log_e_of(test, [worse])
    assert then > before if test.side is HARM else then < before


@given(TESTS, st.lists(ticks(), max_size=6))
@settings(max_examples=40)
def test_its_state_goes_through_json_and_the_p_value_only_falls(test: TwoRing, seen: list[Tick]) -> None:
    evidence, p_values = test.begin(), [1.0]
    for tick in seen:
        evidence = test.after(evidence, tick)
        again = Evidence.from_plain(json.loads(json.dumps(evidence.to_plain())))
        assert again == evidence
        evidence = again
        p_values.append(test.p_value(evidence))
    assert all(later <= earlier for earlier, later in pairwise(p_values))
    assert TwoRing.from_plain(json.loads(json.dumps(test.to_plain()))) == test


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Tick(10, 11, 10, 0), "ring: outcomes are in"),
        (lambda: Tick(10, 1, 10, -1), "control: outcomes are in"),
        (lambda: Tick(10, float("nan"), 10, 1), "ring: outcomes are in"),
        (lambda: Margin(0, 0), "a ratio above 0"),
        (lambda: Margin(1, float("inf")), "a ratio above 0"),
        (lambda: TwoRing(HARM, Margin(), (0.5,)), "no alternative for the harm side"),
        (lambda: TwoRing(SAFE, Margin(), (1.5,)), "no alternative for the safe side"),
        (lambda: TwoRing(SAFE, Margin(), copies=0), "at least one copy"),
        (lambda: Evidence.from_plain({"logs": [1.0]}), "not the evidence"),
        (lambda: Evidence.from_plain({"logs": [1.0], "weights": [], "started": 1, "peak": 0}), "not the evidence"),
        (lambda: Evidence.from_plain({"logs": ["x"], "weights": [0], "started": 1, "peak": 0}), "not the evidence"),
        (lambda: TwoRing.from_plain({"side": "better"}), "not a two-ring test"),
        (lambda: TwoRing(HARM).restarted(TwoRing(HARM).begin()), "all 1 copies have started"),
        (lambda: harm_level(0), "alpha must be between"),
        (lambda: log_mean_e([]), "at least one test"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(make, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_evidence_of_another_test_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        TwoRing(HARM).after(TwoRing(SAFE).begin(), Tick(1, 1, 1, 1))


def test_restarts_come_every_half_hour_and_then_ever_later() -> None:
    test, started_at, starts = TwoRing(HARM, copies=16), 0, [0]
    evidence = test.begin()
    for now in range(0, 14 * 24 * 3600, 600):
        if is_restart_due(evidence, 16, now - started_at):
            evidence, started_at = test.restarted(evidence), now
            starts.append(now)
    minutes = [(later - earlier) // 60 for earlier, later in pairwise(starts)]
    assert minutes == [30] * 8 + [60, 120, 240, 480, 960, 1920, 3840]


def test_levels_are_paid_for_by_harm_and_not_by_proof() -> None:
    assert harm_level(0.01, tests=4) == pytest.approx(log(400))
    assert harm_level(0.01, tests=4, copies=16) == pytest.approx(log(6400))
    assert always_valid_p(log(400)) == pytest.approx(1 / 400)
    assert always_valid_p(-3) == 1
    assert log_mean_e([log(2), log(4)]) == pytest.approx(log(3))
    assert log_mean_e([-2000.0, -2000.0]) == pytest.approx(-2000)


def test_where_lower_is_worse_the_sides_change_places() -> None:
    """Orders per user: 20 % fewer than the control's are harm, with the safe line and nine tenths."""
    fewer, same = [Tick(5000, 400, 5000, 500)] * 6, [Tick(5000, 500, 5000, 500)] * 6
    harm, proof = TwoRing(SAFE, Margin(0.9, 0)), TwoRing(HARM, Margin(0.9, 0))
    assert log_e_of(harm, fewer) > harm_level(0.01) > 0 > log_e_of(proof, fewer)
    assert log_e_of(proof, same) > proof_level(0.05) > 0 > log_e_of(harm, same)
