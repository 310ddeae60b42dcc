"""Redis over TLS, under an account with few rights, behind Sentinels and in a Cluster: what is written is applied."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from loadtests.redis_kinds import cluster, command, primary_and_sentinels, tls_server
from loadtests.rig import free_ports
from router.control.console import execute
from router.control.diagnosis import of_redis
from router.control.keys import shard_of
from router.control.link import TROUBLE, by_hand, make_client
from router.control.redis_server import launch
from router.control.weights import open_redis, set_weights
from router.core.hashing import bucket_of
from tests.certificates import Authority
from tests.redis_fixture import ACCOUNTS, SHOP, WEIGHTS, Server, Watched
from tests.running import Router, running_router
from tests.waiting import until, until_said

MEMBERS = "rings:{shop}:members:canary"


async def writes(client: Redis, percent: str) -> None:
    """As an operator would who tries again until it is acknowledged."""

    async def do() -> bool:
        try:
            async with asyncio.timeout(2):
                await client.hset(WEIGHTS, "canary", percent)
        except (TimeoutError, *TROUBLE):
            return False
        return True

    await until(do, within=20)


async def test_what_was_done_is_done_when_redis_falls_silent_before_the_good_bye(tmp_path: Path) -> None:
    """Over TLS both sides close, and the other one may not: an operator is not to hear that it was all in vain."""
    async with tls_server(tmp_path, needs_front=False) as house:
        if house.is_front:
            pytest.skip("no redis-server that speaks TLS: apt-get install redis-server")
        async with open_redis(house.url) as client:
            await client.hset(WEIGHTS, "canary", "5")
            house.signal(signal.SIGSTOP)
        house.signal(signal.SIGCONT)
        client = make_client(house.url)
        assert await client.hget(WEIGHTS, "canary") == b"5"
        await client.aclose()


@pytest.mark.parametrize("needs_front", [False, True])
async def test_tls_with_a_client_certificate_and_a_restart(tmp_path: Path, state_dir: Path, needs_front: bool) -> None:
    async with tls_server(tmp_path, needs_front=needs_front) as house:
        client = make_client(house.url)
        async with Watched(house.url, state_dir) as shop:
            await writes(client, "5")
            await until(lambda: shop.weights == {"canary": 500})
            await house.restart()
            assert shop.weights == {"canary": 500}
            await writes(client, "6")
            await until(lambda: shop.weights == {"canary": 600}, within=10)
        await client.aclose()
        (tmp_path / "other").mkdir()
        wrong = Authority(tmp_path / "other")
        async with Watched(house.url.replace(str(tmp_path / "ca.pem"), str(wrong.ca)), state_dir / "other") as shop:
            assert shop.store.state == "down"
            assert "certificate verify failed" in shop.store.last_error.lower()
        async with Watched(house.url + ".gone", state_dir / "other") as shop:
            assert shop.store.state == "down"
        assert "ssl_keyfile" in shop.store.last_error
        assert "cannot be read" in shop.store.last_error


async def test_a_socket_is_followed_through_a_restart(tmp_path: Path, state_dir: Path) -> None:
    (port,), socket = free_ports(1), tmp_path / "redis.sock"
    arguments = ["--unixsocket", str(socket), "--unixsocketperm", "700"]
    server = Server(port, tmp_path, launch(port, tmp_path, arguments=arguments), arguments)
    client = make_client(f"unix://{socket}?db=1")
    try:
        async with Watched(f"unix://{socket}?db=1", state_dir) as shop:
            await writes(client, "5")
            await until(lambda: shop.weights == {"canary": 500} and shop.store.state == "live")
            await asyncio.to_thread(server.running.kill)
            await until(lambda: shop.store.state == "down", within=10)
            assert shop.weights == {"canary": 500}
            await asyncio.to_thread(server.start)
            await writes(client, "6")
            await until(lambda: shop.weights == {"canary": 600} and shop.store.state == "live", within=10)
    finally:
        await client.aclose()
        await asyncio.to_thread(server.running.stop)


def typed(url: str, command: str = "SET rings:typed yes") -> str:
    """What Redis answers to what a person is told to type."""
    done = subprocess.run(by_hand(url, command), shell=True, capture_output=True, text=True, timeout=20)
    return done.stdout.strip() or done.stderr


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not there: apt-get install redis-tools")
async def test_what_a_person_is_told_to_type_works(tmp_path: Path, redis_server: Server, redis_client: Redis) -> None:
    (tmp_path / "the secret").write_text("first\n")
    (tmp_path / "user").write_text("rr-operator\n")
    await redis_client.execute_command(*ACCOUNTS["rr-operator"])
    account = f"username_file={tmp_path}/user&password_file={tmp_path}/the%20secret"
    assert typed(f"{redis_server.url}?{account}") == "OK"
    assert typed(f"{redis_server.url}?{account}", "SET elsewhere yes").startswith("NOPERM")
    socket = tmp_path / "redis.sock"
    (port,) = free_ports(1)
    other = launch(port, tmp_path / "other", arguments=["--unixsocket", str(socket)])
    try:
        assert typed(f"unix://{socket}?db=1") == "OK"
        client = make_client(f"unix://{socket}?db=1")
        assert await client.get("rings:typed") == b"yes"
        await client.aclose()
    finally:
        other.stop()
    async with tls_server(tmp_path) as house:
        assert await asyncio.to_thread(typed, house.url) == "OK"


@pytest.mark.parametrize(
    ("user", "missing", "state"),
    [("rr-instance", "", "live"), ("rr-operator", "", "live"), ("rr-instance", "+client|tracking", "poll")],
)
async def test_a_documented_account_is_never_refused_and_its_secret_rotates(
    redis_server: Server, redis_client: Redis, state_dir: Path, tmp_path: Path, user: str, missing: str, state: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    account = redis_client.execute_command
    await account(*(word for word in ACCOUNTS[user] if word != missing))
    url = redis_server.url + f"?username={user}&password_file={secret}"
    client = make_client(url)
    async with Watched(url, state_dir) as shop:
        await until(lambda: shop.store.state == state)
        await set_weights(client, SHOP, {"canary": "5"})
        await until(lambda: shop.weights == {"canary": 500})
        if state == "live":
            assert await redis_client.execute_command("ACL", "LOG") == []
        secret.write_text("second\n")
        await account("ACL", "SETUSER", user, "resetpass", ">second")
        await redis_client.execute_command("CLIENT", "KILL", "USER", user)
        await set_weights(client, SHOP, {"canary": "6"})
        await until(lambda: shop.weights == {"canary": 600}, within=10)
    await client.aclose()


def members(router: Router) -> int:
    count: int = router.state()["services"]["shop"]["members"].get("canary", 0)
    return count


async def test_the_account_of_an_instance_is_all_that_a_member_of_a_fleet_needs(
    redis_server: Server, tmp_path: Path
) -> None:
    database = redis_server.url.removesuffix("/0") + "/1"
    client = make_client(database)
    await client.execute_command(*ACCOUNTS["rr-instance"])
    await client.hset(WEIGHTS, "canary", "5")  # as long as it is there, a set that is not is one that was emptied
    url = database.replace("//", "//rr-instance:first@")
    async with AsyncExitStack() as house:
        routers = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            routers.append(await house.enter_async_context(running_router(tmp_path / name, redis=url, workers=1)))
        loose, sharded = [user for user in (f"user-{i}" for i in range(100)) if bucket_of(user.encode()) >= 2500][:2]
        await client.sadd(MEMBERS, loose)
        await client.sadd(f"{MEMBERS}:{shard_of(sharded.encode())}", sharded)
        for router in routers:
            await until_said(lambda router=router: members(router) == 2)
            assert [(await router.ring_of(user))[0] for user in (loose, sharded)] == ["canary", "canary"]
        await client.srem(MEMBERS, loose)
        for router in routers:
            await until_said(lambda router=router: members(router) == 1)
            await until_said(lambda router=router: b"2 of 2 instances" in router.get("/api/v1/fleet"))
        assert await client.execute_command("ACL", "LOG") == []
    found = await asyncio.to_thread(of_redis, url, ["shop"])
    assert [one.what for one in found if one.level != "ok"] == []
    await client.aclose()


@pytest.mark.parametrize(
    "how", ["manual", pytest.param("kill", marks=pytest.mark.slow), pytest.param("stop", marks=pytest.mark.slow)]
)
async def test_whoever_the_sentinels_announce_is_followed(tmp_path: Path, state_dir: Path, how: str) -> None:
    async with primary_and_sentinels(tmp_path) as house:
        client = make_client(house.url)
        async with Watched(house.url, state_dir) as shop:
            await writes(client, "5")
            await until(lambda: shop.weights == {"canary": 500})
            old = await house.primary()
            match how:
                case "manual":
                    await command(next(iter(house.sentinels)), "SENTINEL", "FAILOVER", "routing")
                case "kill":
                    house.servers[old].kill()
                case _:
                    house.servers[old].send(signal.SIGSTOP)

            async def is_new() -> bool:
                return await house.primary() != old

            await until(is_new, within=20)
            assert shop.weights == {"canary": 500}
            new = await house.primary()

            async def is_followed() -> bool:  # what goes to the old primary meanwhile is thrown away
                await writes(client, "6")
                said: Any = await command(new, "HGET", WEIGHTS, "canary")
                return bool(said == b"6")

            await until(is_followed, within=10)
            await until(lambda: shop.weights == {"canary": 600}, within=10)
        await client.aclose()


@pytest.mark.parametrize("how", ["migrate", pytest.param("kill", marks=pytest.mark.slow)])
async def test_the_owner_of_a_slot_is_followed(tmp_path: Path, state_dir: Path, how: str) -> None:
    async with cluster(tmp_path, WEIGHTS) as house:
        client = make_client(house.url)
        rules = {"shop": SHOP, "blog": replace(SHOP, name="blog"), "docs": replace(SHOP, name="docs")}
        async with Watched(house.url, state_dir, rules) as shop:
            await until(lambda: shop.store.state == "live", within=10)
            await set_weights(client, SHOP, {"canary": "5"})
            await until(lambda: shop.weights == {"canary": 500})
            old = await house.owner()
            if how == "migrate":
                await house.migrate(old, next(port for port in list(house.servers)[:3] if port != old))
            else:
                house.servers[old].kill()
            for name in ("blog", "docs"):
                await set_weights(client, rules[name], {"canary": "7"}) if how == "migrate" else None
            await writes(client, "6")
            await until(lambda: shop.weights == {"canary": 600}, within=10)
            async with client.pipeline(transaction=False) as pipe:
                for name in rules:
                    pipe.hgetall(f"rings:{{{name}}}:status")
                said = await pipe.execute()
            assert [len(one) for one in said] == [1, 1, 1] or how == "kill"
        await client.aclose()


async def test_a_reader_follows_what_others_write(redis_server: Server, redis_client: Redis, state_dir: Path) -> None:
    await redis_client.execute_command(*ACCOUNTS["rr-reader"])
    async with Watched(redis_server.url.replace("//", "//rr-reader:first@"), state_dir) as shop:
        await redis_client.hset(WEIGHTS, "canary", "5")
        await until(lambda: shop.weights == {"canary": 500} and shop.store.state == "live")
        await until(lambda: shop.diary.has("the status cannot be written to Redis"))


async def test_the_console_finds_the_owner_in_a_cluster(tmp_path: Path) -> None:
    async with cluster(tmp_path, WEIGHTS) as house:
        for name in ("shop", "blog", "docs"):
            assert await execute(house.url, ["HSET", f"rings:{{{name}}}:weights", "canary", "5"]) == 1
        assert await execute(house.url, ["PING"]) == b"PONG"
