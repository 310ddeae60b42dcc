"""Small configs, and what becomes of them: of a service, a source, an entry, or of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.config.compile import snapshot_spec
from router.config.load import ConfigError, Problem, parse_settings
from router.core.audience import ConditionSpec, IdentitySpec
from router.core.snapshot import Snapshot
from router.core.spec import ListenerSpec, ServiceSpec

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
