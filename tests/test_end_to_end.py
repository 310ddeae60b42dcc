"""The whole router in its own processes, on real traffic: what issue and README promise, end to end."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.house import read_head
from tests.redis_fixture import CONTROL, STATUS, WEIGHTS, Server
from tests.running import (
    ask_on,
    rings_of,
    running_router,
    some_more,
    start_router,
    steady_load,
    stop_router,
)
from tests.waiting import until, until_said

ORDER = ["canary", "early", "everyone"]


def ring_router(*words: str) -> str:
    """What a command prints."""
    done = subprocess.run([sys.executable, "-m", "router.cli", *words], capture_output=True, check=True, timeout=20)
    return done.stdout.decode()


def moved_inward_only(rings: list[str]) -> bool:
    return all(ORDER.index(after) < ORDER.index(before) for before, after in pairwise(rings))


async def test_two_thousand_users_keep_their_ring_across_workers_and_a_restart(
    tmp_path: Path, redis_server: Server
) -> None:
    users = [f"customer-{i}" for i in range(2_000)]
    redis_server.redis_cli("HSET", WEIGHTS, "canary", "5", "early", "20")
    async with running_router(tmp_path, redis=redis_server.url) as router:
        first = await rings_of(router, users)
        assert await rings_of(router, users) == first
        for ring, share in (("canary", 0.05), ("early", 0.20), ("everyone", 0.75)):
            count = sum(r == ring for r in first.values())
            # 4.4 standard deviations: one false alarm in 100,000 runs, were the users drawn anew.
            assert abs(count - 2_000 * share) < 4.4 * math.sqrt(2_000 * share * (1 - share)), (ring, count)
        assert len(router.worker_pids()) == 2
        assert await stop_router(router) == 0
        again = start_router(router.config, router.port, router.admin, router.log)
        try:
            await until_said(again.is_ready, within=60)
            assert await rings_of(again, users) == first
        finally:
            await stop_router(again)


async def test_a_weight_typed_at_redis_cli_moves_users_inward_and_fails_nobody(
    tmp_path: Path, redis_server: Server
) -> None:
    async with running_router(tmp_path, redis=redis_server.url) as router:
        async with steady_load(router) as tally:
            await some_more(tally)
            for canary in (10.0, 25.0):
                redis_server.redis_cli("HSET", WEIGHTS, "canary", str(canary))
                await until_said(
                    lambda wanted=canary: router.weights()["canary"] == wanted and router.is_everywhere(), within=5
                )
                await some_more(tally)
        assert tally.failures == []
        assert all(moved_inward_only(rings) for rings in tally.rings.values())
        assert any(len(rings) > 1 for rings in tally.rings.values())
        counted = router.metric(r"ringrouter_requests_total\{")
        await until_said(lambda: router.metric(r"ringrouter_requests_total\{") >= tally.answered, within=5)
        assert counted <= tally.answered == router.metric(r"ringrouter_requests_total\{")


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        ((("HSET", WEIGHTS, "canary", "500"),), "out_of_range"),
        ((("HSET", WEIGHTS, "canary", "abc"),), "not_a_number"),
        ((("HSET", WEIGHTS, "beta", "5"),), "unknown_ring"),
        ((("DEL", WEIGHTS),), "held_missing"),
        ((("DEL", WEIGHTS), ("SET", WEIGHTS, "oops")), "wrong_type"),
        ((("FLUSHALL",),), "held_missing"),
    ],
    ids=["500", "abc", "unknown ring", "DEL", "wrong type", "FLUSHALL"],
)
async def test_what_cannot_be_right_changes_nothing_and_is_said(
    tmp_path: Path, redis_server: Server, commands: tuple[tuple[str, ...], ...], reason: str
) -> None:
    async with running_router(tmp_path, redis=redis_server.url, workers=1) as router:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "10", "early", "30")
        await until_said(lambda: router.weights()["canary"] == 10.0 and router.is_everywhere(), within=5)
        users = [f"user-{i}" for i in range(200)]
        before = await rings_of(router, users)
        for command in commands:
            redis_server.redis_cli(*command)
        refused = rf'ringrouter_weights_rejected_total\{{service="shop",reason="{reason}"\}}'
        await until_said(lambda: router.metric(refused) >= 1, within=2)
        await until(lambda: "weights" in redis_server.redis_cli("HGETALL", STATUS), within=2)
        await until_said(lambda: router.state()["services"]["shop"]["refused"] != [], within=2)
        assert router.log.read_text().count("level=warning") >= 1
        assert await rings_of(router, users) == before
        told = await asyncio.to_thread(ring_router, "weights", "get", "-c", str(router.config), "-o", "json")
        assert [ring["percent"] for ring in json.loads(told)["rings"]] == [10.0, 30.0, 60.0]
        assert json.loads(told)["refused"]
        if len(commands) == 2:
            redis_server.redis_cli("DEL", WEIGHTS)
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "11", "early", "30")
        redis_server.redis_cli("HDEL", WEIGHTS, "beta")
        await until_said(lambda: router.weights()["canary"] == 11.0, within=5)


async def test_a_kill_empties_a_ring_and_a_freeze_refuses_widening(tmp_path: Path, redis_server: Server) -> None:
    async with running_router(tmp_path, redis=redis_server.url, workers=1) as router:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "10", "early", "30")
        await until_said(lambda: router.weights()["canary"] == 10.0, within=5)
        redis_server.redis_cli("HSET", CONTROL, "kill", "canary")
        await until_said(
            lambda: router.state()["services"]["shop"]["rings"][0]["killed"] and router.is_everywhere(), within=5
        )
        rings = await rings_of(router, [f"user-{i}" for i in range(300)])
        assert "canary" not in rings.values()
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Ring: canary\r\n\r\n")
        assert b"X-Ring: canary" not in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        redis_server.redis_cli("HDEL", CONTROL, "kill")
        redis_server.redis_cli("HSET", CONTROL, "freeze", "holiday")
        await until_said(lambda: router.state()["services"]["shop"]["freeze"] == "holiday", within=5)
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "20")
        await until_said(lambda: router.metric(r'ringrouter_weights_rejected_total\{.*reason="frozen"') >= 1, within=5)
        assert router.weights()["canary"] == 10.0
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "2", "early", "30")
        await until_said(lambda: router.weights()["canary"] == 2.0, within=5)


async def test_redis_killed_stopped_and_started_again_fails_no_request(tmp_path: Path, redis_server: Server) -> None:
    async with running_router(tmp_path, redis=redis_server.url) as router, steady_load(router) as tally:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "10")
        await until_said(lambda: router.weights()["canary"] == 10.0, within=5)
        redis_server.running.kill()
        await until_said(lambda: router.state()["store"]["state"] == "down", within=5)
        await some_more(tally)
        redis_server.start()
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "12")
        await until_said(lambda: router.weights()["canary"] == 12.0, within=5)
        redis_server.running.send(signal.SIGSTOP)
        await until_said(lambda: router.state()["store"]["state"] == "down", within=8)
        await some_more(tally)
        redis_server.running.send(signal.SIGCONT)
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "14")
        await until_said(lambda: router.weights()["canary"] == 14.0, within=5)
    assert tally.failures == []


async def test_without_redis_the_router_starts_from_what_it_last_knew(tmp_path: Path, redis_server: Server) -> None:
    async with running_router(tmp_path, redis=redis_server.url, workers=1) as router:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "17")
        await until_said(lambda: router.weights()["canary"] == 17.0, within=5)
        await until(lambda: any((tmp_path / "state").iterdir()), within=5)
        await stop_router(router)
        redis_server.running.kill()
        again = start_router(router.config, router.port, router.admin, router.log)
        try:
            await until_said(again.is_ready, within=60)
            assert again.weights()["canary"] == 17.0
            assert again.state()["services"]["shop"]["source"] == "disk"
            redis_server.start()
            redis_server.redis_cli("HSET", WEIGHTS, "canary", "18")
            await until_said(lambda: again.weights()["canary"] == 18.0, within=8)
        finally:
            await stop_router(again)


async def test_a_config_is_reloaded_under_load_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router, steady_load(router) as tally:
        good = router.config.read_text()
        await some_more(tally)
        router.config.write_text(good.replace("weight: 5", "weight: 6"))
        router.process.send_signal(signal.SIGHUP)
        await until_said(lambda: router.weights()["canary"] == 6.0 and router.is_everywhere(), within=5)
        for bad in ("", "services: [", good.replace("weight: 5", "wieght: 5"), good[: len(good) // 2]):
            router.config.write_text(bad)
            router.process.send_signal(signal.SIGHUP)
            await until_said(lambda: router.state()["config"]["error"] != "", within=5)
            assert router.weights()["canary"] == 6.0
            await some_more(tally, 50)
        temporary = router.config.with_suffix(".new")
        temporary.write_text(good.replace("weight: 5", "weight: 7"))
        os.replace(temporary, router.config)  # no signal: the polled content is enough
        await until_said(lambda: router.weights()["canary"] == 7.0, within=5)
        assert router.state()["config"]["error"] == ""
        await some_more(tally)
    assert tally.failures == []


async def test_control_killed_under_load_fails_no_request_and_loses_no_count(
    tmp_path: Path, redis_server: Server
) -> None:
    async with running_router(tmp_path, redis=redis_server.url) as router, steady_load(router) as tally:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "10")
        await until_said(lambda: router.weights()["canary"] == 10.0 and router.is_everywhere(), within=5)
        for _ in range(2):
            control, generation = router.control_pid(), router.state()["generation"]
            os.kill(control, signal.SIGKILL)
            await some_more(tally)
            await until_said(router.is_ready, within=60)
            assert router.state()["generation"] == generation
            assert router.weights()["canary"] == 10.0
        await some_more(tally)
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "11")
        await until_said(lambda: router.weights()["canary"] == 11.0 and router.is_everywhere(), within=5)
    assert tally.failures == []
    assert all(moved_inward_only(rings) for rings in tally.rings.values())


async def test_a_killed_worker_is_replaced_and_its_queue_survives(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router:
        before = router.worker_pids()
        os.kill(before[0], signal.SIGKILL)
        # Connections that the kernel gives to the dead worker's socket wait for the new one.
        rings = await rings_of(router, [f"user-{i}" for i in range(400)])
        assert len(rings) == 400
        await until_said(lambda: router.is_ready() and set(router.worker_pids()) != set(before), within=10)


async def test_a_term_signal_lets_requests_finish_and_leaves_no_process(tmp_path: Path) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nv1")

    async with running_router(tmp_path, serve=slow) as router:
        children = [*router.worker_pids(), router.control_pid()]
        _, idle = await asyncio.open_connection("127.0.0.1", router.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        request = asyncio.ensure_future(ask_on(reader, writer, "user-0"))  # noqa: TID251 - awaited below
        await asked.wait()
        router.process.send_signal(signal.SIGTERM)
        await until(lambda: b"stopping" in router.log.read_bytes(), within=5)
        answer.set()
        assert (await request)[1] == "v1"
        await until(lambda: router.process.poll() is not None, within=20)
        assert router.process.returncode == 0
        for pid in children:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        idle.close()
        writer.close()


async def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    async with running_router(tmp_path, workers=1) as router:
        second = start_router(router.config, router.port, router.admin, tmp_path / "second.log")
        await until(lambda: second.process.poll() is not None, within=20)
        assert second.process.returncode == 1
        message = (tmp_path / "second.log").read_text()
        assert f"cannot listen on 127.0.0.1:{router.port}" in message
        assert "Traceback" not in message
