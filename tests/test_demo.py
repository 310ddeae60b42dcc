"""The demo's fault dial, and its plan: what a newcomer turns to see a rollout go back."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from router.cli.demo import PLAN
from router.cli.demo_visitors import Visitor
from router.cli.main import main
from router.control.redis_server import free_port
from router.process.demo_version import DIAL, Fault
from router.rollout.document import parse_plans, to_plan
from tests.redis_fixture import SHOP
from tests.test_backends_cli import Done
from tests.waiting import until


@dataclass
class Version:
    """A version of the demo's shop, and who asks it."""

    port: int
    client: aiohttp.ClientSession

    async def status(self) -> int:
        async with self.client.get(f"http://127.0.0.1:{self.port}/") as response:
            return response.status

    async def dial(self) -> dict[str, Any]:
        async with self.client.get(f"http://127.0.0.1:{self.port}{DIAL}") as response:
            stands: dict[str, Any] = await response.json()
            return stands

    async def turn(self, *words: str) -> Done:
        runner = CliRunner(env={"RING_ROUTER_DEMO_V2_PORT": str(self.port)})
        done = await asyncio.to_thread(runner.invoke, main, ["demo", "fault", *words])
        return Done(done.exit_code, done.output)


@asynccontextmanager
async def running() -> AsyncIterator[Version]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "router.process.demo_version", "v2", str(port), str(os.getpid())
    )
    try:
        async with aiohttp.ClientSession() as client:
            version = Version(port, client)

            async def is_up() -> bool:
                try:
                    return await version.status() == 200
                except aiohttp.ClientError:
                    return False

            await until(is_up, within=15)
            yield version
    finally:
        process.terminate()
        await process.wait()


async def test_the_dial_makes_requests_fail_and_takes_it_back() -> None:
    async with running() as version:
        done = await version.turn("errors=100%", "latency=+1ms")
        assert (done.exit_code, done.output) == (0, "v2: 100 % errors, 1 ms longer\n")
        assert [await version.status() for _ in range(5)] == [500] * 5
        assert await version.dial() == {"version": "v2", "errors": 1.0, "hang": 0.0, "latency": 0.001, "hanging": 0}
        done = await version.turn("none")
        assert (done.exit_code, done.output) == (0, "v2: no fault\n")
        assert [await version.status() for _ in range(5)] == [200] * 5


async def test_a_request_that_hangs_is_never_answered_and_is_over_when_its_client_leaves() -> None:
    async with running() as version:

        async def hanging() -> int:
            return int((await version.dial())["hanging"])

        assert (await version.turn("hang=100%")).output == "v2: 100 % hang\n"
        asked = asyncio.get_running_loop().create_task(version.status())
        await until(lambda: _is(hanging, 1))
        await version.turn("none")
        assert await version.status() == 200
        assert not asked.done()
        asked.cancel()
        await until(lambda: _is(hanging, 0))


async def _is(count: Any, wanted: int) -> bool:
    return bool(await count() == wanted)


async def test_what_comes_through_the_router_cannot_turn_the_dial() -> None:
    async with running() as version:
        url = f"http://127.0.0.1:{version.port}{DIAL}"
        async with version.client.put(url, json={"errors": 1}, headers={"X-Ring": "canary"}) as response:
            assert (await response.text()).startswith("Hello somebody")
        assert (await version.dial())["errors"] == 0


def test_shares_are_of_all_requests() -> None:
    chance, fault = Random(7), Fault(errors=0.05, hang=0.01)
    befallen = Counter(fault.befalls(chance.random()) for _ in range(20_000))
    assert 900 < befallen["error"] < 1100
    assert 140 < befallen["hang"] < 260
    assert Fault().befalls(0.0) == ""


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["errors=5"], 2, "a rate has its unit"),
        (["latency=fast"], 2, "a duration is"),
        (["error=5%"], 2, "is none of errors=5%"),
        (["none", "hang=1%"], 2, "give it alone"),
        (["errors=60%", "hang=50%"], 2, "together they are at most 100%"),
        (["errors=5%"], 1, "start one with `ring-router demo`"),
        ([], 2, "Missing argument"),
    ],
)
def test_a_dial_that_is_not_there_or_not_meant_is_one_sentence(words: list[str], code: int, sentence: str) -> None:
    done = CliRunner(env={"RING_ROUTER_DEMO_V2_PORT": str(free_port())}).invoke(main, ["demo", "fault", *words])
    assert (done.exit_code, sentence in done.output) == (code, True), done.output


def test_the_plan_of_the_demo_is_a_plan() -> None:
    plan = to_plan("shop", parse_plans(PLAN.read_text("utf-8"), str(PLAN))["shop"], SHOP)
    assert [(step.ring, step.weight) for step in plan.steps] == [
        ("canary", 500), ("canary", 2000), ("early", 3000), ("everyone", None),
    ]  # fmt: skip
    assert sum(step.bake for step in plan.steps) <= 90


async def test_a_visitor_takes_a_new_connection_when_its_own_is_closed() -> None:
    async with running() as version:
        visitor = Visitor(version.port)
        assert await visitor.ask("ann") == ""  # a version says no ring: that is the router's word
        await version.turn("errors=100%")
        assert await visitor.ask("ann") == "error"
        visitor.close()
        assert await visitor.ask("ann") == "error"
        visitor.close()
