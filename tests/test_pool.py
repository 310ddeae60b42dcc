"""A version's endpoints in one worker: who gets a request, when it is well. The clock and chance are ours."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.replay import REQUESTS, Replay
from router.core.spec import BalanceSpec, EndpointSpec, OutlierSpec, OverloadSpec, ServiceSpec
from router.core.standing import Event, Standing
from router.proxy.endpoint import Endpoint, Reserve
from router.proxy.pool import COMPARED_REQUESTS, COMPARED_SECONDS, CONNECT_TIMEOUTS, FORGIVEN_SECONDS, VersionPool
from router.proxy.upstream import Upstream
from router.proxy.wheel import Wheel
from router.telemetry.counters import EndpointCounters, VersionCounters
from tests.house import shop

SERVICE = shop((1,), (2,), return_after=5.0)


class Yard:
    """A pool with endpoints 0, 1, 2 …, a clock, and chance that is the same every time."""

    def __init__(self, *weights: int, workers: int = 1, **changes: object) -> None:
        self.now = 1000.0
        self.random = Random(7)
        self.workers = workers
        self.service: ServiceSpec = replace(SERVICE, **changes)  # type: ignore[arg-type]
        self.troubles = 0
        self.rooms = 0
        self.pool = VersionPool(("shop", "v1"), VersionCounters(), self._troubled, self._has_room)
        self.all = tuple(self._endpoint(i, weight) for i, weight in enumerate(weights))
        self.update()

    def _troubled(self, pool: VersionPool) -> None:
        self.troubles += 1

    def _has_room(self, pool: VersionPool) -> None:
        self.rooms += 1

    def _endpoint(self, number: int, weight: int) -> Endpoint:
        spec = EndpointSpec(f"10.0.0.{number}", 80, weight=weight)
        return Endpoint(spec, EndpointCounters(), Reserve(), self.pool)

    def update(self, **changes: object) -> None:
        self.service = replace(self.service, **changes)  # type: ignore[arg-type]
        self.pool.update(self.all, self.service, self.workers, self.now)

    def choose(self, count: int) -> int:
        return self.random.randrange(count)

    def pick(self, key: bytes | None = None) -> int | None:
        endpoint = self.pool.pick(self.choose, key)
        return None if endpoint is None else self.all.index(endpoint)

    def shares(self, requests: int = 3000) -> Counter[int | None]:
        return Counter(self.pick() for _ in range(requests))

    def happened(self, number: int, event: Event) -> None:
        self.pool.happened(self.all[number], event, self.now)

    def strike(self, number: int, times: int = 5) -> None:
        for _ in range(times):
            self.pool.strike(self.all[number], self.now)

    def standings(self) -> list[Standing]:
        return [endpoint.standing for endpoint in self.all]

    def later(self, seconds: float) -> bool:
        """Let time pass in tenths of a second; whether there is still something to wait for."""
        is_troubled = False
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            is_troubled = self.pool.tend(self.now)
        return is_troubled


# -- the choice --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["least_in_flight", "round_robin"])
def test_requests_are_shared_by_weight(kind: str) -> None:
    yard = Yard(1, 2, 3, balance=BalanceSpec(kind))  # type: ignore[arg-type]
    for number, share in yard.shares(6000).items():
        assert number is not None
        assert abs(share - 1000 * (number + 1)) < 200


def test_the_less_busy_of_two_takes_the_request() -> None:
    yard = Yard(1, 1)
    yard.all[0].active = 5
    assert set(yard.shares(100)) == {1}
    yard.all[1].active = 6
    assert set(yard.shares(100)) == {0}


def test_turns_go_round() -> None:
    yard = Yard(1, 1, 1, balance=BalanceSpec("round_robin"))
    first = [yard.pick() for _ in range(6)]
    assert sorted(first[:3], key=str) == [0, 1, 2]
    assert first[:3] == first[3:]


def test_a_weight_of_none_gets_nothing_not_even_as_a_last_resort() -> None:
    yard = Yard(0, 1)
    assert set(yard.shares(100)) == {1}
    yard.all[1].is_down = True
    yard.update()
    assert set(yard.shares(100)) == {1}


def test_a_user_stays_where_it_is_when_another_endpoint_goes_and_comes_back() -> None:
    yard = Yard(1, 1, 1, 1, balance=BalanceSpec("affinity"))
    users = [b"user-%d" % i for i in range(500)]
    before = {user: yard.pick(user) for user in users}
    assert set(before.values()) == {0, 1, 2, 3}
    yard.happened(2, Event.CONNECT_FAILED)
    meanwhile = {user: yard.pick(user) for user in users}
    assert all(meanwhile[user] == before[user] for user in users if before[user] != 2)
    assert {meanwhile[user] for user in users if before[user] == 2} == {0, 1, 3}
    yard.happened(2, Event.CONNECTED)
    assert {user: yard.pick(user) for user in users} == before


def test_a_user_without_a_key_goes_anywhere_even_with_affinity() -> None:
    assert set(Yard(1, 1, 1, balance=BalanceSpec("affinity")).shares(300)) == {0, 1, 2}


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["least_in_flight", "round_robin", "affinity"])
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_no_endpoint_gets_more_than_its_cap_and_all_of_it_is_used(
    kind: str, endpoints: int, cap: int, workers: int
) -> None:
    overload = OverloadSpec(endpoint_in_flight=cap)
    yard = Yard(*[1] * endpoints, workers=workers, overload=overload, balance=BalanceSpec(kind))  # type: ignore[arg-type]
    share = -(-cap // workers)
    for i in range(endpoints * share):
        number = yard.pick(b"user-%d" % i)
        assert number is not None
        yard.all[number].active += 1
    assert [endpoint.active for endpoint in yard.all] == [share] * endpoints
    assert yard.pick(b"one more") is None
    assert yard.pool.other(yard.choose, []) is None
    yard.all[0].active -= 1
    assert yard.pick(b"one more") == 0


def test_a_version_is_full_at_its_workers_share_of_the_cap() -> None:
    yard = Yard(1, workers=2, overload=OverloadSpec(in_flight=5))
    yard.pool.in_flight = 2
    assert not yard.pool.is_full
    yard.pool.in_flight = 3
    assert yard.pool.is_full
    yard.update(overload=OverloadSpec())
    assert not yard.pool.is_full
    assert not yard.pool.is_limited


async def test_an_endpoint_that_comes_back_is_room_for_those_who_wait() -> None:
    replay = Replay()
    replay.client.data_received(REQUESTS[0])
    exchange = replay.client.exchange
    assert exchange is not None
    yard = Yard(1, 1, overload=OverloadSpec(endpoint_in_flight=1))
    yard.happened(1, Event.CONNECT_FAILED)
    yard.all[0].active = 1
    assert yard.pick() is None
    assert yard.pool.queue(exchange)
    before = yard.rooms
    yard.happened(1, Event.CONNECTED)
    assert yard.rooms > before
    assert yard.pick() == 1
    replay.plane.close()


# -- outliers ----------------------------------------------------------------------------------------------------------


def test_errors_in_a_row_eject_and_a_good_answer_between_does_not() -> None:
    yard = Yard(1, 1, 1)
    yard.strike(0, 4)
    assert yard.standings() == [Standing.WELL] * 3
    yard.all[0].errors = 0  # a good answer
    yard.strike(0, 4)
    assert yard.standings() == [Standing.WELL] * 3
    yard.strike(0, 1)
    assert yard.standings() == [Standing.EJECTED, Standing.WELL, Standing.WELL]
    assert set(yard.shares(100)) == {1, 2}
    assert yard.all[0].counters.ejections == {"outlier": 1}


@given(st.integers(1, 12), st.integers(0, 10_000))
def test_no_more_than_the_configured_share_is_ejected(count: int, most: int) -> None:
    yard = Yard(*[1] * count, outliers=OutlierSpec(max_ejected_basis_points=most))
    for number in range(count):
        yard.strike(number, 10)
    assert sum(standing is Standing.EJECTED for standing in yard.standings()) == most * count // 10_000


@pytest.mark.parametrize("how", ["drained", "down by checks", "unreachable", "without weight"])
def test_the_last_one_that_is_left_is_never_ejected(how: str) -> None:
    yard = Yard(1, 0 if how == "without weight" else 1)
    if how == "drained":
        yard.all[1].is_drained = True
    elif how == "down by checks":
        yard.all[1].is_down = True
    elif how == "unreachable":
        yard.happened(1, Event.CONNECT_FAILED)
    yard.update()
    yard.strike(0, 50)
    assert yard.standings()[0] is Standing.WELL
    assert yard.pool.is_well


def test_an_endpoint_that_is_ejected_again_is_left_alone_for_longer_up_to_a_limit_and_is_forgiven() -> None:
    yard = Yard(1, 1, outliers=OutlierSpec(ejection=10, max_ejection=25), balance=BalanceSpec(slow_start=0))
    for seconds in (10, 20, 25, 25):
        yard.strike(0)
        yard.later(seconds - 0.5)
        assert yard.standings()[0] is Standing.EJECTED
        yard.later(1)
        assert yard.standings()[0] is Standing.WELL
    assert yard.all[0].ejections == 4
    assert yard.later(FORGIVEN_SECONDS * 3 + 1)
    assert yard.all[0].ejections == 1
    assert not yard.later(FORGIVEN_SECONDS + 1), "nothing is left to wait for"
    yard.strike(0)
    yard.later(10.5)
    assert yard.standings()[0] is Standing.WELL


def test_one_that_fails_much_more_often_than_its_siblings_is_ejected_without_errors_in_a_row() -> None:
    yard = Yard(1, 1, 1)
    yard.now += COMPARED_SECONDS
    for endpoint in yard.all:
        endpoint.begun = 2 * COMPARED_REQUESTS
        endpoint.failed_answers = 2
    yard.all[1].failed_answers = COMPARED_REQUESTS // 2
    yard.strike(1, 1)
    assert yard.standings() == [Standing.WELL, Standing.EJECTED, Standing.WELL]


@pytest.mark.parametrize("siblings_fail", [COMPARED_REQUESTS // 2, 2 * COMPARED_REQUESTS])
def test_one_that_fails_as_often_as_its_siblings_is_not(siblings_fail: int) -> None:
    yard = Yard(1, 1, 1)
    yard.now += COMPARED_SECONDS
    for endpoint in yard.all:
        endpoint.begun, endpoint.failed_answers = 2 * COMPARED_REQUESTS, siblings_fail
    yard.strike(1, 1)
    assert yard.standings() == [Standing.WELL] * 3


def test_siblings_are_not_compared_before_enough_is_known() -> None:
    yard = Yard(1, 1)
    yard.now += COMPARED_SECONDS
    for endpoint in yard.all:
        endpoint.begun = COMPARED_REQUESTS - 1
    yard.all[0].failed_answers = COMPARED_REQUESTS - 2
    yard.strike(0, 1)
    assert yard.standings()[0] is Standing.WELL


# -- unreachable, last resort, the way back ----------------------------------------------------------------------------


def test_a_refusal_makes_unreachable_at_once_and_a_time_out_only_the_second_time() -> None:
    yard = Yard(1, 1)
    yard.pool.connect_failed(yard.all[0], yard.now, is_timeout=False)
    assert yard.standings() == [Standing.UNREACHABLE, Standing.WELL]
    for _ in range(CONNECT_TIMEOUTS - 1):
        yard.pool.connect_failed(yard.all[1], yard.now, is_timeout=True)
        assert yard.standings()[1] is Standing.WELL
    yard.pool.connect_failed(yard.all[1], yard.now, is_timeout=True)
    assert yard.standings()[1] is Standing.UNREACHABLE


def test_when_nothing_is_usable_rather_an_accused_one_is_asked_than_none_and_a_drained_one_never() -> None:
    yard = Yard(1, 1, 1)
    yard.all[0].is_drained = True
    yard.all[1].is_down = True
    yard.update()
    yard.all[2].is_down = True
    yard.update()
    assert not yard.pool.usable
    assert set(yard.shares(50)) == {1, 2}
    yard.all[1].is_drained = True
    assert set(yard.shares(50)) == {2}
    yard.all[2].is_drained = True
    assert yard.pick() is None


def test_a_version_is_unwell_at_once_and_well_again_only_when_it_was_usable_for_a_while() -> None:
    yard = Yard(1, 1, return_after=5.0)
    yard.happened(0, Event.CONNECT_FAILED)
    assert yard.pool.is_well
    yard.happened(1, Event.CONNECT_FAILED)
    assert not yard.pool.is_well
    yard.later(60)
    assert not yard.pool.is_well
    yard.happened(0, Event.CONNECTED)
    yard.later(4.5)
    assert not yard.pool.is_well
    yard.happened(0, Event.CONNECT_FAILED)  # it flaps: the time begins again
    yard.happened(0, Event.CONNECTED)
    yard.later(4.5)
    assert not yard.pool.is_well
    yard.later(1)
    assert yard.pool.is_well
    yard.pool.count()
    assert yard.pool.counters.sick == 0


def test_a_version_whose_breaker_opened_is_tried_again_when_its_time_is_over() -> None:
    yard = Yard(1)
    yard.pool.trip(yard.now)
    assert not yard.pool.is_well
    yard.later(29)
    yard.pool.count()
    assert (yard.pool.counters.trips, yard.pool.counters.sick, yard.pool.counters.open) == (1, 1, 1)
    yard.later(2)
    assert yard.pool.is_well
    yard.pool.count()
    assert (yard.pool.counters.sick, yard.pool.counters.open) == (0, 0)


def test_trouble_is_watched_until_it_is_over_and_a_retired_version_is_not_watched() -> None:
    yard = Yard(1, 1, balance=BalanceSpec(slow_start=2))
    before = yard.troubles
    yard.happened(0, Event.CONNECT_FAILED)
    assert yard.troubles > before
    assert yard.later(10)
    yard.happened(0, Event.CONNECTED)
    assert yard.later(1)
    assert not yard.later(2)
    yard.happened(0, Event.CONNECT_FAILED)
    yard.happened(1, Event.CONNECT_FAILED)
    yard.pool.retire()
    assert not yard.later(0.1)
    yard.happened(1, Event.CONNECT_FAILED)  # a connection that was being made
    assert not yard.later(0.1)


def test_one_that_cannot_be_reached_is_no_last_resort_beyond_the_connections_it_has() -> None:
    yard = Yard(1, 1)
    for number in range(2):
        yard.happened(number, Event.CONNECT_FAILED)
    assert yard.pick() is None
    loop = asyncio.new_event_loop()
    yard.all[1].reserve.idle.append(Upstream(yard.all[1], Wheel(loop)))
    assert set(yard.shares(50)) == {1}
    loop.close()


# -- slow start --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["least_in_flight", "round_robin"])
def test_an_endpoint_that_comes_back_grows_into_its_share(kind: str) -> None:
    yard = Yard(1, 1, 1, balance=BalanceSpec(kind, slow_start=10))  # type: ignore[arg-type]
    yard.happened(0, Event.CONNECT_FAILED)
    yard.happened(0, Event.CONNECTED)
    shares = []
    for _ in range(4):
        shares.append(yard.shares()[0])
        yard.later(3)
    yard.later(1)
    assert yard.standings()[0] is Standing.WELL
    shares.append(yard.shares()[0])
    assert 0 < shares[0] < 250
    assert shares == sorted(shares)
    assert shares[-1] > 800


def test_a_warming_endpoint_that_is_less_busy_does_not_get_everything() -> None:
    yard = Yard(1, 1)
    yard.happened(0, Event.CONNECT_FAILED)
    yard.happened(0, Event.CONNECTED)
    yard.all[1].active = 50
    assert yard.shares()[0] < 900


def test_where_all_are_warming_all_get_the_same() -> None:
    yard = Yard(1, 1, 1)
    for number in range(3):
        yard.happened(number, Event.CONNECT_FAILED)
    for number in range(3):
        yard.happened(number, Event.CONNECTED)
    shares = yard.shares()
    assert max(shares.values()) < 1200


def test_slow_start_may_be_switched_off_while_somebody_is_warming() -> None:
    yard = Yard(1, 1, balance=BalanceSpec(slow_start=10))
    yard.happened(0, Event.CONNECT_FAILED)
    yard.happened(0, Event.CONNECTED)
    yard.update(balance=BalanceSpec(slow_start=0))
    assert set(yard.shares(200)) == {0, 1}
