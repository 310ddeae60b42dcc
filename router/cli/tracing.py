"""The trace of a decision in words. It decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from router.core.explain import (
    DeniedStep,
    Finding,
    ForcedStep,
    HashStep,
    HoldbackStep,
    IdentityStep,
    LoginStep,
    RuleStep,
    Trace,
)
from router.core.hashing import BUCKETS
from router.core.snapshot import Reason
from router.core.trace import Proof

_WHY: Final = {
    Reason.OVERRIDE: "an override names it",
    Reason.PROPAGATED: "the call chain is in it",
    Reason.MEMBER: "the user is a member",
    Reason.RULE: "a rule matches",
    Reason.HASH: "the hash of the key falls into its interval",
}
_PROOFS: Final = {"token": "token", "pass": "pass", "override": "override", "baggage": "propagation"}


def render(trace: Trace, proofs: Sequence[Proof] = ()) -> str:
    """The trace as numbered lines, in the order in which the proxy asks, and the decision."""
    steps = [_identity_line(step) for step in trace.identity]
    if trace.key is None:
        minted = f"; the proxy would set the cookie {trace.mints} and hash that" if trace.mints else ""
        steps.append(f"identity: nobody has a key here{minted}")
    steps += [f"{_PROOFS[proof.kind]}: {proof.said}" for proof in proofs]
    steps += [_forced_line(step) for step in trace.forced]
    steps += [_deny_line(step) for step in trace.deny_lists]
    if trace.key is not None:
        steps.append(_member_line(trace, trace.key))
    steps += [_rule_line(trace, step) for step in trace.rules]
    if trace.login is not None:
        steps.append(_login_line(trace.login))
    if trace.hash is not None:
        steps.append("\n   ".join(_hash_lines(trace, trace.hash)))
    if trace.holdback is not None:
        steps.append(_holdback_line(trace.holdback))
    lines = [f"{trace.service}"] + [f"{number:2}. {step}" for number, step in enumerate(steps, 1)]
    decision = trace.decision
    default = "nobody has a key to hash" if trace.key is None else "the default ring takes the rest"
    why = _WHY.get(decision.reason, default)
    if trace.holdback is not None and trace.holdback.is_held:
        why += f"; held back: keeps {decision.version}"
    return "\n".join([*lines, f" => ring {decision.ring}, version {decision.version}, reason {decision.reason}: {why}"])


def _identity_line(step: IdentityStep) -> str:
    what = f"{step.kind} {step.name}".strip()
    if step.value is None:
        return f"identity: {what} is not there"
    if step.refused:
        note = f"it does not count, {step.refused}"
    elif step.chosen:
        note = "this is the key"
    else:
        note = "not asked any more" if step.value else "empty, so it does not count"
    return f"identity: {what} is {_text(step.value)!r}: {note}"


def _forced_line(step: ForcedStep) -> str:
    if step.lands_in is None:
        return f"{step.reason}: ring {step.ring} is not one of this service, so it is ignored"
    if not step.decided:
        return f"{step.reason}: ring {step.ring} comes second, and is not asked for any more"
    return f"{step.reason}: ring {step.ring}" + (f" leads to {step.lands_in}" if step.lands_in != step.ring else "")


def _deny_line(step: DeniedStep) -> str:
    head = f"deny list of {step.ring}: {step.finding.text}"
    if step.killed:
        return f"{head}: not asked, {step.ring} is killed"
    answer = f"holds: not in {step.ring}" if step.finding.holds else "does not hold"
    return f"{head}: {answer}{_because(step.finding)}"


def _member_line(trace: Trace, key: bytes) -> str:
    tables = f" (with the tables of {', '.join(trace.tables)})" if trace.tables else ""
    if trace.member_of is None:
        denied = " that does not deny it" if trace.denied else ""
        return f"members: {_text(key)!r} is listed in no ring{denied}{tables}"
    asked = "" if trace.decision.reason is Reason.MEMBER else ", but was not asked: decided above"
    return f"members: {_text(key)!r} is a member of {trace.member_of}{asked}"


def _login_line(step: LoginStep) -> str:
    own, anonymous, hashed = _text(step.own), _text(step.anonymous), _text(step.hashed)
    because = {
        "anonymous_first": "the cookie's key, so that a login moves nobody",
        "outer_wins": f"{hashed!r}, which lies further out",
        "user_wins": "the user's own key",
    }[step.mode]
    return f"login: {own!r} also has the cookie {anonymous!r}; `login: {step.mode}` hashes {because}"


def _rule_line(trace: Trace, step: RuleStep) -> str:
    head = f"rule of {step.ring}: {step.finding.text}"
    if step.killed:
        return f"{head}: not asked, {step.ring} is killed"
    answer = "matches" if step.finding.holds else "does not match"
    if step.finding.holds and not step.decided:
        answer = "would match, but was not asked: decided above"
        if step.ring in trace.denied:
            answer = f"would match, but {step.ring} denies this user"
    return f"{head}: {answer}{_because(step.finding)}"


def _because(finding: Finding) -> str:
    """What the request had in the places a rule looked at."""
    leaves = list(_leaves(finding))
    if len(leaves) == 1 and finding is leaves[0][0]:
        return "" if finding.holds and finding.found is not None else f" ({_found(finding)})"
    return "".join(f"\n      {'yes' if holds else 'no '}  {text}" for _, holds, text in leaves)


def _leaves(finding: Finding) -> list[tuple[Finding, bool, str]]:
    """Each comparison and each share: whether it holds, and what it found."""
    found = []
    if finding.share < BUCKETS:
        where = "nobody is known" if finding.bucket is None else f"the user is at {_percent(finding.bucket)}"
        is_in = finding.bucket is not None and finding.bucket < finding.share
        found.append((finding, is_in, f"one of the first {_percent(finding.share)} of them ({where})"))
    if not finding.children:
        found.append((finding, finding.holds, f"{finding.text} ({_found(finding)})"))
    return found + [leaf for child in finding.children for leaf in _leaves(child)]


def _found(finding: Finding) -> str:
    if finding.text.removeprefix("not ").startswith("time "):
        return "by the clock"
    return "it is not there" if finding.found is None else f"it is {_text(finding.found)!r}"


def _hash_lines(trace: Trace, step: HashStep) -> list[str]:
    asked = trace.decision.reason in (Reason.HASH, Reason.DEFAULT)
    ring, border = step.ring, _percent(step.bucket + 1)
    lines = [
        f"hash: bucket {step.bucket:04}/10000{'' if asked else ' (not asked: decided above)'}; "
        f"{ring} owns {_percent(step.inner_border)} to {_percent(step.outer_border)}"
    ]
    if step.lands_in != ring:
        why = "is killed: its users go" if ring in trace.killed else "denies this user, who goes"
        lines.append(f"  {ring} {why} outward to {step.lands_in}")
    if not step.is_default:
        lines.append(
            f"  stays in {ring} until its outer border falls below {border} (now {_percent(step.outer_border)}, "
            f"{_percent(step.may_narrow)} to spare)"
        )
    if step.widen_to_move_inward is not None:
        lines.append(
            f"  moves inward as soon as the rings inside {ring} reach {border} together "
            f"(now {_percent(step.inner_border)}, {_percent(step.widen_to_move_inward)} more)"
        )
    return lines


def _holdback_line(step: HoldbackStep) -> str:
    head = f"holdback: {_percent(step.basis_points)} of {step.ring} keep {step.version}"
    where = f"the user is at {_percent(step.bucket)}"
    return f"{head}; {where}: {f'held back: keeps {step.version}' if step.is_held else 'not held back'}"


def _percent(basis_points: int) -> str:
    return f"{basis_points // 100}.{basis_points % 100:02} %"


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _text_or_none(value: bytes | None) -> str | None:
    return None if value is None else _text(value)
