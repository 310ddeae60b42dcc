"""``ring-router pass`` as a person runs it, against a real Redis: signed, shown, taken back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from router.cli.main import main
from router.control.link import make_client
from router.control.passes import Revocation, read_revoked, revoke
from router.control.revoked import revoked_of
from router.control.weights import Refused
from router.core.audience import KeySpec
from router.core.live import Live
from router.trust.passes import read_pass, sign_pass
from tests.redis_fixture import Server

CONFIG = """
{redis}
signing_keys:
  - {{id: new, secret: "${{NEW_KEY}}"}}
  - {{id: old, secret: "${{OLD_KEY}}"}}
services:
  shop:
    hosts: ["*.example.com", shop.example.com]
    identity: [{{header: X-User-Id}}]
    versions:
      v1: {{endpoints: [http://127.0.0.1:9001]}}
    rings:
      - {{name: canary, version: v1}}
      - {{name: everyone, version: v1}}
  search:
    hosts: [search.example.com]
    override: "off"
    versions:
      v1: {{endpoints: [http://127.0.0.1:9001]}}
    rings:
      - {{name: everyone, version: v1}}
"""
SECRETS = {"NEW_KEY": "the new key, sixteen bytes or more", "OLD_KEY": "the old key, sixteen bytes or more"}
KEYS = (KeySpec("new", SECRETS["NEW_KEY"]), KeySpec("old", SECRETS["OLD_KEY"]))
REVOKED = "rings:{shop}:revoked"
Run = Callable[..., Result]


def runner_for(redis: str, directory: Path) -> Run:
    config = directory / "router.yaml"
    config.write_text(CONFIG.format(redis=redis))

    def run(*words: str) -> Result:
        return CliRunner(env={"RING_ROUTER_CONFIG": str(config), **SECRETS}).invoke(main, ["pass", *words])

    return run


@pytest.fixture
def run(redis_server: Server, tmp_path: Path) -> Run:
    return runner_for(f"redis: {redis_server.url}", tmp_path)


@pytest.fixture
def alone(tmp_path: Path) -> Run:
    """Without Redis: signing needs none."""
    return runner_for("", tmp_path)


def signed(run: Run, *words: str) -> dict[str, Any]:
    done = run("--service", "shop", "--ring", "canary", "-o", "json", *words)
    assert done.exit_code == 0, done.output
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def test_a_pass_is_signed_by_the_first_key_and_says_what_was_asked_for(alone: Run) -> None:
    before = int(time.time())
    made = signed(alone, "--user", "alice", "--expires", "30m")
    found = read_pass(KEYS, made["token"])
    assert (found.service, found.ring, found.user, found.key_id) == ("shop", "canary", "alice", "new")
    assert before + 1800 <= found.expires_at <= time.time() + 1800
    assert made["link"] == f"http://shop.example.com/?ring_pass={made['token']}"
    assert made["id"] == found.id != signed(alone)["id"]


def test_another_key_signs_when_it_is_named(alone: Run) -> None:
    assert read_pass(KEYS, signed(alone, "--key", "old")["token"]).key_id == "old"


def test_the_token_alone_is_on_standard_output(alone: Run) -> None:
    done = alone("--service", "shop", "--ring", "canary")
    (token,) = done.stdout.splitlines()
    assert read_pass(KEYS, token).user == ""
    assert f"?ring_pass={token}" in done.stderr
    assert "whoever has it" in done.stderr
    assert f"pass revoke {read_pass(KEYS, token).id}" in done.stderr
    assert not any(secret in done.output for secret in SECRETS.values())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--ring", "canary"), "there are 2 services"),
        (("--service", "shop"), "--ring is missing: canary, everyone"),
        (("--service", "shop", "--ring", "canry"), "did you mean 'canary'?"),
        (("--service", "search", "--ring", "everyone"), "`override: off`"),
        (("--service", "shop", "--ring", "canary", "--expires", "soon"), "such as 30m, 2h or 7d"),
        (("--service", "shop", "--ring", "canary", "--expires", "0s"), "such as 30m, 2h or 7d"),
        (("--service", "shop", "--ring", "canary", "--expires", "91d"), "at most 90d"),
        (("--service", "shop", "--ring", "canary", "--key", "older"), "no key 'older' in `signing_keys`: new, old"),
        (("--service", "shop", "--ring", "canary", "--user", "x" * 3000), "take shorter names"),
        (("revoke", "some-id", "--service", "shop"), "add `redis:`"),
        (("list-revoked",), "add `redis:`"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_remedy(alone: Run, words: tuple[str, ...], says: str) -> None:
    done = alone(*words)
    assert done.exit_code in (1, 2)
    assert done.stdout == ""
    assert says in done.stderr


def test_without_a_key_the_remedy_is_a_line_of_config(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    config.write_text(CONFIG.format(redis="").replace("signing_keys:", "signing_keys: []\n#").replace("  - {id", "#"))
    done = CliRunner().invoke(main, ["pass", "-c", str(config), "--service", "shop", "--ring", "canary"])
    assert done.exit_code == 1
    assert "signing_keys: [{id:" in done.stderr


def test_show_says_what_is_in_a_pass_and_whether_it_holds(alone: Run) -> None:
    made = signed(alone, "--user", "alice")
    done = alone("show", made["token"])
    assert done.exit_code == 0
    assert f"pass {made['id']}: ring canary of shop for the user alice, until 20" in done.stdout
    assert "it is valid: without `redis:` nothing can be revoked" in done.stdout
    assert alone("show", made["link"]).exit_code == 0
    assert json.loads(alone("show", made["token"], "-o", "json").stdout)["valid"] is True


@pytest.mark.parametrize(
    ("token", "word"),
    [
        (sign_pass(KEYS, "shop", "canary", "", 1000.0), "expired"),
        (sign_pass(KEYS, "shop", "gone", "", 1e10), "foreign"),
        (sign_pass(KEYS, "gone", "canary", "", 1e10), "foreign"),
        (sign_pass(KEYS, "search", "everyone", "", 1e10), "foreign"),
        (sign_pass([KeySpec("new", "somebody else's key")], "shop", "canary", "", 1e10), "forged"),
        (sign_pass(KEYS, "shop", "canary", "", 1e10)[:-1], "forged"),
        ("nonsense", "malformed"),
    ],
    ids=["old", "lost ring", "lost service", "strange ring", "strange key", "cut short", "nonsense"],
)
def test_show_says_why_a_pass_does_not_hold(alone: Run, token: str, word: str) -> None:
    done = alone("show", token)
    assert done.exit_code == 1
    assert word in done.stdout
    assert json.loads(alone("show", "-o", "json", token).stdout)["verdict"] == word


def test_a_pass_is_revoked_by_its_token_until_it_would_expire(run: Run, redis_server: Server) -> None:
    made = signed(run)
    done = run("revoke", made["token"], "--reason", "lost a laptop")
    assert done.stdout == f"shop: pass:{made['id']} is revoked\n"
    value = redis_server.redis_cli("HGET", REVOKED, f"pass:{made['id']}")
    assert value == f"{made['expires_at']} lost a laptop"
    assert "it is revoked" in run("show", made["token"]).stdout
    assert run("show", made["token"]).exit_code == 1
    assert f"pass:{made['id']}" in run("list-revoked").stdout
    assert "lost a laptop" in run("list-revoked", "--service", "shop").stdout
    assert "already" in run("revoke", made["token"]).stdout
    trail = redis_server.redis_cli("XRANGE", "rings:{shop}:audit", "-", "+")
    assert trail.count("revoke") == 1
    assert "lost a laptop" in trail


def test_what_is_written_is_what_the_instances_read(run: Run, redis_server: Server) -> None:
    run("revoke", "some-id", "--service", "shop", "--reason", "two\nlines")
    run("revoke-key", "old", "--service", "shop")
    names = redis_server.redis_cli("HKEYS", REVOKED).split()
    fields = {name.encode(): redis_server.redis_cli("HGET", REVOKED, name).encode() for name in names}
    read = revoked_of(fields, "shop", Live(), time.time())
    assert (read.fields, read.problems) == (("key:old", "pass:some-id"), ())


def test_a_key_is_revoked_for_all_services_and_the_one_that_signs_is_warned_of(run: Run) -> None:
    made = signed(run)
    done = run("revoke-key", "new", "--reason", "leaked")
    assert done.stdout.splitlines() == ["shop: key:new is revoked", "search: key:new is revoked"]
    assert "new still signs" in done.stderr
    assert run("show", made["token"]).exit_code == 1
    assert run("show", signed(run, "--key", "old")["token"]).exit_code == 0
    assert "there is no key nwe" in run("revoke-key", "nwe").stderr
    assert set(json.loads(run("list-revoked", "-o", "json").stdout)) == {"shop", "search"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("revoke", "x"), "there are 2 services"),
        (("revoke", "a b", "--service", "shop"), "letters, digits, - and _"),
        (("revoke", "new.e30.x"), "nobody knows its id"),
        (("revoke", sign_pass(KEYS, "shop", "canary", "", 1e10), "--service", "search"), "for the service shop"),
        (("revoke", sign_pass(KEYS, "gone", "canary", "", 1e10)), "no service 'gone'"),
    ],
)
def test_a_pass_that_cannot_be_revoked_is_said_so(run: Run, words: tuple[str, ...], says: str) -> None:
    done = run(*words)
    assert done.exit_code in (1, 2)
    assert says in done.stderr
    assert "no pass is revoked" in run("list-revoked").stdout


async def test_what_has_expired_is_cleared_away_and_a_longer_end_wins(redis_server: Server) -> None:
    client = make_client(redis_server.url)
    try:
        assert await revoke(client, "shop", "pass:a", until=100, now=50.0)
        assert not await revoke(client, "shop", "pass:a", until=90, now=50.0)
        assert await revoke(client, "shop", "pass:a", until=150, now=50.0)
        assert await revoke(client, "shop", "pass:b", until=300, reason="why", now=200.0)
        assert await read_revoked(client, "shop") == [Revocation("pass:b", 300, "why")]
        assert await revoke(client, "shop", "pass:b", now=200.0)
        assert not await revoke(client, "shop", "pass:b", until=400, now=200.0)
        assert await read_revoked(client, "shop") == [Revocation("pass:b", 0, "")]
    finally:
        await client.aclose()


async def test_a_key_of_another_type_is_refused_in_words(redis_server: Server) -> None:
    redis_server.redis_cli("SET", REVOKED, "x")
    client = make_client(redis_server.url)
    try:
        with pytest.raises(Refused, match="not a hash"):
            await revoke(client, "shop", "pass:a")
    finally:
        await client.aclose()


def test_somebodys_own_words_in_the_hash_are_shown_as_revoked(run: Run, redis_server: Server) -> None:
    redis_server.redis_cli("HSET", REVOKED, "pass:a", "stolen")
    assert (
        "pass:a                   for ever (its value does not begin with a time)  (stolen)"
        in run("list-revoked").stdout
    )
