"""A trace as plain data: the same words at the command line and over the API. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from router.core.explain import Finding, Trace
from router.core.hashing import BUCKETS


@dataclass(frozen=True, slots=True)
class Proof:
    """Something that a request brought along to be believed. ``word`` is the one that the proxy counts it by."""

    kind: str
    word: str
    said: str

    @property
    def is_valid(self) -> bool:
        return self.word == "valid"


def as_plain(trace: Trace, proofs: Sequence[Proof] = (), notes: Sequence[str] = ()) -> dict[str, Any]:
    """A trace as plain data, for JSON. Weights in percent; bytes that are not UTF-8 with backslashes."""
    step, login, held = trace.hash, trace.login, trace.holdback
    return {
        "service": trace.service,
        "identity": [
            {"kind": s.kind, "name": s.name, "value": _text(s.value), "chosen": s.chosen, "refused": s.refused}
            for s in trace.identity
        ],
        "key": _text(trace.key),
        "mints": trace.mints,
        "proofs": [{"kind": proof.kind, "verdict": proof.word, "said": proof.said} for proof in proofs],
        "forced": [
            {"reason": str(s.reason), "ring": s.ring, "lands_in": s.lands_in, "decided": s.decided}
            for s in trace.forced
        ],
        "deny": [{"ring": s.ring, "killed": s.killed, **_finding(s.finding)} for s in trace.deny_lists],
        "denied": list(trace.denied),
        "member_of": trace.member_of,
        "tables": list(trace.tables),
        "rules": [
            {"ring": s.ring, "killed": s.killed, "decided": s.decided, **_finding(s.finding)} for s in trace.rules
        ],
        "login": None if login is None else {"mode": login.mode, "hashed": _text(login.hashed)},
        "hash": None
        if step is None
        else {
            "bucket": step.bucket,
            "ring": step.ring,
            "lands_in": step.lands_in,
            "interval": [step.inner_border, step.outer_border],
            "leaves_below_percent": None if step.is_default else (step.bucket + 1) / 100,
            "distance_outward_percent": None if step.is_default else step.may_narrow / 100,
            "distance_inward_percent": None if step.widen_to_move_inward is None else step.widen_to_move_inward / 100,
        },
        "holdback": None
        if held is None
        else {
            "ring": held.ring,
            "percent": held.basis_points / 100,
            "at_percent": held.bucket / 100,
            "version": held.version,
            "held": held.is_held,
        },
        "killed": list(trace.killed),
        "decision": {
            "ring": trace.decision.ring,
            "version": trace.decision.version,
            "reason": str(trace.decision.reason),
        },
        "notes": list(dict.fromkeys(notes)),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    made: dict[str, Any] = {"text": finding.text, "holds": finding.holds, "found": _text(finding.found)}
    if finding.share < BUCKETS:
        bucket = None if finding.bucket is None else finding.bucket / 100
        made |= {"percent": finding.share / 100, "at_percent": bucket}
    if finding.children:
        made["parts"] = [_finding(child) for child in finding.children]
    return made


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
