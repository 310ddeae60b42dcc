"""Envoy as the data plane of a whole router: real processes, a real Envoy, a real Redis, and real traffic."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from router.config.load import load_settings
from router.control import rollouts
from router.control.keys import shard_of
from router.control.ring_keys import MOST
from router.control.rules import service_rules
from router.control.weights import Refused
from router.core.hashing import bucket_of
from router.rollout.progress import Progress
from tests.envoy_house import Engine, needs_envoy, start_engine, stop_engine
from tests.house import read_head
from tests.redis_fixture import CONTROL, STATUS, VERSIONS, WEIGHTS, Server
from tests.rollout_house import ADA, fleet, plan, story
from tests.running import BODY, CONFIG, Tally, rings_of, some_more, steady_load, written_config
from tests.waiting import until_said

pytestmark = needs_envoy
MEMBERS = "rings:{shop}:members:canary"
PLAIN = CONFIG.replace("workers: {workers}", "workers: {workers}\nbaggage: false")
USERS = [f"user-{i}" for i in range(300)]


async def unhurried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await read_head(reader):
        await asyncio.sleep(0.01)
        writer.write(BODY % b"v1")


@asynccontextmanager
async def engine(directory: Path, redis: Server) -> AsyncIterator[Engine]:
    """The router with Envoy, which routes when the block begins; v1 takes its time, so that loads stay small."""
    async with written_config(directory, redis=redis.url, config=PLAIN, serve=unhurried) as where:
        made = await start_engine(*where)
        try:
            await until_said(made.is_ready, within=60)
            yield made
        finally:
            await stop_engine(made)


def by_hash(canary: int, early: int, users: Iterable[str] = USERS) -> dict[str, str]:
    """user → ring, with these percents."""
    ends = ((100 * canary, "canary"), (100 * (canary + early), "early"), (10_000, "everyone"))
    return {user: next(ring for end, ring in ends if bucket_of(user.encode()) < end) for user in users}


async def widen(router: Engine, redis: Server, canary: int) -> None:
    """Until it is in force everywhere; how long that took is printed."""
    redis.redis_cli("HSET", WEIGHTS, "canary", str(canary))
    typed = time.monotonic()
    await until_said(lambda: router.weights()["canary"] == canary and router.is_everywhere(), within=20)
    print(f"canary {canary} %: in force {time.monotonic() - typed:.3f} s after redis-cli")  # noqa: T201


def is_run_by(router: Engine, version: str) -> bool:
    rings = router.state()["services"]["shop"]["rings"]
    return any(ring["ring"] == "canary" and ring["version"] == version for ring in rings)


def is_kept(router: Engine, place: str) -> bool:
    """Whether it is said that this alone stays as it was."""
    return any(place in one and "everything else is in force" in one for one in router.troubles())


async def until_they_are(router: Engine, expected: dict[str, str]) -> None:
    async with asyncio.timeout(10):
        while await rings_of(router, USERS) != expected:
            pass


async def counted(router: Engine, tally: Tally, more: int) -> None:
    """Every request that was sent is in the figures, and no other: also where users come and go."""
    assert tally.failures == []
    sent, found = tally.answered + more, 0.0

    def is_all() -> bool:
        nonlocal found
        found = router.metric(r"ringrouter_requests_total\{")
        return found >= sent

    with suppress(AssertionError):
        await until_said(is_all, within=10)
    assert found == sent


async def test_envoy_follows_redis_and_its_figures_are_what_was_sent(tmp_path: Path, redis_server: Server) -> None:
    async with engine(tmp_path, redis_server) as router:
        async with steady_load(router, 100, 4) as tally:
            for canary in (10, 35, 60):
                await widen(router, redis_server, canary)
                assert await rings_of(router, USERS) == by_hash(canary, 20)
                await some_more(tally, 100)
            redis_server.redis_cli("HSET", VERSIONS, "canary", "v1")
            await until_said(lambda: is_run_by(router, "v1") and router.is_everywhere(), within=20)
            await some_more(tally, 100)
        await counted(router, tally, 3 * len(USERS))
        for ring, version in (("canary", "v2"), ("canary", "v1"), ("early", "v2"), ("everyone", "v1")):
            assert router.metric(f'ringrouter_requests_total.*ring="{ring}".*version="{version}"') > 0
        assert router.troubles() == []
        picture = json.loads(router.get("/api/v1/rings?scope=instance"))
        rings = picture["services"]["shop"]["rings"]
        seen = sum(version["requests"] for ring in rings for version in ring["versions"])
        assert 0 < seen <= tally.answered + 3 * len(USERS)  # of the minute that is shown


async def test_without_envoy_nothing_is_lost_and_it_goes_on_when_it_is_back(
    tmp_path: Path, redis_server: Server
) -> None:
    async with engine(tmp_path, redis_server) as router:
        router.kill_envoy()
        await until_said(lambda: any("is away" in one for one in router.troubles()), within=10)
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "60")
        await until_said(lambda: router.weights()["canary"] == 60)
        assert not router.is_everywhere()
        assert "is away" in redis_server.redis_cli("HGETALL", STATUS)
        router.start_envoy()
        await until_said(lambda: router.is_everywhere() and not router.troubles(), within=20)
        assert await rings_of(router, USERS) == by_hash(60, 20)
        said = router.log.read_text()
        assert "is away" in said
        assert "Envoy is well again" in said


async def test_envoy_serves_on_whatever_dies_beside_it(tmp_path: Path, redis_server: Server) -> None:
    async with engine(tmp_path, redis_server) as router:
        await widen(router, redis_server, 35)
        async with steady_load(router, 100, 2) as tally:
            bridge = router.bridge_pid()
            os.kill(bridge, signal.SIGKILL)
            await some_more(tally, 50)
            await until_said(lambda: router.bridge_pid() != bridge and router.is_everywhere(), within=20)
            await some_more(tally, 50)
            os.kill(router.control_pid(), signal.SIGKILL)
            await some_more(tally, 50)
            await until_said(lambda: router.is_ready() and router.is_everywhere(), within=20)
            redis_server.running.stop()
            await until_said(lambda: b"Redis is down" in router.get("/ready"), within=20)
            await some_more(tally, 50)
            assert await rings_of(router, USERS) == by_hash(35, 20)
            redis_server.start()
            await widen(router, redis_server, 60)
        await counted(router, tally, len(USERS))


async def test_what_envoy_cannot_do_is_said_and_keeps_nothing_else_from_it(
    tmp_path: Path, redis_server: Server
) -> None:
    async with engine(tmp_path, redis_server) as router:
        redis_server.redis_cli("HSET", CONTROL, "holdback", "canary=10")
        await until_said(lambda: is_kept(router, "canary.holdback"), within=10)
        assert "holdback" in redis_server.redis_cli("HGETALL", STATUS)
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "60")
        await until_they_are(router, by_hash(60, 20))
        redis_server.redis_cli("HSET", CONTROL, "kill", "canary")
        await until_they_are(router, by_hash(0, 80))
        assert not router.is_everywhere()  # not all that was said is in force
        redis_server.redis_cli("HSET", CONTROL, "holdback", "", "kill", "")
        await until_said(lambda: router.is_everywhere() and not router.troubles(), within=10)
        assert await rings_of(router, USERS) == by_hash(60, 20)


async def test_members_in_redis_are_in_their_ring_also_without_redis(tmp_path: Path, redis_server: Server) -> None:
    async with engine(tmp_path, redis_server) as router:
        wide = by_hash(5, 20)
        outer = [user for user in USERS if wide[user] == "everyone"]
        some = dict.fromkeys(outer[:20], "canary")

        redis_server.redis_cli("SADD", MEMBERS, *some)
        await until_they_are(router, wide | some)
        redis_server.redis_cli("SREM", MEMBERS, outer[0])
        del some[outer[0]]
        await until_they_are(router, wide | some)

        redis_server.running.stop()
        await until_said(lambda: b"Redis is down" in router.get("/ready"), within=20)
        control = router.control_pid()
        os.kill(control, signal.SIGKILL)
        await until_said(lambda: router.is_ready() and router.control_pid() != control, within=20)
        await until_said(router.is_everywhere, within=20)
        assert await rings_of(router, USERS) == wide | some
        redis_server.start()  # and nothing is in it: nobody said that they are to go
        await until_said(lambda: b"Redis is down" not in router.get("/ready"), within=20)
        assert await rings_of(router, USERS) == wide | some

        redis_server.redis_cli("HSET", WEIGHTS, "canary", "5", "early", "20")  # now somebody has
        await until_they_are(router, wide)
        redis_server.redis_cli("SADD", f"{MEMBERS}:{shard_of(outer[3].encode())}", outer[3])
        await until_they_are(router, wide | {outer[3]: "canary"})
        redis_server.redis_cli("SADD", MEMBERS, *(f"somebody-{i}" for i in range(MOST)))
        await until_said(lambda: is_kept(router, "canary.members"), within=10)
        assert await rings_of(router, USERS) == wide | {outer[3]: "canary"}
        redis_server.redis_cli("HSET", WEIGHTS, "early", "0")
        narrow = by_hash(5, 0)
        await until_they_are(router, narrow | {outer[3]: "canary"})
        redis_server.redis_cli("HSET", CONTROL, "kill", "canary")
        await until_they_are(router, by_hash(0, 5))
        redis_server.redis_cli("HSET", CONTROL, "kill", "")
        redis_server.redis_cli("DEL", MEMBERS)
        await until_said(lambda: router.is_everywhere() and not router.troubles(), within=10)
        assert await rings_of(router, USERS) == narrow | {outer[3]: "canary"}


async def test_a_plan_with_a_holdback_is_refused_while_an_instance_routes_with_envoy(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    steps = [{"ring": "canary", "version": "v2", "holdback": 50}, {"ring": "everyone", "version": "v2"}]
    async with engine(tmp_path, redis_server) as router:
        rules = service_rules(load_settings(router.config))["shop"]

        async def start() -> Progress:
            return await rollouts.start(redis_client, rules, plan(steps=steps), reason="", by=ADA)

        with pytest.raises(Refused, match=r"steps\[0\]\.holdback: .* routes with Envoy, which cannot hold users back"):
            await start()
        assert await redis_client.exists("rings:{shop}:rollout") == 0
    assert (await start()).phase == "pending"  # nobody routes with Envoy any more


@pytest.mark.slow
async def test_a_healthy_candidate_walks_outward_behind_envoy(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    async with fleet(tmp_path, redis_server.url, redis_client, start=start_engine, stop=stop_engine) as shop:
        await shop.start(plan())
        done = await shop.reaches("succeeded", "paused", "rolled_back", within=120)
        assert done.phase == "succeeded", story(done)
        assert [step.stands for step in done.steps] == ["done"] * 3
        assert set((await redis_client.hgetall("rings:{shop}:versions")).values()) == {b"v2"}
        print(story(done))  # noqa: T201


@pytest.mark.slow
async def test_a_candidate_that_fails_is_rolled_back_behind_envoy(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    async with fleet(tmp_path, redis_server.url, redis_client, start=start_engine, stop=stop_engine) as shop:
        shop.candidate.errors = 0.05
        await shop.start(plan())
        done = await shop.reaches("succeeded", "paused", "rolled_back", within=120)
        assert done.phase == "rolled_back", story(done)
        assert done.rollback is not None
        assert 0 < done.rollback.users_hurt <= done.rollback.requests_hurt < 300
        assert set((await redis_client.hgetall("rings:{shop}:versions")).values()) == {b"v1"}
        assert await redis_client.hget("rings:{shop}:weights", "canary") == b"0"
        print(story(done))  # noqa: T201
