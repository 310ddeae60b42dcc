"""Plans as people write them: what each key becomes, and what is said of a bad one, in YAML and in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from router.control.rules import ServiceRules
from router.rollout.document import Grounds, PlanError, parse_plans, to_plan
from router.rollout.plan import (
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

RINGS: Final = ("canary", "early", "everyone")
SHOP: Final = ServiceRules(
    "shop", RINGS, {"canary": 100, "early": 0}, dict.fromkeys(RINGS, "v1"), frozenset({"v1", "v2"})
)
AUTH: Final = ServiceRules("auth", ("everyone",), {}, {"everyone": "v7"}, frozenset({"v7"}))
GROUNDS: Final[Grounds] = {"shop": SHOP, "auth": AUTH}
HEAD: Final = "rollouts:\n  shop:\n    stable: v1\n    candidate: v2\n"
CANARY: Final = "{ring: canary, version: v2, weight: 1}"
ERRORS: Final = "{name: errors, outcome: errors, required: true}"


def parsed(text: str, env: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    return parse_plans(text, "plan.yaml", GROUNDS, env or {})


def plan_of(text: str, env: Mapping[str, str] | None = None) -> Plan:
    return to_plan("shop", parsed(text, env)["shop"], SHOP, GROUNDS)


def with_steps(*steps: str, more: str = "") -> str:
    return HEAD + f"    steps: [{', '.join(steps)}]\n" + "".join(f"    {line}\n" for line in more.splitlines())


def with_guardrails(*guardrails: str) -> str:
    return with_steps(CANARY, more=f"guardrails: [{', '.join(guardrails)}]")


def said(text: str) -> list[str]:
    with pytest.raises(PlanError) as caught:
        parsed(text)
    return [f"{problem.line}:{problem.column} {problem.message} {problem.hint}" for problem in caught.value.problems]


# -- what each key becomes ---------------------------------------------------------------------------------------------

WHOLE: Final = (
    HEAD
    + """    mode: observe
    steps:
      - {ring: canary, version: v2, weight: 1,  bake: 30m, min_users: 10, deadline: 24h,
         margin: {ratio: 1.5, abs: 0.5pp}}
      - {ring: early,  version: v2, holdback: 50, bake: 2h}
      - {ring: early,  weight: 25.5, holdback: 0, approval: {count: 2, expires: 1h}}
      - {ring: everyone, version: v2, final_bake: 7d}
    guardrails:
      - {name: errors, outcome: http_5xx_or_transport, unit: user, window: 5m, margin: {ratio: 1.25, abs: 0.1pp},
         alpha: 0.02, beta: 0.1, on_harm: rollback, required: true}
      - {name: p99, latency: {quantile: 0.99, shift_buckets: 3}}
      - {name: orders, webhook: {url: "https://kpi.example/orders", returns: [n_r, x_r, n_b, x_b]}, direction: decrease}
      - {name: logins, promql: {url: "http://prom:9090", queries: [a, b, c, d], timeout: 500ms, headers: {X-Who: me}}}
    checks:
      srm:        {alpha: 0.002, tolerance: 5 %, action: pause}
      no_traffic: off
      no_data:    {grace: 4m, action: pause, min_instances_reporting: 80%}
      breaker:    {errors: 30%, window: 2m, min_requests: 5, min_slices: 1, action: rollback, local: true}
      fast:       {ratio: 3.0, abs: 2pp, alpha: 0.01, min_slices: 6, action: rollback}
      aa:         {slices: 64, max_alarms: 3, action: demote}
    tick: 5s
    window: 5m
    restart: 1h
    copies: 4
    shift_timeout: 20s
    expansion: {strategy: risk_budget, budget_users: 20, min_step: 0.25, max_factor: 3}
    on_deadline: rollback
    on_manual_edit: adopt
    rollback: {cooldown: 0, forward_only: true, after_success: 1d}
    windows: [{deny: {days: [fri, sat], from: "16:00", to: "06:30"}, tz: Europe/Berlin, applies: [expand]}]
    depends_on: [{service: auth, version: v7, ring: everyone, on_lost: pause}]
    notify:
      - {webhook: "${SLACK_URL:-}"}
      - {webhook: "${HOOK}", events: [command]}
      - {webhook: "https://hooks.slack.com/services/T"}
"""
)
HOOK: Final = "http://127.0.0.1:1/"
AS_PLAN: Final = Plan(
    service="shop",
    stable="v1",
    candidate="v2",
    steps=(
        Step("canary", True, 100, None, 1800.0, 10, 86_400.0, Margin(1.5, 0.005)),
        Step("early", True, None, 5000, 7200.0),
        Step("early", False, 2550, 0, approval=Approval(2, 3600.0)),
        Step("everyone", True, bake=604_800.0, min_users=0, is_final=True),
    ),
    guardrails=(
        Guardrail("errors", "errors", alpha=0.02, beta=0.1, on_harm="rollback", required=True),
        Guardrail("p99", latency=Latency(0.99, 3)),
        Guardrail(
            "orders",
            source=Source("webhook", "https://kpi.example/orders"),
            margin=Margin(0.9, 0.0),
            is_lower_worse=True,
        ),
        Guardrail("logins", source=Source("promql", "http://prom:9090", ("a", "b", "c", "d"), 0.5, (("X-Who", "me"),))),
    ),
    mode="observe",
    checks=Checks(
        0.002, 0.05, None, 240.0, 0.8, Breaker(0.3, 120.0, 5, 1), Fast(Margin(3.0, 0.02), 0.01, 6), aa_most_alarms=3
    ),
    tick=5.0,
    window=300.0,
    restart=3600.0,
    copies=4,
    shift_seconds=20.0,
    budget=RiskBudget(20, 25, 3.0),
    on_deadline="rollback",
    on_manual_edit="adopt",
    cooldown=0.0,
    forward_only=True,
    after_success=86_400.0,
    windows=(Window(("fri", "sat"), 960, 390, "Europe/Berlin", ("expand",)),),
    depends_on=(Dependency("auth", "v7", "everyone"),),
    notify=(Notify(HOOK, "json", ("command",)), Notify("https://hooks.slack.com/services/T", "slack")),
)


def test_every_key_is_what_it_says() -> None:
    assert plan_of(WHOLE, {"HOOK": HOOK}) == AS_PLAN


def test_a_plan_of_two_lines_has_the_guardrails_that_everybody_needs() -> None:
    plan = plan_of(with_steps(CANARY))
    assert plan == Plan("shop", "v1", "v2", (Step("canary", True, 100),), plan.guardrails)
    assert plan.guardrails == (
        Guardrail("errors", "errors", on_harm="rollback", required=True),
        Guardrail("p99", latency=Latency(0.99, 2), on_harm="rollback", required=True),
        Guardrail("p50", latency=Latency(0.5, 2)),
        Guardrail("http_4xx", "http_4xx", margin=Margin(1.25, 0.005)),
    )


def test_a_margin_that_names_one_part_has_nothing_of_the_other() -> None:
    plan = plan_of(with_guardrails("{name: errors, outcome: errors, required: true, margin: {abs: 0.2pp}}"))
    assert plan.guardrails[0].margin == Margin(1.0, 0.002)


def test_without_grounds_the_form_is_checked_and_the_names_are_not() -> None:
    text = with_steps("{ring: nowhere, version: v2, weight: 1}", "{ring: last, version: v2, final_bake: 1h}")
    plain = parse_plans(text, "plan.yaml", env={})["shop"]
    assert plain["steps"][0]["ring"] == "nowhere"
    with pytest.raises(PlanError, match=r"steps\[0\]\.ring: shop has no ring 'nowhere'"):
        to_plan("shop", plain, SHOP)
    with pytest.raises(PlanError, match="5:37: `weight`"):
        parse_plans(with_steps("{ring: nowhere, weight: 101, version: v2}"), "plan.yaml", env={})


# -- what is said of a bad one -----------------------------------------------------------------------------------------

BAD: Final = [
    ("", "the file is empty: it needs `rollouts:`"),
    ("[]", "the file must be a mapping"),
    (with_steps(CANARY).replace("shop", "shopp"), "2:3 there is no service 'shopp' did you mean 'shop'?"),
    (HEAD, "3:5 `steps` is missing: rings to widen or promote, inner to outer"),
    (HEAD.replace("v2", "v3") + "    steps: [{ring: canary, version: v3}]", "4:16 shop has no version 'v3'"),
    (HEAD.replace("v2", "v1") + "    steps: [{ring: canary, version: v1}]", "both v1: there is nothing to roll out"),
    (with_steps(), "`steps` must not be empty: rings to widen or promote"),
    (with_steps("{ring: canari, version: v2}"), "5:20 shop has no ring 'canari' did you mean 'canary'?"),
    (with_steps("{ring: canary, versoin: v2}"), "5:28 unknown key `versoin` did you mean 'version'?"),
    (with_steps("{ring: canary, version: v1}"), "5:37 a step promotes its ring to the candidate: write `version: v2`"),
    (with_steps("{ring: canary, weight: 5}"), "canary does not run v2 yet: write `version: v2` here"),
    (with_steps("{ring: canary}"), "this step changes nothing: give it a `weight`"),
    (with_steps("{ring: early, version: v2, weight: 1}", CANARY), "canary is further in than early: put its steps"),
    (with_steps(CANARY, "{ring: canary, weight: 0.5}"), "steps never narrow, and canary has 1 percent before"),
    (
        with_steps("{ring: canary, version: v2}", "{ring: canary, weight: 0.5}"),
        "steps never narrow, and canary has 1 percent before",
    ),
    (
        with_steps("{ring: canary, version: v2, weight: 60}", "{ring: early, version: v2, weight: 41}"),
        "the rings have 101 percent together then, more than 100 (canary 60 + early 41): lower one",
    ),
    (with_steps("{ring: early, version: v2}"), "Add `holdback: 10` (percent of them keep the version of everyone)"),
    (with_steps("{ring: early, version: v2, holdback: 100}"), "leaves nobody with the candidate"),
    (
        with_steps("{ring: early, version: v2, holdback: 5}", "{ring: early, holdback: 6}"),
        "early holds back 5 percent before this one: not more later",
    ),
    (with_steps("{ring: everyone, version: v2}", CANARY), "everyone is the default ring: when it runs v2 nobody is"),
    (with_steps("{ring: everyone, version: v2, weight: 50}"), "`weight` is not for everyone, the default ring"),
    (with_steps("{ring: everyone, version: v2, bake: 5m}"), "which takes everybody who is left: write `final_bake`"),
    (with_steps("{ring: everyone}"), "the default ring can only be promoted: write `version: v2`"),
    (with_steps("{ring: canary, version: v2, final_bake: 1h}"), "here it is `bake`"),
    (with_steps("{ring: canary, version: v2, bake: 2h, deadline: 1h}"), "`deadline` is over before `bake` is"),
    (with_steps("{ring: canary, version: v2, bake: 91d}"), "`bake`: a duration is at most 90 days"),
    (with_steps("{ring: canary, version: v2, deadline: 0}"), "`deadline`: this duration has to be more than 0"),
    (with_steps("{ring: canary, version: v2, margin: {ratio: 0.5}}"), "a ratio below 1 would ask for fewer failures"),
    (with_guardrails(), "`guardrails` must not be empty"),
    (with_guardrails(ERRORS, ERRORS), "two guardrails are called errors: give one of them another name"),
    (with_guardrails("{name: a, required: true}"), "`webhook`, `promql`; here is none of them"),
    (with_guardrails("{name: a, outcome: errors, latency: {}}"), "here is `outcome` and `latency`"),
    (with_guardrails("{name: a, outcome: errors}"), "nothing has to be proven before a ring is widened: mark"),
    (with_guardrails("{name: a, outcome: error}"), "`outcome` must be errors, http_5xx_or_transport, http_4xx or"),
    (with_guardrails("{name: a, outcome: errors, alpha: 0.6}"), "`alpha`: Input should be less than or equal to 0.5"),
    (with_guardrails("{name: a, outcome: errors, beta: 0}"), "`beta`: Input should be greater than 0"),
    (with_guardrails("{name: a, outcome: errors, margin: {abs: 0.1}}"), "`abs`: a rate has its unit: 5% of all, or"),
    (with_guardrails("{name: a, outcome: errors, margin: {abs: 200%}}"), "`abs`: a rate is at most 100%"),
    (with_guardrails("{name: a, outcome: errors, margin: {ratio: 0.9}}"), "a ratio below 1 would ask for fewer"),
    (with_guardrails("{name: a, outcome: errors, direction: decrease}"), "for counts of your own, such as orders"),
    (with_guardrails("{name: a, outcome: errors, window: 1m}"), "write `window` once, beside `guardrails`"),
    (with_guardrails("{name: a, latency: {}, margin: {}}"), "leave `margin` out"),
    (
        with_guardrails("{name: a, webhook: {url: 'http://x/'}, direction: decrease, margin: {ratio: 1.1}}"),
        "where less is worse the margin is a `ratio` below 1 alone",
    ),
    (with_guardrails("{name: a, webhook: {url: 'ftp://me:pw@x/'}}"), "`url`: a URL begins http:// or https:// and"),
    (
        with_guardrails("{name: a, webhook: {url: 'http://x', returns: [n_b]}}"),
        "what comes back is [n_r, x_r, n_b, x_b]",
    ),
    (with_guardrails("{name: a, promql: {url: 'http://x', queries: [a, b]}}"), "there are four queries, in the order"),
    (with_guardrails("{name: a, webhook: {url: 'http://x', headers: {'a b': c}}}"), "'a b' is not a header name"),
    (with_steps(CANARY, more="checks: {srm: }"), "`srm`: it is empty: write off to do without this check"),
    (with_steps(CANARY, more="checks: {fast: {action: pause}}"), "`action` must be rollback"),
    (with_steps(CANARY, more="expansion: {min_step: 1}"), "`min_step` is of `strategy: risk_budget`"),
    (with_steps(CANARY, more="window: 1s"), "`window` is shorter than `tick`"),
    (with_steps(CANARY, more="windows: [{deny: {days: [friday]}}]"), "`days[0]` must be mon, tue, wed"),
    (with_steps(CANARY, more="windows: [{deny: {from: '24:30'}}]"), "`from`: a time of day is HH:MM"),
    (with_steps(CANARY, more="windows: [{deny: {}, tz: Europe/Berln}]"), "did you mean 'Europe/Berlin'?"),
    (with_steps(CANARY, more="depends_on: [{service: shop, version: v1, ring: x}]"), "shop cannot wait for itself"),
    (with_steps(CANARY, more="depends_on: [{service: aut, version: v7, ring: x}]"), "'aut' did you mean 'auth'?"),
    (with_steps(CANARY, more="depends_on: [{service: auth, version: v7, ring: x}]"), "auth has no ring 'x'"),
    (with_steps(CANARY, more="notify: [{webhook: slack}]"), "`webhook`: a URL begins http:// or https://"),
    (with_steps(CANARY, more="notify: [{webhook: '${HOOK}'}]"), "the environment variable HOOK is not set"),
]


@pytest.mark.parametrize(("text", "sentence"), BAD)
def test_what_is_wrong_is_said_with_its_place_and_remedy(text: str, sentence: str) -> None:
    found = said(text)
    assert [line for line in found if sentence in line], found
    assert len(found) <= 2, found


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_file() -> None:
    text = with_steps("{ring: canari, wieght: 5}", "{ring: early, weight: 500, version: v2}", more="tick: soon")
    assert [line.split(" ")[0] for line in said(text)] == ["5:20", "5:28", "5:62", "6:11"]


def test_of_plain_data_the_way_to_the_place_is_said() -> None:
    plain = {"stable": "v1", "candidate": "v2", "steps": [{"ring": "canary", "weight": "5"}, {"ring": 7}], "tick": -1}
    with pytest.raises(PlanError) as caught:
        to_plan("shop", plain, SHOP)
    assert [problem.render() for problem in caught.value.problems] == [
        "plan of shop: steps[0].weight: a percent is a number from 0 to 100, such as 5 or 0.25",
        "plan of shop: steps[1].ring: `ring` must be text",
        "plan of shop: tick: a duration is at most 90 days, and not below 0",
        "plan of shop: steps[0]: canary does not run v2 yet: write `version: v2` here, or in a step before",
    ]
    assert "the plan was not accepted" in str(caught.value)


def test_a_password_in_a_url_is_not_shown() -> None:
    text = with_guardrails("{name: a, webhook: {url: 'ftp://me:hunter2@x/'}}")
    with pytest.raises(PlanError) as caught:
        parsed(text)
    assert "hunter2" not in str(caught.value)


def test_a_ring_that_has_a_weight_in_force_needs_no_holdback() -> None:
    assert plan_of(with_steps("{ring: canary, version: v2}")).steps[0].weight is None
