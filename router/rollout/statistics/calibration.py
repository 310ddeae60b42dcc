"""Always-on A/A: does a guardrail cry wolf on this very traffic?

Users of the *baseline* version are divided into 64 slices by a hash of their own, independent of the ring. Each slice
against the other 63 is a two-ring test in which both sides run the same thing, so at most 64 α of them should ever
alarm. If units are not independent (requests of a few broken clients, say) many do, long before any rollout: such a
guardrail is *uncalibrated*, and what it says may pause, not roll back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from router.rollout.statistics.levels import harm_level
from router.rollout.statistics.two_ring import Evidence, Tick, TwoRing

SLICES: Final = 64
MOST_ALARMS: Final = 2


@dataclass(frozen=True, slots=True)
class Calibration:
    """The evidence of each slice's test."""

    slices: tuple[Evidence, ...]

    @classmethod
    def begin(cls, test: TwoRing, slices: int = SLICES) -> Calibration:
        return cls((test.begin(),) * slices)

    def after(self, test: TwoRing, units: Sequence[int], outcomes: Sequence[float]) -> Calibration:
        """One more tick: per slice its units of the baseline version, and the sum of their outcomes."""
        if not len(units) == len(outcomes) == len(self.slices):
            raise ValueError(f"{len(self.slices)} slices, but {len(units)} and {len(outcomes)} figures")
        all_units, all_outcomes = sum(units), sum(outcomes)
        ticks = (
            Tick(count, failed, all_units - count, min(max(all_outcomes - failed, 0.0), all_units - count))
            for count, failed in zip(units, outcomes, strict=True)
        )
        return Calibration(tuple(test.after(known, tick) for known, tick in zip(self.slices, ticks, strict=True)))

    def to_plain(self) -> list[dict[str, object]]:
        """For JSON; ``from_plain`` gives back exactly this."""
        return [known.to_plain() for known in self.slices]

    @classmethod
    def from_plain(cls, plain: Sequence[Mapping[str, object]]) -> Calibration:
        """Raises ValueError for what ``to_plain`` cannot have made."""
        return cls(tuple(Evidence.from_plain(known) for known in plain))

    def alarms(self, alpha: float) -> int:
        """How many slices have ever crossed 1/α."""
        level = harm_level(alpha)
        return sum(known.peak >= level for known in self.slices)

    def is_calibrated(self, alpha: float, most: int = MOST_ALARMS) -> bool:
        return self.alarms(alpha) <= most
