"""One observation being taken in: what may be done about it, and what that writes.

The moves that several looks make: pause, go back, enter the next step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from router.rollout import guards, sentences
from router.rollout.guards import Tests, tests_of
from router.rollout.observation import Observation
from router.rollout.plan import Guardrail, Plan, Step
from router.rollout.progress import Judged, Phase
from router.rollout.state import GOING_ON, ITSELF, Routing, State, Who, Why
from router.rollout.statistics.budget import WHOLE, Excess, next_weight

REPORT_SECONDS: Final = 1.25
"""How much later than it happened something may be told: workers report once a second."""


@dataclass(slots=True)
class Turn:
    """One observation being taken in."""

    plan: Plan
    state: State
    seen: Observation
    routing: Routing | None = None

    @property
    def step(self) -> Step:
        return self.state.step_of(self.plan)

    def tests(self, guardrail: Guardrail) -> Tests:
        return tests_of(self.plan, guardrail, self.step)

    def set(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]

    def go(self, phase: Phase, sentence: str, *, why: Why = "", by: Who = ITSELF) -> None:
        """Change the phase, and say so."""
        before = self.state.phase + (f" ({self.state.why})" if self.state.why else "")
        after = phase + (f" ({why})" if why else "")
        self.set(phase=phase, why=why, phase_at=self.seen.at)
        self.state = self.state.event("transition", before, after, sentence, by)

    def write(self, routing: Routing) -> None:
        if self.plan.mode == "observe":
            return
        self.routing = routing
        self.set(expected=routing, written_at=self.seen.at)


def routing_at(plan: Plan, before: Routing, step: int) -> Routing:
    """What routes when the steps up to this one have been taken."""
    weights, versions, holdbacks = dict(before.weights), dict(before.versions), dict(before.holdbacks)
    for one in plan.steps[: step + 1]:
        if one.promotes:
            versions[one.ring] = plan.candidate
        if one.weight is not None:
            weights[one.ring] = one.weight
        if one.holdback is not None:
            holdbacks[one.ring] = one.holdback
    return Routing(weights, versions, holdbacks)


def narrowed(now: Routing, like: Routing) -> Routing:
    """Of what is routed, the rings that ``like`` speaks of."""
    return Routing(
        {ring: now.weights.get(ring, 0) for ring in like.weights},
        {ring: now.versions.get(ring, "") for ring in like.versions},
        {ring: now.holdbacks.get(ring, 0) for ring in like.holdbacks},
    )


def routing_seen(seen: Observation) -> Routing:
    return Routing(dict(seen.weights), dict(seen.versions), dict(seen.holdbacks))


def judge(turn: Turn, judged: Judged, sentence: str) -> None:
    if turn.state.judged != judged:
        before = turn.state.judged
        turn.set(judged=judged)
        turn.state = turn.state.event("verdict", before, judged, sentence)


def pause(turn: Turn, why: Why, sentence: str, by: Who = ITSELF) -> bool:
    state = turn.state
    if state.phase == "paused" and state.why == why:
        return False
    turn.set(paused_in=state.phase if state.phase != "paused" else state.paused_in)
    turn.go("paused", sentence, why=why, by=by)
    return True


def back_in(state: State) -> Phase:
    """Where it goes on after a pause: proof begins anew then, so there is nothing to approve of yet."""
    return "proving" if state.paused_in == "approval" else state.paused_in


def roll_back(turn: Turn, cause: str, by: Who = ITSELF) -> None:
    turn.set(cause=cause, verdict_at=turn.seen.at, applied_after=None, ended_at=None)
    before = turn.state.before
    turn.write(Routing(before.weights, {ring: _stable(turn, ring) for ring in before.versions}, before.holdbacks))
    turn.go("rolling_back", f"back to {turn.plan.stable}: {cause}", by=by)


def _stable(turn: Turn, ring: str) -> str:
    promoted = {step.ring for step in turn.plan.steps if step.promotes}
    return turn.plan.stable if ring in promoted else turn.state.before.versions[ring]


def next_step(turn: Turn, sentence: str, by: Who = ITSELF) -> None:
    state, plan = turn.state, turn.plan
    now = turn.seen.at
    number = state.step if _is_short_of_its_weight(turn) else state.step + 1
    if number >= len(plan.steps):
        turn.set(ended_at=now, left_at=(*state.left_at, now))
        turn.go("succeeded", sentences.succeeded(plan, state), by=by)
        return
    enter(turn, number, sentence, by=by)


def enter(turn: Turn, number: int, sentence: str, by: Who = ITSELF, *, adopted: Routing | None = None) -> None:
    """``adopted``: somebody has set this for the step, and it stays."""
    state, plan, now = turn.state, turn.plan, turn.seen.at
    left = (*state.left_at, *((now,) * (number - len(state.left_at))))
    users = (*state.left_users, *((state.users(plan),) * (number - len(state.left_users))))
    entered = (*state.entered_at, *((now,) * (number + 1 - len(state.entered_at))))
    turn.set(
        step=number,
        left_at=left[:number],
        left_users=users[:number],
        entered_at=entered[: number + 1],
        approvals=(),
        baked=0.0,
    )
    if adopted is None:
        turn.write(_widened(turn, number))
    else:
        turn.set(expected=adopted)
    turn.go("shifting", f"{sentence}; {sentences.step(plan, plan.steps[number])}", by=by)


def new_epoch(turn: Turn) -> None:
    """Evidence of this step begins anew: users are counted again, and proof starts from nothing. Harm goes on."""
    round_ = turn.state.round + 1
    turn.set(
        round=round_, step_round=round_, round_at=turn.seen.at, arrived=(0, 0), split_peak=0.0, excess=Excess.begin(),
        clean_tick=int((turn.seen.at + REPORT_SECONDS) // turn.plan.tick) + 1, first_user_at=0.0, quiet_since=0.0,
        dark_since=0.0, fresh=0, recent=(),
        guards={
            # In the last step there is nobody to compare with: what was proven before it stays to be seen.
            one.name: (guards.with_copy if turn.step.is_final else guards.with_step)(
                turn.state.guards[one.name], turn.tests(one), round_
            )
            for one in turn.plan.guardrails
        },
    )  # fmt: skip


# -- the risk budget ---------------------------------------------------------------------------------------------------


def _widened(turn: Turn, number: int) -> Routing:
    """The routing of a step; with a risk budget it is not widened by more than the budget allows."""
    routing = routing_at(turn.plan, turn.state.before, number)
    step = turn.plan.steps[number]
    if turn.plan.budget is None or step.weight is None:
        return routing
    now = turn.state.expected.weights.get(step.ring, 0)
    weight = step.weight if now == 0 else min(step.weight, max(now, _allowed(turn, now)))
    return Routing({**routing.weights, step.ring: weight}, routing.versions, routing.holdbacks)


def _is_short_of_its_weight(turn: Turn) -> bool:
    """Whether the budget has not let the step come to its weight yet."""
    step = turn.step
    if turn.plan.budget is None or step.weight is None or turn.state.phase not in GOING_ON:
        return False
    return turn.state.expected.weights.get(step.ring, 0) < step.weight


def has_no_budget(turn: Turn) -> bool:
    """Whether nothing wider is allowed yet: a bound that is proven lower will allow it."""
    number = turn.state.step if _is_short_of_its_weight(turn) else turn.state.step + 1
    if turn.plan.budget is None or number >= len(turn.plan.steps):
        return False
    weight = turn.plan.steps[number].weight
    now = turn.state.expected.weights.get(turn.plan.steps[number].ring, 0)
    return weight is not None and 0 < now < weight and _allowed(turn, now) <= now


def _allowed(turn: Turn, weight: int) -> int:
    budget, state = turn.plan.budget, turn.state
    assert budget is not None
    # Of the service's users, the candidate has as many as arrived there; they are its share of the whole.
    everybody = state.arrived[0] * WHOLE // max(1, weight)
    return next_weight(
        weight, state.excess.bound_ppm(), users_per_bake=everybody, budget_users=budget.users,
        min_step=budget.min_step, max_factor=budget.max_factor,
    )  # fmt: skip
