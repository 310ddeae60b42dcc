"""What holds for every service and every user: the promises of ring-based deployment."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import accumulate
from math import sqrt

from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.audience import ConditionSpec
from router.core.conditions import DENIED_SALT, SHARE_SALT, compile_condition
from router.core.decide import decide, identify, take_notes
from router.core.explain import explain
from router.core.hashing import UserKey, bucket_of, fingerprint
from router.core.request import Request
from router.core.snapshot import Reason, Service
from router.core.spec import ServiceSpec
from tests.core_services import (
    TABLES,
    compiled,
    conditions,
    keys,
    request,
    requests,
    service,
    service_specs,
    services,
    shares,
    weights,
)
from tests.native import examples

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


def expected(shop: Service, asked: Request, key: UserKey | None) -> tuple[str, Reason]:
    """The published precedence, asked the slow way: ring by ring, rule by rule. The request knows its keys already."""
    spec, salt = shop.spec, shop.spec.salt.encode()
    rings, last = spec.rings, len(spec.rings) - 1
    is_open = [ring.name not in spec.killed or place == last for place, ring in enumerate(rings)]
    names = [ring.name for ring in rings]

    def at_or_outside(place: int, allowed: list[bool]) -> int:
        return next(at for at in range(place, last + 1) if allowed[at])

    if asked.override in names:
        return names[at_or_outside(names.index(asked.override), is_open)], Reason.OVERRIDE
    if asked.propagated:
        place = names.index(asked.propagated) if asked.propagated in names else last
        return names[at_or_outside(place, is_open)], Reason.PROPAGATED

    def holds(one: ConditionSpec, salt: bytes) -> bool:
        return compile_condition(one, TABLES.__getitem__, salt)(asked)

    is_denied = [any(holds(one, DENIED_SALT + salt) for one in ring.denied) for ring in rings]
    may_have = [is_open[at] and (at == last or not is_denied[at]) for at in range(last + 1)]
    anonymous = asked.hashed or asked.outer
    for one in (key, anonymous):
        for at, ring in enumerate(rings):
            is_listed = one is not None and (
                one.decode("latin-1") in ring.members or any(TABLES[path].has(fingerprint(one)) for path in ring.tables)
            )
            if may_have[at] and is_listed:
                return ring.name, Reason.MEMBER
    for at, ring in enumerate(rings):
        if may_have[at] and any(holds(rule, SHARE_SALT + salt) for rule in ring.rules):
            return ring.name, Reason.RULE
    if key is None:
        return names[last], Reason.DEFAULT
    hashed = [asked.hashed or key] + ([asked.outer] if asked.outer else [])
    bucket = max(bucket_of(one, salt) for one in hashed)
    ends = accumulate(ring.basis_points for ring in rings[:-1])
    at = at_or_outside(next((at for at, end in enumerate(ends) if bucket < end), last), may_have)
    return names[at], Reason.DEFAULT if at == last else Reason.HASH


def expected_version(shop: Service, asked: Request, key: UserKey | None, ring: str, reason: Reason) -> str:
    """The ring's, but for those whom the ring holds back: they keep that of the next one outward that has users."""
    spec, salt = shop.spec, shop.spec.salt.encode()
    place = [one.name for one in spec.rings].index(ring)
    own = spec.rings[place]
    if key is None or reason not in (Reason.MEMBER, Reason.RULE, Reason.HASH) or place == len(spec.rings) - 1:
        return own.version
    outer = next(
        one for one in spec.rings[place + 1 :] if one.name not in spec.killed or one.name == spec.rings[-1].name
    )
    counted = [one for one in (asked.hashed or key, asked.outer) if one is not None]
    before = b"holdback\0%b\0%b" % (ring.encode(), salt)
    is_held = any(fingerprint(before + one) % 10_000 < own.holdback for one in counted)
    return outer.version if is_held else own.version


@settings(max_examples=examples(300))
@given(shop=services(), asked=requests)
def test_the_decision_is_the_published_precedence_asked_one_by_one(shop: Service, asked: Request) -> None:
    key = identify(shop, asked)
    decision = decide(shop, asked, key)
    if not shop.is_intricate:
        take_notes(shop, asked, key)
    assert (decision.ring, decision.reason) == expected(shop, asked, key)
    assert decision.version == expected_version(shop, asked, key, decision.ring, decision.reason)
    assert shop.decisions[decision.index] is decision
    assert shop.spec.rings[decision.place].name == decision.ring


@settings(max_examples=examples(300))
@given(spec=service_specs(), asked=requests, which=st.integers(0, 4), by=st.integers(0, 10_000))
def test_widening_moves_inward_only_whatever_else_a_service_has(
    spec: ServiceSpec, asked: Request, which: int, by: int
) -> None:
    rings = list(spec.rings)
    ring = rings[which % (len(rings) - 1)]
    free = 10_000 - sum(one.basis_points for one in rings[:-1])
    rings[which % (len(rings) - 1)] = replace(ring, basis_points=ring.basis_points + min(by, free))
    before, after = compiled(spec), compiled(replace(spec, rings=tuple(rings)))
    key = identify(before, asked)
    assert decide(after, asked, key).place <= decide(before, asked, key).place


@settings(max_examples=examples(300))
@given(spec=service_specs(), rule=conditions, asked=requests, shares=st.tuples(shares, shares))
def test_a_larger_share_of_a_rule_moves_inward_only(
    spec: ServiceSpec, rule: ConditionSpec, asked: Request, shares: tuple[int, int]
) -> None:
    def with_share(share: int) -> Service:
        inner = replace(spec.rings[0], rules=(replace(rule, share=share),), members=(), tables=())
        others = tuple(replace(ring, members=(), tables=()) for ring in spec.rings[1:])
        return compiled(replace(spec, rings=(inner, *others)))

    narrow, wide = with_share(min(shares)), with_share(max(shares))
    key = identify(narrow, asked)
    assert decide(wide, asked, key).place <= decide(narrow, asked, key).place


@given(spec=service_specs(), asked=requests, ring=st.integers(0, 4), rule=conditions)
def test_a_denied_user_is_never_in_the_ring_that_denies_them(
    spec: ServiceSpec, asked: Request, ring: int, rule: ConditionSpec
) -> None:
    place = ring % (len(spec.rings) - 1)
    everybody = ConditionSpec("any_of", inverted=True)
    rings = list(spec.rings)
    rings[place] = replace(rings[place], denied=(rule, everybody))
    shop = compiled(replace(spec, rings=tuple(rings)))
    asked.override = asked.propagated = ""
    assert decide(shop, asked, identify(shop, asked)).place != place


@settings(max_examples=examples(300))
@given(shop=services(), asked=requests)
def test_an_explanation_never_disagrees_with_the_proxy(shop: Service, asked: Request) -> None:
    trace = explain(shop, asked)
    key = identify(shop, asked)
    assert trace.key == key
    assert trace.decision == decide(shop, asked, key)
    ring, reason = trace.decision.ring, trace.decision.reason
    chosen = [step.value for step in trace.identity if step.chosen]
    assert chosen == ([] if key is None else [key])
    decided = (
        [step.lands_in for step in trace.forced if step.decided],
        [step.ring for step in trace.rules if step.decided],
    )
    if reason in (Reason.OVERRIDE, Reason.PROPAGATED):
        assert decided == ([ring], [])
        return
    assert ring not in trace.denied
    if reason is Reason.MEMBER:
        assert trace.member_of == ring
        assert decided == ([], [])
    elif reason is Reason.RULE:
        assert decided == ([], [ring])
        step = next(step for step in trace.rules if step.decided)
        assert step.finding.holds
        assert not step.killed
        before = [one for one in trace.rules[: trace.rules.index(step)] if one.ring not in trace.denied]
        assert not any(one.finding.holds and not one.killed for one in before)
    else:
        assert decided == ([], [])
        assert (trace.hash.lands_in if trace.hash else "everyone") == ring
    held = {step.ring for step in trace.deny_lists if step.finding.holds and not step.killed}
    assert held == set(trace.denied)


@given(shop=services(), asked=requests)
def test_the_borders_of_an_explanation_are_where_the_user_really_moves(shop: Service, asked: Request) -> None:
    step = explain(shop, asked).hash
    if step is None:
        return
    assert step.inner_border <= step.bucket < step.outer_border
    bounds = shop.bounds
    assert step.outer_border in (*bounds, 10_000)
    assert step.may_narrow == step.outer_border - (step.bucket + 1) >= 0
    assert step.widen_to_move_inward is None or step.widen_to_move_inward > 0
