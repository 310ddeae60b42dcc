"""docs/rollouts.md is true: its plans are valid, every key is in it, and has the default that it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from redis.asyncio import Redis

from router.cli.rollout import rollout
from router.cli.rollout_follow import EXIT_ENDED, EXIT_PAUSED, EXIT_TIMEOUT
from router.config.load import load_settings
from router.control.authors import Author
from router.control.diagnosis_rollouts import of_rollouts
from router.control.link import make_client
from router.control.notify import as_json
from router.control.recount import verify
from router.control.rollouts import command, start
from router.control.rules import service_rules
from router.rollout.document import to_plan
from router.rollout.plain import plan_to_plain
from router.rollout.plan import RiskBudget
from router.rollout.progress import Event, Phase
from router.rollout.schema import PlanKeys
from router.rollout.state import Why
from tests import rollout_house as house
from tests.redis_fixture import ACCOUNTS, Server
from tests.running import running_router
from tests.test_backends_cli import ring_router
from tests.test_plan_document import SHOP, parsed, plan_of
from tests.waiting import until

ROLLOUTS: Final = (Path(__file__).parent.parent / "docs" / "rollouts.md").read_text("utf-8")
BLOCKS: Final = re.findall(r"^```yaml\n(.*?)^```$", ROLLOUTS, re.DOTALL | re.MULTILINE)
ROWS: Final = dict(re.findall(r"^\| `([a-z_.\[\]]+)` \| (.*?) \|", ROLLOUTS, re.MULTILINE))
WRITTEN_WHOLE: Final = ("latency", "webhook", "promql", "margin", "approval", "depends_on")
"""Parts whose keys stand in the row of the part."""


def test_the_plans_it_shows_are_valid() -> None:
    plans = [block for block in BLOCKS if block.startswith("rollouts:")]
    assert len(plans) == 3
    for text in plans:
        assert parsed(text)["shop"]


def test_the_guardrails_it_shows_are_those_of_a_plan_that_names_none() -> None:
    (guardrails,) = [block for block in BLOCKS if block.startswith("guardrails:")]
    indented = "".join(f"    {line}\n" for line in guardrails.splitlines())
    assert plan_of(BLOCKS[0] + indented).guardrails == plan_of(BLOCKS[0]).guardrails


def test_every_key_is_in_it_once() -> None:
    assert set(keys_of(PlanKeys)) - {key for key in keys_of(PlanKeys) if key.endswith(".action")} == set(ROWS)


def test_the_defaults_are_those_it_says() -> None:
    plain = plan_to_plain(to_plan("shop", parsed(BLOCKS[0])["shop"], SHOP))
    plain["steps"] = [plain["steps"][0] | plain["steps"][-1] | {"bake": plain["steps"][0]["bake"]}]
    del plain["steps"][0]["version"], plain["steps"][0]["weight"], plain["steps"][0]["margin"]
    written = {key: text.strip("`") for key, text in ROWS.items() if text.startswith("`")}
    compared = set()
    for key, text in written.items():
        found = found_at(plain, key.replace("[]", ".0"))
        if found is not None and key not in ("guardrails[].on_harm", "guardrails[].required"):
            assert str(found).replace("False", "false").removesuffix(".0") == shown(text), key
            compared.add(key)
    assert len(compared) > 25
    assert (RiskBudget().users, RiskBudget().min_step / 100, RiskBudget().max_factor) == (50, 0.5, 5)


def test_a_webhook_is_sent_what_it_says() -> None:
    (text,) = re.findall(r"^```json\n(.*?)^```$", ROLLOUTS, re.DOTALL | re.MULTILINE)
    said = json.loads(text)
    plan = plan_of(BLOCKS[0])
    event = Event(1_764_061_200.25, 42, "transition", "proving", "rolling_back", said["eventMessage"])
    assert as_json(plan, event) == said


def test_every_state_and_every_reason_of_a_pause_is_in_it() -> None:
    rows = re.findall(r"^\| (\w[\w ]*) \|", section("The states"), re.MULTILINE)
    assert {row.replace(" ", "_") for row in rows} - {"state", "paused_for"} == {*get_args(Phase), *get_args(Why)} - {
        ""
    }


def test_every_command_and_exit_code_is_in_it() -> None:
    said = section("At the command line")
    assert set(re.findall(r"^\| `rollout (\w+)", said, re.MULTILINE)) == set(rollout.commands)
    codes = {int(code) for code in re.findall(r"^\| (\d) \|", said, re.MULTILINE)}
    assert codes == {0, 1, 2, EXIT_ENDED, EXIT_PAUSED, EXIT_TIMEOUT}


async def test_the_rights_that_it_names_are_enough(redis_server: Server, redis_client: Redis, tmp_path: Path) -> None:
    assert "`rr-instance`" in section("Rights")
    await redis_client.execute_command(*ACCOUNTS["rr-instance"])
    url = redis_server.url.replace("redis://", "redis://rr-instance:first@")
    client = make_client(url)
    try:
        async with running_router(tmp_path, redis=url, workers=1) as router:
            rules = service_rules(load_settings(router.config))["shop"]
            by = Author("ada", "here", "cli")
            await start(client, rules, house.plan(), reason="v2 is built", by=by)

            def phase() -> str:
                return json.loads(ring_router("rollout", "list", "-o", "json", config=router.config).output)[0]["phase"]

            await until(lambda: phase() == "baking", within=20)
            assert (await command(client, rules, "rollback", reason="", by=by)).phase in ("rolling_back", "rolled_back")
            await until(lambda: phase() == "rolled_back", within=20)
            assert await verify(client, rules) == []
            assert {one.level for one in await of_rollouts(client, ["shop"])} == {"ok"}
            assert router.state()["store"]["state"] == "live"
    finally:
        await client.aclose()
    log = await redis_client.execute_command("ACL", "LOG")
    assert log == []


def section(title: str) -> str:
    """From this heading to the next one of its rank or above."""
    found = re.search(rf"^(#+) {title}\n(.*?)(?=^##? |\Z)", ROLLOUTS, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[2]


def shown(text: str) -> str:
    return text if not text.startswith("{ratio") else "{'ratio': 1.25, 'abs': '0.1pp'}"


def found_at(plain: Any, key: str) -> Any:
    for step in key.split("."):
        if isinstance(plain, list):
            plain = plain[int(step)] if plain else None
        else:
            plain = plain.get(step) if isinstance(plain, dict) else None
    return plain


def keys_of(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        key = f"{before}{info.alias or name}"
        inner, is_list = model_in(info.annotation)
        if inner is None or name in WRITTEN_WHOLE:
            yield key
        else:
            if not before and name not in ("expansion", "rollback"):
                yield key
            yield from keys_of(inner, f"{key}[]." if is_list else f"{key}.")


def model_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model that a field holds, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    is_list = get_origin(annotation) is tuple
    if is_list or get_origin(annotation) in (Union, UnionType):
        for one in get_args(annotation):
            found, _ = model_in(one)
            if found is not None:
                return found, is_list
    return None, False
