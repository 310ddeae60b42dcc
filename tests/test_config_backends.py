"""What the config says of versions that fail: from text to settings to the snapshot, and to whoever looks and asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.config.compile import snapshot_spec
from router.config.endpoints import checked_endpoints, names_to_resolve
from router.config.load import ConfigError, Problem, parse_settings
from router.config.settings import Settings, json_schema
from router.core.live import Live
from router.core.spec import (
    BalanceSpec,
    BreakerSpec,
    ConnectionsSpec,
    EndpointSpec,
    HealthCheckSpec,
    MirrorSpec,
    OutlierSpec,
    OverloadSpec,
    RetrySpec,
    ServiceSpec,
    VersionSpec,
)

ROOT = Path(__file__).parent.parent

SHOP = """\
services:
  shop:
    KEYS
    versions:
      v1: {endpoints: [http://127.0.0.1:9001]}
      v2: {endpoints: [http://127.0.0.1:9002]}
    rings:
      - {name: canary, version: v2, weight: 1}
      - {name: everyone, version: v1}
"""
KEYS_LINE, V2_LINE, CANARY_LINE, DEFAULT_LINE = 3, 6, 8, 9


def parse(text: str) -> Settings:
    return parse_settings(text.replace("    KEYS\n", ""), "f.yaml", {})


def with_keys(keys: str) -> str:
    return SHOP.replace("KEYS", keys)


def with_v2(endpoints: str) -> str:
    return SHOP.replace("[http://127.0.0.1:9002]", endpoints)


def with_canary(keys: str) -> str:
    return SHOP.replace("{name: canary, version: v2, weight: 1}", f"{{name: canary, version: v2, {keys}}}")


def only(text: str) -> Problem:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text.replace("KEYS", "salt: x"), "f.yaml", {})
    (problem,) = caught.value.problems
    return problem


def shop(settings: Settings, live: Live | None = None, **known: object) -> ServiceSpec:
    spec = snapshot_spec(settings, {"shop": live or Live()}, 1, **known)  # type: ignore[arg-type]
    return spec.services[0]


def v2(settings: Settings, live: Live | None = None, **known: object) -> VersionSpec:
    return shop(settings, live, **known).versions[1]


def test_without_a_word_about_it_everything_is_as_the_plain_data_says() -> None:
    spec, plain = shop(parse(SHOP)), ServiceSpec("", (), ())
    for name in ("balance", "connections", "outliers", "retries", "overload", "breaker", "return_after"):
        assert getattr(spec, name) == getattr(plain, name), name
    assert spec.versions[1] == VersionSpec("v2", (EndpointSpec("127.0.0.1", 9002),))
    assert (spec.rings[0].falls_outward, spec.rings[0].mirror) == (True, None)
    assert checked_endpoints(parse(SHOP)) == ()


def test_every_key_arrives_where_it_belongs_and_in_its_unit() -> None:
    keys = """\
balance: {by: affinity, slow_start: 0}
    connections: {idle: 500ms, idle_per_endpoint: 7, max_age: 1h}
    outliers: {consecutive_errors: 3, ejection: 2s, max_ejection: 1m, max_ejected: 33.5, success_rate: false}
    retries: {attempts: 4, statuses: [502, 429], per_try: 250ms, budget: 12.25, replay_bytes: 1KiB}
    overload: {in_flight: 9, endpoint_in_flight: 3, queue: 2, queue_time: 100ms}
    breaker: {failed: 75, minimum: 2, slices: 1, window: 1m, open: 2m}
    return_after: 1m"""
    spec = shop(parse(with_keys(keys)))
    assert spec.balance == BalanceSpec("affinity", 0.0)
    assert spec.connections == ConnectionsSpec(0.5, 7, 3600.0)
    assert spec.outliers == OutlierSpec(3, 2.0, 60.0, 3350, False)
    assert spec.retries == RetrySpec(4, (502, 429), 0.25, 1225, 1024)
    assert spec.overload == OverloadSpec(9, 3, 2, 0.1)
    assert spec.breaker == BreakerSpec(7500, 2, 1, 60.0, 120.0)
    assert spec.return_after == 60.0


def test_a_ring_says_where_its_users_go_and_who_gets_copies() -> None:
    text = with_canary(
        "fallback: closed, mirror: {version: v1, share: 5, methods: [GET, POST], body_bytes: 0, in_flight: 2}"
    )
    ring = shop(parse(text)).rings[0]
    assert (ring.falls_outward, ring.mirror) == (False, MirrorSpec("v1", 500, ("GET", "POST"), 0, 2))
    assert shop(parse(with_canary("mirror: {version: v1}"))).rings[0].mirror == MirrorSpec("v1")


def test_a_ring_that_was_given_the_version_of_its_copies_makes_none() -> None:
    settings = parse(with_canary("mirror: {version: v1}"))
    assert shop(settings, Live(versions={"canary": "v1"})).rings[0].mirror is None


def test_an_endpoint_may_have_a_weight() -> None:
    text = with_v2("[http://a:1, {url: 'http://b:2', weight: 0}, {url: 'https://c', weight: 1000}, {url: unix:/d}]")
    assert [(one.address, one.weight) for one in v2(parse(text)).endpoints] == [
        ("a:1", 1), ("b:2", 0), ("c:443", 1000), ("unix:/d", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("balance: {by: random}", "least_in_flight, round_robin or affinity"),
        ("balance: {slow_start: -1}", "duration"),
        ("connections: {idle: 0}", "more than 0"),
        ("connections: {idel: 4s}", "did you mean 'idle'"),
        ("outliers: {max_ejected: 101}", "0 to 100"),
        ("outliers: {ejection: 1h}", "max_ejection"),
        ("outliers: {success_rate: 5}", "true or false"),
        ("retries: {attempts: 11}", "10"),
        ("retries: {statuses: [404]}", "500 to 599, 408, 425, 429"),
        ("retries: {budget: 20%}", "plain number: 20"),
        ("retries: {replay_bytes: 64KB}", "64KiB"),
        ("overload: {queue: -1}", "0"),
        ("breaker: {slices: 65}", "64"),
        ("breaker: {failed: 0.001}", "two decimals"),
        ("resolve: 10ms", "1"),
        ("health: {}", "exactly one of path, tcp"),
        ("health: {path: /, tcp: true}", "exactly one of path, tcp"),
        ("health: {path: healthz}", "begins with a slash"),
        ("health: {path: /a b}", "spaces"),
        ("health: {path: /, status: [99]}", "100 to 599"),
        ("health: {path: /, status: [399-300]}", '"300-399"'),
        ("health: {path: /, host: 'a/b'}", "shop.internal:8080"),
        ("health: {path: /, timeout: 6s}", "at most its interval"),
        ("health: {tcp: true, body: ok}", "remove body"),
        ("health: {tcp: false}", "must be true"),
        ("health: {path: /, failures: 0}", "1"),
    ],
)
def test_a_wrong_value_is_one_problem_on_its_own_line_with_its_remedy(line: str, says: str) -> None:
    problem = only(SHOP.replace("KEYS", line))
    assert problem.line == KEYS_LINE
    assert says in problem.render()


@pytest.mark.parametrize(
    ("endpoints", "says"),
    [
        ("[{url: 'http://a:1', weight: 1001}]", "1000"),
        ("[{url: 'http://a:1', weight: 1.5}]", "integer"),
        ("[{url: a}]", "such as http://"),
        ("[5]", "such as http://"),
        ("[{weight: 1}]", "`url` is missing"),
        ("[{ulr: 'http://a:1'}]", "did you mean 'url'"),
        ("[{url: 'http://a:1', weight: 0}]", "nobody could be served"),
        ("[http://a:1, {url: 'http://A:1'}]", "has a:1 already"),
    ],
)
def test_a_wrong_endpoint_is_one_problem_on_its_own_line(endpoints: str, says: str) -> None:
    problem = only(with_v2(endpoints))
    assert problem.line == V2_LINE
    assert says in problem.render()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("fallback: inward", "outward or closed"),
        ("mirror: {version: v3}", "there is: v1, v2"),
        ("mirror: {version: v2}", "another version"),
        ("mirror: {}", "`version` is missing"),
        ("mirror: {version: v1, methods: [get]}", "capitals: GET"),
        ("mirror: {version: v1, methods: [CONNECT]}", "such as GET"),
        ("mirror: {version: v1, methods: []}", "must not be empty"),
        ("mirror: {version: v1, share: 200}", "0 to 100"),
    ],
)
def test_a_wrong_fallback_or_mirror_is_said_on_its_own_line(keys: str, says: str) -> None:
    problem = only(with_canary(keys))
    assert problem.line == CANARY_LINE
    assert says in problem.render()


def test_the_default_ring_has_nobody_further_out() -> None:
    problem = only(SHOP.replace("{name: everyone, version: v1}", "{name: everyone, version: v1, fallback: outward}"))
    assert problem.line == DEFAULT_LINE
    assert "none further out" in problem.message


def test_a_name_becomes_one_endpoint_per_address_and_its_certificate_has_to_name_it() -> None:
    settings = parse(with_v2("[{url: 'https://shop.internal:8443', weight: 3}, http://10.0.0.9:1, http://unknown:2]"))
    found = v2(settings, resolved={"shop.internal": ("10.0.0.7", "fd00::7"), "10.0.0.9": ("1.1.1.1",)}).endpoints
    assert [(one.address, one.name, one.weight, one.tls.name if one.tls else None) for one in found] == [
        ("10.0.0.7:8443", "shop.internal", 3, "shop.internal"),
        ("[fd00::7]:8443", "shop.internal", 3, "shop.internal"),
        ("10.0.0.9:1", "", 1, None),
        ("unknown:2", "", 1, None),
    ]  # fmt: skip


def test_two_names_of_one_address_are_one_endpoint_with_both_weights() -> None:
    settings = parse(with_v2("[http://a:1, {url: 'http://b:1', weight: 4}]"))
    (one,) = v2(settings, resolved={"a": ("10.0.0.7",), "b": ("10.0.0.7",)}).endpoints
    assert (one.address, one.weight) == ("10.0.0.7:1", 5)


def test_what_is_down_or_drained_is_said_of_the_endpoints_there_are_and_of_no_others() -> None:
    settings = parse(with_v2("[http://shop.internal:1, http://10.0.0.9:1]"))
    resolved = {"shop.internal": ("10.0.0.7", "10.0.0.8")}
    down = {("shop", "v2"): ("10.0.0.8:1", "10.0.0.99:1"), ("shop", "v1"): ("10.0.0.9:1",)}
    found = v2(settings, Live(drained=("10.0.0.9:1", "10.0.0.77:1")), resolved=resolved, down=down)
    assert (found.down, found.drained) == (("10.0.0.8:1",), ("10.0.0.9:1",))
    by_name = v2(settings, Live(drained=("shop.internal:1",)), resolved=resolved)
    assert by_name.drained == ("10.0.0.7:1", "10.0.0.8:1")


def test_every_name_is_looked_up_as_often_as_the_most_impatient_service_wants() -> None:
    text = SHOP.replace("KEYS", "resolve: 1m\n    paths: [/a]").replace("127.0.0.1:9002", "shop.internal:1")
    other = text.removeprefix("services:\n").replace("shop:", "other:").replace("1m", "5s").replace("/a", "/b")
    assert names_to_resolve(parse(text)) == {"shop.internal": 60.0}
    assert names_to_resolve(parse(text + other)) == {"shop.internal": 5.0}
    assert names_to_resolve(parse(with_v2("[http://127.0.0.1:1, 'http://[::1]:1', unix:/a]"))) == {}


def test_endpoints_are_checked_at_every_address_and_a_version_has_its_own_way() -> None:
    keys = "health: {path: '/healthz?deep', host: 'a:1', status: [200, 300-399], body: ok, interval: 9s, timeout: 2s}"
    text = with_keys(keys).replace("http://127.0.0.1:9002]", "http://shop.internal:1], health: {tcp: true, passes: 5}")
    found = checked_endpoints(parse(text), {"shop.internal": ("10.0.0.7", "10.0.0.8")})
    assert [(one.version, one.endpoint.address) for one in found] == [
        ("v1", "127.0.0.1:9001"), ("v2", "10.0.0.7:1"), ("v2", "10.0.0.8:1"),
    ]  # fmt: skip
    assert found[0].check == HealthCheckSpec(
        "http", "/healthz?deep", "a:1", ((200, 200), (300, 399)), "ok", 9.0, 2.0, 2, 3
    )
    assert found[1].check == HealthCheckSpec("tcp", passes=5)


def test_every_key_about_backends_is_in_their_page_and_described_in_the_schema() -> None:
    page = (ROOT / "docs" / "backends.md").read_text("utf-8")
    parts = json_schema()["$defs"]
    names = ("Endpoint", "Health", "Balance", "Connections", "Outliers", "Retries", "Overload", "Breaker", "Mirror")
    for name in names:
        for key, about in parts[name]["properties"].items():
            assert f"`{key}`" in page, f"{key} of {name} is not in docs/backends.md"
            assert about.get("description"), f"{key} of {name}"
    for key in ("resolve", "return_after", "fallback", "mirror", "health"):
        assert f"`{key}`" in page


def test_the_schema_takes_an_endpoint_as_text_or_with_a_weight() -> None:
    items = json_schema()["$defs"]["Version"]["properties"]["endpoints"]["items"]
    assert items["anyOf"][0]["type"] == "string"
    assert items["anyOf"][1] == {"$ref": "#/$defs/Endpoint"}
