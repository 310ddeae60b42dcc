"""What was, without anything else installed: 15 minutes by the second and 24 hours by the minute, in arrays.

A track per service × ring × version, one per ring (version ""), one per service (ring ""): some 46 KiB each, made with
its first request. There are ``MOST_TRACKS`` at most; the one that was quiet for longest makes room. A slot that nobody
wrote says that nobody asked.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from math import nan
from typing import Final

from router.telemetry.buckets import Piece
from router.telemetry.counters import RingKey
from router.telemetry.picture import Metric
from router.telemetry.quantiles import quantile_seconds

SECONDS: Final = 900
MINUTES: Final = 1440
MOST_TRACKS: Final = 500
"""23 MiB. Five hundred rings that have traffic are more than anybody looks at."""
QUANTILES: Final[Mapping[Metric, float]] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Columns:
    """A ring of slots; slot n is at n modulo the length, and those that were skipped are empty."""

    __slots__ = ("_newest", "_size", "errors", "quantiles", "requests")

    def __init__(self, size: int) -> None:
        self._size = size
        self._newest = -1
        self.requests = array("I", bytes(4 * size))
        self.errors = array("I", bytes(4 * size))
        self.quantiles: dict[Metric, array[float]] = {name: array("f", [nan]) * size for name in QUANTILES}
        """In milliseconds."""

    def put(self, slot: int, requests: int, errors: int, histogram: Mapping[int, int]) -> None:
        """Set a slot; those between the newest and this one were empty. An older one than the newest is left alone."""
        if slot < self._newest:
            return
        if self._newest >= 0:
            for skipped in range(max(self._newest + 1, slot - self._size + 1), slot):
                self._set(skipped % self._size, 0, 0, {})
        else:
            self._newest = slot
        self._newest = slot
        self._set(slot % self._size, requests, errors, histogram)

    def _set(self, place: int, requests: int, errors: int, histogram: Mapping[int, int]) -> None:
        self.requests[place], self.errors[place] = requests, errors
        for name, quantile in QUANTILES.items():
            seconds = quantile_seconds(histogram, quantile)
            self.quantiles[name][place] = nan if seconds is None else 1000 * seconds

    def place(self, slot: int) -> int | None:
        """Where a slot is; None where it was never written, or is overwritten by now."""
        return slot % self._size if self._newest - self._size < slot <= self._newest and slot >= 0 else None


class Track:
    """One service × ring × version."""

    __slots__ = ("_minute", "_sum", "minutes", "seconds")

    def __init__(self) -> None:
        self.seconds = Columns(SECONDS)
        self.minutes = Columns(MINUTES)
        self._minute = -1
        self._sum = Piece({}, {}, {})

    def put(self, second: int, piece: Piece) -> None:
        self.seconds.put(second, piece.requests, piece.errors, piece.histogram)
        minute = second // 60
        if minute != self._minute:
            self._minute, self._sum = minute, Piece({}, {}, {})
        self._sum.add(piece)
        self.minutes.put(minute, self._sum.requests, self._sum.errors, self._sum.histogram)


class History:
    """``put`` once a second, with what came in that second."""

    def __init__(self, most: int = MOST_TRACKS) -> None:
        self._most = most
        self._tracks: OrderedDict[RingKey, Track] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tracks)

    def put(self, now: float, pieces: Mapping[RingKey, Piece]) -> None:
        """``pieces`` came in the second before ``now`` (Unix seconds)."""
        second = int(now) - 1
        sums: dict[RingKey, Piece] = {}
        for (service, ring, version), piece in pieces.items():
            if not piece.codes:
                continue
            for key in ((service, ring, version), (service, ring, ""), (service, "", "")):
                sums.setdefault(key, Piece({}, {}, {})).add(piece)
        for key, piece in sums.items():
            track = self._tracks.get(key)
            if track is None:
                track = self._tracks[key] = Track()
            self._tracks.move_to_end(key)
            track.put(second, piece)
        while len(self._tracks) > self._most:
            self._tracks.popitem(last=False)

    def keep(self, services: Iterable[str]) -> None:
        """Services that are not in the config any more are forgotten."""
        named = frozenset(services)
        for key in [key for key in self._tracks if key[0] not in named]:
            del self._tracks[key]

    def points(self, key: RingKey, metric: Metric, begin: int, count: int, step: int) -> list[float | None]:
        """``count`` values from slot ``begin`` on, slots of ``step`` (1 or 60) seconds since 1970.

        rps is 0 where nobody asked, success (percent), share (percent of the service's requests) and quantiles (ms) are
        None there.
        """
        return [self._value(key, metric, slot, step) for slot in range(begin, begin + count)]

    def _value(self, key: RingKey, metric: Metric, slot: int, step: int) -> float | None:
        requests, errors, columns = self._counts(key, slot, step)
        if metric == "rps":
            return requests / step
        if metric == "share":
            total, _, _ = self._counts((key[0], "", ""), slot, step)
            return round(100 * requests / total, 3) if total else None
        if not requests or columns is None:
            return None
        if metric == "success":
            return round(100 * (requests - errors) / requests, 4)
        place = columns.place(slot)
        value = nan if place is None else columns.quantiles[metric][place]
        return None if value != value else round(value, 3)

    def _counts(self, key: RingKey, slot: int, step: int) -> tuple[int, int, Columns | None]:
        track = self._tracks.get(key)
        if track is None:
            return 0, 0, None
        columns = track.seconds if step == 1 else track.minutes
        place = columns.place(slot)
        return (0, 0, columns) if place is None else (columns.requests[place], columns.errors[place], columns)
