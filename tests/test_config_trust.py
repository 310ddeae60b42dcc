"""Logins, guard rails, keys and issuers in the config: what each key becomes, and what is said of a bad one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from router.cli.main import main
from router.config.compile import snapshot_spec
from router.config.load import ConfigError, load_settings
from router.core.audience import IssuerSpec, KeySpec
from router.core.spec import GuardSpec
from tests.config_texts import (
    SECRET,
    config,
    listener,
    only,
    parse,
)
from tests.tokens import ED25519, P256, RSA, jwk_set, public_jwk

# -- logins, overrides, open connections, guard rails ------------------------------------------------------------------


def test_steering_keys_are_what_they_say() -> None:
    ring = "{name: canary, version: v1, weight: 5, floor: 1, ceiling: 50.5, on_change: {drain: 1m}}"
    service = "login: outer_wins\n    override: 'off'\n    guard: {max_step: 2.5, min_bake: 10m}"
    spec = parse(config(service=service, ring=ring))
    assert (spec.login, spec.override, spec.guard) == ("outer_wins", "off", GuardSpec(250, 600.0))
    canary, everyone = spec.rings
    assert (canary.floor, canary.ceiling, canary.on_change, canary.change_drain) == (100, 5050, "drain", 60.0)
    assert (everyone.floor, everyone.ceiling, everyone.on_change) == (0, 10_000, "keep")
    assert parse(config(ring="{name: canary, version: v1, on_change: close}")).rings[0].on_change == "close"
    plain = parse(config())
    assert (plain.login, plain.override, plain.guard) == ("anonymous_first", "passes", GuardSpec())


@pytest.mark.parametrize(
    ("service", "says"),
    [
        ("login: user-wins", "anonymous_first, user_wins or outer_wins"),
        ("override: everybody", "passes, trusted, insecure or off"),
        ("guard: {max_step: 0}", "greater than 0"),
        ("guard: {max_step: 101}", "from 0 to 100"),
        ("guard: {min_bake: 0}", "more than 0"),
        ("guard: {max_stp: 5}", "did you mean 'max_step'"),
    ],
)
def test_a_bad_key_of_a_service_is_one_problem_at_its_place(service: str, says: str) -> None:
    problem = only(config(service=service))
    assert problem.line == 5
    assert says in problem.render()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("on_change: drain", "{drain: 30s}"),
        ("on_change: cloze", "did you mean 'close'"),
        ("on_change: {drain: soon}", "500ms, 10s or 1m"),
        ("on_change: {drane: 30s}", "did you mean 'drain'"),
        ("on_change: true", "keep, close, or a time"),
        ("floor: 10%", "plain number: 10"),
        ("floor: 20, ceiling: 10", "the floor (20) is above the ceiling (10)"),
        ("weight: 20, ceiling: 10", "the weight (20) is above the ring's ceiling (10)"),
    ],
)
def test_a_bad_key_of_a_ring_is_one_problem_at_its_place(keys: str, says: str) -> None:
    problem = only(config(ring=f"{{name: canary, version: v1, {keys}}}"))
    assert problem.line == 9
    assert says in problem.render()


def test_the_default_ring_has_a_floor_and_neither_ceiling_nor_deny_list() -> None:
    last = "{name: everyone, version: v1}"
    assert parse(config().replace(last, "{name: everyone, version: v1, floor: 50}")).rings[1].floor == 5000
    for key in ("ceiling: 50", "deny: [{user: {equals: a}}]"):
        problem = only(config().replace(last, f"{{name: everyone, version: v1, {key}}}"))
        assert (problem.line, "default ring" in problem.message) == (10, True)
    text = config(ring="{name: canary, version: v1, weight: 60}")
    problem = only(text.replace(last, "{name: everyone, version: v1, floor: 50}"))
    assert (problem.line, "leave the default ring 40 percent" in problem.message) == (10, True)


def test_mode_baggage_and_outbound_listeners_are_the_listeners_affair() -> None:
    text = "mode: sidecar\nbaggage: false\nlisten: ['127.0.0.1:80', {address: '127.0.0.1:81', outbound: true}]\n"
    found = listener(text + config())
    assert (found.mode, found.sends_baggage) == ("sidecar", False)
    assert [one.is_outbound for one in found.sockets] == [False, True]
    plain = listener(config())
    assert (plain.mode, plain.sends_baggage) == ("edge", True)


@pytest.mark.parametrize("key", ["redirect_to_https: 443", "inbound: true", "proxy_protocol: true"])
def test_an_outbound_listener_is_nothing_else_besides(key: str) -> None:
    problem = only(f"listen: [{{address: '127.0.0.1:81', outbound: true, {key}}}]\n" + config())
    assert (problem.line, problem.column) == (1, 52)
    assert f"remove `{key.partition(':')[0]}` or `outbound`" in problem.message


# -- secrets and issuers -----------------------------------------------------------------------------------------------


def test_keys_and_issuers_reach_the_snapshot(tmp_path: Path) -> None:
    keys = jwk_set(public_jwk(RSA), public_jwk(P256), public_jwk(ED25519))
    (tmp_path / "keys.json").write_text(keys)
    path = tmp_path / "router.yaml"
    path.write_text(
        "signing_keys: [{id: new, secret: '${NEW}'}, {id: old, secret: 0123456789abcdef}]\n"
        "tokens:\n"
        "  file: {algorithms: [RS256, ES256, EdDSA], keys_file: keys.json, issuer: i, audience: a,\n"
        "         cookie: t, leeway: 0}\n"
        "  url: {algorithms: [PS384], jwks_url: https://id.example.com/keys, header: X-Token, refresh: 1m}\n"
        "  text: {algorithms: [HS256], secret: '${NEW}'}\n" + config(top="")
    )
    settings = load_settings(path, {"NEW": SECRET})
    trust = snapshot_spec(settings, {}, 1, key_sets={"url": "{}"}).trust
    assert trust.keys == (KeySpec("new", SECRET), KeySpec("old", "0123456789abcdef"))
    assert trust.issuers == (
        IssuerSpec("file", ("RS256", "ES256", "EdDSA"), keys, "", "i", "a", "Authorization", "t", 0.0),
        IssuerSpec("url", ("PS384",), "{}", header="X-Token"),
        IssuerSpec("text", ("HS256",), secret=SECRET),
    )
    assert snapshot_spec(settings, {}, 1).trust.issuers[1].keys == ""
    assert settings.tokens["url"].refresh == 60.0
    assert str(tmp_path / "keys.json") in settings.files.seen


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("signing_keys: [{id: a, secret: short}]", "at least 16 bytes: make one with `openssl rand -base64 48`"),
        ("signing_keys: [{id: a b, secret: 0123456789abcdef}]", "is not the id of a key"),
        ("signing_keys: [{id: a.b, secret: 0123456789abcdef}]", "letters, digits, - and _"),
        ("signing_keys: [{secret: 0123456789abcdef}]", "`id` is missing"),
        ("signing_keys: [{id: a}]", "`secret` is missing"),
        ("signing_keys: [{id: a, secret: 0123456789abcdef}, {id: a, secret: 0123456789abcdeg}]", "a key 'a' already"),
        ("signing_keys: [{id: a, secrt: 0123456789abcdef}]", "did you mean 'secret'"),
        ("signing_keys: {a: b}", "list"),
        ("tokens: {m: {algorithms: [none], secret: 0123456789abcdef}}", "nobody has signed"),
        ("tokens: {m: {algorithms: [NONE], secret: 0123456789abcdef}}", "nobody has signed"),
        ("tokens: {m: {algorithms: [hs256], secret: 0123456789abcdef}}", "write HS256"),
        ("tokens: {m: {algorithms: [MD5], secret: 0123456789abcdef}}", "there is HS256, HS384"),
        ("tokens: {m: {algorithms: [], secret: 0123456789abcdef}}", "must not be empty"),
        ("tokens: {m: {secret: 0123456789abcdef}}", "`algorithms` is missing"),
        ("tokens: {m: {algorithms: [HS256]}}", "exactly one of jwks_url, keys_file, secret"),
        ("tokens: {m: {algorithms: [HS256], secret: 0123456789abcdef}}", "at least 32 bytes"),
        ("tokens: {m: {algorithms: [HS512], secret: 0123456789abcdef0123456789abcdef}}", "at least 64 bytes"),
        ("tokens: {m: {algorithms: [HS256, RS256], jwks_url: https://a.b/c}}", "whoever reads the keys could sign"),
        ("tokens: {m: {algorithms: [HS256], keys_file: k}}", "whoever reads the keys could sign"),
        ("tokens: {m: {algorithms: [RS256], secret: 0123456789abcdef}}", "verified with a public key"),
        ("tokens: {m: {algorithms: [RS256], jwks_url: http://a.b/c}}", "use https://"),
        ("tokens: {m: {algorithms: [RS256], jwks_url: 'https://u:p@a.b/c'}}", "neither user nor password"),
        ("tokens: {m: {algorithms: [RS256], jwks_url: keys}}", "is a URL such as https://"),
        ("tokens: {m: {algorithms: [RS256], keys_file: nowhere}}", "cannot read nowhere"),
        ("tokens: {m: {algorithms: [RS256], jwks_url: https://a.b/c, header: Cookie}}", "use `cookie:`"),
        ("tokens: {m: {algorithms: [RS256], jwks_url: https://a.b/c, isuer: x}}", "did you mean 'issuer'"),
        ("mode: side", "edge or sidecar"),
        ("baggage: yes", "true or false"),
    ],
)  # fmt: skip
def test_a_bad_key_or_issuer_is_one_problem_on_its_line(line: str, says: str) -> None:
    problem = only(f"# a comment\n{line}\n" + config(top=""))
    assert problem.line == 2
    assert says in problem.render()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("-----BEGIN PUBLIC KEY-----", "holds no JWK set"),
        ("[]", "holds no JWK set"),
        ('{"keys": []}', "holds no key"),
        ('{"keys": [{"kty": "oct", "k": "x"}]}', "write `secret:"),
        ('{"keys": [{"kty": "RSA", "n": "x", "e": "AQAB", "d": "x"}]}', "a private key"),
    ],
)
def test_what_is_no_set_of_public_keys_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "keys").write_text(content)
    path = tmp_path / "router.yaml"
    path.write_text("tokens: {m: {algorithms: [RS256], keys_file: keys}}\n" + config(top=""))
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    (problem,) = caught.value.problems
    assert (problem.line, says in problem.message) == (1, True)


# Each has something else wrong with it, on or beside the line of a secret.
LEAKS = [
    "signing_keys: [{id: 'a b', secret: %}]",
    "signing_keys: [{id: a, secrt: %}]",
    "signing_keys: [%]",
    "signing_keys:\n  - id: a\n    secret: >\n      %\n    nonsense: 1",
    "signing_keys: [{id: a, secret: %}, {id: a, secret: %}]",
    "signing_keys: [{id: a, secret: '%', colour: red}]",
    "signing_keys: [{id: a, secret: %}",
    'signing_keys: [{id: a, "secret": "%"}]]',
    "tokens: {m: {algorithms: [none], secret: %}}",
    "tokens: {m: {algorithms: [RS256], secret: %}}",
    "tokens: {m: {algorithms: [HS256], secret: %, isuer: x}}",
    "tokens: {m: {algorithms: [HS256], secret: &s %, cookie: 'a b'}}",
]


@pytest.mark.parametrize("lines", LEAKS)
def test_no_complaint_shows_a_secret(tmp_path: Path, lines: str) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(lines.replace("%", SECRET) + "\n" + config(top=""))
    for words in ((), ("-o", "json")):
        done = CliRunner().invoke(main, ["check", "-c", str(path), *words])
        assert done.exit_code == 2
        assert "router.yaml" in done.output
        assert SECRET not in done.output


def test_a_number_for_a_secret_is_not_repeated_either() -> None:
    problem = only("signing_keys: [{id: a, secret: 12345678901234567}]\n" + config(top=""))
    assert "put it in quotes" in problem.message
    assert "12345678901234567" not in problem.render()


def test_neither_reprs_nor_check_show_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "router.yaml"
    top = f"signing_keys: [{{id: a, secret: {SECRET}}}]\ntokens: {{m: {{algorithms: [HS512], secret: {SECRET}}}}}\n"
    path.write_text(config(top=top))
    settings = load_settings(path, {})
    spec = snapshot_spec(settings, {}, 1)
    assert spec.trust.keys[0].secret == spec.trust.issuers[0].secret == SECRET
    for shown in (repr(settings), str(settings), repr(spec), repr(settings.signing_keys), repr(settings.tokens)):
        assert SECRET not in shown
    for words in ((), ("-o", "json")):
        done = CliRunner().invoke(main, ["check", "-c", str(path), *words])
        assert (done.exit_code, SECRET in done.output) == (0, False)


def test_lines_that_hold_no_secret_are_still_shown() -> None:
    text = f"signing_keys:\n  - id: a\n    secret: {SECRET}\nlisten: nope\n" + config(top="")
    assert "listen: nope" in only(text).render()


def test_the_schema_takes_what_the_config_takes() -> None:
    schema = json.loads(CliRunner().invoke(main, ["schema"]).stdout)
    parts = schema["$defs"]
    assert "not" in parts["Entry"]["properties"]
    assert {"type": "string"} in parts["Identity"]["properties"]["client"]["anyOf"]
    assert {"type": "string"} in parts["Identity"]["properties"]["anonymous_cookie"]["anyOf"]
    assert {"type": "string"} in parts["Entry"]["properties"]["client"]["anyOf"]
    assert {"enum": ["keep", "close"]} in parts["Ring"]["properties"]["on_change"]["anyOf"]
    assert set(parts["TimeWindow"]["properties"]) == {"from", "until"}
