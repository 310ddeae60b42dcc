"""Health checks of a running router: what is down goes into the snapshot, is said everywhere, and outlives control."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.house import fixed, raw_backend
from tests.redis_fixture import STATUS, WEIGHTS, Server
from tests.running import BODY, Router, free_ports, start_router, stop_router
from tests.test_prober import BAD, Backend
from tests.waiting import until, until_said

CONFIG = """\
listen: 127.0.0.1:{port}
admin: {{listen: 127.0.0.1:{admin}}}
workers: 1
state_dir: {state}
access_log: {{format: "off"}}
redis: {redis}
instance: me
services:
  shop:
    identity: [{{header: X-User-Id}}]
    resolve: 1s
    health: {{path: /healthz, interval: {interval}, timeout: {interval}, failures: 2, passes: 2}}
    versions:
      v1: {{endpoints: ["http://localhost:{v1}"]}}
      v2: {{endpoints: ["http://127.0.0.1:{v2}"]}}
    rings:
      - {{name: canary, version: v2, weight: 5, audience: [{{header: {{name: X-Ring, equals: canary}}}}]}}
      - {{name: everyone, version: v1}}
"""


@asynccontextmanager
async def checked_router(directory: Path, redis: str, v1: int, v2: int, interval: str = "1s") -> AsyncIterator[Router]:
    port, admin = free_ports(2)
    config = directory / "router.yaml"
    (directory / "state").mkdir(exist_ok=True)
    config.write_text(
        CONFIG.format(
            port=port, admin=admin, state=directory / "state", redis=redis, v1=v1, v2=v2, interval=interval,
        )
    )  # fmt: skip
    router = start_router(config, port, admin, directory / "router.log")
    try:
        await until_said(router.is_ready, within=60)
        yield router
    finally:
        await stop_router(router)


def snapshot_down(router: Router) -> dict[str, list[str]]:
    """Version → what the snapshot in force says is down."""
    (service,) = router.state()["snapshot"]["services"]
    return {version["name"]: version["down"] for version in service["versions"]}


def health(router: Router, version: str) -> dict[str, Any]:
    (endpoint,) = (one for one in router.state()["services"]["shop"]["backends"] if one["version"] == version)
    found: dict[str, Any] = endpoint["health"]
    return found


async def status(client: Redis) -> dict[str, Any]:
    fields = await client.hgetall(STATUS)  # type: ignore[misc]
    said: dict[str, Any] = json.loads(fields.get(b"me", b"{}"))
    return said


def of_checks(warnings: list[str]) -> list[str]:
    """Without what workers say for themselves: that comes up to a second later, and stays for ``return_after``."""
    return [warning for warning in warnings if "avoided" not in warning]


async def test_a_check_that_goes_bad_takes_the_endpoint_out_and_everybody_is_told(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    v1, v2 = Backend(BODY % b"v1"), Backend(BODY % b"v2")
    async with (
        raw_backend(v1.serve) as port1,
        raw_backend(v2.serve) as port2,
        checked_router(tmp_path, redis_server.url, port1, port2) as router,
    ):
        address = f"127.0.0.1:{port2}"
        await until(lambda: health(router, "v2")["state"] == health(router, "v1")["state"] == "up", within=20)
        assert snapshot_down(router) == {"v1": [], "v2": []}
        assert router.metric(r'ringrouter_version_up\{service="shop",version="v2"\}') == 1

        v2.says = BAD
        await until(lambda: snapshot_down(router) == {"v1": [], "v2": [address]}, within=20)
        await until_said(router.is_everywhere, within=20)
        assert router.metric(r'ringrouter_version_up\{service="shop",version="v1"\}') == 1
        assert router.metric(r'ringrouter_version_up\{service="shop",version="v2"\}') == 0
        assert router.metric(r'ringrouter_endpoint_up\{.*version="v2"') == 0
        assert router.metric(r'ringrouter_health_checks_total\{.*version="v2".*result="failed"\}') >= 2
        warning = "ring canary: version v2 has no healthy endpoint, its users get v1 of the ring everyone"
        shop = router.state()["services"]["shop"]
        assert of_checks(shop["warnings"]) == [warning]
        assert (shop["versions"]["v1"]["up"], shop["versions"]["v2"]["up"]) == (True, False)
        assert health(router, "v2")["last_error"] == "503 Service Unavailable"

        async def is_warned() -> bool:
            return (await status(redis_client)).get("warnings") == [warning]

        await until(is_warned, within=20)
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "20")
        await until_said(lambda: router.weights()["canary"] == 20.0, within=20)  # accepted all the same
        widening = (
            "ring canary was widened from 5 to 20 percent, but version v2 has no healthy endpoint: "
            "its users get v1 of the ring everyone"
        )
        await until(lambda: widening in router.log.read_text())

        v2.says = BODY % b"v2"
        await until(lambda: snapshot_down(router) == {"v1": [], "v2": []}, within=20)
        assert of_checks(router.state()["services"]["shop"]["warnings"]) == []
        assert router.metric(r'ringrouter_version_up\{service="shop",version="v2"\}') == 1

        async def is_well() -> bool:
            return (await status(redis_client)).get("warnings") == []

        await until(is_well, within=20)
        log = router.log.read_text()
        down = f"shop v2 {address} is down: 2 checks in a row failed, the last with: 503 Service Unavailable"
        assert log.count(down) == 1
        assert log.count(f"shop v2 {address} is up again: 2 checks in a row passed") == 1


async def test_a_control_that_is_killed_goes_on_with_what_was_known(tmp_path: Path, redis_server: Server) -> None:
    """The checks after the restart hang for as long as the test takes: only the snapshot left behind can know."""
    hangs = asyncio.Event()
    answers = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            if hangs.is_set():
                await answers.wait()
                writer.write(BODY % b"v2")
            else:
                writer.write(BAD)

    async with (
        raw_backend(fixed(BODY % b"v1")) as port1,
        raw_backend(serve) as port2,
        checked_router(tmp_path, redis_server.url, port1, port2, interval="60s") as router,
    ):
        address = f"127.0.0.1:{port2}"
        # Two failures: the second one comes after a fifth of the interval, which is too long for a test.
        router.config.write_text(router.config.read_text().replace("failures: 2", "failures: 1"))
        await until(lambda: snapshot_down(router) == {"v1": [], "v2": [address]}, within=20)
        generation = router.state()["generation"]
        hangs.set()
        os.kill(router.control_pid(), signal.SIGKILL)
        await until_said(lambda: not router.is_ready(), within=20)
        await until_said(router.is_ready, within=60)
        assert snapshot_down(router) == {"v1": [], "v2": [address]}
        assert router.state()["generation"] == generation
        assert health(router, "v2")["state"] == "down"
        answers.set()
        await until(lambda: health(router, "v2")["state"] == "recovering", within=20)
        assert snapshot_down(router) == {"v1": [], "v2": [address]}
        router.config.write_text(router.config.read_text().replace("passes: 2", "passes: 1"))
        await until(lambda: snapshot_down(router) == {"v1": [], "v2": []}, within=20)


async def test_a_name_is_one_endpoint_for_each_of_its_addresses(tmp_path: Path, redis_server: Server) -> None:
    async with (
        raw_backend(fixed(BODY % b"v1")) as port1,
        raw_backend(fixed(BODY % b"v2")) as port2,
        checked_router(tmp_path, redis_server.url, port1, port2) as router,
    ):
        state = router.state()
        endpoint = state["services"]["shop"]["backends"][0]
        assert (endpoint["endpoint"], endpoint["name"]) == (f"127.0.0.1:{port1}", "localhost")
        assert state["names"] == {"localhost": {"addresses": ["127.0.0.1"], "error": ""}}
        assert (await router.ring_of("ada"))[1] == "v1"


async def test_a_config_without_checks_forgets_what_was_down(tmp_path: Path, redis_server: Server) -> None:
    async with (
        raw_backend(fixed(BODY % b"v1")) as port1,
        raw_backend(fixed(BAD)) as port2,
        checked_router(tmp_path, redis_server.url, port1, port2) as router,
    ):
        await until(lambda: snapshot_down(router)["v2"], within=20)
        lines = router.config.read_text().splitlines()
        router.config.write_text("\n".join(line for line in lines if "health:" not in line) + "\n")
        await until(lambda: snapshot_down(router) == {"v1": [], "v2": []}, within=20)
        assert health(router, "v2") is None
