"""Counting: whatever happens between two reports, control knows it after the next ones, exactly and never twice."""

from __future__ import annotations

from collections import Counter

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.telemetry.buckets import Piece
from router.telemetry.catalogue import DURATIONS, Traffic
from router.telemetry.counters import (
    REPORTED_RINGS,
    RingCounters,
    RingKey,
    WorkerCounters,
    fold,
    read_meters,
)
from router.telemetry.messages import pack_counters, unpack_counters
from router.telemetry.meters import (
    ERROR,
    HISTOGRAM_BUCKETS,
    UPSTREAM,
    Durations,
    RingMeter,
    histogram_index,
    micros_of,
    upper_edge_seconds,
)
from router.telemetry.page import Page
from router.telemetry.reports import apply_report

KEYS: list[RingKey] = [("shop", ring, "v1") for ring in ("canary", "early", "everyone")]
REQUESTS = st.tuples(
    st.sampled_from(KEYS),
    st.sampled_from([200, 200, 404, 499, 503]),
    st.floats(0, 100),
    st.floats(0, 100),
)


def happen(meter: RingMeter, status: int, upstream: float, duration: float) -> None:
    meter.decided("hash", 1)
    meter.in_flight += 1
    meter.finished(status, micros_of(duration), 3, 5, status >= 500, micros_of(upstream))


def sent(meters: dict[RingKey, RingMeter], *, whole: bool) -> WorkerCounters:
    """A report as it arrives in control."""
    return unpack_counters(pack_counters(WorkerCounters(rings=read_meters(meters, whole=whole))))


@given(st.lists(st.one_of(REQUESTS, st.sampled_from(["report", "report twice", "control restarts"]))))
def test_control_knows_what_happened_whatever_is_reported_when(events: list[object]) -> None:
    meters = {key: RingMeter() for key in KEYS}
    known, is_first = WorkerCounters(), True
    truth: dict[RingKey, list[tuple[int, float, float]]] = {key: [] for key in KEYS}
    for event in [*events, "report"]:
        match event:
            case "report":
                known, is_first = apply_report(known, sent(meters, whole=is_first)), False
            case "report twice":
                report = sent(meters, whole=is_first)
                again = unpack_counters(pack_counters(report))
                known, is_first = apply_report(apply_report(known, report), again), False
            case "control restarts":
                known, is_first = WorkerCounters(), True
            case (key, status, upstream, duration):
                happen(meters[key], status, upstream, duration)
                truth[key].append((status, upstream, duration))
    for key, requests in truth.items():
        ring = known.rings.get(key, RingCounters())
        assert sum(ring.codes.values()) == sum(ring.reasons.values()) == len(requests)
        assert ring.in_flight == 0
        assert (ring.request_bytes, ring.response_bytes) == (3 * len(requests), 5 * len(requests))
        expected: Counter[int] = Counter()
        for status, upstream, duration in requests:
            first = ERROR if status >= 500 else 0
            expected[first + histogram_index(micros_of(duration))] += 1
            expected[UPSTREAM + first + histogram_index(micros_of(upstream))] += 1
        assert ring.durations == expected


@given(st.lists(st.one_of(REQUESTS, st.just("report"))))
def test_the_news_of_all_reports_together_are_all_that_happened(events: list[object]) -> None:
    meters = {key: RingMeter() for key in KEYS}
    known, came = apply_report(WorkerCounters(), sent(meters, whole=True)), {key: Piece() for key in KEYS}
    truth = {key: Piece() for key in KEYS}
    for event in [*events, "report"]:
        match event:
            case (key, status, upstream, duration):
                happen(meters[key], status, upstream, duration)
                truth[key].add(Piece({status: 1}, {"hash": 1}, {histogram_index(micros_of(duration)): 1}))
            case _:
                news: dict[RingKey, Piece] = {}
                known = apply_report(known, sent(meters, whole=False), news)
                for key, piece in news.items():
                    came[key].add(piece)
    assert came == truth


def test_more_rings_than_fit_into_a_report_are_all_known_after_a_few() -> None:
    count = 2 * REPORTED_RINGS + 1
    meters = {(f"service-{i}", "everyone", "v1"): RingMeter() for i in range(count)}
    known = apply_report(WorkerCounters(), sent(meters, whole=True))
    for _ in range(3):
        for meter in meters.values():
            happen(meter, 200, 0.1, 0.2)
        known = apply_report(known, sent(meters, whole=False))
    assert all(sum(ring.codes.values()) >= 1 for ring in known.rings.values())
    for _ in range(2):
        known = apply_report(known, sent(meters, whole=False))
    assert all(ring.codes == {200: 3} for ring in known.rings.values())
    assert len(known.rings) == count


@given(st.lists(REQUESTS), st.lists(REQUESTS))
def test_workers_add_up(
    one: list[tuple[RingKey, int, float, float]], other: list[tuple[RingKey, int, float, float]]
) -> None:
    total = WorkerCounters()
    both: dict[RingKey, RingMeter] = {}
    for requests in (one, other):
        meters: dict[RingKey, RingMeter] = {}
        for key, status, upstream, duration in requests:
            happen(meters.setdefault(key, RingMeter()), status, upstream, duration)
            happen(both.setdefault(key, RingMeter()), status, upstream, duration)
        fold(total, sent(meters, whole=True), gauges=True)
    expected = read_meters(both, whole=True)
    assert {key: (ring.codes, ring.durations) for key, ring in total.rings.items()} == {
        key: (ring.codes, ring.durations) for key, ring in expected.items()
    }


@given(st.integers(1, 4_000_000_000))
def test_a_bucket_says_a_duration_to_within_four_and_a_half_percent(micros: int) -> None:
    index = histogram_index(micros)
    assert 0 <= index < HISTOGRAM_BUCKETS
    assert micros / 1e6 <= upper_edge_seconds(index) * (1 + 1e-9)
    assert upper_edge_seconds(index) <= micros / 1e6 * 1.0443 * (1 + 1e-9)


@pytest.mark.parametrize("shape", ["lognormal", "uniform", "two humps", "exponential"])
def test_quantiles_are_those_of_numpy_to_within_four_and_a_half_percent(shape: str) -> None:
    chance = numpy.random.default_rng(4)
    seconds = {
        "lognormal": chance.lognormal(-5, 1.5, 20_000),
        "uniform": chance.uniform(0.0001, 3, 20_000),
        "two humps": numpy.concatenate([chance.normal(0.01, 0.001, 19_000), chance.normal(2, 0.1, 1_000)]),
        "exponential": chance.exponential(0.02, 20_000) + 0.0001,
    }[shape]
    meters: dict[RingKey, RingMeter] = {}
    for number, one in enumerate(seconds):  # of two workers
        happen(meters.setdefault(("shop", str(number % 2), "v1"), RingMeter()), 200, 0.1, float(one))
    total = WorkerCounters()
    for (service, _, version), ring in read_meters(meters, whole=True).items():
        fold(total, WorkerCounters(rings={(service, "everyone", version): ring}), gauges=True)
    (merged,) = total.rings.values()
    filled = sorted((index, count) for index, count in merged.durations.items() if index < ERROR)
    below = numpy.cumsum([count for _, count in filled])
    for quantile in (0.01, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999):
        true = numpy.quantile(seconds, quantile, method="inverted_cdf")
        rank = numpy.ceil(quantile * len(seconds))
        said = upper_edge_seconds(filled[int(numpy.searchsorted(below, rank))][0])
        # Half a microsecond is what counting whole ones may add.
        assert true - 0.5e-6 <= said * (1 + 1e-9)
        assert said <= (true + 0.5e-6) * 1.0443 * (1 + 1e-9)
    assert merged.success_micros / 1e6 == pytest.approx(float(seconds.sum()), rel=1e-4)


@given(st.lists(st.integers(1, 20_000_000), max_size=60))
def test_buckets_of_prometheus_are_monotone_and_never_say_that_it_was_faster(durations: list[int]) -> None:
    meter = RingMeter()
    for micros in durations:
        meter.finished(200, micros, 0, 0, False)
    page = Page()
    page.begin(Traffic.DURATION)
    page.histogram("", Durations(meter.read(whole=True)), meter.success_micros)
    found = [line.rpartition(" ") for line in page.text().decode().splitlines() if "_bucket{" in line]
    counts = [int(value) for _, _, value in found]
    assert counts == sorted(counts)
    assert counts[-1] == len(durations)
    for bound, count in zip(DURATIONS, counts, strict=False):
        assert count <= sum(micros <= bound * 1e6 for micros in durations)
        assert count >= sum(micros * 1.0443 * (1 + 1e-9) <= bound * 1e6 for micros in durations)
