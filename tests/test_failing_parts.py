"""What decides about failing backends, piece by piece: standings, shares, the retry budget, the breaker. All pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.shares import MOST_TURNS, POINTS, affinity, points, turns, units
from router.core.snapshot import outward
from router.core.spec import BreakerSpec, RingSpec, VersionSpec
from router.core.standing import TRANSITIONS, USABLE, Event, Standing
from router.proxy.breaker import MAX_OPEN_SECONDS, Breaker
from router.proxy.budget import FIRST, MOST, Budget
from tests.house import endpoint, shop

WEIGHTS = st.lists(st.integers(1, 1000), min_size=1, max_size=12)


def test_the_table_of_standings_is_total() -> None:
    assert set(TRANSITIONS) == {(standing, event) for standing in Standing for event in Event}


def test_only_time_or_a_connection_leads_out_of_trouble_and_never_straight_into_full_traffic() -> None:
    for (before, event), after in TRANSITIONS.items():
        if before not in USABLE and after in USABLE:
            assert after is Standing.WARMING
            assert event in (Event.CONNECTED, Event.TIME_OVER)
        if event is Event.CONNECT_FAILED:
            assert after is Standing.UNREACHABLE


@given(WEIGHTS)
def test_turns_are_as_many_as_the_weights_say(weights: list[int]) -> None:
    small = units(weights)
    assert Counter(turns(weights)) == dict(enumerate(small))
    assert sum(small) <= MOST_TURNS + len(weights)
    if sum(weights) <= MOST_TURNS:
        assert all(a * y == b * x for (a, x), (b, y) in pairwise(zip(weights, small, strict=True)))


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6))
def test_turns_are_spread_and_not_one_after_the_other(weights: list[int]) -> None:
    order = turns(weights)
    small = units(weights)
    for index, weight in enumerate(small):
        at = [i for i, one in enumerate(order) if one == index]
        gaps = [b - a for a, b in pairwise([*at, at[0] + len(order)])]
        assert max(gaps) <= 2 * len(order) / weight + 1


def test_a_weight_of_none_gets_no_turn() -> None:
    assert set(turns([0, 3, 1])) == {1, 2}


def owners(names: list[bytes], weights: list[int]) -> list[bytes]:
    """Whose each of a thousand users is."""
    at, of = points(names, weights)
    found = []
    for user in range(1000):
        place = affinity(b"user-%d" % user)
        found.append(names[of[next((i for i, point in enumerate(at) if point >= place), 0)]])
    return found


NAMES = [b"10.0.0.%d:80" % i for i in range(6)]


def test_points_share_users_by_weight() -> None:
    shares = Counter(owners(NAMES[:3], [1, 1, 2]))
    assert 180 < shares[NAMES[0]] < 320
    assert 180 < shares[NAMES[1]] < 320
    assert 420 < shares[NAMES[2]] < 580


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5, 100]])
def test_an_endpoint_that_goes_moves_hardly_anybody_but_its_own_users(weights: list[int]) -> None:
    before = owners(NAMES, weights)
    after = owners(NAMES[1:], weights[1:])
    moved = sum(1 for a, b in zip(before, after, strict=True) if a != NAMES[0] and a != b)
    assert moved == 0 if len(set(weights)) == 1 else moved < 100


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_there_are_no_more_points_for_odd_weights_than_for_even_ones(weights: list[int]) -> None:
    at, of = points([b"%d" % i for i in range(len(weights))], weights)
    assert len(at) <= (POINTS + 1) * len(weights)
    assert at == sorted(at)
    assert set(of) == set(range(len(weights)))


@given(st.integers(0, 10_000), st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=300))
def test_a_budget_never_pays_for_more_than_its_share_of_the_requests(
    basis_points: int, story: list[tuple[int, bool]]
) -> None:
    budget, begun, paid = Budget(basis_points), 0, 0
    history = []
    for requests, fails in story:
        begun += requests
        if fails and budget.take(begun):
            paid += 1
        history.append((begun, paid))
        assert paid <= max(FIRST, basis_points / 10_000 * begun) + 1e-6
    if history:
        (begun0, paid0), (begun1, paid1) = history[len(history) // 2], history[-1]
        assert paid1 - paid0 <= MOST + basis_points / 10_000 * (begun1 - begun0) + 1e-6


def test_a_budget_pays_at_once_and_in_the_long_run_exactly_its_share() -> None:
    budget = Budget(2000)
    assert sum(budget.take(1) for _ in range(20)) == FIRST
    budget = Budget(2000)
    assert 1990 <= sum(budget.take(begun) for begun in range(1, 10_001)) <= 2000
    assert not Budget(0).take(1)


class Story:
    """A breaker and the requests it saw."""

    def __init__(self, **changes: object) -> None:
        self.breaker = Breaker(replace(BreakerSpec(), **changes))  # type: ignore[arg-type]
        self.begun = 0
        self.now = 1000.0

    def requests(self, count: int, failed: int, users: int) -> bool:
        """So many requests, those that fail evenly between; whether the breaker says enough."""
        enough = False
        for i in range(count):
            self.begun += 1
            if (i * failed) // count != ((i + 1) * failed) // count:
                enough = self.breaker.failed(b"user-%d" % (i % users), self.begun, self.now) or enough
        return enough


def test_a_breaker_opens_when_half_of_the_requests_of_many_users_fail() -> None:
    assert Story().requests(100, 60, 100)


def test_a_breaker_stays_closed_for_few_failures_for_a_small_share_and_for_one_user() -> None:
    assert not Story().requests(19, 19, 19)
    assert not Story().requests(1000, 300, 1000)
    assert not Story().requests(1000, 1000, 1)
    assert not Story(failed_basis_points=0).requests(1000, 1000, 1000)


def test_a_breaker_forgets_what_was_longer_ago_than_two_windows() -> None:
    story = Story()
    assert not story.requests(15, 15, 15)
    story.now += 25
    assert not story.requests(15, 15, 15)
    assert story.breaker.share(story.begun, story.now) == 1.0
    assert story.breaker.share(story.begun, story.now + 30) == 0.0


def test_failures_across_the_border_of_a_window_count() -> None:
    story = Story()
    assert not story.requests(18, 18, 18)
    story.now += 11
    assert story.requests(18, 18, 18)


def test_a_long_time_of_good_requests_does_not_hide_that_all_fail_now() -> None:
    story = Story()
    story.requests(50_000, 100, 100)
    for _ in range(6):
        story.now += 11
        story.requests(50, 5, 50)
    story.now += 21
    assert story.requests(40, 40, 40)


def test_a_breaker_opens_for_longer_each_time_and_begins_again_after_a_long_good_time() -> None:
    breaker = Story(open=30.0).breaker
    now, times = 1000.0, []
    for _ in range(8):
        breaker.open(now)
        times.append(breaker.until - now)
        now = breaker.until
    assert times == [30, 60, 120, 240, 480, 600, 600, 600]
    now += MAX_OPEN_SECONDS + 1
    breaker.open(now)
    assert breaker.until - now == 30


def test_rings_fall_on_the_versions_further_out_and_never_on_a_killed_one() -> None:
    versions = tuple(VersionSpec(name, (endpoint(1),)) for name in ("v1", "v2", "v3", "v4"))
    rings = (RingSpec("a", "v4"), RingSpec("b", "v3"), RingSpec("c", "v4"), RingSpec("d", "v2"), RingSpec("e", "v1"))
    spec = shop((1,), (1,), versions=versions, rings=rings)
    assert outward(spec, "a") == ("v3", "v2", "v1")
    assert outward(spec, "c") == ("v2", "v1")
    assert outward(spec, "e") == ()
    assert outward(replace(spec, killed=("b", "d", "e")), "a") == ("v1",)
    closed = replace(spec, rings=(replace(rings[0], falls_outward=False), *rings[1:]))
    assert outward(closed, "a") == ()
    assert outward(closed, "b") == ("v4", "v2", "v1")
