"""What a latency run leaves out because the machine stood still, and what it must not leave out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadtests.openloop import Row
from loadtests.standstills import Standstill, kept

MS = 1_000_000
MOMENTS = st.integers(0, 200 * MS)
ROWS = st.lists(st.builds(Row, MOMENTS, st.just(0), st.integers(0, 50 * MS), st.just(200)))
STANDSTILLS = st.lists(
    st.tuples(MOMENTS, st.integers(1, 20 * MS)).map(lambda one: Standstill(one[0], sum(one)))
).map(sorted)  # fmt: skip


def row(due_ms: float, took_ms: float = 0.1) -> Row:
    return Row(int(due_ms * MS), 0, int(took_ms * MS), 200)


def test_what_was_due_in_a_standstill_or_while_its_queue_drained_is_left_out() -> None:
    rows = [row(due) for due in (8.5, 9.5, 11, 12.5, 20.5, 21.5, 90)]

    left = kept(rows, [Standstill(10 * MS, 12 * MS)])

    assert left == [row(8.5), row(21.5), row(90)]


def test_a_machine_that_never_stood_still_leaves_nothing_out() -> None:
    rows = [row(1), row(2, took_ms=400)]

    assert kept(rows, []) == rows


def test_a_short_standstill_within_a_long_one_does_not_end_it() -> None:
    long, short = Standstill(10 * MS, 30 * MS), Standstill(11 * MS, 12 * MS)

    assert kept([row(40)], [long, short]) == kept([row(40)], [long]) == []


@given(ROWS, STANDSTILLS)
def test_how_long_a_request_took_never_decides(rows: list[Row], standstills: list[Standstill]) -> None:
    quick = [one._replace(took=0) for one in rows]

    assert [one.due for one in kept(rows, standstills)] == [one.due for one in kept(quick, standstills)]


@given(ROWS, STANDSTILLS, STANDSTILLS)
def test_more_standstills_never_keep_more(rows: list[Row], some: list[Standstill], others: list[Standstill]) -> None:
    assert set(kept(rows, sorted(some + others))) <= set(kept(rows, some)) & set(kept(rows, others))
