"""Whatever is to be seen, in whatever order: what a rollout never does, and that everything it does is written down."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from router.control.recount import news
from router.control.rollouts import decode_state, encode_state
from router.rollout import guards, machine
from router.rollout.intake import FIXED
from router.rollout.observation import VERBS, Command, Observation
from router.rollout.plan import Approval, Plan, RiskBudget
from router.rollout.progress import ENDS, Event, Progress
from router.rollout.sentences import missing
from router.rollout.showing import progress
from router.rollout.state import GOING_ON, HEALING, Routing, State
from router.rollout.turn import narrowed, routing_at
from tests.rollout_hand import BEFORE, LIVE, PLAN, Hand, with_step

BUDGETED = with_step(replace(PLAN, budget=RiskBudget(users=50, max_factor=3.0)), 1, weight=3000)
HOW: dict[str, list[str]] = {"resume": ["", "", "adopt", "restore", "accept"], "rollback": ["", "superseded"]}
plans = st.builds(
    lambda plan, approval, deadline, **more: replace(
        with_step(plan, 0, approval=approval, deadline=deadline, bake=10.0), **more
    ),
    st.sampled_from([PLAN, BUDGETED]),
    approval=st.sampled_from([None, None, Approval(1, 60.0), Approval(2, 600.0)]),
    deadline=st.sampled_from([None, 60.0]),
    mode=st.sampled_from(["enforce", "enforce", "enforce", "observe"]),
    on_deadline=st.sampled_from(["pause", "rollback", "promote"]),
    on_manual_edit=st.sampled_from(["pause", "adopt", "revert"]),
    forward_only=st.booleans(),
    after_success=st.sampled_from([30.0, 1e6]),
)
commands = st.sampled_from(VERBS).flatmap(
    lambda verb: st.builds(
        Command, id=st.just(""), verb=st.just(verb), actor=st.sampled_from(["ada", "grace"]), reason=st.just("because"),
        how=st.sampled_from(HOW.get(verb, [""])),
    )
)  # fmt: skip
few = st.lists(commands, max_size=3)
rarely = st.sampled_from([False] * 9 + [True])
figures = st.fixed_dictionaries(
    {},
    optional={
        "ring_requests": st.sampled_from([0, 5, 100, 1000]), "ring_errors": st.sampled_from([0, 5, 60, 900]),
        "control_requests": st.sampled_from([0, 1000, 10_000]), "control_errors": st.sampled_from([0, 10, 900]),
        "failing_slices": st.sampled_from([0, 1, 0b111, 0b11111]), "users_hurt": st.integers(0, 9),
        "arrived": st.sampled_from([(0, 0), (10, 990), (2000, 1000)]), "share": st.sampled_from([0.0, 0.01, 0.5, 1.0]),
        "reporting": st.sampled_from([0, 1, 2]), "live": st.sampled_from([LIVE, ()]),
        "open_breakers": st.sampled_from([0, 0, 0, 2]), "missing": st.sampled_from([(), ("orders",)]),
        "lost": st.sampled_from([(), ("auth is not there",)]), "waiting": st.sampled_from([(), ("west",)]),
    },
)  # fmt: skip
surroundings = st.fixed_dictionaries(
    {},
    optional={
        "closed": st.sampled_from(["", "closed by a window: fri"]), "freeze": st.sampled_from(["", "black friday"]),
        "killed": st.sampled_from([(), (), ("canary",), ("everyone",)]), "live": st.sampled_from([LIVE, ()]),
        "waiting": st.sampled_from([(), ("west",), LIVE]), "applied_at": st.sampled_from([0.0, 1e9]),
    },
)  # fmt: skip
users = st.tuples(
    st.sampled_from(["good", "good", "none", "errors", "p99", "http_4xx"]), st.sampled_from([5, 500, 5000])
)


class Rollout(RuleBasedStateMachine):
    """A rollout with a leader that is told whatever is drawn, and another one that takes over at every turn."""

    @initialize(plan=plans, contaminated=st.booleans())
    def begins(self, plan: Plan, contaminated: bool) -> None:
        routed = replace(BEFORE, versions={**BEFORE.versions, "early": "v2"}) if contaminated else BEFORE
        self.hand = Hand(plan, routed)
        self.plan, self.state, self.shown = plan, self.hand.state, progress(plan, self.hand.state, "east")
        self.adopted: list[Routing] = []

    # -- what happens --------------------------------------------------------------------------------------------------

    @rule(users=users, figures=figures, commands=few, some=rarely, surroundings=surroundings)
    def tick(
        self, users: Any, figures: dict[str, Any], commands: Any, some: bool, surroundings: dict[str, Any]
    ) -> None:
        self._tick(
            users, **(figures if some else {}), **({} if some else surroundings), commands=commands if some else []
        )

    @rule(users=st.sampled_from([("good", 5000), ("none", 5)]), count=st.integers(1, 8))
    def quiet_ticks(self, users: Any, count: int) -> None:
        for _ in range(count):
            self._tick(users)

    @rule(figures=figures)
    def figures(self, figures: dict[str, Any]) -> None:
        self._tick(("none", 5), **figures)

    @rule(commands=few, seconds=st.sampled_from([0.1, 1.0, 70.0, 4000.0]), around=surroundings)
    def look(self, commands: Any, seconds: float, around: dict[str, Any]) -> None:
        self.hand.at += seconds
        self._take(self.hand.seen(*self._named(commands), **around))

    @rule(commands=few)
    def people(self, commands: Any) -> None:
        self.hand.at += 0.5
        self._take(self.hand.seen(*self._named(commands)))

    @rule(weight=st.sampled_from([0, 50, 100, 400, 500, 3000]), ring=st.sampled_from(["canary", "early"]))
    def edit(self, weight: int, ring: str) -> None:
        self.hand.edit({ring: weight})

    @rule(version=st.sampled_from(["v1", "v2", "v3"]), ring=st.sampled_from(["canary", "early", "everyone"]))
    def repoint(self, version: str, ring: str) -> None:
        self.hand.edit(versions={ring: version})

    @rule(count=st.integers(2, 9))
    def late_ticks(self, count: int) -> None:
        """A new leader makes up for what nobody has taken in, all within a moment."""
        first = self.state.tick + 1
        self.hand.at = max(self.hand.at, (first + count) * self.plan.tick)
        for tick in range(first, first + count):
            self.hand.at += 0.01
            seen = self.hand.seen(tick=tick, is_whole=True, ring_requests=100, control_requests=1000, reporting=2)
            self._take(replace(seen, cohorts=self.hand.good(500)))

    @precondition(lambda self: self.state.phase == "paused" and self.state.why == "override")
    @rule(how=st.sampled_from(["adopt", "restore"]))
    def decides(self, how: Any) -> None:
        self.hand.at += 0.5
        self._take(self.hand.seen(self.hand.wish("resume", how)))

    # -- turns ---------------------------------------------------------------------------------------------------------

    def _named(self, commands: list[Command]) -> list[Command]:
        self.hand.wishes += len(commands)
        return [replace(one, id=f"drawn-{self.hand.wishes}-{number}") for number, one in enumerate(commands)]

    def _tick(self, users: tuple[str, int], commands: Any = (), **more: Any) -> None:
        who, count = users
        cohorts = self.hand.good(count) if who == "good" else self.hand.bad(who, count) if who != "none" else ()
        number = max(self.state.tick + 1, int(self.hand.at // self.plan.tick))
        self.hand.at = (number + 1) * self.plan.tick + 0.5
        usual = {"ring_requests": 100, "control_requests": 1000, "reporting": 2}
        self._take(self.hand.seen(*self._named(commands), **{
            "tick": number, "is_whole": True, "cohorts": cohorts, **usual, **more}))  # fmt: skip

    def _take(self, seen: Observation) -> None:
        before = self.state
        routing = self.hand.take(seen)
        after = self.state = self.hand.state
        said = news(after)
        again = decode_state(encode_state(before))
        assert again == before
        assert machine.advance(self.plan, again, seen) == (after, routing)
        self._expect_said(before, after, said)
        self._expect_answered(after, seen)
        self._expect_moves(before, after, seen, said)
        if routing is not None:
            self._expect_routing(before, after, seen, routing, said)
        if after.expected != before.expected and routing is None:
            assert after.expected == narrowed(
                Routing(dict(seen.weights), dict(seen.versions), dict(seen.holdbacks)), before.before
            )
            self.adopted.append(after.expected)
        self.shown = progress(self.plan, after, "east", self.shown)
        assert msgspec.json.decode(msgspec.json.encode(self.shown), type=Progress) == self.shown
        assert self.shown.headline
        assert self.shown.next

    # -- what has to hold ----------------------------------------------------------------------------------------------

    def _expect_said(self, before: State, after: State, said: list[Event]) -> None:
        """Each change of phase is an event, and every event is a sentence."""
        assert all(one.sentence for one in said)
        chain = [(one.before, one.after) for one in said if one.kind == "transition"]
        assert all(earlier[1] == later[0] for earlier, later in pairwise(chain))
        if chain:
            assert (chain[0][0], chain[-1][1]) == (_label(before), _label(after))
        else:
            assert _label(before) == _label(after)

    def _expect_answered(self, after: State, seen: Observation) -> None:
        for command in seen.commands:
            assert command.id in after.done
            acted = any(one.actor == command.actor for one in news(after))
            assert acted or after.refused[command.id]

    def _expect_moves(self, before: State, after: State, seen: Observation, said: list[Event]) -> None:
        plan, verbs = self.plan, {(one.verb, one.how) for one in seen.commands if one.id not in after.refused}
        wanted = {verb for verb, _ in verbs}
        if before.phase in ENDS:
            assert after.phase == before.phase or (before.phase == "succeeded" and "rollback" in wanted)
            return
        adopts = ("resume", "adopt") in verbs or (plan.on_manual_edit == "adopt" and before.phase in GOING_ON)
        begins = not before.entered_at and bool(after.entered_at)
        assert after.step <= before.step + 1 or adopts
        assert len(after.entered_at) <= len(before.entered_at) + 1 or adopts
        if (after.step > before.step or after.phase == "succeeded" != before.phase) and not adopts:
            late = plan.on_deadline == "promote" and any(one.after == "accepted unproven" for one in said)
            assert "promote" in wanted or ("resume", "accept") in verbs or late or self._is_proven(before, after, seen)
            assert before.entered_at
            assert not seen.freeze or before.phase == "finalising"
        if begins and not adopts:
            assert before.phase in ("pending", "waiting")
            assert (seen.closed, seen.freeze, seen.lost) == ("", "", ())
            assert after.step == 0
        if before.phase == "paused" != after.phase and after.phase != "rolling_back" and not wanted:
            assert before.why in HEALING
            assert seen.is_whole
            assert seen.reporting >= 0.9 * len(seen.live)
            assert after.step == before.step
        if after.judged == "failed" != before.judged:
            held = after.phase == "paused" and (plan.forward_only or after.why != "")
            assert plan.mode == "observe" or after.phase == "rolling_back" or (plan.forward_only and held)
        if self._is_harmful(before) and plan.mode == "enforce" and seen.is_whole and not seen.commands:
            assert after.phase not in GOING_ON or after.why or before.phase not in GOING_ON
            if before.phase in ("baking", "proving", "approval"):
                assert after.phase in ("paused", "rolling_back")

    def _expect_routing(
        self, before: State, after: State, seen: Observation, routing: Routing, said: list[Event]
    ) -> None:
        plan, verbs = self.plan, {(one.verb, one.how) for one in seen.commands if one.id not in after.refused}
        assert plan.mode == "enforce"
        assert after.expected == routing
        assert said
        assert before.phase not in ENDS or ("rollback", "") in verbs or ("rollback", "superseded") in verbs
        if after.phase == "rolling_back":
            assert routing.weights == before.before.weights
            assert plan.candidate not in [routing.versions[one.ring] for one in plan.steps if one.promotes]
            return
        steps = [routing_at(plan, before.before, number) for number in range(len(plan.steps))]
        if plan.budget is None:
            assert routing in [*steps, before.before, before.expected, *self.adopted]
        else:
            assert all(weight <= steps[-1].weights[ring] or weight == before.expected.weights[ring]
                       for ring, weight in routing.weights.items())  # fmt: skip
        if before.phase == "paused":
            assert verbs & {("resume", "restore"), ("resume", "accept"), ("promote", "")}
        wider = [ring for ring, weight in routing.weights.items() if weight > before.expected.weights.get(ring, 0)]
        newer = [ring for ring, version in routing.versions.items() if version != before.expected.versions.get(ring)]
        if wider or newer:
            moved = after.step > before.step or (not before.entered_at and after.entered_at)
            by_people = {("resume", "accept"), ("promote", "")} & verbs or plan.on_deadline == "promote"
            assert moved or (plan.budget is not None and (by_people or self._is_proven(before, after, seen)))

    def _is_proven(self, before: State, after: State, seen: Observation) -> bool:
        """The step that was left has all that it needs, in a tick whose figures are there."""
        plan, step = self.plan, before.step_of(self.plan)
        judged = replace(after, step=before.step)
        reporting = seen.is_whole and bool(seen.live) and seen.reporting >= 0.9 * len(seen.live) and not seen.missing
        baked = before.baked + plan.tick >= step.bake - FIXED
        if step.is_final:
            return reporting and baked
        fresh = [one for one in (*before.approvals, *((c.actor, seen.at) for c in seen.commands if c.verb == "approve"))
                 if step.approval is not None and seen.at - one[1] <= step.approval.expires]  # fmt: skip
        approved = step.approval is None or plan.mode == "observe" or len(fresh) >= step.approval.count
        return reporting and baked and approved and not missing(plan, judged) and not seen.closed and not seen.freeze

    def _is_harmful(self, state: State) -> bool:
        for one in self.plan.guardrails:
            tests = guards.tests_of(self.plan, one, state.step_of(self.plan))
            if one.on_harm == "rollback" and guards.is_harmful(state.guards[one.name], tests):
                return True
        return False


def _label(state: State) -> str:
    return state.phase + (f" ({state.why})" if state.why else "")


def test_whatever_is_seen_a_rollout_keeps_its_promises() -> None:
    run_state_machine_as_test(Rollout, settings=settings(max_examples=20, stateful_step_count=20))  # type: ignore[no-untyped-call]


@pytest.mark.slow
def test_however_long_one_looks_a_rollout_keeps_its_promises() -> None:
    run_state_machine_as_test(Rollout, settings=settings(max_examples=400, stateful_step_count=40))  # type: ignore[no-untyped-call]
