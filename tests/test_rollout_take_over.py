"""Instances that are taken over while a rollout is under way: their successors go on saying what they route by."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from router.control.evidence import read_acks
from tests.redis_fixture import Server
from tests.rollout_house import fleet, plan
from tests.test_process_parents import successor_of
from tests.waiting import until, until_said

STEPS = [
    {"ring": "early", "version": "v2", "weight": 30, "bake": "1h"},
    {"ring": "everyone", "version": "v2", "final_bake": "3s"},
]


@pytest.mark.slow
async def test_who_takes_over_says_what_it_routes_by_and_counts_its_users(
    redis_server: Server, redis_client: Redis, tmp_path: Path
) -> None:
    async with fleet(tmp_path, redis_server.url, redis_client, instances=2, per_second=60) as made:
        await made.start(plan(steps=STEPS))
        await made.reaches("baking", within=30)
        for number, router in enumerate(made.routers):
            made.routers[number] = successor_of(router, "--take-over", log=f"next-{number}.log")
            await until(lambda router=router: router.process.poll() is not None, within=60)
            await until_said(made.routers[number].is_ready, within=20)
            since = time.time()

            async def are_there(since: float = since) -> bool:
                acks = await read_acks(redis_client, "shop")
                return acks.keys() == {"router-0", "router-1"} and min(ack.at for ack in acks.values()) > since

            await until(are_there, within=20)
        before = await made.progress()
        assert before.applied == before.live == 2

        async def goes_on() -> bool:
            return (await made.progress()).at > before.at + 5

        await until(goes_on, within=40)
        assert (await made.progress()).phase == "baking"
