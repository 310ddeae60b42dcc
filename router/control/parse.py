"""From what Redis holds to what is applied: pure, total, and all poison handling in one place.

Each hash is taken whole or refused whole; a refused, missing or unreadable one leaves what was applied before. (The one
exception is ``revoked``, which says why.) It must never raise, never apply half of a hash, and never let absence change
the routing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from router.control.keys import MAX_FIELDS, REVISION_FIELD, HashName, RawFault, RawHash, RawService, key_of
from router.control.rails import refused_versions, refused_weights, widened
from router.control.refusal import REPORTED, printable, show, text_of
from router.control.refusal import Refusal as Refusal
from router.control.revoked import Revoked, revoked_of
from router.control.rules import WHOLE, address_of, percent, words_of
from router.control.rules import ServiceRules as ServiceRules
from router.control.rules import rules_of as rules_of
from router.core.live import Live

_PERCENT: Final = re.compile(rb"(\d{1,3})(?:\.(\d{1,2}))?")
MOST_DRAINED: Final = 256
"""Addresses: a list that grew by mistake must not travel in every snapshot."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What to apply, what was wrong, and whether anything of it came from Redis (else all of it is held)."""

    live: Live
    problems: tuple[Refusal, ...] = ()
    is_from_redis: bool = False


def parse(raw: RawService, rules: ServiceRules, previous: Live | None, now: float = 0.0) -> Parsed:
    """What the hashes mean. ``previous`` is what is applied now; None when nothing but the config file ever was.

    A freeze and the guard rails judge the way from ``previous``; with None there is nothing to widen from, so the first
    read is adopted. ``now`` is Unix time: without it nothing is over, neither a revocation nor the time for baking.
    """
    problems: list[Refusal] = []
    held = Live() if previous is None else previous
    weights = _weights(_present(raw.weights, rules, "weights", problems), rules, problems)
    control = _control(_present(raw.control, rules, "control", problems), rules, problems)
    versions = _versions(_present(raw.versions, rules, "versions", problems), rules, problems)
    revoked = _revoked(raw.revoked, rules, held, now, problems)
    if control is None and _is_missing(raw.control) and weights is not None:
        control = _Control()  # nothing is switched on; only a valid weights hash beside it proves that nobody flushed
    if control is None:
        control = _Control(held.killed, held.freeze, held.drained, held.holdbacks)
        is_control_held = True
    else:
        is_control_held = False

    proposed = Live(
        weights=held.weights if weights is None else weights.by_ring,
        versions=held.versions if versions is None else versions,
        killed=control.killed,
        freeze=control.freeze,
        drained=control.drained,
        revision=held.revision if weights is None else weights.revision,
        revoked=held.revoked if revoked is None else revoked.fields,
        revoked_until=held.revoked_until if revoked is None else revoked.until,
        widened_at=held.widened_at,
        holdbacks=control.holdbacks,
    )
    if weights is not None:
        if refused := refused_weights(proposed, previous, rules, now):
            problems.extend(refused[:REPORTED])
            proposed = replace(proposed, weights=held.weights, revision=held.revision)
        elif previous is not None and widened(proposed, previous, rules):
            proposed = replace(proposed, widened_at=now)
    if versions is not None and (refused := refused_versions(proposed, previous, rules)):
        problems.extend(refused)
        proposed = replace(proposed, versions=held.versions)
    problems.extend(_held(raw, rules, held, is_control_held=is_control_held))
    is_from_redis = (
        any(part is not None for part in (weights, versions))
        or bool(raw.control and not is_control_held)
        or bool(raw.revoked and revoked)
    )
    return Parsed(proposed, tuple(problems), is_from_redis)


def fit(live: Live, rules: ServiceRules) -> Live:
    """What of ``live`` still makes sense under other rules (the config file has changed): whole weights or none."""
    weights = {ring: points for ring, points in live.weights.items() if ring in rules.rings[:-1]}
    fitted = Live(
        weights=weights,
        versions={
            ring: name for ring, name in live.versions.items() if ring in rules.rings and name in rules.version_names
        },
        killed=tuple(ring for ring in rules.rings[:-1] if ring in live.killed),
        freeze=live.freeze,
        drained=live.drained,  # addresses come and go with DNS: one that is not there now may be there later
        revision=live.revision,
        revoked=live.revoked,
        revoked_until=live.revoked_until,
        widened_at=live.widened_at,
        holdbacks={ring: points for ring, points in live.holdbacks.items() if ring in rules.rings[:-1]},
    )
    if sum(rules.effective_weights(fitted).values()) > WHOLE:
        fitted = replace(fitted, weights={}, revision="")
    return fitted


def basis_points_of(value: bytes) -> int | None:
    """``b"10.5"`` → 1050: ASCII digits, at most three of them and two decimals; None for anything else."""
    match = _PERCENT.fullmatch(value)
    if match is None:
        return None
    return int(match[1]) * 100 + int((match[2] or b"").ljust(2, b"0"))


@dataclass(frozen=True, slots=True)
class _Weights:
    by_ring: dict[str, int]
    revision: str


@dataclass(frozen=True, slots=True)
class _Control:
    killed: tuple[str, ...] = ()
    freeze: str = ""
    drained: tuple[str, ...] = ()
    holdbacks: Mapping[str, int] = field(default_factory=dict)


def _is_missing(raw: RawHash) -> bool:
    return not isinstance(raw, RawFault) and not raw


def _present(
    raw: RawHash, rules: ServiceRules, name: HashName, problems: list[Refusal]
) -> Mapping[bytes, bytes] | None:
    """The fields of a hash that is there and may be read."""
    key = key_of(rules.name, name)
    if isinstance(raw, RawFault):
        fault = raw
    elif len(raw) > MAX_FIELDS[name]:
        fault = RawFault("too_many_fields", f"{len(raw)} fields, more than {MAX_FIELDS[name]}")
    else:
        return raw or None
    match fault.reason:
        case "wrong_type":
            message = f"{key} is not a hash; what was applied before stays. Remove it (DEL {key}) and HSET it again."
            problems.append(Refusal(key, "", "", "wrong_type", message))
        case "too_many_fields":
            message = f"{key} has {fault.message}; what was applied before stays. HDEL what does not belong there."
            problems.append(Refusal(key, "", "", "too_many_fields", message))
        case _:
            message = f"{key} cannot be read ({fault.message}); what was applied before stays."
            problems.append(Refusal(key, "", "", "unreadable", message))
    return None


def _weights(fields: Mapping[bytes, bytes] | None, rules: ServiceRules, problems: list[Refusal]) -> _Weights | None:
    if fields is None:
        return None
    key = key_of(rules.name, "weights")
    bad: list[Refusal] = []
    by_ring: dict[str, int] = {}
    revision = ""
    for name, value in sorted(fields.items()):
        ring = text_of(name)
        if ring == REVISION_FIELD:
            revision = printable(value)[:64]
            continue
        refused = _unknown_ring(key, name, value, rules)
        points = basis_points_of(value)
        if refused is None and ring == rules.default_ring:
            refused = Refusal(
                key, ring, show(value), "default_ring",
                f"{ring} is the default ring and takes what the others leave: it has no weight of its own "
                f"(HDEL {key} {ring}).",
            )  # fmt: skip
        elif refused is None and points is None:
            is_number = re.fullmatch(rb"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", value) is not None
            refused = Refusal(
                key, ring, show(value), "out_of_range" if is_number else "not_a_number",
                f"the weight {show(value)} of {ring} is not a percentage from 0 to 100 with at most two decimals: "
                f"HSET {key} {ring} 5",
            )  # fmt: skip
        elif refused is None and points is not None and points > WHOLE:
            message = f"the weight {show(value)} of {ring} is more than 100 percent: HSET {key} {ring} 5"
            refused = Refusal(key, ring, show(value), "out_of_range", message)
        if refused is not None:
            bad.append(refused)
        elif points is not None:
            by_ring[ring] = points
    effective = rules.effective_weights(Live(weights=by_ring))
    total = sum(effective.values())
    if not bad and total > WHOLE:
        terms = [
            f"{ring} {percent(w)}" + ("" if ring in by_ring else " (config file)") for ring, w in effective.items()
        ]
        bad.append(
            Refusal(
                key, "", percent(total), "sum_above_100",
                f"the weights add up to {percent(total)} percent, more than 100: {' + '.join(terms)}. "
                f"Lower one; several at once are one command: HSET {key} RING PERCENT RING PERCENT",
            )
        )  # fmt: skip
    problems.extend(bad[:REPORTED])
    return None if bad else _Weights(by_ring, revision)


def _versions(
    fields: Mapping[bytes, bytes] | None, rules: ServiceRules, problems: list[Refusal]
) -> dict[str, str] | None:
    if fields is None:
        return None
    key = key_of(rules.name, "versions")
    bad: list[Refusal] = []
    by_ring: dict[str, str] = {}
    for name, value in sorted(fields.items()):
        if text_of(name) == REVISION_FIELD:
            continue
        refused = _unknown_ring(key, name, value, rules)
        if refused is None and text_of(value) not in rules.version_names:
            choices = _choices(text_of(value), rules.version_names)
            message = f"there is no version {show(value)} for {text_of(name)}. {choices}."
            refused = Refusal(key, text_of(name), show(value), "unknown_version", message)
        if refused is not None:
            bad.append(refused)
        else:
            by_ring[text_of(name)] = text_of(value)
    problems.extend(bad[:REPORTED])
    return None if bad else by_ring


def _control(fields: Mapping[bytes, bytes] | None, rules: ServiceRules, problems: list[Refusal]) -> _Control | None:
    if fields is None:
        return None
    key = key_of(rules.name, "control")
    bad: list[Refusal] = []
    killed: set[str] = set()
    freeze = ""
    drained: tuple[str, ...] = ()
    holdbacks: dict[str, int] = {}
    for name, value in sorted(fields.items()):
        match text_of(name):
            case "freeze":
                freeze = printable(value)[:200].strip() or ("(no readable reason)" if value.strip() else "")
            case "kill":
                for ring in words_of(text_of(value)):
                    if ring == "*":
                        killed.update(rules.rings[:-1])
                    elif ring == rules.default_ring:
                        message = (
                            f"{ring} is the default ring and cannot be killed: everybody has to go somewhere. "
                            f"HSET {key} kill '*' sends everybody to it."
                        )
                        bad.append(Refusal(key, "kill", show(value), "default_ring", message))
                    elif ring not in rules.rings:
                        message = f"kill names no ring of {rules.name}: {show(ring.encode())}. {_rings(ring, rules)}."
                        bad.append(Refusal(key, "kill", show(value), "unknown_ring", message))
                    else:
                        killed.add(ring)
            case "drain":
                drained = tuple(
                    dict.fromkeys(address_of(printable(word.encode())) for word in words_of(text_of(value)))
                )
                if len(drained) > MOST_DRAINED:
                    message = (
                        f"drain names {len(drained)} addresses, more than {MOST_DRAINED}: to take a whole version out, "
                        f"HSET {key_of(rules.name, 'versions')} RING VERSION gives its rings another one."
                    )
                    bad.append(Refusal(key, "drain", show(value), "out_of_range", message))
            case "holdback":
                holdbacks = _holdbacks(key, value, rules, bad)
            case other if other == REVISION_FIELD:
                continue
            case _:
                message = (
                    f"{key} knows the fields kill, freeze, drain and holdback, not {show(name)}: "
                    f"HDEL {key} {show(name)}"
                )
                bad.append(Refusal(key, show(name), show(value), "unknown_field", message))
    problems.extend(bad[:REPORTED])
    return None if bad else _Control(tuple(ring for ring in rules.rings if ring in killed), freeze, drained, holdbacks)


def _holdbacks(key: str, value: bytes, rules: ServiceRules, bad: list[Refusal]) -> dict[str, int]:
    """``early=50 beta=10`` in the order of the rings; 0 is none."""
    found: dict[str, int] = {}
    for word in words_of(text_of(value)):
        ring, _, points = word.partition("=")
        held = basis_points_of(points.encode())
        remedy = f"HSET {key} holdback '{ring if ring in rules.rings[:-1] else rules.rings[0]}=10'"
        if ring == rules.default_ring:
            message = (
                f"{ring} is the default ring: there is no ring further out whose version its users could keep. "
                f"{remedy} is for another one."
            )
            bad.append(Refusal(key, "holdback", show(value), "default_ring", message))
        elif ring not in rules.rings:
            message = f"holdback names no ring of {rules.name}: {show(ring.encode())}. {_rings(ring, rules)}. {remedy}"
            bad.append(Refusal(key, "holdback", show(value), "unknown_ring", message))
        elif held is None or held > WHOLE:
            message = (
                f"the holdback {show(word.encode())} is not a ring and a percentage from 0 to 100 with at most two "
                f"decimals: {remedy}"
            )
            bad.append(Refusal(key, "holdback", show(value), "out_of_range", message))
        elif ring in found:
            message = f"holdback names {ring} twice: {remedy}"
            bad.append(Refusal(key, "holdback", show(value), "out_of_range", message))
        else:
            found[ring] = held
    return {ring: found[ring] for ring in rules.rings if found.get(ring)}


def _revoked(raw: RawHash, rules: ServiceRules, held: Live, now: float, problems: list[Refusal]) -> Revoked | None:
    """None where nothing can be read: then what was revoked stays so, and does not even end by itself."""
    fields = _present(raw, rules, "revoked", problems)
    if fields is None and not _is_missing(raw):
        return None
    revoked = revoked_of(fields or {}, rules.name, held, now)
    problems.extend(revoked.problems)
    return revoked


def _held(raw: RawService, rules: ServiceRules, held: Live, *, is_control_held: bool) -> list[Refusal]:
    """What is not in Redis any more and stays in force nevertheless."""
    missing: list[tuple[HashName, str]] = []
    if _is_missing(raw.weights) and (held.weights or held.revision):
        missing.append(("weights", "`ring-router weights reset` goes back to the config file"))
    if _is_missing(raw.versions) and held.versions:
        missing.append(("versions", "HSET the version that a ring shall run"))
    if _is_missing(raw.control) and is_control_held and (held.killed or held.freeze or held.drained or held.holdbacks):
        key = key_of(rules.name, "control")
        missing.append(("control", f"HSET {key} kill '' freeze '' drain '' holdback '' switches all of them off"))
    return [
        Refusal(
            key_of(rules.name, name), "", "", "held_missing",
            f"{name} missing: {key_of(rules.name, name)} is gone, what was applied before stays; {remedy}.",
        )
        for name, remedy in missing
    ]  # fmt: skip


def _unknown_ring(key: str, name: bytes, value: bytes, rules: ServiceRules) -> Refusal | None:
    ring = text_of(name)
    if ring in rules.rings:
        return None
    message = f"there is no ring {show(name)} in {rules.name}. {_rings(ring, rules)}. HDEL {key} {show(name)}"
    return Refusal(key, show(name), show(value), "unknown_ring", message)


def _rings(wanted: str, rules: ServiceRules) -> str:
    return _choices(wanted, rules.rings[:-1])


def _choices(wanted: str, names: tuple[str, ...] | frozenset[str]) -> str:
    ordered = list(names) if isinstance(names, tuple) else sorted(names)
    close = difflib.get_close_matches(wanted[:60], ordered, n=1)
    return f"Did you mean {close[0]}?" if close else f"There is: {', '.join(ordered)}"
