"""What happened in ten seconds, per service × ring × version: the piece that instances tell each other, and all add up.

An instance writes its own piece as often as it likes, whole each time: written twice it counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from router.telemetry.counters import Histogram, RingKey
from router.telemetry.counts import add

BUCKET_SECONDS: Final = 10
_Place = TypeVar("_Place", tuple[str, str], RingKey)
Place = tuple[str, str]
"""ring, version"""


class Piece:
    """Finished requests of one ring × version: by status, by reason, and their durations."""

    __slots__ = ("codes", "histogram", "reasons")

    def __init__(
        self,
        codes: dict[int, int] | None = None,
        reasons: dict[str, int] | None = None,
        histogram: Histogram | None = None,
    ) -> None:
        self.codes = {} if codes is None else codes
        self.reasons = {} if reasons is None else reasons
        self.histogram = {} if histogram is None else histogram

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Piece):
            return NotImplemented
        return (self.codes, self.reasons, self.histogram) == (other.codes, other.reasons, other.histogram)

    def __repr__(self) -> str:
        return f"Piece({self.codes}, {self.reasons}, {self.histogram})"

    @property
    def requests(self) -> int:
        return sum(self.codes.values())

    @property
    def errors(self) -> int:
        """Those whose status is 5xx."""
        return sum(count for code, count in self.codes.items() if code >= 500)

    def add(self, other: Piece) -> None:
        add(self.codes, other.codes)
        add(self.reasons, other.reasons)
        add(self.histogram, other.histogram)


Pieces = dict[Place, Piece]
"""One service's, of one bucket."""
_Wire = list[tuple[str, str, dict[int, int], dict[str, int], list[int]]]
"""Ring, version, codes, reasons, and the histogram: its lowest bucket, then a count for each from there on. Latencies
lie close together, so that zeros between them take less than numbers of buckets."""
_decoder: Final = msgspec.msgpack.Decoder(_Wire)


def bucket_of(now: float) -> int:
    """The number of the bucket that a moment (Unix seconds) is in."""
    return int(now // BUCKET_SECONDS)


def pack(pieces: Pieces) -> bytes:
    return msgspec.msgpack.encode(
        [
            (ring, version, piece.codes, piece.reasons, _dense(piece.histogram))
            for (ring, version), piece in pieces.items()
        ]
    )


def unpack(data: bytes) -> Pieces:
    """Raises ``msgspec.DecodeError`` for what is none."""
    return {
        (ring, version): Piece(codes, reasons, _sparse(dense))
        for ring, version, codes, reasons, dense in _decoder.decode(data)
    }


def _dense(histogram: Histogram) -> list[int]:
    if not histogram:
        return []
    lowest = min(histogram)
    return [lowest, *(histogram.get(bucket, 0) for bucket in range(lowest, max(histogram) + 1))]


def _sparse(dense: list[int]) -> Histogram:
    return {bucket: count for bucket, count in enumerate(dense[1:], dense[0]) if count} if dense else {}


def merged(several: Iterable[Mapping[Place, Piece]]) -> Pieces:
    """All of them together, as copies."""
    total: Pieces = {}
    for pieces in several:
        for place, piece in pieces.items():
            total.setdefault(place, Piece({}, {}, {})).add(piece)
    return total


def put(pieces: dict[_Place, Piece], place: _Place, piece: Piece) -> None:
    """One more, which is the dictionary's from now on."""
    known = pieces.get(place)
    if known is None:
        pieces[place] = piece
    else:
        known.add(piece)
