"""``rings``, ``audit`` and ``doctor`` beside a running router: what people read, and what programs do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.admin import administered
from tests.redis_fixture import WEIGHTS, Server
from tests.running import Router, rings_of, running_router
from tests.test_backends_cli import Done, ring_router
from tests.waiting import until, until_said


def typed(router: Router, *words: str) -> Done:
    return ring_router(*words, config=router.config, admin=router.admin)


async def test_rings_shows_what_each_audience_gets_and_nothing_of_who_was_not_there(
    redis_server: Server, tmp_path: Path
) -> None:
    async with running_router(tmp_path, redis=redis_server.url, workers=1) as router:
        rings = await rings_of(router, [f"user-{number}" for number in range(40)])

        def lines() -> list[list[str]]:
            done = typed(router, "rings")
            assert done.exit_code == 0, done.output
            return [line.split("\t") for line in done.output.splitlines()]

        def seen() -> int:
            made = json.loads(typed(router, "rings", "-o", "json").output)
            return sum(v["requests"] for ring in made["services"]["shop"]["rings"] for v in ring["versions"])

        await until(lambda: seen() == 40, within=20)
        found = {line[1]: line for line in lines()}
        assert list(found) == ["canary", "early", "everyone"]
        assert [found[ring][3] for ring in found] == ["5", "20", "75"]
        for ring, line in found.items():
            count = sum(one == ring for one in rings.values())
            assert (line[6], line[-1] == "no traffic") == (("100.00", False) if count else ("-", True))
        await router_kill(router, redis_server)
        assert "(killed)" in typed(router, "rings").output
        assert typed(router, "rings", "-s", "shopp").output == (
            f"Error: the router at http://127.0.0.1:{router.admin} refuses: There is no service shopp.\n"
        )


async def router_kill(router: Router, server: Server) -> None:
    server.redis_cli("HSET", "rings:{shop}:control", "kill", "canary")
    await until_said(lambda: router.state()["services"]["shop"]["rings"][0]["killed"])


async def test_audit_says_who_and_why(redis_server: Server, redis_client: Redis, tmp_path: Path) -> None:
    async with administered(tmp_path, redis_server.url) as house:
        await house.write("/weights", weights={"canary": 7}, reason="v2 is fine")
        await house.write("/freeze", frozen=True, reason="holiday")
        await until(lambda: _with_token(house.router, "audit").output.count("\n") == 2, within=20)
        newest, oldest = _with_token(house.router, "audit").output.splitlines()
        assert newest.endswith("shop  ada (api)  freeze  freeze off → on  (holiday)")
        assert oldest.endswith("shop  ada (api)  set  canary - → 7  (v2 is fine)")
        entries = json.loads(_with_token(house.router, "audit", "-n", "1", "-o", "json").output)
        assert [entry["action"] for entry in entries] == ["freeze"]
        refused = typed(house.router, "audit")
        assert (refused.exit_code, "RING_ROUTER_TOKEN" in refused.output) == (1, True)


def _with_token(router: Router, *words: str) -> Done:
    return ring_router(*words, config=router.config, admin=router.admin, token=router.token)


def _findings(router: Router) -> dict[str, list[dict[str, Any]]]:
    done = typed(router, "doctor", "-o", "json")
    found: dict[str, list[dict[str, Any]]] = {"ok": [], "warning": [], "bad": []}
    for one in json.loads(done.output):
        found[one["level"]].append(one)
    assert done.exit_code == (1 if found["bad"] else 0)
    return found


async def test_doctor_finds_what_is_wrong_and_says_what_to_do(
    redis_server: Server, redis_client: Redis, tmp_path: Path
) -> None:
    async with running_router(tmp_path, redis=redis_server.url, workers=1) as router:
        healthy = _findings(router)
        assert healthy["bad"] == []
        assert any("may do in Redis all that it needs" in one["what"] for one in healthy["ok"])

        await redis_client.hset(WEIGHTS, mapping={"canary": "7"})
        await redis_client.expire(WEIGHTS, 3600)
        await redis_client.config_set("maxmemory-policy", "allkeys-lru")
        sick = _findings(router)["bad"]
        said = {one["what"]: one["remedy"] for one in sick}
        assert said["rings:{shop}:weights will end by themselves (TTL)"].startswith("`PERSIST rings:{shop}:weights`")
        assert any("maxmemory-policy allkeys-lru" in what for what in said)
        assert all(said.values())

        await redis_client.persist(WEIGHTS)
        await redis_client.config_set("maxmemory-policy", "noeviction")
        await redis_client.hset(WEIGHTS, mapping={"canary": "seven"})
        await until_said(lambda: router.state()["services"]["shop"]["refused"])
        assert any("seven" in one["what"] for one in _findings(router)["bad"])
        assert await redis_client.exists("rings:{shop}:stats:0") == 0
        assert await redis_client.hgetall(WEIGHTS) == {b"canary": b"seven"}

        redis_server.running.kill()
        away = _findings(router)["bad"]
        assert any(one["what"].startswith("Redis ") and "cannot be asked" in one["what"] for one in away)


async def test_doctor_tells_of_rights_that_are_missing(
    redis_server: Server, redis_client: Redis, tmp_path: Path
) -> None:
    await redis_client.execute_command(
        "ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@read", "+ping", "+info"
    )
    url = redis_server.url.replace("redis://", "redis://reader:secret@")
    async with running_router(tmp_path, redis=url, workers=1) as router:
        found = _findings(router)["warning"]
        (rights,) = [one for one in found if "does not let the router" in one["what"]]
        assert "say what it has applied" in rights["what"]
        assert "HDEL" in rights["remedy"]
        assert "secret" not in json.dumps(found)
