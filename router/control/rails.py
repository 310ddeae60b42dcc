"""What a live change may not widen: a freeze of the operator's, and the guard rails of the config file. Pure.

A ring is widened when its outer border in the hash space moves outward: that is what moves people, into it or into a
ring inside it, whichever ring's number was typed. ``max_step`` is the furthest that any border may move in one change.
A change in which no weight grows is never refused; one that widens anything is refused as a whole, or applied as a
whole. Rails know nothing of versions, kills, rules and members, and nothing of what the config file itself says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from router.control.keys import key_of
from router.control.refusal import Refusal
from router.control.rules import WHOLE, ServiceRules, percent
from router.core.live import Live


def widened(proposed: Live, previous: Live, rules: ServiceRules) -> dict[str, int]:
    """Ring → basis points by which its outer border moves outward, inner ring first; rings without such are not in it.

    canary 5 → 10 beside early 20: both borders move by 5 percent. With early 20 → 15, only canary's does.
    """
    before, after = rules.effective_weights(previous), rules.effective_weights(proposed)
    border, moved = 0, {}
    for ring in before:
        border += after[ring] - before[ring]
        if border > 0:
            moved[ring] = border
    return moved


def refused_weights(proposed: Live, previous: Live | None, rules: ServiceRules, now: float) -> list[Refusal]:
    """Why these weights are not to be applied: a freeze, else the rails; empty when they are. ``now`` is Unix time.

    Without ``previous`` (nothing is known of what routed before) only ceilings and the default ring's floor count:
    they are the same whatever was before.
    """
    if previous is not None and proposed.freeze:
        return list(_frozen(proposed, previous, rules))
    before = Live() if previous is None else previous
    refused = [*_above_ceiling(proposed, before, rules), *_below_floor(proposed, before, rules)]
    if previous is not None:
        refused += _too_far(proposed, previous, rules)
        # A change that is refused for good must not say that time alone will do.
        refused = refused or list(_too_soon(proposed, previous, rules, now))
    return refused


def refused_versions(proposed: Live, previous: Live | None, rules: ServiceRules) -> list[Refusal]:
    """Under a freeze, why these versions are not to be applied: a ring would run what no ring further out runs yet."""
    if previous is None or not proposed.freeze:
        return []
    before, after = rules.effective_versions(previous), rules.effective_versions(proposed)
    for index, ring in enumerate(rules.rings):
        if after[ring] != before[ring] and after[ring] not in {before[outer] for outer in rules.rings[index + 1 :]}:
            message = (
                f"frozen ({proposed.freeze}): {ring} {before[ring]} → {after[ring]} would give an audience a version "
                f"that no ring further out runs. HSET {key_of(rules.name, 'control')} freeze '' ends the freeze."
            )
            return [Refusal(key_of(rules.name, "versions"), ring, repr(after[ring]), "frozen", message)]
    return []


def outside_rails(live: Live, rules: ServiceRules) -> list[str]:
    """A sentence for each ring that is applied below its floor or above its ceiling."""
    weights = rules.effective_weights(live)
    weights[rules.default_ring] = WHOLE - sum(weights.values())
    said = []
    for ring, points in weights.items():
        floor, ceiling = rules.floors.get(ring, 0), rules.ceilings.get(ring, WHOLE)
        if points < floor:
            said.append(f"ring {ring} has {percent(points)} percent, less than its floor of {percent(floor)}")
        if points > ceiling and ring != rules.default_ring:
            said.append(
                f"ring {ring} has {percent(points)} percent, more than its ceiling of {percent(ceiling)}: the ceiling "
                f"came later, and only narrowing is possible"
            )
    return said


def _frozen(proposed: Live, previous: Live, rules: ServiceRules) -> Iterator[Refusal]:
    for ring in list(widened(proposed, previous, rules))[:1]:
        before, after = rules.effective_weights(previous)[ring], rules.effective_weights(proposed)[ring]
        message = (
            f"frozen ({proposed.freeze}): {ring} {percent(before)} → {percent(after)} would widen an audience. "
            f"Narrowing works; HSET {key_of(rules.name, 'control')} freeze '' ends the freeze."
        )
        yield Refusal(key_of(rules.name, "weights"), ring, repr(percent(after)), "frozen", message)


def _above_ceiling(proposed: Live, before: Live, rules: ServiceRules) -> Iterator[Refusal]:
    key, was = key_of(rules.name, "weights"), rules.effective_weights(before)
    for ring, points in rules.effective_weights(proposed).items():
        ceiling = rules.ceilings.get(ring, WHOLE)
        if points > ceiling and points > was[ring]:
            message = (
                f"{ring} {percent(was[ring])} → {percent(points)} percent is above its ceiling of {percent(ceiling)}: "
                f"HSET {key} {ring} {percent(ceiling)} is the most; `ceiling` of {ring} is in the config file."
            )
            yield Refusal(key, ring, repr(percent(points)), "ceiling", message)


def _below_floor(proposed: Live, before: Live, rules: ServiceRules) -> Iterator[Refusal]:
    ring, floor = rules.default_ring, rules.floors.get(rules.default_ring, 0)
    was = WHOLE - sum(rules.effective_weights(before).values())
    left = WHOLE - sum(rules.effective_weights(proposed).values())
    if left < floor and left < was:
        message = (
            f"{ring} {percent(was)} → {percent(left)} percent is below its floor of {percent(floor)}: the other rings "
            f"may have {percent(WHOLE - floor)} percent together; `floor` of {ring} is in the config file."
        )
        yield Refusal(key_of(rules.name, "weights"), ring, repr(percent(left)), "floor", message)


def _too_far(proposed: Live, previous: Live, rules: ServiceRules) -> list[Refusal]:
    limit = rules.guard.max_step
    steps = widened(proposed, previous, rules)
    if not limit or not steps or max(steps.values()) <= limit:
        return []
    ring = max(steps, key=lambda name: steps[name])
    key, before, after = key_of(rules.name, "weights"), _border(ring, previous, rules), _border(ring, proposed, rules)
    whose = ring if ring == rules.rings[0] else f"{ring} with the rings inside it"
    message = (
        f"{whose} {percent(before)} → {percent(after)} percent would widen it by {percent(steps[ring])} at once, more "
        f"than max_step, {percent(limit)}: the next step goes to {percent(before + limit)} at the most; `max_step` is "
        f"in the config file."
    )
    return [Refusal(key, ring, repr(percent(after)), "max_step", message)]


def _too_soon(proposed: Live, previous: Live, rules: ServiceRules, now: float) -> Iterator[Refusal]:
    bake, last = rules.guard.min_bake, min(previous.widened_at, now)  # a clock may have been set back
    until = last + bake
    for ring in list(widened(proposed, previous, rules))[:1]:
        if not bake or not last or now >= until:
            return
        key, was, wanted = (
            key_of(rules.name, "weights"),
            rules.effective_weights(previous),
            rules.effective_weights(proposed),
        )
        back = " ".join(f"{one} {percent(points)}" for one, points in was.items() if points != wanted[one])
        message = (
            f"{ring} {percent(was[ring])} → {percent(wanted[ring])} percent comes too soon: an audience was widened at "
            f"{_clock(last)}, and min_bake is {_span(bake)}. The next widening is possible at {_clock(until)}, "
            f"{_span(until - now)} after this was asked for; a wider value that stands in Redis then comes into force "
            f"then. HSET {key} {back} takes it back; `min_bake` is in the config file."
        )
        yield Refusal(key, ring, repr(percent(wanted[ring])), "min_bake", message, until)


def _border(ring: str, live: Live, rules: ServiceRules) -> int:
    """Where the ring ends in the hash space: its own weight and those of the rings inside it."""
    weights = rules.effective_weights(live)
    return sum(weights[one] for one in rules.rings[: rules.rings.index(ring) + 1])


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _span(seconds: float) -> str:
    """``5400`` → ``1h 30m``; parts of a second count as a whole one."""
    whole = int(seconds) + (seconds > int(seconds))
    parts = ((whole // 3600, "h"), (whole // 60 % 60, "m"), (whole % 60, "s"))
    return " ".join(f"{count}{unit}" for count, unit in parts if count) or "0s"
