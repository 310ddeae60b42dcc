"""What was, without anything else installed: 15 minutes by the second and 24 hours by the minute, in arrays.

A track per service × ring × version, one per ring (version ""), one per service (ring ""): some 46 KiB each, made with
its first request. There are ``MOST_TRACKS`` at most; one that is quiet makes room, one that has traffic never does:
where more have traffic than there are tracks, a whole history of some is worth more than a second of each. A slot that
nobody wrote says that nobody asked.
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
from router.telemetry.quantiles import quantiles_seconds

SECONDS: Final = 900
MINUTES: Final = 1440
MOST_TRACKS: Final = 500
"""23 MiB. Five hundred rings that have traffic are more than anybody looks at."""
QUIET_SECONDS: Final = 60
"""Without a request for so long, a track makes room for one that has some."""
QUANTILES: Final[Mapping[Metric, float]] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_NO_QUANTILES: Final = (nan,) * len(QUANTILES)


class Moment:
    """What finished in one slot. ``quantiles`` are in milliseconds, in the order of ``QUANTILES``."""

    __slots__ = ("_quantiles", "errors", "histogram", "requests")

    def __init__(self, requests: int, errors: int, histogram: Mapping[int, int]) -> None:
        self.requests = requests
        self.errors = errors
        self.histogram = histogram
        self._quantiles: tuple[float, ...] = ()

    @property
    def quantiles(self) -> tuple[float, ...]:
        if not self._quantiles:
            seconds = quantiles_seconds(self.histogram, tuple(QUANTILES.values()))
            self._quantiles = _NO_QUANTILES if seconds is None else tuple([1000 * one for one in seconds])
        return self._quantiles

    def plus(self, other: Moment) -> Moment:
        histogram = dict(self.histogram)
        for bucket, count in other.histogram.items():
            histogram[bucket] = histogram.get(bucket, 0) + count
        return Moment(self.requests + other.requests, self.errors + other.errors, histogram)


_NOTHING: Final = Moment(0, 0, {})


class Columns:
    """A ring of slots; slot n is at n modulo the length, and those that were skipped are empty."""

    __slots__ = ("_newest", "_quantiles", "_size", "errors", "quantiles", "requests")

    def __init__(self, size: int) -> None:
        self._size = size
        self._newest = -1
        self.requests = array("I", bytes(4 * size))
        self.errors = array("I", bytes(4 * size))
        self.quantiles: dict[Metric, array[float]] = {name: array("f", [nan]) * size for name in QUANTILES}
        """In milliseconds."""
        self._quantiles = tuple(self.quantiles.values())

    def put(self, slot: int, moment: Moment) -> None:
        """Set a slot; those between the newest and this one were empty. An older one than the newest is left alone."""
        if slot < self._newest:
            return
        if self._newest >= 0:
            for skipped in range(max(self._newest + 1, slot - self._size + 1), slot):
                self._set(skipped % self._size, _NOTHING)
        self._newest = slot
        self._set(slot % self._size, moment)

    def _set(self, place: int, moment: Moment) -> None:
        self.requests[place], self.errors[place] = moment.requests, moment.errors
        for column, value in zip(self._quantiles, moment.quantiles, strict=True):
            column[place] = value

    def place(self, slot: int) -> int | None:
        """Where a slot is; None where it was never written, or is overwritten by now."""
        return slot % self._size if self._newest - self._size < slot <= self._newest and slot >= 0 else None


class Track:
    """One service × ring × version."""

    __slots__ = ("_histogram", "_is_minute_put", "_minute", "_minutes", "_sums", "put_at", "seconds")

    def __init__(self) -> None:
        self.seconds = Columns(SECONDS)
        self._minutes = Columns(MINUTES)
        self.put_at = -1
        """The last second that was put in."""
        self._minute = -1
        self._is_minute_put = True
        self._sums = (0, 0)
        self._histogram: dict[int, int] = {}

    def put(self, second: int, moment: Moment) -> None:
        self.put_at = second
        self.seconds.put(second, moment)
        minute = second // 60
        if minute != self._minute:
            self._end_minute()
            self._minute, self._sums, self._histogram = minute, (0, 0), {}
        self._sums = self._sums[0] + moment.requests, self._sums[1] + moment.errors
        histogram = self._histogram
        for bucket, count in moment.histogram.items():
            histogram[bucket] = histogram.get(bucket, 0) + count

        self._is_minute_put = False

    def _end_minute(self) -> None:
        if not self._is_minute_put:
            self._is_minute_put = True
            self._minutes.put(self._minute, Moment(*self._sums, self._histogram))

    @property
    def minutes(self) -> Columns:
        """With the minute that is under way, as far as it is."""
        self._end_minute()
        return self._minutes


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
        tracks, has_room = self._tracks, self._has_room(second)
        sums: dict[RingKey, Moment] = {}
        for (service, ring, version), piece in pieces.items():
            if not piece.codes:
                continue
            moment = None
            for key in ((service, ring, version), (service, ring, ""), (service, "", "")):
                if has_room or key in tracks:
                    if moment is None:
                        moment = Moment(piece.requests, piece.errors, piece.histogram)
                    before = sums.get(key)
                    sums[key] = moment if before is None else before.plus(moment)
        news = sums.keys() - tracks.keys() if has_room else ()
        for key, moment in sums.items():
            if key not in news:
                tracks.move_to_end(key)
                tracks[key].put(second, moment)
        for key, moment in sums.items():
            if key in news and self._make_room(second):
                track = tracks[key] = Track()
                track.put(second, moment)

    def _has_room(self, second: int) -> bool:
        """Whether there is a place for one more track, or one that is quiet."""
        if len(self._tracks) < self._most:
            return True
        oldest = next(iter(self._tracks.values()))
        return second - oldest.put_at >= QUIET_SECONDS

    def _make_room(self, second: int) -> bool:
        if not self._has_room(second):
            return False
        if len(self._tracks) >= self._most:
            self._tracks.popitem(last=False)
        return True

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
