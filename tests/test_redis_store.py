"""Live weights against a real server: what an operator types is live, and whatever breaks, the routing stays."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from router.control.last_good import path_of
from router.control.redis_server import free_port
from router.control.rules import ServiceRules
from router.core.live import Live
from router.core.spec import SnapshotSpec
from router.telemetry.tasks import end, spawn
from tests.redis_fixture import CONTROL, SHOP, STATUS, VERSIONS, WEIGHTS, Server, Watched
from tests.waiting import until

Client = Redis


async def own_status(client: Redis) -> dict[str, Any]:
    written: Any = await client.hget(STATUS, "test:1")
    return json.loads(written) if written else {}


async def test_what_redis_cli_sets_is_live_and_the_status_says_so(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        await until(lambda: shop.store.state == "live")
        assert shop.store.source("shop") == "config"
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "5", "early", "20.5", "rev", "3")
        await until(lambda: shop.weights == {"canary": 500, "early": 2050})
        assert shop.announced[-1] == {"shop": shop.live}
        assert shop.store.source("shop") == "redis"
        assert shop.diary.has("applied (rev 3): canary 1 → 5 percent; early 10 → 20.5 percent")
        shop.store.note_applied(SnapshotSpec(42, ()), {"shop": ("ring canary: v2 is sick",)})

        async def is_said() -> bool:
            said = await own_status(redis_client)
            return said.get("generation") == 42 and said["rev"] == "3" and said["weights"]["canary"] == "5"

        await until(is_said)
        assert (await own_status(redis_client))["warnings"] == ["ring canary: v2 is sick"]
        redis_server.redis_cli("HSET", CONTROL, "kill", "*")
        await until(lambda: shop.live.killed == ("canary", "early"))
        redis_server.redis_cli("DEL", CONTROL)
        await until(lambda: shop.live.killed == ())
        redis_server.redis_cli("HSET", VERSIONS, "early", "v3")
        await until(lambda: shop.live.versions == {"early": "v3"})
    assert await own_status(redis_client) == {}


BAD = [("canary", "NaN"), ("canary", "1e999"), ("canary", "-5"), ("canary", "10%"), ("canary", b"\xff\xfe"), ("x", "1")]


@pytest.mark.parametrize(("field", "value"), BAD)
async def test_a_bad_value_is_refused_and_said_everywhere_and_the_next_good_one_heals(
    redis_server: Server, redis_client: Client, state_dir: Path, field: str, value: str | bytes
) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        await redis_client.hset(WEIGHTS, "early", "20")
        await until(lambda: shop.weights == {"early": 2000})
        await redis_client.hset(WEIGHTS, mapping={field: value, "early": "30"})
        await until(lambda: shop.reasons, within=2)
        assert shop.weights == {"early": 2000}
        assert shop.diary.has(f"refused: {shop.store.refusals['shop'][0].message}")

        async def is_said() -> bool:
            return (await own_status(redis_client)).get("refused") == [str(shop.store.refusals["shop"][0])]

        await until(is_said, within=2)
        counted = sum(shop.store.rejected_total.values())
        reads = sum(shop.store.poll_durations.values())
        await until(lambda: sum(shop.store.poll_durations.values()) >= reads + 2)  # heartbeats do not count it again
        assert sum(shop.store.rejected_total.values()) == counted == 1
        await redis_client.hdel(WEIGHTS, field)
        await redis_client.hset(WEIGHTS, "canary", "4")
        await until(lambda: shop.weights == {"early": 3000, "canary": 400} and not shop.reasons)


async def test_a_sum_above_100_is_held_until_it_is_fixed(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        await redis_client.hset(WEIGHTS, mapping={"canary": "10", "early": "20"})
        await until(lambda: shop.weights == {"canary": 1000, "early": 2000})
        await redis_client.hset(WEIGHTS, "canary", "90")
        await until(lambda: shop.reasons == ["sum_above_100"])
        assert shop.weights == {"canary": 1000, "early": 2000}
        await redis_client.hset(WEIGHTS, "early", "5")
        await until(lambda: shop.weights == {"canary": 9000, "early": 500})


async def test_absence_never_changes_routing(redis_server: Server, redis_client: Client, state_dir: Path) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        await redis_client.hset(WEIGHTS, "canary", "5")
        await redis_client.hset(CONTROL, "kill", "early")
        wanted = Live({"canary": 500}, killed=("early",))
        await until(lambda: shop.live == wanted)
        await redis_client.flushall()
        await until(lambda: shop.reasons == ["held_missing", "held_missing"])
        assert shop.live == wanted
        await redis_client.set(WEIGHTS, "text")
        await until(lambda: "wrong_type" in shop.reasons)
        assert shop.live == wanted
        await redis_client.delete(WEIGHTS)
        await until(lambda: shop.reasons == ["held_missing", "held_missing"])
        assert shop.live == wanted
        assert len(shop.announced) <= 2


async def test_a_hash_full_of_junk_is_refused_and_heals_when_cleaned(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        await redis_client.hset(WEIGHTS, mapping={f"junk{n}": "1" for n in range(201)} | {"canary": "5"})
        await until(lambda: shop.reasons == ["unknown_ring"] * 5)
        await redis_client.hset(WEIGHTS, mapping={f"junk{n}": "1" for n in range(400)})
        await until(lambda: shop.reasons == ["too_many_fields"])
        await redis_client.hdel(WEIGHTS, *(f"junk{n}" for n in range(400)))
        await until(lambda: shop.weights == {"canary": 500} and not shop.reasons)


async def test_3000_changes_in_a_row_end_with_the_last_one(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        flood = "".join(f"HSET {WEIGHTS} canary {n % 50}\r\n" for n in range(3000)) + f"HSET {WEIGHTS} canary 77\r\n"
        _, flooding = await asyncio.open_connection("127.0.0.1", redis_server.port)
        flooding.write(flood.encode())
        await until(lambda: shop.weights == {"canary": 7700})
        flooding.close()
        assert sum(shop.store.poll_durations.values()) < 1500


@pytest.mark.parametrize("way", ["shutdown", "kill -9"])
async def test_a_restarted_server_is_found_again_and_its_emptiness_changes_nothing(
    redis_server: Server, state_dir: Path, way: str
) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
        await until(lambda: shop.weights == {"canary": 500})
        if way == "kill -9":
            redis_server.running.kill()
        else:
            redis_server.running.stop()
        await until(lambda: shop.store.state == "down")
        assert shop.store.last_error
        assert shop.store.errors_total["connection"] >= 1
        redis_server.start()
        await until(lambda: shop.store.state == "live", within=10)
        assert shop.weights == {"canary": 500}
        assert shop.reasons == ["held_missing"]
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "7")
        await until(lambda: shop.weights == {"canary": 700})
        assert shop.diary.count("is down") == 1


async def test_a_server_that_hangs_is_noticed_and_taken_back(redis_server: Server, state_dir: Path) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
        await until(lambda: shop.weights == {"canary": 500})
        os.kill(redis_server.running.pid, signal.SIGSTOP)
        await until(lambda: shop.store.state == "down", within=10)
        assert shop.weights == {"canary": 500}
        os.kill(redis_server.running.pid, signal.SIGCONT)
        await until(lambda: shop.store.state == "live", within=10)
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "6")
        await until(lambda: shop.weights == {"canary": 600})


async def test_a_killed_connection_comes_back_at_once(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        first = shop.store.watcher.watching[0].connection if shop.store.watcher else None
        assert first is not None
        watchers = [c["id"] for c in await redis_client.client_list() if c["name"] == "ring-router:test:1"]
        assert len(watchers) == 1
        await redis_client.client_kill_filter(_id=watchers[0])
        await until(lambda: shop.store.errors_total.total() == 1 and shop.store.state == "live")
        await redis_client.hset(WEIGHTS, "canary", "8")
        await until(lambda: shop.weights == {"canary": 800})


async def test_the_kernel_giving_up_on_a_connection_never_stops_the_loop(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    """ETIMEDOUT makes redis-py's reads return empty at once, for ever; here as the kernel would set it."""
    async with Watched(redis_server.url, state_dir) as shop:
        watcher = shop.store.watcher.watching[0] if shop.store.watcher else None
        assert watcher is not None
        broken: Any = watcher.connection
        broken._reader.set_exception(TimeoutError(110, "Connection timed out"))
        beats = 0

        async def is_alive() -> bool:
            nonlocal beats
            beats += 1
            return watcher.connection not in (None, broken) and shop.store.state == "live"

        await until(is_alive)
        await redis_client.hset(WEIGHTS, "canary", "9")
        await until(lambda: shop.weights == {"canary": 900})
        assert beats < 1000


async def test_without_the_right_to_track_it_polls(redis_server: Server, redis_client: Client, state_dir: Path) -> None:
    rights = "on >pw resetchannels -@all ~rings:* +multi +exec +hgetall +hlen +hset +hdel +ping +hello"
    await redis_client.execute_command("ACL", "SETUSER", "poor", *rights.split())
    url = redis_server.url.replace("redis://", "redis://poor:pw@")
    async with Watched(url, state_dir) as shop:
        assert shop.store.state == "poll"
        await redis_client.hset(WEIGHTS, "canary", "5")
        await until(lambda: shop.weights == {"canary": 500})
        assert shop.diary.has("sends no pushes")
        assert not shop.diary.has("pw@")


async def test_missing_rights_to_read_are_named(redis_server: Server, redis_client: Client, state_dir: Path) -> None:
    rights = "on >pw -@all ~rings:* +ping +hello"
    await redis_client.execute_command("ACL", "SETUSER", "blind", *rights.split())
    async with Watched(redis_server.url.replace("redis://", "redis://blind:pw@"), state_dir) as shop:
        assert shop.store.state == "down"
        await until(lambda: "multi" in shop.store.last_error.lower() or "permission" in shop.store.last_error.lower())
        assert shop.store.errors_total["permission"] >= 1
        assert shop.weights == {}


async def test_started_without_redis_it_goes_on_with_what_the_disk_remembers(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        await redis_client.hset(WEIGHTS, mapping={"canary": "5", "rev": "9"})
        await until(lambda: shop.weights == {"canary": 500})
    assert path_of(state_dir, "shop").is_file()
    redis_server.running.stop()
    async with Watched(redis_server.url, state_dir) as again:
        assert again.store.source("shop") == "disk"
        assert again.live == Live({"canary": 500}, revision="9")
        redis_server.start()
        await until(lambda: again.store.state == "live", within=10)
        assert again.weights == {"canary": 500}
        assert again.reasons == ["held_missing"]
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "6")
        await until(lambda: again.store.source("shop") == "redis" and again.weights == {"canary": 600})


@pytest.mark.parametrize("damage", ["none", "cut", "changed", "junk", "other rings", "writable by all"])
async def test_only_a_whole_and_fitting_file_is_used(redis_server: Server, state_dir: Path, damage: str) -> None:
    redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
    async with Watched(redis_server.url, state_dir) as shop:
        await until(lambda: shop.weights == {"canary": 500})
    file, rules = path_of(state_dir, "shop"), SHOP
    match damage:
        case "cut":
            file.write_bytes(file.read_bytes()[:50])
        case "changed":
            file.write_bytes(file.read_bytes().replace(b"500", b"900"))
        case "junk":
            file.write_bytes(b"[" * 5000)
        case "other rings":
            rules = replace(SHOP, rings=("inner", "early", "everyone"), versions=SHOP.versions | {"inner": "v2"})
        case "writable by all":
            file.chmod(0o666)
    async with Watched(f"redis://127.0.0.1:{free_port()}/0", state_dir, {"shop": rules}) as again:
        is_used = damage == "none"
        assert (again.store.source("shop") == "disk") is is_used
        assert again.weights == ({"canary": 500} if is_used else {})
        assert again.diary.has("last known good values not used") is not is_used


async def test_nothing_is_written_when_nothing_changed(redis_server: Server, state_dir: Path) -> None:
    redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
    async with Watched(redis_server.url, state_dir) as shop:
        await until(lambda: path_of(state_dir, "shop").is_file())
    written = path_of(state_dir, "shop").stat().st_mtime_ns
    async with Watched(redis_server.url, state_dir) as shop:
        await until(lambda: shop.store.source("shop") == "redis")
    assert path_of(state_dir, "shop").stat().st_mtime_ns == written


async def test_a_state_directory_that_cannot_be_is_reported_once(redis_server: Server, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a directory")
    async with Watched(redis_server.url, in_the_way / "state") as shop:
        for weight in (5, 6, 7):
            redis_server.redis_cli("HSET", WEIGHTS, "canary", str(weight))
            await until(lambda wanted=weight: shop.weights == {"canary": wanted * 100})
        await until(lambda: shop.diary.has("cannot be kept"))
    assert shop.diary.count("cannot be kept") == 1


async def test_nobody_waits_for_a_redis_that_is_not_there(state_dir: Path) -> None:
    async with Watched(f"redis://127.0.0.1:{free_port()}/0", state_dir) as shop:
        assert shop.store.state == "down"
        assert shop.store.source("shop") == "config"
        assert shop.diary.count("is down") == 1
    async with Watched(None, state_dir) as shop:
        assert shop.store.state == "off"
        assert shop.store.staleness_seconds == 0


async def test_a_new_service_in_the_config_file_is_watched_and_old_values_are_fitted(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        await redis_client.hset(WEIGHTS, "canary", "5")
        await redis_client.hset("rings:{blog}:weights", "canary", "9")
        await until(lambda: shop.weights == {"canary": 500})
        without_canary = replace(SHOP, rings=("early", "everyone"), weights={"early": 1000})
        shop.store.update_rules({"shop": without_canary, "blog": replace(SHOP, name="blog")})
        assert shop.weights == {}
        assert shop.reasons == ["unknown_ring"]
        await until(lambda: shop.store.live["blog"].weights == {"canary": 900})
        await redis_client.hset("rings:{blog}:weights", "canary", "10")
        await until(lambda: shop.store.live["blog"].weights == {"canary": 1000})


async def test_with_many_services_a_change_still_comes_by_push(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    rules: dict[str, ServiceRules] = {
        name: replace(SHOP, name=name) for name in ("shop", *(f"s{n}" for n in range(80)))
    }
    async with Watched(redis_server.url, state_dir, rules) as shop:
        await redis_client.hset("rings:{s79}:weights", "canary", "5")
        await until(lambda: shop.store.live["s79"].weights == {"canary": 500})
        await redis_client.flushall()
        await until(lambda: shop.store.refusals["s79"])


async def test_a_freeze_in_redis_refuses_widening_until_it_is_gone(redis_server: Server, state_dir: Path) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
        redis_server.redis_cli("HSET", CONTROL, "freeze", "holiday")
        await until(lambda: shop.live == Live({"canary": 500}, freeze="holiday"))
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "6")
        await until(lambda: shop.reasons == ["frozen"])
        assert shop.weights == {"canary": 500}
        redis_server.redis_cli("HDEL", CONTROL, "freeze")
        await until(lambda: shop.live == Live({"canary": 600}))


async def test_a_lost_cancellation_does_not_hang_the_end_of_a_task() -> None:
    """As asyncio.wait_for before Python 3.12 loses it, through which redis-py writes."""
    lost = 0

    async def deaf_once() -> None:
        nonlocal lost
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost += 1
        await asyncio.Event().wait()

    task = spawn(deaf_once(), name="deaf once")
    await asyncio.sleep(0)
    await asyncio.wait_for(end(task), 5)
    assert task.cancelled()
    assert lost == 1
