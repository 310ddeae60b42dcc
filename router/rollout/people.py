"""What people want of a rollout, and what they do to its routing behind its back.

It never fights anybody: what somebody else has set stays, until it is told to adopt it or to put its own back.
"""

from __future__ import annotations

from router.rollout import guards, sentences
from router.rollout.intake import fast_test
from router.rollout.observation import Command
from router.rollout.state import GOING_ON, HEALING, ITSELF, Routing, Who
from router.rollout.turn import (
    Turn,
    back_in,
    enter,
    narrowed,
    new_epoch,
    next_step,
    pause,
    roll_back,
    routing_at,
    routing_seen,
)


def people(turn: Turn) -> None:
    begun = turn.state.entered_at, turn.state.step
    for command in turn.seen.commands:
        if command.id in turn.state.done:
            continue
        has_moved = turn.routing is not None or (turn.state.entered_at, turn.state.step) != begun
        if has_moved and command.verb in ("approve", "promote", "resume"):
            no = "somebody else has just moved it: look at it again first"
        else:
            no = _follow(turn, command)
        refused = {**turn.state.refused, command.id: no} if no else turn.state.refused
        done = (*turn.state.done[-99:], command.id)
        turn.set(done=done, refused={id_: why for id_, why in refused.items() if id_ in done})


def _follow(turn: Turn, command: Command) -> str:
    """Do what somebody wants; what is wrong with it as a sentence, where it cannot be done."""
    state, plan, phase = turn.state, turn.plan, turn.state.phase
    by = Who(command.actor, command.reason)
    ended = f"the rollout of {plan.candidate} has ended ({phase.replace('_', ' ')})"
    match command.verb:
        case "rollback":
            late = turn.seen.at - (state.ended_at or turn.seen.at)
            if phase == "succeeded" and late > plan.after_success:
                return f"{ended}, and longer ago than `after_success` allows"
            if (state.has_ended and phase != "succeeded") or phase == "rolling_back":
                return ended if state.has_ended else "it is being rolled back already"
            turn.set(supersedes=command.how == "superseded")
            roll_back(turn, f"{command.actor} wants it", by=by)
            return ""
        case _ if state.has_ended or phase == "rolling_back":
            return ended if state.has_ended else "it is being rolled back"
        case "abort":
            turn.set(ended_at=turn.seen.at)
            turn.go("aborted", f"{command.actor} ended the rollout; the routing stays as it is", by=by)
        case "pause":
            if phase == "paused" and state.why not in HEALING:
                return "it is paused already"
            pause(turn, "manual", f"paused by {command.actor}", by=by)
        case "resume":
            return _resume(turn, command)
        case "approve":
            if turn.step.approval is None:
                return f"step {state.step + 1} needs no approval"
            if command.actor in (name for name, _ in state.approvals):
                return f"{command.actor} has approved of step {state.step + 1} already: somebody else has to"
            turn.set(approvals=(*state.approvals, (command.actor, turn.seen.at)))
            sentence = f"{command.actor} approves of step {state.step + 1}"
            turn.state = turn.state.event("command", "", "approved", sentence, by=by)
        case "promote":
            if phase not in ("baking", "proving", "approval", "finalising", "paused"):
                return f"there is nothing to promote while it is {phase}"
            return _go_on_unproven(turn, f"{command.actor} promotes it", by)
    return ""


def _resume(turn: Turn, command: Command) -> str:
    state = turn.state
    by = Who(command.actor, command.reason)
    if state.phase != "paused":
        return f"it is not paused but {state.phase}"
    if command.how != "accept":
        _let_pass(turn)
        state = turn.state
    match command.how:
        case "adopt":
            _adopt(turn, f"{command.actor} adopts what is routed now", by=by)
        case "restore":
            turn.write(state.expected)
            turn.go(
                "shifting" if state.entered_at else "pending", f"{command.actor} restores the plan's routing", by=by
            )
        case "accept":
            return _go_on_unproven(turn, f"{command.actor} accepts the step unproven", by)
        case _:
            if state.why == "override":
                return "somebody changed the routing by hand: say --adopt to go on from there, or --restore"
            if state.paused_in in ("baking", "proving", "approval", "finalising"):
                new_epoch(turn)
            turn.go(back_in(state), f"{command.actor} resumes it", by=by)
            if turn.state.phase in ("baking", "proving", "approval"):
                turn.set(entered_at=(*state.entered_at[:-1], turn.seen.at))  # its deadline begins anew
    return ""


def _go_on_unproven(turn: Turn, sentence: str, by: Who) -> str:
    state = turn.state
    if state.why == "override":
        return "somebody changed the routing by hand: resume with --adopt or --restore first"
    if not state.entered_at:
        return "it has not begun yet: resume it, and its first step begins as soon as nothing forbids it"
    if turn.seen.freeze:
        return f"frozen ({turn.seen.freeze}): nothing is widened until it is thawed"
    _let_pass(turn)
    said = sentences.unproven(turn.plan, turn.state)
    turn.state = turn.state.event("command", "", "accepted unproven", said, by=by)
    next_step(turn, sentence, by=by)
    return ""


def _let_pass(turn: Turn) -> None:
    """Somebody goes on in spite of what it was paused for: the same evidence does not pause it again at once."""
    state, plan = turn.state, turn.plan
    if state.why in ("signal", "uncalibrated", "harm"):
        turn.set(
            recent=(), fast=fast_test(plan).begin(), fast_slices=0,
            guards={
                one.name: guards.let_pass(state.guards[one.name], turn.tests(one), state.round)
                for one in plan.guardrails
            },
        )  # fmt: skip


def _adopt(turn: Turn, sentence: str, by: Who = ITSELF) -> None:
    """Go on from what is routed: the last step that it amounts to."""
    now = routing_seen(turn.seen)
    adopted = narrowed(now, turn.state.before)
    reached = [
        number
        for number in range(len(turn.plan.steps))
        if _amounts_to(now, routing_at(turn.plan, turn.state.before, number))
    ]
    if not reached:
        turn.set(step=0, entered_at=(), left_at=(), left_users=(), expected=adopted)
        turn.go("pending", f"{sentence}: that is before the first step", by=by)
        return
    enter(turn, reached[-1], f"{sentence}: step {reached[-1] + 1}", by=by, adopted=adopted)


def _amounts_to(now: Routing, wanted: Routing) -> bool:
    return all(now.versions.get(ring) == version for ring, version in wanted.versions.items()) and all(
        now.weights.get(ring, 0) >= weight for ring, weight in wanted.weights.items()
    )


def by_hand(turn: Turn) -> bool:
    state, seen = turn.state, turn.seen
    if state.phase not in GOING_ON and not (state.phase == "paused" and state.why not in ("override", "manual")):
        return False
    now = narrowed(routing_seen(seen), state.expected)
    killed = [ring for ring in seen.killed if ring in state.expected.versions]
    if (now == state.expected and not killed) or turn.plan.mode == "observe":
        return False
    what = sentences.difference(state.expected, now, killed)
    turn.state = state.event("override", "", "", f"somebody changed the routing by hand: {what}")
    gone = [ring for ring, weight in now.weights.items() if weight == 0 < state.expected.weights.get(ring, 0)]
    if gone:  # whoever takes the whole ring away wants the candidate gone
        roll_back(turn, f"somebody set {' and '.join(gone)} to 0 by hand")
        return True
    may_go_on = not killed and state.phase != "paused"
    match turn.plan.on_manual_edit:
        case "adopt" if may_go_on:
            _adopt(turn, "what somebody set is adopted")
        case "revert" if may_go_on:
            turn.write(state.expected)
            turn.go("shifting", "the plan's routing is put back")
        case _:
            pause(turn, "override", f"somebody changed the routing by hand: {what}")
    return True
