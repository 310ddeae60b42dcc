"""A worker that is killed: control knows all that it had counted, whatever it had told, and never counts twice."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given, settings
from hypothesis import strategies as st

from router.telemetry.counters import (
    REPORTED_RINGS,
    RingCounters,
    RingKey,
    WorkerCounters,
    read_meters,
)
from router.telemetry.journal import RECORDS, SEPARATOR, Journal
from router.telemetry.messages import pack_counters, unpack_counters
from router.telemetry.meters import RingMeter
from router.telemetry.replay import OpenJournal
from router.telemetry.reports import apply_report

LANES = [("shop", ring, "v1", reason) for ring in ("canary", "everyone") for reason in ("hash", "rule")]
REQUEST = st.tuples(
    st.sampled_from(LANES), st.sampled_from([200, 404, 499, 503]), st.integers(0, 9_000_000),
    st.one_of(st.none(), st.integers(0, 5_000_000)),
)  # fmt: skip


class Worker:
    """What a worker does with meters and journal, and what control hears of it."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.meters: dict[RingKey, RingMeter] = {}
        self.decided: Counter[tuple[str, str, str, str]] = Counter()
        self.answers: Counter[str] = Counter()
        self.heard = WorkerCounters()
        self.seen = OpenJournal(os.getpid(), journal.descriptor)

    def finish(self, lane: tuple[str, str, str, str], status: int, micros: int, waited: int | None) -> None:
        service, ring, version, _ = lane
        meter = self.meters.setdefault((service, ring, version), RingMeter())
        self.decided[lane] += 1
        meter.in_flight += 1
        is_error = status >= 499
        upstream = -1 if waited is None else waited
        meter.client_aborts += status == 499
        meter.finished(status, micros, 3, 5, is_error, upstream)
        number = self.journal.number(SEPARATOR.join(("lane", *lane)))
        self.journal.finished(number, status, is_error, status == 499, micros, upstream, 3, 5, self.decided[lane])

    def answer(self, word: str) -> None:
        self.answers[word] += 1
        self.journal.count(f"answer{SEPARATOR}{word}")

    def settle(self) -> None:
        """As a new snapshot does."""
        for lane, count in self.decided.items():
            if count:
                self.meters[lane[:3]].decided(lane[3], count)
                self.journal.settle(self.journal.number(SEPARATOR.join(("lane", *lane))), count)
        self.decided.clear()

    def report(self, *, is_lost: bool = False, whole: bool = False) -> None:
        self.settle()
        counters = WorkerCounters(rings=read_meters(self.meters, whole=whole), router_answers=dict(self.answers))
        is_all = whole or len(counters.rings) < REPORTED_RINGS
        epoch, at = (self.journal.turn(), 0) if is_all else self.journal.place
        if not is_lost:
            came = unpack_counters(pack_counters(counters))
            self.seen.reported(epoch, at, came)
            self.heard = apply_report(self.heard, came)

    def after_its_death(self) -> WorkerCounters:
        self.settle()  # what control is to find out
        self.seen.replay(self.heard)
        return self.heard


@contextmanager
def working() -> Iterator[Worker]:
    journal = Journal(is_shared=True)
    worker = Worker(journal)
    try:
        yield worker
    finally:
        worker.seen.close()
        os.close(journal.descriptor)


def assert_all_is_known(worker: Worker) -> None:
    heard = worker.after_its_death()
    truth = read_meters(worker.meters, whole=True)
    assert set(heard.rings) == set(truth)
    for key, true in truth.items():
        ring = heard.rings[key]
        assert (ring.codes, ring.reasons, ring.client_aborts) == (true.codes, true.reasons, true.client_aborts)
        assert (ring.request_bytes, ring.response_bytes) == (true.request_bytes, true.response_bytes)
        assert ring.durations == true.durations
        for name in ("success_micros", "error_micros", "upstream_success_micros", "upstream_error_micros"):
            assert getattr(ring, name) == getattr(true, name)
    assert heard.router_answers == worker.answers


@settings(deadline=None)  # each has files of its own
@given(st.lists(st.one_of(REQUEST, st.sampled_from(["report", "new snapshot", "bad request", "read twice"]))))
def test_what_was_counted_is_known_whatever_was_told_before_the_kill(events: list[object]) -> None:
    with working() as worker:
        for event in events:
            match event:
                case "report":
                    worker.report()
                case "new snapshot":
                    worker.settle()
                case "bad request":
                    worker.answer("bad_request")
                case "read twice":  # the connection broke, and the worker lived on
                    worker.seen.replay(worker.heard)
                case (lane, status, micros, waited):
                    worker.finish(lane, status, micros, waited)
        assert_all_is_known(worker)


def test_a_report_that_did_not_arrive_is_made_up_for() -> None:
    with working() as worker:
        worker.finish(LANES[0], 200, 1000, 500)
        worker.report()
        worker.finish(LANES[0], 200, 1000, 500)
        worker.report(is_lost=True)
        worker.finish(LANES[1], 503, 1000, None)
        assert_all_is_known(worker)


def test_of_more_rings_than_fit_into_a_report_each_is_known_from_where_it_was_told() -> None:
    with working() as worker:
        lanes = [(f"service-{number}", "everyone", "v1", "default") for number in range(REPORTED_RINGS + 500)]
        for lane in lanes:
            worker.finish(lane, 200, 1000, 500)
        worker.answer("bad_request")
        worker.report()
        assert len(worker.heard.rings) == REPORTED_RINGS
        for lane in lanes:
            worker.finish(lane, 404, 1000, 500)
        worker.answer("no_service")
        assert_all_is_known(worker)


def test_a_full_journal_asks_for_a_report_once_and_goes_on_after_it() -> None:
    asked: list[int] = []
    journal = Journal(lambda: asked.append(1), is_shared=True)
    worker = Worker(journal)
    for _ in range(RECORDS + 2):
        worker.finish(LANES[0], 200, 1000, 500)
    assert asked == [1]
    worker.report()
    worker.finish(LANES[0], 200, 1000, 500)
    assert_all_is_known(worker)
    assert worker.heard.rings["shop", "canary", "v1"].codes == {200: RECORDS + 3}
    worker.seen.close()
    os.close(journal.descriptor)


def test_a_request_that_went_elsewhere_is_taken_back() -> None:
    with working() as worker:
        worker.finish(LANES[0], 200, 1000, 500)
        number = worker.journal.number(SEPARATOR.join(("lane", *LANES[1])))
        worker.meters["shop", "canary", "v1"].decided("rule", 1)
        worker.journal.settle(number, 1)
        worker.meters["shop", "canary", "v1"].decided("rule", -1)
        worker.journal.settle(number, -1)
        heard = worker.after_its_death()
        assert heard.rings["shop", "canary", "v1"].reasons == {"hash": 1, "rule": 0}


def test_half_a_record_is_none() -> None:
    with working() as worker:
        worker.finish(LANES[0], 200, 1000, 500)
        os.pwrite(worker.journal.descriptor, b"\1" * 20, worker.journal.place[1] * 44 + RECORDS * 44)
        assert_all_is_known(worker)
        assert worker.heard.rings["shop", "canary", "v1"] != RingCounters()
