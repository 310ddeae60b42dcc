"""``explain`` and ``simulate`` as a person runs them; ``--live`` asks a real HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from router.cli.main import main
from router.config.compile import snapshot_spec
from router.config.load import load_settings
from router.core.live import Live

CONFIG = """\
services:
  shop:
    hosts: [shop.example.com]
    identity:
      - header: X-User-Id
      - cookie: uid
      - anonymous_cookie: ring_uid
    versions:
      v1: {endpoints: [http://127.0.0.1:9001]}
      v2: {endpoints: [http://127.0.0.1:9002]}
    rings:
      - name: canary
        version: v2
        weight: 1
        members: [vip]
        audience:
          - header: {name: X-Ring, equals: canary}
            cookie: {name: beta, present: true}
      - {name: early, version: v2, weight: 69}
      - {name: everyone, version: v1}
  search:
    hosts: [search.example.com]
    versions:
      v1: {endpoints: [http://127.0.0.1:9003]}
    rings:
      - {name: everyone, version: v1}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "router.yaml"
    path.write_text(CONFIG)
    return path


def run(*words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(main, list(words), input=text)


def explained(config: Path, *words: str) -> dict[str, object]:
    done = run("explain", "-c", str(config), "-o", "json", *words)
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


@contextmanager
def admin(state: object) -> Iterator[str]:
    """An admin side that answers one thing; gives its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(state).encode()
            self.send_response(200 if self.path == "/api/v1/state" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_hashed_user_sees_bucket_interval_and_borders(config: Path) -> None:
    done = run("explain", "-c", str(config), "--service", "shop", "--user", "user-1")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "shop"
    assert " 1. identity: header X-User-Id is 'user-1': this is the key" in lines
    assert " 4. members: 'user-1' is listed in no ring" in lines
    assert " 6. hash: bucket 6856/10000; early owns 1.00 % to 70.00 %" in lines
    assert "stays in early until its outer border falls below 68.57 % (now 70.00 %, 1.43 % to spare)" in done.stdout
    assert lines[-1].startswith(" => ring early, version v2, reason hash")


def test_the_border_that_is_named_is_the_border(config: Path) -> None:
    for percent, ring in (("67.57", "early"), ("67.56", "everyone")):
        config.write_text(CONFIG.replace("weight: 69", f"weight: {percent}"))
        decision = explained(config, "--service", "shop", "--user", "user-1")["decision"]
        assert decision["ring"] == ring


def test_a_member_is_told_so_and_rules_are_not_asked(config: Path) -> None:
    done = run("explain", "-c", str(config), "--service", "shop", "--user", "vip", "-H", "X-Ring: canary")
    assert "'vip' is a member of canary" in done.stdout
    assert "not asked: decided above" in done.stdout
    assert "reason member" in done.stdout


def test_a_rule_that_does_not_match_says_which_part_failed(config: Path) -> None:
    words = ["explain", "-c", str(config), "--service", "shop", "--user", "user-1", "-H", "x-ring: canary"]
    done = run(*words)
    assert "yes  header X-Ring equals 'canary' (it is 'canary')" in done.stdout
    assert "no   cookie beta is present (it is not there)" in done.stdout
    assert "reason hash" in done.stdout
    assert "reason rule" in run(*words, "--cookie", "beta=1").stdout


def test_the_host_chooses_the_service(config: Path) -> None:
    assert explained(config, "--host", "Search.example.com:8080")["service"] == "search"
    assert explained(config, "-H", "Host: shop.example.com", "--path", "/x?y")["service"] == "shop"


def test_without_a_key_the_cookie_that_would_be_set_is_named(config: Path) -> None:
    found = explained(config, "--service", "shop")
    assert (found["key"], found["mints"], found["hash"]) == (None, "ring_uid", None)
    assert found["decision"] == {"ring": "everyone", "version": "v1", "reason": "default"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--service (shop, search)"),
        (["--service", "shp"], "no service 'shp'"),
        (["--host", "nope"], "404"),
        (["--service", "shop", "-H", "nonsense"], "Name: value"),
        (["--service", "shop", "--cookie", "nonsense"], "name=value"),
        (["--service", "search", "--user", "x"], "no `identity:`"),
    ],
)
def test_a_question_that_has_no_answer_is_refused_in_words(config: Path, words: list[str], says: str) -> None:
    done = run("explain", "-c", str(config), *words)
    assert done.exit_code == 2
    assert says in done.output


def test_live_explains_what_the_running_router_does_and_needs_no_config(config: Path) -> None:
    live = {"shop": Live(weights={"early": 0}, killed=("canary",))}
    spec = snapshot_spec(load_settings(config, {}), live, 7)
    with admin({"snapshot": msgspec.to_builtins(spec)}) as url:
        done = run("explain", "--live", "--admin", url, "--service", "shop", "--user", "vip")
        assert "rule of canary" in done.stdout
        assert "not asked, canary is killed" in done.stdout
        assert "=> ring everyone" in done.stdout
        moved = run("simulate", "--live", "--admin", url, "--service", "shop", "--set", "early=5", "-o", "json")
        assert json.loads(moved.stdout)["moves"][0]["expected_percent"] == 5.0


@pytest.mark.parametrize("state", [{}, {"snapshot": {"generation": "x"}}, []])
def test_an_admin_side_that_answers_something_else_is_refused_in_words(state: object) -> None:
    with admin(state) as url:
        done = run("explain", "--live", "--admin", url, "--service", "shop")
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")


def test_a_router_that_is_not_there_names_the_remedy() -> None:
    done = run("explain", "--live", "--admin", "127.0.0.1:1")
    assert done.exit_code == 1
    assert "ring-router run" in done.output
    assert run("explain", "--live", "--admin", "file:///etc").exit_code == 1


def test_shares_are_as_expected_and_add_up(config: Path) -> None:
    found = json.loads(run("simulate", "-c", str(config), "--service", "shop", "-o", "json").stdout)
    assert [ring["expected_percent"] for ring in found["rings"]] == [1.0, 69.0, 30.0]
    assert sum(ring["users"] for ring in found["rings"]) == found["users"] == 10_000
    assert found["versions"]["v2"]["expected_percent"] == 70.0
    assert all(abs(ring["percent"] - ring["expected_percent"]) < 2 for ring in found["rings"])


def test_widening_moves_inward_only_and_narrowing_outward_only(config: Path) -> None:
    def moves(change: str) -> list[dict[str, object]]:
        done = run("simulate", "-c", str(config), "--service", "shop", "--set", change, "-o", "json")
        found: list[dict[str, object]] = json.loads(done.stdout)["moves"]
        return found

    wider = moves("canary=5")
    assert [(m["from"], m["to"], m["direction"], m["expected_percent"]) for m in wider] == [
        ("early", "canary", "inward", 4.0), ("everyone", "early", "inward", 4.0),
    ]  # fmt: skip
    assert {move["direction"] for move in moves("canary=0, early=50")} == {"outward"}
    assert moves("canary=1") == []


def test_real_ids_are_read_from_a_file_or_standard_input(config: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    ids.write_text("user-1\n\nvip\n")
    words = ["simulate", "-c", str(config), "--service", "shop", "-o", "json", "--ids"]
    for done in (run(*words, str(ids)), run(*words, "-", text="user-1\nvip\n")):
        assert [ring["users"] for ring in json.loads(done.stdout)["rings"]] == [1, 1, 0]
    assert run(*words, "-", text="\n").exit_code == 2


def test_the_tables_of_simulate_are_readable(config: Path) -> None:
    done = run("simulate", "-c", str(config), "--service", "shop", "--users", "100", "--set", "canary=5,early=20")
    assert done.exit_code == 0
    assert "shop: 100 users" in done.stdout
    assert "Moving outward: " in done.stdout
    assert "Nobody moves." in run("simulate", "-c", str(config), "--service", "shop", "--set", "canary=1").stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("canry=5", "did you mean 'canary'?"),
        ("everyone=5", "default ring"),
        ("canary", "ring=percent"),
        ("canary=x", "not a number"),
        ("canary=1.234", "two decimals"),
        ("canary=nan", "percent"),
        ("canary=50", "119 percent"),
    ],
)
def test_weights_that_cannot_be_are_refused_in_words(config: Path, change: str, says: str) -> None:
    done = run("simulate", "-c", str(config), "--service", "shop", "--set", change)
    assert done.exit_code == 2
    assert says in done.output
