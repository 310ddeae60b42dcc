"""docs/operations.md is true: its configs are valid, and every setting about processes is in it."""

from __future__ import annotations

import re
from pathlib import Path

from router.config.load import parse_settings
from router.config.settings import json_schema

OPERATIONS = (Path(__file__).parent.parent / "docs" / "operations.md").read_text("utf-8")
SERVICES = """
services:
  shop:
    versions: {v1: {endpoints: ["http://127.0.0.1:9001"]}}
    rings: [{name: everyone, version: v1}]
"""


def test_the_configs_it_shows_are_valid() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", OPERATIONS, re.DOTALL | re.MULTILINE)
    configs = [block for block in blocks if "containers:" not in block]
    assert len(configs) == 3
    for block in configs:
        text = block if block.startswith("services:") else block + SERVICES
        assert parse_settings(text, "operations.yaml").services


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
