"""Who is compared: all who have the candidate, and of the others ten for each of them.

From 10:1 on more of the control adds little: a test knows at most a tenth less than with everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from router.core.hashing import BUCKETS

CONTROL_PER_RING: Final = 10
MILLION: Final = 1_000_000


class Sample(NamedTuple):
    """``keep_ppm``: of a million users without the candidate, those who are looked at; ``share``: what part of all who
    are looked at should have it."""

    keep_ppm: int
    share: float


def sample_of(candidate: str, weights: Mapping[str, int], versions: Mapping[str, str]) -> Sample:
    """Of a routing: basis points and version of every ring, the default ring's too."""
    ring = sum(weight for name, weight in weights.items() if versions.get(name) == candidate)
    rest = BUCKETS - ring
    keep = MILLION if rest <= 0 or ring <= 0 else min(MILLION, CONTROL_PER_RING * ring * MILLION // rest)
    looked_at = ring + rest * keep / MILLION
    return Sample(keep, ring / looked_at if looked_at else 0.0)
