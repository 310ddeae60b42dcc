"""A trace as plain data: the same words at the command line and over the API."""

from __future__ import annotations

from typing import Any

from router.core.explain import Finding, Trace


def as_plain(trace: Trace) -> dict[str, Any]:
    """A trace as plain data, for JSON. Weights in percent; bytes that are not UTF-8 with backslashes."""
    step = trace.hash
    return {
        "service": trace.service,
        "identity": [
            {"kind": s.kind, "name": s.name, "value": _text(s.value), "chosen": s.chosen} for s in trace.identity
        ],
        "key": _text(trace.key),
        "mints": trace.mints,
        "member_of": trace.member_of,
        "rules": [
            {"ring": s.ring, "killed": s.killed, "decided": s.decided, **_finding(s.finding)} for s in trace.rules
        ],
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
        "killed": list(trace.killed),
        "decision": {
            "ring": trace.decision.ring,
            "version": trace.decision.version,
            "reason": str(trace.decision.reason),
        },
    }


def _finding(finding: Finding) -> dict[str, Any]:
    made: dict[str, Any] = {"text": finding.text, "holds": finding.holds, "found": _text(finding.found)}
    if finding.children:
        made["parts"] = [_finding(child) for child in finding.children]
    return made


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
