"""Who moves from one snapshot of a service to the next, as spans of the hash space. Pure."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from router.core.hashing import BUCKETS
from router.core.snapshot import Service


@dataclass(frozen=True, slots=True)
class Move:
    """Those whom the hash takes from a ring to another one; ``spans`` are buckets, without the end of each."""

    before: str
    after: str
    is_inward: bool
    spans: tuple[tuple[int, int], ...]

    @property
    def buckets(self) -> int:
        return sum(end - start for start, end in self.spans)


def moves(old: Service, new: Service) -> list[Move]:
    """Every pair of rings between which somebody moves, most first."""
    places = {ring.name: place for place, ring in enumerate(new.spec.rings)}
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    borders = sorted({0, *old.bounds, *new.bounds, BUCKETS})
    for start, end in pairwise(borders):
        before = old.by_hash[bisect_right(old.bounds, start)].ring
        after = new.by_hash[bisect_right(new.bounds, start)].ring
        if before != after and start < end:
            found.setdefault((before, after), []).append((start, end))
    made = [
        Move(before, after, places[after] < places.get(before, len(places)), tuple(spans))
        for (before, after), spans in found.items()
    ]
    return sorted(made, key=lambda move: (-move.buckets, move.before, move.after))
