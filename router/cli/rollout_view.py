"""A rollout on a terminal: the same lines for people and for pipes, and the live picture of ``-w``.

Pure: ``Progress`` in, lines out. It adds no judgement to what the progress says.
"""

from __future__ import annotations

import time
from typing import Any, Final

from router.rollout.progress import Gauge, Progress, Side, StepProgress
from router.rollout.words import span

STALE_SECONDS: Final = 5.0
_MARKS: Final = {"done": "✓", "current": "▶", "ahead": "·"}
_COLOURS: Final = {
    "within": "green", "breached": "bold red", "collecting": "yellow", "uncalibrated": "yellow", "no_data": "dim",
}  # fmt: skip


def title(progress: Progress) -> str:
    """``shop: v1 → v2, step 2 of 5, proving (inconclusive)``"""
    phase = progress.phase.replace("_", " ") + (f" ({progress.why})" if progress.why else "")
    steps = f"step {min(progress.step + 1, len(progress.steps))} of {len(progress.steps)}"
    mode = ", only observing" if progress.mode == "observe" else ""
    return f"{progress.service}: {progress.stable} → {progress.candidate}, {steps}, {phase}{mode}"


def line(progress: Progress) -> str:
    """One rollout on one line, as ``list`` has it."""
    return f"{title(progress)}: {progress.headline}"


def dated(progress: Progress) -> str:
    """The same for a log, with the time of its last tick."""
    return f"{_clock(progress.at)}  {line(progress)}"


def lines(progress: Progress) -> list[str]:
    """Headline, what happens next, the pipeline, a sentence per guardrail, and what is not silent."""
    said = [title(progress), progress.headline]
    if progress.next and progress.ended_at is None:
        said.append(f"next: {progress.next}")
    said += [_step(number, step) for number, step in enumerate(progress.steps, 1)]
    said += [_gauge(gauge, progress.candidate, progress.stable) for gauge in progress.gauges]
    said += [f"note: {note}" for note in progress.notes]
    if progress.rollback is not None:
        said += _rollback(progress)
    said.append(_footing(progress))
    return said


def _step(number: int, step: StepProgress) -> str:
    return f"  {_MARKS[step.stands]} {number} {step.sentence}{_of_step(step)}"


def _of_step(step: StepProgress) -> str:
    if step.stands == "ahead":
        parts = [f"bake {span(step.bake)}"] + [f"at least {step.min_users:,} users a side"] * (step.min_users > 0)
        return f"  ({', '.join(parts)})"
    if step.stands == "done":
        return f"  ({span(step.baked)} baked, {step.users:,} users a side)"
    parts = [f"bake {span(min(step.baked, step.bake))} of {span(step.bake)}"]
    if step.min_users:
        parts.append(f"{step.users:,} of {step.min_users:,} users a side")
    if step.approvals:
        who = f" by {', '.join(step.approved_by)}" if step.approved_by else ""
        parts.append(f"{len(step.approved_by)} of {step.approvals} approvals{who}")
    if step.deadline is not None and step.entered_at is not None:
        parts.append(f"deadline {_clock(step.entered_at + step.deadline)}")
    return f"  ({', '.join(parts)})"


def _gauge(gauge: Gauge, candidate: str, stable: str) -> str:
    figures = f"{candidate} {_rate(gauge.ring)}, {stable} {_rate(gauge.control)}"
    standing = gauge.standing.replace("_", " ")
    return f"  {gauge.name:<10} {standing:<12} {figures}" + (f": {gauge.sentence}" if gauge.sentence else "")


def _rate(side: Side) -> str:
    if not side.units:
        return "no users yet"
    return f"{100 * side.outcomes / side.units:.2f} % of {side.units:,} users"


def _rollback(progress: Progress) -> list[str]:
    back = progress.rollback
    if back is None:
        return []
    applied = (
        "not yet applied everywhere"
        if back.seconds_to_apply is None
        else (f"applied everywhere {span(back.seconds_to_apply)} later")
    )
    hurt = f"{back.users_hurt:,} users and {back.requests_hurt:,} requests were hurt"
    return [f"rolled back: {back.cause}; found after {span(back.seconds_to_verdict)}, {applied}; {hurt}"]


def _footing(progress: Progress) -> str:
    leader = f"led by {progress.leader}" if progress.leader else "nobody leads"
    instances = f"{progress.applied} of {progress.live} instances have applied it"
    end = (
        f", ended {_clock(progress.ended_at)}"
        if progress.ended_at is not None
        else f", last tick {_clock(progress.at)}"
    )
    return f"{progress.id}, started {_clock(progress.started_at)} by {progress.started_by}{end}; {instances}, {leader}"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def event_lines(progress: Progress) -> list[str]:
    """What happened, the oldest first."""
    return [
        f"{_clock(event.at)}  {event.kind:<10} {event.sentence}"
        + (f"  {event.actor}" if event.actor else "")
        + (f"  ({event.reason})" if event.reason else "")
        for event in progress.events
    ]


def picture(progress: Progress, age: float) -> Any:
    """The same for ``rich``'s live display, coloured; ``age``: seconds since it was read."""
    from rich.console import Group
    from rich.text import Text

    standings = {f"  {gauge.name:<10} ": gauge.standing for gauge in progress.gauges}
    shown = []
    for number, said in enumerate(lines(progress)):
        style = (
            "bold"
            if number < 2
            else next((_COLOURS[standing] for start, standing in standings.items() if said.startswith(start)), "")
        )
        shown.append(Text(said, style))
    shown += [Text(said, "dim") for said in event_lines(progress)[-6:]]
    state = Text("LIVE", "green") if age < STALE_SECONDS else Text(f"STALE {age:.0f} s", "bold red")
    return Group(*shown, state)
