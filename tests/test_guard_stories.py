"""Guard rails where operators meet them: a real Redis, several instances, restarts, the commands, a running router."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from router.control.last_good import load, path_of, save, sealed
from router.control.rules import ServiceRules
from router.control.weights import Refused, set_weights
from router.core.live import Live
from router.core.spec import GuardSpec
from tests.redis_fixture import SHOP, STATUS, WEIGHTS, Server, Watched
from tests.running import running_router
from tests.waiting import until, until_said

Client = Redis
STEPS = replace(SHOP, guard=GuardSpec(max_step=500))
BAKE = replace(SHOP, guard=GuardSpec(min_bake=600.0))


def watched(server: Server, rules: ServiceRules, state_dir: Path, instance: str = "test:1") -> Watched:
    return Watched(server.url, state_dir, {"shop": rules}, instance)


async def said(client: Client, instance: str = "test:1") -> dict[str, Any]:
    written: Any = await client.hget(STATUS, instance)
    return json.loads(written) if written else {}


async def refused_in_status(client: Client) -> list[str]:
    refused: list[str] = (await said(client)).get("refused", [])
    return refused


async def test_the_first_weights_ever_are_judged_and_a_restart_does_not_forget_it(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    async with watched(redis_server, STEPS, state_dir) as shop:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "50")
        await until(lambda: shop.reasons == ["max_step"])
        assert shop.weights == {}
        await until(lambda: refused_in_status(redis_client))
        (sentence,) = await refused_in_status(redis_client)
        assert sentence == str(shop.store.refusals["shop"][0])
    async with watched(redis_server, STEPS, state_dir) as again:
        await until(lambda: again.reasons == ["max_step"])
        assert again.weights == {}
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "6")
        await until_said(lambda: again.weights == {"canary": 600} and not again.reasons)
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "0")
        await until_said(lambda: again.weights == {"canary": 0})


async def test_a_new_instance_asks_its_fellows_before_it_adopts_what_they_refuse(
    redis_server: Server, redis_client: Client, tmp_path: Path
) -> None:
    async with watched(redis_server, STEPS, tmp_path / "old") as old:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "6")
        await until_said(lambda: old.weights == {"canary": 600})
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "50")
        await until(lambda: refused_in_status(redis_client))
        async with watched(redis_server, STEPS, tmp_path / "new", "test:2") as new:
            await until(lambda: new.reasons == ["max_step"])
            assert new.weights == {"canary": 600}
    # Nobody is left who could be asked, and nothing is remembered: what stands in Redis is all there is.
    async with watched(redis_server, STEPS, tmp_path / "newest") as newest:
        await until_said(lambda: newest.weights == {"canary": 5000})


async def test_what_came_too_soon_comes_into_force_when_the_time_is_over_unless_it_is_taken_back(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    async def write(canary: str) -> None:
        await redis_client.hset(WEIGHTS, "canary", canary)

    async with watched(redis_server, replace(SHOP, guard=GuardSpec(min_bake=6.0)), state_dir) as shop:
        await write("2")
        await until_said(lambda: shop.weights == {"canary": 200})
        widened_at = shop.live.widened_at
        await write("4")
        await until(lambda: shop.reasons == ["min_bake"])
        await write("2")
        await until(lambda: not shop.reasons)
        await write("3")
        await until(lambda: shop.reasons == ["min_bake"])
        assert shop.weights == {"canary": 200}
        await until_said(lambda: shop.weights == {"canary": 300} and not shop.reasons, within=20)
        assert shop.live.widened_at >= widened_at + 6.0
        assert shop.store.rejected_total == {("shop", "min_bake"): 2}
        assert [one["shop"].weights["canary"] for one in shop.announced] == [200, 300]


async def test_the_time_for_baking_outlives_a_restart(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    async with watched(redis_server, BAKE, state_dir) as shop:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "2")
        await until_said(lambda: shop.weights == {"canary": 200})
        widened_at = shop.live.widened_at

        async def is_said() -> bool:
            return (await said(redis_client)).get("widened_at") == round(widened_at, 3)

        await until(is_said)
    kept = load(state_dir, BAKE)
    assert kept is not None
    assert kept.widened_at == round(widened_at, 3)
    async with watched(redis_server, BAKE, state_dir) as again:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "3")
        await until(lambda: again.reasons == ["min_bake"])
        assert again.weights == {"canary": 200}


def test_a_file_from_before_there_were_rails_and_revocations_is_still_read(state_dir: Path) -> None:
    save(state_dir, Live({"canary": 500}), SHOP, 1_800_000_000.0)
    body = json.loads(path_of(state_dir, "shop").read_text())["body"]
    del body["live"]["widened_at"], body["live"]["revoked"]
    path_of(state_dir, "shop").write_bytes(sealed(body))
    assert load(state_dir, SHOP) == Live({"canary": 500})


async def test_a_command_refuses_before_it_writes_with_the_sentence_of_the_status(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    rules = replace(SHOP, guard=GuardSpec(500, 600.0))

    async def set_(**weights: str) -> None:
        await set_weights(redis_client, rules, weights)

    async with watched(redis_server, rules, state_dir) as shop:

        async def is_live() -> bool:
            return (await said(redis_client)).get("mode") == "live"

        await until(is_live)
        with pytest.raises(Refused, match="more than max_step, 5"):
            await set_(canary="7")
        assert not await redis_client.exists(WEIGHTS)
        await set_(canary="6")

        async def is_widened() -> bool:
            return (await said(redis_client)).get("widened_at", 0) > 0

        await until(is_widened)
        with pytest.raises(Refused, match="min_bake is 10m") as refused:
            await set_(canary="7")
        assert await redis_client.hget(WEIGHTS, "canary") == b"6"
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "7")
        await until(lambda: shop.reasons == ["min_bake"])
        (typed,) = (str(one) for one in shop.store.refusals["shop"])
        assert typed.partition("possible at")[0] == str(refused.value).partition("possible at")[0]
        await set_(canary="0")
        await until_said(lambda: shop.weights == {"canary": 0} and not shop.reasons)


async def test_a_running_router_keeps_its_rails_and_says_so(redis_server: Server, tmp_path: Path) -> None:
    async with running_router(tmp_path, redis=redis_server.url, workers=1) as router:
        text = router.config.read_text().replace("    identity:", "    guard: {max_step: 5}\n    identity:")
        router.config.write_text(text.replace("weight: 20}", "weight: 20, floor: 10, ceiling: 30}"))
        await until_said(lambda: router.state()["config"]["revision"] == 2, within=10)
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "50")
        await until_said(lambda: router.state()["services"]["shop"]["refused"])
        assert "more than max_step, 5" in router.state()["services"]["shop"]["refused"][0]
        assert router.metric(r'ringrouter_weights_rejected_total\{.*reason="max_step"') == 1
        assert router.weights()["canary"] == 5
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "0", "early", "31")
        await until_said(lambda: router.metric(r'ringrouter_weights_rejected_total\{.*reason="ceiling"') == 1)
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "0", "early", "0")
        await until_said(lambda: router.weights()["early"] == 0)
        (warning,) = router.state()["services"]["shop"]["warnings"]
        assert "less than its floor of 10" in warning
