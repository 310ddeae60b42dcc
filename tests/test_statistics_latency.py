"""The shift test: what is counted above which edge, chosen when, and what it finds."""

from __future__ import annotations

import json
from math import log2
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.rollout.statistics.latency import (
    REMEMBERED,
    Earlier,
    above,
    edge_seconds,
    shift_factor,
    shift_tick,
)
from router.rollout.statistics.levels import harm_level, proof_level
from router.rollout.statistics.two_ring import Margin, Side, Tick, TwoRing
from router.telemetry.meters import HISTOGRAM_BUCKETS, histogram_index, micros_of
from router.telemetry.quantiles import quantile_bucket

HISTOGRAMS = st.dictionaries(st.integers(0, HISTOGRAM_BUCKETS - 1), st.integers(1, 3000), max_size=30)


def histogram(durations: list[float]) -> dict[int, int]:
    found: dict[int, int] = {}
    for seconds in durations:
        bucket = histogram_index(micros_of(seconds))
        found[bucket] = found.get(bucket, 0) + 1
    return found


def test_a_bucket_more_is_four_percent_more() -> None:
    assert [shift_factor(shift) for shift in (1, 2, 3, 4)] == pytest.approx([1.0443, 1.0905, 1.1388, 1.1892], abs=1e-4)


@given(st.lists(st.floats(1e-5, 3000), min_size=1, max_size=60), st.floats(1e-4, 1000))
def test_what_is_above_an_edge_is_what_took_longer(durations: list[float], limit: float) -> None:
    edge = round(log2(limit * 1e6) * 16)
    if any(abs(log2(seconds * 1e6) * 16 - edge) < 1e-6 for seconds in durations):
        return  # on the edge itself floats may fall either way
    assert above(histogram(durations), edge) == sum(seconds > edge_seconds(edge) for seconds in durations)


@given(HISTOGRAMS, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_bucket_of_a_quantile_is_where_the_sorted_values_say(counts: dict[int, int], quantile: float) -> None:
    values = [bucket for bucket in sorted(counts) for _ in range(counts[bucket])]
    place = next((k for k in range(1, len(values) + 1) if k >= quantile * len(values) - 1e-9), None)
    assert quantile_bucket(counts, quantile) == (None if place is None else values[place - 1])


def test_the_edge_is_above_the_quantile_of_the_ticks_that_are_over() -> None:
    random = Random(3)
    durations = [random.lognormvariate(-4, 0.6) for _ in range(5000)]
    edge = Earlier().after(histogram(durations)).edge(0.9)
    assert edge is not None
    p90 = sorted(durations)[4499]
    assert p90 <= edge_seconds(edge) <= p90 * shift_factor(1)


@pytest.mark.parametrize(("quantile", "needed"), [(0.5, 20), (0.9, 100), (0.99, 1000)])
def test_there_is_no_edge_before_there_are_enough_requests(quantile: float, needed: int) -> None:
    assert Earlier().edge(quantile) is None
    assert Earlier().after({100: needed - 1}).edge(quantile) is None
    assert Earlier().after({100: needed}).edge(quantile) == 101


def test_the_edge_leaves_room_for_the_shift_above_it() -> None:
    edge = Earlier().after({HISTOGRAM_BUCKETS - 1: 1000}).edge(0.9, shift=4)
    assert edge == HISTOGRAM_BUCKETS - 5
    slow = {HISTOGRAM_BUCKETS - 1: 10}
    assert shift_tick(slow, slow, edge, shift=4) == Tick(10, 10, 10, 10)


def test_the_edge_follows_the_day_and_the_memory_is_bounded() -> None:
    earlier = Earlier()
    for _ in range(20):
        earlier = earlier.after({100: 9_000, 110: 1_000})
    assert earlier.edge(0.5) == 101
    for _ in range(8):
        earlier = earlier.after({200: 10_000})
    assert earlier.edge(0.5) == 201
    assert sum(count for _, count in earlier.counts) <= REMEMBERED


@given(st.lists(HISTOGRAMS, max_size=5))
def test_what_it_remembers_goes_through_json(histograms: list[dict[int, int]]) -> None:
    earlier = Earlier()
    for counts in histograms:
        earlier = earlier.after(counts)
    assert Earlier.from_plain(json.loads(json.dumps(earlier.to_plain()))) == earlier


@pytest.mark.parametrize("plain", [None, "x", [[1]], [[1, 0]], [[-1, 1]], [[HISTOGRAM_BUCKETS, 1]], [["1", 2]]])
def test_what_it_cannot_have_remembered_is_refused(plain: object) -> None:
    with pytest.raises(ValueError, match="not the earlier latencies"):
        Earlier.from_plain(plain)


def test_a_quantile_is_between_none_and_all() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile_bucket({1: 1}, 1.0)


def test_the_ring_is_counted_two_buckets_further_up() -> None:
    counts = {100: 5, 101: 4, 102: 3, 103: 2}
    assert shift_tick(counts, counts, 101) == Tick(14, 2, 14, 9)
    assert shift_tick(counts, counts, 101, shift=0) == Tick(14, 9, 14, 9)


@pytest.mark.parametrize(
    ("slower", "is_harm", "is_safe"),
    [(1.0, False, True), (shift_factor(2), False, False), (1.35, True, False)],
)
def test_what_is_slower_is_found_and_what_is_not_is_proven(slower: float, is_harm: bool, is_safe: bool) -> None:
    """p90, while the control itself drifts by 30 % up and down."""
    random = Random(11)
    harm, safe = TwoRing(Side.HARM, Margin()), TwoRing(Side.SAFE, Margin())
    found, proven, earlier = harm.begin(), safe.begin(), Earlier()
    for tick in range(120):
        drift = 1 + 0.3 * (abs(tick % 40 - 20) / 10 - 1)
        control = histogram([drift * random.lognormvariate(-4, 0.6) for _ in range(300)])
        ring = histogram([slower * drift * random.lognormvariate(-4, 0.6) for _ in range(30)])
        edge = earlier.edge(0.9)
        earlier = earlier.after(control)
        if edge is not None:
            counted = shift_tick(ring, control, edge)
            found, proven = harm.after(found, counted), safe.after(proven, counted)
    assert (found.peak >= harm_level(0.01)) is is_harm
    assert (proven.peak >= proof_level(0.05)) is is_safe
