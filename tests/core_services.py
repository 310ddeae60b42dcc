"""Furniture for the decision's stories: services in one line, and hypothesis' ideas of services and requests."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from router.core.audience import ConditionSpec, IdentitySpec
from router.core.rules import Request
from router.core.snapshot import Service, compile_service
from router.core.spec import EndpointSpec, RingSpec, ServiceSpec, VersionSpec

VERSIONS = tuple(VersionSpec(name, (EndpointSpec("127.0.0.1", 9001),)) for name in ("v1", "v2"))
NAMES = ("X-User-Id", "X-Ring", "X-Team")
COOKIES = ("uid", "ring", "beta")
WORDS = ("canary", "alice", "bob", "x", "")


def service(*weights: int, killed: tuple[str, ...] = (), salt: str = "") -> Service:
    """Rings r0, r1, … with these basis points on v2, then ``everyone`` on v1; identified by X-User-Id."""
    inner = tuple(RingSpec(f"r{i}", "v2", points) for i, points in enumerate(weights))
    rings = (*inner, RingSpec("everyone", "v1", 10_000 - sum(weights)))
    identity = (IdentitySpec("header", "X-User-Id"),)
    return compile_service(ServiceSpec("shop", VERSIONS, rings, salt=salt, identity=identity, killed=killed))


def request(cookie: str = "", **headers: str) -> Request:
    """A request with headers by keyword (``x_ring="canary"``) and one Cookie field."""
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Request(b"shop", b"/", fields, cookie.encode())


weights = st.lists(st.integers(0, 10_000), min_size=1, max_size=5).map(
    lambda raw: [points * 10_000 // max(sum(raw), 10_000) for points in raw]
)
"""Weights of the inner rings, in basis points: at most 100 percent together."""

keys = st.binary(min_size=1, max_size=40)

_comparisons = st.one_of(
    st.tuples(st.sampled_from(["equals", "prefix", "suffix", "contains"]), st.sampled_from(WORDS).map(lambda w: (w,))),
    st.tuples(st.just("one_of"), st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(tuple)),
    st.just(("present", ())),
)
_leaves = st.builds(
    lambda place, comparison, inverted: ConditionSpec(place[0], place[1], comparison[0], comparison[1], inverted),
    st.one_of(
        st.tuples(st.just("header"), st.sampled_from(NAMES)), st.tuples(st.just("cookie"), st.sampled_from(COOKIES))
    ),
    _comparisons,
    st.booleans(),
)
conditions = st.recursive(
    _leaves,
    lambda children: st.builds(
        lambda kind, parts, inverted: ConditionSpec(kind, inverted=inverted, children=tuple(parts)),
        st.sampled_from(["all_of", "any_of"]),
        st.lists(children, min_size=1, max_size=3),
        st.booleans(),
    ),
    max_leaves=5,
)
_identity = st.lists(
    st.one_of(
        st.builds(IdentitySpec, st.just("header"), st.sampled_from(NAMES)),
        st.builds(IdentitySpec, st.sampled_from(["cookie", "anonymous_cookie"]), st.sampled_from(COOKIES)),
    ),
    max_size=3,
)


@st.composite
def services(draw: st.DrawFn) -> Service:
    """Any service: weights, rules, members, kills, identity and salt as they come."""
    points = draw(weights)
    rings = []
    for i, basis_points in enumerate(points):
        ring = RingSpec(f"r{i}", draw(st.sampled_from(["v1", "v2"])), basis_points)
        rules = tuple(draw(st.lists(conditions, max_size=2)))
        members = tuple(draw(st.lists(st.sampled_from(WORDS[:-1]), max_size=2)))
        rings.append(replace(ring, rules=rules, members=members))
    rings.append(RingSpec("everyone", "v1", 10_000 - sum(points)))
    killed = draw(st.lists(st.sampled_from([ring.name for ring in rings]), max_size=3).map(tuple))
    return compile_service(
        ServiceSpec(
            "shop",
            VERSIONS,
            tuple(rings),
            salt=draw(st.sampled_from(["", "salt"])),
            identity=tuple(draw(_identity)),
            killed=killed,
        )
    )


requests = st.builds(
    lambda headers, cookies: Request(
        b"shop",
        b"/",
        {name.lower().encode(): value.encode() for name, value in headers.items()},
        "; ".join(f"{name}={value}" for name, value in cookies.items()).encode(),
    ),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(WORDS)),
    st.dictionaries(st.sampled_from(COOKIES), st.sampled_from(WORDS)),
)
