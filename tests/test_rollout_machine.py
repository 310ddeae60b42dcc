"""The story of each row of the tables: how a rollout goes on, and how it goes back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from router.rollout.plan import Breaker, RiskBudget
from router.rollout.progress import Phase
from router.rollout.sentences import missing
from router.rollout.showing import progress
from router.rollout.state import HEALING
from router.rollout.statistics.two_ring import Margin
from router.rollout.turn import routing_at
from tests.rollout_hand import BEFORE, HARM, PAUSES, PLAN, Hand, approved, with_step


def test_it_begins_when_every_instance_can_have_heard_of_it() -> None:
    hand = Hand()
    assert hand.look(after=1.9) is None
    assert hand.state.phase == "pending"
    assert hand.look(after=0.1) == routing_at(PLAN, BEFORE, 0)
    assert hand.state.phase == "shifting"


@pytest.mark.parametrize(
    ("hindrance", "said"),
    [
        ({"closed": "closed by a window: fri"}, "closed by a window"),
        ({"freeze": "black friday"}, "frozen: black friday"),
        ({"lost": ("auth does not run v7",)}, "auth does not run v7"),
    ],
)
def test_what_forbids_to_start_is_waited_for_and_said(hindrance: dict[str, Any], said: str) -> None:
    hand = Hand()
    assert hand.tick(**hindrance) is None
    assert hand.state.phase == "waiting"
    assert said in hand.last.sentence
    assert hand.tick(**hindrance) is None
    assert hand.look() is not None
    assert hand.state.phase == "shifting"


def test_it_bakes_from_when_the_last_instance_has_applied_the_step() -> None:
    hand = Hand().reach("shifting")
    hand.look(waiting=("west",))
    assert hand.state.phase == "shifting"
    round_ = hand.state.round
    hand.look()
    assert hand.state.phase == "baking"
    assert hand.state.round == hand.state.step_round == round_ + 1
    assert hand.state.baked == 0.0


def test_who_does_not_apply_it_within_a_minute_is_named_and_not_waited_for() -> None:
    hand = Hand().reach("shifting")
    hand.look(after=60.0, waiting=("west",))
    assert hand.state.phase == "shifting"
    hand.look(after=0.1, waiting=("west",))
    assert hand.state.phase == "baking"
    assert "1 of 2" in hand.last.sentence
    assert "without west" in hand.last.sentence


def test_while_an_instance_waits_the_bake_stands_still() -> None:
    hand = Hand().reach("baking")
    for _ in range(5):
        hand.tick(waiting=("west",))
    assert hand.state.baked == 0.0
    hand.tick()
    assert hand.state.baked == PLAN.tick


def test_users_of_the_tick_in_which_it_was_applied_do_not_count() -> None:
    hand = Hand().reach("shifting")
    hand.look()
    early = hand.state.clean_tick
    hand.take(hand.seen(tick=early - 1, is_whole=True, reporting=2, ring_requests=9, cohorts=hand.good()))
    assert hand.state.users(PLAN) == 0
    hand.take(hand.seen(tick=early, is_whole=True, reporting=2, ring_requests=9, cohorts=hand.good()))
    assert hand.state.users(PLAN) == 1000


def test_it_walks_from_ring_to_ring_by_proof_and_every_routing_is_the_plans() -> None:
    hand = Hand().reach("succeeded", 3)
    assert hand.written == [routing_at(PLAN, BEFORE, number) for number in range(4)]
    assert len(hand.state.entered_at) == len(hand.state.left_at) == 4
    assert [users >= 100 for users in hand.state.left_users] == [True, True, True]


@pytest.mark.parametrize(
    ("lacking", "more"),
    [
        ("errors not yet proven", {"cohorts": lambda hand: hand.good(110)[1:]}),
        ("of 100 users", {"cohorts": lambda hand: hand.good(90)}),
    ],
)
def test_without_proof_or_users_it_holds_and_says_what_is_missing(lacking: str, more: dict[str, Any]) -> None:
    hand = Hand(with_step(PLAN, 0, margin=None)).reach("proving")
    hand.tick(cohorts=more["cohorts"](hand))
    for _ in range(50):
        assert hand.tick() is None
    assert hand.state.phase == "proving"
    assert any(lacking in one for one in missing(PLAN, hand.state))


def test_proof_before_the_bake_is_over_is_not_enough() -> None:
    hand = Hand().reach("baking")
    assert hand.tick(cohorts=hand.good()) is None
    assert hand.state.phase == "baking"
    assert hand.tick() is not None
    assert hand.state.step == 1


def test_proof_is_not_carried_over_to_the_next_step() -> None:
    hand = Hand().reach("proving", 1)
    for _ in range(50):
        assert hand.tick() is None
    assert hand.state.step == 1


@pytest.mark.parametrize("hindrance", [{"closed": "closed by a window: fri"}, {"freeze": "black friday"}])
@pytest.mark.parametrize("on_deadline", ["pause", "promote"])
def test_windows_and_freezes_keep_it_from_widening(hindrance: dict[str, Any], on_deadline: Any) -> None:
    hand = Hand(replace(with_step(PLAN, 0, deadline=100.0), on_deadline=on_deadline)).reach("proving")
    for _ in range(20):
        assert hand.tick(**hindrance, cohorts=hand.good() if on_deadline == "pause" else ()) is None
    if on_deadline == "pause":
        assert hand.tick() is not None
        assert hand.state.step == 1


@pytest.mark.parametrize("hindrance", [{"closed": "closed by a window: fri"}, {"freeze": "black friday"}])
def test_windows_and_freezes_never_keep_it_from_going_back(hindrance: dict[str, Any]) -> None:
    hand = Hand().reach("baking")
    assert hand.tick(**hindrance, cohorts=hand.bad("errors")) == BEFORE


def test_a_step_waits_for_as_many_yeses_as_it_needs_each_from_somebody_else() -> None:
    hand = Hand(approved(count=2)).reach("approval")
    yes = hand.wish("approve")
    assert hand.tick(yes) is None
    again = hand.wish("approve")
    assert hand.tick(again) is None
    assert "somebody else" in hand.state.refused[again.id]
    assert hand.tick(hand.wish("approve", actor="grace")) is not None
    assert hand.state.step == 1
    assert hand.state.approvals == ()


def test_a_yes_counts_only_so_long() -> None:
    hand = Hand(approved(count=2)).reach("approval")
    hand.tick(hand.wish("approve"))
    hand.at += 3600.0
    assert hand.tick(hand.wish("approve", actor="grace")) is None
    assert hand.state.phase == "approval"
    assert hand.tick(hand.wish("approve")) is not None


@pytest.mark.parametrize(
    ("on_deadline", "phase"), [("pause", "paused"), ("rollback", "rolling_back"), ("promote", "shifting")]
)
def test_a_deadline_without_proof_says_what_is_missing(on_deadline: Any, phase: Phase) -> None:
    hand = Hand(replace(with_step(PLAN, 0, deadline=100.0), on_deadline=on_deadline)).reach("proving")
    while hand.state.phase == "proving":
        hand.tick()
    assert hand.state.phase == phase
    assert hand.at - hand.state.entered_at[0] > 100.0
    assert "errors not yet proven" in hand.last.sentence
    if phase == "shifting":
        assert any(one.after == "accepted unproven" for one in hand.state.events)


def test_resuming_what_had_no_proof_in_time_gives_it_the_whole_time_again() -> None:
    hand = Hand(with_step(PLAN, 0, deadline=100.0)).reach("proving")
    while hand.state.phase == "proving":
        hand.tick()
    hand.tick(hand.wish("resume"))
    for _ in range(9):
        hand.tick()
    assert hand.state.phase == "proving"


def test_a_budget_lets_a_step_come_to_its_weight_bit_by_bit_each_by_proof() -> None:
    plan = with_step(replace(PLAN, budget=RiskBudget(users=50, max_factor=2.0)), 1, weight=500)
    hand = Hand(plan).reach("shifting", 2)
    weights = [routing.weights["canary"] for routing in hand.written]
    assert weights == [100, 200, 400, 500, 500]


def test_each_step_has_a_copy_of_the_harm_tests_of_its_own_however_long_those_before_it_were() -> None:
    plan = replace(PLAN, copies=6, restart=20.0)
    hand = Hand(plan).reach("proving")
    for _ in range(200):
        hand.tick()
    copies = []
    for step in range(3):
        hand.reach("baking", step) if step else None
        copies.append([copy.begun for copy in hand.state.guards["errors"].copies])
        assert copies[-1][-1] == hand.state.step_round or step == 0
    assert [len(one) for one in copies] == [3, 4, 5]


def test_what_was_proven_stays_to_be_seen_in_the_last_step() -> None:
    hand = Hand().reach("finalising", 3)
    assert hand.state.users(PLAN) >= 1000
    hand.tick()
    standings = {gauge.name: gauge.standing for gauge in progress(PLAN, hand.state, "east").gauges}
    assert standings["errors"] == "within"


def test_a_signal_that_is_within_what_the_step_tolerates_is_none() -> None:
    hand = Hand(with_step(PLAN, 0, margin=Margin(1.0, 0.9))).reach("proving")
    hand.tick(cohorts=(*hand.good()[:2], *hand.bad("http_4xx")))
    assert (hand.state.phase, hand.state.step) == ("shifting", 1)


@pytest.mark.parametrize("cause", HARM)
@pytest.mark.parametrize("phase", ["baking", "proving", "approval", "manual", "no_traffic", "dependency", "override"])
def test_harm_leads_back_wherever_it_is_found(phase: Any, cause: str) -> None:
    hand = Hand(approved())
    hand.paused(phase) if phase in PAUSES else hand.reach(phase)
    routing = hand.tick(**HARM[cause](hand))
    if hand.state.phase != "rolling_back":  # what it wanted for is there again in this tick: first that, then the harm
        routing = hand.look()
    assert routing == BEFORE
    assert hand.state.phase == "rolling_back"
    assert hand.state.judged == "failed"
    assert hand.state.cause in hand.last.sentence


@pytest.mark.parametrize("cause", HARM)
def test_forward_only_pauses_instead(cause: str) -> None:
    hand = Hand(replace(PLAN, forward_only=True)).reach("baking")
    assert hand.tick(**HARM[cause](hand)) is None
    assert (hand.state.phase, hand.state.why) == ("paused", "harm")


@pytest.mark.parametrize("cause", HARM)
def test_one_that_only_observes_says_that_it_failed_and_writes_nothing(cause: str) -> None:
    hand = Hand(replace(PLAN, mode="observe")).reach("baking")
    assert hand.tick(**HARM[cause](hand)) is None
    assert hand.state.judged == "failed"
    assert hand.written == []


def test_in_the_last_step_the_breaker_still_leads_back() -> None:
    hand = Hand().reach("finalising", 3)
    assert hand.tick(**HARM["the breaker"](hand)) == BEFORE


@pytest.mark.parametrize("cause", ["the breaker", "a worker's own breaker"])
def test_when_everything_fails_it_is_not_the_candidate(cause: str) -> None:
    hand = Hand().reach("baking")
    assert hand.tick(**HARM[cause](hand), control_requests=10_000, control_errors=9_000) is None
    assert (hand.state.phase, hand.state.why) == ("paused", "dependency")
    assert "everything fails" in hand.last.sentence
    for _ in range(7):
        hand.tick()
    assert hand.state.phase != "paused"
    assert hand.state.judged != "failed"


@pytest.mark.parametrize("why", [why for why in PAUSES if why not in HEALING])
def test_a_pause_that_waits_for_somebody_does_not_end_because_everything_failed_for_a_while(why: str) -> None:
    hand = Hand().paused(why)
    hand.tick(**HARM["the breaker"](hand), control_requests=10_000, control_errors=9_000)
    for _ in range(20):
        assert hand.tick() is None
    assert (hand.state.phase, hand.state.why) == ("paused", why)


def test_few_requests_in_few_slices_are_no_reason_for_the_breaker() -> None:
    hand = Hand().reach("baking")
    hand.tick(ring_requests=19, ring_errors=19, failing_slices=0b111)
    for _ in range(7):
        hand.tick(ring_requests=0)
    hand.tick(ring_requests=100, ring_errors=100, failing_slices=0b11)
    assert hand.state.phase in ("proving", "paused")
    assert hand.state.judged != "failed"


def test_the_breaker_forgets_what_is_older_than_its_window() -> None:
    plan = replace(PLAN, checks=replace(PLAN.checks, breaker=Breaker(window=20.0), fast=None))
    hand = Hand(plan).reach("baking")
    for _ in range(10):
        hand.tick(ring_requests=10, ring_errors=2 if hand.state.tick % 2 else 1, failing_slices=0b111)
    assert hand.state.phase == "proving"
    hand.tick(ring_requests=10, ring_errors=10, failing_slices=0b111)
    assert hand.state.phase == "rolling_back"


def test_a_rollback_is_over_when_the_last_instance_has_applied_it() -> None:
    hand = Hand().reach("baking")
    hand.tick(**HARM["a guardrail"](hand))
    verdict = hand.at
    hand.look(waiting=("west",))
    assert hand.state.phase == "rolling_back"
    hand.look(applied_at=verdict + 0.4)
    assert hand.state.phase == "rolled_back"
    assert hand.state.applied_after == pytest.approx(0.4)
    assert hand.state.has_ended


@pytest.mark.parametrize(("live", "named"), [(("east", "west"), "west"), ((), "anybody")])
def test_a_rollback_that_somebody_does_not_apply_has_stalled_and_says_who(live: tuple[str, ...], named: str) -> None:
    hand = Hand().reach("baking")
    hand.tick(**HARM["a guardrail"](hand))
    waiting = live[1:]
    hand.look(after=60.0, live=live, waiting=waiting)
    assert hand.state.phase == "rolling_back"
    hand.look(after=0.1, live=live, waiting=waiting)
    assert hand.state.phase == "rollback_stalled"
    assert named in hand.last.sentence


def test_another_candidate_supersedes_it() -> None:
    hand = Hand().reach("baking", 1)
    assert hand.look(hand.wish("rollback", "superseded")) == BEFORE
    hand.look()
    assert hand.state.phase == "superseded"


def test_what_has_succeeded_can_be_taken_back_for_a_week() -> None:
    late = Hand(replace(PLAN, after_success=100.0)).reach("succeeded", 3)
    wish = late.wish("rollback")
    assert late.look(wish, after=101.0) is None
    assert "longer ago" in late.state.refused[wish.id]
    soon = Hand().reach("succeeded", 3)
    assert soon.look(soon.wish("rollback"), after=101.0) == BEFORE
    assert soon.look() is None
    assert soon.state.phase == "rolled_back"


@pytest.mark.parametrize("verb", ["pause", "resume", "approve", "promote", "rollback", "abort"])
@pytest.mark.parametrize("end", ["rolled_back", "aborted"])
def test_nothing_can_be_done_with_what_has_ended(end: Phase, verb: Any) -> None:
    hand = Hand().reach("baking")
    hand.look(hand.wish("abort" if end == "aborted" else "rollback"))
    hand.look()
    assert hand.state.phase == end
    wish = hand.wish(verb)
    assert hand.tick(wish, **HARM["the breaker"](hand)) is None
    assert "has ended" in hand.state.refused[wish.id]
    assert hand.state.phase == end


def test_a_rollback_leads_to_the_stable_version_wherever_the_candidate_was_to_be() -> None:
    routed = replace(BEFORE, versions={"canary": "v2", "early": "v0", "everyone": "v1"})
    hand = Hand(routed=routed).reach("baking", 2)
    assert hand.tick(**HARM["the breaker"](hand)) == BEFORE
