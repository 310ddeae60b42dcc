"""Weights of endpoints as turns and as points on a ring of hashes. Pure, worked out when endpoints change."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Final

from xxhash import xxh64_intdigest

MOST_TURNS: Final = 1000
POINTS: Final = 160
"""On the ring for each unit of weight (libketama): shares differ by some 8 percent."""
AFFINITY_SALT: Final = b"endpoint:"
"""Its own: the hash that sorts users into rings would use only a few endpoints for a narrow ring."""


def units(weights: Sequence[int]) -> list[int]:
    """Weights as small whole numbers with the same ratios: their sum is at most 1,000 where that is possible."""
    divisor = gcd(*weights) or 1
    small = [weight // divisor for weight in weights]
    total = sum(small)
    if total > MOST_TURNS:
        small = [max(1, round(weight * MOST_TURNS / total)) if weight else 0 for weight in small]
    return small


def turns(weights: Sequence[int]) -> list[int]:
    """Indexes, each as often as its weight says, spread evenly (nginx's smooth weighted round robin)."""
    small = units(weights)
    total = sum(small)
    if all(weight == 1 for weight in small):
        return list(range(len(small)))
    credit = [0] * len(small)
    order = []
    for _ in range(total):
        credit = [have + weight for have, weight in zip(credit, small, strict=True)]
        best = max(range(len(small)), key=credit.__getitem__)
        credit[best] -= total
        order.append(best)
    return order


def points(names: Sequence[bytes], weights: Sequence[int]) -> tuple[list[int], list[int]]:
    """A consistent-hash ring (Karger et al. 1997): the points in order, and whose each of them is."""
    ring = sorted(
        (xxh64_intdigest(b"%b#%d" % (name, number)), index)
        for index, (name, weight) in enumerate(zip(names, units(weights), strict=True))
        for number in range(POINTS * weight)
    )
    return [point for point, _ in ring], [index for _, index in ring]


def affinity(key: bytes) -> int:
    """Where on the ring a user is."""
    return xxh64_intdigest(AFFINITY_SALT + key)
