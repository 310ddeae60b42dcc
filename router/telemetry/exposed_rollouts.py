"""The part of ``/metrics`` that is about rollouts.

Guardrails are those of the plan that runs, or ran last, and no others: names come and go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from router.telemetry import catalogue
from router.telemetry.catalogue import Metric, Rollouts
from router.telemetry.page import Page, labels

Sides = tuple[float, float]


@dataclass(frozen=True, slots=True)
class GuardrailFigures:
    """What is shown of one guardrail. ``log_e`` and ``level``: of harm, then of proof."""

    units: Sides
    """Of the candidate, then of the control."""
    log_e: Sides
    level: Sides
    standing: str
    difference: tuple[float, float, float] | None = None
    """Estimate, low, high."""
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class RolloutFigures:
    """What is shown of one service's rollout."""

    stable: str
    candidate: str
    mode: str
    phase: str
    why: str
    step: int
    """From 1; 0 before the first one."""
    steps: int
    entered_at: float
    lag: float
    live: int
    applied: int
    split: float
    rollback_seconds: float
    guardrails: Mapping[str, GuardrailFigures] = field(default_factory=dict)


@dataclass(slots=True)
class RolloutsFigures:
    """What is shown of all of them; counts are this instance's."""

    found: Mapping[str, RolloutFigures] = field(default_factory=dict)
    leads: Mapping[str, bool] = field(default_factory=dict)
    leads_taken: Mapping[str, int] = field(default_factory=dict)
    transitions: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """(service, phase, auto or human) → how often"""
    notices: Mapping[str, int] = field(default_factory=dict)
    lost: int = 0


def rollouts(page: Page, services: Iterable[str], figures: RolloutsFigures) -> None:
    """Every service has its phases, counts and leader; figures of a rollout are there as soon as there was one."""
    names = [*services]
    known = {name: figures.found[name] for name in names if name in figures.found}
    _standing(page, names, known)
    _leading(page, names, known, figures)
    _guardrails(page, known)
    page.begin(Rollouts.ROLLBACK)
    for name in names:
        page.add(labels(service=name), known[name].rollback_seconds if name in known else 0)
    page.begin(Rollouts.LOST)
    page.add("", figures.lost)
    page.begin(Rollouts.NOTICES)
    page.add_each("", "result", catalogue.NOTICES, figures.notices)


def _standing(page: Page, names: list[str], known: Mapping[str, RolloutFigures]) -> None:
    page.begin(Rollouts.INFO)
    for name, one in known.items():
        page.add(labels(service=name, stable=one.stable, candidate=one.candidate, mode=one.mode), 1)
    page.begin(Rollouts.PHASE)
    for name in names:
        page.add_each(labels(service=name), "phase", catalogue.PHASES, {known[name].phase: 1} if name in known else {})
    page.begin(Rollouts.PAUSED)
    for name in names:
        page.add_each(labels(service=name), "why", catalogue.PAUSES, {known[name].why: 1} if name in known else {})
    for metric, what in ((Rollouts.STEP, "step"), (Rollouts.STEPS, "steps"), (Rollouts.ENTERED, "entered_at")):
        page.begin(metric)
        for name in names:
            page.add(labels(service=name), getattr(known[name], what) if name in known else 0)


def _leading(
    page: Page, names: list[str], known: Mapping[str, RolloutFigures], figures: RolloutsFigures
) -> None:  # fmt: skip
    page.begin(Rollouts.LAG)
    for name in names:
        page.add(labels(service=name), known[name].lag if name in known else 0)
    page.begin(Rollouts.LEADS)
    for name in names:
        page.add(labels(service=name), int(figures.leads.get(name, False)))
    page.begin(Rollouts.LED)
    for name in names:
        page.add(labels(service=name), figures.leads_taken.get(name, 0))
    page.begin(Rollouts.INSTANCES)
    for name, one in known.items():
        page.add_each(labels(service=name), "state", ("live", "applied"), {"live": one.live, "applied": one.applied})
    page.begin(Rollouts.TRANSITIONS)
    for name in names:
        for phase in catalogue.PHASES:
            counts = {actor: figures.transitions.get((name, phase, actor), 0) for actor in ("auto", "human")}
            page.add_each(labels(service=name, phase=phase), "actor", counts, counts)
    page.begin(Rollouts.SPLIT)
    for name in names:
        page.add(labels(service=name), known[name].split if name in known else 1)


def _guardrails(page: Page, known: Mapping[str, RolloutFigures]) -> None:
    every = [
        (labels(service=name, guardrail=guardrail), one)
        for name, rollout in known.items()
        for guardrail, one in rollout.guardrails.items()
    ]

    def both(metric: Metric, label: str, values: Sides, labelled: str) -> None:
        page.add_each(labelled, label, metric.labels[label], dict(zip(metric.labels[label], values, strict=True)))

    page.begin(Rollouts.UNITS)
    for labelled, one in every:
        both(Rollouts.UNITS, "side", one.units, labelled)
    page.begin(Rollouts.DIFFERENCE)
    for labelled, one in every:
        if one.difference is not None:
            bounds = ("estimate", "low", "high")
            page.add_each(labelled, "bound", bounds, dict(zip(bounds, one.difference, strict=True)))
    page.begin(Rollouts.LIMIT)
    for labelled, one in every:
        if one.limit is not None:
            page.add(labelled, one.limit)
    page.begin(Rollouts.EVIDENCE)
    for labelled, one in every:
        both(Rollouts.EVIDENCE, "test", one.log_e, labelled)
    page.begin(Rollouts.LEVEL)
    for labelled, one in every:
        both(Rollouts.LEVEL, "test", one.level, labelled)
    page.begin(Rollouts.STANDING)
    for labelled, one in every:
        page.add_each(labelled, "standing", catalogue.STANDINGS, {one.standing: 1})
