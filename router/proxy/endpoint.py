"""One address of a version, and the connections that rest there for the next request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.core.spec import ClientTlsSpec, EndpointSpec
from router.core.standing import USABLE, Standing
from router.telemetry.counters import EndpointCounters

if TYPE_CHECKING:
    from router.proxy.pool import VersionPool
    from router.proxy.upstream import Upstream


Target = tuple[str, ClientTlsSpec | None, str]
"""What a connection leads to: address, how it is spoken to, and whom the certificate has to name."""


def target(spec: EndpointSpec) -> Target:
    """Endpoints with the same one share their idle connections, whatever their weights."""
    return spec.address, spec.tls, spec.name if spec.tls is not None else ""


class Reserve:
    """The idle connections to one address, last in, first out; shared by all services and versions that have it there.

    A connection belongs to nobody between two requests, and a thousand services in front of one backend need no more of
    them than one does. Lending and taking back cost the same however many there are.
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

    def borrow_silent(self) -> Upstream | None:
        """Like ``borrow``, for a request that cannot be sent twice: the kernel is asked whether the backend has left.

        Its farewell may wait there, unread, when the request comes; two microseconds then save a 502.
        """
        while (upstream := self.borrow()) is not None:
            if not upstream.has_news():
                return upstream
            upstream.close()
        return None

    def close(self) -> None:
        """No snapshot names this address any more: close what is idle, let what is in use finish."""
        self.is_closed = True
        idle, self.idle = self.idle, []
        for upstream in idle:
            upstream.close()


class Endpoint:
    """One address of one version of one service."""

    __slots__ = (
        "active", "address", "begun", "connect_timeouts", "counters", "ejections", "errors", "failed_answers",
        "has_moved", "heir", "is_down", "is_drained", "is_probed", "is_retired", "pool", "reserve", "seen_begun",
        "seen_failed", "spec", "standing", "told", "until", "weight",
    )  # fmt: skip

    def __init__(self, spec: EndpointSpec, counters: EndpointCounters, reserve: Reserve, pool: VersionPool) -> None:
        self.spec = spec
        self.address = spec.address.encode()
        self.counters = counters
        self.reserve = reserve
        self.pool = pool
        self.weight = spec.weight
        self.active = 0
        """Requests in flight, and connections that are being made for one."""
        self.begun = 0
        self.errors = 0
        """In a row."""
        self.failed_answers = 0
        self.seen_begun = 0
        self.seen_failed = 0
        """What ``begun`` and ``failed_answers`` were when siblings were last compared."""
        self.connect_timeouts = 0
        """In a row."""
        self.ejections = 0
        """Lately: fewer again the longer it is well."""
        self.standing = Standing.WELL
        self.until = 0.0
        """When this standing may end by itself, on the monotonic clock."""
        self.is_down = False
        self.is_drained = False
        self.is_probed = False
        """Whether a background connection is on its way."""
        self.is_retired = False
        self.has_moved = True
        """Whether its counters are others than control was told last."""
        self.heir: Endpoint | None = None
        """Who has its place and its counters, since it is spoken to in another way."""
        self.told = self.standing
        """The standing that control was told last."""

    def __repr__(self) -> str:
        return f"<Endpoint {self.spec.address} {self.word} active={self.active} idle={len(self.reserve.idle)}>"

    @property
    def is_usable(self) -> bool:
        """Whether it takes requests while it has siblings."""
        return not self.is_drained and not self.is_down and self.weight > 0 and self.standing in USABLE

    @property
    def word(self) -> str:
        """How it is, in the words of ``ring-router backends``."""
        if self.is_drained or self.weight == 0:
            return "drained"
        return "down" if self.is_down else self.standing.value

    def moved(self) -> None:
        """Its counters are about to be others than control was told."""
        self.has_moved = True
        if self.heir is not None:
            self.heir.moved()

    def failed(self, kind: str) -> None:
        self.moved()
        self.counters.failures[kind] = self.counters.failures.get(kind, 0) + 1
