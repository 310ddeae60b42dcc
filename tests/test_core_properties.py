"""What holds for every service and every user: the promises of ring-based deployment."""

from __future__ import annotations

import os
import subprocess
import sys
from math import sqrt

from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.decide import decide, identify
from router.core.explain import explain
from router.core.hashing import UserKey, bucket_of
from router.core.rules import Request
from router.core.snapshot import Reason, Service, compile_service
from tests.core_services import keys, request, requests, service, services, weights

CROWD = [UserKey(b"user-%d" % n) for n in range(20_000)]


def position(shop: Service, key: UserKey) -> int:
    """0 is the innermost ring."""
    ring = decide(shop, request(), key).ring
    return [spec.name for spec in shop.spec.rings].index(ring)


@given(points=weights, which=st.integers(0, 4), by=st.integers(0, 10_000), key=keys)
def test_widening_any_ring_moves_users_inward_only(points: list[int], which: int, by: int, key: bytes) -> None:
    wider = list(points)
    wider[which % len(points)] += min(by, 10_000 - sum(points))
    assert position(service(*wider), UserKey(key)) <= position(service(*points), UserKey(key))


@given(points=weights, which=st.integers(0, 4), key=keys)
def test_killing_a_ring_sends_its_users_outward_and_nobody_else_anywhere(
    points: list[int], which: int, key: bytes
) -> None:
    killed = which % len(points)
    before = position(service(*points), UserKey(key))
    after = position(service(*points, killed=(f"r{killed}",)), UserKey(key))
    assert after > before if before == killed else after == before


@given(points=weights, which=st.integers(0, 4), key=keys)
def test_weight_zero_gets_nobody_by_hash(points: list[int], which: int, key: bytes) -> None:
    empty = which % len(points)
    points = [0 if i == empty else weight for i, weight in enumerate(points)]
    assert decide(service(*points), request(), UserKey(key)).ring != f"r{empty}"


@given(key=keys)
def test_a_ring_of_100_percent_gets_everybody(key: bytes) -> None:
    assert decide(service(10_000), request(), UserKey(key)).reason is Reason.HASH


@given(key=keys, salt=st.text(max_size=8))
def test_a_bucket_is_within_the_hash_space(key: bytes, salt: str) -> None:
    assert 0 <= bucket_of(key, salt.encode()) < 10_000


def test_shares_of_a_crowd_are_within_binomial_bounds() -> None:
    for salt in ("", "search", "checkout"):
        shop = service(100, 1000, 2500, salt=salt)
        for i, points in enumerate((100, 1000, 2500, 6400)):
            share = points / 10_000
            expected, deviation = len(CROWD) * share, sqrt(len(CROWD) * share * (1 - share))
            got = sum(position(shop, key) == i for key in CROWD)
            assert abs(got - expected) < 4 * deviation  # one in 16,000 by chance, and the keys are fixed


def test_a_salt_makes_other_people_the_canaries() -> None:
    plain, salted = service(1000), service(1000, salt="search")
    both = sum(position(plain, key) == 0 and position(salted, key) == 0 for key in CROWD)
    assert 150 < both < 250  # 1 percent of 20,000, as for two independent draws


_OTHER_PROCESS = """
from tests.test_core_properties import CROWD, position, service
print("".join(str(position(service(100, 1000, 2500), key)) for key in CROWD[:2000]))
"""


def test_the_same_key_is_in_the_same_ring_in_every_process() -> None:
    here = "".join(str(position(service(100, 1000, 2500), key)) for key in CROWD[:2000])
    for seed in ("0", "12345"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()}
        there = subprocess.run(
            [sys.executable, "-c", _OTHER_PROCESS], env=environment, capture_output=True, text=True, check=True
        )
        assert there.stdout.strip() == here


@settings(max_examples=500)
@given(shop=services(), asked=requests)
def test_an_explanation_never_disagrees_with_the_proxy(shop: Service, asked: Request) -> None:
    trace = explain(shop, asked)
    key = identify(shop, asked)
    assert trace.key == key
    assert trace.decision == decide(shop, asked, key)
    deciding = [step for step in trace.rules if step.decided]
    if trace.decision.reason is Reason.MEMBER:
        assert trace.member_of == trace.decision.ring
        assert not deciding
    elif trace.decision.reason is Reason.RULE:
        (step,) = deciding
        assert step.ring == trace.decision.ring
        assert step.finding.holds
        asked_before = trace.rules[: trace.rules.index(step)]
        assert not any(earlier.finding.holds and not earlier.killed for earlier in asked_before)
    else:
        assert not deciding
        assert (trace.hash.lands_in if trace.hash else "everyone") == trace.decision.ring


@given(shop=services(), asked=requests)
def test_the_borders_of_an_explanation_are_where_the_user_really_moves(shop: Service, asked: Request) -> None:
    step = explain(shop, asked).hash
    if step is None:
        return
    assert step.inner_border <= step.bucket < step.outer_border
    bounds = compile_service(shop.spec).bounds
    assert step.outer_border in (*bounds, 10_000)
    assert step.may_narrow == step.outer_border - (step.bucket + 1) >= 0
    assert step.widen_to_move_inward is None or step.widen_to_move_inward > 0
