"""What Envoy cannot do is refused with place, reason and remedy; whatever is not refused is translated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings

from router.cli.main import main
from router.config.compile import snapshot_spec
from router.config.load import load_settings
from router.core.audience import ConditionSpec, IdentitySpec, KeySpec, TrustSpec
from router.core.records import AccessLogSpec, TracingSpec
from router.core.spec import (
    BalanceSpec,
    BreakerSpec,
    ConnectionsSpec,
    ErrorPageSpec,
    LimitsSpec,
    ListenerSpec,
    MirrorSpec,
    OverloadSpec,
    RingSpec,
    ServiceSpec,
    SnapshotSpec,
    SocketSpec,
)
from router.envoy.options import EnvoyOptions
from router.envoy.refusals import refusals
from router.envoy.resources import resources
from router.envoy.routes import MOST_DENYING
from tests.core_services import service_specs
from tests.house import shop, snapshot

KEYS = TrustSpec(keys=(KeySpec("1", "0123456789abcdef"),))
SHOP = shop((9001,), (9002,))
PLAIN = snapshot(SHOP)
IS_CANARY = ConditionSpec("header", "X-Ring", "equals", ("canary",))
CANARY = "services.shop.rings.canary"


def ring(**changes: object) -> SnapshotSpec:
    """The shop, with a canary that has something."""
    return snapshot(shop((9001,), (9002,), rings=(replace(SHOP.rings[0], **changes), *SHOP.rings[1:])))  # type: ignore[arg-type]


def rule(*args: object, **fields: object) -> SnapshotSpec:
    return ring(rules=(IS_CANARY, ConditionSpec(*args, **fields)))  # type: ignore[arg-type]


def service(**changes: object) -> SnapshotSpec:
    return snapshot(shop((9001,), (9002,), **changes))


def listener(**changes: object) -> SnapshotSpec:
    return snapshot(SHOP, listener=ListenerSpec(**changes))  # type: ignore[arg-type]


MANY = tuple(
    ConditionSpec("any_of", children=tuple(ConditionSpec("header", f"X-{i}{j}") for j in range(4))) for i in range(4)
)
DENYING = tuple(RingSpec(f"r{i}", "v2", denied=(IS_CANARY,)) for i in range(MOST_DENYING + 1))
RULES = {
    "claims": rule("claim", "sub", "equals", ("alice",)),
    "networks": rule("client", "", "within", ("10.0.0.0/8",)),
    "moments": rule("time", "", "within", ("2026-12-01T08:00:00Z", "")),
    "versions of software": rule("header", "X-App", "semver", (">=5",)),
    "shares in rules": rule("header", "X-App", share=5000),
    "long lists": rule("user", "", "listed", ("/tables/one",)),
    "inverted parameters": rule("query", "beta", "equals", ("1",), inverted=True),
    "patterns of paths": rule("path", "", "regex", ("^/a.*b",)),
    "rules with too many alternatives": rule("all_of", children=MANY),
}
REFUSED = {
    "passes": (replace(PLAIN, trust=KEYS, listener=ListenerSpec(sends_baggage=False)), "services.shop.override"),
    "signed baggage": (replace(service(override="off"), trust=KEYS), "baggage"),
    "spans": (replace(PLAIN, tracing=TracingSpec(0.1)), "tracing"),
    "a log of another form": (replace(PLAIN, access_log=AccessLogSpec("combined")), "access_log.format"),
    "a share of the log": (replace(PLAIN, access_log=AccessLogSpec(rates=(1, 0.1, 1, 1, 1))), "access_log"),
    "users in the log": (replace(PLAIN, access_log=AccessLogSpec(identity_key=b"x")), "access_log.identity"),
    "clients that take nothing": (listener(send_timeout=5.0), "timeouts.send"),
    "a sidecar": (listener(mode="sidecar"), "mode"),
    "outbound calls": (listener(sockets=(SocketSpec("127.0.0.1:80", is_outbound=True),)), "listen.outbound"),
    "long bodies": (listener(limits=LimitsSpec(body_bytes=1)), "limits.body_bytes"),
    "long targets": (listener(limits=LimitsSpec(uri_bytes=100)), "limits.uri_bytes"),
    "slow bodies": (listener(limits=LimitsSpec(body_rate=100)), "limits.body_rate"),
    "many connections": (listener(limits=LimitsSpec(connections=9)), "limits.connections"),
    "connections of a client": (listener(limits=LimitsSpec(connections_per_client=9)), "limits.connections_per_client"),
    "long bodies of a service": (service(body_bytes=1), "services.shop.body_bytes"),
    "members in shards": (ring(tables=("/tables/one",)), f"{CANARY}.members"),
    "a holdback": (ring(holdback=100), f"{CANARY}.holdback"),
    "copies": (ring(mirror=MirrorSpec("v1")), f"{CANARY}.mirror"),
    "closed connections": (ring(on_change="close"), f"{CANARY}.on_change"),
    "many who deny": (service(rings=(*DENYING, SHOP.rings[-1])), "services.shop.rings"),
    "timing": (service(server_timing=True), "services.shop.server_timing"),
    "pages": (service(error_pages=(ErrorPageSpec(503, "text/plain", b"x"),)), "services.shop.error_pages"),
    "limits of a version": (service(overload=OverloadSpec(in_flight=10)), "services.shop.overload"),
    "a breaker of its own": (service(breaker=BreakerSpec(minimum=5)), "services.shop.breaker"),
    "a cold start with affinity": (service(balance=BalanceSpec("affinity", 5.0)), "services.shop.balance.slow_start"),
    "few connections kept": (
        service(connections=ConnectionsSpec(idle_per_endpoint=2)),
        "services.shop.connections.idle_per_endpoint",
    ),
    "a late return": (service(return_after=60.0), "services.shop.return_after"),
    "a salted cookie": (service(salt="x"), "services.shop.salt"),
    **{what: (spec, f"{CANARY}.audience[1]") for what, spec in RULES.items()},
    **{
        f"identity by {kind}": (
            service(identity=(IdentitySpec(kind, "sub"),)),  # type: ignore[arg-type]
            f"services.shop.identity.{kind}",
        )
        for kind in ("claim", "certificate", "client", "anonymous_cookie")
    },
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_envoy_cannot_do_is_refused_with_its_place_and_a_remedy(what: str) -> None:
    spec, place = REFUSED[what]
    (found,) = refusals(spec)
    assert found.place == place
    assert found.reason
    assert found.remedy


def test_the_example_of_the_readme_is_not_refused() -> None:
    assert refusals(PLAIN) == ()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(service_specs())
def test_every_service_is_refused_or_translated(spec: ServiceSpec) -> None:
    whole = snapshot(spec)
    if not refusals(whole):
        made = resources(whole, EnvoyOptions("/x", listen=("127.0.0.1:8080",)))
        names = {cluster["name"] for cluster in made.clusters}
        assert {f"shop/{ring.name}/{ring.version}" for ring in spec.rings} <= names


CONFIG = """\
listen: 127.0.0.1:8080
services:
  shop:
    identity: [{header: X-User-Id}]
    versions:
      v1: {endpoints: ["http://127.0.0.1:9001"]}
      v2: {endpoints: ["http://127.0.0.1:9002"]}
    rings:
      - {name: canary, version: v2, weight: 5, audience: [{client: 10.0.0.0/8}]}
      - {name: everyone, version: v1}
"""


def test_check_says_what_envoy_cannot_do(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    config.write_text(CONFIG)
    words = ["check", "--config", str(config), "--engine", "envoy"]
    run = CliRunner().invoke(main, words)
    assert run.exit_code == 2
    assert f"{CANARY}.audience[0]: Envoy's routes cannot ask for the client's network" in run.output
    ran = CliRunner().invoke(main, ["envoy", "run", "-c", str(config), "--directory", str(tmp_path / "envoy")])
    assert ran.exit_code == 2
    assert ran.output == run.output
    as_json = json.loads(CliRunner().invoke(main, [*words, "-o", "json"]).output)
    assert [one["place"] for one in as_json["problems"]] == [f"{CANARY}.audience[0]"]
    assert CliRunner().invoke(main, words[:3]).exit_code == 0
    config.write_text(CONFIG.replace("client: 10.0.0.0/8", "header: {name: X-Staff, equals: 'yes'}"))
    assert CliRunner().invoke(main, words).exit_code == 0


def test_check_and_a_router_that_has_looked_names_up_say_the_same(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    plain = '["http://127.0.0.1:9002"]'
    named = '["https://a.internal:1", "https://b.internal:1", "http://10.0.0.1:1"]'
    config.write_text(CONFIG.replace(", audience: [{client: 10.0.0.0/8}]", "").replace(plain, named))
    ran = CliRunner().invoke(main, ["check", "--config", str(config), "--engine", "envoy"])
    assert ran.exit_code == 0, ran.output
    looked_up = {"a.internal": ("10.0.0.2", "10.0.0.3"), "b.internal": ("10.0.0.4",)}
    assert refusals(snapshot_spec(load_settings(config), {}, 1, resolved=looked_up)) == ()
