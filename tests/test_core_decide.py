"""The published precedence, the road from a host and path to a service, and what a kill does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.core.audience import ConditionSpec, IdentitySpec
from router.core.decide import decide, identify
from router.core.hashing import UserKey, bucket_of
from router.core.hashing import fingerprint as fingerprint_of_key
from router.core.request import Request
from router.core.snapshot import Reason, Service, Snapshot, compile_service
from router.core.spec import RingSpec, ServiceSpec, SnapshotSpec
from tests.core_services import TABLES, VERSIONS, request, service

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


def forced(override: str = "", propagated: str = "", **headers: str) -> Request:
    asked = request(**headers)
    asked.override, asked.propagated = override, propagated
    return asked


@pytest.mark.parametrize(
    ("override", "propagated", "killed", "ring", "reason"),
    [
        ("early", "", (), "early", Reason.OVERRIDE),
        ("everyone", "early", (), "everyone", Reason.OVERRIDE),
        ("nowhere", "early", (), "early", Reason.PROPAGATED),
        ("nowhere", "", (), "canary", Reason.MEMBER),
        ("", "late", (), "late", Reason.PROPAGATED),
        ("", "nowhere", (), "everyone", Reason.PROPAGATED),
        ("canary", "", ("canary",), "early", Reason.OVERRIDE),
        ("canary", "", ("canary", "early", "late"), "everyone", Reason.OVERRIDE),
        ("", "early", ("early",), "late", Reason.PROPAGATED),
    ],
)
def test_a_kill_beats_an_override_and_that_beats_a_propagated_ring(
    override: str, propagated: str, killed: tuple[str, ...], ring: str, reason: Reason
) -> None:
    shop = compile_service(replace(SHOP, killed=killed))
    decision = decide(shop, forced(override, propagated), ALICE)
    assert (decision.ring, decision.reason) == (ring, reason)


def test_every_ring_has_a_decision_for_overrides_and_for_call_chains() -> None:
    shop = compile_service(SHOP)
    for reason in (Reason.OVERRIDE, Reason.PROPAGATED):
        assert {one.ring for one in shop.decisions if one.reason is reason} == {ring.name for ring in SHOP.rings}
    assert [one.index for one in shop.decisions] == list(range(len(shop.decisions)))


def denying(*rings: str, by: ConditionSpec = X_ANY, killed: tuple[str, ...] = ()) -> Service:
    """The shop, where these rings deny whoever has the header X-Ring (or ``by``)."""
    changed = tuple(replace(ring, denied=(by,) if ring.name in rings else ()) for ring in SHOP.rings)
    return compile_service(replace(SHOP, rings=changed, killed=killed), 0, TABLES.__getitem__)


def test_a_denied_user_is_in_that_ring_neither_by_name_nor_by_rule_nor_by_hash() -> None:
    denied = request(x_ring="early")
    assert decide(denying("canary"), denied, ALICE).ring == "early"  # she is a member there as well
    assert decide(denying("canary", "early"), denied, ALICE).ring == "late"  # its rule holds for her
    everywhere = decide(denying("canary", "early", "late", "everyone"), denied, ALICE)
    assert (everywhere.ring, everywhere.reason) == ("everyone", Reason.DEFAULT)
    canary_user = next(UserKey(b"%d" % n) for n in range(10_000) if bucket_of(b"%d" % n) < 500)
    by_method = ConditionSpec("method", "", "equals", ("GET",))
    by_hash = decide(denying("canary", by=by_method), request(), canary_user)
    assert (by_hash.ring, by_hash.reason) == ("early", Reason.HASH)
    assert decide(denying("canary", by=by_method, killed=("early",)), request(), canary_user).ring == "late"
    assert decide(denying("canary"), request(), canary_user).ring == "canary"


def test_an_override_and_a_call_chain_beat_a_denied_list() -> None:
    shop = denying("canary")
    assert decide(shop, forced("canary", x_ring="x"), None).ring == "canary"
    assert decide(shop, forced("", "canary", x_ring="x"), None).ring == "canary"


def test_a_list_of_the_denied_is_asked_by_key() -> None:
    shop = denying("canary", by=ConditionSpec("user", "", "listed", ("/tables/one",)))
    assert decide(shop, request(), ALICE).ring == "early"
    bob_alone = ConditionSpec("user", "", "one_of", ("bob",))
    assert decide(denying("canary", by=bob_alone), request(), ALICE).ring == "canary"


def test_a_member_of_an_inner_rings_table_is_not_in_the_outer_ring_that_names_them() -> None:
    rings = (
        RingSpec("canary", "v2", tables=("/tables/none", "/tables/one")),
        RingSpec("early", "v2", members=("alice", "bob"), tables=("/tables/two",)),
        RingSpec("late", "v2", members=("x",), tables=("/tables/one",)),
        RingSpec("everyone", "v1", 10_000),
    )
    shop = compile_service(replace(SHOP, rings=rings), 0, TABLES.__getitem__)
    got = {name: decide(shop, request(), UserKey(name)).ring for name in (b"alice", b"bob", b"x", b"carol")}
    assert got == {b"alice": "canary", b"bob": "early", b"x": "canary", b"carol": "everyone"}
    killed = compile_service(replace(SHOP, rings=rings, killed=("canary",)), 0, TABLES.__getitem__)
    assert [decide(killed, request(), UserKey(name)).ring for name in (b"alice", b"x")] == ["early", "late"]


def test_a_table_that_changes_is_seen_by_the_next_request() -> None:
    names: set[bytes] = set()

    class Growing:
        def has(self, fingerprint: int, /) -> bool:
            return fingerprint in {fingerprint_of_key(name) for name in names}

    rings = (RingSpec("canary", "v2", tables=("/tables/live",)), RingSpec("everyone", "v1", 10_000))
    shop = compile_service(replace(SHOP, rings=rings, salt="own"), 0, lambda _path: Growing())
    assert decide(shop, request(), ALICE).ring == "everyone"
    names.add(ALICE)
    assert (decide(shop, request(), ALICE).ring, decide(shop, request(), None).ring) == ("canary", "everyone")


def test_the_decision_notes_the_key_in_the_request() -> None:
    asked = request()
    decide(compile_service(SHOP), asked, ALICE)
    assert asked.key == ALICE


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
