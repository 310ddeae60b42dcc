"""Several routers on one Redis: each shows what all of them together see, and which of them are behind."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from router.control.fleet import Fleet
from router.telemetry.buckets import Piece, Pieces, bucket_of
from tests.redis_fixture import STATUS, WEIGHTS, Server
from tests.running import Router, rings_of, running_router
from tests.waiting import until, until_said


def picture(router: Router, scope: str = "fleet") -> dict[str, Any]:
    made: dict[str, Any] = json.loads(router.get(f"/api/v1/rings?scope={scope}"))
    return made


def requests_in(made: dict[str, Any]) -> dict[str, int]:
    rings = made["services"]["shop"]["rings"]
    return {one["ring"]: sum(version["requests"] for version in one["versions"]) for one in rings}


def fleet_of(router: Router) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(router.get("/api/v1/fleet"))
    return made


async def test_both_show_what_both_have_seen_and_who_is_behind(
    redis_server: Server, redis_client: Redis, tmp_path: Path
) -> None:
    async with AsyncExitStack() as house:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        one, two = [
            await house.enter_async_context(running_router(tmp_path / name, redis=redis_server.url, workers=1))
            for name in ("one", "two")
        ]
        users = [f"user-{number}" for number in range(60)]
        await rings_of(one, users)
        await rings_of(two, users[:20])
        for router in (one, two):
            await until(lambda router=router: sum(requests_in(picture(router)).values()) == 80, within=20)
            made = picture(router)
            assert (made["scope"], made["instances"]) == ("fleet", 2)
        alone = picture(two, "instance")
        assert (alone["scope"], alone["instances"], sum(requests_in(alone).values())) == ("instance", 1, 20)
        assert requests_in(picture(one)) == requests_in(picture(two))
        await until(lambda: fleet_of(one)["sentence"] == "2 of 2 instances route by what Redis holds now", within=20)

        # One of them is stopped where it stands: it keeps what it had, and the other says so.
        children = [worker["pid"] for worker in two.state()["workers"]]
        assert children
        other = next(entry["instance"] for entry in fleet_of(one)["instances"] if not entry["is_self"])
        said = json.loads(await redis_client.hget(STATUS, other) or b"{}")
        await redis_client.hset(WEIGHTS, mapping={"canary": "40"})
        await until(lambda: fleet_of(two)["sentence"].startswith("2 of 2"), within=20)
        two.process.send_signal(signal.SIGTERM)
        await until(lambda: two.process.poll() is not None, within=45)
        # What a router that hangs had said last: it is not gone, and it does not route by what is there.
        await redis_client.hset(STATUS, other, json.dumps({**said, "at": time.time()}))
        await until(lambda: fleet_of(one)["sentence"] == "1 of 2 instances route by what Redis holds now", within=20)
        behind = next(entry for entry in fleet_of(one)["instances"] if not entry["is_self"])
        assert (behind["instance"], behind["is_current"], behind["is_fresh"]) == (other, False, True)
        await redis_client.hset(STATUS, other, json.dumps({**said, "at": time.time() - 3000}))
        await until(lambda: fleet_of(one)["count"] == 1, within=20)


async def test_without_redis_it_shows_its_own_and_says_so(redis_server: Server, tmp_path: Path) -> None:
    async with running_router(tmp_path, redis=redis_server.url, workers=1) as router:
        await rings_of(router, [f"user-{number}" for number in range(30)])
        await until(lambda: sum(requests_in(picture(router)).values()) == 30, within=20)
        redis_server.running.kill()
        await until(lambda: picture(router)["scope"] == "instance", within=30)
        made = picture(router)
        assert (made["store"], sum(requests_in(made).values())) == ("down", 30)
        fleet = fleet_of(router)
        assert not fleet["is_complete"]
        assert fleet["sentence"].endswith("is known here: Redis is down")


class Counted:
    """An instance that has counted this and that."""

    def __init__(self) -> None:
        self.pieces: dict[int, dict[str, Pieces]] = {}

    def own(self, bucket: int) -> dict[str, Pieces]:
        return self.pieces.get(bucket, {})


async def test_what_is_written_again_counts_once_and_what_nobody_can_read_harms_nobody(
    redis_server: Server, redis_client: Redis
) -> None:
    one, two = Counted(), Counted()
    fleets = [
        Fleet(redis_server.url, name, lambda: ["shop", "search"], counted.own, lambda: True)
        for name, counted in (("one", one), ("two", two))
    ]
    bucket = bucket_of(time.time())
    place = ("canary", "v2")
    one.pieces[bucket] = {"shop": {place: Piece({200: 3}, {"hash": 3}, {100: 3})}}
    for fleet in fleets:
        fleet.start()
    seen = fleets[1]
    await until_said(lambda: seen.peers(bucket, "shop").get("one", {}).get(place, Piece()).requests == 3, within=10)
    one.pieces[bucket]["shop"][place] = Piece({200: 4, 503: 1}, {"hash": 5}, {100: 5})
    await until(lambda: seen.peers(bucket, "shop")["one"][place].requests == 5, within=10)
    assert fleets[0].peers(bucket, "shop") == {}

    now = bucket_of(time.time())
    await redis_client.hset(f"rings:{{shop}}:stats:{now}", "three", b"\xff not of this router")
    await redis_client.set(f"rings:{{search}}:stats:{now}", "not a hash")
    two.pieces[now] = {"shop": {place: Piece({200: 7}, {}, {})}}
    await until_said(lambda: fleets[0].peers(now, "shop").get("two", {}).get(place, Piece()).requests == 7, within=10)
    assert "three" not in fleets[0].peers(now, "shop")
    assert 0 < await redis_client.ttl(f"rings:{{shop}}:stats:{now}") <= 7200
    await asyncio.gather(*(fleet.stop() for fleet in fleets))
