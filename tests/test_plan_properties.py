"""What holds for every plan and everything that is sent as one: it is refused in words, or nothing of it is lost."""

from __future__ import annotations

import json
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from router.config.problems import Problem
from router.rollout.document import PlanError, to_plan
from router.rollout.plain import plan_to_plain
from router.rollout.plan import (
    DAYS,
    Approval,
    Breaker,
    Checks,
    Dependency,
    Fast,
    Guardrail,
    Latency,
    Notify,
    Plan,
    RiskBudget,
    Source,
    Step,
    Window,
)
from router.rollout.statistics.two_ring import Margin
from tests.test_plan_document import GROUNDS, SHOP

KEYS: Final = sorted(
    {
        "ring", "version", "weight", "holdback", "bake", "final_bake", "deadline", "margin", "ratio", "abs", "name",
        "outcome", "latency", "webhook", "url", "promql", "queries", "headers", "direction", "window", "srm", "fast",
        "strategy", "deny", "days", "from", "tz", "service", "events", "required", "alpha", "quantile", "tick", "steps",
    }
)  # fmt: skip
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([10**400, -(10**400), 2**63]), st.floats(),
    st.text(max_size=4), st.sampled_from(["canary", "early", "everyone", "v2", "errors", "5%", "1pp", "30m", "off"]),
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)
TOP: Final = [
    "stable", "candidate", "steps", "guardrails", "checks", "expansion", "windows", "depends_on", "notify", "tick",
    "window", "rollback", "copies", "mode",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(TOP), anything, max_size=8))
def test_whatever_is_sent_is_a_plan_or_is_refused_in_words(plain: dict[str, Any]) -> None:
    whole = {"stable": "v1", "candidate": "v2", "steps": [{"ring": "canary", "version": "v2"}]}
    for one in (plain, whole | plain):
        refused: tuple[Problem, ...] = ()
        try:
            plan = to_plan("shop", one, SHOP, GROUNDS)
        except PlanError as error:
            refused = error.problems
        else:
            assert to_plan("shop", plan_to_plain(plan), SHOP, GROUNDS) == plan
            continue
        assert refused
        assert all(problem.message for problem in refused)


seconds = st.one_of(st.integers(1, 90 * 86_400).map(float), st.floats(0.001, 86_400.0))
shares = st.floats(0.0, 1.0).map(lambda rate: round(rate, 6))
levels = st.floats(1e-9, 0.5)
ratios = st.floats(1.0, 100.0)
margins = st.builds(Margin, ratios, shares)
names = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
texts = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=9)
on_harms = st.sampled_from(["rollback", "pause"])
common: dict[str, Any] = {"alpha": levels, "beta": levels, "on_harm": on_harms, "required": st.booleans()}
sources = st.one_of(
    st.builds(Source, st.just("webhook"), st.just("https://kpi.example/"), st.just(()), seconds),
    st.builds(
        Source,
        st.just("promql"),
        st.just("http://prom:9090"),
        st.tuples(texts, texts, texts, texts),
        seconds,
        st.just((("Authorization", "Bearer x"),)),
    ),
)
guardrails = st.one_of(
    st.builds(Guardrail, names, outcome=st.sampled_from(["errors", "http_4xx", "aborts"]), margin=margins, **common),
    st.builds(Guardrail, names, latency=st.builds(Latency, st.floats(0.5, 0.999), st.integers(1, 16)), **common),
    st.builds(Guardrail, names, source=sources, margin=margins, **common),
    st.builds(
        Guardrail,
        names,
        source=sources,
        margin=st.builds(Margin, st.floats(0.1, 0.99)),
        is_lower_worse=st.just(True),
        **common,
    ),
)
approvals = st.none() | st.builds(Approval, st.integers(1, 10), seconds)
more_of_a_step: dict[str, Any] = {
    "bake": st.just(0.0) | seconds,
    "min_users": st.integers(0, 10_000),
    "margin": st.none() | margins,
    "approval": approvals,
}


@st.composite
def steps(draw: st.DrawFn) -> tuple[Step, ...]:
    canary, early = sorted(draw(st.lists(st.integers(1, 5000), min_size=2, max_size=2)))
    held = draw(st.integers(1, 9999))
    final = draw(st.lists(st.builds(Step, st.just("everyone"), st.just(True), bake=seconds, min_users=st.just(0),
                                    approval=approvals, is_final=st.just(True)), max_size=1))  # fmt: skip
    return (
        draw(st.builds(Step, st.just("canary"), st.just(True), st.just(canary), **more_of_a_step)),
        draw(st.builds(Step, st.just("canary"), st.just(False), st.just(early), **more_of_a_step)),
        draw(st.builds(Step, st.just("early"), st.just(True), holdback=st.just(held), **more_of_a_step)),
        *final,
    )


windows = st.builds(
    Window,
    st.lists(st.sampled_from(DAYS), min_size=1, unique=True).map(tuple),
    st.integers(0, 1440),
    st.integers(0, 1440),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    st.lists(st.sampled_from(["start", "expand"]), min_size=1, unique=True).map(tuple),
)
breakers = st.none() | st.builds(Breaker, shares, seconds, st.integers(0, 100), st.integers(1, 64))
fasts = st.none() | st.builds(Fast, margins, levels, st.integers(1, 64))
checks = st.builds(
    Checks,
    srm_alpha=levels,
    srm_tolerance=shares,
    no_traffic_grace=st.none() | seconds,
    no_data_grace=seconds,
    min_reporting=shares,
    breaker=breakers,
    fast=fasts,
    aa_most_alarms=st.none() | st.integers(0, 64),
)
plans = st.builds(
    Plan,
    service=st.just("shop"),
    stable=st.just("v1"),
    candidate=st.just("v2"),
    steps=steps(),
    guardrails=st.lists(guardrails, max_size=5, unique_by=lambda one: one.name).map(
        lambda drawn: (*drawn, Guardrail("must-be", "errors", required=True))
    ),
    mode=st.sampled_from(["enforce", "observe"]),
    checks=checks,
    tick=st.floats(0.5, 5.0),
    window=st.floats(5.0, 5000.0),
    restart=seconds,
    copies=st.integers(1, 64),
    shift_seconds=seconds,
    budget=st.none() | st.builds(RiskBudget, st.integers(0, 1000), st.integers(0, 10_000), st.floats(1.01, 100)),
    on_deadline=st.sampled_from(["pause", "rollback", "promote"]),
    on_manual_edit=st.sampled_from(["pause", "adopt", "revert"]),
    cooldown=st.just(0.0) | seconds,
    forward_only=st.booleans(),
    after_success=st.just(0.0) | seconds,
    windows=st.lists(windows, max_size=2).map(tuple),
    depends_on=st.just(()) | st.just((Dependency("auth", "v7", "everyone"),)),
    notify=st.just(()) | st.just((Notify("https://hooks.slack.com/x", "json", ("leader",)),)),
)


@given(plans)
def test_a_plan_survives_the_way_through_plain_data_and_json(plan: Plan) -> None:
    plain = json.loads(json.dumps(plan_to_plain(plan)))
    assert to_plan("shop", plain, SHOP, GROUNDS) == plan
