"""The snapshot as plain data: what control writes, what the channel carries, what workers compile.

Nothing here knows YAML, Redis or sockets. Weights are whole basis points (1/100 percent), names are text, and every
value has been validated before it gets here: strict at the door, trusting inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ConditionKind = Literal["header", "cookie", "all_of", "any_of"]
Comparison = Literal["equals", "prefix", "suffix", "contains", "present", "one_of"]
IdentityKind = Literal["header", "cookie", "anonymous_cookie"]


@dataclass(frozen=True, slots=True)
class ConditionSpec:
    """One node of a rule: a comparison of a header or cookie, or ``all_of`` / ``any_of`` over children."""

    kind: ConditionKind
    name: str = ""
    compare: Comparison = "present"
    values: tuple[str, ...] = ()
    inverted: bool = False
    children: tuple[ConditionSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class IdentitySpec:
    """One place to look for the user's key; the first that has one wins."""

    kind: IdentityKind
    name: str


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One address of a version. ``host`` is an IP address or a name."""

    host: str
    port: int

    @property
    def address(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """A version and where it runs."""

    name: str
    endpoints: tuple[EndpointSpec, ...]


@dataclass(frozen=True, slots=True)
class RingSpec:
    """One audience. The rules are any-of; ``basis_points`` of the default (last) ring is what the others leave."""

    name: str
    version: str
    basis_points: int = 0
    rules: tuple[ConditionSpec, ...] = ()
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TimeoutsSpec:
    """Seconds. Idle limits restart with each byte that moves."""

    connect: float = 1.0
    first_byte: float = 30.0
    between_bytes: float = 60.0


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One routed application. ``rings`` run from the inner one to the default ring, which is last."""

    name: str
    versions: tuple[VersionSpec, ...]
    rings: tuple[RingSpec, ...]
    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    salt: str = ""
    identity: tuple[IdentitySpec, ...] = ()
    killed: tuple[str, ...] = ()
    response_headers: bool = True
    timeouts: TimeoutsSpec = TimeoutsSpec()


@dataclass(frozen=True, slots=True)
class ListenerSpec:
    """What a worker needs to know about those who connect to it."""

    trusted_proxies: tuple[str, ...] = ()
    head_timeout: float = 10.0
    idle_timeout: float = 75.0
    body_timeout: float = 60.0
    drain_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class SnapshotSpec:
    """The whole routing state, swapped whole. ``generation`` only grows within one installation directory."""

    generation: int
    services: tuple[ServiceSpec, ...]
    listener: ListenerSpec = ListenerSpec()
    access_log: Literal["json", "combined", "off"] = "json"
