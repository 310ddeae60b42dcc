"""The endpoints of a version: which one takes a request, and whether the version is well enough to get any.

Whatever can be worked out when an endpoint's standing changes is worked out then, in ``refresh``; a request looks at
ready-made turns. Time and chance are arguments.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from router.core.shares import affinity, points, turns, units
from router.core.spec import ConnectionsSpec, ServiceSpec
from router.core.standing import TRANSITIONS, Event, Standing
from router.proxy.attempts import leave_queue
from router.proxy.breaker import Breaker
from router.proxy.budget import Budget
from router.proxy.endpoint import Endpoint
from router.proxy.wheel import NEVER
from router.telemetry.counters import VersionCounters

if TYPE_CHECKING:
    from router.proxy.exchange import Exchange

Choose = Callable[[int], int]
"""A random int below the given one."""
TRIES: Final = 4
"""Of finding an endpoint by its turn that has room and is warm, before all are looked at."""
WALK: Final = 64
"""Points on the ring that a user goes on for an endpoint that is usable."""
FORGIVEN_SECONDS: Final = 60.0
"""Of being well, for one ejection."""
CONNECT_TIMEOUTS: Final = 2
"""In a row make an endpoint unreachable; a refusal does at once."""
COMPARED_SECONDS: Final = 10.0
COMPARED_REQUESTS: Final = 50
MUCH_WORSE: Final = 4.0
BAD_SHARE: Final = 0.1
"""An endpoint that fails a tenth of its requests, and four times as often as its siblings, is ejected."""


class VersionPool:
    """One version of one service in this worker. What every request comes to stands first: see ``Service``."""

    __slots__ = (
        "_affine", "_balance", "_compared_at", "_endpoint_cap", "_in_flight_cap", "_indexes", "_is_special", "_now",
        "_on_room", "_on_trouble", "_outliers", "_owners", "_points", "_queue", "_return_after", "_ring", "_turn",
        "_turns", "between_bytes", "begun", "breaker", "budget", "connect_timeout", "connections", "copies",
        "counters", "endpoints", "first_byte", "in_flight", "is_limited", "is_waited_for", "is_well", "key",
        "queue_seconds", "retries", "usable", "waiting", "waits", "well_at",
    )  # fmt: skip

    def __init__(
        self,
        key: tuple[str, str],
        counters: VersionCounters,
        on_trouble: Callable[[VersionPool], None],
        on_room: Callable[[VersionPool], None],
    ) -> None:
        self._is_special = False
        self.is_limited = False
        self.is_waited_for = False
        """Whether anybody is in ``waiting``: known here, where each request looks, and not only there."""
        self.is_well = True
        """Whether rings send their users here; falls at once, rises when it has been well for a while."""
        self.begun = 0
        """Requests that came."""
        self.in_flight = 0
        self._turns: tuple[Endpoint, ...] = ()
        self.usable: tuple[Endpoint, ...] = ()
        self.waits = NEVER
        """For the head of a response, until something has to be done."""
        self.connections = ConnectionsSpec()
        """Set by whoever makes the pool (``Pools``): most services have the same."""
        self.key = key
        """Service and version."""
        self.counters = counters
        self._on_trouble = on_trouble
        """Called when there may be something to wait for: see ``tend``."""
        self._on_room = on_room
        """Called when one of those who wait may go on: see ``wake``."""
        self.endpoints: tuple[Endpoint, ...] = ()
        self.well_at = 0.0
        """When it may be called well again; NEVER while nothing is usable."""
        self.copies = 0
        """Mirrored requests on their way here; snapshots come and go meanwhile."""
        self.waiting: OrderedDict[Exchange, None] = OrderedDict()
        """Whoever waits longest comes first; who leaves is taken out at once, wherever it stands."""
        self._turn = 0
        self._points: list[int] = []
        self._indexes: list[int] = []
        self._owners: list[Endpoint] = []
        self._ring: list[tuple[bytes, int]] = []
        """Addresses and weights that the points are of."""
        self._compared_at = 0.0
        self._now = 0.0
        """When time was last let pass."""

    def __repr__(self) -> str:
        service, version = self.key
        return f"<VersionPool {service} {version} well={self.is_well} usable={len(self.usable)}/{len(self.endpoints)}>"

    def update(self, endpoints: tuple[Endpoint, ...], spec: ServiceSpec, workers: int, now: float) -> None:
        """Endpoints and rules of a new snapshot."""
        is_first = not self.endpoints
        for endpoint in self.endpoints:
            endpoint.is_retired = True
        for endpoint in endpoints:
            endpoint.is_retired = False
        self.endpoints = endpoints
        timeouts, retries, overload = spec.timeouts, spec.retries, spec.overload
        self.connect_timeout = timeouts.connect
        self.first_byte = timeouts.first_byte
        self.between_bytes = timeouts.between_bytes
        self.waits = min(timeouts.first_byte, retries.per_try or NEVER)
        self.retries = retries
        self._outliers = spec.outliers
        self._balance = spec.balance
        self._return_after = spec.return_after
        self._in_flight_cap = -(-overload.in_flight // workers)
        self._endpoint_cap = -(-overload.endpoint_in_flight // workers)
        self.is_limited = self._in_flight_cap > 0 or self._endpoint_cap > 0
        self._queue = overload.queue
        self.queue_seconds = overload.queue_seconds
        self._affine = spec.balance.kind == "affinity"
        if is_first:
            self.breaker, self.budget = Breaker(spec.breaker), Budget(retries.budget_basis_points)
        else:
            self.breaker.spec = spec.breaker
            self.budget.share = retries.budget_basis_points / 10_000
        if self._affine:
            ring = [(endpoint.address, max(1, endpoint.weight)) for endpoint in endpoints]
            if ring != self._ring:  # a snapshot seldom changes it, and it is thousands of hashes
                self._points, self._indexes = points([name for name, _ in ring], [weight for _, weight in ring])
                self._ring = ring
            self._owners = [endpoints[index] for index in self._indexes]
        self.refresh(now)
        if is_first and self.usable:
            self.is_well, self.well_at = True, 0.0
        self.made_room()  # limits may have changed

    # -- the choice ----------------------------------------------------------------------------------------------------

    def pick(self, choose: Choose, key: bytes | None) -> Endpoint | None:
        """Where a request goes: by default the less busy of two random endpoints (Mitzenmacher 2001).

        None when there is nowhere, or nowhere with room (``is_limited``). ``key`` is the user's, for affinity.
        """
        if self._is_special:
            return self._special(choose, key)
        ready = self._turns
        count = len(ready)
        if count > 1:
            first = choose(count)
            one, other = ready[first], ready[(first + 1 + choose(count - 1)) % count]
            return one if one.active * other.weight <= other.active * one.weight else other
        return ready[0] if count else self._last_resort(choose)

    def _special(self, choose: Choose, key: bytes | None) -> Endpoint | None:
        """The same with whatever else there is to think of."""
        ready = self._turns
        count = len(ready)
        if not count:
            return self._last_resort(choose)
        if self._affine and key is not None:
            at = bisect_left(self._points, affinity(key))
            for step in range(WALK):
                endpoint = self._owners[(at + step) % len(self._owners)]
                if endpoint.is_usable and self._has_room(endpoint):
                    return endpoint
        for _ in range(TRIES):
            if self._balance.kind == "round_robin":
                self._turn = (self._turn + 1) % count
                endpoint = ready[self._turn]
            else:
                endpoint, other = ready[choose(count)], ready[choose(count)]
                if other.active * endpoint.weight < endpoint.active * other.weight:
                    endpoint = other
            if self._has_room(endpoint) and (
                endpoint.standing is not Standing.WARMING or choose(1000) < self._warmth(endpoint)
            ):
                return endpoint
        left = [endpoint for endpoint in self.usable if self._has_room(endpoint)]
        left = [endpoint for endpoint in left if endpoint.standing is not Standing.WARMING] or left
        return left[choose(len(left))] if left else None

    def _has_room(self, endpoint: Endpoint) -> bool:
        return not self._endpoint_cap or endpoint.active < self._endpoint_cap

    def _warmth(self, endpoint: Endpoint) -> int:
        """Its part of a full share, in thousandths; at least a tenth, or it would never warm up."""
        if self._balance.slow_start <= 0:  # a new snapshot says so
            return 1000
        left = endpoint.until - self._now
        return max(100, int(1000 * (1 - left / self._balance.slow_start)))

    def _last_resort(self, choose: Choose) -> Endpoint | None:
        """Nothing is usable: rather one that may be wrongly accused than none; a drained one never.

        One that cannot be reached is found out about in the background: a user only goes where a connection is left.
        """
        left = [e for e in self._resorts() if self._has_room(e)]
        return left[choose(len(left))] if left else None

    def _resorts(self) -> list[Endpoint]:
        left = [e for e in self.endpoints if not e.is_drained and e.weight > 0]
        reached = [e for e in left if e.standing is not Standing.UNREACHABLE]
        return reached or [e for e in left if e.reserve.idle]

    @property
    def rank(self) -> int:
        """How far it can be relied on when no version is well: 2 with a usable endpoint, 1 with a last resort, or 0."""
        return 2 if self.usable else 1 if self._resorts() else 0

    def other(self, choose: Choose, tried: list[Endpoint]) -> Endpoint | None:
        """Another one than those that have failed a request."""
        left = [e for e in self.usable if e not in tried and self._has_room(e)]
        return left[choose(len(left))] if left else None

    # -- too much to do ------------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        return self.is_waited_for or 0 < self._in_flight_cap <= self.in_flight

    def queue(self, exchange: Exchange) -> bool:
        """Let a request wait for its turn; False when too many do."""
        if len(self.waiting) >= self._queue:
            return False
        self.waiting[exchange] = None
        self.is_waited_for = True
        return True

    def leave_queue(self, exchange: Exchange) -> None:
        """It does not wait any more: its time is up, or its client has left."""
        self.waiting.pop(exchange, None)
        self.is_waited_for = bool(self.waiting)

    def made_room(self) -> None:
        """A request or an attempt to connect has ended."""
        if self.is_waited_for:
            self._on_room(self)

    def wake(self, choose: Choose) -> None:
        """Something has ended: whoever waits longest goes on; everybody does when there is nothing to wait for."""
        while self.waiting and (not self.usable or not 0 < self._in_flight_cap <= self.in_flight):
            exchange = next(iter(self.waiting))
            endpoint = self.pick(choose, exchange.key) if self.usable else None
            if endpoint is None and self.usable:
                return
            self.leave_queue(exchange)
            leave_queue(exchange, endpoint)

    # -- how it is -----------------------------------------------------------------------------------------------------

    def happened(self, endpoint: Endpoint, event: Event, now: float) -> None:
        """Something was learned of an endpoint."""
        before = endpoint.standing
        standing = endpoint.standing = TRANSITIONS[before, event]
        if standing is before:
            return
        if standing is Standing.EJECTED:
            endpoint.ejections += 1
            endpoint.until = now + min(self._outliers.ejection * endpoint.ejections, self._outliers.max_ejection)
        elif standing is Standing.WARMING:
            if self._balance.slow_start > 0:
                endpoint.until = now + self._balance.slow_start
            else:
                endpoint.standing = Standing.WELL
        if endpoint.standing is Standing.WELL:
            endpoint.until = now + FORGIVEN_SECONDS
        if standing is Standing.EJECTED or standing is Standing.UNREACHABLE:
            endpoint.moved()
            kinds = endpoint.counters.ejections
            kinds[event.value] = kinds.get(event.value, 0) + 1
        endpoint.errors = endpoint.connect_timeouts = 0
        self.refresh(now)
        self.made_room()  # it may be back, or have been the last one to wait for

    def connect_failed(self, endpoint: Endpoint, now: float, *, is_timeout: bool) -> None:
        """A connection could not be made."""
        if is_timeout:
            endpoint.connect_timeouts += 1
            if endpoint.connect_timeouts < CONNECT_TIMEOUTS:
                return
        self.happened(endpoint, Event.CONNECT_FAILED, now)

    def strike(self, endpoint: Endpoint, now: float) -> None:
        """An endpoint has answered with an error, or not to the end: enough of that, and it is left alone."""
        endpoint.errors += 1
        endpoint.failed_answers += 1
        limit = self._outliers.consecutive_errors
        if 0 < limit <= endpoint.errors or self._is_much_worse(endpoint, now):
            self._eject(endpoint, now)

    def _eject(self, endpoint: Endpoint, now: float) -> None:
        # Of those that could serve: one whose sibling is drained or dead is the last one left.
        able = [
            e
            for e in self.endpoints
            if e.weight > 0 and not e.is_down and not e.is_drained and e.standing is not Standing.UNREACHABLE
        ]
        ejected = sum(1 for e in able if e.standing is Standing.EJECTED)
        if (ejected + 1) * 10_000 <= self._outliers.max_ejected_basis_points * len(able):
            self.happened(endpoint, Event.OUTLIER, now)

    def _is_much_worse(self, endpoint: Endpoint, now: float) -> bool:
        """Whether it fails far more often than its siblings; looked at when enough is known to compare."""
        if not self._outliers.success_rate or now - self._compared_at < COMPARED_SECONDS:
            return False
        begun = endpoint.begun - endpoint.seen_begun
        share = (endpoint.failed_answers - endpoint.seen_failed) / max(1, begun)
        siblings = [e for e in self.endpoints if e is not endpoint]
        others = sum(e.begun - e.seen_begun for e in siblings)
        failed = sum(e.failed_answers - e.seen_failed for e in siblings)
        is_worse = (
            begun >= COMPARED_REQUESTS
            and others >= COMPARED_REQUESTS
            and share >= BAD_SHARE
            and share >= MUCH_WORSE * failed / others
        )
        self._compared_at = now
        for one in self.endpoints:
            one.seen_begun, one.seen_failed = one.begun, one.failed_answers
        return is_worse

    def refresh(self, now: float) -> None:
        """Work out who takes requests, and whether the version is well."""
        usable = tuple(endpoint for endpoint in self.endpoints if endpoint.is_usable)
        self.usable = usable
        weights = [endpoint.weight for endpoint in usable]
        in_turn = self._balance.kind == "round_robin"
        if in_turn and usable:
            self._turns = tuple([usable[index] for index in turns(weights)])
        else:  # for a choice by chance their order is all the same, and turns take long to spread
            shares = zip(usable, units(weights), strict=True)
            self._turns = tuple([one for one, count in shares for _ in range(count)])
        warming = sum(1 for endpoint in usable if endpoint.standing is Standing.WARMING)
        is_warming = 0 < warming < len(usable)  # where all are, nobody could take what they leave
        self._is_special = self._affine or in_turn or self._endpoint_cap > 0 or is_warming
        if not usable:
            self.is_well, self.well_at = False, NEVER
        elif self.well_at == NEVER:
            self.well_at = now + self._return_after
        self._on_trouble(self)

    def failing(self, now: float) -> float:
        """The part of its requests that failed lately, 0 … 1."""
        return self.breaker.share(self.begun, now)

    def trip(self, now: float) -> None:
        """The breaker has opened: users fall outward until it has been given another chance."""
        self.is_well = False
        self.breaker.open(now)
        self.counters.trips += 1
        self._on_trouble(self)

    def retire(self) -> None:
        """No snapshot has this version any more; what is in flight finishes."""
        for endpoint in self.endpoints:
            endpoint.is_retired = True
        self.endpoints = ()  # the usable ones stay: somebody may wait for them
        self.counters.sick = self.counters.open = self.counters.waiting = 0

    def count(self) -> None:
        """Set the gauges."""
        counters = self.counters
        counters.waiting = len(self.waiting)
        counters.sick = 0 if self.is_well else 1
        counters.open = 1 if not self.is_well and self.breaker.until > self._now else 0

    def tend(self, now: float) -> bool:
        """Let time pass; whether there is still something to wait for. Called ten times a second while there is."""
        is_troubled = False
        self._now = now
        if not self.endpoints:  # retired: nobody waits for it to be well
            return False
        for endpoint in self.endpoints:
            standing = endpoint.standing
            if standing is Standing.EJECTED or standing is Standing.WARMING:
                is_troubled = True
                if endpoint.until <= now:
                    self.happened(endpoint, Event.TIME_OVER, now)
            elif standing is Standing.UNREACHABLE:
                is_troubled = True
            elif endpoint.ejections:
                is_troubled = True
                if endpoint.until <= now:
                    endpoint.ejections -= 1
                    endpoint.until = now + FORGIVEN_SECONDS
        if not self.is_well:
            is_troubled = True
            if self.usable and self.well_at <= now and self.breaker.until <= now:
                self.is_well, self.well_at = True, 0.0
        return is_troubled
