"""What ``/metrics`` shows of rollouts, out of how they stand (``rollout.progress``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.process.past import Past
from router.rollout.progress import ENDS, Gauge, Progress
from router.telemetry.exposed_rollouts import GuardrailFigures, RolloutFigures, RolloutsFigures

if TYPE_CHECKING:
    from router.process.control import Control


def rollouts_figures(control: Control, past: Past) -> RolloutsFigures:
    """Of all services, as of now."""
    conductor, now = control.conductor, control.evidence.now()
    return RolloutsFigures(
        {name: of_one(one, now, conductor.tick_seconds(name)) for name, one in conductor.progress.items()},
        {name: conductor.leads(name) for name in control.config.settings.services},
        past.leads_taken, past.transitions, past.notices, past.lost.get("parts", 0),
    )  # fmt: skip


def of_one(progress: Progress, now: float, tick: float) -> RolloutFigures:
    """``now`` is Unix time of Redis, ``tick`` how long one is, in seconds."""
    step = progress.steps[progress.step] if progress.step < len(progress.steps) else None
    has_begun = step is not None and step.entered_at is not None
    rollback = progress.rollback
    return RolloutFigures(
        progress.stable, progress.candidate, progress.mode, progress.phase, progress.why,
        progress.step + 1 if has_begun else 0, len(progress.steps),
        step.entered_at or 0.0 if step is not None else 0.0,
        0.0 if progress.phase in ENDS else round(max(0.0, now - progress.at - tick), 3),
        progress.live, progress.applied, progress.split_p, (rollback.seconds_to_apply or 0.0) if rollback else 0.0,
        {gauge.name: _guardrail(gauge) for gauge in progress.gauges},
    )  # fmt: skip


def _guardrail(gauge: Gauge) -> GuardrailFigures:
    return GuardrailFigures(
        (gauge.ring.units, gauge.control.units), (gauge.harm.peak, gauge.proof.peak),
        (gauge.harm.level, gauge.proof.level), gauge.standing, gauge.difference, gauge.limit,
    )  # fmt: skip
