"""The sample-ratio test: known answers, a second way to them, its mean, and looking all the time."""

from __future__ import annotations

from bisect import bisect
from fractions import Fraction
from itertools import accumulate
from math import comb, exp, factorial, inf, isclose, log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.rollout.statistics.ratio import Split, log_e_share, log_e_shares, tolerance


@pytest.mark.parametrize(
    ("counts", "shares", "expected"),
    [
        ((10, 30, 60), (0.1, 0.3, 0.6), -0.698978),
        ((130, 290, 580), (0.1, 0.3, 0.6), 1.723437),
        ((1000, 99_000), (0.01, 0.99), -3.535364),
        ((1200, 98_800), (0.01, 0.99), 15.344715),
        ((1100, 98_900), (0.01, 0.99), 1.304508),
        ((10_400, 989_600), (0.01, 0.99), 3.269760),
    ],
)
def test_counts_against_shares_give_the_known_answer(
    counts: tuple[int, ...], shares: tuple[float, ...], expected: float
) -> None:
    assert log_e_shares(counts, shares) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("count", "total", "expected"),
    [(1200, 10**5, 6.708113), (1100, 10**5, -2.402560), (10_400, 10**6, -4.706476), (11_000, 10**6, 7.108352)],
)
def test_with_a_tolerance_it_gives_the_known_answer(count: int, total: int, expected: float) -> None:
    assert log_e_share(count, total, 0.01, 0.0005) == pytest.approx(expected, abs=2e-6)


def rising(start: Fraction, steps: int) -> Fraction:
    """Γ(start+steps) / Γ(start)"""
    product = Fraction(1)
    for step in range(steps):
        product *= start + step
    return product


@given(st.lists(st.integers(0, 40), min_size=2, max_size=4), st.data())
def test_in_fractions_it_is_the_same(counts: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 50), min_size=len(counts), max_size=len(counts)))
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    e = 1 / rising(Fraction(100), sum(counts))
    for count, share in zip(counts, shares, strict=True):
        e *= rising(100 * share, count) / share**count
    assert isclose(log_e_shares(counts, [float(share) for share in shares]), log(e), rel_tol=1e-8, abs_tol=1e-8)


def test_its_mean_is_one_while_the_split_is_right() -> None:
    total, shares = 8, (Fraction(1, 10), Fraction(3, 10), Fraction(6, 10))
    mean = 0.0
    for x in range(total + 1):
        for y in range(total + 1 - x):
            z = total - x - y
            ways = factorial(total) // (factorial(x) * factorial(y) * factorial(z))
            chance = ways * shares[0] ** x * shares[1] ** y * shares[2] ** z
            mean += float(chance) * exp(log_e_shares((x, y, z), [float(share) for share in shares]))
    assert mean == pytest.approx(1)


@pytest.mark.parametrize("true", [Fraction(15, 100), Fraction(20, 100), Fraction(25, 100)])
def test_within_the_tolerance_its_mean_is_at_most_one(true: Fraction) -> None:
    total = 40
    mean = sum(
        float(comb(total, k) * true**k * (1 - true) ** (total - k)) * exp(log_e_share(k, total, 0.2, 0.05))
        for k in range(total + 1)
    )
    assert mean <= 1


@given(st.integers(0, 3000), st.integers(1, 3000), st.floats(0, 1), st.floats(0, 0.2))
def test_a_wider_tolerance_is_never_more_evidence(count: int, total: int, share: float, epsilon: float) -> None:
    count = min(count, total)
    assert log_e_share(count, total, share, epsilon + 0.01) <= log_e_share(count, total, share, epsilon) + 1e-9


def test_somebody_in_a_closed_ring_is_evidence_and_nobody_is_none() -> None:
    assert log_e_shares((0, 500), (0.0, 1.0)) == pytest.approx(0)
    assert log_e_shares((1, 500), (0.0, 1.0)) == inf
    assert log_e_share(0, 100_000, 0.0, tolerance(0.0)) <= 0
    assert log_e_share(100, 100_000, 0.0, tolerance(0.0)) > log(1000)
    assert log_e_share(100_000, 100_000, 1.0, tolerance(1.0)) <= 0
    assert log_e_share(0, 0, 0.5, 0.01) == 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda: log_e_shares((1, 2), (0.5, 0.6)),
        lambda: log_e_shares((1,), (0.5, 0.5)),
        lambda: log_e_share(3, 2, 0.5, 0.1),
        lambda: log_e_share(1, 2, 0.5, -0.1),
        lambda: Split.begin(2).after((1, 2, 3), (0.2, 0.3, 0.5)),
    ],
)
def test_what_is_no_split_is_refused(ask) -> None:
    with pytest.raises(ValueError, match=r"share|rings"):
        ask()


def seen(random: Random, shares: tuple[float, ...], users: int, looks: int) -> list[list[int]]:
    """Cumulative counts per ring at each look."""
    bounds, counts, found = list(accumulate(shares))[:-1], [0] * len(shares), []
    for _look in range(looks):
        for _ in range(users // looks):
            counts[bisect(bounds, random.random())] += 1
        found.append(list(counts))
    return found


def test_looking_all_the_time_raises_no_alarm_while_the_split_is_right() -> None:
    random, shares, alarms, naive = Random(5), (0.1, 0.3, 0.6), 0, 0
    for _ in range(60):
        looks, split = seen(random, shares, 2000, 100), Split.begin(3)
        exact = Split.begin(3)
        for counts in looks:
            split = split.after(counts, shares)
            exact = Split((max(exact.peaks[0], log_e_shares(counts, shares)), 0.0, 0.0))
        alarms += exact.peaks[0] >= log(1 / 0.05)
        naive += any(
            sum((count - sum(counts) * share) ** 2 / (sum(counts) * share) for count, share in zip(counts, shares))  # noqa: B905
            > 5.991
            for counts in looks
        )
        assert split.p_value > 0.001
    assert alarms <= 6  # 3 are allowed for on average; chi-square, looked at as often, finds
    assert naive >= 12  # four times as many


def test_a_ring_that_gets_too_few_is_named() -> None:
    split = Split.begin(3)
    for counts in seen(Random(8), (0.07, 0.33, 0.6), 20_000, 40):
        split = split.after(counts, (0.1, 0.3, 0.6))
    assert split.p_value < 0.001
    assert split.p_values[0] == split.p_value
    assert split.p_values[2] > 0.1


def test_an_alarm_does_not_go_away_by_itself() -> None:
    split = Split.begin(2).after((600, 400), (0.5, 0.5))
    assert split.p_value < 0.001
    assert split.after((5000, 5000), (0.5, 0.5)) == split
