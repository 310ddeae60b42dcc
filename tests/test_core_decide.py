"""The published precedence, the road from a host and path to a service, and what a kill does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.core.audience import ConditionSpec, IdentitySpec
from router.core.decide import decide, identify
from router.core.hashing import UserKey, bucket_of
from router.core.snapshot import Reason, Snapshot, compile_service
from router.core.spec import RingSpec, ServiceSpec, SnapshotSpec
from tests.core_services import VERSIONS, request, service

ALICE = UserKey(b"alice")
X_RING = ConditionSpec("header", "X-Ring", "equals", ("early",))
X_ANY = ConditionSpec("header", "X-Ring")
SHOP = ServiceSpec(
    "shop",
    VERSIONS,
    (
        RingSpec("canary", "v2", 500, members=("alice",)),
        RingSpec("early", "v2", 2000, rules=(X_RING,), members=("alice", "bob")),
        RingSpec("late", "v2", 0, rules=(X_ANY,)),
        RingSpec("everyone", "v1", 7500),
    ),
    identity=(
        IdentitySpec("header", "X-User-Id"),
        IdentitySpec("cookie", "uid"),
        IdentitySpec("anonymous_cookie", "r"),
    ),
)


def test_members_come_before_rules_and_rules_before_the_hash() -> None:
    shop = compile_service(SHOP)
    asked = request(x_ring="early")
    alice, stranger = decide(shop, asked, ALICE), decide(shop, asked, UserKey(b"carol"))
    assert (alice.ring, alice.reason) == ("canary", Reason.MEMBER)
    assert (stranger.ring, stranger.version, stranger.reason) == ("early", "v2", Reason.RULE)
    by_hash = decide(shop, request(), UserKey(b"carol"))
    assert by_hash.reason in (Reason.HASH, Reason.DEFAULT)


def test_a_user_listed_in_two_rings_is_in_the_inner_one() -> None:
    assert decide(compile_service(SHOP), request(), ALICE).ring == "canary"


def test_the_inner_rings_rule_is_asked_first() -> None:
    shop = compile_service(SHOP)
    assert decide(shop, request(x_ring="early"), None).ring == "early"
    assert decide(shop, request(x_ring="other"), None).ring == "late"


def test_without_a_key_only_rules_choose_and_the_rest_is_the_default_ring() -> None:
    decision = decide(compile_service(SHOP), request(), None)
    assert (decision.ring, decision.version, decision.reason) == ("everyone", "v1", Reason.DEFAULT)


def test_the_first_identity_source_with_a_value_that_is_not_empty_wins() -> None:
    shop = compile_service(SHOP)
    assert identify(shop, request("uid=7; r=9", x_user_id="alice")) == b"alice"
    assert identify(shop, request("uid=7; r=9", x_user_id="")) == b"7"
    assert identify(shop, request("uid=; r=9")) == b"9"
    assert identify(shop, request()) is None


def test_a_killed_ring_loses_members_rules_and_hash_to_the_rings_outside_it() -> None:
    shop = compile_service(replace(SHOP, killed=("canary",)))
    assert decide(shop, request(), ALICE).ring == "early"  # she is a member there as well
    assert {decision.ring for decision in shop.decisions}.isdisjoint({"canary"})
    canary_user = next(UserKey(b"%d" % n) for n in range(10_000) if bucket_of(b"%d" % n) < 500)
    assert decide(shop, request(), canary_user).ring == "early"


def test_the_default_ring_cannot_be_killed() -> None:
    shop = compile_service(replace(SHOP, killed=("canary", "early", "late", "everyone")))
    assert decide(shop, request(x_ring="early"), ALICE).ring == "everyone"


def test_the_last_bucket_of_an_interval_is_in_and_the_next_one_is_out() -> None:
    key = UserKey(b"alice")
    bucket = bucket_of(key)
    assert decide(service(bucket + 1), request(), key).ring == "r0"
    assert decide(service(bucket), request(), key).ring == "everyone"


@pytest.mark.parametrize(
    ("host", "path", "name"),
    [
        (b"shop.example.com", b"/", "exact"),
        (b"shop.example.com", b"/api", "api"),
        (b"shop.example.com", b"/api/x", "api"),
        (b"shop.example.com", b"/apix", "exact"),
        (b"a.example.com", b"/", "wild"),
        (b"a.b.example.com", b"/", "wild"),
        (b"a.deep.example.com", b"/", "deep"),
        (b"example.com", b"/", "anywhere"),
        (b"", b"/", "anywhere"),
    ],
)
def test_the_more_specific_host_wins_and_then_the_longer_path(host: bytes, path: bytes, name: str) -> None:
    def one(name: str, hosts: tuple[str, ...], paths: tuple[str, ...] = ()) -> ServiceSpec:
        return ServiceSpec(name, VERSIONS, (RingSpec("everyone", "v1", 10_000),), hosts, paths)

    snapshot = Snapshot(
        SnapshotSpec(
            1,
            (
                one("anywhere", ()),
                one("wild", ("*.example.com",)),
                one("deep", ("*.deep.example.com",)),
                one("api", ("shop.example.com",), ("/api/",)),
                one("exact", ("Shop.Example.com",), ("/",)),
            ),
        )
    )
    found = snapshot.find(host, path)
    assert found is not None
    assert found.spec.name == name


def test_nobody_answers_for_a_host_that_no_service_claims() -> None:
    spec = replace(SHOP, hosts=("shop.example.com",), paths=("/api",))
    assert Snapshot(SnapshotSpec(1, (spec,))).find(b"other", b"/api") is None
    assert Snapshot(SnapshotSpec(1, (spec,))).find(b"shop.example.com", b"/") is None
