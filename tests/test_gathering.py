"""The tick that fills: workers put together user by user, parts that wait for Redis, and clocks that are put right."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from router.control.gathering import KEPT_SECONDS, MOST_USERS, Facts, Following, Gathering
from router.telemetry.evidence import TickPart, unpack
from router.telemetry.messages import Users

EARLY = ("early", "v2", "hash")
ARRIVED = [3, 2, 1]


@dataclass
class Counts:
    """What is known beside users; ``finished`` grows."""

    finished: int = 0

    def __call__(self) -> Facts:
        return Facts(self.finished, 1, ARRIVED)


def gathering(now: float = 100.0, tick: float = 10.0) -> tuple[Gathering, Counts]:
    counts = Counts()
    return Gathering(Following("v2", tick, 1_000_000, 60.0), counts, now), counts


def report(*digests: int, code: int = 5) -> Users:
    return Users({"shop": {EARLY: {digest: {code: 1} for digest in digests}}}, {})


def test_a_tick_is_whole_when_it_is_over_and_what_comes_later_is_of_the_next() -> None:
    one, counts = gathering(103.0)
    one.took(1, report(7, 8), "shop", 104.0)
    counts.finished = 2
    one.took(2, report(7), "shop", 109.9)
    assert unpack(one.part(109.9)).is_done is False
    counts.finished = 4
    one.took(1, report(9), "shop", 110.0)
    part = unpack(one.waiting[10])
    assert part == TickPart(True, 7.0, {EARLY: {7: {5: 2}, 8: {5: 1}}}, {}, 4, 1, ARRIVED, 0)
    assert unpack(one.part(112.0)) == TickPart(False, 2.0, {EARLY: {9: {5: 1}}}, {}, 0, 1, ARRIVED, 0)


def test_a_clock_that_was_put_right_opens_no_tick_that_is_over() -> None:
    one, _ = gathering(109.0)
    one.look(110.1)
    one.took(1, report(7), "shop", 109.9)
    one.look(120.0)
    assert unpack(one.waiting[10]).finished == {}
    assert unpack(one.waiting[11]).finished == {EARLY: {7: {5: 1}}}


def test_a_worker_says_anew_each_time_what_is_under_way_and_one_that_is_gone_has_nothing() -> None:
    one, _ = gathering()
    for worker, ages in ((1, [160]), (2, [170, 171]), (1, [165])):
        one.took(worker, Users({}, {"shop": {EARLY: {7: ages}}}), "shop", 101.0)
    assert {code: sorted(ages) for code, ages in unpack(one.part(102.0)).pending[EARLY].items()} == {7: [165, 170, 171]}
    one.keep_workers([2])
    assert unpack(one.part(102.0)).pending == {EARLY: {7: [170, 171]}}
    one.took(2, Users({}, {}), "shop", 103.0)
    assert unpack(one.part(103.0)).pending == {}


def test_parts_wait_for_a_quarter_of_an_hour_and_no_longer() -> None:
    one, _ = gathering()
    for tick in range(10, 210):
        one.look(tick * 10.0)
    assert sorted(one.waiting) == list(range(209 - int(KEPT_SECONDS / 10), 209))
    assert one.lost == 199 - len(one.waiting)


def test_users_beyond_what_a_part_may_have_are_counted_as_missing() -> None:
    one, _ = gathering()
    one.took(1, report(*range(MOST_USERS - 1)), "shop", 101.0)
    one.took(1, report(5, MOST_USERS, MOST_USERS + 1, MOST_USERS + 2), "shop", 102.0)
    assert not one.is_small
    part = unpack(one.part(103.0))
    assert len(part.finished[EARLY]) == MOST_USERS
    assert part.finished[EARLY][5] == {5: 2}
    assert part.dropped == 2


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5), st.integers(0, 514), st.floats(0, 25)), max_size=60).map(
        lambda events: sorted(events, key=lambda event: event[3])
    )
)
def test_every_request_that_a_worker_told_of_is_in_exactly_one_tick(
    events: list[tuple[int, int, int, float]],
) -> None:
    one, _ = gathering(0.0)
    for worker, digest, code, at in events:
        one.took(worker, report(digest, code=code), "shop", at)
    one.look(40.0)
    told: Counter[tuple[int, int]] = Counter()
    for data in one.waiting.values():
        for users in unpack(data).finished.values():
            for digest, codes in users.items():
                told.update({(digest, code): count for code, count in codes.items()})
    assert told == Counter((digest, code) for _, digest, code, _ in events)
