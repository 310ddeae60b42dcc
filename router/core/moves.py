"""Who moves when weights change: the parts of the hash space whose ring is another one afterwards. Pure.

Members and rules are not in it: they are in their ring whatever the weights are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Shift:
    """Basis points of everybody who go from one ring to another."""

    before: str
    after: str
    is_inward: bool
    basis_points: int


def shifts(rings: Sequence[str], before: Sequence[int], after: Sequence[int]) -> list[Shift]:
    """``rings`` inner → outer with their basis points before and after; the default ring, last, has none.

    At most twice as many as there are rings: two rows of intervals laid over each other.
    """
    whole = 10_000
    old = [*accumulate(before[: len(rings) - 1]), whole]
    new = [*accumulate(after[: len(rings) - 1]), whole]
    found: dict[tuple[int, int], int] = {}
    begin = 0
    for end in sorted({*old, *new}):
        if end > begin:
            was = next(i for i, border in enumerate(old) if border > begin)
            now = next(i for i, border in enumerate(new) if border > begin)
            if was != now:
                found[was, now] = found.get((was, now), 0) + end - begin
        begin = end
    return [Shift(rings[was], rings[now], now < was, points) for (was, now), points in found.items()]
