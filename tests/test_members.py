"""Members in Redis and in files, in the whole router: who is listed is in the ring, at once and whatever breaks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from router.control.keys import shard_of
from tests.redis_fixture import WEIGHTS, Server
from tests.running import Router, running_router, start_router, stop_router
from tests.waiting import until, until_said

LOOSE = "rings:{shop}:members:canary"
EVERYONE = ("everyone", "v1")
CANARY = ("canary", "v2")


def shard(user: str, ring: str = "canary") -> str:
    return f"rings:{{shop}}:members:{ring}:{shard_of(user.encode())}"


async def is_in(router: Router, user: str, place: tuple[str, str]) -> None:
    """A few connections in a row, so that every worker is likely to be asked."""

    async def everywhere() -> bool:
        return all([await router.ring_of(user) == place for _ in range(8)])

    await until(everywhere, within=15)


async def outsiders(router: Router, count: int) -> list[str]:
    """Users whom the hash leaves in the default ring."""
    found = []
    number = 0
    while len(found) < count:
        user = f"user-{number}"
        number += 1
        if await router.ring_of(user) == EVERYONE:
            found.append(user)
    return found


async def test_whoever_is_added_is_in_the_ring_in_every_worker_and_whoever_is_removed_is_not(
    tmp_path: Path, redis_server: Server
) -> None:
    redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
    async with running_router(tmp_path, redis=redis_server.url, workers=4) as router:
        alice, bob, carol = await outsiders(router, 3)
        redis_server.redis_cli("SADD", LOOSE, alice)
        redis_server.redis_cli("SADD", shard(bob), bob)
        redis_server.redis_cli("SADD", LOOSE, carol)
        redis_server.redis_cli("SADD", shard(carol), carol)
        for user in (alice, bob, carol):
            await is_in(router, user, CANARY)
        assert router.state()["services"]["shop"]["members"]["canary"] == 3
        assert router.metric(r'ringrouter_members\{service="shop",ring="canary"\}') == 3

        redis_server.redis_cli("SREM", LOOSE, alice)
        await is_in(router, alice, EVERYONE)
        redis_server.redis_cli("SREM", LOOSE, carol)  # she is still in a shard
        redis_server.redis_cli("SREM", shard(bob), bob)
        await is_in(router, bob, EVERYONE)
        await is_in(router, carol, CANARY)
        redis_server.redis_cli("DEL", shard(carol))
        await is_in(router, carol, EVERYONE)


async def test_a_flush_or_a_key_of_the_wrong_type_takes_nobody_out(tmp_path: Path, redis_server: Server) -> None:
    redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
    async with running_router(tmp_path, redis=redis_server.url) as router:
        alice, bob = await outsiders(router, 2)
        redis_server.redis_cli("SADD", LOOSE, alice)
        await is_in(router, alice, CANARY)
        redis_server.redis_cli("FLUSHALL")
        redis_server.redis_cli("SET", LOOSE, "somebody's mistake")
        await until_said(lambda: "is not a set" in str(router.state()["services"]["shop"]["notes"]), within=15)
        await is_in(router, alice, CANARY)
        redis_server.redis_cli("DEL", LOOSE)
        await until_said(lambda: "members missing" in str(router.state()["services"]["shop"]["notes"]), within=15)
        await is_in(router, alice, CANARY)
        redis_server.redis_cli("SADD", LOOSE, bob)  # a set that is there is the whole truth
        await is_in(router, bob, CANARY)
        await is_in(router, alice, EVERYONE)


async def test_members_survive_control_the_router_and_a_redis_that_is_away(
    tmp_path: Path, redis_server: Server
) -> None:
    redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
    async with running_router(tmp_path, redis=redis_server.url) as router:
        alice, bob = await outsiders(router, 2)
        redis_server.redis_cli("SADD", LOOSE, alice)
        await is_in(router, alice, CANARY)
        before = router.control_pid()
        os.kill(before, signal.SIGKILL)
        await is_in(router, alice, CANARY)

        def has_control() -> bool:
            return router.is_ready() and router.control_pid() != before

        await until(has_control, within=20)
        redis_server.redis_cli("SADD", LOOSE, bob)  # the new control changes what the workers have mapped
        await is_in(router, bob, CANARY)
        await is_in(router, alice, CANARY)

        assert await stop_router(router) == 0
        redis_server.running.stop()
        again = start_router(router.config, router.port, router.admin, router.log)
        try:
            await until_said(again.is_ready, within=60)
            await is_in(again, alice, CANARY)
            await is_in(again, bob, CANARY)
        finally:
            await stop_router(again)


async def test_a_list_outgrows_its_table_while_it_is_served(tmp_path: Path, redis_server: Server) -> None:
    redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
    async with running_router(tmp_path, redis=redis_server.url) as router:
        alice, bob = await outsiders(router, 2)
        redis_server.redis_cli("SADD", LOOSE, alice)
        await is_in(router, alice, CANARY)
        for start in range(0, 12_000, 1_000):
            redis_server.redis_cli("SADD", LOOSE, *(f"many-{number}" for number in range(start, start + 1_000)))
            assert await router.ring_of(alice) == CANARY
        redis_server.redis_cli("SADD", LOOSE, bob)
        await until_said(lambda: router.state()["services"]["shop"]["members"]["canary"] == 12_002, within=20)
        await is_in(router, bob, CANARY)
        await is_in(router, "many-11999", CANARY)
        tables = list((tmp_path / "state" / "members").iterdir())
        await until(lambda: len(list((tmp_path / "state" / "members").iterdir())) == 1, within=15)
        assert tables


async def test_a_file_of_users_is_a_ring_and_changes_with_the_file(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router:
        alice, bob = await outsiders(router, 2)
        beta = tmp_path / "beta.txt"
        beta.write_text("# beta testers\n" + "".join(f"tester-{number}\n" for number in range(5_000)) + alice + "\n")
        text = router.config.read_text()
        rule = "audience: [{user: {in_file: beta.txt}}, "
        router.config.write_text(text.replace("audience: [", rule))
        await is_in(router, alice, CANARY)
        await is_in(router, "tester-4999", CANARY)
        assert await router.ring_of(bob) == EVERYONE
        beta.write_text(f"{bob}\n")
        await is_in(router, bob, CANARY)
        await is_in(router, alice, EVERYONE)
