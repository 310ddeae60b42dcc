"""How a rollout stands, made of its plan and its state: pure, once a tick."""

from __future__ import annotations

from math import isfinite
from typing import Final, Literal

from router.rollout import guards, sentences
from router.rollout.guards import Guard, Tests, tests_of
from router.rollout.plan import Guardrail, Plan
from router.rollout.progress import Gauge, Point, Progress, Proof, Rollback, Side, Standing, StepProgress
from router.rollout.state import State
from router.rollout.statistics.levels import always_valid_p
from router.rollout.statistics.sequences import Interval, difference_sequence
from router.rollout.words import span

MOST_POINTS: Final = 200
CONFIDENCE: Final = 0.05


def progress(plan: Plan, state: State, leader: str, before: Progress | None = None) -> Progress:
    """``before`` is that of the tick before, for its curves."""
    missing = sentences.missing(plan, state)
    gauges = tuple(_gauge(plan, one, state) for one in plan.guardrails)
    curves = {} if before is None or before.id != state.id else dict(before.curves)
    if state.tick and (before is None or before.tick != state.tick):
        for gauge in gauges:
            if gauge.difference is not None:
                curves[gauge.name] = _thinned((*curves.get(gauge.name, ()), Point(state.at, *gauge.difference)))
    return Progress(
        id=state.id, service=plan.service, stable=plan.stable, candidate=plan.candidate, mode=plan.mode,
        phase=state.phase, why=state.why, judged=state.judged, headline=_headline(plan, state, missing),
        next=sentences.next_one(plan, state), step=state.step,
        steps=tuple(_step(plan, state, number) for number in range(len(plan.steps))), gauges=gauges,
        notes=tuple(_notes(plan, state)), events=state.events, started_at=state.started_at,
        started_by=state.started_by, reason=state.reason, at=state.at, tick=state.tick, leader=leader, live=state.live,
        applied=state.live - len(state.waiting), rollback=_rollback(state), curves=curves,
        markers=tuple(
            (at, sentences.step(plan, plan.steps[number])) for number, at in enumerate(state.entered_at)
        ),
        ended_at=state.ended_at, split_p=always_valid_p(state.split_peak),
    )  # fmt: skip


def _thinned(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Every other one goes when there are too many; the last one stays."""
    return points if len(points) <= MOST_POINTS else (*points[:-1:2], points[-1])


def _headline(plan: Plan, state: State, missing: list[str]) -> str:
    step = state.step_of(plan)
    where = f"{step.ring} at {sentences.percent(step.weight)}" if step.weight is not None else step.ring
    last = state.events[-1].sentence if state.events else ""
    match state.phase:
        case "paused":
            transitions = [one.sentence for one in state.events if one.kind == "transition"]
            return f"paused in {where}: {transitions[-1] if transitions else last}"
        case "baking" | "proving":
            left = [f"{span(step.bake - state.baked)} more of baking"] if step.bake > state.baked else []
            return f"holding {where}: {'; '.join([*left, *missing]) or 'everything is proven'}"
        case "approval":
            return f"{where} is proven, and waits for approval"
        case "finalising":
            return f"{plan.candidate} serves everybody; {span(max(0.0, step.bake - state.baked))} to go"
        case "shifting":
            return f"{sentences.step(plan, step)}: {state.live - len(state.waiting)} of {state.live} instances apply it"
        case _:
            return last


def _step(plan: Plan, state: State, number: int) -> StepProgress:
    step = plan.steps[number]
    is_current = number == state.step and bool(state.entered_at)
    is_done = number < len(state.left_at)
    return StepProgress(
        ring=step.ring, promotes=step.promotes, weight=None if step.weight is None else step.weight / 100,
        holdback=None if step.holdback is None else step.holdback / 100, bake=step.bake, min_users=step.min_users,
        deadline=step.deadline, approvals=step.approval.count if step.approval is not None else 0,
        stands="done" if is_done else "current" if is_current else "ahead",
        entered_at=state.entered_at[number] if number < len(state.entered_at) else None,
        left_at=state.left_at[number] if is_done else None,
        baked=state.baked if is_current and not is_done else step.bake if is_done else 0.0,
        users=_users(plan, state, number),
        approved_by=tuple(name for name, _ in state.approvals) if is_current else (),
        sentence=sentences.step(plan, step),
    )  # fmt: skip


def _users(plan: Plan, state: State, number: int) -> int:
    if number < len(state.left_users):
        return state.left_users[number]
    return state.users(plan) if number == state.step and not plan.steps[number].is_final else 0


def _gauge(plan: Plan, guardrail: Guardrail, state: State) -> Gauge:
    guard, tests = state.guards[guardrail.name], tests_of(plan, guardrail, state.step_of(plan))
    ring, x_r, control, x_b = guard.units
    difference = _difference(guard)
    rate = x_b / control if control else 0.0
    limit: float | None = None
    if control:
        margin = tests.proof.margin
        limit = (margin.ratio - 1) * rate + margin.absolute
    return Gauge(
        name=guardrail.name, kind=_kind(guardrail), title=sentences.title(guardrail), on_harm=guardrail.on_harm,
        is_required=guardrail.required, standing=_standing(plan, guard, tests),
        harm=Proof(
            round(_worst(guard, tests), 4), round(tests.harm_level, 4), round(guard.peak, 4),
            guards.is_harmful(guard, tests),
        ),
        proof=Proof(
            round(tests.proof.log_e(guard.proof.evidence), 4), round(tests.proof_level, 4),
            round(guard.proof.evidence.peak, 4), guards.is_proven(guard, tests),
            None if guards.is_proven(guard, tests) else sentences.needed(guardrail, guard, tests),
        ),
        ring=Side(ring, x_r), control=Side(control, x_b), difference=difference, limit=limit,
        alarms=guard.aa.alarms(tests.alpha) if guard.aa is not None else 0,
        sentence=sentences.gauge(guardrail, guard, tests),
    )  # fmt: skip


def _kind(guardrail: Guardrail) -> Literal["outcome", "latency", "source"]:
    if guardrail.latency is not None:
        return "latency"
    return "outcome" if guardrail.outcome is not None else "source"


def _worst(guard: Guard, tests: Tests) -> float:
    """ln E now, of the copy that says most."""
    return max((tests.harm.log_e(copy.evidence) for copy in guard.copies), default=0.0)


def _difference(guard: Guard) -> tuple[float, float, float] | None:
    ring, x_r, control, x_b = guard.units
    if not ring or not control:
        return None
    found: Interval = difference_sequence(min(x_r, ring), ring, min(x_b, control), control, CONFIDENCE)
    values = (found.estimate, found.low, found.high)
    return values if all(map(isfinite, values)) else None


def _standing(plan: Plan, guard: Guard, tests: Tests) -> Standing:
    if guards.is_harmful(guard, tests):
        return "breached"
    if not guards.is_calibrated(guard, tests, plan.checks.aa_most_alarms):
        return "uncalibrated"
    if guards.is_proven(guard, tests):
        return "within"
    return "collecting" if guard.units[0] and guard.units[2] else "no_data"


def _notes(plan: Plan, state: State) -> list[str]:
    notes = []
    if state.waiting and not state.has_ended:
        notes.append(f"not applied yet by {', '.join(state.waiting)}")
    for guardrail in plan.guardrails:
        guard, tests = state.guards[guardrail.name], tests_of(plan, guardrail, state.step_of(plan))
        if not guards.is_calibrated(guard, tests, plan.checks.aa_most_alarms) and guard.aa is not None:
            notes.append(
                f"{guardrail.name} cries wolf: {guard.aa.alarms(tests.alpha)} of 64 slices of {plan.stable} alarm "
                f"against the others, so harm only pauses"
            )
    if plan.mode == "observe":
        notes.append("it only observes: every verdict is recorded, and nothing is written")
    return notes


def _rollback(state: State) -> Rollback | None:
    if not state.verdict_at:
        return None
    began = state.first_user_at or state.verdict_at
    return Rollback(
        state.cause, round(state.verdict_at - began, 3), state.users_hurt, state.requests_hurt, state.applied_after
    )
