"""Why a request is in its ring, step by step: the same functions the proxy decides with, asked one at a time.

The decision in a trace is ``decide``'s own, and every step is answered by ``cookie_value``, the service's compiled
rules and its tables: a trace can say more than the proxy knows, never something else. Not for the warm path.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.core.audience import ConditionSpec, IdentityKind
from router.core.conditions import DENIED_SALT, SHARE_SALT, compile_condition, share_bucket
from router.core.decide import (
    decide,
    denied_places,
    hashed_place,
    holdback_bucket,
    identify,
    landing,
    member_decision,
    take_notes,
)
from router.core.hashing import BUCKETS, UserKey, bucket_of
from router.core.identity import finder_of, raw_finder
from router.core.lookup import Tables, no_tables
from router.core.request import Request, cookie_value, query_value
from router.core.snapshot import Decision, Reason, Service, identity_order
from router.core.spec import Login


@dataclass(frozen=True, slots=True)
class IdentityStep:
    """One place that was looked at for a key. ``chosen`` is true for the first that had one that counts."""

    kind: IdentityKind
    name: str
    value: bytes | None
    chosen: bool
    refused: str = ""
    """Why what is there does not count; empty where it does, or where there is nothing."""


@dataclass(frozen=True, slots=True)
class ForcedStep:
    """A ring that an override or the call chain names. ``lands_in`` is where it leads; None: to nowhere, it is ignored.

    ``decided`` is true for the one that won.
    """

    reason: Reason
    ring: str
    lands_in: str | None
    decided: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One node of a rule: what it asks, whether it holds, and what the request had there (None: nothing).

    ``share`` is in basis points, where it is not the whole, and ``bucket`` where the user is in it (None: nobody is
    known).
    """

    text: str
    holds: bool
    found: bytes | None = None
    children: tuple[Finding, ...] = ()
    share: int = BUCKETS
    bucket: int | None = None


@dataclass(frozen=True, slots=True)
class DeniedStep:
    """One entry of one ring's deny list. ``killed``: nobody is in the ring anyway, and nobody asks."""

    ring: str
    finding: Finding
    killed: bool


@dataclass(frozen=True, slots=True)
class RuleStep:
    """One rule of one ring. ``killed`` rules are not asked by anybody; ``decided`` is true for the one that won."""

    ring: str
    finding: Finding
    killed: bool
    decided: bool


@dataclass(frozen=True, slots=True)
class LoginStep:
    """A user with a key of their own and an anonymous cookie: which of the two is hashed."""

    mode: Login
    own: UserKey
    anonymous: UserKey
    hashed: UserKey


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
class HoldbackStep:
    """Of a ring that holds some of its users back: who of them, and whether this user is one. Basis points."""

    ring: str
    version: str
    """Of the next ring outward, which they keep."""
    basis_points: int
    bucket: int
    """Another one than that of ``HashStep``."""
    is_held: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """The whole way to a decision. ``hash`` is None when there is no key; ``mints`` is the cookie a proxy would set.

    ``denied`` are the rings that deny this user. ``member_of`` is the ring whose list has the user, whether or not it
    came to that.
    """

    service: str
    identity: tuple[IdentityStep, ...]
    key: UserKey | None
    mints: str | None
    login: LoginStep | None
    forced: tuple[ForcedStep, ...]
    deny_lists: tuple[DeniedStep, ...]
    denied: tuple[str, ...]
    member_of: str | None
    tables: tuple[str, ...]
    """Rings whose members stand in a table as well."""
    rules: tuple[RuleStep, ...]
    hash: HashStep | None
    holdback: HoldbackStep | None
    """None where the ring has none, or the user is in it by an override or the call chain, or has no key."""
    killed: tuple[str, ...]
    decision: Decision


def explain(service: Service, request: Request, tables: Tables = no_tables) -> Trace:
    """Every step to the decision of this request. No key is minted: the trace names the cookie a proxy would set.

    ``tables`` are those that the service was compiled with. ``request.override`` and ``propagated`` are believed.
    """
    key = identify(service, request)
    decision = decide(service, request, key)
    take_notes(service, request, key)
    denied = denied_places(service, request) if service.denied else 0
    member = None if key is None else member_decision(service, request, key, denied)
    mints = service.anonymous_cookie.decode() if key is None and service.anonymous_cookie is not None else None
    return Trace(
        service=service.spec.name,
        identity=_identity_steps(service, request),
        key=key,
        mints=mints,
        login=_login_step(service, request, key),
        forced=_forced_steps(service, request, decision),
        deny_lists=_deny_steps(service, request, tables),
        denied=tuple(ring.name for i, ring in enumerate(service.spec.rings) if denied >> i & 1),
        member_of=member.ring if member is not None else None,
        tables=tuple(ring.name for ring in service.spec.rings if ring.tables),
        rules=_rule_steps(service, request, tables, decision),
        hash=_hash_step(service, request, key, denied) if key is not None else None,
        holdback=_holdback_step(service, request, key, decision) if key is not None else None,
        killed=tuple(ring.name for ring in service.spec.rings[:-1] if ring.name in service.spec.killed),
        decision=decision,
    )


def _identity_steps(service: Service, request: Request) -> tuple[IdentityStep, ...]:
    """In the order in which they are asked, which is not always that of the config."""
    steps: list[IdentityStep] = []
    for spec in identity_order(service.spec):
        value = raw_finder(spec)(request)
        signer = service.signer if spec.kind == "anonymous_cookie" else None
        refused = ""
        if value and not finder_of(spec, signer)(request):
            refused = "not signed by this router" if signer is not None else "believed of trusted proxies alone"
        chosen = bool(value) and not refused and not any(step.chosen for step in steps)
        steps.append(IdentityStep(spec.kind, spec.name, value, chosen, refused))
    return tuple(steps)


def _login_step(service: Service, request: Request, key: UserKey | None) -> LoginStep | None:
    anonymous = request.hashed if request.outer is None else request.outer
    if key is None or anonymous is None:
        return None
    hashed = anonymous
    if request.outer is not None and bucket_of(key, service.salt) >= bucket_of(anonymous, service.salt):
        hashed = key
    return LoginStep(service.spec.login, key, anonymous, hashed)


def _forced_steps(service: Service, request: Request, decision: Decision) -> tuple[ForcedStep, ...]:
    steps = []
    if request.override:
        lands = service.overrides.get(request.override)
        steps.append(ForcedStep(Reason.OVERRIDE, request.override, lands.ring if lands else None, lands is decision))
    if request.propagated:
        lands = service.propagated.get(request.propagated, service.astray)
        steps.append(ForcedStep(Reason.PROPAGATED, request.propagated, lands.ring, lands is decision))
    return tuple(steps)


def _deny_steps(service: Service, request: Request, tables: Tables) -> tuple[DeniedStep, ...]:
    salt = DENIED_SALT + service.salt
    return tuple(
        DeniedStep(ring.name, find_out(spec, request, tables, salt), ring.name in service.spec.killed)
        for ring in service.spec.rings[:-1]
        for spec in ring.denied
    )


def _rule_steps(service: Service, request: Request, tables: Tables, decision: Decision) -> tuple[RuleStep, ...]:
    """Each rule in its order; the decision says whether one of them won, and the first of its ring that holds did."""
    steps: list[RuleStep] = []
    last = service.spec.rings[-1].name
    salt = SHARE_SALT + service.salt
    is_open = decision.reason is Reason.RULE
    for ring in service.spec.rings:
        killed = ring.name in service.spec.killed and ring.name != last
        for spec in ring.rules:
            finding = find_out(spec, request, tables, salt)
            decided = is_open and ring.name == decision.ring and finding.holds
            is_open = is_open and not decided
            steps.append(RuleStep(ring.name, finding, killed, decided))
    return tuple(steps)


def _hash_step(service: Service, request: Request, key: UserKey, denied: int) -> HashStep:
    at = hashed_place(service, request, key)
    is_default = at == len(service.bounds)
    return HashStep(
        bucket=request.digest % BUCKETS,  # as it was noted just now
        ring=service.spec.rings[at].name,
        lands_in=landing(service, at, denied).ring,
        inner_border=service.bounds[at - 1] if at else 0,
        outer_border=BUCKETS if is_default else service.bounds[at],
        is_default=is_default,
    )


def _holdback_step(service: Service, request: Request, key: UserKey, decision: Decision) -> HoldbackStep | None:
    for index, holdback in service.holdbacks.items():
        if decision.index in (index, holdback.decision.index):
            return HoldbackStep(
                ring=decision.ring,
                version=holdback.decision.version,
                basis_points=holdback.basis_points,
                bucket=holdback_bucket(holdback, request, key),
                is_held=decision is holdback.decision,
            )
    return None


def find_out(spec: ConditionSpec, request: Request, tables: Tables = no_tables, salt: bytes = SHARE_SALT) -> Finding:
    """What a rule and each of its parts say about a request. ``tables`` and ``salt`` are those it is compiled with."""
    is_share = spec.share < BUCKETS
    bucket = share_bucket(request, salt) if is_share else BUCKETS
    return Finding(
        text=condition_text(spec),
        holds=compile_condition(spec, tables, salt)(request),
        found=_found(spec, request),
        children=tuple(find_out(child, request, tables, salt + b"/") for child in spec.children),
        share=spec.share,
        bucket=bucket if bucket < BUCKETS else None,
    )


def _found(spec: ConditionSpec, request: Request) -> bytes | None:
    """What the request has where a condition looks; of several values of a claim all, with commas between."""
    name = spec.name.encode()
    match spec.kind:
        case "header":
            return request.headers.get(name.lower())
        case "cookie":
            return cookie_value(request.cookie, name)
        case "query":
            return query_value(request.query, name)
        case "path":
            return request.path
        case "method":
            return request.method
        case "host":
            return request.host
        case "client":
            return request.client or None
        case "claim":
            return b", ".join(request.claims[spec.name]) if spec.name in request.claims else None
        case "user":
            return request.key
        case _:
            return None


def condition_text(spec: ConditionSpec) -> str:
    """A rule as a phrase: ``header X-Ring equals 'canary'``."""
    prefix = "not " if spec.inverted else ""
    suffix = f" for {spec.share / 100:g} percent of the users" if spec.share < BUCKETS else ""
    return f"{prefix}{_phrase(spec)}{suffix}"


def _phrase(spec: ConditionSpec) -> str:
    what = f"{spec.kind} {spec.name}".strip()
    match spec.kind, spec.compare:
        case (("all_of" | "any_of"), _):
            # One part alone is all of it.
            parts = ", ".join(condition_text(child) for child in spec.children)
            return parts if len(spec.children) == 1 and not spec.inverted else f"{spec.kind}({parts})"
        case "time", _:
            start, end = (*spec.values, "", "")[:2]
            return " ".join(["time", *(f"from {start}",) * bool(start), *(f"until {end}",) * bool(end)])
        case _, "present":
            return f"{what} is present"
        case _, "listed":
            return f"{what} is listed in {spec.values[0]}"
        case _, "semver":
            return f"{what} is a version {' '.join(spec.values)}"
        case _, "one_of" if not spec.values:
            return f"{what} is listed in a file that has no table yet"
        case _:
            values = " or ".join(repr(value) for value in spec.values)
            return f"{what} {spec.compare.replace('_', ' ')} {values}"
