"""A rolling upgrade between two commits of this repository, and back: old and new instances share one Redis.

One instance after the other is taken over by the other commit's code, under load, while a rollout is under way.
After each, every instance, old or new, has to name all of them as current, and a change has to reach them all.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from router.config.load import load_settings
from router.control import rollouts
from router.control.rules import service_rules
from tests.house import fixed, raw_backend
from tests.redis_fixture import Server
from tests.rollout_house import ADA, CONFIG, plan
from tests.running import BODY, Router, Tally, free_ports, some_more, steady_load, stop_router
from tests.test_fleet_of_five import apply, say
from tests.waiting import until, until_said

ROOT = Path(__file__).resolve().parent.parent
EARLIER = os.environ.get("RING_ROUTER_UPGRADE_FROM", "3d01d75d4179")
"""A commit of this repository; any that has ``--take-over`` and the fleet in its API may be named."""


@dataclass
class Checkout:
    """The code of one commit."""

    directory: Path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "router.cli", *words]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.directory)}

    def start(self, config: Path, port: int, admin: int, *more: str) -> Router:
        """``ring-router run`` with this code."""
        log = config.with_name("router.log")
        with log.open("ab") as out:
            process = subprocess.Popen(
                self.command("run", "-c", str(config), *more),
                cwd=self.directory, env=self.environment, stdout=out, stderr=out,
            )  # fmt: skip
        return Router(process, config, port, admin, log)

    def say(self, *words: str) -> str:
        done = subprocess.run(
            self.command(*words), cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def runs(self, router: Router) -> bool:
        """Whether control and workers of a router are this code."""
        return all(
            os.readlink(f"/proc/{pid}/cwd") == str(self.directory)
            for pid in [router.control_pid(), *router.worker_pids()]
        )


@pytest.fixture
def earlier(tmp_path: Path) -> Checkout:
    """The tree of an earlier commit; skipped where there is no history."""
    archive, directory = tmp_path / "earlier.tar", tmp_path / "earlier"
    try:
        done = subprocess.run(
            ["git", "archive", "-o", str(archive), EARLIER, "router", "config"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("git is not there: apt-get install git")
    if done.returncode:
        pytest.skip(f"the commit {EARLIER} is not in this checkout: {done.stderr.strip()[:100]}")
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    return Checkout(directory)


@asynccontextmanager
async def instances(directory: Path, redis: str, count: int, code: Checkout) -> AsyncIterator[list[Router]]:
    """So many routers of this code, of one worker each; whatever they have become by the end is stopped."""
    async with AsyncExitStack() as house:
        v1 = await house.enter_async_context(raw_backend(fixed(BODY % b"v1")))
        v2 = await house.enter_async_context(raw_backend(fixed(BODY % b"v2")))
        routers = []
        for number in range(count):
            port, admin = free_ports(2)
            home = directory / f"router-{number}"
            (home / "state").mkdir(parents=True)
            file = home / "router.yaml"
            file.write_text(
                CONFIG.format(
                    port=port, admin=admin, workers=1, state=home / "state", v1=v1, v2=v2, redis=redis,
                    name=f"router-{number}",
                )
            )  # fmt: skip
            routers.append(code.start(file, port, admin))
        try:
            for router in routers:
                await until_said(router.is_ready, within=60)
            yield routers
        finally:
            await asyncio.gather(*(stop_router(router) for router in routers))


async def roll(routers: list[Router], redis: Redis, to: Checkout, tallies: list[Tally], weights: list[float]) -> None:
    """One after the other runs this code; each time all agree about all."""
    everybody = f"{len(routers)} of {len(routers)} instances route by what Redis holds now"
    for number, router in enumerate(routers):
        routers[number] = to.start(router.config, router.port, router.admin, "--take-over")
        await until(lambda router=router: router.process.poll() is not None, within=60)
        assert router.process.returncode == 0, router.log.read_text()[-2000:]
        await until_said(routers[number].is_ready, within=60)
        assert to.runs(routers[number])
        await say(routers, everybody)
        await apply(redis, routers, weights.pop())
        await say(routers, everybody)
        for tally in tallies:
            await some_more(tally, 50)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 5])
async def test_one_instance_after_the_other_becomes_the_other_commit_and_no_request_fails(
    count: int, earlier: Checkout, redis_server: Server, redis_client: Redis, tmp_path: Path
) -> None:
    current, weights = Checkout(ROOT), [31.0 + number / 10 for number in range(4 * count)]
    async with AsyncExitStack() as house:
        routers = await house.enter_async_context(instances(tmp_path, redis_server.url, count, earlier))
        rules = service_rules(load_settings(routers[0].config))["shop"]
        # A rollout whose step lasts: what instances tell each other of it goes on all the while.
        steps = [{"ring": "early", "version": "v2", "weight": 30, "bake": "1h"},
                 {"ring": "everyone", "version": "v2", "final_bake": "3s"}]  # fmt: skip
        async with AsyncExitStack() as load:
            tallies = [await load.enter_async_context(steady_load(router, 60, 1)) for router in routers]
            await rollouts.start(redis_client, rules, plan(steps=steps, on_manual_edit="adopt"), reason="v2", by=ADA)
            for code in (current, earlier):
                await roll(routers, redis_client, code, tallies, weights)
                progress = await rollouts.read(redis_client, "shop")
                assert progress is not None
                assert progress.phase != "paused", progress.headline
        assert [tally.failures for tally in tallies] == [[] for _ in routers]
        answered = sum(tally.answered for tally in tallies)
        print(f"{count} instances, there and back: {answered} requests, 0 failed")  # noqa: T201 - shown by pytest -s

        # What either writes into the audit trail, the other reads.
        for code, reason in ((earlier, "from the earlier one"), (current, "from the current one")):
            code.say(
                "weights", "set", "shop", f"canary={weights.pop():g}", "--reason", reason, "-c", str(routers[0].config)
            )
        for code in (earlier, current):
            said = code.say("weights", "history", "shop", "-c", str(routers[0].config))
            assert "from the earlier one" in said
            assert "from the current one" in said
