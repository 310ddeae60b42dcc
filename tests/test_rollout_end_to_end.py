"""Rollouts with real processes, a real Redis and real traffic: they go on by proof, go back by harm, and hold else."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio import Redis

from router.control.recount import verify
from router.core.hashing import bucket_of
from tests.redis_fixture import Server
from tests.rollout_house import Fleet, fleet, plan, story


async def expect_verified(shop: Fleet) -> None:
    assert await verify(shop.redis, shop.rules) == []


async def test_a_healthy_candidate_walks_outward_by_itself(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    async with fleet(tmp_path, redis_server.url, redis_client) as shop:
        await shop.start(plan())
        done = await shop.reaches("succeeded", "paused", "rolled_back", within=120)
        assert done.phase == "succeeded", story(done)
        assert [step.stands for step in done.steps] == ["done"] * 3
        assert await redis_client.hgetall("rings:{shop}:versions") == {b"canary": b"v2", b"early": b"v2",
                                                                       b"everyone": b"v2"}  # fmt: skip
        await expect_verified(shop)


async def test_a_candidate_that_fails_is_rolled_back(tmp_path: Path, redis_server: Server, redis_client: Redis) -> None:
    async with fleet(tmp_path, redis_server.url, redis_client) as shop:
        shop.candidate.errors = 0.05
        await shop.start(plan())
        done = await shop.reaches("succeeded", "paused", "rolled_back", within=120)
        assert done.phase == "rolled_back", story(done)
        assert done.rollback is not None
        assert 0 < done.rollback.users_hurt <= done.rollback.requests_hurt < 300
        assert set((await redis_client.hgetall("rings:{shop}:versions")).values()) == {b"v1"}
        assert await redis_client.hget("rings:{shop}:weights", "canary") == b"0"
        await expect_verified(shop)


@pytest.mark.slow
async def test_a_candidate_that_is_slow_is_rolled_back(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    async with fleet(tmp_path, redis_server.url, redis_client) as shop:
        shop.candidate.slower = 2.0
        p99 = {"name": "p99", "latency": {"quantile": 0.99}, "on_harm": "rollback", "required": True}
        await shop.start(plan(guardrails=[p99]))
        done = await shop.reaches("succeeded", "paused", "rolled_back", within=120)
        assert done.phase == "rolled_back", story(done)
        assert done.rollback is not None
        assert "p99 is proven to be worse than tolerated" in done.rollback.cause
        await expect_verified(shop)


@pytest.mark.slow
async def test_a_candidate_that_hangs_now_and_then_is_rolled_back(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    """It completes nothing late, because it does not complete: what waits counts, and what has waited too long."""
    async with fleet(tmp_path, redis_server.url, redis_client) as shop:
        shop.candidate.hangs = 0.01
        guardrail = {"name": "errors", "outcome": "errors", "on_harm": "rollback", "required": True}
        await shop.start(plan(guardrails=[guardrail]))
        done = await shop.reaches("succeeded", "paused", "rolled_back", within=120)
        assert done.phase == "rolled_back", story(done)
        await expect_verified(shop)


@pytest.mark.slow
async def test_what_is_neither_proven_nor_harmful_holds(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    """Fails exactly as often as is just about tolerated."""
    async with fleet(tmp_path, redis_server.url, redis_client) as shop:
        shop.candidate.errors = 0.02
        steps = plan()["steps"]
        steps[0]["deadline"] = "15s"
        checks = {**plan()["checks"], "fast": {"ratio": 2.0, "abs": "5pp"}}  # by default one point is gross harm
        await shop.start(plan(steps=steps, checks=checks))
        done = await shop.reaches("succeeded", "paused", "rolled_back", within=60)
        assert (done.phase, done.why) == ("paused", "inconclusive"), story(done)
        assert "errors not yet proven (ln E " in done.headline
        assert "not proven within 15 s" in done.headline
        await expect_verified(shop)


@pytest.mark.slow
async def test_traffic_that_vanishes_pauses_and_resumes(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    async with fleet(tmp_path, redis_server.url, redis_client) as shop:
        steps = plan()["steps"]
        steps[0]["bake"] = "12s"
        await shop.start(plan(steps=steps))
        await shop.reaches("baking", within=30)
        shop.skips = lambda user: bucket_of(user.encode()) < 3000
        paused = await shop.reaches("paused", within=30)
        assert paused.why == "no_traffic", story(paused)
        shop.skips = lambda _user: False
        done = await shop.reaches("succeeded", "rolled_back", within=120)
        assert done.phase == "succeeded", story(done)
        assert "the candidate has traffic again, so it goes on" in [event.sentence for event in done.events]
        await expect_verified(shop)
