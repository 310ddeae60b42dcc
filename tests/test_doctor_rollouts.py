"""``doctor`` and rollouts: may anybody lead one here, and does somebody?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
from redis.asyncio import Redis

from router.control.authors import Author
from router.control.diagnosis_rollouts import of_rollouts
from router.control.finding import Finding
from router.control.keys import key_of
from router.control.leading import ROLLOUT, Lease
from router.control.link import make_client
from router.control.rollouts import read, start
from tests.redis_fixture import SHOP, Server
from tests.rollout_house import plan

LEADER = key_of("shop", "leader")


async def begun(redis: Redis) -> None:
    await start(redis, SHOP, plan(), reason="v2 is built", by=Author("ada", "here", "cli"))


async def told(redis: Redis) -> Finding:
    """What is said of the rollout itself."""
    rights, *found = await of_rollouts(redis, ["shop"])
    assert rights == Finding("ok", "the router may lead a rollout in Redis")
    (one,) = found
    return one


async def test_looking_leaves_nothing_behind(redis_client: Redis) -> None:
    assert [one.level for one in await of_rollouts(redis_client, ["shop", "blog"])] == ["ok"]
    assert await redis_client.keys() == []


async def test_a_rollout_that_nobody_leads_is_found(redis_client: Redis) -> None:
    await begun(redis_client)
    found = await told(redis_client)
    assert found.level == "bad"
    assert "the rollout of shop to v2 (pending) has no leader" in found.what

    await Lease(redis_client, "shop", "router-1:a1").hold()
    found = await told(redis_client)
    assert (found.level, "is led by router-1:a1" in found.what) == ("ok", True)


async def test_a_lease_that_does_not_end_is_found(redis_client: Redis) -> None:
    await begun(redis_client)
    await Lease(redis_client, "shop", "router-1:a1").hold()
    await redis_client.persist(LEADER)
    found = await told(redis_client)
    assert (found.level, found.remedy.partition(",")[0]) == (
        "bad",
        f"somebody has changed it by hand: `DEL '{LEADER}'`",
    )


async def test_a_leader_that_judges_nothing_is_found(redis_client: Redis) -> None:
    await begun(redis_client)
    await Lease(redis_client, "shop", "router-1:a1").hold()
    shown = await read(redis_client, "shop")
    assert shown is not None
    old = msgspec.json.encode(replace(shown, at=shown.at - 40))
    await redis_client.hset(key_of("shop", ROLLOUT), "progress", old)
    found = await told(redis_client)
    assert (found.level, "router-1:a1, which has judged nothing for 4" in found.what) == ("bad", True)

    slow: Any = json.dumps(plan(tick="10s"))
    await redis_client.hset(key_of("shop", ROLLOUT), "plan", slow)
    assert (await told(redis_client)).level == "ok", "with long ticks that is soon enough"


async def test_what_cannot_be_read_is_said(redis_client: Redis) -> None:
    await begun(redis_client)
    await redis_client.hset(key_of("shop", ROLLOUT), "progress", "half of it")
    assert "cannot be read" in (await told(redis_client)).what


async def test_rights_that_are_missing_are_named(redis_server: Server, redis_client: Redis) -> None:
    await redis_client.execute_command("ACL", "SETUSER", "half", "on", ">secret", "~*", "+@all", "-xadd", "-ltrim")
    client = make_client(redis_server.url.replace("redis://", "redis://half:secret@"))
    try:
        (found,) = await of_rollouts(client, ["shop"])
    finally:
        await client.aclose()
    assert found.level == "warning"
    assert "xadd" in found.what.lower()
    assert "ltrim" in found.what.lower()
