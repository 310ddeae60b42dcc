"""A version that fails massively, against one further out that does not: the worker takes it out on its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from router.core.spec import BreakerSpec, OutlierSpec, ServiceSpec
from tests.house import RunningPlane, running_plane, snapshot
from tests.test_falling_outward import of
from tests.troubles import CANARY, Answer, Backend, Client, backends, settled
from tests.waiting import until

QUICK = BreakerSpec(minimum=10, slices=4, open=2.0)
LEFT_ALONE = OutlierSpec(consecutive_errors=0, success_rate=False)


def breaking(three: list[Backend], **changes: object) -> ServiceSpec:
    return of(*three, **{"breaker": QUICK, "outliers": LEFT_ALONE, **changes})


async def ask_as(router: RunningPlane, users: int, times: int, lines: str = CANARY) -> list[Answer]:
    """Each of so many users asks so many times, one after the other."""
    answers = []
    clients = [Client(router, f"user-{number}", lines) for number in range(users)]
    for _ in range(times):
        answers += [await client.ask() for client in clients]
    for client in clients:
        client.close()
    return answers


@pytest.mark.parametrize("how", ["answers 500", "resets"])
async def test_users_of_a_version_that_fails_massively_fall_outward_and_it_is_tried_again(how: str) -> None:
    async with backends("canary", "early", "everyone") as three:
        if how == "resets":
            three[0].serve = three[0].resets
        three[0].status = 500
        async with running_plane(snapshot(breaking(three))) as router:
            answers = await ask_as(router, 20, 3)
            failed = [answer for answer in answers if answer.version == "v3"]
            assert len(failed) == 10
            assert {(answer.version, answer.status, answer.reason) for answer in answers[len(failed) :]} == {
                ("v2", 200, "fallback")
            }
            versions = router.plane.collect().versions
            assert (versions["shop", "v3"].trips, versions["shop", "v3"].open) == (1, 1)
            three[0].serve, three[0].status = three[0].answers, 200
            client = Client(router, "user-1", CANARY)

            async def is_back() -> bool:
                answer = await client.ask()
                assert answer.status == 200
                return answer.version == "v3"

            await until(is_back)
            assert router.plane.collect().versions["shop", "v3"].open == 0
            await settled(router)


async def test_one_that_is_still_broken_when_it_is_tried_again_is_taken_out_for_longer() -> None:
    async with backends("canary", "early", "everyone") as three:
        three[0].status = 500
        async with running_plane(snapshot(breaking(three))) as router:
            pool = router.plane.pools.versions["shop", "v3"]
            for trip in (1, 2, 3):
                await ask_as(router, 20, 1)
                assert (pool.counters.trips, pool.is_well) == (trip, False)
                assert pool.breaker.opened == trip
                if trip < 3:
                    await until(lambda: pool.is_well)
            await settled(router)


async def test_a_version_is_not_taken_out_when_the_one_further_out_is_no_better() -> None:
    async with backends("canary", "early", "everyone") as three:
        for one in three:
            one.status = 500
        async with running_plane(snapshot(breaking(three))) as router:
            for number in range(3):
                await asyncio.gather(*(ask_as(router, 20, 3, f"X-Ring: {r}\r\n") for r in ("early", "everyone")))
                answers = await ask_as(router, 20, 3)
                if number:
                    assert {answer.version for answer in answers} == {"v3"}
            await settled(router)


async def test_one_users_broken_data_takes_nothing_out() -> None:
    async with backends("canary", "early", "everyone") as three:
        three[0].status = 500
        async with running_plane(snapshot(breaking(three))) as router:
            answers = await ask_as(router, 1, 60)
            assert {answer.version for answer in answers} == {"v3"}


async def test_a_ring_that_does_not_fall_outward_is_never_taken_out() -> None:
    async with backends("canary", "early", "everyone") as three:
        three[0].status = 500
        spec = breaking(three)
        closed = replace(spec, rings=(replace(spec.rings[0], falls_outward=False), *spec.rings[1:]))
        async with running_plane(snapshot(closed)) as router:
            answers = await ask_as(router, 20, 3)
            assert {(answer.version, answer.status) for answer in answers} == {("v3", 500)}


async def test_the_default_ring_is_never_taken_out() -> None:
    async with backends("canary", "early", "everyone") as three:
        three[2].status = 500
        async with running_plane(snapshot(breaking(three))) as router:
            answers = await ask_as(router, 20, 3, "")
            assert {(answer.version, answer.status) for answer in answers} == {("v1", 500)}
