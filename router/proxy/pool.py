"""Connections to endpoints, kept for the next request. Lending and taking back cost the same however many there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from router.core.spec import EndpointSpec, TimeoutsSpec
from router.telemetry.counters import EndpointCounters

if TYPE_CHECKING:
    from router.proxy.upstream import Upstream

IDLE_SECONDS: Final = 4.0
"""How long an idle connection is kept: below the 5 s at which common backends close theirs, like linkerd's 3 s."""


class Reserve:
    """The idle connections to one address, last in, first out; shared by all services and versions that have it there.

    A connection belongs to nobody between two requests, and a thousand services in front of one backend need no more of
    them than one does.
    """

    __slots__ = ("idle", "is_closed")

    def __init__(self) -> None:
        self.idle: list[Upstream] = []
        self.is_closed = False

    def borrow(self) -> Upstream | None:
        """A warm connection, or None when a new one has to be made."""
        while self.idle:
            upstream = self.idle.pop()
            if not upstream.is_closed:
                return upstream
        return None

    def close(self) -> None:
        """No snapshot names this address any more: close what is idle, let what is in use finish."""
        self.is_closed = True
        idle, self.idle = self.idle, []
        for upstream in idle:
            upstream.close()


class Endpoint:
    """One address of one version of one service."""

    __slots__ = ("active", "address", "counters", "reserve", "spec")

    def __init__(self, spec: EndpointSpec, counters: EndpointCounters, reserve: Reserve) -> None:
        self.spec = spec
        self.address = spec.address.encode()
        self.counters = counters
        self.reserve = reserve
        self.active = 0

    def __repr__(self) -> str:
        return f"<Endpoint {self.spec.address} active={self.active} idle={len(self.reserve.idle)}>"

    def failed(self, kind: str) -> None:
        self.counters.failures[kind] = self.counters.failures.get(kind, 0) + 1


class VersionPool:
    """The endpoints of one version of one service."""

    __slots__ = ("between_bytes", "connect_timeout", "endpoints", "first_byte")

    def __init__(self, endpoints: tuple[Endpoint, ...], timeouts: TimeoutsSpec) -> None:
        self.endpoints = endpoints
        self.connect_timeout = timeouts.connect
        self.first_byte = timeouts.first_byte
        self.between_bytes = timeouts.between_bytes

    def pick(self, choose: Callable[[int], int], avoid: Endpoint | None = None) -> Endpoint | None:
        """The less busy of two random endpoints (Mitzenmacher 2001); ``choose(n)`` is a random int below n.

        ``avoid`` is the endpoint that just failed this request; it is taken again only if it is the only one.
        """
        endpoints = self.endpoints
        count = len(endpoints)
        if count <= 1:
            return endpoints[0] if count else None
        if avoid is not None:
            others = tuple(e for e in endpoints if e is not avoid)
            if others:
                endpoints, count = others, len(others)
        if count == 1:
            return endpoints[0]
        first = choose(count)
        second = (first + 1 + choose(count - 1)) % count
        one, other = endpoints[first], endpoints[second]
        return one if one.active <= other.active else other
