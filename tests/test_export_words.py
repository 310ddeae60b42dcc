"""What an exported file says and refuses, and that nothing in a config breaks out of its place."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.cli.main import main
from router.core.audience import ConditionSpec, IdentitySpec
from router.core.spec import EndpointSpec, ServiceSpec
from router.export.lost import Loss, comment
from router.export.reduced import Engine, reduced
from tests.core_services import service_specs
from tests.exported import complaint, exported, on_port
from tests.house import shop
from tests.test_export_rings import BOTH, wide

NASTY = [
    "it's", '"',
    "$uri ${x} $", "a b\tc", "}\nhttp {", "x\\", "#", "';return 200;'", "{ } || or !", "-f /etc/passwd", "--",
    "%[env(HOME)]", "ü€\u2028", "\x00", "*/?", "default", "a" * 3000,
]  # fmt: skip
CONFIG = """
listen: 127.0.0.1:8080
services:
  shop:
    identity: [{{header: X-User-Id}}]
    versions:
      v1: {{endpoints: [http://127.0.0.1:9001]}}
      v2: {{endpoints: [http://127.0.0.1:9002], health: {{path: /well, interval: 3s}}}}
    rings:
      - {{name: canary, version: v2, weight: 5, audience: [{rule}]}}
      - {{name: everyone, version: v1}}
"""


def told(word: str) -> ServiceSpec:
    """A service with this word wherever a config may have any."""
    plain = wide(9001, 9002)
    compares = ("equals", "prefix", "suffix", "contains", "glob", "one_of")
    kinds = (("header", "X-Any"), ("cookie", "any"), ("query", "any"), ("path", ""), ("user", ""), ("host", ""))
    rules = tuple(ConditionSpec(kind, name, how, (word,)) for kind, name in kinds for how in compares)  # type: ignore[arg-type]
    path = "/" + re.sub(r"[\s?#*\x00-\x1f\x7f]", "", word)
    canary = replace(plain.rings[0], rules=rules, members=(word, "x"), denied=rules[:2])
    return replace(plain, rings=(canary, *plain.rings[1:]), paths=(path, "/"))


@pytest.mark.parametrize("engine", BOTH)
def test_nothing_in_a_config_breaks_out_of_its_place(tmp_path: Path, engine: Engine) -> None:
    services = [replace(told(word), name=f"s{at}", hosts=(f"s{at}.example",)) for at, word in enumerate(NASTY)]
    assert complaint(engine, exported(engine, on_port(*services)), tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize("engine", BOTH)
def test_no_service_and_no_word_makes_a_file_that_the_program_refuses(tmp_path: Path, engine: Engine) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(any_service=service_specs(), word=st.text(max_size=60))
    def holds(any_service: ServiceSpec, word: str) -> None:
        spec = on_port(any_service, replace(told(word), name="told", hosts=("told.example",)), port=18080)
        assert complaint(engine, exported(engine, spec), tmp_path) == ""

    holds()


def test_the_comment_stays_a_comment() -> None:
    said = comment("from a\nfile", [Loss("a\nb", "c\r\nd\u2028e", "f", is_wrong=True), Loss("x", "y", "z")])
    assert all(line.startswith("#") for line in said.splitlines())


def places(service: ServiceSpec, engine: Engine = "haproxy", *, is_wrong: bool) -> list[str]:
    _, losses = reduced(on_port(service), engine)
    return [one.place for one in losses if one.is_wrong is is_wrong]


def test_what_would_send_somebody_astray_is_wrong_and_what_is_merely_missing_is_lost() -> None:
    plain = shop((9001,), (9002,))
    assert places(plain, is_wrong=True) == []
    canary = replace(
        plain.rings[0],
        rules=(ConditionSpec("claim", "role", "equals", ("tester",)), ConditionSpec("header", "A", "regex", ("x",))),
        holdback=500,
        tables=("/tables/one",),
    )
    other = replace(
        plain,
        rings=(canary, *plain.rings[1:]),
        identity=(IdentitySpec("claim", "sub"), IdentitySpec("header", "X-User", is_trusted_only=True)),
        salt="two words",
    )
    at = "services.shop"
    assert places(other, is_wrong=True) == [
        f"{at}.identity.claim", f"{at}.identity.header", f"{at}.salt",
        f"{at}.rings.canary.audience[0]", f"{at}.rings.canary.audience[1]", f"{at}.rings.canary.holdback",
    ]  # fmt: skip
    assert {f"{at}.rings.canary.members", f"{at}.override", "redis", "rollouts"} <= set(places(other, is_wrong=False))
    assert "weights" in places(plain, "nginx", is_wrong=False)


def test_a_deny_list_that_cannot_be_asked_for_lets_nobody_in() -> None:
    plain = shop((9001,), (9002,))
    rings = (
        replace(plain.rings[0], denied=(ConditionSpec("client", "", "within", ("10.0.0.0/8",)),)),
        *plain.rings[1:],
    )
    left, losses = reduced(on_port(replace(plain, rings=rings)), "nginx")
    assert left.services[0].killed == ("canary",)
    assert [one.place for one in losses if one.is_wrong] == ["services.shop.rings.canary.deny[0]"]


@pytest.mark.parametrize("engine", BOTH)
def test_a_version_without_endpoints_is_a_valid_file(tmp_path: Path, engine: Engine) -> None:
    plain = shop((9001,), (9002,))
    versions = (replace(plain.versions[0], endpoints=()), replace(plain.versions[1], drained=("127.0.0.1:9002",)))
    assert complaint(engine, exported(engine, on_port(replace(plain, versions=versions))), tmp_path) == ""
    socket = replace(versions[0], endpoints=(EndpointSpec("", 0, "/tmp/a $b's"), EndpointSpec("::1", 80, weight=900)))
    service = replace(plain, versions=(socket, versions[1]))
    assert complaint(engine, exported(engine, on_port(service)), tmp_path) == ""


def typed(tmp_path: Path, *words: str, rule: str = "{header: {name: X-Ring, equals: canary}}") -> Result:
    path = tmp_path / "router.yaml"
    path.write_text(CONFIG.format(rule=rule))
    return CliRunner().invoke(main, ["export", *words, "-c", str(path)])


@pytest.mark.parametrize("engine", BOTH)
def test_the_command_prints_a_file_that_the_program_takes(tmp_path: Path, engine: Engine) -> None:
    done = typed(tmp_path, engine, "--set", "canary=12.34")
    assert done.exit_code == 0, done.output
    assert complaint(engine, done.stdout, tmp_path) == ""
    assert done.stdout.startswith(f"# ring-router export {engine}, from ")
    if engine == "haproxy":
        assert "lt 1234" in done.stdout
        assert "uri '/well'" in done.stdout
        assert "check inter 3000ms fall 3 rise 2" in done.stdout
    else:
        assert "12.34% canary;" in done.stdout
        assert "MurmurHash2" in done.stdout


def test_the_command_refuses_what_would_be_wrong_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    rule = "{client: [10.0.0.0/8]}"
    refused = typed(tmp_path, "haproxy", rule=rule)
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert "services.shop.rings.canary.audience[0]: the client's network is not asked for there" in refused.stderr
    written = typed(tmp_path, "haproxy", "--lossy", rule=rule)
    assert written.exit_code == 0
    assert "# WRONG, as was asked for (--lossy):\n#   - services.shop.rings.canary.audience[0]: " in written.stdout
