"""``ring-router rollout``: what people read, and what a pipeline gets to know by the exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from redis.asyncio import Redis
from rich.console import Console

from router.cli.main import main
from router.cli.rollout_view import picture
from router.rollout.progress import Progress
from router.rollout.words import span
from tests.redis_fixture import Server
from tests.rollout_progress import rolled_back, under_way
from tests.test_backends_cli import Done
from tests.test_weights_cli import CONFIG
from tests.waiting import until

NOW = 1_764_065_000.0
PLANS = """
rollouts:
  shop: {stable: v1, candidate: v2, steps: [{ring: canary, version: v2, weight: 1}]}
  basket: {stable: v1, candidate: v2, steps: [{ring: canary, version: v2, weight: 1}]}
"""
HEADLINE = "holding early at 20 %: p99 not yet proven (ln E 1.9 of 3.0, about 2,400 more users)"
Type = Callable[..., Awaitable[Done]]


def progress(**changes: Any) -> Progress:
    """One that is proving its third step, or as the changes say."""
    return replace(under_way(NOW), **changes)


async def write(client: Redis, said: Progress) -> None:
    await client.hset("rings:{shop}:rollout", "progress", msgspec.json.encode(said))


@pytest.fixture
def config(redis_server: Server, tmp_path: Path) -> Path:
    path = tmp_path / "router.yaml"
    path.write_text(
        CONFIG.format(url=redis_server.url) + "  basket:\n    hosts: [basket.example.com]\n" + _second_service()
    )
    return path


def _second_service() -> str:
    return "\n".join(line for line in CONFIG.format(url="").splitlines() if line.startswith("    ")) + "\n"


@pytest.fixture
def typed(config: Path) -> Type:
    async def run(*words: str) -> Done:
        runner = CliRunner(env={"RING_ROUTER_CONFIG": str(config)})
        done = await asyncio.to_thread(runner.invoke, main, ["rollout", *words])
        return Done(done.exit_code, done.output)

    return run


@dataclass
class Waiting:
    """A command that is still running."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    def has(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip("\n"))


@asynccontextmanager
async def waiting(config: Path, *words: str) -> AsyncIterator[Waiting]:
    """It has read the rollout once, and waits."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "router.cli", "rollout", *words,
        env={**os.environ, "RING_ROUTER_CONFIG": str(config)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, limit=1 << 22,
    )  # fmt: skip
    command = Waiting(process)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(command.read())
        try:
            await until(lambda: command.lines, within=20)
            yield command
        except BaseException:
            process.kill()
            raise


async def test_status_says_where_it_stands_and_both_numbers_of_every_guardrail(
    redis_client: Redis, typed: Type
) -> None:
    nothing = await typed("status", "shop")
    assert nothing.exit_code == 1
    assert "ring-router rollout start PLAN.yaml" in nothing.output
    await write(redis_client, progress())
    done = await typed("status", "shop")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == "shop: v2 → v3, step 3 of 5, proving"
    assert lines[1] == HEADLINE
    assert lines[2].startswith("next: Everyone gets v3 when p99 is proven")
    assert [line.split()[0] for line in lines[3:8]] == ["✓", "✓", "▶", "·", "·"]
    assert lines[3] == "  ✓ 1 canary runs v3 at 1 %  (30 min baked, 1,204 users a side)"
    assert "bake 1 h 24 min of 2 h, 412 of 1,000 users a side, 1 of 2 approvals by grace, deadline " in lines[5]
    assert lines[7] == "  · 5 everyone runs v3  (bake 1 d)"
    errors, p99, *_, orders = lines[8:13]
    assert errors.startswith("  errors     within       v3 0.07 % of 41,230 users, v2 0.06 % of 820,400 users: errors ")
    assert p99.startswith("  p99        collecting   v3 1.52 % of 41,230 users, v2 1.12 % of 820,400 users: p99 not ")
    assert orders.startswith(
        "  orders     no data      v3 no users yet, v2 no users yet: https://kpi.example/orders did"
    )
    assert "note: http_4xx is uncalibrated: 3 of 64 slices of v2 cried wolf, so it may only pause" in lines
    assert lines[-1].endswith("3 of 3 instances have applied it, led by edge-01:8080")


@pytest.mark.parametrize(
    ("phase", "code"),
    [
        ("pending", 0), ("waiting", 0), ("baking", 0), ("approval", 0), ("finalising", 0), ("succeeded", 0),
        ("rolling_back", 3), ("rolled_back", 3), ("rollback_stalled", 3), ("superseded", 3), ("aborted", 3),
        ("paused", 4),
    ],
)  # fmt: skip
async def test_the_exit_code_says_how_it_stands(redis_client: Redis, typed: Type, phase: Any, code: int) -> None:
    await write(redis_client, progress(phase=phase))
    assert (await typed("status", "shop", "-o", "json")).exit_code == code


async def test_json_is_the_progress_as_it_is(redis_client: Redis, typed: Type) -> None:
    said = rolled_back(NOW)
    await write(redis_client, said)
    for words in (["status", "shop", "-o", "json"], ["report", "shop", "-o", "json"]):
        assert msgspec.json.decode((await typed(*words)).output, type=Progress) == said
    (listed,) = msgspec.json.decode((await typed("list", "-o", "json")).output, type=list[Progress])
    assert listed == said
    text = (await typed("status", "shop")).output
    assert "rolled back: errors: worse than tolerated (ln E 9.4 of 6.2); found after 6 min 52 s, applied " in text
    assert "everywhere 0.6 s later; 37 users and 118 requests were hurt" in text


async def test_list_has_one_line_per_service(redis_client: Redis, typed: Type) -> None:
    await write(redis_client, progress())
    done = await typed("list")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"shop: v2 → v3, step 3 of 5, proving: {HEADLINE}",
        "basket: no rollout",
    ]


@pytest.mark.parametrize(("phase", "code"), [("succeeded", 0), ("rolled_back", 3)])
async def test_wait_follows_it_to_its_end_and_a_pause_is_none(
    redis_client: Redis, config: Path, phase: Any, code: int
) -> None:
    await write(redis_client, progress())
    async with waiting(config, "status", "shop", "--wait") as command:
        await write(redis_client, progress(phase="paused", why="no_traffic", headline="nobody asks canary"))
        await until(lambda: command.has("paused (no_traffic): nobody asks canary"), within=10)
        await write(redis_client, progress(phase=phase, headline="that was it", ended_at=NOW))
        assert await asyncio.wait_for(command.process.wait(), 10) == code
    assert command.has("that was it")


async def test_a_gate_may_fail_on_a_pause(redis_client: Redis, config: Path) -> None:
    await write(redis_client, progress())
    async with waiting(config, "status", "shop", "--wait", "--fail-on-pause") as command:
        await write(redis_client, progress(phase="paused", why="signal"))
        assert await asyncio.wait_for(command.process.wait(), 10) == 4


async def test_a_gate_that_has_waited_long_enough_says_that_the_rollout_goes_on(
    redis_client: Redis, typed: Type
) -> None:
    await write(redis_client, progress())
    done = await typed("status", "shop", "--wait", "--timeout", "100ms")
    assert done.exit_code == 5
    assert "the rollout goes on; look again with `ring-router rollout status shop`" in done.output


async def test_a_gate_does_not_take_another_rollout_for_its_own(redis_client: Redis, config: Path) -> None:
    await write(redis_client, progress())
    async with waiting(config, "status", "shop", "--wait") as command:
        await write(redis_client, progress(id="shop-1764069999", phase="succeeded"))
        assert await asyncio.wait_for(command.process.wait(), 10) == 3
    assert command.has("this one was superseded")


async def test_a_redis_that_is_away_for_a_while_ends_no_gate(
    redis_server: Server, redis_client: Redis, config: Path
) -> None:
    await write(redis_client, progress())
    async with waiting(config, "status", "shop", "--wait") as command:
        redis_server.running.kill()
        await until(lambda: command.has("cannot be reached") and command.has("waiting goes on"), within=20)
        redis_server.start()
        await write(redis_client, progress(phase="succeeded"))
        assert await asyncio.wait_for(command.process.wait(), 20) == 0


async def test_watching_in_a_pipe_gives_a_line_of_json_per_change(redis_client: Redis, config: Path) -> None:
    await write(redis_client, progress())
    async with waiting(config, "status", "shop", "-w", "-o", "json") as command:
        await write(redis_client, progress(phase="succeeded"))
        assert await asyncio.wait_for(command.process.wait(), 10) == 0
    phases = [msgspec.json.decode(line, type=Progress).phase for line in command.lines]
    assert phases[0] == "proving"
    assert phases[-1] == "succeeded"


@pytest.mark.parametrize("verb", ["pause", "resume", "approve", "promote", "abort"])
async def test_who_wants_something_says_why(typed: Type, verb: str) -> None:
    done = await typed(verb, "shop")
    assert done.exit_code == 2
    assert "--reason" in done.output


async def test_ways_to_resume_exclude_one_another(typed: Type) -> None:
    done = await typed("resume", "shop", "--adopt", "--restore", "--reason", "both")
    assert done.exit_code == 2
    assert "give one" in done.output


@pytest.mark.parametrize(
    ("text", "words", "code", "sentence"),
    [
        (None, [], 1, "cannot be read"),
        ("rollouts: [", [], 1, "plan.yaml:1:"),
        ("- a\n- b\n", [], 1, "beginning with `rollouts:`"),
        (PLANS, [], 2, "name the one you mean (shop, basket)"),
        (PLANS, ["baskets"], 2, "there is no service 'baskets'"),
    ],
)
async def test_a_plan_that_cannot_be_meant_is_refused_before_anybody_is_asked(
    typed: Type, tmp_path: Path, text: str | None, words: list[str], code: int, sentence: str
) -> None:
    path = tmp_path / "plan.yaml"
    if text is not None:
        path.write_text(text)
    done = await typed("start", str(path), *words, "--reason", "v2 is built")
    assert (done.exit_code, sentence in done.output) == (code, True), done.output


async def test_a_report_tells_the_story(redis_client: Redis, typed: Type) -> None:
    await write(redis_client, progress())
    done = await typed("report", "shop")
    assert done.exit_code == 0
    assert done.output.startswith("# ")
    assert HEADLINE in done.output
    assert (await typed("report", "shop", "-o", "markdown")).output == done.output


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"), (0.43, "0.4 s"), (9.0, "9 s"), (59.4, "59 s"), (59.6, "1 min"), (90, "1 min 30 s"),
        (1800, "30 min"), (5400, "1 h 30 min"), (86_400, "1 d"), (187_200, "2 d 4 h"),
    ],
)  # fmt: skip
def test_a_span_of_time_is_said_in_two_units_at_most(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_the_live_picture_says_how_old_it_is() -> None:
    def shown(age: float) -> str:
        console = Console(width=200, file=StringIO(), record=True)
        console.print(picture(progress(), age))
        return console.export_text()

    fresh, old = shown(0.5), shown(42.0)
    assert HEADLINE in fresh
    assert "command    approved  grace  (looks good from here)" in fresh
    assert (fresh.split()[-1], "STALE 42 s" in old) == ("LIVE", True)
