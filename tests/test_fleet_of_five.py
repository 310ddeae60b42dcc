"""Five instances and one Redis: a change reaches all of them, one is cut off, one is killed, one leaves, and each of
them says at every moment who is there, who is behind and who is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from loadtests.rig import family
from tests.redis_fixture import STATUS, WEIGHTS, Server
from tests.rollout_house import Fleet, fleet
from tests.running import Router, start_router, stop_router
from tests.test_fleet import fleet_of
from tests.waiting import until, until_said

FIVE = 5
CHANGES = 10
ALL = "5 of 5 instances route by what Redis holds now"
FOUR_OF_FIVE = "4 of 5 instances route by what Redis holds now"
FOUR = "4 of 4 instances route by what Redis holds now"


def seen_by(router: Router) -> dict[str, tuple[bool, bool]]:
    """Instance → whether it has been heard of lately, and whether it routes by what this one does."""
    return {one["instance"]: (one["is_fresh"], one["is_current"]) for one in fleet_of(router)["instances"]}


async def say(routers: list[Router], sentence: str, within: float = 30) -> None:
    """Every one of them says it of the fleet."""

    def agree() -> bool:
        return all(fleet_of(router)["sentence"] == sentence for router in routers)

    try:
        await until_said(agree, within=within)
    except AssertionError as error:
        raise AssertionError([fleet_of(router)["sentence"] for router in routers]) from error


async def apply(redis: Redis, routers: list[Router], weight: float) -> list[float]:
    """Write canary's weight; for each instance the seconds until the last of its workers routed by it."""
    started = time.time()
    await redis.hset(WEIGHTS, "canary", f"{weight:g}")

    def look() -> list[dict[str, Any]]:
        return [router.state() for router in routers]

    def is_applied(state: dict[str, Any]) -> bool:
        ring = state["services"]["shop"]["rings"][0]
        return bool(ring["weight"] == weight and state["applied_everywhere"] == state["generation"])

    await until_said(lambda: all(is_applied(state) for state in look()), within=20)
    states = await asyncio.to_thread(look)
    return [max(worker["applied_at"] for worker in state["workers"]) - started for state in states]


def kill(router: Router) -> None:
    """All of its processes, at once: as a machine that loses its power."""
    for pid in family(router.process.pid):
        os.kill(pid, signal.SIGKILL)
    router.process.wait()


async def all_apply_changes(made: Fleet, redis: Redis, changes: int) -> None:
    taken = sorted([
        seconds for number in range(changes) for seconds in await apply(redis, made.routers, 10 + number / 100)
    ])  # fmt: skip
    median, p99 = taken[len(taken) // 2], taken[int(0.99 * len(taken))]
    figures = f"median {1e3 * median:.1f} ms, p99 {1e3 * p99:.1f} ms, longest {1e3 * taken[-1]:.1f} ms"
    print(f"{changes} changes on {FIVE} instances: {figures}")  # noqa: T201 - shown by pytest -s


@pytest.mark.parametrize(
    ("changes", "waits"), [(CHANGES, False), pytest.param(100, True, marks=pytest.mark.slow)], ids=["short", "whole"]
)
async def test_each_of_five_says_who_is_there_who_is_behind_and_who_is_gone(
    changes: int, waits: bool, redis_server: Server, redis_client: Redis, tmp_path: Path
) -> None:
    """``waits``: also the minute after which an instance that says nothing is not counted any more."""
    async with fleet(tmp_path, redis_server.url, redis_client, instances=FIVE, per_second=20) as made:
        routers, cut, killed = made.routers, made.routers[3], made.routers[4]
        names = {f"router-{number}" for number in range(FIVE)}
        await say(routers, ALL)
        await all_apply_changes(made, redis_client, changes)
        await say(routers, ALL)

        # Nothing comes through to one of them: it serves on by what it knows, and says that it is alone.
        made.wires[3].is_cut = True
        others = [router for router in routers if router is not cut]
        await until_said(lambda: cut.state()["store"]["state"] == "down", within=20)
        await apply(redis_client, others, 20)
        await say(others, FOUR_OF_FIVE)
        for router in others:
            assert {name for name, (_, is_current) in seen_by(router).items() if not is_current} == {"router-3"}
        assert fleet_of(cut)["sentence"] == "only router-3 is known here: Redis is down"
        assert cut.weights()["canary"] != 20
        if waits:
            await say(others, FOUR, within=90)
            assert all(seen_by(router)["router-3"] == (False, False) for router in others)
        made.wires[3].is_cut = False
        await say(routers, ALL)
        assert cut.weights()["canary"] == 20

        # One is killed: what it said last stays for a while, and nobody takes it for one that follows.
        kill(killed)
        others = [router for router in routers if router is not killed]
        await apply(redis_client, others, 30)
        await say(others, FOUR_OF_FIVE)
        assert all(seen_by(router)["router-4"] == (True, False) for router in others)
        if waits:
            await say(others, FOUR, within=90)
            assert all(seen_by(router)["router-4"] == (False, False) for router in others)

        # It comes back under its name with what is in force, and one that stops in order takes itself out at once.
        routers[4] = start_router(killed.config, killed.port, killed.admin, killed.log)
        await until_said(routers[4].is_ready, within=60)
        await say(routers, ALL)
        assert routers[4].weights()["canary"] == 30
        assert await stop_router(routers[0]) == 0
        assert {name.decode() for name in await redis_client.hkeys(STATUS)} == names - {"router-0"}
        await say(routers[1:], FOUR)
        await until(lambda: made.versions.total() > 100, within=20)
