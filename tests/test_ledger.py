"""Control's memory of the workers: whatever is on the disk when it is killed, a new one counts nothing twice."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

from router.control import ledger
from router.control.ledger import Ledger
from router.control.shares import STEP_SECONDS, WINDOW_SECONDS, Shares
from router.telemetry.counters import EndpointCounters, RingCounters, WorkerCounters, fold
from router.telemetry.messages import pack_counters
from router.telemetry.reports import apply_report

KEY = ("shop", "canary", "v2")


def report(count: int) -> WorkerCounters:
    """Cumulative, as a worker tells it."""
    return WorkerCounters(rings={KEY: RingCounters({200: count}, durations={100: count})})


def told(book: Ledger, *counts: int, pid: int = 7) -> WorkerCounters:
    known = WorkerCounters()
    for count in counts:
        known = apply_report(known, report(count))
        book.report(0, pid, pack_counters(report(count)), known)
    return known


def test_a_new_control_knows_what_the_old_one_was_told(tmp_path: Path) -> None:
    known = told(Ledger(tmp_path), 3, 5, 9)
    assert Ledger(tmp_path).found == {(0, 7): known}


def test_a_new_control_knows_the_endpoints_that_were_told_one_by_one(tmp_path: Path) -> None:
    book, known = Ledger(tmp_path), WorkerCounters()
    one, other = ("shop", "v1", "a:1"), ("shop", "v1", "b:1")
    for counters in (
        WorkerCounters(endpoints={one: EndpointCounters(), other: EndpointCounters()}, levels=[1, 2, 3, 4]),
        WorkerCounters(endpoints={other: EndpointCounters({"reset": 1})}, has_all_endpoints=False, levels=[5, 6, 7, 8]),
        WorkerCounters(has_all_endpoints=False, levels=[9, 10, 11, 12]),
    ):
        packed = pack_counters(counters)
        known = apply_report(known, counters)
        book.report(0, 7, packed, known)
    total = WorkerCounters()
    fold(total, Ledger(tmp_path).found[0, 7], gauges=True)
    assert total.endpoints == {
        one: EndpointCounters(active=9, idle=10),
        other: EndpointCounters({"reset": 1}, active=11, idle=12),
    }


def test_half_a_report_at_the_end_is_none(tmp_path: Path) -> None:
    told(Ledger(tmp_path), 3, 5)
    path = tmp_path / ledger.DIRECTORY / "0-7"
    whole = path.read_bytes()
    seen = []
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        (found,) = Ledger(tmp_path).found.values()
        seen.append(found.rings.get(KEY, RingCounters()).codes.get(200, 0))
    assert set(seen) == {0, 3, 5}
    assert seen == sorted(seen)
    assert seen[-1] == 5 > seen[-2]


def test_a_control_that_dies_while_it_adds_a_dead_worker_to_the_sum_adds_it_once(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    known = told(book, 5)
    path = tmp_path / ledger.DIRECTORY / "0-7"
    kept = path.read_bytes()
    fold(book.folded, known, gauges=False)
    book.fold(0, 7)
    path.write_bytes(kept)  # it was killed before this went
    again = Ledger(tmp_path)
    assert again.folded.rings[KEY].codes == {200: 5}
    assert not again.found
    assert not path.exists()


def test_a_file_that_has_grown_is_written_anew_and_says_the_same(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    known = WorkerCounters()
    path = tmp_path / ledger.DIRECTORY / "0-7"
    sizes = []
    big = {("shop", f"ring-{number}", "v1"): RingCounters({200: 1}) for number in range(2000)}
    for _ in range(30):
        one = WorkerCounters(rings=dict(big))
        known = apply_report(known, WorkerCounters(rings=dict(big)))
        book.report(0, 7, pack_counters(one), known)
        sizes.append(path.stat().st_size)
    assert max(sizes) < 30 * sizes[0]
    assert any(after < before for before, after in pairwise(sizes))
    assert Ledger(tmp_path).found[0, 7] == known


def test_a_directory_that_cannot_be_written_is_said_once_and_counting_goes_on(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    shutil.rmtree(tmp_path / ledger.DIRECTORY)
    known = told(book, 3, 5)
    assert known.rings[KEY].codes == {200: 5}


def test_shares_are_those_of_the_last_minute() -> None:
    shares = Shares()
    assert shares.shares({}) == {}
    canary, rest = ("shop", "canary"), ("shop", "everyone")
    now, counts = 0.0, {canary: 0, rest: 0}
    for _ in range(24):  # two minutes of 1 to 9
        assert shares.is_due(now)
        shares.note(now, dict(counts))
        assert not shares.is_due(now + STEP_SECONDS / 2)
        now += STEP_SECONDS
        counts = {canary: counts[canary] + 1, rest: counts[rest] + 9}
    assert shares.shares(counts) == {canary: 0.1, rest: 0.9}
    for _ in range(int(WINDOW_SECONDS / STEP_SECONDS) + 1):  # and one of 5 to 5
        shares.note(now, dict(counts))
        now += STEP_SECONDS
        counts = {canary: counts[canary] + 5, rest: counts[rest] + 5}
    assert shares.shares(counts) == {canary: 0.5, rest: 0.5}
    assert shares.shares({}) == {}
