"""Where a user's key may stand, whose word counts, and what a login changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.core.addresses import network_of, prefix_text
from router.core.audience import ConditionSpec, IdentitySpec, IssuerSpec, TrustSpec
from router.core.decide import decide, identify
from router.core.hashing import UserKey, bucket_of
from router.core.identity import put_key
from router.core.request import Request, query_value
from router.core.snapshot import Reason, Service, Snapshot, compile_service
from router.core.spec import Login, RingSpec, ServiceSpec, SnapshotSpec
from tests.core_services import TABLES, VERSIONS, request

SOURCES = (
    IdentitySpec("claim", "realm.user"),
    IdentitySpec("certificate", "cn"),
    IdentitySpec("header", "X-User-Id", is_trusted_only=True),
    IdentitySpec("query", "uid"),
    IdentitySpec("cookie", "uid"),
    IdentitySpec("client", "", prefix4=24, prefix6=56),
)


def shop_of(*identity: IdentitySpec, login: Login = "anonymous_first", weight: int = 5000) -> Service:
    rings = (RingSpec("canary", "v2", weight), RingSpec("everyone", "v1", 10_000 - weight))
    return compile_service(ServiceSpec("shop", VERSIONS, rings, identity=identity, login=login))


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("", None),
        ("uid=7", b"7"),
        ("a=1&uid=7&b=2", b"7"),
        ("xuid=1&uid=7", b"7"),
        ("uidx=1&uid=7", b"7"),
        ("a=uid=1&uid=7", b"7"),
        ("uid", b""),
        ("uid&a", b""),
        ("a;uid=7", None),
        ("uid=7&uid=8", b"7"),
        ("uid=a%20b+c", b"a%20b+c"),
        ("UID=7", None),
        ("uid=a=b", b"a=b"),
    ],
)
def test_a_parameter_is_found_by_its_whole_name_and_never_decoded(query: str, value: bytes | None) -> None:
    assert query_value(query.encode(), b"uid") == value


def test_the_sources_are_asked_in_their_order_and_the_first_hit_wins() -> None:
    shop = shop_of(*SOURCES)
    asked = request("uid=from-cookie", x_user_id="from-header")
    asked.claims = {"realm.user": (b"", b"from-claim")}
    asked.certificate = {"cn": (b"from-certificate",)}
    asked.query = b"uid=from-query"
    asked.client = b"192.0.2.7"
    asked.is_trusted = True
    found = []
    for forget in (
        lambda: asked.claims.clear(),
        lambda: asked.certificate.clear(),
        lambda: asked.headers.clear(),
        lambda: setattr(asked, "query", b"uid="),
        lambda: setattr(asked, "cookie", b""),
        lambda: setattr(asked, "client", b""),
    ):
        found.append(identify(shop, asked))
        forget()
    assert found == [
        b"from-claim", b"from-certificate", b"from-header", b"from-query", b"from-cookie", b"192.0.2.0",
    ]  # fmt: skip
    assert identify(shop, asked) is None


def test_a_source_for_trusted_peers_is_deaf_to_everybody_else() -> None:
    shop = shop_of(IdentitySpec("header", "X-User-Id", is_trusted_only=True), IdentitySpec("cookie", "uid"))
    asked = request("uid=7", x_user_id="admin")
    assert identify(shop, asked) == b"7"
    asked.is_trusted = True
    assert identify(shop, asked) == b"admin"


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.77", b"192.0.2.0"),
        ("::ffff:192.0.2.77", b"192.0.2.0"),
        ("2001:DB8:1:2ff:3::4", b"2001:db8:1:200::"),
        ("2001:0db8:0001:0200::1", b"2001:db8:1:200::"),
        ("fe80::1%eth0", b"fe80::"),
        ("", None),
        ("unix", None),
        ("192.0.2.077", None),
    ],
)
def test_an_address_is_one_key_however_it_is_written(address: str, key: bytes | None) -> None:
    assert prefix_text(address.encode(), 24, 56) == key


def test_a_prefix_of_nothing_and_of_everything() -> None:
    assert prefix_text(b"192.0.2.77", 0, 0) == b"0.0.0.0"
    assert prefix_text(b"192.0.2.77", 32, 128) == b"192.0.2.77"
    assert network_of("::ffff:10.0.0.0/104") == network_of("10.0.0.0/8")


@pytest.mark.parametrize(
    ("source", "needs"),
    [
        (IdentitySpec("header", "X-User-Id"), set()),
        (IdentitySpec("anonymous_cookie", "r"), set()),
        (IdentitySpec("query", "uid"), {"query"}),
        (IdentitySpec("claim", "sub"), {"claims"}),
        (IdentitySpec("certificate", "cn"), {"certificate"}),
        (IdentitySpec("client", ""), {"client"}),
    ],
)
def test_a_service_says_what_it_needs_to_know_of_a_request(source: IdentitySpec, needs: set[str]) -> None:
    assert shop_of(source).needs == needs
    asked = Request(b"shop", b"/", {})
    put_key(source, asked, b"192.0.2.7")
    assert identify(shop_of(source), asked) == b"192.0.2.7"


def test_rules_and_denied_lists_say_what_they_need_as_well_however_deep_it_is() -> None:
    deep = ConditionSpec("any_of", children=(ConditionSpec("time", "", "within"), ConditionSpec("query", "q")))
    denied = ConditionSpec("all_of", inverted=True, children=(ConditionSpec("header", "X-Country"),))
    claim = ConditionSpec("claim", "sub")
    canary = RingSpec("canary", "v2", rules=(deep,), denied=(denied, claim))
    spec = ServiceSpec("shop", VERSIONS, (canary, RingSpec("everyone", "v1", 10_000)))
    issuer = IssuerSpec("sso", ("RS256",), header="X-Token")
    snapshot = Snapshot(SnapshotSpec(1, (spec,), trust=TrustSpec(issuers=(issuer,))))
    assert snapshot.services[0].needs == {"time", "query", "claims"}
    assert snapshot.wanted_headers == {b"x-country", b"x-token"}


HEADER, ANONYMOUS = IdentitySpec("header", "X-User-Id"), IdentitySpec("anonymous_cookie", "r")
INNER = next(f"anonymous-{n}" for n in range(100) if bucket_of(b"anonymous-%d" % n) < 5000)
OUTER = next(f"user-{n}" for n in range(100) if bucket_of(b"user-%d" % n) >= 5000)


@pytest.mark.parametrize(
    ("login", "cookie", "user", "ring"),
    [
        ("anonymous_first", INNER, OUTER, "canary"),
        ("anonymous_first", OUTER, INNER, "everyone"),
        ("user_wins", INNER, OUTER, "everyone"),
        ("user_wins", OUTER, INNER, "canary"),
        ("outer_wins", INNER, OUTER, "everyone"),
        ("outer_wins", OUTER, INNER, "everyone"),
        ("outer_wins", INNER, INNER, "canary"),
    ],
)
@pytest.mark.parametrize("order", [(HEADER, ANONYMOUS), (ANONYMOUS, HEADER)])
def test_a_login_moves_nobody_unless_the_service_says_so(
    login: Login, cookie: str, user: str, ring: str, order: tuple[IdentitySpec, ...]
) -> None:
    shop = shop_of(*order, login=login)
    asked = request(f"r={cookie}", x_user_id=user)
    if login == "user_wins" and order[0] is ANONYMOUS:
        ring = "canary" if cookie == INNER else "everyone"  # the first hit wins for everything
        assert identify(shop, asked) == cookie.encode()
    else:
        assert identify(shop, asked) == user.encode()
    assert decide(shop, asked, identify(shop, asked)).ring == ring
    alone = request(f"r={cookie}")
    assert decide(shop, alone, identify(shop, alone)).ring == ("canary" if cookie == INNER else "everyone")
    elsewhere = request(x_user_id=user)
    assert decide(shop, elsewhere, identify(shop, elsewhere)).ring == ("canary" if user == INNER else "everyone")


LISTS = ServiceSpec(
    "shop",
    VERSIONS,
    (
        RingSpec("staff", "v2", members=("alice", "seen-before")),
        RingSpec("beta", "v2", rules=(ConditionSpec("user", "", "equals", ("bob",)),), tables=("/tables/one",)),
        RingSpec("everyone", "v1", 10_000),
    ),
    identity=(HEADER, ANONYMOUS),
)


@pytest.mark.parametrize(
    ("cookie", "user", "ring", "reason"),
    [
        ("seen-before", "nobody", "staff", Reason.MEMBER),
        ("seen-before", "x", "beta", Reason.MEMBER),
        ("nobody", "alice", "staff", Reason.MEMBER),
        ("x", "nobody", "beta", Reason.MEMBER),
        ("nobody", "bob", "beta", Reason.RULE),
        ("bob", "nobody", "everyone", Reason.DEFAULT),
    ],
)
@pytest.mark.parametrize("login", ["anonymous_first", "outer_wins"])
def test_lists_know_the_user_by_their_own_key_and_else_by_the_cookies(
    cookie: str, user: str, ring: str, reason: Reason, login: Login
) -> None:
    shop = compile_service(replace(LISTS, login=login), 0, TABLES.__getitem__)
    asked = request(f"r={cookie}", x_user_id=user)
    decision = decide(shop, asked, identify(shop, asked))
    assert (decision.ring, decision.reason) == (ring, reason)


@pytest.mark.parametrize(("login", "holds"), [("anonymous_first", True), ("user_wins", False), ("outer_wins", False)])
def test_a_share_looks_at_the_key_that_is_hashed(login: Login, holds: bool) -> None:
    salt = b"share:"
    inside = next(f"in-{n}" for n in range(100) if bucket_of(b"in-%d" % n, salt) < 2000)
    outside = next(f"out-{n}" for n in range(100) if bucket_of(b"out-%d" % n, salt) >= 2000)
    rule = ConditionSpec("header", "X-Beta", share=2000)
    rings = (RingSpec("canary", "v2", rules=(rule,)), RingSpec("everyone", "v1", 10_000))
    shop = compile_service(ServiceSpec("shop", VERSIONS, rings, identity=(HEADER, ANONYMOUS), login=login))
    asked = request(f"r={inside}", x_user_id=outside, x_beta="1")
    assert (decide(shop, asked, identify(shop, asked)).ring == "canary") is holds
    assert decide(shop, request(x_beta="1"), None).ring == "everyone"
    assert decide(shop, request(x_beta="1"), UserKey(inside.encode())).ring == "canary"
