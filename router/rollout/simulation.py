"""How long each step of a plan will probably need, from the traffic of these minutes: an estimate, not a promise.

Assumed is that the candidate is as good as the stable version is now, that people come at the rate of these minutes,
and that each asks equally often: of N people who make λ requests a second, N (1 − exp(−λT/N)) are seen in T seconds.
Real ones come more unevenly, so it rather takes longer. People of a hashed ring are its share of all people; those of a
ring that people choose (weight 0) are estimated by its share of the requests.

A user counts once in a step, when its window has closed and the one after it, so evidence comes two windows late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import expm1, inf, log1p
from typing import Final

from router.rollout.plan import Guardrail, Plan, Step
from router.rollout.statistics.forecast import units_to_reach
from router.rollout.statistics.latency import Earlier, above, shift_factor
from router.rollout.statistics.levels import proof_level
from router.rollout.statistics.two_ring import Side, TwoRing
from router.rollout.words import span

CONTROL_PER_RING: Final = 10.0
"""Users of the control that are counted for each of the ring, at most."""
WHOLE: Final = 10_000
"""Basis points."""


@dataclass(frozen=True, slots=True)
class RingNow:
    """One ring as it is routed now; rings come inner to outer."""

    name: str
    weight: int
    """Basis points; of the default ring, the rest."""
    version: str
    requests: int
    """In the minutes that were looked at."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the service gets now."""

    seconds: float
    """How long was looked at."""
    requests: int
    """Of the whole service in that time."""
    people: int | None
    """Seen in two days; None: nobody counts them."""
    stable_requests: int
    """Of the version that the candidate is compared with: how many, which failed, and how long they took."""
    stable_outcomes: Mapping[str, int]
    """Outcome (``errors``, ``http_4xx``, ``aborts``) → requests."""
    stable_histogram: Mapping[int, int]

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Need:
    """The proof of one guardrail: ring users until it is there, or why it will never be."""

    guardrail: str
    users: int | None
    why: str = ""
    is_unknown: bool = False
    """Not "never", but nobody can say."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One step. Users are those of one bake; seconds are None where it will not end by itself or nobody can say."""

    step: str
    """``canary at 1 %``"""
    ring_users: int | None
    control_users: int | None
    seconds: float | None
    needs: tuple[Need, ...]
    sentence: str


def foresee(plan: Plan, rings: Sequence[RingNow], traffic: Traffic) -> tuple[Foreseen, ...]:
    """Every step in turn, each with the weights and versions that the ones before have left."""
    now = {ring.name: ring for ring in rings}
    held: dict[str, int] = {}
    found = []
    for step in plan.steps:
        ring = now[step.ring]
        now[step.ring] = replace(
            ring,
            weight=ring.weight if step.weight is None else step.weight,
            version=plan.candidate if step.promotes else ring.version,
        )
        if step.holdback is not None:
            held[step.ring] = step.holdback
        default = rings[-1].name
        others = sum(one.weight for name, one in now.items() if name != default)
        now[default] = replace(now[default], weight=max(0, WHOLE - others))
        found.append(_step(plan, step, _shares(plan, step, now, held, traffic), traffic))
    return tuple(found)


def _shares(
    plan: Plan, step: Step, now: Mapping[str, RingNow], held: Mapping[str, int], traffic: Traffic
) -> tuple[float, float]:
    """Of all people: who has the candidate, and whom they are compared with.

    A ring that people choose is compared with its own holdback, hashed rings with everybody who has not the candidate.
    """
    ring = now[step.ring]
    if ring.weight == 0:
        share = ring.requests / traffic.requests if traffic.requests else 0.0
        back = held.get(ring.name, 0) / WHOLE
        return share * (1 - back), share * back
    candidate = sum(
        one.weight / WHOLE * (1 - held.get(one.name, 0) / WHOLE)
        for one in now.values()
        if one.version == plan.candidate
    )
    return candidate, 1 - candidate


def _step(plan: Plan, step: Step, shares: tuple[float, float], traffic: Traffic) -> Foreseen:
    name = label(plan, step)
    ring_share, control_share = shares
    ring_users = _users(ring_share, step.bake, traffic)
    control_users = _users(control_share, step.bake, traffic)
    if step.is_final:
        sentence = f"{name}: {span(step.bake)}, its bake; nobody is left to compare with, so nothing is to be proven"
        return Foreseen(name, ring_users, control_users, step.bake, (), sentence)
    needs = tuple(_need(plan, step, one, shares, traffic) for one in plan.guardrails if one.required)
    if not traffic.requests:
        return Foreseen(
            name, ring_users, control_users, None, needs, f"{name}: nobody can say, there is no traffic now"
        )
    if traffic.people is None:
        said = f"{name}: nobody can say how long, because people are not counted"
        return Foreseen(name, None, None, None, needs, _with_needs(said, needs))
    missing = [need for need in needs if need.users is None]
    if missing:
        is_never = not all(need.is_unknown for need in missing)
        said = f"{name}: {'never by itself' if is_never else 'nobody can say how long'}"
        said += f" ({'; '.join(f'{need.guardrail}: {need.why}' for need in missing)})"
        return Foreseen(name, ring_users, control_users, None, needs, said)
    proof = max((need.users or 0 for need in needs), default=0)
    wanted = max(proof, step.min_users)
    in_ring, in_control = (
        _seconds_until(wanted, ring_share, traffic),
        _seconds_until(step.min_users, control_share, traffic),
    )
    if inf in (in_ring, in_control):
        share, where, users = (
            (ring_share, "have the candidate", wanted)
            if in_ring == inf
            else (control_share, "can be compared with", step.min_users)
        )
        there = f"about {about(round(share * traffic.people))} people {where} in that time"
        said = _with_needs(f"{name}: not within two days ({there}, and {about(users)} are needed)", needs)
        return Foreseen(name, ring_users, control_users, None, needs, said)
    total = max(step.bake, in_ring + 2 * plan.window, in_control + 2 * plan.window)
    a_minute = _users(ring_share, 60.0, traffic) or 0
    said = f"{name}: about {span(total)} ({about(wanted)} users at {about(a_minute)} a minute)"
    if total <= step.bake:
        said = f"{name}: {span(total)}, its bake (about {about(ring_users or 0)} users come in it)"
    said = _with_needs(said, needs)
    if step.deadline is not None and total > step.deadline:
        said += f", beyond its deadline of {span(step.deadline)}"
    return Foreseen(name, ring_users, control_users, total, needs, said)


def _with_needs(said: str, needs: Sequence[Need]) -> str:
    known = [f"{need.guardrail} needs {about(need.users)} users" for need in needs if need.users is not None]
    return f"{said}; {', '.join(known)}" if known else said


def label(plan: Plan, step: Step) -> str:
    """``canary at 1 %``, ``early runs v2``"""
    runs = f"{step.ring} runs {plan.candidate}" if step.promotes and step.weight is None else step.ring
    at = "" if step.weight is None else f" at {step.weight / 100:g} %"
    return f"{runs}{at}"


def about(count: int) -> str:
    """Two digits that count, the others nought: ``6,092`` → ``6,100``."""
    digits = len(str(count))
    return f"{round(count, 2 - digits) if digits > 2 else count:,}"


def _users(share: float, seconds: float, traffic: Traffic) -> int | None:
    if traffic.people is None:
        return None
    each = traffic.requests_per_second * seconds / traffic.people if traffic.people else 0.0
    return round(share * traffic.people * -expm1(-each))


def _seconds_until(users: int, share: float, traffic: Traffic) -> float:
    """Until so many of the share have been seen; infinite where there are not so many."""
    there = share * (traffic.people or 0)
    if users >= there or not traffic.requests:
        return 0.0 if users <= 0 else inf
    return -(traffic.people or 0) / traffic.requests_per_second * log1p(-users / there)


def _need(plan: Plan, step: Step, guardrail: Guardrail, shares: tuple[float, float], traffic: Traffic) -> Need:
    ring_share, control_share = shares
    if guardrail.source is not None:
        return Need(guardrail.name, None, "its figures come from elsewhere, so nobody can say", is_unknown=True)
    if not control_share:
        return Need(guardrail.name, None, "nobody is there to compare with: give the step a holdback")
    if not ring_share:
        return Need(guardrail.name, None, "nobody has the candidate in this step")
    if guardrail.latency is not None:
        edge = (
            Earlier().after(traffic.stable_histogram).edge(guardrail.latency.quantile, guardrail.latency.shift_buckets)
        )
        if edge is None:
            why = f"{plan.stable} has too few requests now to know its latency by"
            return Need(guardrail.name, None, why, is_unknown=True)
        count, shift = sum(traffic.stable_histogram.values()), guardrail.latency.shift_buckets
        ring_mean = above(traffic.stable_histogram, edge + shift) / count
        control_mean = above(traffic.stable_histogram, edge) / count
        test = TwoRing(Side.SAFE)
    else:
        if not traffic.stable_requests:
            why = f"{plan.stable} has no requests now to know its rate by"
            return Need(guardrail.name, None, why, is_unknown=True)
        rate = traffic.stable_outcomes.get(guardrail.outcome or "errors", 0) / traffic.stable_requests
        ring_mean = control_mean = _of_users(rate, plan.window, traffic)
        own = step.margin if guardrail.outcome == "errors" else None
        test = TwoRing(Side.SAFE, own or guardrail.margin)
    users = units_to_reach(
        test, test.begin(), proof_level(guardrail.beta),
        ring_mean=ring_mean, control_mean=control_mean,
        control_per_ring=min(CONTROL_PER_RING, control_share / ring_share),
    )  # fmt: skip
    if users is None:
        why = f"its margin is too tight for {100 * control_mean:.2f} % of users"
        if guardrail.latency is not None:
            tolerated = 100 * (shift_factor(guardrail.latency.shift_buckets) - 1)
            why = f"{tolerated:.0f} % more time is too tight a tolerance for how {plan.stable}'s latencies lie"
        return Need(guardrail.name, None, why)
    return Need(guardrail.name, users)


def _of_users(rate: float, window: float, traffic: Traffic) -> float:
    """The share of users whom it happens to within their window, if requests were independent."""
    people = traffic.people
    requests = 1 + traffic.requests_per_second * window / people if people else 1.0
    return float(1 - (1 - rate) ** requests)
