"""``ring-router backends`` against a running router and a real Redis; and what several workers' words make together."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from router.core.spec import EndpointSpec, RingSpec, ServiceSpec, SnapshotSpec, VersionSpec
from router.telemetry.backends import Backend, backends
from router.telemetry.counters import EndpointCounters, WorkerCounters, fold
from router.telemetry.exposition import ConfigFigures, Figures, ProcessFigures, StoreFigures, render
from router.telemetry.messages import pack_counters, unpack_counters
from router.telemetry.reports import apply_report
from tests.house import fixed, header, read_head
from tests.redis_fixture import CONTROL, WEIGHTS, Server
from tests.running import Router, free_ports, running_router
from tests.waiting import until, until_said


@dataclass
class Done:
    """How a command ended, and what it said on both its outputs."""

    exit_code: int
    output: str


def type_in(router: Router, *words: str) -> Done:
    """``ring-router backends …`` beside this router, in a process of its own."""
    return ring_router("backends", *words, config=router.config, admin=router.admin)


def ring_router(*words: str, config: Path | None = None, admin: int = 1, token: str = "") -> Done:
    env = {**os.environ, "RING_ROUTER_ADMIN": f"http://127.0.0.1:{admin}"}
    if token:
        env["RING_ROUTER_TOKEN"] = token
    if config is not None:
        env["RING_ROUTER_CONFIG"] = str(config)
    done = subprocess.run(
        [sys.executable, "-m", "router.cli", *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=30, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout.decode())


def shown(router: Router) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(type_in(router, "-o", "json").output)
    return rows


def states(router: Router) -> dict[str, str]:
    return {row["version"]: row["state"] for row in shown(router)}


def audit(server: Server) -> str:
    return server.redis_cli("XRANGE", "rings:{shop}:audit", "-", "+")


async def test_an_endpoint_is_drained_shown_and_taken_back(tmp_path: Path, redis_server: Server) -> None:
    async with running_router(tmp_path, redis=redis_server.url) as router:
        await router.ring_of("victor")
        rows = shown(router)
        assert [(row["service"], row["version"], row["weight"], row["state"]) for row in rows] == [
            ("shop", "v1", 1, "up"), ("shop", "v2", 1, "up"),
        ]  # fmt: skip
        address = rows[1]["endpoint"]
        instance = router.state()["instance"]

        done = type_in(router, "drain", f"http://{address}/", "--reason", "new kernel")
        assert done.exit_code == 0, done.output
        assert f"shop: drained none → {address}" in done.output
        assert f"HSET 'rings:{{shop}}:control' drain {address}" in done.output
        assert f"shop: applied by {instance}" in done.output
        assert states(router) == {"v1": "up", "v2": "drained"}
        assert router.state()["snapshot"]["services"][0]["versions"][1]["drained"] == [address]
        await until_said(router.is_everywhere)
        table = type_in(router).output.splitlines()
        assert table[0].split() == ["service", "version", "endpoint", "weight", "state", "active", "idle", "failures"]
        assert table[2].split()[:5] == ["shop", "v2", address, "1", "drained"]
        assert "new kernel" in audit(redis_server)
        assert router.metric(r"ringrouter_endpoint_up\{.*v2") == 1.0

        assert f"{address} is drained already" in type_in(router, "drain", address).output
        back = type_in(router, "undrain", address)
        assert back.exit_code == 0, back.output
        assert f"shop: drained {address} → none" in back.output
        assert states(router)["v2"] in {"up", "slow start"}
        assert redis_server.redis_cli("HGET", CONTROL, "drain") == ""
        assert "undrain" in audit(redis_server)
        history = ring_router("weights", "history", config=router.config)
        assert f"drain - → {address}  (new kernel)" in history.output


async def test_a_version_that_workers_avoid_is_named_below_its_endpoints(tmp_path: Path) -> None:
    failing = fixed(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    async with running_router(tmp_path, workers=1, serve=failing) as router:
        assert "avoided" not in type_in(router).output
        text = router.config.read_text()
        inside_out = text.replace("version: v2", "version: v3").replace("version: v1", "version: v2")
        router.config.write_text(inside_out.replace("version: v3", "version: v1"))
        await until(lambda: {one["ring"]: one["version"] for one in rings(router)}["canary"] == "v1")
        await until_said(router.is_everywhere)
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        for number in range(60):
            writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\nX-Ring: canary\r\nX-User-Id: %d\r\n\r\n" % number)
            length = header(await read_head(reader), "content-length")[0]
            await reader.readexactly(int(length))
        writer.close()
        await until_said(lambda: any("avoided" in one for one in router.state()["services"]["shop"]["warnings"]))
        table = type_in(router).output.splitlines()
        assert table[1].split()[:5:4] == ["shop", "up"]
        assert table[-1].startswith("shop: version v1 is avoided by 1 worker: it fails massively")
        assert len(shown(router)) == 2


def rings(router: Router) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = router.state()["services"]["shop"]["rings"]
    return found


async def test_a_drain_by_hand_of_an_address_nobody_has_is_noted_and_changes_nothing(
    tmp_path: Path, redis_server: Server
) -> None:
    async with running_router(tmp_path, redis=redis_server.url) as router:
        generation = router.state()["generation"]
        redis_server.redis_cli("HSET", CONTROL, "drain", "10.99.0.1:1")
        await until_said(lambda: router.state()["services"]["shop"]["notes"])
        shop = router.state()["services"]["shop"]
        assert "10.99.0.1:1" in shop["notes"][0]
        assert (shop["drained"], shop["refused"]) == (["10.99.0.1:1"], [])
        assert router.state()["generation"] == generation
        assert type_in(router, "undrain", "10.99.0.1:1").exit_code == 0
        await until_said(lambda: not router.state()["services"]["shop"]["notes"])


async def test_an_unknown_address_is_refused_unless_its_service_is_named(tmp_path: Path, redis_server: Server) -> None:
    async with running_router(tmp_path, redis=redis_server.url) as router:
        refused = type_in(router, "drain", "10.99.0.1:1")
        assert refused.exit_code == 1
        assert "no service has an endpoint 10.99.0.1:1; there is: 127.0.0.1:" in refused.output
        assert redis_server.redis_cli("EXISTS", CONTROL) == "0"
        early = type_in(router, "drain", "10.99.0.1:1", "-s", "shop")
        assert early.exit_code == 0, early.output
        assert redis_server.redis_cli("HGET", CONTROL, "drain") == "10.99.0.1:1"
        assert type_in(router, "-s", "nope").exit_code == 2


async def test_a_drain_keeps_a_kill_that_only_the_routers_remember(tmp_path: Path, redis_server: Server) -> None:
    async with running_router(tmp_path, redis=redis_server.url) as router:

        def killed() -> list[str]:
            return [ring["ring"] for ring in router.state()["services"]["shop"]["rings"] if ring["killed"]]

        redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
        redis_server.redis_cli("HSET", CONTROL, "kill", "canary")
        await until(lambda: killed() == ["canary"])
        redis_server.redis_cli("FLUSHALL")
        await until_said(lambda: any("control missing" in why for why in router.state()["services"]["shop"]["refused"]))
        # The status was flushed as well: the instance says it again with its next news or within ten seconds.
        await until(lambda: redis_server.redis_cli("EXISTS", "rings:{shop}:status") == "1", within=20)
        address = shown(router)[0]["endpoint"]
        done = type_in(router, "drain", address)
        assert done.exit_code == 0, done.output
        assert states(router)["v1"] == "drained"
        assert killed() == ["canary"]


def test_without_redis_the_config_is_where_to_drain(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    config.write_text((Path(__file__).parent.parent / "config" / "minimal.yaml").read_text())
    done = ring_router("backends", "drain", "127.0.0.1:9002", config=config)
    assert done.exit_code == 1
    assert "{url: http://127.0.0.1:9002, weight: 0}" in done.output


def test_without_a_router_it_says_how_to_find_one() -> None:
    (port,) = free_ports(1)
    done = ring_router("backends", admin=port)
    assert done.exit_code == 1
    assert "no router answers" in done.output


ENDPOINT = EndpointSpec("10.0.0.7", 9001)
KEY = ("shop", "v1", "10.0.0.7:9001")


def shop(**version: Any) -> ServiceSpec:
    return ServiceSpec("shop", (VersionSpec("v1", (ENDPOINT,), **version),), (RingSpec("everyone", "v1"),))


def seen(service: ServiceSpec, *workers: dict[str, int]) -> tuple[Backend, WorkerCounters]:
    """The endpoint as it is when each worker has reported such states."""
    total = WorkerCounters()
    for said in workers:
        report = WorkerCounters(endpoints={KEY: EndpointCounters(states=said)})
        fold(total, apply_report(WorkerCounters(), unpack_counters(pack_counters(report))), gauges=True)
    (one,) = backends(service, total.endpoints)
    return one, total


def metric(service: ServiceSpec, counters: WorkerCounters) -> str:
    figures = Figures(
        counters, SnapshotSpec(1, (service,)), StoreFigures(), ConfigFigures(), ProcessFigures(), 0.0, {"v": "x"}
    )
    (line,) = [line for line in render(figures).decode().splitlines() if line.startswith("ringrouter_endpoint_up{")]
    return line


@pytest.mark.parametrize(
    ("version", "workers", "state", "is_up"),
    [
        ({}, [], "up", True),
        ({}, [{"up": 1}, {"slow_start": 1}], "slow start", True),
        ({}, [{"up": 1}, {"up": 1}, {"ejected": 1}], "up", True),
        ({}, [{"up": 1}, {"ejected": 1}], "ejected", True),
        ({}, [{"unreachable": 1}, {"ejected": 1}], "unreachable", False),
        ({}, [{"ejected": 1}, {"ejected": 1}], "ejected", False),
        ({"down": ("10.0.0.7:9001",)}, [{"up": 1}], "down by checks", False),
        ({"drained": ("10.0.0.7:9001",)}, [{"drained": 1}], "drained", True),
        ({"drained": ("10.0.0.7:9001",), "down": ("10.0.0.7:9001",)}, [], "drained", False),
    ],
)
def test_what_the_snapshot_and_several_workers_say_is_one_state(
    version: dict[str, Any], workers: list[dict[str, int]], state: str, is_up: bool
) -> None:
    one, total = seen(shop(**version), *workers)
    assert (one.state, one.is_well) == (state, is_up)
    assert metric(shop(**version), total).endswith(f" {int(is_up)}")


def test_a_dead_worker_has_no_say_about_an_endpoint() -> None:
    total = WorkerCounters()
    dead = WorkerCounters(endpoints={KEY: EndpointCounters({"connect": 3}, states={"ejected": 1})})
    fold(total, dead, gauges=False)
    assert (total.endpoints[KEY].failures, total.endpoints[KEY].states) == ({"connect": 3}, {})
