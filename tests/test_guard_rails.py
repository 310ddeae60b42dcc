"""Guard rails for whoever types weights: how far, how soon and up to where an audience may be widened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.control.keys import RawService
from router.control.parse import Parsed, parse
from router.control.rails import outside_rails, widened
from router.control.rules import ServiceRules
from router.core.live import Live
from router.core.spec import GuardSpec
from tests.redis_fixture import SHOP, WEIGHTS

RAILED = replace(
    SHOP,
    guard=GuardSpec(max_step=500, min_bake=600.0),
    floors={"early": 500, "everyone": 4000},
    ceilings={"canary": 2000, "early": 5000},
)
STEPS = replace(SHOP, guard=GuardSpec(max_step=500))
BAKE = replace(SHOP, guard=GuardSpec(min_bake=600.0))
NOW = 1_800_000_000.0


def judged(rules: ServiceRules, before: Live | None, typed: Mapping[str, str], now: float = NOW) -> Parsed:
    fields = {ring.encode(): percent.encode() for ring, percent in typed.items()}
    return parse(RawService(weights=fields), rules, before, now)


def reasons(parsed: Parsed) -> list[str]:
    return [problem.reason for problem in parsed.problems]


@pytest.mark.parametrize(
    ("before", "typed", "reason"),
    [
        # canary 1, early 10 is what the config file says
        ({}, {"canary": "6"}, None),
        ({}, {"canary": "6.01"}, "max_step"),
        ({}, {"canary": "0", "early": "0"}, None),
        ({}, {"canary": "6", "early": "5"}, None),
        ({}, {"canary": "3", "early": "13"}, None),
        ({}, {"canary": "3", "early": "13.01"}, "max_step"),  # both are widened, and early's border by both
        ({}, {"canary": "0", "early": "15"}, None),  # canary is narrowed; early begins where canary's share was
        ({}, {"canary": "0", "early": "17"}, "max_step"),  # mixed: refused as a whole
        ({"canary": 2000, "early": 1000}, {"canary": "20.01", "early": "10"}, "ceiling"),
        ({"canary": 2000, "early": 1000}, {"canary": "20", "early": "10"}, None),
        ({"canary": 3000, "early": 1000}, {"canary": "25", "early": "10"}, None),  # above, but narrowed
        ({"canary": 1000, "early": 4800}, {"canary": "9", "early": "50.5"}, "ceiling"),
        ({"canary": 1500, "early": 4300}, {"canary": "15", "early": "45"}, None),
        ({"canary": 1500, "early": 4300}, {"canary": "15", "early": "46"}, "floor"),  # everyone has 39
        ({"canary": 2000, "early": 5000}, {"canary": "20", "early": "49"}, None),  # narrowed, and still below the floor
        ({"canary": 100, "early": 1000}, {"canary": "1", "early": "0"}, None),
    ],
)
def test_what_may_be_typed(before: dict[str, int], typed: dict[str, str], reason: str | None) -> None:
    parsed = judged(RAILED, Live(before), typed)
    assert reasons(parsed) == ([] if reason is None else [reason])
    if reason is None:
        assert parsed.live.weights == {ring: round(float(percent) * 100) for ring, percent in typed.items()}
    else:
        assert parsed.live == Live(before)


def test_each_refusal_says_what_the_limit_is_and_what_would_do() -> None:
    (step,) = judged(STEPS, Live(), {"canary": "50"}).problems
    assert "canary 1 → 50 percent" in step.message
    assert "max_step, 5:" in step.message
    assert "to 6 at the most" in step.message
    (outer,) = judged(STEPS, Live(), {"canary": "3", "early": "50"}).problems
    assert "early with the rings inside it 11 → 53 percent" in outer.message
    (ceiling,) = judged(RAILED, Live({"canary": 1900}), {"canary": "21"}).problems
    assert "ceiling of 20" in ceiling.message
    assert f"HSET {WEIGHTS} canary 20" in ceiling.message
    (floor,) = judged(RAILED, Live({"canary": 1500, "early": 4300}), {"canary": "15", "early": "46"}).problems
    assert "floor of 40" in floor.message
    assert "may have 60 percent together" in floor.message


def test_a_freeze_is_said_rather_than_a_rail() -> None:
    raw = RawService(weights={b"canary": b"80"}, control={b"freeze": b"holiday"})
    assert reasons(parse(raw, RAILED, Live(), NOW)) == ["frozen"]


def test_who_remembers_nothing_adopts_what_it_finds_but_never_above_a_ceiling() -> None:
    assert judged(RAILED, None, {"canary": "20", "early": "40"}).live.weights == {"canary": 2000, "early": 4000}
    assert reasons(judged(RAILED, None, {"canary": "20.01"})) == ["ceiling"]
    assert reasons(judged(RAILED, None, {"canary": "20", "early": "40.01"})) == ["floor"]


def test_a_widening_bakes_before_the_next_and_narrowing_needs_no_time() -> None:
    first = judged(BAKE, Live(), {"canary": "2"})
    assert first.live.widened_at == NOW
    soon = judged(BAKE, first.live, {"canary": "3"}, NOW + 1)
    assert reasons(soon) == ["min_bake"]
    assert soon.live == first.live
    assert soon.live.widened_at == NOW
    message = soon.problems[0].message
    assert "min_bake is 10m" in message
    assert "9m 59s after this was asked for" in message
    assert f"HSET {WEIGHTS} canary 2 takes it back" in message
    assert soon.problems[0].until == NOW + 600
    narrower = judged(BAKE, first.live, {"canary": "1.5"}, NOW + 1)
    assert not narrower.problems
    assert narrower.live.widened_at == NOW  # taking back neither starts the time anew nor ends it
    assert reasons(judged(BAKE, narrower.live, {"canary": "1.6"}, NOW + 599.9)) == ["min_bake"]
    assert judged(BAKE, narrower.live, {"canary": "3"}, NOW + 600).live.weights == {"canary": 300}


def test_a_clock_that_was_set_back_costs_the_time_for_baking_and_not_more() -> None:
    widened_tomorrow = Live({"canary": 200}, widened_at=NOW + 86_400)
    (refusal,) = judged(BAKE, widened_tomorrow, {"canary": "3"}).problems
    assert refusal.until == NOW + 600


def test_what_time_alone_will_not_allow_does_not_speak_of_time() -> None:
    both = replace(SHOP, guard=GuardSpec(max_step=500, min_bake=600.0))
    parsed = judged(both, Live({"canary": 100}, widened_at=NOW), {"canary": "80"}, NOW + 1)
    assert reasons(parsed) == ["max_step"]
    assert parsed.problems[0].until == 0


def test_rings_that_stand_outside_of_their_rails_are_named() -> None:
    assert outside_rails(Live({"canary": 300}), RAILED) == []
    (below,) = outside_rails(Live({"early": 100}), RAILED)
    assert "early has 1 percent, less than its floor of 5" in below
    (above,) = outside_rails(Live({"canary": 2500}), RAILED)
    assert "canary has 25 percent, more than its ceiling of 20" in above


POINTS = st.integers(0, 5000)
LIVES = st.builds(
    lambda canary, early, widened_at: Live({"canary": canary, "early": early}, widened_at=widened_at),
    POINTS, POINTS, st.sampled_from([0.0, NOW - 1000, NOW - 10]),
)  # fmt: skip
RULES = st.builds(
    lambda step, bake, canary, early, everyone: replace(
        SHOP,
        guard=GuardSpec(step, bake),
        ceilings={"canary": canary, "early": early},
        floors={"everyone": everyone},
    ),
    st.sampled_from([0, 1, 100, 500]), st.sampled_from([0.0, 600.0]), POINTS, POINTS, POINTS,
)  # fmt: skip


def typed_of(points: Mapping[str, int]) -> dict[str, str]:
    return {ring: f"{one // 100}.{one % 100:02d}" for ring, one in points.items()}


@given(RULES, LIVES, st.integers(-600, 600), st.integers(-600, 600))
def test_an_accepted_change_keeps_to_every_rail(rules: ServiceRules, before: Live, canary: int, early: int) -> None:
    wanted = {
        "canary": min(max(before.weights["canary"] + canary, 0), 5000),
        "early": min(max(before.weights["early"] + early, 0), 5000),
    }
    parsed = judged(rules, before, typed_of(wanted))
    after = parsed.live
    if parsed.problems:
        assert (after, after.widened_at) == (before, before.widened_at)
        return
    assert after.weights == wanted
    # Reckoned here by hand: how far each border went.
    inner = after.weights["canary"] - before.weights["canary"]
    furthest = max(inner, inner + after.weights["early"] - before.weights["early"])
    if rules.guard.max_step:
        assert furthest <= rules.guard.max_step
    if rules.guard.min_bake and furthest > 0:
        assert before.widened_at != NOW - 10
    assert after.widened_at == (NOW if furthest > 0 else before.widened_at)
    for ring, ceiling in rules.ceilings.items():
        assert after.weights[ring] <= max(ceiling, before.weights[ring])
    left, was = 10_000 - sum(wanted.values()), 10_000 - sum(before.weights.values())
    assert left >= min(rules.floors["everyone"], was)


@given(RULES, LIVES, POINTS, POINTS)
def test_narrowing_is_never_refused(rules: ServiceRules, before: Live, canary: int, early: int) -> None:
    narrower = {"canary": min(canary, before.weights["canary"]), "early": min(early, before.weights["early"])}
    parsed = judged(rules, before, typed_of(narrower))
    assert not parsed.problems
    assert parsed.live.weights == narrower


@given(LIVES, LIVES)
def test_the_step_of_a_ring_is_how_many_come_into_it_or_into_one_inside_it(before: Live, after: Live) -> None:
    def inside(live: Live, ring: str, bucket: int) -> bool:
        return bucket < live.weights["canary"] + (live.weights["early"] if ring == "early" else 0)

    steps = widened(after, before, SHOP)
    for ring in ("canary", "early"):
        came = sum(inside(after, ring, one) and not inside(before, ring, one) for one in range(0, 10_000, 7))
        assert abs(came * 7 - steps.get(ring, 0)) <= 7
