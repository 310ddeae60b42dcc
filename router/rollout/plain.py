"""A plan as the plain data that ``document.to_plan`` makes it of: every key written out, in the words of the YAML."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal
from typing import Any

from router.rollout.guardrail_keys import COUNTS
from router.rollout.plan import Checks, Guardrail, Plan, RiskBudget, Source, Step, Window
from router.rollout.statistics.two_ring import Margin


def plan_to_plain(plan: Plan) -> dict[str, Any]:
    """The same plan as JSON has it; ``to_plan`` gives the plan again."""
    made: dict[str, Any] = {
        "stable": plan.stable,
        "candidate": plan.candidate,
        "mode": plan.mode,
        "steps": [_step(step, plan.candidate) for step in plan.steps],
        "guardrails": [_guardrail(one) for one in plan.guardrails],
        "checks": _checks(plan.checks),
        "tick": _duration(plan.tick),
        "window": _duration(plan.window),
        "restart": _duration(plan.restart),
        "copies": plan.copies,
        "shift_timeout": _duration(plan.shift_seconds),
        "expansion": _expansion(plan.budget),
        "on_deadline": plan.on_deadline,
        "on_manual_edit": plan.on_manual_edit,
        "rollback": {
            "cooldown": _duration(plan.cooldown),
            "forward_only": plan.forward_only,
            "after_success": _duration(plan.after_success),
        },
        "windows": [_window(window) for window in plan.windows],
        "depends_on": [asdict(one) for one in plan.depends_on],
        "notify": [{"webhook": one.url, "form": one.form, "events": list(one.events)} for one in plan.notify],
    }
    return made


def _step(step: Step, candidate: str) -> dict[str, Any]:
    made: dict[str, Any] = {"ring": step.ring}
    if step.promotes:
        made["version"] = candidate
    if step.is_final:
        made["final_bake"] = _duration(step.bake)
    else:
        if step.weight is not None:
            made["weight"] = step.weight / 100
        if step.holdback is not None:
            made["holdback"] = step.holdback / 100
        made |= {"bake": _duration(step.bake), "min_users": step.min_users}
        if step.deadline is not None:
            made["deadline"] = _duration(step.deadline)
        if step.margin is not None:
            made["margin"] = _margin(step.margin)
    if step.approval is not None:
        made["approval"] = {"count": step.approval.count, "expires": _duration(step.approval.expires)}
    return made


def _guardrail(one: Guardrail) -> dict[str, Any]:
    made: dict[str, Any] = {"name": one.name}
    if one.outcome is not None:
        made["outcome"] = one.outcome
    elif one.latency is not None:
        made["latency"] = asdict(one.latency)
    elif one.source is not None:
        made[one.source.kind] = _source(one.source)
    if one.is_lower_worse:
        made |= {"direction": "decrease", "margin": {"ratio": one.margin.ratio}}
    elif one.latency is None:
        made["margin"] = _margin(one.margin)
    return made | {"alpha": one.alpha, "beta": one.beta, "on_harm": one.on_harm, "required": one.required}


def _source(source: Source) -> dict[str, Any]:
    made: dict[str, Any] = {"url": source.url}
    made |= {"returns": list(COUNTS)} if source.kind == "webhook" else {"queries": list(source.queries)}
    return made | {"timeout": _duration(source.timeout), "headers": dict(source.headers)}


def _checks(checks: Checks) -> dict[str, Any]:
    breaker, fast = checks.breaker, checks.fast
    return {
        "srm": _or_off(checks.srm_alpha, lambda alpha: {"alpha": alpha, "tolerance": _rate(checks.srm_tolerance, "%")}),
        "no_traffic": _or_off(checks.no_traffic_grace, lambda grace: {"grace": _duration(grace)}),
        "no_data": _or_off(
            checks.no_data_grace,
            lambda grace: {"grace": _duration(grace), "min_instances_reporting": _rate(checks.min_reporting, "%")},
        ),
        "breaker": "off"
        if breaker is None
        else asdict(breaker) | {"errors": _rate(breaker.errors, "%"), "window": _duration(breaker.window)},
        "fast": "off" if fast is None else _margin(fast.margin) | {"alpha": fast.alpha, "min_slices": fast.min_slices},
        "aa": "off" if checks.aa_most_alarms is None else {"max_alarms": checks.aa_most_alarms},
    }


def _or_off(value: float | None, made: Any) -> Any:
    return "off" if value is None else made(value)


def _expansion(budget: RiskBudget | None) -> dict[str, Any]:
    if budget is None:
        return {"strategy": "steps"}
    return {
        "strategy": "risk_budget",
        "budget_users": budget.users,
        "min_step": budget.min_step / 100,
        "max_factor": budget.max_factor,
    }


def _window(window: Window) -> dict[str, Any]:
    deny = {"days": list(window.days), "from": _clock(window.begin), "to": _clock(window.end)}
    return {"deny": deny, "tz": window.timezone, "applies": list(window.applies)}


def _margin(margin: Margin) -> dict[str, Any]:
    return {"ratio": margin.ratio, "abs": _rate(margin.absolute, "pp")}


def _rate(rate: float, unit: str) -> str:
    """0.005 → ``0.5pp``; Decimal, so that reading it gives the same number again."""
    return f"{(Decimal(str(rate)) * 100).normalize():f}{unit}"


def _duration(seconds: float) -> float | str:
    """1800 → ``30m``: in the largest unit that it is a whole number of, below one second as a number."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds and seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    return seconds


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
