"""What a rollout says, with both numbers in it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Final

from router.rollout import guards
from router.rollout.guards import Guard, Tests, tests_of
from router.rollout.observation import Observation
from router.rollout.plan import Guardrail, Plan, Step
from router.rollout.statistics.forecast import units_to_reach
from router.rollout.statistics.latency import shift_factor
from router.rollout.words import span

if TYPE_CHECKING:
    from router.rollout.state import Routing, State

HEALED: Final = {
    "no_data": "figures are whole again",
    "no_traffic": "the candidate has traffic again",
    "dependency": "what it depends on is there again",
}


def begun(plan: Plan) -> str:
    rings = " → ".join(dict.fromkeys(one.ring for one in plan.steps))
    return f"{plan.candidate} is to take the place of {plan.stable}: {rings}"


def step(plan: Plan, one: Step) -> str:
    """``canary runs v2 at 5 %``"""
    said = f"{one.ring} runs {plan.candidate}"
    if one.weight is not None:
        said += f" at {percent(one.weight)}"
    if one.holdback:
        said += f", {percent(one.holdback)} of its users held back"
    return said


def percent(basis_points: int) -> str:
    return f"{basis_points / 100:g} %"


def tolerance(guardrail: Guardrail) -> str:
    """``at most 1.25 × the control's + 0.1 points``"""
    if guardrail.latency is not None:
        return f"at most {shift_factor(guardrail.latency.shift_buckets):.2f} × the control's"
    bound = "at least" if guardrail.is_lower_worse else "at most"
    said = f"{bound} {guardrail.margin.ratio:g} × the control's"
    return said + (f" + {100 * guardrail.margin.absolute:g} points" if guardrail.margin.absolute else "")


def needed(guardrail: Guardrail, guard: Guard, tests: Tests) -> int | None:
    """About how many more ring units the proof will take if all goes on as the control does now; None: no number."""
    ring, _, control, failed = guard.units
    if not ring or not control:
        return None
    mean = failed / control
    # Both sides of an outcome are taken to be alike; where the ring's edge is another one they cannot be.
    is_alike = guardrail.latency is None and not guardrail.is_lower_worse
    ring_mean = mean if is_alike else min(1.0, guard.units[1] / ring)
    return units_to_reach(
        tests.proof, guard.proof.evidence, tests.proof_level, ring_mean=ring_mean, control_mean=mean,
        control_per_ring=control / ring,
    )  # fmt: skip


def not_proven(guardrail: Guardrail, guard: Guard, tests: Tests) -> str:
    """``p99 not yet proven (ln E 1.9 of 3.0, about 2,400 more users)``"""
    now = tests.proof.log_e(guard.proof.evidence)
    said = f"{guardrail.name} not yet proven (ln E {now:.1f} of {tests.proof_level:.1f}"
    if not guard.units[0]:
        return f"{said}, nobody counted yet)"
    if not guard.units[2]:
        return f"{said}, nobody to compare with)"
    more = needed(guardrail, guard, tests)
    return f"{said}, {'out of reach as it is' if more is None else f'about {rounded(more):,} more users'})"


def rounded(count: int) -> int:
    """Two digits: it is an estimate."""
    scale = 10 ** max(0, len(str(count)) - 2)
    return int(ceil(count / scale) * scale)


def rates(guardrail: Guardrail, guard: Guard) -> str:
    """``5.10 % of 1,020 users against 0.10 % of 9,800``"""
    ring, failed, control, control_failed = guard.units
    here = f"{100 * failed / ring:.2f} % of {ring:,}" if ring else "nobody"
    there = f"{100 * control_failed / control:.2f} % of {control:,}" if control else "nobody"
    if guardrail.latency is None:
        return f"{here} users against {there}"
    factor = f"{shift_factor(guardrail.latency.shift_buckets):.2f} × the control's {quantile(guardrail)}"
    return f"above {factor} were {here} users' requests, and above it {there} of its own"


def quantile(guardrail: Guardrail) -> str:
    """``p99``"""
    return "" if guardrail.latency is None else f"p{100 * guardrail.latency.quantile:g}"


def harm(plan: Plan, guardrail: Guardrail, guard: Guard, tests: Tests) -> str:
    del plan
    return (
        f"{guardrail.name} is proven to be worse than tolerated ({tolerance(guardrail)}): "
        f"{rates(guardrail, guard)} (ln E {guard.peak:.1f} of {tests.harm_level:.1f})"
    )


def breaker(plan: Plan, errors: int, requests: int, window: float) -> str:
    return f"{errors:,} of {requests:,} requests to {plan.candidate} failed within {span(window)}"


def local_breaker(plan: Plan, workers: int) -> str:
    return f"{workers} worker{'s have' if workers > 1 else ' has'} taken {plan.candidate} out on their own"


def fast(plan: Plan, log_e: float, level: float) -> str:
    return (
        f"requests to {plan.candidate} fail far more often than the control's, for many users "
        f"(ln E {log_e:.1f} of {level:.1f})"
    )


def everybody(plan: Plan, errors: int, requests: int, window: float) -> str:
    return (
        f"everything fails: {errors:,} of {requests:,} requests to {plan.stable} within {span(window)}, "
        f"so it is not {plan.candidate}"
    )


def no_data(seen: Observation) -> str:
    return f"figures of {seen.reporting} of {len(seen.live)} instances are there"


def no_traffic(plan: Plan, seen: Observation, seconds: float) -> str:
    return (
        f"{plan.candidate} has had no request for {span(seconds)}, while {plan.stable} had "
        f"{seen.control_requests:,} in the last tick"
    )


def mismatch(plan: Plan, state: State, seen: Observation) -> str:
    ring, total = seen.arrived[0], sum(seen.arrived)
    return (
        f"users do not come in the shares that were asked for: {plan.candidate} has {100 * ring / max(1, total):.2f} % "
        f"of {total:,} instead of {100 * seen.share:.2f} %, so comparisons mean nothing (ln E {state.split_peak:.1f})"
    )


def missing(plan: Plan, state: State) -> list[str]:
    """What a step still needs, as sentences; nothing: it is proven."""
    step = state.step_of(plan)
    if step.is_final:
        return []
    found = []
    users = state.users(plan)
    if users < step.min_users:
        found.append(f"{users:,} of {step.min_users:,} users")
    for guardrail in plan.guardrails:
        tests, guard = tests_of(plan, guardrail, step), state.guards[guardrail.name]
        if guardrail.required and not guards.is_proven(guard, tests):
            found.append(not_proven(guardrail, guard, tests))
    return found


def unproven(plan: Plan, state: State) -> str:
    found = missing(plan, state)
    return f"step {state.step + 1} is left unproven: {'; '.join(found)}" if found else "everything was proven"


def proven(plan: Plan, state: State) -> str:
    names = ", ".join(one.name for one in plan.guardrails if one.required) or "nothing was required"
    return f"proven to be within tolerance: {names}, with {state.users(plan):,} users on the smaller side"


def succeeded(plan: Plan, state: State) -> str:
    del state
    return f"{plan.candidate} has taken the place of {plan.stable}"


def difference(expected: Routing, now: Routing, killed: Sequence[str]) -> str:
    """``canary 5 % → 20 %, early killed``"""
    said = []
    for ring, weight in now.weights.items():
        if weight != expected.weights.get(ring):
            said.append(f"{ring} {percent(expected.weights.get(ring, 0))} → {percent(weight)}")
    for ring, version in now.versions.items():
        if version != expected.versions.get(ring):
            said.append(f"{ring} runs {expected.versions.get(ring)} → {version}")
    for ring, held in now.holdbacks.items():
        if held != expected.holdbacks.get(ring, 0):
            said.append(f"{ring} holds back {percent(expected.holdbacks.get(ring, 0))} → {percent(held)}")
    return ", ".join([*said, *(f"{ring} is killed" for ring in killed)]) or "something else"


def next_one(plan: Plan, state: State) -> str:
    """What happens next, and what would make it go back."""
    phase = state.phase
    if phase == "paused":
        return PAUSED.get(state.why, "`resume` or `rollback`, whatever you decide")
    if phase in ("pending", "waiting"):
        return f"begins with {step(plan, plan.steps[0])} as soon as nothing forbids it"
    if phase == "shifting":
        return f"waits until every instance has applied it ({state.live - len(state.waiting)} of {state.live})"
    if phase == "rolling_back":
        return f"waits until every instance routes {plan.stable} again"
    if phase not in ("baking", "proving", "approval", "finalising"):
        return "nothing: it has ended"
    one = state.step_of(plan)
    back = " or ".join(g.name for g in plan.guardrails if g.on_harm == "rollback") or "the breaker"
    if phase == "finalising":
        return f"succeeds after {span(max(0.0, one.bake - state.baked))} more; goes back if the breaker says so"
    ahead = state.step + 1
    target = step(plan, plan.steps[ahead]) if ahead < len(plan.steps) else "it has succeeded"
    waits = [f"{span(one.bake - state.baked)} more of baking"] if one.bake > state.baked else []
    if phase == "approval" and one.approval is not None:
        waits.append(f"{one.approval.count - len(state.approvals)} to approve")
    return (
        f"{target}, when there is {'; '.join([*waits, *missing(plan, state)]) or 'a tick more'}. "
        f"Goes back at once when {back} is proven to be worse than tolerated"
    )


PAUSED: Final = {
    "override": "`resume --adopt` goes on from what is routed now, `--restore` puts the plan's routing back",
    "no_data": "goes on by itself when figures are whole again",
    "no_traffic": "goes on by itself when the candidate has traffic again",
    "dependency": "goes on by itself when what it depends on is there again",
    "inconclusive": "`resume` gives it another deadline, `resume --accept-unproven` goes on all the same",
}


def title(guardrail: Guardrail) -> str:
    return f"{guardrail.name}: {tolerance(guardrail)}"


def gauge(guardrail: Guardrail, guard: Guard, tests: Tests) -> str:
    if guards.is_harmful(guard, tests):
        return (
            f"{guardrail.name} is proven to be worse than tolerated: {rates(guardrail, guard)} "
            f"(ln E {guard.peak:.1f} of {tests.harm_level:.1f})"
        )
    if guards.is_proven(guard, tests):
        return f"{guardrail.name} is proven to be within tolerance: {rates(guardrail, guard)}"
    return not_proven(guardrail, guard, tests)
