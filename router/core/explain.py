"""Why a request is in its ring, step by step: the same functions the proxy decides with, asked one at a time.

The decision in a trace is ``decide``'s own, and every step is answered by ``cookie_value``, the service's compiled
rules and its tables: a trace can say more than the proxy knows, never something else. Not for the warm path.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from router.core.conditions import compile_condition
from router.core.decide import decide, identify
from router.core.hashing import BUCKETS, UserKey, bucket_of
from router.core.identity import raw_finder
from router.core.request import Request, cookie_value
from router.core.snapshot import Decision, Service
from router.core.spec import ConditionSpec, IdentityKind


@dataclass(frozen=True, slots=True)
class IdentityStep:
    """One place that was looked at for a key. ``chosen`` is true for the first that had one."""

    kind: IdentityKind
    name: str
    value: bytes | None
    chosen: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One node of a rule: what it asks, whether it holds, and what the request had there (None: nothing)."""

    text: str
    holds: bool
    found: bytes | None = None
    children: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleStep:
    """One rule of one ring. ``killed`` rules are not asked by anybody; ``decided`` is true for the one that won."""

    ring: str
    finding: Finding
    killed: bool
    decided: bool


@dataclass(frozen=True, slots=True)
class HashStep:
    """Where the hash puts the key. All numbers are buckets, which are basis points: 0 … 10000.

    ``ring`` owns ``[inner_border, outer_border)``; ``lands_in`` is where its users go, another ring if it is killed.
    The user stays in ``ring`` or further in while ``outer_border > bucket``, and moves further in once
    ``inner_border > bucket``.
    """

    bucket: int
    ring: str
    lands_in: str
    inner_border: int
    outer_border: int
    is_default: bool

    @property
    def may_narrow(self) -> int:
        """By how much the outer border can come in before the user leaves outward (the default ring has no border)."""
        return self.outer_border - self.bucket - 1

    @property
    def widen_to_move_inward(self) -> int | None:
        """By how much the inner border has to go out for the user to move inward; None in the innermost ring."""
        return None if self.inner_border == 0 else self.bucket + 1 - self.inner_border


@dataclass(frozen=True, slots=True)
class Trace:
    """The whole way to a decision. ``hash`` is None when there is no key; ``mints`` is the cookie a proxy would set."""

    service: str
    identity: tuple[IdentityStep, ...]
    key: UserKey | None
    mints: str | None
    member_of: str | None
    rules: tuple[RuleStep, ...]
    hash: HashStep | None
    killed: tuple[str, ...]
    decision: Decision


def explain(service: Service, request: Request) -> Trace:
    """Every step to the decision of this request. No key is minted: the trace names the cookie a proxy would set."""
    key = identify(service, request)
    member = service.members.get(key) if key is not None else None
    mints = service.anonymous_cookie.decode() if key is None and service.anonymous_cookie is not None else None
    return Trace(
        service=service.spec.name,
        identity=_identity_steps(service, request),
        key=key,
        mints=mints,
        member_of=member.ring if member is not None else None,
        rules=_rule_steps(service, request, decided_before=member is not None),
        hash=_hash_step(service, key) if key is not None else None,
        killed=service.spec.killed,
        decision=decide(service, request, key),
    )


def _identity_steps(service: Service, request: Request) -> tuple[IdentityStep, ...]:
    steps: list[IdentityStep] = []
    for spec in service.spec.identity:
        value = raw_finder(spec)(request)
        chosen = bool(value) and not any(step.chosen for step in steps)
        steps.append(IdentityStep(spec.kind, spec.name, value, chosen))
    return tuple(steps)


def _rule_steps(service: Service, request: Request, *, decided_before: bool) -> tuple[RuleStep, ...]:
    """Each rule in its order; the index says which one won, so that this cannot differ from ``decide``."""
    winner, ruled = service.rules.first(request)
    place = -1 if decided_before or ruled is None else winner
    steps: list[RuleStep] = []
    asked = 0
    last = service.spec.rings[-1].name
    for ring in service.spec.rings:
        killed = ring.name in service.spec.killed and ring.name != last
        for spec in ring.rules:
            steps.append(RuleStep(ring.name, find_out(spec, request), killed, not killed and asked == place))
            asked += not killed
    return tuple(steps)


def _hash_step(service: Service, key: UserKey) -> HashStep:
    bucket = bucket_of(key, service.salt)
    at = bisect_right(service.bounds, bucket)
    is_default = at == len(service.bounds)
    return HashStep(
        bucket=bucket,
        ring=service.spec.rings[at].name,
        lands_in=service.by_hash[at].ring,
        inner_border=service.bounds[at - 1] if at else 0,
        outer_border=BUCKETS if is_default else service.bounds[at],
        is_default=is_default,
    )


def find_out(spec: ConditionSpec, request: Request) -> Finding:
    """What a rule and each of its parts say about a request."""
    found = None
    if spec.kind == "header":
        found = request.headers.get(spec.name.lower().encode())
    elif spec.kind == "cookie":
        found = cookie_value(request.cookie, spec.name.encode())
    return Finding(
        text=condition_text(spec),
        holds=compile_condition(spec)(request),
        found=found,
        children=tuple(find_out(child, request) for child in spec.children),
    )


def condition_text(spec: ConditionSpec) -> str:
    """A rule as a phrase: ``header X-Ring equals 'canary'``."""
    prefix = "not " if spec.inverted else ""
    if spec.kind in ("all_of", "any_of"):
        return f"{prefix}{spec.kind}({', '.join(condition_text(child) for child in spec.children)})"
    if spec.compare == "present":
        return f"{prefix}{spec.kind} {spec.name} is present"
    values = " or ".join(repr(value) for value in spec.values)
    return f"{prefix}{spec.kind} {spec.name} {spec.compare.replace('_', ' ')} {values}"
