"""Envoy beside this router: one config, one Redis, and the same ring for everybody, also when it changes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from router.config.compile import snapshot_spec
from router.config.load import load_settings
from router.control.rules import service_rules
from router.control.store import Store
from router.core.live import Live
from router.core.spec import SnapshotSpec
from router.envoy.refusals import refusals
from tests.envoy_house import FORMS, PLAIN, Envoy, answers, moved_inward_only, needs_envoy, running_envoy
from tests.redis_fixture import CONTROL, WEIGHTS, Diary, Server
from tests.running import Router, rings_of, running_router, some_more, steady_load
from tests.waiting import until

pytestmark = needs_envoy


@asynccontextmanager
async def both(directory: Path, redis: Server) -> AsyncIterator[tuple[Router, Envoy]]:
    """The router, and an Envoy that is told whatever the same Redis says."""
    async with AsyncExitStack() as house:
        router = await house.enter_async_context(running_router(directory, redis=redis.url, config=PLAIN))
        settings = load_settings(router.config)
        files = directory / "envoy"
        files.mkdir()
        told: list[Envoy] = []

        def spec(live: Mapping[str, Live]) -> SnapshotSpec:
            return snapshot_spec(settings, live, 1)

        def tell(live: Mapping[str, Live]) -> None:
            for envoy in told:
                envoy.tell(spec(live))

        store = Store(redis.url, service_rules(settings), directory / "bridge", "bridge:1", tell, Diary())
        await store.start()
        house.push_async_callback(store.stop)
        first = spec(store.live)
        assert refusals(first) == ()
        envoy = await house.enter_async_context(running_envoy(files, first))
        told.append(envoy)
        yield router, envoy


async def the_same(tmp_path: Path, redis: Server, users: int) -> None:
    redis.redis_cli("HSET", WEIGHTS, "canary", "3.21", "early", "17.5")
    async with both(tmp_path, redis) as (router, envoy):
        for form, fields in FORMS.items():
            asked = [fields(user) for user in range(users)]
            here, there = await answers(router.port, asked), await answers(envoy.port, asked)
            assert len(set(here)) > 1 or form == "nobody"
            wrong = [user for user in range(users) if here[user] != there[user]]
            print(f"{form}: {users - len(wrong)} of {users} the same, {len(set(here))} answers")  # noqa: T201
            assert wrong == [], (form, asked[wrong[0]], here[wrong[0]], there[wrong[0]])


async def test_users_are_in_the_same_ring_behind_envoy(tmp_path: Path, redis_server: Server) -> None:
    await the_same(tmp_path, redis_server, 500)


@pytest.mark.slow
async def test_ten_thousand_users_are_in_the_same_ring_behind_envoy(tmp_path: Path, redis_server: Server) -> None:
    await the_same(tmp_path, redis_server, 10_000)


async def test_a_weight_in_redis_moves_users_inward_on_both_and_fails_nobody(
    tmp_path: Path, redis_server: Server
) -> None:
    async with both(tmp_path, redis_server) as (router, envoy):
        users = [f"user-{i}" for i in range(300)]
        async with steady_load(router, 100, 4) as here, steady_load(envoy, 100, 4) as there:  # type: ignore[arg-type]
            for canary in (10.0, 25.0, 60.0):
                redis_server.redis_cli("HSET", WEIGHTS, "canary", str(canary))
                typed = time.monotonic()
                await until(lambda wanted=canary: router.weights()["canary"] == wanted and router.is_everywhere())
                await until(lambda wanted=canary: envoy.is_wide(wanted))
                followed = time.monotonic()
                print(f"canary {canary:g} %: both follow {followed - typed:.3f} s after redis-cli")  # noqa: T201
                assert await rings_of(router, users) == await rings_of(envoy, users)  # type: ignore[arg-type]
                await some_more(here)
                await some_more(there)
        print(f"{here.answered} and {there.answered} answers")  # noqa: T201
        for tally in (here, there):
            assert tally.failures == []
            assert all(moved_inward_only(rings) for rings in tally.rings.values())
            assert any(len(rings) > 1 for rings in tally.rings.values())


async def test_a_kill_in_redis_takes_everybody_out_on_both(tmp_path: Path, redis_server: Server) -> None:
    async with both(tmp_path, redis_server) as (router, envoy):
        asked = [fields(user) for user in range(60) for fields in FORMS.values()]
        assert any(one.startswith("canary") for one in await answers(envoy.port, asked))
        redis_server.redis_cli("HSET", CONTROL, "kill", "canary")
        await until(lambda: router.is_everywhere() and envoy.has_taken() and envoy.written > 1)
        here, there = await answers(router.port, asked), await answers(envoy.port, asked)
        assert here == there
        assert not any(one.startswith("canary") for one in there)
