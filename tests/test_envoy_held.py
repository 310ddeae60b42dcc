"""What was said in Redis and Envoy cannot do stays as it was in force; nothing else waits for it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings

from router.core.spec import RingSpec, ServiceSpec, SnapshotSpec
from router.envoy.held import held
from router.envoy.refusals import of_live
from tests.core_services import service_specs
from tests.house import shop, snapshot

SHOP = shop((9001,), (9002,))
CANARY = SHOP.rings[0]


def with_canary(canary: RingSpec, **changes: object) -> SnapshotSpec:
    return snapshot(replace(SHOP, rings=(canary, *SHOP.rings[1:]), **changes))  # type: ignore[arg-type]


def canary_of(spec: SnapshotSpec) -> RingSpec:
    return spec.services[0].rings[0]


def test_a_kill_goes_on_while_a_holdback_is_refused() -> None:
    wanted = with_canary(replace(CANARY, holdback=1000), killed=("canary",))
    able, (refusal,) = held(wanted, None)
    assert able == with_canary(CANARY, killed=("canary",))
    assert refusal.place == "services.shop.rings.canary.holdback"
    assert refusal.reason
    assert refusal.remedy


def test_members_that_are_too_many_stay_those_in_force_last() -> None:
    before = with_canary(replace(CANARY, members=("alice", "bob")))
    wanted = with_canary(replace(CANARY, members=("alice",), tables=("/tables/one",), basis_points=0))
    able, (refusal,) = held(wanted, before)
    assert able == with_canary(replace(CANARY, members=("alice", "bob"), basis_points=0))
    assert refusal.place == "services.shop.rings.canary.members"
    again, _ = held(wanted, able)  # and so on, for as long as they are too many
    assert again == able


def test_members_that_nobody_knows_are_those_of_the_config() -> None:
    wanted = with_canary(replace(CANARY, members=("alice",), tables=("/tables/one",)))
    for before in (None, snapshot(replace(SHOP, name="another"))):
        able, _ = held(wanted, before)
        assert canary_of(able).members == ("alice",)


def test_members_of_a_ring_with_a_holdback_are_those_that_are_wanted() -> None:
    before = with_canary(replace(CANARY, members=("alice",)))
    able, _ = held(with_canary(replace(CANARY, members=("bob",), holdback=1000)), before)
    assert canary_of(able).members == ("bob",)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(service_specs())
def test_what_is_left_has_nothing_live_against_it_and_is_otherwise_the_same(spec: ServiceSpec) -> None:
    able, kept = held(snapshot(spec), None)
    rings = able.services[0].rings
    assert not any(list(of_live("", ring)) for ring in rings)
    assert (able == snapshot(spec)) is not bool(kept)
    assert rings == tuple(replace(ring, holdback=0, tables=()) for ring in spec.rings)
