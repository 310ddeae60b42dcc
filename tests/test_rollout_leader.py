"""One leads. Killed, stopped or cut off, another takes over; nothing is decided twice, and nothing is left out."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from router.control.keys import key_of
from router.control.leading import LEASE_SECONDS, OBSERVED, ROLLOUT, Lease, Write
from router.control.recount import unpack, verify
from router.rollout.observation import Observation
from tests.redis_fixture import Server
from tests.rollout_house import Fleet, fleet, plan, story
from tests.waiting import until

TAKE_OVER_SECONDS = 15.0


async def observed(redis: Redis) -> list[Observation]:
    entries: Any = await redis.xrange(key_of("shop", OBSERVED))
    return [unpack(fields[b"observation"]) for _, fields in entries]


async def epoch(redis: Redis) -> int:
    return int(await redis.get(key_of("shop", "leader:epoch")) or 0)


async def expect_whole(shop: Fleet) -> None:
    """No tick twice, none left out, and every verdict comes out again."""
    ticks = [one.tick for one in await observed(shop.redis) if one.is_whole]
    assert ticks == list(range(ticks[0], ticks[-1] + 1))
    assert await verify(shop.redis, shop.rules) == []


def kill(shop: Fleet, number: int) -> Callable[[], None]:
    os.kill(shop.routers[number].control_pid(), signal.SIGKILL)
    return lambda: None


def stop(shop: Fleet, number: int) -> Callable[[], None]:
    pid = shop.routers[number].control_pid()
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def cut_off(shop: Fleet, number: int) -> Callable[[], None]:
    shop.wires[number].is_cut = True

    def mend() -> None:
        shop.wires[number].is_cut = False

    return mend


@pytest.mark.parametrize(
    "fault", [kill, pytest.param(stop, marks=pytest.mark.slow), pytest.param(cut_off, marks=pytest.mark.slow)]
)
async def test_another_takes_over(
    tmp_path: Path, redis_server: Server, redis_client: Redis, fault: Callable[[Fleet, int], Callable[[], None]]
) -> None:
    steps = plan()["steps"]
    steps[0]["bake"] = "8s"
    async with fleet(tmp_path, redis_server.url, redis_client, instances=2, per_second=150) as shop:
        await shop.start(plan(steps=steps))
        before = await shop.reaches("baking", within=30)
        leader = int(before.leader.removeprefix("router-"))
        first, at = await epoch(redis_client), before.tick
        mend = fault(shop, leader)

        async def is_led_again() -> bool:
            return await epoch(redis_client) > first and (await shop.progress()).tick > at + 1

        await until(is_led_again, within=TAKE_OVER_SECONDS)
        assert await epoch(redis_client) == first + 1
        mend()
        done = await shop.reaches("succeeded", "rolled_back", within=120)
        assert done.phase == "succeeded", story(done)
        assert [step.stands for step in done.steps] == ["done"] * 3
        await expect_whole(shop)


async def test_of_many_who_want_to_lead_one_does(redis_client: Redis) -> None:
    many = [Lease(redis_client, "shop", f"controller {number}") for number in range(20)]
    held = await asyncio.gather(*(one.hold() for one in many))
    assert sum(held) == 1
    assert {one.holder for one in many} == {many[held.index(True)].token}
    await many[held.index(True)].release()
    assert sum(await asyncio.gather(*(one.hold() for one in many))) == 1
    assert await epoch(redis_client) == 2


async def test_who_has_lost_the_lease_writes_nothing(redis_client: Redis) -> None:
    key = key_of("shop", ROLLOUT)
    await redis_client.hset(key, mapping={"n": "4", "state": "as it was"})
    slow, quick = Lease(redis_client, "shop", "slow"), Lease(redis_client, "shop", "quick")
    assert await slow.hold()
    assert not await quick.hold()
    assert 0 < await redis_client.pttl(key_of("shop", "leader")) <= 1000 * LEASE_SECONDS
    stale = Lease(redis_client, "shop", "slow")
    stale.token = slow.token
    await redis_client.delete(key_of("shop", "leader"))  # what its end does
    assert await quick.hold()
    widened = Write(4, b"new", b"{}", b"{}", set=[("weights", "canary", "50")], expect=[("weights", "canary", "")])
    assert await stale.write(widened) == "FENCED"
    assert stale.token == ""
    assert await redis_client.hget(key, "state") == b"as it was"
    assert not await redis_client.exists(key_of("shop", "weights"))
    assert await quick.write(widened) == "OK"
    assert await quick.write(widened) == "MOVED"
    assert await quick.write(Write(5, b"x", b"{}", b"{}", set=[("weights", "canary", "60")],
                                   expect=[("weights", "canary", "5")])) == "CONFLICT"  # fmt: skip
    assert await redis_client.hget(key_of("shop", "weights"), "canary") == b"50"
