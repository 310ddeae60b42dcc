"""What pauses a rollout, what ends a pause, and what people may do with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from router.rollout.plan import Plan, RiskBudget
from router.rollout.progress import Phase
from router.rollout.state import HEALING, Routing
from router.rollout.turn import routing_at
from tests.rollout_hand import BEFORE, PAUSES, PLAN, Hand, approved, with_step


@pytest.mark.parametrize("why", PAUSES)
def test_a_pause_leaves_the_routing_as_it_is(why: str) -> None:
    hand = Hand().paused(why)
    assert len(hand.written) == 1
    for _ in range(20):
        assert hand.tick(reporting=0) is None
    assert hand.state.phase == "paused"


@pytest.mark.parametrize("why", PAUSES)
def test_a_pause_ends_by_itself_only_when_its_reason_is_gone(why: str) -> None:
    hand = Hand().paused(why)
    step, round_ = hand.state.step, hand.state.round
    for _ in range(20):
        hand.tick()
    if why in HEALING:
        assert hand.state.phase == "proving"
        assert hand.state.step_round > round_
    else:
        assert (hand.state.phase, hand.state.why) == ("paused", why)
    assert hand.state.step == step


def test_three_whole_ticks_in_a_row_end_a_pause_for_want_of_figures_and_the_outage_is_not_baked() -> None:
    hand = Hand().paused("no_data")
    baked = hand.state.baked
    for reporting in (2, 2, 1, 2, 2):
        hand.tick(reporting=reporting)
        assert hand.state.phase == "paused"
    hand.tick()
    assert (hand.state.phase, hand.state.baked) == ("baking", baked)


def test_a_dependency_that_is_still_lost_keeps_it_paused() -> None:
    hand = Hand().paused("dependency")
    for _ in range(10):
        hand.tick(lost=("auth does not run v7 in everyone",))
    assert hand.state.phase == "paused"


@pytest.mark.parametrize("why", HEALING)
def test_who_pauses_what_is_paused_for_want_of_something_keeps_it_paused(why: str) -> None:
    hand = Hand().paused(why)
    wish = hand.wish("pause")
    hand.tick(wish)
    for _ in range(10):
        hand.tick()
    assert (hand.state.phase, hand.state.why) == ("paused", "manual")
    assert wish.id not in hand.state.refused


def test_at_night_nobody_comes_to_either_and_it_waits() -> None:
    hand = Hand().reach("baking")
    for _ in range(50):
        hand.tick(ring_requests=0, control_requests=0)
    assert hand.state.phase == "proving"


def test_nine_of_ten_instances_are_enough_and_eight_are_not() -> None:
    live = tuple(f"router-{number}" for number in range(10))
    hand = Hand().reach("baking")
    hand.tick(live=live, reporting=8, cohorts=hand.good())
    assert hand.state.users(PLAN) == 0
    hand.tick(live=live, reporting=9, cohorts=hand.good())
    assert hand.state.users(PLAN) == 1000


@pytest.mark.parametrize("blind", [{"reporting": 1}, {"missing": ("orders",)}])
@pytest.mark.parametrize("on_deadline", ["pause", "promote"])
def test_it_does_not_go_on_in_a_tick_whose_figures_are_not_there(blind: dict[str, Any], on_deadline: Any) -> None:
    hand = Hand(replace(with_step(PLAN, 0, deadline=60.0), on_deadline=on_deadline)).reach("proving")
    hand.tick(closed="closed by a window: fri", cohorts=hand.good() if on_deadline == "pause" else ())
    for _ in range(2):
        hand.at += 60.0
        assert hand.tick(**blind) is None
    assert hand.state.step == 0
    assert hand.state.judged == "error"


def test_a_source_that_does_not_answer_holds_it_and_what_others_say_still_leads_back() -> None:
    hand = Hand().reach("proving")
    for _ in range(5):
        assert hand.tick(missing=("orders",), cohorts=hand.good()) is None
    assert hand.state.judged == "error"
    assert hand.tick(missing=("orders",), cohorts=hand.bad("errors", 20_000)) == BEFORE


def test_a_tick_that_comes_late_makes_up_for_no_gate() -> None:
    hand = Hand(with_step(PLAN, 1, bake=3600.0)).reach("baking")
    for tick in range(hand.state.tick + 1, hand.state.tick + 40):
        hand.at += 0.01
        hand.take(hand.seen(tick=tick, is_whole=True, reporting=2, ring_requests=9, cohorts=hand.good()))
    assert hand.state.step <= 1
    assert hand.state.baked < 3600.0


def test_the_tolerance_for_a_wrong_split_is_the_plans() -> None:
    split = {"arrived": (11_000, 89_000), "share": 0.1}
    strict = Hand().reach("baking")
    strict.tick(**split)
    assert strict.state.why == "srm"
    lenient = Hand(replace(PLAN, checks=replace(PLAN.checks, srm_tolerance=0.2))).reach("baking")
    lenient.tick(**split)
    assert lenient.state.phase == "baking"


@pytest.mark.parametrize("phase", ["pending", "shifting", "baking", "proving", "approval"])
def test_who_resumes_it_gets_it_back_where_it_was_but_for_its_proof(phase: Phase) -> None:
    hand = Hand(approved())
    hand.reach(phase)
    hand.look(hand.wish("pause"))
    hand.tick(cohorts=hand.good())
    assert hand.state.phase == "paused"
    hand.look(hand.wish("resume"), waiting=("west",))
    assert hand.state.phase == ("proving" if phase == "approval" else phase)
    for _ in range(10):
        hand.tick(closed="closed by a window: fri")
    assert hand.state.phase in ("waiting", "proving")


@pytest.mark.parametrize("wish", [("promote", ""), ("resume", "accept"), ("resume", "restore"), ("resume", "adopt")])
def test_no_step_is_skipped_by_who_moves_on_what_has_not_begun(wish: Any) -> None:
    hand = Hand(with_step(PLAN, 0, deadline=30.0)).reach("pending")
    hand.look(hand.wish("pause"), after=0.1)
    hand.look(hand.wish(*wish))
    for _ in range(20):
        hand.tick(closed="closed by a window: fri")
    assert hand.routed == BEFORE
    assert hand.state.step == 0


@pytest.mark.parametrize("wish", [("promote", ""), ("resume", "accept")])
def test_who_accepts_a_step_unproven_moves_it_by_one_and_it_is_written_down(wish: Any) -> None:
    hand = Hand().paused("srm")
    assert hand.look(hand.wish(*wish)) == routing_at(PLAN, BEFORE, 1)
    assert (hand.state.step, hand.state.phase) == (1, "shifting")
    accepted = [one for one in hand.state.events if one.after == "accepted unproven"]
    assert [(one.actor, one.reason) for one in accepted] == [("ada", "because")]
    assert "errors not yet proven" in accepted[0].sentence


@pytest.mark.parametrize("wish", [("promote", ""), ("resume", "accept"), ("resume", "")])
def test_after_somebody_elses_edit_it_is_adopt_or_restore_first(wish: Any) -> None:
    hand = Hand().paused("override")
    command = hand.wish(*wish)
    assert hand.look(command) is None
    assert "--restore" in hand.state.refused[command.id]
    assert hand.state.why == "override"


def test_restore_puts_back_what_it_had_written() -> None:
    hand = Hand().paused("override")
    assert hand.look(hand.wish("resume", "restore")) == routing_at(PLAN, BEFORE, 0)
    hand.look()
    assert hand.state.phase == "baking"


def test_restore_does_not_widen_beyond_what_a_budget_had_allowed() -> None:
    plan = with_step(replace(PLAN, budget=RiskBudget(users=50, max_factor=2.0)), 1, weight=5000)
    hand = Hand(plan).reach("shifting", 1)
    assert hand.state.expected.weights["canary"] < 5000
    written = hand.written[-1]
    hand.edit({"canary": 9000})
    hand.look()
    assert hand.state.why == "override"
    assert hand.look(hand.wish("resume", "restore")) == written


@pytest.mark.parametrize(("weight", "step"), [(100, 0), (499, 0), (500, 1), (700, 1)])
def test_adopt_goes_on_from_what_is_routed_and_changes_nothing_of_it(weight: int, step: int) -> None:
    hand = Hand().paused("override")
    hand.edit({"canary": weight})
    assert hand.look(hand.wish("resume", "adopt")) is None
    assert (hand.state.step, hand.state.phase) == (step, "shifting")
    assert hand.state.expected.weights["canary"] == weight
    assert len(hand.state.entered_at) == step + 1
    hand.look()
    assert hand.state.phase == "baking"
    assert hand.reach("succeeded", 3).written[1:] == [routing_at(PLAN, BEFORE, one) for one in range(step + 1, 4)]


def test_adopt_of_what_is_before_the_first_step_begins_again() -> None:
    hand = Hand().paused("override")
    hand.edit({"canary": 50})
    assert hand.look(hand.wish("resume", "adopt")) is None
    assert hand.state.phase == "pending"
    assert hand.tick() == routing_at(PLAN, BEFORE, 0)
    assert hand.reach("succeeded", 3)


@pytest.mark.parametrize(
    ("policy", "phase", "routed"),
    [("pause", "paused", 700), ("adopt", "shifting", 700), ("revert", "shifting", 100)],
)
def test_what_somebody_sets_by_hand_is_treated_as_the_plan_says(policy: Any, phase: Phase, routed: int) -> None:
    hand = Hand(replace(PLAN, on_manual_edit=policy)).reach("baking")
    hand.edit({"canary": 700})
    hand.look()
    assert hand.state.phase == phase
    assert hand.routed.weights["canary"] == routed
    assert any(one.kind == "override" and "canary 1 % → 7 %" in one.sentence for one in hand.state.events)


@pytest.mark.parametrize("policy", ["pause", "adopt", "revert"])
def test_who_kills_the_candidates_ring_is_never_fought(policy: Any) -> None:
    hand = Hand(replace(PLAN, on_manual_edit=policy)).reach("baking")
    assert hand.look(killed=("canary",)) is None
    assert (hand.state.phase, hand.state.why) == ("paused", "override")


@pytest.mark.parametrize("policy", ["pause", "adopt", "revert"])
def test_who_sets_the_candidates_ring_to_nothing_rolls_back(policy: Any) -> None:
    hand = Hand(replace(PLAN, on_manual_edit=policy)).reach("baking")
    hand.edit({"canary": 0})
    assert hand.look() == hand.state.before
    assert (hand.state.phase, hand.state.cause) == ("rolling_back", "somebody set canary to 0 by hand")


@pytest.mark.parametrize("policy", ["adopt", "revert"])
@pytest.mark.parametrize("why", ["signal", "srm", "no_data"])
def test_an_edit_does_not_end_a_pause(why: str, policy: Any) -> None:
    hand = Hand(replace(PLAN, on_manual_edit=policy)).paused(why)
    hand.edit({"canary": 700})
    assert hand.tick() is None
    assert (hand.state.phase, hand.state.why) == ("paused", "override")


def test_who_observes_does_not_mind_what_people_set() -> None:
    hand = Hand(replace(PLAN, mode="observe")).reach("baking")
    hand.edit({"canary": 700})
    hand.look()
    assert hand.state.phase == "baking"


@pytest.mark.parametrize("why", ["signal", "uncalibrated"])
@pytest.mark.parametrize("how", ["", "accept"])
def test_who_has_decided_about_a_signal_is_not_asked_again_at_once(why: str, how: Any) -> None:
    hand = Hand().paused(why)
    hand.look(hand.wish("resume", how))
    for _ in range(5):
        hand.tick()
    assert hand.state.phase == "proving"
    assert hand.state.step == (1 if how else 0)


def test_what_was_let_pass_is_found_again_when_it_goes_on() -> None:
    hand = Hand().paused("signal")
    hand.look(hand.wish("resume"))
    hand.tick()
    hand.tick()
    hand.tick(cohorts=hand.bad("http_4xx"))
    assert (hand.state.phase, hand.state.why) == ("paused", "signal")


MODES: list[Plan] = [PLAN, replace(PLAN, mode="observe")]


@pytest.mark.parametrize("plan", MODES, ids=["enforce", "observe"])
@pytest.mark.parametrize("second", [("promote", ""), ("approve", ""), ("resume", "accept")])
def test_two_who_want_it_to_go_on_at_once_move_it_by_one_step(plan: Plan, second: Any) -> None:
    hand = Hand(plan).reach("baking")
    wishes = [hand.wish("promote"), hand.wish("pause"), hand.wish(*second, actor="grace")]
    hand.look(*wishes)
    assert hand.state.step == 1
    assert wishes[2].id in hand.state.refused


def test_who_wants_it_back_is_heard_though_somebody_has_just_moved_it_on() -> None:
    hand = Hand().reach("baking")
    wishes = [hand.wish("promote"), hand.wish("rollback", actor="grace")]
    assert hand.look(*wishes) == BEFORE
    assert hand.state.phase == "rolling_back"
    assert set(hand.state.done) == {wish.id for wish in wishes}


def test_a_wish_is_followed_once_though_it_is_seen_again() -> None:
    hand = Hand().reach("baking")
    wish = hand.wish("promote")
    hand.look(wish)
    hand.look()
    assert hand.look(wish) is None
    assert hand.state.step == 1


def test_abort_leaves_everything_as_it_is() -> None:
    hand = Hand().reach("baking", 1)
    assert hand.look(hand.wish("abort")) is None
    assert hand.state.phase == "aborted"
    assert hand.routed == Routing(**{name: getattr(routing_at(PLAN, BEFORE, 1), name)
                                     for name in ("weights", "versions", "holdbacks")})  # fmt: skip


@pytest.mark.parametrize("why", ["no_traffic", "srm"])
def test_who_resumes_it_gives_what_it_was_paused_for_its_time_again(why: str) -> None:
    hand = Hand().paused(why)
    hand.look(hand.wish("resume"))
    hand.tick(ring_requests=0)
    assert hand.state.phase != "paused"
