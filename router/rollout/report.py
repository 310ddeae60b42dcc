"""What came of a rollout, for people to keep: a sentence, what a rollback cost, and all of it as Markdown.

Pure: text of ``Progress`` alone, so that the report of a rollout is the same wherever it is made. Whatever people typed
(reasons, names) goes in escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from router.rollout.progress import ENDS, Event, Gauge, Progress, Rollback, Side, StepProgress
from router.rollout.words import span

NONE: Final = "–"
_WORDS: Final = {
    "collecting": "collecting", "within": "within limits", "breached": "breached", "no_data": "no data",
    "uncalibrated": "uncalibrated",
}  # fmt: skip
_OUTCOMES: Final = {
    "succeeded": "{candidate} is everywhere: every step was proven within its margins",
    "rolled_back": "{candidate} was rolled back",
    "rollback_stalled": "{candidate} was rolled back, and not every instance has said that it applies it",
    "superseded": "Another rollout has taken the place of this one",
    "aborted": "Ended by hand, and the rings were left as they were",
}


@dataclass(frozen=True, slots=True)
class Report:
    """A rollout with what came of it in words."""

    outcome: str
    cost: str
    """What the rollback cost; empty: there was none."""
    progress: Progress


def report(progress: Progress) -> Report:
    cost = "" if progress.rollback is None else _cost(progress.rollback)
    return Report(outcome(progress), cost, progress)


def outcome(progress: Progress) -> str:
    """One sentence: how it ended, or how it stands."""
    if progress.phase not in ENDS:
        return f"Under way: {progress.headline}"
    said = _OUTCOMES[progress.phase].format(candidate=progress.candidate)
    if progress.mode == "observe":
        said = f"Observed only, nothing was written: {said[0].lower()}{said[1:]}"
    if progress.rollback is not None:
        said += f": {progress.rollback.cause}"
    return said + "." if said[-1] not in ".!?" else said


def markdown(progress: Progress) -> str:
    """The whole report (CommonMark with tables)."""
    one = report(progress)
    parts = [
        f"# {_text(progress.service)}: {_text(progress.stable)} → {_text(progress.candidate)}",
        f"**{_text(one.outcome)}**",
        _facts(progress),
    ]
    if one.cost:
        parts.append(_text(one.cost))
    if progress.notes:
        parts.append("\n".join(f"* {_text(note)}" for note in progress.notes))
    parts += ["## Metrics", _metrics(progress), "## Steps", _steps(progress.steps)]
    people = [event for event in progress.events if event.actor]
    parts += ["## Who did what", _events(people) if people else "Nobody has stepped in."]
    parts += ["## All that happened", _events(progress.events) if progress.events else "Nothing yet."]
    parts.append(
        f"Each verdict can be worked out again from the stored counts: "
        f"`ring-router rollout report {progress.service} --verify`"
    )
    return "\n\n".join(parts) + "\n"


def _cost(rollback: Rollback) -> str:
    applied = "and is not applied everywhere yet"
    if rollback.seconds_to_apply is not None:
        applied = f"and was applied by the last instance {span(rollback.seconds_to_apply)} later"
    return (
        f"The verdict came {span(rollback.seconds_to_verdict)} after the candidate's first user in the step, "
        f"{applied}. Until then {_counted(rollback.users_hurt, 'user')} met a failure, in "
        f"{_counted(rollback.requests_hurt, 'request')}."
    )


def _facts(progress: Progress) -> str:
    ended = "" if progress.ended_at is None else f", ended {_moment(progress.ended_at)}"
    lines = [
        f"Started {_moment(progress.started_at)} by {_text(progress.started_by or 'somebody')}{ended}",
        f"Why: {_text(progress.reason or 'no reason given')}",
        f"Rollout `{progress.id}`, mode {progress.mode}, phase {progress.phase}"
        + (f" ({progress.why})" if progress.why else ""),
    ]
    return "\n".join(f"* {line}" for line in lines)


def _metrics(progress: Progress) -> str:
    head = [
        "metric",
        progress.stable,
        progress.candidate,
        "difference",
        "interval",
        "users",
        "standing",
        "required",
        "",
    ]
    return _table(head, (_metric(gauge) for gauge in progress.gauges))


def _metric(gauge: Gauge) -> list[str]:
    estimate, interval = NONE, NONE
    if gauge.difference is not None:
        value, low, high = gauge.difference
        estimate, interval = f"{_points(value)} pp", f"[{_points(low)}, {_points(high)}]"
    users = f"{gauge.ring.units:,} and {gauge.control.units:,}"
    required = "yes" if gauge.is_required else "no"
    return [
        gauge.title, _rate(gauge.control), _rate(gauge.ring), estimate, interval, users, _WORDS[gauge.standing],
        required, gauge.sentence,
    ]  # fmt: skip


def _steps(steps: Sequence[StepProgress]) -> str:
    rows = (
        [
            str(number), step.sentence, step.stands, _at(step.entered_at), _at(step.left_at), span(step.baked),
            f"{step.users:,}", ", ".join(step.approved_by) or NONE,
        ]
        for number, step in enumerate(steps, 1)
    )  # fmt: skip
    return _table(["", "step", "stands", "entered", "left", "baked", "users", "approved by"], rows)


def _events(events: Iterable[Event]) -> str:
    rows = ([_moment(one.at), one.actor or "the rollout", one.sentence, one.reason or NONE] for one in events)
    return _table(["when (UTC)", "who", "what", "why"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_text(cell) for cell in line)} |" for line in lines)


def _text(said: str) -> str:
    """On one line, and nothing in it is markup."""
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", " ".join(said.split()))


def _rate(side: Side) -> str:
    return f"{100 * side.outcomes / side.units:.2f} %" if side.units else NONE


def _points(rate: float) -> str:
    """Percentage points with their sign."""
    text = f"{100 * rate:+.2f}".replace("-", "−")
    return "0.00" if text[1:] == "0.00" else text


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _at(at: float | None) -> str:
    return NONE if at is None else _moment(at)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
