"""Furniture for the decision's stories: services in one line, and hypothesis' ideas of services and requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from hypothesis import strategies as st

from router.core.audience import ConditionSpec, CookieSpec, IdentitySpec, KeySpec, TrustSpec
from router.core.hashing import UserKey, fingerprint
from router.core.request import Request
from router.core.snapshot import Service, compile_service
from router.core.spec import EndpointSpec, RingSpec, ServiceSpec, VersionSpec

VERSIONS = tuple(VersionSpec(name, (EndpointSpec("127.0.0.1", 9001),)) for name in ("v1", "v2"))
NAMES = ("X-User-Id", "X-Ring", "X-Team")
COOKIES = ("uid", "ring", "beta")
PARAMETERS = ("q", "ring")
CLAIMS = ("sub", "realm.roles")
WORDS = ("canary", "alice", "bob", "x", "1.2.3", "2.0.0-rc.1", "")
PATHS = ("/", "/api", "/api/x", "/static/app.js")
CLIENTS = ("192.0.2.7", "192.0.2.200", "10.1.2.3", "2001:db8::1", "::ffff:10.1.2.3", "")
NETWORKS = ("192.0.2.0/24", "192.0.2.7", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::/0")
MOMENTS = ("", "2026-11-01T00:00:00Z", "2026-12-01T09:00:00+01:00")
TRUST = TrustSpec(keys=(KeySpec("k2", "new secret"), KeySpec("k1", "old secret")))


class Listed:
    """A member table that is a set."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._fingerprints = {fingerprint(key.encode()) for key in keys}

    def has(self, fingerprint: int, /) -> bool:
        return fingerprint in self._fingerprints


TABLES: Final = {"/tables/one": Listed(["alice", "x"]), "/tables/two": Listed(["bob"]), "/tables/none": Listed([])}


def service(*weights: int, killed: tuple[str, ...] = (), salt: str = "") -> Service:
    """Rings r0, r1, … with these basis points on v2, then ``everyone`` on v1; identified by X-User-Id."""
    inner = tuple(RingSpec(f"r{i}", "v2", points) for i, points in enumerate(weights))
    rings = (*inner, RingSpec("everyone", "v1", 10_000 - sum(weights)))
    identity = (IdentitySpec("header", "X-User-Id"),)
    return compile_service(ServiceSpec("shop", VERSIONS, rings, salt=salt, identity=identity, killed=killed))


def compiled(spec: ServiceSpec) -> Service:
    """A service with this module's tables and keys."""
    return compile_service(spec, 0, TABLES.__getitem__, TRUST)


def request(cookie: str = "", **headers: str) -> Request:
    """A request with headers by keyword (``x_ring="canary"``) and one Cookie field."""
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Request(b"shop", b"/", fields, cookie.encode())


weights = st.lists(st.integers(0, 10_000), min_size=1, max_size=5).map(
    lambda raw: [points * 10_000 // max(sum(raw), 10_000) for points in raw]
)
"""Weights of the inner rings, in basis points: at most 100 percent together."""

keys = st.binary(min_size=1, max_size=40)

_words = st.sampled_from(WORDS)
_comparisons = st.one_of(
    st.tuples(st.sampled_from(["equals", "prefix", "suffix", "contains"]), _words.map(lambda w: (w,))),
    st.tuples(st.sampled_from(["one_of", "prefix", "suffix"]), st.lists(_words, min_size=1, max_size=3).map(tuple)),
    st.tuples(st.just("glob"), st.sampled_from(["*a*", "?", "c*y", "*", "1.?.*"]).map(lambda w: (w,))),
    st.tuples(st.just("regex"), st.sampled_from(["^can", "[ab]", "x$", r"^\d+\."]).map(lambda w: (w,))),
    st.tuples(st.just("semver"), st.sampled_from([">=1.2", "<2", "=1.2.3", ">=1, <2.0.0-rc.2"]).map(lambda w: (w,))),
    st.just(("present", ())),
)
_places = st.one_of(
    st.tuples(st.just("header"), st.sampled_from(NAMES)),
    st.tuples(st.just("cookie"), st.sampled_from(COOKIES)),
    st.tuples(st.just("query"), st.sampled_from(PARAMETERS)),
    st.tuples(st.just("claim"), st.sampled_from(CLAIMS)),
    st.tuples(st.just("user"), st.just("")),
    st.tuples(st.just("host"), st.just("")),
)
holdbacks = st.sampled_from([0, 0, 0, 0, 5_000, 10_000])
shares = st.one_of(st.just(10_000), st.integers(0, 10_000))
_leaves = st.one_of(
    st.builds(
        lambda place, comparison, inverted, share: ConditionSpec(*place, *comparison, inverted, share=share),
        _places,
        _comparisons,
        st.booleans(),
        shares,
    ),
    st.builds(
        lambda compare, value, inverted: ConditionSpec("path", "", compare, (value,), inverted),
        st.sampled_from(["equals", "prefix", "suffix"]),
        st.sampled_from(PATHS),
        st.booleans(),
    ),
    st.builds(
        lambda values, inverted: ConditionSpec("method", "", "one_of", tuple(values), inverted),
        st.lists(st.sampled_from(["GET", "POST"]), min_size=1),
        st.booleans(),
    ),
    st.builds(
        lambda values, inverted: ConditionSpec("client", "", "within", tuple(values), inverted),
        st.lists(st.sampled_from(NETWORKS), min_size=1, max_size=3),
        st.booleans(),
    ),
    st.builds(
        lambda beginning, end, inverted: ConditionSpec("time", "", "within", (beginning, end), inverted),
        st.sampled_from(MOMENTS),
        st.sampled_from(MOMENTS),
        st.booleans(),
    ),
    st.builds(
        lambda path, inverted, share: ConditionSpec("user", "", "listed", (path,), inverted, share=share),
        st.sampled_from(sorted(TABLES)),
        st.booleans(),
        shares,
    ),
)
conditions = st.recursive(
    _leaves,
    lambda children: st.builds(
        lambda kind, parts, inverted, share: ConditionSpec(kind, inverted=inverted, children=tuple(parts), share=share),
        st.sampled_from(["all_of", "any_of"]),
        st.lists(children, min_size=1, max_size=3),
        st.booleans(),
        shares,
    ),
    max_leaves=5,
)
_trusted_only = st.sampled_from([False, False, True])
_identity = st.lists(
    st.one_of(
        st.builds(IdentitySpec, st.just("header"), st.sampled_from(NAMES), _trusted_only),
        st.builds(IdentitySpec, st.just("cookie"), st.sampled_from(COOKIES), _trusted_only),
        st.builds(IdentitySpec, st.just("query"), st.sampled_from(PARAMETERS), _trusted_only),
        st.builds(IdentitySpec, st.sampled_from(["claim", "certificate"]), st.sampled_from(CLAIMS)),
        st.builds(IdentitySpec, st.just("client"), st.just(""), prefix4=st.sampled_from([8, 24, 32])),
    ),
    max_size=3,
)
_anonymous = st.builds(
    lambda name, is_signed: IdentitySpec("anonymous_cookie", name, cookie=CookieSpec(is_signed=is_signed)),
    st.sampled_from(COOKIES),
    st.booleans(),
)


@st.composite
def service_specs(draw: st.DrawFn) -> ServiceSpec:
    """Any service: weights, rules, members, tables, denied lists, holdbacks, kills, identity and login as they come."""
    points = draw(weights)
    rings = []
    for i, basis_points in enumerate(points):
        ring = RingSpec(f"r{i}", draw(st.sampled_from(["v1", "v2"])), basis_points)
        rings.append(
            replace(
                ring,
                rules=tuple(draw(st.lists(conditions, max_size=2))),
                members=tuple(draw(st.lists(st.sampled_from(WORDS[:-1]), max_size=2))),
                tables=tuple(draw(st.lists(st.sampled_from(sorted(TABLES)), max_size=1))),
                denied=tuple(draw(st.lists(conditions, max_size=1))),
                holdback=draw(holdbacks),
            )
        )
    rings.append(RingSpec("everyone", "v1", 10_000 - sum(points)))
    identity = draw(_identity)
    if draw(st.booleans()):
        identity.insert(draw(st.integers(0, len(identity))), draw(_anonymous))
    return ServiceSpec(
        "shop",
        VERSIONS,
        tuple(rings),
        salt=draw(st.sampled_from(["", "salt"])),
        identity=tuple(identity),
        killed=draw(st.lists(st.sampled_from([ring.name for ring in rings]), max_size=3).map(tuple)),
        login=draw(st.sampled_from(["anonymous_first", "user_wins", "outer_wins"])),
    )


def services() -> st.SearchStrategy[Service]:
    return service_specs().map(compiled)


_rings_named = st.sampled_from(["", "", "", "r0", "r1", "everyone", "elsewhere"])


@st.composite
def _requests(draw: st.DrawFn) -> Request:
    headers = draw(st.dictionaries(st.sampled_from(NAMES), _words))
    cookies = draw(st.dictionaries(st.sampled_from(COOKIES), _words))
    made = Request(
        draw(st.sampled_from([b"shop", b"canary"])),
        draw(st.sampled_from(PATHS)).encode(),
        {name.lower().encode(): value.encode() for name, value in headers.items()},
        "; ".join(f"{name}={value}" for name, value in cookies.items()).encode(),
        draw(st.sampled_from([b"GET", b"POST"])),
    )
    parameters = draw(st.lists(st.tuples(st.sampled_from(PARAMETERS), _words), max_size=3))
    made.query = "&".join(f"{name}={value}" for name, value in parameters).encode()
    made.client = draw(st.sampled_from(CLIENTS)).encode()
    made.is_trusted = draw(st.booleans())
    values = st.lists(_words.map(str.encode), min_size=1, max_size=2).map(tuple)
    made.claims = draw(st.dictionaries(st.sampled_from(CLAIMS), values))
    made.certificate = draw(st.dictionaries(st.sampled_from(CLAIMS), values, max_size=1))
    made.now = draw(st.sampled_from([0.0, 1_793_491_200.0, 1_796_112_000.0, 2_000_000_000.0]))
    made.override = draw(_rings_named)
    made.propagated = draw(_rings_named)
    return made


requests = _requests()
known_keys = st.one_of(st.none(), st.sampled_from(WORDS[:-1]).map(lambda word: UserKey(word.encode())))
