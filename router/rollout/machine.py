"""What a rollout does next: a fold over observations, total and pure.

``advance`` gives the state after one more observation, and what should be routed if that is to change. Looked at in
this order, and the first that moves it ends the turn, so that it goes on by one step at the most:

1. what people want  2. what somebody changed by hand  3. breaker and fast lane  4. whether there are figures
5. whether users arrive in the right shares  6. harm  7. signals  8. dependencies and windows  9. proof: the next step.

Only 1, 3 and 6 lead back; so do who sets a ring to 0 by hand, and a deadline if the plan says so. No figures, no proof
and no time are reasons to hold, never to go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from router.rollout import guards, looks, sentences
from router.rollout.guards import tests_of
from router.rollout.intake import fast_test, take_evidence
from router.rollout.observation import Observation
from router.rollout.people import by_hand, people
from router.rollout.plan import Plan
from router.rollout.state import Routing, State, Who
from router.rollout.statistics.budget import Excess
from router.rollout.turn import Turn, narrowed


def begin(plan: Plan, id_: str, at: float, by: str, reason: str, now: Routing) -> State:
    """A rollout that has not done anything yet. ``now`` is what routes."""
    rings = {step.ring for step in plan.steps}
    before = Routing(
        {ring: weight for ring, weight in now.weights.items() if ring in rings},
        {
            ring: plan.stable if version == plan.candidate else version
            for ring, version in now.versions.items()
            if ring in rings
        },
        {ring: now.holdbacks.get(ring, 0) for ring in now.versions if ring in rings},
    )
    first = plan.steps[0]
    state = State(
        id=id_, started_at=at, started_by=by, reason=reason, before=before, expected=narrowed(now, before),
        guards={one.name: guards.begin(tests_of(plan, one, first), 1) for one in plan.guardrails},
        fast=fast_test(plan).begin(), excess=Excess.begin(), phase_at=at, at=at,
    )  # fmt: skip
    return state.event("transition", "", "pending", sentences.begun(plan), Who(by, reason))


def advance(plan: Plan, state: State, seen: Observation) -> tuple[State, Routing | None]:
    """One observation later; and the routing to be written together with that state, or None: it stays."""
    turn = Turn(plan, replace(state, at=seen.at, live=len(seen.live), waiting=seen.waiting), seen)
    if seen.is_whole:
        turn.set(tick=seen.tick)
    people(turn)
    if turn.state.has_ended or turn.state.phase != state.phase or turn.routing is not None:
        return turn.state, turn.routing
    if seen.is_whole:
        take_evidence(turn)
    for look in _LOOKS:
        if look(turn):
            break
    return turn.state, turn.routing


_LOOKS: Final[tuple[Callable[[Turn], bool], ...]] = (
    looks.returning, by_hand, looks.gross, looks.health, looks.ratio, looks.harmful, looks.signal, looks.outside,
    looks.start, looks.shifted, looks.proof,
)  # fmt: skip
