"""docs/operations.md is true: its configs are valid, and every setting about processes is in it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from click.testing import CliRunner

from router.cli.main import main
from router.config.load import parse_settings
from router.config.settings import json_schema
from tests.certificates import Authority

DEPLOY = Path(__file__).parent.parent / "deploy"
OPERATIONS = (Path(__file__).parent.parent / "docs" / "operations.md").read_text("utf-8")
SERVICES = """
services:
  shop:
    versions: {v1: {endpoints: ["http://127.0.0.1:9001"]}}
    rings: [{name: everyone, version: v1}]
"""


def test_the_configs_it_shows_are_valid(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    Authority(tmp_path / "tls").sign("shop.example.com", file="shop")
    configs = re.findall(r"^```yaml\n(.*?)^```$", OPERATIONS, re.DOTALL | re.MULTILINE)
    assert len(configs) == 4
    for block in configs:
        text = block if block.startswith("services:") else block + SERVICES
        assert parse_settings(text, str(tmp_path / "operations.yaml")).services


def test_every_file_it_links_to_is_there() -> None:
    linked = set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", OPERATIONS))
    assert len(linked) > 8
    assert {path for path in linked if not (DEPLOY.parent / "docs" / path).exists()} == set()


def test_every_rail_is_in_it_with_the_word_of_its_refusals() -> None:
    parts = json_schema()["$defs"]
    rails = {*parts["Guard"]["properties"], *({"floor", "ceiling"} & set(parts["Ring"]["properties"]))}
    assert rails == {"max_step", "min_bake", "floor", "ceiling"}
    assert {word for word in rails if f"| `{word}` |" not in OPERATIONS} == set()


def test_every_setting_about_processes_is_in_it() -> None:
    parts = json_schema()["$defs"]
    keys = {"watchdog", "orphans", "recycle", "sidecar", "inbound", "shutdown.delay", "shutdown.deadline"}
    keys |= {f"  {key}:" for key in parts["Recycle"]["properties"]}
    assert {key for key in keys if key not in OPERATIONS} == set()


def test_every_alert_is_explained_and_no_other() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus-alerts.yaml").read_text("utf-8"))
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    table = OPERATIONS.partition("## What each alert means")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == alerts


def test_every_command_it_names_is_there() -> None:
    verbs = "get|set|history|undo|status|report|abort"
    named = set(re.findall(rf"(?:^|`)ring-router ([a-z]+(?: (?:{verbs})\b)?)", OPERATIONS, re.MULTILINE))
    assert len(named) > 8
    for words in named:
        done = CliRunner().invoke(main, [*words.split(), "--help"])
        assert done.exit_code == 0, (words, done.output)


def test_every_place_it_links_to_within_the_page_is_there() -> None:
    headings = re.findall(r"^##+ (.+)$", OPERATIONS, re.MULTILINE)
    places = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", OPERATIONS)) <= places
