"""The compiled routing state: immutable, one generation, made once per change and looked at once per request.

Whatever can be worked out when the snapshot changes is worked out here: kills are folded into the intervals, rules are
closures, decisions are ready-made objects. ``Snapshot.find`` costs the same for one service as for a thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Final

from router.core.alike import Alike
from router.core.audience import ConditionSpec, IdentitySpec, TrustSpec
from router.core.conditions import DENIED_SALT, SHARE_SALT, asks_for_keys, condition_headers, condition_needs
from router.core.hashing import BUCKETS, UserKey, holdback_salt
from router.core.identity import Finder, IdentitySource, finder_of, plain_source
from router.core.lookup import Lookup, Tables, no_tables
from router.core.rules import RuleIndex
from router.core.signing import CookieSigner
from router.core.spec import RingSpec, ServiceSpec, SnapshotSpec

_NO_TRUST: Final = TrustSpec()
_NOBODY: Final[Mapping[UserKey, Decision]] = {}


class Reason(StrEnum):
    """Why a request is in its ring, strongest first (the published precedence)."""

    OVERRIDE = "override"
    PROPAGATED = "propagated"
    MEMBER = "member"
    RULE = "rule"
    HASH = "hash"
    DEFAULT = "default"
    FALLBACK = "fallback"


@dataclass(frozen=True, slots=True)
class Decision:
    """Ring, version and reason. ``index`` numbers the decisions of one service, so that a shell can keep a table.

    ``place`` is the ring's, 0 for the innermost one.
    """

    index: int
    ring: str
    version: str
    reason: Reason
    place: int = 0


@dataclass(frozen=True, slots=True)
class Holdback:
    """Who of a decision's users gets another one in its place: same ring, same reason, the next version outward."""

    basis_points: int
    salt: bytes
    decision: Decision


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """One application, compiled. ``bounds[i]`` is the first bucket past ring i's interval; see ``by_hash``.

    ``identity`` are the sources that come first and are plain headers or cookies; ``finders`` ask the rest of them.
    ``is_intricate``: whether the decision takes more than members, rules and one hash; the rest is for that case alone.

    What every request comes to stands first: native code keeps it side by side, in two lines of a cache.
    """

    index: int
    has_to_gather: bool
    """Whether some of ``needs`` have to be gathered; the client's address is there for every request."""
    is_intricate: bool
    identity: tuple[IdentitySource, ...]
    finders: tuple[Finder, ...]
    anonymous_cookie: bytes | None
    members: Mapping[UserKey, Decision]
    rules: RuleIndex[Decision]
    salt: bytes
    bounds: tuple[int, ...]
    by_hash: tuple[Decision, ...]
    default: Decision
    spec: ServiceSpec
    needs: frozenset[str]
    """What of a request's extras has to be there before ``identify``: query, client, time, claims, certificate."""
    signer: CookieSigner | None
    """Signs what goes into the anonymous cookie; None where it is not signed."""
    decisions: tuple[Decision, ...]
    overrides: Mapping[str, Decision]
    """Ring → where an override of that name leads; kills are in it."""
    propagated: Mapping[str, Decision]
    astray: Decision
    """For a propagated ring that this service does not have."""
    find_anonymous: Finder | None
    """Asks for the anonymous cookie's key beside the user's own, where both count."""
    takes_outer: bool
    """Whether the outer one of both keys' places is taken (``outer_wins``), rather than the cookie's."""
    tables: tuple[tuple[Decision, Lookup], ...]
    """Member tables, inner rings first."""
    denied: tuple[tuple[int, RuleIndex[bool]], ...]
    """Places of rings that deny somebody, and their lists. Where there are none, the next two are empty."""
    memberships: Mapping[UserKey, tuple[Decision, ...]]
    """Of those who are members of several rings: all of them, the inner one first."""
    rules_by_ring: tuple[tuple[int, RuleIndex[Decision]], ...]
    alike: Alike
    """Where equal things are one: for what is made of this service."""
    holdbacks: Mapping[int, Holdback]
    """By the index of the decision in whose place it is."""

    def __repr__(self) -> str:
        return f"<Service {self.spec.name} rings={len(self.spec.rings)} bounds={self.bounds}>"


class Snapshot:
    """All services, and the road from a host and a path to one of them."""

    __slots__ = (
        "_anywhere", "_deepest", "_elsewhere", "_exact", "_whole", "_wildcard", "generation", "services", "spec",
        "wanted_headers",
    )  # fmt: skip

    def __init__(self, spec: SnapshotSpec, tables: Tables | None = None) -> None:
        """``tables`` opens member tables by their paths; without it nobody is listed in one.

        Raises RuleError for a rule that cannot be compiled, ValueError for a cookie to sign without a key, and whatever
        ``tables`` raises.
        """
        self.spec = spec
        self.generation = spec.generation
        alike = Alike()
        self.services = tuple(
            compile_service(s, i, tables or no_tables, spec.trust, alike) for i, s in enumerate(spec.services)
        )
        self.wanted_headers = frozenset(name for s in self.services for name in _wanted(s, spec.trust))
        self._exact: dict[bytes, dict[bytes, Service]] = {}
        self._wildcard: dict[bytes, dict[bytes, Service]] = {}
        self._anywhere: dict[bytes, Service] = {}
        for service in self.services:
            for table in [self._table(host) for host in service.spec.hosts] or [self._anywhere]:
                for path in service.spec.paths or ("/",):
                    table.setdefault(path.rstrip("/").encode(), service)
        paths = [*self._exact.values(), *self._wildcard.values(), self._anywhere]
        self._deepest = max((len(path) for table in paths for path in table), default=0)
        self._whole = {host: _sole(table) for host, table in self._exact.items()}
        """Host → its service, or None where that is a question of the path."""
        self._elsewhere = None if self._wildcard else _sole(self._anywhere)
        """The service of every other host, or None where it takes a closer look."""

    def _table(self, host: str) -> dict[bytes, Service]:
        name = host.lower().strip("[]").encode()
        if name == b"*":
            return self._anywhere
        if name.startswith(b"*."):
            return self._wildcard.setdefault(name[1:], {})
        return self._exact.setdefault(name, {})

    def find(self, host: bytes, path: bytes) -> Service | None:
        """The service of a lower-case host without its port and a path without its query.

        The more specific host wins (exact, then the longest ``*.`` suffix, then services without hosts), within it the
        longest path that ends where a segment ends: ``/api`` takes ``/api/x`` and leaves ``/apix``.
        """
        whole = self._whole.get(host, self._elsewhere)
        if whole is not None:
            return whole
        if len(path) > self._deepest:
            # What is longer than every configured path matters only up to the segment that goes beyond.
            path = path[: self._deepest + 1]
            path = path[: path.rfind(b"/")]
        table = self._exact.get(host)
        if table is not None and (found := _longest(table, path)) is not None:
            return found
        if self._wildcard:
            dot = host.find(b".")
            while dot >= 0:
                table = self._wildcard.get(host[dot:])
                if table is not None and (found := _longest(table, path)) is not None:
                    return found
                dot = host.find(b".", dot + 1)
        return _longest(self._anywhere, path)


def _sole(table: dict[bytes, Service]) -> Service | None:
    """The service that has every path of a host, if one has."""
    return table.get(b"") if len(table) == 1 else None


def _longest(table: dict[bytes, Service], path: bytes) -> Service | None:
    while path:
        found = table.get(path)
        if found is not None:
            return found
        path = path[: path.rfind(b"/")] if b"/" in path else b""
    return table.get(b"")


def _wanted(service: Service, trust: TrustSpec) -> set[bytes]:
    names = {one.name.lower().encode() for one in service.spec.identity if one.kind == "header"}
    for condition in _conditions(service.spec):
        names |= condition_headers(condition)
    if "claims" in service.needs:
        names |= {issuer.header.lower().encode() for issuer in trust.issuers if issuer.header}
    return names


def _conditions(spec: ServiceSpec) -> list[ConditionSpec]:
    return [condition for ring in spec.rings for condition in (*ring.rules, *ring.denied)]


class _Decisions:
    """The decisions of one service, each made once and numbered."""

    def __init__(self, rings: tuple[RingSpec, ...]) -> None:
        self._rings = rings
        self._made: dict[tuple[int, Reason], Decision] = {}
        self._held: list[Decision] = []

    def of(self, place: int, reason: Reason) -> Decision:
        made = self._made.get((place, reason))
        if made is None:
            ring = self._rings[place]
            made = Decision(len(self._made), ring.name, ring.version, reason, place)
            self._made[place, reason] = made
        return made

    def holdbacks(self, place: int, outer: int, salt: bytes) -> dict[int, Holdback]:
        """For the decisions that there are for a ring, those of its users who keep the version of a ring further out.

        Call it when all others are made.
        """
        ring, version = self._rings[place], self._rings[outer].version
        found: dict[int, Holdback] = {}
        for reason in (Reason.MEMBER, Reason.RULE, Reason.HASH):
            made = self._made.get((place, reason))
            if made is not None and version != ring.version:
                index = len(self._made) + len(self._held)
                self._held.append(Decision(index, ring.name, version, reason, place))
                found[made.index] = Holdback(ring.holdback, holdback_salt(ring.name, salt), self._held[-1])
        return found

    def all(self) -> tuple[Decision, ...]:
        return (*self._made.values(), *self._held)


def compile_service(
    spec: ServiceSpec, index: int = 0, tables: Tables = no_tables, trust: TrustSpec = _NO_TRUST,
    alike: Alike | None = None,
) -> Service:  # fmt: skip
    """Fold weights, kills, rules and members of one service into lookup tables.

    A killed ring has nobody: its rules and members are left out and its interval belongs to the next ring outward that
    is not killed. The default ring cannot be killed, nor deny anybody; it is where everybody ends. What services have
    ``alike`` is one.

    Raises as ``Snapshot`` does.
    """
    alike = Alike() if alike is None else alike
    decisions = _Decisions(spec.rings)
    last = len(spec.rings) - 1
    killed = set(spec.killed) - {spec.rings[last].name}
    open_rings = [i for i, ring in enumerate(spec.rings) if ring.name not in killed]
    lands_in = [next(j for j in open_rings if j >= i) for i in range(last + 1)]
    landings = {ring.name: place for ring, place in zip(spec.rings, lands_in, strict=True)}
    salt = alike.one(spec.salt.encode())
    rules: list[tuple[ConditionSpec, Decision]] = []
    rules_by_ring: list[tuple[int, RuleIndex[Decision]]] = []
    memberships: dict[UserKey, list[Decision]] = {}
    lists: list[tuple[Decision, Lookup]] = []
    denies = any(spec.rings[i].denied for i in open_rings[:-1])
    for i in open_rings:
        ring = spec.rings[i]
        for name in ring.members:
            memberships.setdefault(UserKey(name.encode()), []).append(decisions.of(i, Reason.MEMBER))
        lists += [(decisions.of(i, Reason.MEMBER), tables(path)) for path in ring.tables]
        own = [(rule, decisions.of(i, Reason.RULE)) for rule in ring.rules]
        rules += own
        if denies and own:
            rules_by_ring.append((i, RuleIndex(own, tables, SHARE_SALT + salt)))
    by_hash = tuple(decisions.of(i, Reason.DEFAULT if i == last else Reason.HASH) for i in lands_in)
    default = decisions.of(last, Reason.DEFAULT)
    denied = tuple(
        (i, RuleIndex([(one, True) for one in spec.rings[i].denied], tables, DENIED_SALT + salt))
        for i in open_rings[:-1]
        if spec.rings[i].denied
    )

    anonymous = next((one for one in spec.identity if one.kind == "anonymous_cookie"), None)
    signer = None
    if anonymous is not None and anonymous.cookie is not None and anonymous.cookie.is_signed:
        signer = CookieSigner(trust.keys, anonymous.name.encode())
    sources = identity_order(spec)
    plain = [plain_source(source, signer) for source in sources]
    leading = plain.index(None) if None in plain else len(plain)
    has_two = anonymous is not None and len(spec.identity) > 1 and spec.login != "user_wins"
    conditions = _conditions(spec)
    needs = _needs(spec, conditions)
    overrides = {name: decisions.of(place, Reason.OVERRIDE) for name, place in landings.items()}
    propagated = {name: decisions.of(place, Reason.PROPAGATED) for name, place in landings.items()}
    astray = decisions.of(last, Reason.PROPAGATED)
    holdbacks: dict[int, Holdback] = {}
    for i in open_rings[:-1]:
        if spec.rings[i].holdback:
            holdbacks |= decisions.holdbacks(i, lands_in[i + 1], salt)
    return Service(
        index=index,
        spec=spec,
        salt=salt,
        identity=alike.one(tuple(source for source in plain[:leading] if source is not None)),
        finders=tuple(finder_of(source, signer) for source in sources[leading:]),
        needs=needs,
        has_to_gather=bool(needs - {"client"}),
        anonymous_cookie=anonymous.name.encode() if anonymous is not None else None,
        signer=signer,
        rules=_rules(rules, tables, salt, alike),
        members={key: ones[0] for key, ones in memberships.items()} if memberships else _NOBODY,
        bounds=alike.one(tuple(accumulate(ring.basis_points for ring in spec.rings[:last]))),
        by_hash=alike.one(by_hash),
        default=default,
        overrides=overrides,
        propagated=propagated,
        astray=astray,
        is_intricate=bool(denies or lists or has_two or holdbacks or any(asks_for_keys(one) for one in conditions)),
        find_anonymous=finder_of(anonymous, signer) if anonymous is not None and has_two else None,
        takes_outer=spec.login == "outer_wins",
        tables=tuple(lists),
        denied=denied,
        memberships={key: tuple(ones) for key, ones in memberships.items() if denies and len(ones) > 1},
        rules_by_ring=tuple(rules_by_ring),
        alike=alike,
        holdbacks=holdbacks,
        decisions=decisions.all(),
    )


def _rules(
    rules: list[tuple[ConditionSpec, Decision]], tables: Tables, salt: bytes, alike: Alike
) -> RuleIndex[Decision]:
    """Equal rules that lead to equal decisions are one index."""
    key = (RuleIndex, salt, tuple(rules))
    known: RuleIndex[Decision] | None = alike.find(key)
    return alike.keep(key, RuleIndex(rules, tables, SHARE_SALT + salt)) if known is None else known


def identity_order(spec: ServiceSpec) -> tuple[IdentitySpec, ...]:
    """The sources in the order in which they are asked: the user's own keys before the anonymous cookie.

    Only with ``user_wins`` the first hit wins as the config says.
    """
    if spec.login == "user_wins":
        return spec.identity
    return tuple(sorted(spec.identity, key=lambda source: source.kind == "anonymous_cookie"))


def _needs(spec: ServiceSpec, conditions: list[ConditionSpec]) -> frozenset[str]:
    needs = {need for condition in conditions for need in condition_needs(condition)}
    kinds = {source.kind for source in spec.identity}
    needs |= kinds & {"query", "client", "certificate"}
    if "claim" in kinds:
        needs.add("claims")
    return frozenset(needs)


def default_basis_points(spec: ServiceSpec) -> int:
    """What the default ring keeps: the hash space less every other ring's weight."""
    return BUCKETS - sum(ring.basis_points for ring in spec.rings[:-1])


def outward(spec: ServiceSpec, ring: str) -> tuple[str, ...]:
    """The versions that a ring's users fall back on, the nearest first: those of the rings further out.

    None for a ring that does not fall outward. A killed ring's version is no refuge.
    """
    at = next(i for i, one in enumerate(spec.rings) if one.name == ring)
    if not spec.rings[at].falls_outward:
        return ()
    own = spec.rings[at].version
    last = spec.rings[-1].name
    found = [one.version for one in spec.rings[at + 1 :] if one.name not in spec.killed or one.name == last]
    return tuple(dict.fromkeys(version for version in found if version != own))
