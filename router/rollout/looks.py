"""What a rollout looks at each turn, and what it does about it: each look returns whether it ended the turn."""

from __future__ import annotations

from typing import Final

from router.rollout import guards, sentences
from router.rollout.intake import FIXED, is_reporting
from router.rollout.progress import Phase
from router.rollout.state import GOING_ON, HEALING
from router.rollout.statistics.levels import harm_level
from router.rollout.turn import Turn, back_in, enter, has_no_budget, judge, new_epoch, next_step, pause, roll_back
from router.rollout.words import span

HEARD_SECONDS: Final = 2.0
"""Until every instance has heard of a rollout, and says what it routes by."""
CLEAN_TICKS: Final = 3
"""In a row, before a pause for want of figures ends."""


def gross(turn: Turn) -> bool:
    state, seen, plan = turn.state, turn.seen, turn.plan
    if not seen.is_whole or (state.phase not in GOING_ON and state.phase != "paused"):
        return False
    breaker, fast = plan.checks.breaker, plan.checks.fast
    if breaker is not None:
        requests, errors = sum(one[1] for one in state.recent), sum(one[2] for one in state.recent)
        slices = 0
        for one in state.recent:
            slices |= one[3]
        is_gross = requests >= breaker.min_requests and errors >= breaker.errors * requests
        is_gross = is_gross and slices.bit_count() >= breaker.min_slices
        if (is_gross or seen.open_breakers) and _is_everybody(turn):
            if state.phase == "paused" and state.why not in HEALING:
                return False  # it waits for somebody, and goes on doing so
            return pause(turn, "dependency", sentences.everybody(plan, *_of_control(turn), breaker.window))
        if is_gross:
            return _harm(turn, sentences.breaker(plan, errors, requests, breaker.window))
        if seen.open_breakers:
            return _harm(turn, sentences.local_breaker(plan, seen.open_breakers))
    is_wide = fast is not None and state.fast_slices.bit_count() >= fast.min_slices
    if fast is not None and is_wide and state.fast.peak >= harm_level(fast.alpha):
        return _harm(turn, sentences.fast(plan, state.fast.peak, harm_level(fast.alpha)))
    return False


def _is_everybody(turn: Turn) -> bool:
    """Whether the control fails just as massively, now or within the same window: then it is not the candidate."""
    seen, breaker = turn.seen, turn.plan.checks.breaker
    return breaker is not None and any(
        requests > 0 and errors >= breaker.errors * requests
        for errors, requests in ((seen.control_errors, seen.control_requests), _of_control(turn))
    )


def _of_control(turn: Turn) -> tuple[int, int]:
    """Errors and requests of the control within the breaker's window."""
    recent = turn.state.recent
    return sum(one[5] for one in recent), sum(one[4] for one in recent)


def _harm(turn: Turn, cause: str) -> bool:
    """Harm is proven."""
    if turn.state.judged != "failed":
        judge(turn, "failed", cause)
    if turn.plan.mode == "observe":
        return True
    if turn.plan.forward_only:
        return pause(turn, "harm", f"{cause}; it is forward only, so nothing goes back")
    roll_back(turn, cause)
    return True


def returning(turn: Turn) -> bool:
    """A rollback is over when the last instance has applied it."""
    state, seen = turn.state, turn.seen
    if state.phase != "rolling_back":
        return False
    if seen.live and not seen.waiting:
        took = max(0.0, (seen.applied_at or seen.at) - state.verdict_at)
        turn.set(applied_after=took, ended_at=seen.at)
        after: Phase = "superseded" if state.supersedes else "rolled_back"
        turn.go(after, f"all {len(seen.live)} instances route {turn.plan.stable} again after {took:.2f} s")
    elif seen.at - state.verdict_at > turn.plan.shift_seconds:
        turn.set(ended_at=seen.at)
        turn.go("rollback_stalled", f"not applied by {', '.join(seen.waiting) or 'anybody'}")
    return True


def health(turn: Turn) -> bool:
    state, seen, checks = turn.state, turn.seen, turn.plan.checks
    if not seen.is_whole or state.phase in ("pending", "waiting", "rolling_back"):
        return False
    is_dark = not is_reporting(turn)
    has_nobody = not is_dark and seen.ring_requests == 0 and (seen.control_requests > 0 or turn.step.is_final)
    turn.set(
        dark_since=(state.dark_since or seen.at) if is_dark else 0.0,
        quiet_since=(state.quiet_since or seen.at) if has_nobody else 0.0,
    )
    if state.phase == "paused":
        return _heal(turn, is_dark=is_dark, has_nobody=has_nobody or seen.ring_requests == 0)
    if state.phase == "shifting":
        return False
    dark, quiet = turn.state.dark_since, turn.state.quiet_since
    if checks.no_data_grace is not None and dark and seen.at - dark >= checks.no_data_grace:
        return pause(turn, "no_data", sentences.no_data(seen))
    if checks.no_traffic_grace is not None and quiet and seen.at - quiet >= checks.no_traffic_grace:
        return pause(turn, "no_traffic", sentences.no_traffic(turn.plan, seen, seen.at - quiet))
    return False


def _heal(turn: Turn, *, is_dark: bool, has_nobody: bool) -> bool:
    state = turn.state
    if state.why not in HEALING or state.fresh < CLEAN_TICKS or is_dark or has_nobody:
        return False
    if state.why == "dependency" and (turn.seen.lost or _is_everybody(turn)):
        return False
    new_epoch(turn)  # who comes again now, and who has not been away, are not alike
    turn.go(back_in(state), f"{sentences.HEALED[state.why]}, so it goes on")
    return True


def ratio(turn: Turn) -> bool:
    state, alpha = turn.state, turn.plan.checks.srm_alpha
    if alpha is None or state.phase not in GOING_ON or state.split_peak < harm_level(alpha):
        return False
    return pause(turn, "srm", sentences.mismatch(turn.plan, state, turn.seen))


def harmful(turn: Turn) -> bool:
    state = turn.state
    if state.phase not in GOING_ON and state.phase != "paused":
        return False
    for guardrail in turn.plan.guardrails:
        tests, guard = turn.tests(guardrail), state.guards[guardrail.name]
        if guardrail.on_harm != "rollback" or not guards.is_harmful(guard, tests):
            continue
        sentence = sentences.harm(turn.plan, guardrail, guard, tests)
        if guards.is_calibrated(guard, tests, turn.plan.checks.aa_most_alarms):
            return _harm(turn, sentence)
        if state.phase != "paused":
            return pause(turn, "uncalibrated", f"{sentence}; but its A/A cries wolf, so it only pauses")
    return False


def signal(turn: Turn) -> bool:
    """Worse, and not proven to be within what this step tolerates."""
    state = turn.state
    if state.phase not in GOING_ON:
        return False
    for guardrail in turn.plan.guardrails:
        tests, guard = turn.tests(guardrail), state.guards[guardrail.name]
        if guardrail.on_harm == "pause" and guards.is_harmful(guard, tests) and not guards.is_proven(guard, tests):
            return pause(turn, "signal", sentences.harm(turn.plan, guardrail, guard, tests))
    return False


def outside(turn: Turn) -> bool:
    """Dependencies hold a rollout that is under way; windows only keep it from widening."""
    if turn.seen.lost and turn.state.phase in GOING_ON:
        return pause(turn, "dependency", turn.seen.lost[0])
    return False


def start(turn: Turn) -> bool:
    state, seen = turn.state, turn.seen
    if state.phase not in ("pending", "waiting"):
        return False
    if seen.at - state.started_at < HEARD_SECONDS:
        return True
    hindrance = seen.lost[0] if seen.lost else seen.closed or (f"frozen: {seen.freeze}" if seen.freeze else "")
    if hindrance:
        if state.phase == "pending":
            turn.go("waiting", hindrance)
        return True
    enter(turn, 0, "the first step")
    return True


def shifted(turn: Turn) -> bool:
    state, seen = turn.state, turn.seen
    if state.phase != "shifting":
        return False
    is_late = seen.at - state.phase_at > turn.plan.shift_seconds
    if not seen.live or (seen.waiting and not is_late):
        return True
    turn.set(baked=0.0)
    new_epoch(turn)
    without = f", without {', '.join(seen.waiting)}" if seen.waiting else ""
    count = len(seen.live) - len(seen.waiting)
    phase: Phase = "finalising" if turn.step.is_final else "baking"
    turn.go(phase, f"{count} of {len(seen.live)} instances have applied it{without}")
    return True


def proof(turn: Turn) -> bool:
    state, seen, step = turn.state, turn.seen, turn.step
    if state.phase not in ("baking", "proving", "approval", "finalising") or not seen.is_whole:
        return False
    has_baked = state.baked >= step.bake - FIXED
    if state.phase == "finalising":
        if has_baked:
            turn.set(ended_at=seen.at, left_at=(*state.left_at, seen.at), judged="successful")
            turn.go("succeeded", sentences.succeeded(turn.plan, state))
        return has_baked
    if state.phase == "baking" and has_baked:
        turn.go("proving", "baked; now it has to be proven")
    missing = sentences.missing(turn.plan, turn.state)
    is_blind = bool(seen.missing) or not is_reporting(turn)
    judge(
        turn,
        "error" if is_blind else "inconclusive" if missing else "successful",
        "; ".join(missing) or sentences.proven(turn.plan, turn.state),
    )
    if missing or not has_baked or is_blind:
        return _is_overdue(turn, missing, is_blind=is_blind)
    if step.approval is not None and turn.plan.mode == "enforce":
        kept = tuple(one for one in turn.state.approvals if seen.at - one[1] <= step.approval.expires)
        turn.set(approvals=kept)
        if len(kept) < step.approval.count:
            if turn.state.phase != "approval":
                turn.go("approval", f"proven; it waits for {step.approval.count - len(kept)} to approve")
                return True
            return False
    if seen.closed or seen.freeze or (turn.plan.mode == "enforce" and has_no_budget(turn)):
        return False
    next_step(turn, sentences.proven(turn.plan, turn.state))
    return True


def _is_overdue(turn: Turn, missing: list[str], *, is_blind: bool) -> bool:
    state, step = turn.state, turn.step
    if step.deadline is None or not missing or turn.seen.at - state.entered_at[-1] <= step.deadline:
        return False
    said = f"not proven within {span(step.deadline)}: {'; '.join(missing)}"
    match turn.plan.on_deadline:
        case "rollback":
            roll_back(turn, said)
        case "promote" if is_blind or turn.seen.closed or turn.seen.freeze:
            return False
        case "promote":
            turn.state = state.event("verdict", "", "accepted unproven", said)
            next_step(turn, f"accepted unproven: {said}")
        case _:
            return pause(turn, "inconclusive", said)
    return True
