"""The compiled routing state: immutable, one generation, made once per change and looked at once per request.

Whatever can be worked out when the snapshot changes is worked out here: kills are folded into the intervals, rules are
closures, decisions are ready-made objects. ``Snapshot.find`` costs the same for one service as for a thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

from router.core.hashing import BUCKETS, UserKey
from router.core.rules import RuleIndex, condition_headers
from router.core.spec import ConditionSpec, IdentitySpec, ServiceSpec, SnapshotSpec


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
    """Ring, version and reason. ``index`` numbers the decisions of one service, so that a shell can keep a table."""

    index: int
    ring: str
    version: str
    reason: Reason


class IdentitySource(NamedTuple):
    """Where to look for a key. ``name`` is a lower-case header name, or a cookie's name."""

    is_header: bool
    name: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """One application, compiled. ``bounds[i]`` is the first bucket past ring i's interval; see ``by_hash``."""

    index: int
    spec: ServiceSpec
    salt: bytes
    identity: tuple[IdentitySource, ...]
    anonymous_cookie: bytes | None
    rules: RuleIndex[Decision]
    members: Mapping[UserKey, Decision]
    bounds: tuple[int, ...]
    by_hash: tuple[Decision, ...]
    default: Decision
    decisions: tuple[Decision, ...]

    def __repr__(self) -> str:
        return f"<Service {self.spec.name} rings={len(self.spec.rings)} bounds={self.bounds}>"


class Snapshot:
    """All services, and the road from a host and a path to one of them."""

    __slots__ = (
        "_anywhere", "_deepest", "_elsewhere", "_exact", "_whole", "_wildcard", "generation", "services", "spec",
        "wanted_headers",
    )  # fmt: skip

    def __init__(self, spec: SnapshotSpec) -> None:
        self.spec = spec
        self.generation = spec.generation
        self.services = tuple(compile_service(s, i) for i, s in enumerate(spec.services))
        self.wanted_headers = frozenset(name for s in self.services for name in _wanted(s))
        self._exact: dict[bytes, dict[bytes, Service]] = {}
        self._wildcard: dict[bytes, dict[bytes, Service]] = {}
        self._anywhere: dict[bytes, Service] = {}
        for service in self.services:
            tables = [self._table(host) for host in service.spec.hosts] or [self._anywhere]
            for table in tables:
                for path in service.spec.paths or ("/",):
                    table.setdefault(path.rstrip("/").encode(), service)
        tables = [*self._exact.values(), *self._wildcard.values(), self._anywhere]
        self._deepest = max((len(path) for table in tables for path in table), default=0)
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


def _wanted(service: Service) -> set[bytes]:
    names = {source.name for source in service.identity if source.is_header}
    for ring in service.spec.rings:
        for rule in ring.rules:
            names |= condition_headers(rule)
    return names


def compile_service(spec: ServiceSpec, index: int = 0) -> Service:
    """Fold weights, kills, rules and members of one service into lookup tables.

    A killed ring has nobody: its rules and members are left out and its interval belongs to the next ring outward that
    is not killed. The default ring cannot be killed; it is where everybody ends.
    """
    decisions: list[Decision] = []

    def decision(ring: int, reason: Reason) -> Decision:
        chosen = spec.rings[ring]
        for known in decisions:
            if (known.ring, known.reason) == (chosen.name, reason):
                return known
        decisions.append(Decision(len(decisions), chosen.name, chosen.version, reason))
        return decisions[-1]

    last = len(spec.rings) - 1
    killed = set(spec.killed) - {spec.rings[last].name}
    open_rings = [i for i, ring in enumerate(spec.rings) if ring.name not in killed]
    rules: list[tuple[ConditionSpec, Decision]] = []
    members: dict[UserKey, Decision] = {}
    for i in open_rings:
        ring = spec.rings[i]
        for name in ring.members:
            members.setdefault(UserKey(name.encode()), decision(i, Reason.MEMBER))
        rules.extend((rule, decision(i, Reason.RULE)) for rule in ring.rules)

    bounds = tuple(accumulate(ring.basis_points for ring in spec.rings[:last]))
    by_hash = []
    for i in range(last + 1):
        outward = next(j for j in open_rings if j >= i)
        by_hash.append(decision(outward, Reason.DEFAULT if outward == last else Reason.HASH))
    return Service(
        index=index,
        spec=spec,
        salt=spec.salt.encode(),
        identity=tuple(_source(s) for s in spec.identity),
        anonymous_cookie=next((s.name.encode() for s in spec.identity if s.kind == "anonymous_cookie"), None),
        rules=RuleIndex(rules),
        members=members,
        bounds=bounds,
        by_hash=tuple(by_hash),
        default=decision(last, Reason.DEFAULT),
        decisions=tuple(decisions),
    )


def _source(spec: IdentitySpec) -> IdentitySource:
    if spec.kind == "header":
        return IdentitySource(True, spec.name.lower().encode())
    return IdentitySource(False, spec.name.encode())


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
