"""Identities and audiences in the config: what each key becomes, and what is said of a bad one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from router.config.compile import snapshot_spec
from router.config.files import FEW_KEYS, LARGE_FILE, list_files, look_at
from router.config.load import ConfigError, load_settings, parse_settings
from router.core.audience import ConditionSpec, CookieSpec, IdentitySpec
from tests.certificates import Authority
from tests.config_texts import (
    REPOSITORY,
    TOKENS,
    TOP,
    config,
    identity,
    only,
    parse,
    problems,
    rule,
)

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
    path.write_text(config(top="tracing: {endpoint: http://127.0.0.1:4318}\n"))
    for word in ("check", "run"):
        done = without("opentelemetry", word, "-c", str(path))
        assert (done.returncode, "pip install 'ring-router[otel]'" in done.stderr) == (2, True)
        assert f"{path}:1:1:" in done.stderr
    path.write_text(config())
    assert without("re2", "check", "-c", str(path)).returncode == 0
    assert without("opentelemetry", "check", "-c", str(path)).returncode == 0


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
