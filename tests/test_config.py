"""From text to settings to a snapshot: every problem at once, and what the values mean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from router.config.compile import LiveConflict, service_names, snapshot_spec
from router.config.load import ConfigError, Problem, load_settings, parse_settings
from router.config.settings import Settings, json_schema
from router.config.values import parse_duration, parse_percent
from router.core.audience import ConditionSpec, IdentitySpec
from router.core.live import Live
from router.core.records import JSON_LOG, NO_LOG, AccessLogSpec, TracingSpec
from router.core.spec import EndpointSpec, ListenerSpec, SocketSpec, TimeoutsSpec

REPOSITORY = Path(__file__).parent.parent

SHOP = """\
services:
  shop:
    versions:
      v1: {endpoints: [http://127.0.0.1:9001]}
      v2: {endpoints: [http://127.0.0.1:9002]}
    rings:
      - {name: canary, version: v2, weight: 1}
      - {name: early, version: v2, weight: 10}
      - {name: everyone, version: v1}
"""


def problems(text: str, **env: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, "f.yaml", env)
    return caught.value.problems


def only(text: str, **env: str) -> Problem:
    (problem,) = problems(text, **env)
    return problem


def parse(text: str, **env: str) -> Settings:
    return parse_settings(text, "f.yaml", env)


def with_ring(keys: str) -> str:
    """The shop with a canary ring that has other keys."""
    return SHOP.replace("{name: canary, version: v2, weight: 1}", keys)


def with_service(keys: str) -> str:
    return SHOP.replace("    versions:", f"    {keys}\n    versions:")


def test_defaults_are_those_of_the_contract() -> None:
    settings = parse(SHOP)
    (listener,) = settings.listen
    assert (listener.address.host, listener.address.port, str(listener.address)) == ("0.0.0.0", 8080, "0.0.0.0:8080")  # noqa: S104
    assert str(settings.admin.listen) == "127.0.0.1:9900"
    assert (settings.workers, settings.state_dir, settings.access_log.format) == (
        "auto",
        "/var/lib/ring-router",
        "json",
    )
    assert (settings.redis, settings.instance, settings.trusted_proxies) == (None, None, ())
    spec = snapshot_spec(settings, {}, 7)
    listener_spec = ListenerSpec(sockets=(SocketSpec("0.0.0.0:8080"),))
    assert (spec.generation, spec.listener, spec.access_log) == (7, listener_spec, JSON_LOG)
    assert spec.services[0].timeouts == TimeoutsSpec()
    assert spec.services[0].response_headers is True


@pytest.mark.parametrize("path", sorted((REPOSITORY / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_config_is_valid(path: Path) -> None:
    settings = load_settings(path, {})
    assert snapshot_spec(settings, {}, 1).services


def test_the_example_config_shows_every_key() -> None:
    text = (REPOSITORY / "config" / "router.yaml").read_text()
    schema = json_schema()
    keys = set(schema["properties"]) | {key for part in schema["$defs"].values() for key in part["properties"]}
    assert {key for key in keys if f"{key}:" not in text} == set()


def test_a_rich_config_becomes_the_snapshot_it_describes() -> None:
    text = with_ring(
        "{name: canary, version: v2, weight: 0.29, members: ['42'], audience: ["
        "{header: {name: X-Ring, one_of: [a, b], inverted: true}, cookie: {name: beta, present: true}},"
        "{any_of: [{header: {name: A, prefix: x}}, {all_of: [{cookie: {name: b, suffix: y}}]}]}]}"
    )
    text = text.replace("    versions:", "    hosts: [Shop.Example.com, '*.a.b']\n    paths: [/api/]\n    salt: s\n"
                        "    identity: [{header: X-User-Id}, {cookie: uid}, {anonymous_cookie: r}]\n"
                        "    timeouts: {connect: 500ms, first_byte: 2m}\n    response_headers: false\n"
                        "    versions:")  # fmt: skip
    spec = snapshot_spec(parse(text), {}, 1).services[0]
    assert (spec.hosts, spec.paths, spec.salt) == (("shop.example.com", "*.a.b"), ("/api/",), "s")
    assert spec.identity == (
        IdentitySpec("header", "X-User-Id"), IdentitySpec("cookie", "uid"), IdentitySpec("anonymous_cookie", "r"),
    )  # fmt: skip
    assert spec.versions[0].endpoints == (EndpointSpec("127.0.0.1", 9001),)
    assert [ring.basis_points for ring in spec.rings] == [29, 1000, 8971]
    assert spec.rings[0].members == ("42",)
    assert spec.rings[0].rules == (
        ConditionSpec("all_of", children=(
            ConditionSpec("header", "X-Ring", "one_of", ("a", "b"), True), ConditionSpec("cookie", "beta"),
        )),
        ConditionSpec("any_of", children=(
            ConditionSpec("header", "A", "prefix", ("x",)),
            ConditionSpec("all_of", children=(ConditionSpec("cookie", "b", "suffix", ("y",)),)),
        )),
    )  # fmt: skip
    assert spec.timeouts == TimeoutsSpec(0.5, 120.0, 60.0)
    assert spec.response_headers is False


def test_live_values_are_folded_over_the_config() -> None:
    live = Live(weights={"canary": 500, "gone": 9000}, versions={"everyone": "v2"}, killed=("early", "gone"))
    spec = snapshot_spec(parse(SHOP), {"shop": live}, 2).services[0]
    assert [(r.name, r.version, r.basis_points) for r in spec.rings] == [
        ("canary", "v2", 500), ("early", "v2", 1000), ("everyone", "v2", 8500),
    ]  # fmt: skip
    assert spec.killed == ("early",)
    assert service_names(parse(SHOP)) == ("shop",)


@pytest.mark.parametrize("live", [Live(weights={"canary": 9500}), Live(versions={"canary": "v9"})])
def test_live_values_that_do_not_fit_are_refused_as_a_whole(live: Live) -> None:
    with pytest.raises(LiveConflict):
        snapshot_spec(parse(SHOP), {"shop": live}, 2)


@pytest.mark.parametrize(
    ("value", "basis_points"), [(0, 0), (5, 500), (100, 10_000), (0.01, 1), (0.29, 29), (33.33, 3333), (1.1, 110)]
)
def test_a_percent_is_whole_basis_points(value: float, basis_points: int) -> None:
    assert parse_percent(value) == basis_points


@pytest.mark.parametrize("value", [True, "5", "5%", None, -1, 100.01, 0.001, float("nan"), float("inf"), [5]])
def test_what_is_no_percent_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"percent|decimals"):
        parse_percent(value)


@pytest.mark.parametrize(("value", "seconds"), [(1, 1.0), (0.5, 0.5), ("500ms", 0.5), ("10s", 10.0), ("1.5m", 90.0)])
def test_a_duration_is_seconds(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize("value", [0, -1, True, "10", "10x", "s", None, float("nan"), float("inf"), 1e9])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("listen: 8080", "0.0.0.0:8080"),
        ("listen: ':8080'", "host:port"),
        ("listen: '::1:8080'", "brackets"),
        ("listen: a:99999", "65535"),
        ("admin: {listen: nope}", "host:port"),
        ("admin: {}\nadmin: {}", "twice"),
        ("admin:", "empty"),
        ("workers: 0", "1 to 256"),
        ("workers: true", "1 to 256"),
        ("state_dir: ''", "must not be empty"),
        ("access_log: {format: jsn}", "json, combined, ecs or off"),
        ("access_log: jsn", "json, combined, ecs or off"),
        ("access_log: {path: access.log}", "/var/log"),
        ("access_log: {sample: {2xx: 1.5}}", "less than or equal to 1"),
        ("access_log: {sample: {200: 1}}", "2xx"),
        ("access_log: {identity: hashed}", "signing_keys"),
        ("tracing: {sample: 1}", "`endpoint` is missing"),
        ("tracing: {endpoint: collector:4318}", "http://127.0.0.1:4318"),
        ("tracing: {endpoint: http://a/v1/traces}", "leave /v1/traces out"),
        ("tracing: {endpoint: http://a, sample: -1}", "greater than or equal to 0"),
        ("redis: http://x", "redis://"),
        ("redis: redis://h:99999", "port"),
        ("redis: 'unix://'", "socket"),
        ("instance: a b", "cannot be a name"),
        ("trusted_proxies: 10.0.0.0/8", "list"),
        ("trusted_proxies: [10.0.0.1/8]", "10.0.0.0/8"),
        ("trusted_proxies: [nope]", "CIDR"),
        ("timeouts: {head: 10 parsecs}", "500ms"),
        ("timeouts: {haed: 1}", "did you mean 'head'"),
        ("lsten: a:1", "did you mean 'listen'"),
        ("colour: blue", "the keys here are"),
    ],
)
def test_a_wrong_top_level_key_is_one_problem_on_its_own_line(line: str, says: str) -> None:
    problem = only(f"# a comment\n{line}\n{SHOP}")
    assert problem.line == 1 + len(line.splitlines())
    assert says in problem.render()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("hosts: [http://a]", "without scheme"),
        ("hosts: ['a:80']", "without its port"),
        ("hosts: ['a.*']", "wildcard"),
        ("paths: [api]", "/api"),
        ("paths: ['/api/*']", "prefix"),
        ("hosts: [a, A]", "twice"),
        ("salt: 5", 'quotes, "5"'),
        ("identity: [{header: X, cookie: y}]", "exactly one"),
        ("identity: [{}]", "exactly one"),
        ("identity: [{header: 'X Y'}]", "header name"),
        ("identity: [{header: Cookie}]", "use `cookie:`"),
        ("identity: [{cookie: 'a;b'}]", "cookie name"),
        ("identity: [{anonymous_cookie: a}, {anonymous_cookie: b}]", "only one anonymous_cookie"),
        ("response_headers: on", "true or false"),
        ("timeouts: {connect: 0}", "more than 0"),
        ("ringz: []", "did you mean 'rings'"),
    ],
)
def test_a_wrong_service_key_is_one_problem_on_its_own_line(line: str, says: str) -> None:
    problem = only(with_service(line))
    assert problem.line == 3
    assert says in problem.render()


@pytest.mark.parametrize(
    ("ring", "says"),
    [
        ("{name: canary, version: v3}", "there is: v1, v2"),
        ("{name: canary, version: 2}", 'quotes, "2"'),
        ("{name: early, version: v2}", ""),
        ("{name: a b, version: v2}", "cannot be a name"),
        ("{name: canary, version: v2, wieght: 5}", "did you mean 'weight'"),
        ("{name: canary, version: v2, weight: 5%}", "plain number: 5"),
        ("{name: canary, version: v2, weight: 1.234}", "two decimals"),
        ("{name: canary, version: v2, members: [1]}", 'quotes, "1"'),
        ("{name: canary, version: v2, members: ['']}", "must not be empty"),
        ("{name: canary, version: v2, audience: [{}]}", "one or more of"),
        ("{name: canary, version: v2, audience: {header: x}}", "list"),
        ("{name: canary, version: v2, audience: [{header: {name: A}}]}", "exactly one of"),
        ("{name: canary, version: v2, audience: [{header: {name: A, equals: x, prefix: y}}]}", "equals and prefix"),
        ("{name: canary, version: v2, audience: [{header: {equals: x}}]}", "`name` is missing"),
        ("{name: canary, version: v2, audience: [{any_of: [{cookie: {name: A, equal: x}}]}]}", "did you mean 'equals'"),
        ("{name: canary, version: v2, audience: [{all_of: []}]}", "must not be empty"),
        ("{name: canary, version: v2, audience: [{header: {name: A, present: false}}]}", "must be true"),
        ("{version: v2}", "`name` is missing"),
        ("canary", "mapping"),
    ],
)
def test_a_wrong_ring_is_said_on_its_own_line(ring: str, says: str) -> None:
    found = problems(with_ring(ring))
    assert says in " ".join(problem.render() for problem in found)
    assert found[0].line == 7 if "early" not in ring else 8


def test_a_name_of_two_rings_points_at_the_second() -> None:
    problem = only(with_ring("{name: early, version: v2}"))
    assert (problem.line, problem.column) == (8, 16)


def test_weights_over_100_percent_are_refused_together() -> None:
    problem = only(SHOP.replace("weight: 10", "weight: 99.01"))
    assert (problem.line, problem.column) == (6, 5)
    assert "100.01 percent" in problem.message


@pytest.mark.parametrize("key", ["weight: 5", "audience: [{header: {name: A, present: true}}]", "members: [a]"])
def test_the_default_ring_takes_the_rest_and_nothing_else(key: str) -> None:
    problem = only(SHOP.replace("{name: everyone, version: v1}", f"{{name: everyone, version: v1, {key}}}"))
    assert (problem.line, problem.column) == (9, 39)
    assert "default ring" in problem.message


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("ftp://a:1", "such as http://"),
        ("unix:a.sock", "unix:/path/to.sock"),
        ("/run/a.sock", "unix:/run/a.sock"),
        ("127.0.0.1:9001", "http://127.0.0.1:9001"),
        ("http://a:1/path", "without user, path"),
        ("http://u:p@a:1", "without user"),
        ("http://a:0", "1 to 65535"),
        ("http://a:99999", "up to 65535"),
        ("http://", "needs a host"),
        ("http://[::1", "cannot be read"),
        ("http://a b:1", "host name"),
    ],
)
def test_an_endpoint_is_http_host_port(endpoint: str, says: str) -> None:
    problem = only(SHOP.replace("http://127.0.0.1:9001", f'"{endpoint}"'))
    assert (problem.line, problem.column) == (4, 24)
    assert says in problem.message


def test_an_ipv6_endpoint_and_listener_lose_their_brackets() -> None:
    settings = parse('listen: "[::1]:80"\n' + SHOP.replace("http://127.0.0.1:9001", '"http://[::1]:9001"'))
    (listener,) = settings.listen
    assert (listener.address.host, str(listener.address)) == ("::1", "[::1]:80")
    assert settings.services["shop"].versions["v1"].endpoints[0].spec == EndpointSpec("::1", 9001)


def test_two_services_cannot_claim_the_same_host_and_path() -> None:
    second = SHOP.removeprefix("services:\n").replace("shop:", "other:")
    problem = only(SHOP + second)
    assert (problem.line, problem.column) == (10, 3)
    assert "'shop' and 'other' both claim any host" in problem.message
    both = with_service("hosts: [a, b]") + second.replace("    versions:", "    hosts: [c, B]\n    versions:")
    problem = only(both)
    assert (problem.line, problem.column) == (12, 16)
    apart = with_service("paths: [/a]") + second.replace("    versions:", "    paths: [/b]\n    versions:")
    assert set(parse(apart).services) == {"shop", "other"}


@pytest.mark.parametrize("name", ["Shop", "-a", "a b", "a" * 65, "ä", "a{b}"])
def test_a_service_name_is_safe_in_a_redis_key(name: str) -> None:
    problem = only(SHOP.replace("shop:", f'"{name}":'))
    assert (problem.line, problem.column) == (2, 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"), ("# only a comment\n", "empty"), ("[]", "mapping"), ("just text", "mapping"),
        ("services: {}", "must not be empty"), ("services:", "empty"), ("services: 3", "mapping"),
        ("services: {a: 1}", "mapping"), ("listen: 0.0.0.0:80", "`services` is missing"),
        ("services: {a: {versions: {}, rings: []}}", "`rings` must not be empty"),
        ("services: {a: {}}", "`versions` is missing"),
    ],
)  # fmt: skip
def test_a_config_without_a_service_is_refused_in_words(text: str, says: str) -> None:
    assert says in "\n".join(problem.render() for problem in problems(text))


def test_an_unset_variable_is_one_problem_and_not_two() -> None:
    problem = only("workers: ${N}\n" + SHOP)
    assert "N is not set" in problem.message
    assert parse("workers: ${N}\n" + SHOP, N="3").workers == 3


def test_problems_from_yaml_values_and_references_come_together_in_order() -> None:
    text = "workers: ${N}\nlisten: 1\n" + with_ring("{name: canary, version: v9, version: v2}") + "listen: a:1\n"
    assert [problem.line for problem in problems(text)] == [1, 2, 9, 9, 12]


@pytest.mark.parametrize(
    ("raw", "says"), [(b"a: \xff", "not UTF-8"), (b"", "empty"), (b"\x00\x01", "U+0000"), (b"[" * 100_000, "deep")]
)
def test_a_file_of_anything_is_refused_in_words(tmp_path: Path, raw: bytes, says: str) -> None:
    path = tmp_path / "router.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_settings(path)


def test_a_missing_file_and_a_directory_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_settings(tmp_path / "nope.yaml")
    with pytest.raises(ConfigError, match="directory"):
        load_settings(tmp_path)


def test_a_redis_password_is_never_shown() -> None:
    settings = parse("redis: redis://me:s3cret@localhost/0\n" + SHOP)
    assert settings.redis == "redis://me:s3cret@localhost/0"
    assert settings.redacted_redis == "redis://me:***@localhost/0"
    assert "s3cret" not in repr(settings)
    with pytest.raises(ConfigError) as caught:
        parse("redis: http://me:s3cret@localhost/0\nredis: redis://:s3cret@localhost:x/0\n" + SHOP)
    assert "s3cret" not in str(caught.value)


def test_the_caret_stands_under_the_place() -> None:
    head, source, caret = only(with_ring("{name: canary, version: v2, wieght: 5}")).render().splitlines()
    assert head == "f.yaml:7:37: unknown key `wieght` (did you mean 'weight'?)"
    assert source[caret.index("^") :].startswith("wieght")


def test_a_file_on_one_long_line_is_shown_around_the_place() -> None:
    hosts = ", ".join(f"h{n}" for n in range(5000))
    service = "versions: {v1: {endpoints: ['http://a:1']}}, rings: [{name: e, version: v1}]"
    problem = only(f"services: {{a: {{hosts: [{hosts}, 'a:1'], {service}}}}}")
    _, source, caret = problem.render().splitlines()
    assert len(source) < 200
    assert source[caret.index("^") :].startswith("'a:1'")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(SHOP).workers = 3  # type: ignore[misc]


def test_the_schema_names_weights_as_people_write_them() -> None:
    ring = json_schema()["$defs"]["Ring"]
    assert ring["properties"]["weight"]["maximum"] == 100
    assert ring["additionalProperties"] is False


def test_the_access_log_is_a_word_or_all_of_it() -> None:
    def log(text: str) -> AccessLogSpec:
        return snapshot_spec(parse(text + SHOP), {}, 1).access_log

    assert log("access_log: combined\n") == AccessLogSpec("combined")
    assert log("access_log: off\n") == log('access_log: {format: "off", path: /x}\n') == NO_LOG
    assert log("access_log: {path: /l, sample: {2xx: 0.01, 5xx: 1}}\n") == AccessLogSpec(
        "json", "/l", (1.0, 0.01, 1.0, 1.0, 1.0)
    )
    assert log("access_log: {sample: {4xx: 1.0}}\n") == JSON_LOG
    keys = "signing_keys: [{id: a, secret: 'one secret of many'}, {id: b, secret: 'the other secret'}]\n"
    hashed = [log("access_log: {identity: hashed}\n" + keys) for _ in range(2)]
    assert hashed[0] == hashed[1], "the same on every router with this key, and after a restart"
    assert len(hashed[0].identity_key) == 32
    assert b"one secret" not in hashed[0].identity_key
    other = "signing_keys: [{id: b, secret: 'the other secret'}]\n"
    assert log("access_log: {identity: hashed}\n" + other).identity_key != hashed[0].identity_key


def test_tracing_tells_workers_the_share_and_control_the_rest() -> None:
    settings = parse("tracing: {endpoint: http://h:4318/in/, sample: 0.25, service_name: edge}\n" + SHOP)
    assert snapshot_spec(settings, {}, 1).tracing == TracingSpec(0.25)
    assert settings.spans_to == ("http://h:4318/in/v1/traces", "edge")
    assert (snapshot_spec(parse(SHOP), {}, 1).tracing, parse(SHOP).spans_to) == (None, None)
