"""What a tick adds to the evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from router.rollout import guards
from router.rollout.plan import Plan
from router.rollout.statistics.budget import Excess
from router.rollout.statistics.ratio import LEAST_TOLERANCE, log_e_share
from router.rollout.statistics.two_ring import Side, Tick, TwoRing, is_restart_due
from router.rollout.turn import Turn

FIXED: Final = 1e-9


def take_evidence(turn: Turn) -> None:
    state, seen, plan = turn.state, turn.seen, turn.plan
    is_whole = is_reporting(turn)
    if seen.ring_requests and not state.first_user_at:
        turn.set(first_user_at=seen.at)
    window = plan.checks.breaker.window if plan.checks.breaker is not None else 0.0
    first = seen.tick - max(1, round(window / plan.tick)) + 1
    newest = (
        seen.tick,
        seen.ring_requests,
        seen.ring_errors,
        seen.failing_slices,
        seen.control_requests,
        seen.control_errors,
    )
    turn.set(
        recent=(*(one for one in state.recent if one[0] >= first), newest),
        requests_hurt=state.requests_hurt + seen.ring_errors, users_hurt=state.users_hurt + seen.users_hurt,
        fast=fast_test(plan).after(
            state.fast,
            Tick(seen.ring_requests, min(seen.ring_errors, seen.ring_requests), seen.control_requests,
                 min(seen.control_errors, seen.control_requests)),
        ),
        fast_slices=state.fast_slices | seen.failing_slices,
        fresh=state.fresh + 1 if is_whole else 0,
    )  # fmt: skip
    is_early = seen.tick < state.clean_tick
    if not is_whole or is_early or state.phase in ("pending", "waiting", "shifting", "rolling_back"):
        return
    slices = {name: (units, outcomes) for name, units, outcomes in seen.slices}
    found = {}
    for one in plan.guardrails:
        cohorts = [cohort for cohort in seen.cohorts if cohort.guardrail == one.name]
        found[one.name] = guards.after(state.guards[one.name], turn.tests(one), cohorts, slices.get(one.name))
    turn.set(guards=found, arrived=seen.arrived)
    if plan.budget is not None:
        turn.set(excess=_excess(turn))
    total = sum(seen.arrived)
    if total and seen.ring_requests and 0 < seen.share < 1:  # nobody at all is looked at elsewhere
        tolerated = max(plan.checks.srm_tolerance * seen.share, LEAST_TOLERANCE)
        peak = log_e_share(seen.arrived[0], total, seen.share, tolerated)
        turn.set(split_peak=max(state.split_peak, peak))
    if state.phase in ("baking", "finalising") and not seen.waiting:
        turn.set(baked=state.baked + plan.tick)
    _restart(turn)


def _excess(turn: Turn) -> Excess:
    """The risk budget goes by the errors of the newest round."""
    state, errors = turn.state, next((one.name for one in turn.plan.guardrails if one.outcome == "errors"), None)
    excess = state.excess
    for one in turn.seen.cohorts:
        if one.guardrail == errors and one.since <= state.step_round <= one.round:
            excess = excess.after(Tick(one.ring_units, one.ring_outcomes, one.control_units, one.control_outcomes))
    return excess


def _restart(turn: Turn) -> None:
    """Another copy of the harm tests, while enough are left for the steps to come."""
    state, plan = turn.state, turn.plan
    copies = max((len(guard.copies) for guard in state.guards.values()), default=0)
    spare = plan.copies - (len(plan.steps) - 1 - state.step)
    any_guard = next(iter(state.guards.values()), None)
    if any_guard is None or copies >= spare or state.phase not in ("baking", "proving", "approval"):
        return
    started = replace(any_guard.copies[0].evidence, started=copies)
    if is_restart_due(started, spare, state.at - state.round_at, plan.restart):
        round_ = state.round + 1
        turn.set(
            round=round_, round_at=state.at,
            guards={
                one.name: guards.with_copy(state.guards[one.name], turn.tests(one), round_) for one in plan.guardrails
            },
        )  # fmt: skip


def fast_test(plan: Plan) -> TwoRing:
    return TwoRing(Side.HARM, plan.checks.fast.margin) if plan.checks.fast is not None else TwoRing(Side.HARM)


def is_reporting(turn: Turn) -> bool:
    seen = turn.seen
    return bool(seen.live) and seen.reporting >= turn.plan.checks.min_reporting * len(seen.live) - FIXED
