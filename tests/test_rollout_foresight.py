"""``rollout simulate``: what a plan will probably need, from the traffic that there is now."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from router.cli.main import main
from router.control.people import day_of, sketch_key
from router.rollout.document import to_plan
from router.rollout.plan import Plan
from router.rollout.simulation import Foreseen, RingNow, Traffic, about, foresee
from router.telemetry.buckets import Piece, bucket_of, pack
from tests.redis_fixture import SHOP, Server
from tests.test_weights_cli import CONFIG

LATENCIES = {200 + step: round(2000 * 0.8**step) for step in range(30)}
RINGS = (RingNow("canary", 0, "v1", 0), RingNow("early", 0, "v1", 300), RingNow("everyone", 10_000, "v1", 59_700))
TRAFFIC = Traffic(300.0, 60_000, 20_000_000, 10_000, {"errors": 5, "http_4xx": 100}, LATENCIES)
"""200 requests a second of twenty million people."""
ERRORS = {"name": "errors", "outcome": "http_5xx_or_transport", "on_harm": "rollback", "required": True}
P99 = {"name": "p99", "latency": {"quantile": 0.99}, "on_harm": "rollback", "required": True}


def plan(*steps: dict[str, Any], **keys: Any) -> Plan:
    made = {"stable": "v1", "candidate": "v2", "steps": list(steps), "guardrails": [ERRORS], **keys}
    return to_plan("shop", made, SHOP)


def canary(**keys: Any) -> dict[str, Any]:
    return {"ring": "canary", "version": "v2", "weight": 1, **keys}


def only(made: Plan, traffic: Traffic = TRAFFIC) -> Foreseen:
    (found,) = foresee(made, RINGS, traffic)
    return found


def test_a_step_lasts_until_its_last_proof_and_says_what_that_needs() -> None:
    found = only(plan(canary(bake="5m"), guardrails=[ERRORS, P99]))
    needs = {need.guardrail: need.users for need in found.needs}
    assert needs["errors"] is not None
    assert needs["p99"] is not None
    assert 5_000 < needs["errors"] < 15_000
    wanted = max(needs["errors"], needs["p99"])
    assert found.seconds is not None
    assert found.seconds == pytest.approx(wanted / 2 + 1200, rel=0.05)  # two users a second, two windows of ten minutes
    assert found.sentence.startswith("canary at 1 %: about ")
    assert f"({about(wanted)} users at 120 a minute); errors needs " in found.sentence


def test_a_wider_margin_of_the_step_needs_fewer_users_and_a_bake_is_waited_for() -> None:
    tight, wide = only(plan(canary())), only(plan(canary(margin={"ratio": 1.5, "abs": "0.5pp"})))
    assert (wide.needs[0].users or 0) < (tight.needs[0].users or 0) / 5
    assert wide.sentence.startswith("canary at 1 %: 30 min, its bake (about ")
    long = only(plan(canary(bake="3d", margin={"ratio": 1.5, "abs": "0.5pp"})))
    assert long.seconds == 3 * 86_400
    assert ": 3 d, its bake (about " in long.sentence


def test_later_steps_stand_on_those_before() -> None:
    found = foresee(
        plan(
            canary(),
            {"ring": "canary", "weight": 5},
            {"ring": "early", "version": "v2", "weight": 20},
            {"ring": "everyone", "version": "v2", "final_bake": "24h"},
        ),
        RINGS,
        TRAFFIC,
    )
    assert [step.sentence.partition(":")[0] for step in found] == [
        "canary at 1 %", "canary at 5 %", "early at 20 %", "everyone runs v2",
    ]  # fmt: skip
    users = [step.ring_users or 0 for step in found[:3]]
    assert users[1] == pytest.approx(5 * users[0], rel=0.01)
    assert users[2] == pytest.approx(25 * users[0], rel=0.01)
    assert "nobody is left to compare with" in found[3].sentence
    assert found[3].seconds == 86_400


def test_a_deadline_that_comes_first_is_said() -> None:
    assert only(plan(canary(deadline="1h"))).sentence.endswith("beyond its deadline of 1 h")
    assert "deadline" not in only(plan(canary(deadline="24h"))).sentence


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"requests": 0}, "nobody can say, there is no traffic now"),
        ({"people": None}, "nobody can say how long, because people are not counted"),
        ({"people": 20_000}, "not within two days (about 200 people have the candidate in that time, and "),
        ({"stable_requests": 0}, "errors: v1 has no requests now to know its rate by"),
        ({"stable_histogram": {160: 999}}, "p99: v1 has too few requests now to know its latency by"),
    ],
)
def test_what_cannot_be_foreseen_is_said_and_why(change: dict[str, Any], said: str) -> None:
    found = only(plan(canary(), guardrails=[ERRORS, P99]), replace(TRAFFIC, **change))
    assert said in found.sentence
    assert found.seconds is None


def test_figures_from_elsewhere_are_not_made_up() -> None:
    orders = {"name": "orders", "webhook": {"url": "http://127.0.0.1:1/"}, "direction": "decrease", "required": True}
    found = only(plan(canary(), guardrails=[ERRORS, orders]))
    assert "nobody can say how long (orders: its figures come from elsewhere" in found.sentence


def test_a_margin_that_leaves_nothing_to_prove_is_never_proven() -> None:
    exact = only(plan(canary(), guardrails=[{**ERRORS, "margin": {"ratio": 1, "abs": "0pp"}}]))
    assert "never by itself (errors: its margin is too tight" in exact.sentence


def test_a_ring_that_people_choose_is_compared_with_its_own_holdback() -> None:
    (found,) = foresee(plan({"ring": "early", "version": "v2", "weight": 0, "holdback": 50}), RINGS, TRAFFIC)
    assert found.ring_users == found.control_users
    assert found.ring_users == pytest.approx(0.0025 * 360_000, rel=0.15)


@given(st.integers(0, 10**7), st.integers(1, 10**7), st.integers(0, 1000), st.integers(1, 9_000), st.booleans())
def test_whatever_the_traffic_a_step_is_foreseen_or_it_is_said_why(
    requests: int, people: int, errors: int, weight: int, is_counted: bool
) -> None:
    traffic = replace(
        TRAFFIC, requests=requests, people=people if is_counted else None, stable_outcomes={"errors": errors}
    )
    made = plan(canary(weight=weight / 100), guardrails=[ERRORS, P99])
    found = only(made, traffic)
    assert found.sentence.startswith(f"canary at {weight / 100:g} %: ")
    if found.seconds is None:
        assert "nobody can say" in found.sentence or "never" in found.sentence or "not within" in found.sentence
    else:
        assert found.seconds >= made.steps[0].bake


async def test_it_reads_the_traffic_of_all_instances_and_the_people_they_have_seen(
    redis_server: Server, redis_client: Redis, tmp_path: Path
) -> None:
    config, path = tmp_path / "router.yaml", tmp_path / "plan.yaml"
    config.write_text(CONFIG.format(url=redis_server.url))
    path.write_text(
        "rollouts:\n  shop:\n    stable: v1\n    candidate: v2\n    steps:\n"
        "      - {ring: canary, version: v2, weight: 1, bake: 30m}\n"
    )

    async def typed(*words: str) -> str:
        runner = CliRunner(env={"RING_ROUTER_CONFIG": str(config)})
        done = await asyncio.to_thread(runner.invoke, main, ["rollout", "simulate", str(path), *words])
        assert done.exit_code == 0, done.output
        return done.output

    assert "nobody can say, there is no traffic now" in await typed()
    now = time.time()
    pieces = pack({("everyone", "v1"): Piece({200: 950, 503: 50}, {}, LATENCIES)})
    for instance in ("one", "two"):
        for number in range(2, 8):
            await redis_client.hset(f"rings:{{shop}}:stats:{bucket_of(now) - number}", instance, pieces)
    await redis_client.hset(f"rings:{{shop}}:stats:{bucket_of(now) - 3}", "three", b"not of this router")
    await redis_client.set(f"rings:{{shop}}:stats:{bucket_of(now) - 1}", "not a hash")
    for number in range(100):
        await redis_client.pfadd(sketch_key("shop", number, day_of(now)), *(f"{number}-{one}" for one in range(300)))
    text = await typed()
    assert "no traffic" not in text
    said = json.loads(await typed("-o", "json"))
    assert said["people"] == pytest.approx(30_000, rel=0.03)
    assert 100 <= said["requests_per_second"] <= 200  # the last bucket may have closed meanwhile
    assert said["steps"][0]["needs"][0]["guardrail"] == "errors"
    assert await redis_client.keys("rings:{shop}:rollout*") == []
