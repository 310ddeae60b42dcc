"""WebSockets and event streams when the routing changes: whose user is in another ring now, or gets another version.

Each one that is open is decided anew with the request it began with, the longest not looked at first, in slices that
the loop's other work goes between. What a change means for it is said by the ring it is in so far: it is kept, told to
come back after a while, or at once. It must never end one whose user stays where they are.
"""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from router.core.decide import decide, identify
from router.core.snapshot import Reason, Service, Snapshot
from router.core.spec import RingSpec
from router.proxy.heads import RequestHead, ResponseHead, value_of, values
from router.proxy.wheel import NEVER

if TYPE_CHECKING:
    from router.proxy.exchange import Exchange
    from router.proxy.plane import DataPlane

SLICE_SECONDS: Final = 0.001
"""Of one slice: what everybody else waits for. Deciding takes some 3 µs, a farewell some 100 µs."""
_OFF_THE_WHEEL: Final = -2


def is_event_stream(head: ResponseHead) -> bool:
    """Whether a response goes on until somebody ends it (WHATWG HTML §9.2). Not for the warm path."""
    kind = value_of(head.lines, b"content-type").partition(b";")[0]
    return kind.strip(b" \t").lower() == b"text/event-stream"


class Lasting:
    """An open WebSocket or event stream, and what it was decided by."""

    __slots__ = ("deadline", "exchange", "generation", "head", "looked_at", "ring", "service", "slot", "version")

    def __init__(self, exchange: Exchange, head: RequestHead) -> None:
        lane = exchange.lane
        self.exchange = exchange
        self.head = head
        self.service = lane.service
        self.ring = lane.ring
        self.version = "" if lane.reason == Reason.FALLBACK.value else lane.version
        """The one that its ring was decided to have; empty until that is known, of users who fell outward."""
        self.generation = -1
        """Of the snapshot that it was decided by last."""
        self.deadline = NEVER
        self.slot = _OFF_THE_WHEEL
        self.looked_at = NEVER

    def __repr__(self) -> str:
        return f"<Lasting {self.service} {self.ring} {self.version or 'fallen'}>"

    def on_deadline(self, now: float) -> None:
        """Its time to drain is over."""
        self.exchange.come_back()


class Changes:
    """All that are open in a worker, the one whose last decision is the oldest first."""

    __slots__ = ("_is_walking", "_open", "_plane", "_wanted", "slice_seconds")

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._open: OrderedDict[Lasting, None] = OrderedDict()
        self.slice_seconds = SLICE_SECONDS
        self._is_walking = False
        self._wanted: set[bytes] = set()
        """Names of fields that snapshots ask for and earlier ones did not, until everybody was looked at."""

    def __len__(self) -> int:
        return len(self._open)

    def watch(self, exchange: Exchange) -> None:
        """A WebSocket or an event stream has begun. The routing may have changed since its request came."""
        head = exchange.request
        if head is not None and not exchange.is_finished:
            lasting = exchange.lasting = Lasting(exchange, head)
            self._open[lasting] = None
            self._decide(lasting)

    def forget(self, lasting: Lasting) -> None:
        """It is over."""
        self._open.pop(lasting, None)
        self._keep(lasting)

    def installed(self, before: Snapshot | None, after: Snapshot) -> None:
        """Another snapshot is in force. One that comes during a walk is walked by: it goes on with the oldest."""
        if not self._open:
            self._wanted.clear()
            return
        if before is not None:
            self._wanted |= after.wanted_headers - before.wanted_headers
        if not self._is_walking:
            self._is_walking = True
            self._plane.loop.call_soon(self._walk)

    def _walk(self) -> None:
        """A slice of them."""
        ends = monotonic() + self.slice_seconds
        snapshot = self._plane.snapshot
        while self._open and snapshot is not None:
            lasting = next(iter(self._open))
            if lasting.generation == snapshot.generation:
                break
            self._open.move_to_end(lasting)
            self._decide(lasting)
            if monotonic() >= ends:
                self._plane.loop.call_soon(self._walk)
                return
        self._is_walking = False
        self._wanted.clear()

    def _decide(self, lasting: Lasting) -> None:
        snapshot = self._plane.snapshot
        if snapshot is None:
            return
        lasting.generation = snapshot.generation
        head = lasting.head
        service = snapshot.find(head.host, head.path)
        if service is None or service.spec.name != lasting.service:
            lasting.exchange.come_back()
            return
        ring = _ring(service, lasting.ring)
        if ring is None:
            lasting.exchange.come_back()
        elif self._stays(lasting, service) or ring.on_change == "keep":
            self._keep(lasting)
        elif ring.on_change == "drain" and ring.change_drain > 0:
            self._drain(lasting, ring.change_drain)
        else:
            lasting.exchange.come_back()

    def _stays(self, lasting: Lasting, service: Service) -> bool:
        """Whether its user would get ring and version once more."""
        head, exchange = lasting.head, lasting.exchange
        for name in self._wanted:
            said = [value for value in values(head.lines, name) if b"\r\n" not in value]  # not those put in here
            if said and name not in head.headers:
                head.headers[name] = b", ".join(said)
        head.now = time()
        key = identify(service, head)
        if key is None and exchange.minted:
            key = exchange.key
        decision = decide(service, head, key)
        if decision.ring != lasting.ring:
            return False
        if not lasting.version:
            lasting.version = decision.version
        return decision.version == lasting.version or decision.version == exchange.lane.version

    def _keep(self, lasting: Lasting) -> None:
        if lasting.slot != _OFF_THE_WHEEL:
            self._plane.wheel.remove(lasting)
            lasting.slot = _OFF_THE_WHEEL
        lasting.deadline = NEVER

    def _drain(self, lasting: Lasting, seconds: float) -> None:
        """It has this long; not longer because of another change meanwhile."""
        due = monotonic() + seconds
        if due < lasting.deadline:
            lasting.deadline = due
            self._plane.wheel.sooner(lasting)


def _ring(service: Service, name: str) -> RingSpec | None:
    """The ring of this name, if there is one that somebody may be in."""
    spec = service.spec
    for ring in spec.rings:
        if ring.name == name:
            return None if name in spec.killed and ring is not spec.rings[-1] else ring
    return None
