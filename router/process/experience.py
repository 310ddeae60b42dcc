"""What the users of each ring experience: collected once a second, added up over the fleet every ten.

Three things come of it: the history, the buckets that instances exchange, and per service an epoch, over which rings
are compared (``rollout.view``). A bucket is added to the epoch when it is over and the others had time to write it;
one in which versions or weights changed begins a new epoch and counts for none.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from router.core.snapshot import default_basis_points
from router.core.spec import ServiceSpec, SnapshotSpec
from router.rollout.view import Counts, Epoch, RingCounts, after, begin
from router.telemetry.buckets import BUCKET_SECONDS, Piece, Pieces, bucket_of, merged, put
from router.telemetry.counters import RingKey
from router.telemetry.history import History

WINDOW_BUCKETS: Final = 6
"""Beside the one that fills: 60 to 70 seconds."""
REPORT_SECONDS: Final = 1.0
"""What workers report has happened in the second before."""
CLOSED_AT_ONCE: Final = 50
"""Services whose bucket is added up in one second; with more of them, so many that all are within the seconds below."""
CLOSING_SECONDS: Final = 5
SETTLE_SECONDS: Final = 2.0
"""After a change, until everybody's reports are of what came after it."""


class Peers(Protocol):
    """The other instances (``control.fleet``)."""

    @property
    def is_there(self) -> bool: ...

    @property
    def lag_seconds(self) -> float: ...

    def peers(self, bucket: int, service: str) -> dict[str, Pieces]: ...


@dataclass(slots=True)
class _Known:
    """A service as it is routed now."""

    spec: ServiceSpec
    shares: dict[str, int]
    """Ring → basis points of the hash space that land there, kills and all."""
    changed_at: float


class Experience:
    """``second`` once a second; everything else is a look."""

    def __init__(
        self,
        take: Callable[[], Mapping[RingKey, Piece]],
        arrived: Callable[[str], Sequence[int]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``take``: what finished since the last call; ``arrived``: a service's users by ring, since its weights are as
        they are."""
        self.history = History()
        self.fleet: Peers | None = None
        self._take = take
        self._arrived = arrived
        self._clock = clock
        self._begun_at = clock()
        self._own: dict[int, dict[str, Pieces]] = {}
        self._known: dict[str, _Known] = {}
        self._sums: dict[str, dict[tuple[str, str], Counts]] = {}
        self._epochs: dict[str, Epoch] = {}
        self._closed = bucket_of(clock())
        """The last bucket that is over."""
        self._closing: deque[tuple[int, str]] = deque()
        """Buckets that are over, and the services whose counts in them are not added up yet."""

    def own(self, bucket: int) -> dict[str, Pieces]:
        """Service → what this instance counted in a bucket so far."""
        return self._own.get(bucket, {})

    def epoch(self, service: str) -> Epoch | None:
        return self._epochs.get(service)

    def installed(self, spec: SnapshotSpec) -> None:
        """A new snapshot is in force."""
        now, known = self._clock(), self._known
        self._known = {}
        for service in spec.services:
            before, shares = known.get(service.name), _shares(service)
            is_same = before is not None and (shares, _versions(service)) == (before.shares, _versions(before.spec))
            changed_at = before.changed_at if before is not None and is_same else now
            if not is_same:
                self._epochs.pop(service.name, None)
            self._known[service.name] = _Known(service, shares, changed_at)
        for gone in self._sums.keys() - self._known.keys():
            del self._sums[gone]
            self._epochs.pop(gone, None)
        self.history.keep(self._known)

    def second(self) -> None:
        """Take in what workers have reported since the last call."""
        now, came = self._clock(), self._take()
        self.history.put(now, came)
        filling = bucket_of(now - REPORT_SECONDS)
        own = self._own.setdefault(filling, {}) if came else {}
        for (service, ring, version), piece in came.items():
            put(own.setdefault(service, {}), (ring, version), piece)
        grace = REPORT_SECONDS + (self.fleet.lag_seconds if self.fleet is not None else 0.0)
        while (self._closed + 2) * BUCKET_SECONDS + grace <= now:
            self._closed = max(self._closed + 1, filling - WINDOW_BUCKETS)  # a clock that jumps has nothing in between
            self._closing.extend([(self._closed, service) for service in self._known])
        for _ in range(min(len(self._closing), max(CLOSED_AT_ONCE, -(-len(self._known) // CLOSING_SECONDS)))):
            self._close(*self._closing.popleft())
        for old in [bucket for bucket in self._own if bucket < filling - WINDOW_BUCKETS - 1]:
            del self._own[old]

    def window(self, service: str, *, everybody: bool) -> tuple[Pieces, float, int]:
        """What finished in the last minute, how many seconds that is, and of how many instances."""
        now = self._clock()
        filling = bucket_of(now)
        pieces: list[Pieces] = []
        instances: set[str] = set()
        for bucket in range(filling - WINDOW_BUCKETS, filling + 1):
            pieces.append(self.own(bucket).get(service, {}))
            if everybody and self.fleet is not None:
                others = self.fleet.peers(bucket, service)
                pieces += others.values()
                instances.update(others)
        seconds = now - max((filling - WINDOW_BUCKETS) * BUCKET_SECONDS, self._begun_at)
        return merged(pieces), max(1.0, seconds), 1 + len(instances)

    def rings(self, service: str, counts: dict[tuple[str, str], Counts]) -> list[RingCounts]:
        """A service's rings, inner to outer, each with its version first and then those that it has besides."""
        known = self._known.get(service)
        if known is None:
            return []
        arrived = self._arrived(service)
        found = []
        for place, ring in enumerate(known.spec.rings):
            users = arrived[place] if place < len(arrived) else 0
            now = counts.get((ring.name, ring.version), Counts())
            found.append(RingCounts(ring.name, ring.version, known.shares[ring.name], now, users))
            found += [
                RingCounts(ring.name, version, known.shares[ring.name], one, 0, is_current=False)
                for (name, version), one in sorted(counts.items())
                if name == ring.name and version != ring.version
            ]
        return found

    def _close(self, bucket: int, service: str) -> None:
        """A service's bucket is over: one more tick of evidence."""
        known = self._known.get(service)
        if known is None:
            return
        others = {} if self.fleet is None else self.fleet.peers(bucket, service)
        own = self.own(bucket).get(service, {})
        is_clean = known.changed_at + SETTLE_SECONDS <= bucket * BUCKET_SECONDS
        if is_clean and not own and not others and service in self._epochs:
            return  # nobody asked, so nothing is known that was not
        sums = self._sums.setdefault(service, {})
        for place, piece in (merged([own, *others.values()]) if others else own).items():
            sums[place] = _sum(sums.get(place), piece.requests, piece.errors, piece.histogram)
        rings = self.rings(service, sums)
        self._epochs[service] = after(self._epochs.get(service), rings) if is_clean else begin(rings)


def _sum(before: Counts | None, requests: int, errors: int, more: dict[int, int]) -> Counts:
    if before is None:
        return Counts(requests, errors, more)
    histogram = dict(before.histogram)
    for bucket, count in more.items():
        histogram[bucket] = histogram.get(bucket, 0) + count
    return Counts(before.requests + requests, before.errors + errors, histogram)


def _versions(service: ServiceSpec) -> tuple[tuple[str, str], ...]:
    return tuple((ring.name, ring.version) for ring in service.rings)


def _shares(service: ServiceSpec) -> dict[str, int]:
    """Ring → basis points of the hash space. A killed ring's go to the next one outward that is not killed."""
    shares = {ring.name: 0 for ring in service.rings}
    homeless = 0
    for ring in service.rings:
        is_default = ring is service.rings[-1]
        points = homeless + (default_basis_points(service) if is_default else ring.basis_points)
        homeless = points if ring.name in service.killed else 0
        shares[ring.name] = points - homeless
    return shares
