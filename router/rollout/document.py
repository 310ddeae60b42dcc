"""Plans as people write them: YAML text, or the same as JSON, to ``Plan`` and back.

All that is wrong with a document is said at once, each with its place and its remedy; nothing is half-accepted.
``rollout.schema`` knows single values, this what several of them have to do with one another and with the service.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol, TypeVar

from pydantic import ValidationError

from router.config.complaints import note_all
from router.config.document import Document, Path, read_document
from router.config.problems import ConfigError, Problem, did_you_mean
from router.config.values import parse_long, parse_percent
from router.core.hashing import BUCKETS
from router.rollout.plan import Plan, Step
from router.rollout.schema import RolloutsKeys, StepKeys

_NOT_OF_A_FINAL_STEP: Final = ("weight", "holdback", "bake", "min_users", "deadline", "margin")
N = TypeVar("N", int, float)
_KINDS: Final = ("outcome", "latency", "webhook", "promql")


class PlanError(ConfigError):
    """The plans are refused as a whole; ``problems`` holds all that is wrong with them."""

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [problem.render() for problem in self.problems]
        return "\n".join([*lines, f"{count} problem{'s' if count != 1 else ''} found; the plan was not accepted."])


class Ground(Protocol):
    """What a plan stands on: a service's rings (the last one is the default ring), the weights that are in force
    (basis points, without the default ring), and the names of its versions. ``control.rules.ServiceRules`` is one."""

    @property
    def rings(self) -> tuple[str, ...]: ...
    @property
    def weights(self) -> Mapping[str, int]: ...
    @property
    def version_names(self) -> frozenset[str]: ...


Grounds = Mapping[str, Ground]


def parse_plans(
    text: str, path: str, grounds: Grounds | None = None, env: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Service → its plan as plain data, of a YAML text with ``rollouts:``; ``${VARIABLES}`` of ``env`` (os.environ
    unless given) are put in. Raises ``PlanError``. Without ``grounds`` (service → what it has) it is not known whether
    rings and versions exist: ``to_plan`` finds out."""
    document = read_document(text, path, os.environ if env is None else env)
    if document.data is None:
        if not document.problems:
            document.add_at((), "the file is empty: it needs `rollouts:`, and below it a service's name")
    elif not isinstance(document.data, dict):
        document.add_at((), "the file must be a mapping of `key: value` lines, beginning with `rollouts:`")
    else:
        _validated(document, grounds)
    if document.problems:
        raise PlanError(tuple(sorted(document.problems, key=lambda problem: (problem.line, problem.column))))
    return dict(document.data["rollouts"])


def to_plan(service: str, plain: Mapping[str, Any], ground: Ground, others: Grounds | None = None) -> Plan:
    """The plan of a service in plain data. Raises ``PlanError``. ``others`` are what ``depends_on`` may name; without
    them that is not checked."""
    document = _WithoutText(service, [], {"rollouts": {service: dict(plain)}})
    keys = _validated(document, {**(others or {}), service: ground}, are_all=others is not None)
    if keys is None or document.problems:
        raise PlanError(tuple(document.problems))
    return keys.rollouts[service].plan(service, ground.rings[-1])


class _WithoutText(Document):
    """Plain data that nobody wrote in lines: a place is the way to it, ``steps[0].weight``."""

    def add_at(self, path: Path, message: str, hint: str = "", *, at_key: bool = False) -> None:
        way = ""
        for step in path[2:]:
            way += f"[{step}]" if isinstance(step, int) else f".{step}" if way else step
        message = message.removeprefix(f"`{way.rpartition('.')[2]}`: ")
        problem = Problem(f"plan of {self.filename}", 0, 0, f"{way}: {message}" if way else message, hint)
        if problem not in self.problems:
            self.problems.append(problem)


def _validated(document: Document, grounds: Grounds | None, *, are_all: bool = True) -> RolloutsKeys | None:
    keys: RolloutsKeys | None = None
    try:
        keys = RolloutsKeys.model_validate(document.data)
    except ValidationError as error:
        note_all(document, error.errors(include_url=False), RolloutsKeys)
    for service, plan in _mapping(_mapping(document.data).get("rollouts")).items():
        path: Path = ("rollouts", service)
        if grounds is not None and service not in grounds:
            document.add_at(path, f"there is no service {service!r}", _named(service, grounds), at_key=True)
        elif isinstance(plan, dict):
            ground = grounds[service] if grounds is not None else None
            _check_versions(document, path, service, plan, ground)
            _check_steps(document, path, service, plan, ground)
            _check_guardrails(document, path, plan)
            _check_dependencies(document, path, service, plan, grounds if are_all else None)
            _check_rest(document, path, plan)
    return keys


def _check_versions(document: Document, path: Path, service: str, plan: dict[str, Any], ground: Ground | None) -> None:
    stable, candidate = plan.get("stable"), plan.get("candidate")
    for key, version in (("stable", stable), ("candidate", candidate)):
        if ground is not None and isinstance(version, str) and version not in ground.version_names:
            why = f"{service} has no version {version!r}"
            document.add_at((*path, key), why, _named(version, ground.version_names))
    if isinstance(candidate, str) and stable == candidate:
        why = f"`candidate` and `stable` are both {candidate}: there is nothing to roll out, name another version"
        document.add_at((*path, "candidate"), why)


def _check_steps(document: Document, path: Path, service: str, plan: dict[str, Any], ground: Ground | None) -> None:
    named = plan.get("candidate")
    candidate = named if isinstance(named, str) else "the candidate"
    steps = _sequence(plan.get("steps"))
    weights = dict(ground.weights) if ground is not None else {}
    holdbacks: dict[str, int] = {}
    promoted: set[str] = set()
    furthest = -1
    for number, step in enumerate(steps):
        ring = _mapping(step).get("ring")
        if not isinstance(ring, str):
            continue
        at: Path = (*path, "steps", number)
        is_last = number == len(steps) - 1
        if step.get("version") not in (None, candidate) and isinstance(step["version"], str):
            why = f"a step promotes its ring to the candidate: write `version: {candidate}`, or leave the key out"
            document.add_at((*at, "version"), why)
        if ground is not None:
            if ring not in ground.rings:
                document.add_at((*at, "ring"), f"{service} has no ring {ring!r}", _named(ring, ground.rings))
                continue
            if ring == ground.rings[-1]:
                _check_final(document, at, step, candidate, is_last=is_last)
                continue
            place = ground.rings.index(ring)
            if place < furthest:
                why = f"steps go outward, and {ring} is further in than {ground.rings[furthest]}: put its steps first"
                document.add_at((*at, "ring"), why)
            furthest = max(place, furthest)
        if "final_bake" in step and (ground is not None or not is_last):
            why = "`final_bake` is of the default ring's step, the last one: here it is `bake`"
            document.add_at((*at, "final_bake"), why, at_key=True)
        if step.keys() - StepKeys.model_fields.keys():
            pass  # perhaps one of the next two is only misspelt
        elif not {"version", "weight", "holdback"} & step.keys():
            document.add_at(at, "this step changes nothing: give it a `weight`, a `version` or a `holdback`")
        elif "version" not in step and ring not in promoted:
            why = f"{ring} does not run {candidate} yet: write `version: {candidate}` here, or in a step before"
            document.add_at(at, why)
        _check_extent(document, at, step, weights, holdbacks, promoted)
        is_read = all(_read(parse_percent, step.get(key, 0)) is not None for key in ("weight", "holdback"))
        if ground is not None and is_read:
            _check_comparable(document, at, ring, weights, holdbacks, ground)
        promoted.add(ring)
        bake, deadline = _read(parse_long, step.get("bake", Step("").bake)), _read(parse_long, step.get("deadline"))
        if bake is not None and deadline is not None and 0 < deadline <= bake:
            why = "`deadline` is over before `bake` is: nothing can be proven in time, allow more"
            document.add_at((*at, "deadline"), why)


def _check_final(document: Document, at: Path, step: dict[str, Any], candidate: str, *, is_last: bool) -> None:
    ring = step["ring"]
    if not is_last:
        why = f"{ring} is the default ring: when it runs {candidate} nobody is left to compare with"
        document.add_at((*at, "ring"), f"{why}, so its step is the last one")
    if "version" not in step:
        document.add_at(at, f"the default ring can only be promoted: write `version: {candidate}`")
    for key in _NOT_OF_A_FINAL_STEP:
        if key in step:
            remedy = "write `final_bake`" if key == "bake" else "leave the key out"
            why = f"`{key}` is not for {ring}, the default ring, which takes everybody who is left"
            document.add_at((*at, key), f"{why}: {remedy}", at_key=True)


def _check_extent(
    document: Document,
    at: Path,
    step: dict[str, Any],
    weights: dict[str, int],
    holdbacks: dict[str, int],
    promoted: set[str],
) -> None:
    """Nobody who has the candidate loses it in a later step, and no hundred percent are given away twice."""
    ring = step["ring"]
    weight, holdback = _read(parse_percent, step.get("weight")), _read(parse_percent, step.get("holdback"))
    if weight is not None:
        before = weights.get(ring, 0)
        if ring in promoted and weight < before:
            why = f"steps never narrow, and {ring} has {before / 100:g} percent before this one: give it more, or none"
            document.add_at((*at, "weight"), why)
        weights[ring] = weight
        total = sum(weights.values())
        if total > BUCKETS:
            parts = " + ".join(f"{name} {points / 100:g}" for name, points in weights.items() if points)
            why = f"the rings have {total / 100:g} percent together then, more than 100 ({parts}): lower one of them"
            document.add_at((*at, "weight"), why)
    if holdback is not None:
        before = holdbacks.get(ring, 0)
        if ring in promoted and holdback > before:
            why = f"steps never narrow, and {ring} holds back {before / 100:g} percent before this one: not more later"
            document.add_at((*at, "holdback"), why)
        elif holdback == BUCKETS:
            why = "a holdback of 100 percent leaves nobody with the candidate: hold back fewer, such as 50"
            document.add_at((*at, "holdback"), why)
        holdbacks[ring] = holdback


def _check_comparable(
    document: Document, at: Path, ring: str, weights: dict[str, int], holdbacks: dict[str, int], ground: Ground
) -> None:
    if ring in weights and not weights[ring] and not holdbacks.get(ring):
        outer = ground.rings[ground.rings.index(ring) + 1]
        why = (
            f"{ring} has no weight, so only those are in it who chose to be or were chosen, and they are like nobody "
            f"else: nothing can be proven of them"
        )
        document.add_at(at, f"{why}. Add `holdback: 10` (percent of them keep the version of {outer}), or a `weight`")


def _check_guardrails(document: Document, path: Path, plan: dict[str, Any]) -> None:
    if "guardrails" not in plan:
        return
    seen: set[str] = set()
    guardrails = _sequence(plan["guardrails"])
    window = _read(parse_long, plan.get("window", 600))
    for number, guardrail in enumerate(guardrails):
        if not isinstance(guardrail, dict):
            continue
        at: Path = (*path, "guardrails", number)
        name = guardrail.get("name")
        if isinstance(name, str) and name in seen:
            document.add_at((*at, "name"), f"two guardrails are called {name}: give one of them another name")
        seen.add(str(name))
        kinds = [kind for kind in _KINDS if kind in guardrail]
        if len(kinds) != 1:
            found = " and ".join(f"`{kind}`" for kind in kinds) or "none of them"
            document.add_at(at, f"a guardrail has one of {', '.join(f'`{kind}`' for kind in _KINDS)}; here is {found}")
        if kinds == ["latency"] and "margin" in guardrail:
            why = "what a latency guardrail tolerates is `latency: {shift_buckets: …}`: leave `margin` out"
            document.add_at((*at, "margin"), why, at_key=True)
        own = _read(parse_long, guardrail.get("window"))
        if own is not None and own != window:
            why = "all guardrails watch the same users for the same time: write `window` once, beside `guardrails`"
            document.add_at((*at, "window"), why)
        _check_direction(document, at, guardrail, kinds)
    are_whole = all(isinstance(guardrail, dict) for guardrail in guardrails)
    if guardrails and are_whole and not any(guardrail.get("required") for guardrail in guardrails):
        why = "nothing has to be proven before a ring is widened: mark what has to be with `required: true`"
        document.add_at((*path, "guardrails"), why, at_key=True)


def _check_direction(document: Document, at: Path, guardrail: dict[str, Any], kinds: list[str]) -> None:
    is_decrease = guardrail.get("direction") == "decrease"
    if is_decrease and kinds and not {"webhook", "promql"} & set(kinds):
        why = f"`direction: decrease` is for counts of your own, such as orders: more of this {kinds[0]} is worse"
        document.add_at((*at, "direction"), why)
        return
    margin = _mapping(guardrail.get("margin"))
    ratio = margin.get("ratio", 1)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float):
        return
    if is_decrease and margin and (ratio >= 1 or "abs" in margin):
        why = "where less is worse the margin is a `ratio` below 1 alone, such as 0.9 for a tenth less"
        document.add_at((*at, "margin"), why)
    elif not is_decrease and ratio < 1:
        why = "a ratio below 1 would ask for fewer failures than the control has: write 1 or more"
        document.add_at((*at, "margin", "ratio"), why)


def _check_dependencies(
    document: Document, path: Path, service: str, plan: dict[str, Any], grounds: Grounds | None
) -> None:
    for number, dependency in enumerate(_sequence(plan.get("depends_on"))):
        at: Path = (*path, "depends_on", number)
        wanted = _mapping(dependency)
        other = wanted.get("service")
        if not isinstance(other, str):
            continue
        if other == service:
            document.add_at((*at, "service"), f"{service} cannot wait for itself: name another service")
        elif grounds is not None and other not in grounds:
            document.add_at((*at, "service"), f"there is no service {other!r}", _named(other, grounds))
        elif grounds is not None:
            ground = grounds[other]
            for key, names in (("ring", ground.rings), ("version", tuple(sorted(ground.version_names)))):
                name = wanted.get(key)
                if isinstance(name, str) and name not in names:
                    document.add_at((*at, key), f"{other} has no {key} {name!r}", _named(name, names))


def _check_rest(document: Document, path: Path, plan: dict[str, Any]) -> None:
    tick, window = _read(parse_long, plan.get("tick", 10)), _read(parse_long, plan.get("window", 600))
    if tick is not None and window is not None and 0 < window < tick:
        why = "`window` is shorter than `tick`: users are watched for one tick at least"
        document.add_at((*path, "window" if "window" in plan else "tick"), why)
    for number, step in _margins(plan):
        ratio = step["margin"].get("ratio", 1)
        if isinstance(ratio, int | float) and ratio < 1:
            why = "a ratio below 1 would ask for fewer failures than the control has: write 1 or more"
            document.add_at((*path, "steps", number, "margin", "ratio"), why)
    expansion = _mapping(plan.get("expansion"))
    if expansion.get("strategy", "steps") == "steps":
        for key in ("budget_users", "min_step", "max_factor"):
            if key in expansion:
                why = f"`{key}` is of `strategy: risk_budget`: with `steps` the weights are those of the steps"
                document.add_at((*path, "expansion", key), why, at_key=True)


def _margins(plan: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, step in enumerate(_sequence(plan.get("steps"))):
        if isinstance(step, dict) and isinstance(step.get("margin"), dict):
            yield number, step


def _named(wanted: str, names: Mapping[str, Any] | tuple[str, ...] | frozenset[str]) -> str:
    ordered = names if isinstance(names, tuple) else tuple(sorted(names))
    return did_you_mean(wanted, ordered) or f"there is: {', '.join(ordered)}"


def _read(parse: Callable[[object], N], value: object) -> N | None:
    """None for what is absent or malformed: ``schema`` complains of that."""
    try:
        return None if value is None else parse(value)
    except ValueError:
        return None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
