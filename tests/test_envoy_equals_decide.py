"""Envoy puts every request into the ring that this router puts it into: hypothesis makes services and requests.

All services of one round are in one Envoy, each with hosts of its own. Requests go over one kept connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.core.audience import ConditionSpec, IdentitySpec
from router.core.decide import decide, identify
from router.core.snapshot import Service, Snapshot
from router.core.spec import EndpointSpec, ListenerSpec, RingSpec, ServiceSpec, VersionSpec
from router.envoy.refusals import refusals
from tests.core_services import COOKIES, NAMES, weights
from tests.envoy_house import needs_envoy, running_envoy
from tests.house import fixed, raw_backend, snapshot
from tests.test_explain_equals_proxy import Asked

SERVICES, REQUESTS = 4, 60
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
WORDS = ("canary", "alice", "bob", "x", "", "a b", "1.2.3", "1+2|(3)", "al.ce", "\\d", "Alice")
PLAIN = ("canary", "alice", "x", "", "a%41", "1.2.3", "1+2|(3)")
"""What may stand in a query as it is."""
PATHS = ("/", "/cart", "/cart/7", "/api/x", "/cartoon")
METHODS = ("GET", "POST", "DELETE")
LABELS = ("", "beta.")

_words = st.sampled_from(WORDS)
_comparisons = st.one_of(
    st.tuples(st.sampled_from(["equals", "prefix", "suffix", "contains"]), _words.map(lambda word: (word,))),
    st.tuples(
        st.sampled_from(["one_of", "prefix", "suffix", "contains"]),
        st.lists(_words, min_size=1, max_size=3).map(tuple),
    ),
    st.tuples(st.just("glob"), st.sampled_from(["*a*", "?", "c*y", "*", "1.?.*", "[a]*"]).map(lambda word: (word,))),
    st.tuples(st.just("regex"), st.sampled_from(["^can", "[ab]", "x$", r"^\d+\.", "^$", "a|b"]).map(lambda w: (w,))),
    st.just(("present", ())),
)
_leaves = st.one_of(
    st.builds(
        lambda place, comparison, inverted: ConditionSpec(*place, *comparison, inverted),
        st.one_of(
            st.tuples(st.just("header"), st.sampled_from(NAMES)),
            st.tuples(st.just("cookie"), st.sampled_from(COOKIES)),
            st.tuples(st.just("user"), st.just("")),
        ),
        _comparisons,
        st.booleans(),
    ),
    st.builds(
        lambda name, comparison: ConditionSpec("query", name, *comparison), st.sampled_from(COOKIES), _comparisons
    ),
    st.builds(lambda name: ConditionSpec("query", name, inverted=True), st.sampled_from(COOKIES)),
    st.builds(
        lambda how, path, inverted: ConditionSpec("path", "", how, (path,), inverted),
        st.sampled_from(["equals", "prefix", "suffix", "contains", "glob"]),
        st.sampled_from([*PATHS, "*art?7", "/*"]),
        st.booleans(),
    ),
    st.builds(
        lambda values, inverted: ConditionSpec("method", "", "one_of", tuple(values), inverted),
        st.lists(st.sampled_from(METHODS), min_size=1),
        st.booleans(),
    ),
    st.builds(
        lambda how, inverted: ConditionSpec("host", "", *how, inverted),
        st.sampled_from([("prefix", ("BETA.",)), ("glob", ("beta.*.test",)), ("contains", ("eta",))]),
        st.booleans(),
    ),
)
_conditions = st.recursive(
    _leaves,
    lambda children: st.builds(
        lambda kind, parts, inverted: ConditionSpec(kind, inverted=inverted, children=tuple(parts)),
        st.sampled_from(["all_of", "any_of"]),
        st.lists(children, min_size=1, max_size=3),
        st.booleans(),
    ),
    max_leaves=4,
).filter(lambda spec: not _inverts_query(spec))
_trusted_only = st.sampled_from([False, False, True])
_identity = st.lists(
    st.one_of(
        st.builds(IdentitySpec, st.just("header"), st.sampled_from(NAMES), _trusted_only),
        st.builds(IdentitySpec, st.just("cookie"), st.sampled_from(COOKIES), _trusted_only),
        st.builds(IdentitySpec, st.just("query"), st.sampled_from(COOKIES)),
    ),
    max_size=3,
)


def _inverts_query(spec: ConditionSpec, is_inverted: bool = False) -> bool:
    is_inverted ^= spec.inverted
    if spec.kind == "query":
        return is_inverted and spec.compare != "present"
    if spec.kind == "user":
        return is_inverted  # the key may come from a query
    return any(_inverts_query(child, is_inverted) for child in spec.children)


@st.composite
def _services(draw: st.DrawFn) -> ServiceSpec:
    points = draw(weights)
    rings = []
    for i, basis_points in enumerate(points):
        ring = RingSpec(f"r{i}", draw(st.sampled_from(["v1", "v2"])), basis_points)
        rules = draw(st.lists(_conditions, max_size=2))
        denied = draw(st.lists(_conditions, max_size=1)) if i < 3 else []
        members = draw(st.lists(st.sampled_from([word for word in WORDS if word]), max_size=2))
        rings.append(replace(ring, rules=tuple(rules), denied=tuple(denied), members=tuple(members)))
    rings.append(RingSpec("everyone", "v1", 10_000 - sum(points)))
    identity = draw(_identity)
    has_salt = all(one.kind == "header" for one in identity) and draw(st.booleans())
    return ServiceSpec(
        "shop",
        (),
        tuple(rings),
        salt="s\\1lt%" if has_salt else "",
        identity=tuple(identity),
        killed=tuple(draw(st.lists(st.sampled_from([ring.name for ring in rings]), max_size=2))),
        override=draw(st.sampled_from(["passes", "insecure", "trusted", "off"])),
    )


_values = st.one_of(_words, st.integers(0, 9999).map(str), st.sampled_from(["r0", "r1", "everyone", '"bob"']))
_asked = st.builds(
    Asked,
    st.sampled_from(METHODS),
    st.sampled_from(LABELS),
    st.sampled_from(PATHS),
    st.lists(st.tuples(st.sampled_from(COOKIES), st.sampled_from(PLAIN)), max_size=2).map(tuple),
    st.dictionaries(st.sampled_from([*NAMES, "X-Ring-Override"]), _values, max_size=4).map(
        lambda fields: tuple((name, value) for name, value in fields.items())
    ),
    st.lists(st.tuples(st.sampled_from(COOKIES), _values), max_size=3).map(tuple),
)


def as_decided(service: Service, asked: Asked, is_trusted: bool) -> tuple[str, str]:
    """Ring and version of the router's own decision."""
    fields = [(name, value.strip()) for name, value in asked.fields]
    request = replace(asked, fields=tuple(fields)).request(service)
    request.is_trusted = is_trusted
    wish = dict(fields).get("X-Ring-Override", "")
    allows = service.spec.override == "insecure" or (service.spec.override == "trusted" and is_trusted)
    request.override = wish if allows and wish in service.overrides else ""
    decision = decide(service, request, identify(service, request))
    return decision.ring, decision.version


async def as_routed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> tuple[str, str]:
    writer.write(asked.raw)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    return tuple(head.partition(f"\r\n{name}: ")[2].partition("\r\n")[0] for name in ("x-ring", "x-ring-version"))  # type: ignore[return-value]


async def differences(directory: Path, specs: list[ServiceSpec], asked: Sequence[Asked], is_trusted: bool) -> list[str]:
    wrong = []
    async with raw_backend(fixed(OK)) as v1, raw_backend(fixed(OK)) as v2:
        versions = tuple(
            VersionSpec(name, (EndpointSpec("127.0.0.1", port),)) for name, port in (("v1", v1), ("v2", v2))
        )
        services = tuple(
            replace(spec, name=f"s{i}", hosts=(f"s{i}.test", f"*.s{i}.test"), versions=versions)
            for i, spec in enumerate(specs)
        )
        listener = ListenerSpec(trusted_proxies=("127.0.0.0/8",) if is_trusted else ("192.0.2.0/24",))
        whole = snapshot(*services, listener=listener)
        assert refusals(whole) == ()
        compiled = Snapshot(whole).services
        async with running_envoy(directory, whole) as envoy:
            reader, writer = await asyncio.open_connection("127.0.0.1", envoy.port)
            for i, one in enumerate(asked):
                service = compiled[i % len(compiled)]
                one = replace(one, host=f"{one.host}{service.spec.name}.test")
                found, foreseen = await as_routed(reader, writer, one), as_decided(service, one, is_trusted)
                if found != foreseen:
                    wrong.append(f"{one}: {found}, not {foreseen}; {service.spec}")
            writer.close()
    return wrong


_round = given(
    st.lists(_services(), min_size=SERVICES, max_size=SERVICES),
    st.lists(_asked, min_size=REQUESTS, max_size=REQUESTS),
    st.booleans(),
)


def the_same(directory: Path, specs: list[ServiceSpec], asked: list[Asked], is_trusted: bool) -> None:
    with TemporaryDirectory(dir=directory) as files:
        wrong = asyncio.run(differences(Path(files), specs, asked, is_trusted))
    assert wrong == [], f"{len(wrong)} of {len(asked)}: {wrong[0]}"


@needs_envoy
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@_round
def test_envoy_routes_as_the_router_decides(
    tmp_path: Path, specs: list[ServiceSpec], asked: list[Asked], is_trusted: bool
) -> None:
    the_same(tmp_path, specs, asked, is_trusted)


@needs_envoy
@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@_round
def test_envoy_routes_as_the_router_decides_whatever_hypothesis_makes(
    tmp_path: Path, specs: list[ServiceSpec], asked: list[Asked], is_trusted: bool
) -> None:
    the_same(tmp_path, specs, asked, is_trusted)
