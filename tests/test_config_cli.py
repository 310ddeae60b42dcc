"""``ring-router check`` and ``schema`` as a person runs them: real processes, exit codes, no tracebacks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

TEN_MISTAKES = """\
listen: 8080
admin: {listne: 127.0.0.1:9900}
redis: ${NOT_SET_ANYWHERE}
services:
  shop:
    identity:
      - {header: X-User-Id, cookie: uid}
    versions:
      v1: {endpoints: [ftp://127.0.0.1:9001]}
      v2: {endpoints: [http://127.0.0.1:9002]}
    rings:
      - name: canary
        version: v2
        weight: 40
        wieght: 5
      - name: early
        version: next
        weight: 10.001
      - name: canary
        version: v2
        weight: 50
      - name: everyone
        version: v1
        weight: 30
"""


def ring_router(*words: str, cwd: Path = REPOSITORY, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RING_ROUTER_")}
    environment |= {"PYTHONPATH": str(REPOSITORY)} | env
    return subprocess.run(
        [sys.executable, "-m", "router.cli", *words], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_ten_mistakes_are_ten_problems_on_their_lines_at_once(tmp_path: Path) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(TEN_MISTAKES)
    done = ring_router("check", "-c", str(path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    heads = re.findall(rf"^{re.escape(str(path))}:(\d+):(\d+): (.+)$", done.stderr, re.MULTILINE)
    assert [int(line) for line, _, _ in heads] == [1, 2, 3, 7, 9, 15, 17, 18, 19, 24]
    places = {int(line): (int(column), message) for line, column, message in heads}
    assert places[2][0] == 9
    assert "did you mean 'listen'?" in places[2][1]
    assert "NOT_SET_ANYWHERE is not set" in places[3][1]
    assert "exactly one of" in places[7][1]
    assert "such as http://" in places[9][1]
    assert "did you mean 'weight'?" in places[15][1]
    assert "there is: v1, v2" in places[17][1]
    assert "two decimals" in places[18][1]
    assert "already" in places[19][1]
    assert "default ring" in places[24][1]
    assert done.stderr.rstrip().endswith("10 problems found; the config was not accepted.")


def test_problems_are_json_for_programs(tmp_path: Path) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(TEN_MISTAKES)
    done = ring_router("check", "-c", str(path), "-o", "json")
    assert done.returncode == 2
    found = json.loads(done.stdout)
    assert found["valid"] is False
    assert found["problems"][0] | {"message": ""} == {
        "file": str(path), "line": 1, "column": 9, "message": "", "hint": "",
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted((REPOSITORY / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_file_under_config_passes_check(path: Path) -> None:
    done = ring_router("check", "-c", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"{path}: valid"


def test_a_valid_config_is_one_line_per_service() -> None:
    done = ring_router("check", "-c", "config/minimal.yaml")
    assert done.stdout.splitlines()[0] == "shop (any host, any path): canary 5 % v2 → everyone 95 % v1"
    summary = json.loads(ring_router("check", "-c", "config/minimal.yaml", "-o", "json").stdout)
    assert summary["services"][0]["rings"][1] == {"name": "everyone", "version": "v1", "weight": 95.0}


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"[" * 5000, b"a: b: c", b"- 1", b"\x00"])
def test_check_never_ends_in_a_traceback(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "router.yaml"
    path.write_bytes(raw)
    done = ring_router("check", "-c", str(path))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(str(path))


def test_the_config_is_found_by_option_then_variable_then_place(tmp_path: Path) -> None:
    minimal = (REPOSITORY / "config" / "minimal.yaml").read_text()
    for name in ("here", "there"):
        (tmp_path / f"{name}.yaml").write_text(minimal.replace("shop", name))
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "router.yaml").write_text(minimal)
    assert ring_router("check", cwd=tmp_path).stdout.startswith("shop ")
    there = {"RING_ROUTER_CONFIG": "there.yaml"}
    assert ring_router("check", cwd=tmp_path, **there).stdout.startswith("there ")
    assert ring_router("check", "-c", "here.yaml", cwd=tmp_path, **there).stdout.startswith("here ")


def test_no_config_anywhere_names_three_remedies(tmp_path: Path) -> None:
    done = ring_router("check", cwd=tmp_path, RING_ROUTER_ADMIN="http://127.0.0.1:1")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(remedy in done.stderr for remedy in ("-c ", "RING_ROUTER_CONFIG", "start the router"))


def test_the_schema_is_a_json_schema_of_every_key() -> None:
    schema = json.loads(ring_router("schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["required"] == ["services"]
    assert schema["properties"]["listen"]["default"] == "0.0.0.0:8080"
    assert all("description" in about or "$ref" in about for about in schema["properties"].values())
