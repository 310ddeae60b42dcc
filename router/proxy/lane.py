"""Everything a request needs once its decision is made, ready as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.core.snapshot import Decision, Reason, Service
from router.core.spec import ListenerSpec
from router.proxy.pool import VersionPool
from router.telemetry.log_forms import Decided
from router.telemetry.meters import RingMeter

if TYPE_CHECKING:
    from router.proxy.mirror import Mirror
    from router.proxy.plane import DataPlane
    from router.proxy.witness import Arm

_VIA: Final = b"\r\nVia: 1.1 ring-router"
_OLD_VIA: Final = b"\r\nVia: 1.0 ring-router"
MIRROR_LINE: Final = b"\r\nX-Ring-Mirror: 1"


class Lane(Decided):
    """One per decision of a service; and of a ring and a version for those who fall outward, made when needed.

    What every request comes to stands first: see ``Service``.
    """

    __slots__ = (
        "body_bytes", "decided", "error_pages", "head_lines", "host", "is_closed", "member", "meter",
        "mirror", "number", "old_head_lines", "old_request_lines", "outer", "pool", "request_lines", "response_lines",
        "says_timing", "users",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        decision: Decision,
        pool: VersionPool,
        meter: RingMeter,
        listener: ListenerSpec,
        outer: tuple[str, ...],
        also_said: bytes = b"",
        member: bytes = b"",
    ) -> None:
        super().__init__(service.spec.name, decision.ring, decision.version, decision.reason.value)
        self.pool = pool
        self.meter = meter
        self.decided = 0
        """Requests since the last reading; ``Tally.settle`` takes them to the meter."""
        self.number = 0
        """In the journal; 0 until something is written there."""
        self.is_closed = not next(ring.falls_outward for ring in service.spec.rings if ring.name == decision.ring)
        self.says_timing = service.spec.server_timing
        self.mirror: Mirror | None = None
        self.users: Arm | None = None
        """Where its users are counted, while the service is under a rollout."""
        self.head_lines = b""
        """What is said to the backend: see ``carry``."""
        self.response_lines = b""
        """Field lines with CRLF between them and none at the end; empty if nothing is said."""
        self.outer = outer
        """Versions to fall back on, the nearest first."""
        first = pool.endpoints[0].spec
        self.host = b"localhost" if first.path else first.address.encode()
        """What a client of HTTP/1.0 that names no host is taken to have asked for."""
        limit = service.spec.body_bytes
        self.body_bytes = listener.limits.body_bytes if limit is None else limit
        """Of a request, at the most; 0 for no limit."""
        self.error_pages = service.spec.error_pages
        said = f"X-Ring: {decision.ring}\r\nX-Ring-Version: {decision.version}".encode()
        if decision.reason is Reason.FALLBACK:
            said += b"\r\nX-Ring-Reason: fallback"
        said += also_said
        via = b"" if listener.via == "off" else _VIA
        self.request_lines = service.alike.one(said + via)
        """Field lines likewise; other versions of the ring say them otherwise."""
        self.old_request_lines = self.request_lines.replace(_VIA, _OLD_VIA)
        """The same, for what came as HTTP/1.0 (RFC 9110 §7.6.3)."""
        self.carry(member)
        lines = [said] if service.spec.response_headers else []
        if listener.via == "both":
            lines.append(_VIA.strip())
        self.response_lines = service.alike.one(b"\r\n".join(lines))

    def carry(self, member: bytes) -> None:
        """From now on requests carry this member of baggage behind the other lines; empty: none."""
        self.member = member
        self.head_lines, self.old_head_lines = self.request_lines, self.old_request_lines
        if member:
            baggage = b"\r\nbaggage: " + member
            self.head_lines += baggage
            self.old_head_lines += baggage

    def outward(self, plane: DataPlane) -> Lane:
        """The lane of the nearest version outward that is well, for those whose own is not; this one if none is.

        Where nobody at all is well, one that can answer is a refuge for those whose own version cannot.
        """
        refuge = self
        for version in self.outer:
            lane = plane.lane_outward(self, version)
            if lane is None:
                continue
            if lane.pool.is_well:
                return lane
            if lane.pool.rank > refuge.pool.rank:
                refuge = lane
        return refuge
