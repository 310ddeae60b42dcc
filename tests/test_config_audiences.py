"""Identities, audiences, trust and guard rails in the config: what each key becomes, and what is said of a bad one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from router.cli.main import main
from router.config.compile import snapshot_spec
from router.config.files import FEW_KEYS, LARGE_FILE, list_files, look_at
from router.config.load import ConfigError, Problem, load_settings, parse_settings
from router.core.audience import ConditionSpec, CookieSpec, IdentitySpec, IssuerSpec, KeySpec
from router.core.snapshot import Snapshot
from router.core.spec import GuardSpec, ListenerSpec, ServiceSpec
from tests.certificates import Authority
from tests.tokens import ED25519, P256, RSA, jwk_set, public_jwk

REPOSITORY = Path(__file__).parent.parent
SECRET = "a-secret-that-nobody-may-see-anywhere-in-this-world-0123456789abc"

TOP = """\
trusted_proxies: [10.0.0.0/8]
signing_keys: [{id: a, secret: 0123456789abcdef}]
"""
SHOP = """\
services:
  shop:
    IDENTITY
    versions:
      v1: {endpoints: [http://127.0.0.1:9001]}
    rings:
      - RING
      - {name: everyone, version: v1}
"""
RING = "{name: canary, version: v1}"
TOKENS = "tokens: {main: {algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef}}\n"


def config(*, top: str = TOP, service: str = "salt: x", ring: str = RING) -> str:
    return top + SHOP.replace("IDENTITY", service).replace("RING", ring)


def parse(text: str) -> ServiceSpec:
    spec = snapshot_spec(parse_settings(text, "f.yaml", {}), {}, 1)
    Snapshot(spec)  # whatever the config lets through compiles
    return spec.services[0]


def listener(text: str) -> ListenerSpec:
    return snapshot_spec(parse_settings(text, "f.yaml", {}), {}, 1).listener


def identity(source: str, top: str = TOP) -> IdentitySpec:
    (one,) = parse(config(top=top, service=f"identity: [{source}]")).identity
    return one


def rule(entry: str, top: str = TOP + TOKENS) -> ConditionSpec:
    (one,) = parse(config(top=top, ring=f"{{name: canary, version: v1, audience: [{entry}]}}")).rings[0].rules
    return one


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, "f.yaml", {})
    return caught.value.problems


def only(text: str) -> Problem:
    (problem,) = problems(text)
    return problem


# -- who asks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "spec"),
    [
        ("header: X-User-Id", IdentitySpec("header", "X-User-Id")),
        ("{header: X-User-Id, trusted: true}", IdentitySpec("header", "X-User-Id", True)),
        ("{cookie: uid, trusted: false}", IdentitySpec("cookie", "uid")),
        ("query: user", IdentitySpec("query", "user")),
        ("client: address", IdentitySpec("client", "")),
        ("client: {ipv4: 24, ipv6: 56}", IdentitySpec("client", "", prefix4=24, prefix6=56)),
        ("client: {ipv6: 128}", IdentitySpec("client", "", prefix6=128)),
        ("{client: address, trusted: true}", IdentitySpec("client", "", True)),
        ("anonymous_cookie: r", IdentitySpec("anonymous_cookie", "r")),
        ("anonymous_cookie: {name: r}", IdentitySpec("anonymous_cookie", "r")),
        (
            "anonymous_cookie: {name: __Host-r, max_age: 30d, secure: always, http_only: false, same_site: None, "
            "partitioned: true, signed: true}",
            IdentitySpec(
                "anonymous_cookie",
                "__Host-r",
                cookie=CookieSpec(30 * 86_400, "always", False, "None", "", "/", True, True),
            ),
        ),
        (
            "anonymous_cookie: {name: r, domain: Example.com, path: /shop, max_age: 60, secure: never}",
            IdentitySpec(
                "anonymous_cookie", "r", cookie=CookieSpec(60, "never", domain="example.com", path="/shop")
            ),
        ),
    ],
)  # fmt: skip
def test_an_identity_source_is_what_it_says(source: str, spec: IdentitySpec) -> None:
    assert identity(source) == spec


def test_a_claim_is_a_source_where_an_issuer_is_believed() -> None:
    assert identity("claim: realm.sub", TOP + TOKENS) == IdentitySpec("claim", "realm.sub")


def test_a_certificate_is_a_source_where_a_listener_asks_for_one(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "clients")
    signed = authority.sign("shop.example.com", file="shop")
    files = f"certificates: [{{certificate: {signed.certificate}, key: {signed.key}}}], client_ca: {authority.ca}"
    top = f"listen: [{{address: '127.0.0.1:0', tls: {{client_certificate: optional, {files}}}}}]\n"
    assert identity("certificate: email", top) == IdentitySpec("certificate", "email")
    wrong = [problem.message for problem in problems(config(top=top, service="identity: [{certificate: serial}]"))]
    assert wrong == ["`certificate` must be subject, cn, dns, email or uri"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{header: X, query: y}", "exactly one of header, cookie, query, claim, certificate, client, anonymous_cookie"),
        ("{trusted: true}", "it has none"),
        ("{query: 'a b'}", "query parameter"),
        ("{query: 'a=b'}", "query parameter"),
        ("{certificate: cn}", "no listener asks clients for a certificate: add"),
        ("{claim: sub}", "say under `tokens:` whose are believed"),
        ("{client: adress}", "did you mean 'address'"),
        ("{client: ip}", "{ipv4: 24, ipv6: 56}"),
        ("{client: {ipv4: 33}}", "32"),
        ("{client: {ipv4: 0}}", "8"),
        ("{client: {ip4: 24}}", "did you mean 'ipv4'"),
        ("{client: 24}", "mapping"),
        ("{header: X, trusted: yes}", "true or false"),
        ("{header: X, trsted: true}", "did you mean 'trusted'"),
        ("{anonymous_cookie: r, trusted: true}", "remove `trusted`"),
        ("{anonymous_cookie: 'a b'}", "cookie name"),
        ("{anonymous_cookie: {max_age: 5}}", "`name` is missing"),
        ("{anonymous_cookie: {name: r, max_age: 401d}}", "at most 400d"),
        ("{anonymous_cookie: {name: r, max_age: 0}}", "at least a second"),
        ("{anonymous_cookie: {name: r, max_age: soon}}", "12h or 365d"),
        ("{anonymous_cookie: {name: r, max_age: 1.5}}", "whole number"),
        ("{anonymous_cookie: {name: r, secure: true}}", "auto, always or never"),
        ("{anonymous_cookie: {name: r, same_site: lax}}", "Lax, Strict or None"),
        ("{anonymous_cookie: {name: r, same_site: None}}", "add `secure: always`"),
        ("{anonymous_cookie: {name: r, partitioned: true, secure: never}}", "add `secure: always`"),
        ("{anonymous_cookie: __Secure-r}", "add `secure: always`"),
        ("{anonymous_cookie: __host-r}", "add `secure: always`"),
        ("{anonymous_cookie: {name: __Host-r, secure: always, domain: a.b}}", "remove `domain`"),
        ("{anonymous_cookie: {name: __Host-r, secure: always, path: /a}}", "remove `path`"),
        ("{anonymous_cookie: {name: r, domain: .example.com}}", "without the dot in front: example.com"),
        ("{anonymous_cookie: {name: r, domain: localhost}}", "a name with a dot"),
        ("{anonymous_cookie: {name: r, domain: 10.0.0.1}}", "a name with a dot"),
        ("{anonymous_cookie: {name: r, path: shop}}", "begins with a slash"),
        ("{anonymous_cookie: {name: r, path: '/a;b'}}", "no semicolon"),
        ("{anonymous_cookie: {name: r, httponly: true}}", "did you mean 'http_only'"),
    ],
)  # fmt: skip
def test_a_bad_source_is_one_problem_at_its_place(source: str, says: str) -> None:
    problem = only(config(service=f"identity: [{source}]"))
    assert (problem.line, problem.column > 15) == (5, True)
    assert says in problem.render()


def test_what_counts_for_trusted_peers_alone_needs_some() -> None:
    top = "signing_keys: [{id: a, secret: 0123456789abcdef}]\n"
    problem = only(config(top=top, service="identity: [{header: X, trusted: true}]"))
    assert (problem.line, problem.column) == (4, 28)
    assert "`trusted: true` means the peers in `trusted_proxies`, and there are none" in problem.message
    assert "`override: trusted`" in only(config(top=top, service="override: trusted")).message
    assert parse(config(top=top, service="override: insecure")).override == "insecure"


def test_a_signed_cookie_needs_a_key_and_passes_do_without() -> None:
    problem = only(config(top="", service="identity: [{anonymous_cookie: {name: r, signed: true}}]"))
    assert (problem.line, problem.column) == (3, 45)
    assert "add `signing_keys:`" in problem.message
    assert parse(config(top="", service="override: passes")).override == "passes"


# -- audiences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "spec"),
    [
        ("query: {name: a, present: true}", ConditionSpec("query", "a")),
        ("path: {prefix: /beta}", ConditionSpec("path", "", "prefix", ("/beta",))),
        ("path: {glob: '*/beta', inverted: true}", ConditionSpec("path", "", "glob", ("*/beta",), True)),
        ("method: {one_of: [GET, HEAD]}", ConditionSpec("method", "", "one_of", ("GET", "HEAD"))),
        ("host: {suffix: .example.com}", ConditionSpec("host", "", "suffix", (".example.com",))),
        ("client: 10.0.0.0/8", ConditionSpec("client", "", "within", ("10.0.0.0/8",))),
        ("client: [192.0.2.7, '2001:db8::/32']",
         ConditionSpec("client", "", "within", ("192.0.2.7/32", "2001:db8::/32"))),
        ("claim: {name: realm.roles, contains: test}", ConditionSpec("claim", "realm.roles", "contains", ("test",))),
        ("user: {suffix: '@example.com'}", ConditionSpec("user", "", "suffix", ("@example.com",))),
        ("user: {present: true}", ConditionSpec("user")),
        ("header: {name: A, regex: '^a+$'}", ConditionSpec("header", "A", "regex", ("^a+$",))),
        ("header: {name: A, semver: '>= 5.2, <6'}", ConditionSpec("header", "A", "semver", (">=5.2", "<6"))),
        ("header: {name: A, semver: '5.2'}", ConditionSpec("header", "A", "semver", ("5.2",))),
        ("time: {from: 2026-12-01T09:00:00+01:00}",
         ConditionSpec("time", "", "within", ("2026-12-01T09:00:00+01:00", ""))),
        ("time: {from: 2026-12-01T09:00Z, until: 2026-12-02T09:00Z}",
         ConditionSpec("time", "", "within", ("2026-12-01T09:00Z", "2026-12-02T09:00Z"))),
        ("not: {user: {equals: a}}", ConditionSpec("user", "", "equals", ("a",), True)),
        ("not: {user: {equals: a, inverted: true}}", ConditionSpec("user", "", "equals", ("a",))),
        ("not: {user: {equals: a}, percent: 10}",
         ConditionSpec("all_of", inverted=True, children=(
             ConditionSpec("all_of", children=(ConditionSpec("user", "", "equals", ("a",)),), share=1000),))),
        ("{path: {prefix: /a}, percent: 0.5}",
         ConditionSpec("all_of", children=(ConditionSpec("path", "", "prefix", ("/a",)),), share=50)),
        ("{path: {prefix: /a}, percent: 100}", ConditionSpec("path", "", "prefix", ("/a",))),
        ("{method: {equals: GET}, any_of: [{query: {name: a, equals: x}}, {client: 10.0.0.0/8}]}",
         ConditionSpec("all_of", children=(
             ConditionSpec("method", "", "equals", ("GET",)),
             ConditionSpec("any_of", children=(
                 ConditionSpec("query", "a", "equals", ("x",)),
                 ConditionSpec("client", "", "within", ("10.0.0.0/8",)),
             )),
         ))),
    ],
)  # fmt: skip
def test_an_entry_becomes_the_condition_it_describes(entry: str, spec: ConditionSpec) -> None:
    assert rule(entry if entry.startswith("{") else f"{{{entry}}}") == spec


@pytest.mark.parametrize("key", ["audience", "deny"])
@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{}", "one or more of header, cookie, query, path, method, host, client, claim, user, time, all_of, any_of"),
        ("{percent: 5}", "use the ring's `weight`"),
        ("{user: {equals: a}, percent: 0}", "greater than 0"),
        ("{user: {equals: a}, percent: 5%}", "plain number: 5"),
        ("{usr: {equals: a}}", "did you mean 'user'"),
        ("{query: {equals: a}}", "`name` is missing"),
        ("{query: {name: 'a&b', equals: a}}", "query parameter"),
        ("{user: {}}", "exactly one of"),
        ("{user: {equals: a, in_file: b}}", "equals and in_file"),
        ("{header: {name: A, in_file: b}}", "unknown key `in_file`"),
        ("{path: {prefix: beta}}", "begins with a slash: /beta"),
        ("{path: {equals: '/a?b=c'}}", "use `query:`"),
        ("{path: {present: true}}", "every request has one"),
        ("{method: {equals: get}}", "written in capitals: GET"),
        ("{host: {equals: A.example.com}}", "write a.example.com"),
        ("{host: {equals: 'a.example.com:80'}}", "without scheme, port and path"),
        ("{client: nobody}", "CIDR such as 10.0.0.0/8"),
        ("{client: [10.0.0.1/8]}", "written 10.0.0.0/8"),
        ("{client: []}", "must not be empty"),
        ("{header: {name: A, regex: '(a'}}", "is no regular expression that re2 knows"),
        ("{header: {name: A, regex: '(?=a)'}}", "neither look-around"),
        ("{header: {name: A, semver: latest}}", "'latest' is no requirement on a version"),
        ("{header: {name: A, semver: '>=5 <'}}", "'<' is no requirement"),
        ("{header: {name: A, semver: 5.2}}", 'quotes, "5.2"'),
        ("{time: {}}", "`from`, `until`, or both"),
        ("{time: {from: tomorrow}}", "RFC 3339"),
        ("{time: {from: 2026-12-01}}", "RFC 3339"),
        ("{time: {from: 2026-12-01T09:00}}", "time zone: write 2026-12-01T09:00Z"),
        ("{time: {from: 2026-12-02T00:00Z, until: 2026-12-01T00:00Z}}", "over before it begins"),
        ("{time: {form: 2026-12-01T09:00Z}}", "did you mean 'from'"),
        ("{claim: {name: a, equals: b}}", "say under `tokens:` whose are believed"),
        ("{not: {claim: {name: a, equals: b}}}", "say under `tokens:`"),
        ("{any_of: [{all_of: [{claim: {name: a, equals: b}}]}]}", "say under `tokens:`"),
        ("{not: [{user: {equals: a}}]}", "mapping"),
        ("{not: {}}", "one or more of"),
        ("{user: {in_file: nowhere.txt}}", "cannot read nowhere.txt: No such file"),
    ],
)  # fmt: skip
def test_a_bad_entry_is_one_problem_at_its_place(key: str, entry: str, says: str) -> None:
    problem = only(config(ring=f"{{name: canary, version: v1, {key}: [{entry}]}}"))
    assert (problem.line, problem.column > 30) == (9, True)
    assert says in problem.render()


def test_a_deny_list_takes_the_same_entries() -> None:
    ring = parse(config(ring="{name: canary, version: v1, deny: [{user: {equals: a}}, {client: 10.0.0.0/8}]}")).rings[0]
    assert ring.denied == (
        ConditionSpec("user", "", "equals", ("a",)), ConditionSpec("client", "", "within", ("10.0.0.0/8",)),
    )  # fmt: skip
    assert ring.rules == ()


def without(library: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of ours in a Python that has no such library."""
    program = f"import sys; sys.modules[{library!r}] = None; from router.cli.entry import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def test_without_its_library_an_extra_is_named(tmp_path: Path) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(config(ring="{name: canary, version: v1, audience: [{user: {regex: a}}]}"))
    done = without("re2", "check", "-c", str(path))
    assert (done.returncode, "pip install 'ring-router[re2]'" in done.stderr) == (2, True)
    assert f"{path}:9:" in done.stderr
    path.write_text(config(top=TOP + TOKENS))
    done = without("jwt", "check", "-c", str(path))
    assert (done.returncode, "pip install 'ring-router[jwt]'" in done.stderr) == (2, True)
    assert f"{path}:3:1:" in done.stderr
    path.write_text(config())
    assert without("re2", "check", "-c", str(path)).returncode == 0


# -- files of keys -----------------------------------------------------------------------------------------------------

LISTED = "{name: canary, version: v1, audience: [{user: {in_file: users.txt}}], deny: [{not: {user: {in_file: no}}}]}"


def listed(tmp_path: Path, users: bytes, others: bytes = b"x\n") -> Path:
    (tmp_path / "users.txt").write_bytes(users)
    (tmp_path / "no").write_bytes(others)
    path = tmp_path / "router.yaml"
    path.write_text(config(ring=LISTED))
    return path


def test_a_short_file_of_keys_stands_in_the_rule_until_a_table_is_made_of_it(tmp_path: Path) -> None:
    settings = load_settings(listed(tmp_path, b"\xef\xbb\xbf# ours\nalice\r\n\n  bob \n#carol\n"), {})
    canary = snapshot_spec(settings, {}, 1).services[0].rings[0]
    assert canary.rules == (ConditionSpec("user", "", "one_of", ("alice", "bob")),)
    assert canary.denied == (ConditionSpec("user", "", "one_of", ("x",), True),)
    users = str(tmp_path / "users.txt")
    assert set(list_files(settings)) == {users, str(tmp_path / "no")}
    canary = snapshot_spec(settings, {}, 1, lists={users: "/run/users.table"}).services[0].rings[0]
    assert canary.rules == (ConditionSpec("user", "", "listed", ("/run/users.table",)),)
    assert canary.denied == (ConditionSpec("user", "", "one_of", ("x",), True),)


def test_a_long_file_has_nobody_until_its_table_is_there(tmp_path: Path) -> None:
    few, many = ("".join(f"user-{n}\n" for n in range(count)).encode() for count in (FEW_KEYS, FEW_KEYS + 1))
    settings = load_settings(listed(tmp_path, many, few), {})
    canary = snapshot_spec(settings, {}, 1).services[0].rings[0]
    assert canary.rules == (ConditionSpec("user", "", "one_of", ()),)
    assert len(canary.denied[0].values) == FEW_KEYS


def test_a_file_of_keys_is_watched_like_the_config(tmp_path: Path) -> None:
    settings = load_settings(listed(tmp_path, b"alice\n"), {})
    seen = settings.files.seen
    assert look_at(seen) == seen
    before = list_files(settings)
    (tmp_path / "users.txt").write_bytes(b"bob\n")
    assert look_at(seen) != seen
    users = str(tmp_path / "users.txt")
    assert list_files(load_settings(tmp_path / "router.yaml", {}))[users] != before[users]


def test_a_large_file_is_seen_to_be_another_one_without_being_read(tmp_path: Path) -> None:
    keys = b"".join(b"user-%d\n" % number for number in range(150_000))
    assert len(keys) > LARGE_FILE
    settings = load_settings(listed(tmp_path, keys), {})
    seen = settings.files.seen
    assert look_at(seen) == seen
    other = tmp_path / "other"
    other.write_bytes(keys.replace(b"user-1\n", b"user-x\n"))
    other.rename(tmp_path / "users.txt")
    assert look_at(seen) != seen


@pytest.mark.parametrize(("content", "says"), [(b"a\n\xff\n", "not UTF-8 (key 2)"), (b"a" * 9000, "one key a line")])
def test_what_is_no_file_of_keys_is_refused_with_its_place(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(listed(tmp_path, content), {})
    (problem,) = caught.value.problems
    assert (problem.line, says in problem.message) == (9, True)


def test_tables_of_members_come_in_by_service_and_ring() -> None:
    settings = parse_settings(config(), "f.yaml", {})
    rings = snapshot_spec(settings, {}, 1, tables={("shop", "canary"): "/run/t", ("shop", "x"): "/u"}).services[0].rings
    assert [ring.tables for ring in rings] == [("/run/t",), ()]


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
