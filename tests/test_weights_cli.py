"""``ring-router weights`` and ``ring-router redis`` against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from router.cli.main import main
from router.control.console import for_people, for_programs
from router.control.redis_server import free_port
from tests.redis_fixture import CONTROL, WEIGHTS, Server

CONFIG = """
redis: {url}
services:
  shop:
    versions:
      v1: {{endpoints: [http://127.0.0.1:9001]}}
      v2: {{endpoints: [http://127.0.0.1:9002]}}
    rings:
      - {{name: canary, version: v2, weight: 1}}
      - {{name: early, version: v2, weight: 10}}
      - {{name: everyone, version: v1}}
"""
Run = Callable[..., Result]


def runner_for(url: str, directory: Path) -> Run:
    config = directory / "router.yaml"
    config.write_text(CONFIG.format(url=url))

    def run(*words: str) -> Result:
        return CliRunner(env={"RING_ROUTER_CONFIG": str(config)}).invoke(main, list(words))

    return run


@pytest.fixture
def run(redis_server: Server, tmp_path: Path) -> Run:
    return runner_for(redis_server.url, tmp_path)


def shown(run: Run) -> dict[str, float]:
    answer: dict[str, Any] = json.loads(run("weights", "get", "-o", "json").output)
    return {row["ring"]: row["percent"] for row in answer["rings"]}


def test_set_writes_and_says_what_changed_and_how_to_do_it_by_hand(run: Run, redis_server: Server) -> None:
    done = run("weights", "set", "canary=5", "early=20", "--reason", "looks good")
    assert done.exit_code == 0, done.output
    assert "shop: canary 1 → 5 percent" in done.output
    by_hand = f"redis-cli -u {redis_server.url} HSET 'rings:{{shop}}:weights' canary 5 early 20 rev 1"
    assert by_hand in done.output
    assert shown(run) == {"canary": 5, "early": 20, "everyone": 75}
    assert redis_server.redis_cli("HGET", WEIGHTS, "rev") == "1"
    assert run("weights", "set", "shop", "canary=6%").exit_code == 0
    history = json.loads(run("weights", "history", "-o", "json").output)
    assert [entry["revision"] for entry in history] == ["2", "1"]
    assert history[1]["reason"] == "looks good"
    assert (history[0]["fields"], history[0]["before"], history[0]["after"]) == (["canary"], ["5"], ["6"])
    assert "canary 5 → 6" in run("weights", "history").output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["canry=5"], "Did you mean canary?"),
        (["canary=abc"], "not a percentage"),
        (["canary=95"], "add up to 105 percent"),
        (["everyone=5"], "default ring"),
        (["canary=5", "--expect-rev", "9"], "look again"),
    ],
)
def test_what_an_instance_would_refuse_is_not_written(
    run: Run, redis_server: Server, words: list[str], sentence: str
) -> None:
    done = run("weights", "set", *words)
    assert done.exit_code == 1
    assert sentence in done.output
    assert redis_server.redis_cli("EXISTS", WEIGHTS) == "0"


def test_a_dry_run_writes_nothing(run: Run, redis_server: Server) -> None:
    done = run("weights", "set", "canary=5", "--dry-run")
    assert "canary 1 → 5 percent" in done.output
    assert redis_server.redis_cli("EXISTS", WEIGHTS) == "0"


def test_a_freeze_refuses_widening_and_lets_narrowing_through(run: Run, redis_server: Server) -> None:
    redis_server.redis_cli("HSET", CONTROL, "freeze", "holiday")
    wider = run("weights", "set", "canary=5")
    assert wider.exit_code == 1
    assert "holiday" in wider.output
    assert run("weights", "set", "canary=0").exit_code == 0
    assert run("weights", "undo").exit_code == 1


def test_undo_restores_and_a_second_undo_takes_it_back(run: Run, redis_server: Server) -> None:
    assert "nothing to undo" in run("weights", "undo").output
    run("weights", "set", "canary=5")
    run("weights", "set", "canary=7", "early=20")
    assert run("weights", "undo").exit_code == 0
    assert shown(run) == {"canary": 5, "early": 10, "everyone": 85}
    assert run("weights", "undo").exit_code == 0
    assert shown(run) == {"canary": 7, "early": 20, "everyone": 73}
    redis_server.redis_cli("HSET", WEIGHTS, "canary", "30")
    refused = run("weights", "undo")
    assert refused.exit_code == 1
    assert "somebody changed it since" in refused.output


def test_reset_heals_whatever_is_there(run: Run, redis_server: Server) -> None:
    redis_server.redis_cli("HSET", WEIGHTS, "junk", "5", "canary", "50")
    assert run("weights", "set", "canary=5").exit_code == 1
    assert run("weights", "reset").exit_code == 0
    assert shown(run) == {"canary": 1, "early": 10, "everyone": 89}
    assert redis_server.redis_cli("HEXISTS", WEIGHTS, "junk") == "0"
    redis_server.redis_cli("SET", WEIGHTS, "text")
    assert "weights reset" in run("weights", "set", "canary=5").output
    assert run("weights", "reset").exit_code == 0
    assert shown(run) == {"canary": 1, "early": 10, "everyone": 89}


def test_an_unreachable_redis_is_one_sentence(tmp_path: Path) -> None:
    run = runner_for(f"redis://:secret@127.0.0.1:{free_port()}/0", tmp_path)
    for words in (["weights", "get"], ["weights", "set", "canary=5"], ["redis", "PING"]):
        done = run(*words)
        assert done.exit_code == 1
        assert "cannot be reached" in done.output
        assert "secret" not in done.output


def test_redis_passes_words_through(run: Run, redis_server: Server) -> None:
    assert run("redis", "HSET", WEIGHTS, "canary", "5", "early", "20").output == "2\n"
    assert run("redis", "HGETALL", WEIGHTS).output == "canary\n5\nearly\n20\n"
    assert run("redis", "SET", "x", "-1").output == "OK\n"
    assert run("redis", "--url", redis_server.url, "INCR", "x").output == "0\n"
    wrong = run("redis", "HGET", "x", "y")
    assert wrong.exit_code == 1
    assert "WRONGTYPE" in wrong.output


def test_replies_look_as_redis_cli_shows_them() -> None:
    assert (
        for_people([b"a", 1, None, [b'q"\n', b"x"]]) == '1) "a"\n2) (integer) 1\n3) (nil)\n4) 1) "q\\"\\n"\n   2) "x"'
    )
    assert for_people([]) == "(empty array)"
    assert for_people(b"OK") == "OK"
    assert for_programs([b"a", [1, b"c"]]) == "a\n1\nc"
