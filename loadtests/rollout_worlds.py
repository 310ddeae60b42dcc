"""Worlds in which rollouts of a candidate are simulated: what comes in each tick, and who of it fails.

People come by a Poisson process each. Time is cut into *rounds* (a restart of the harm tests begins one); in a round a
person is counted once, when first seen, and by those copies only that have not counted them since they began: of those
seen in round k, a share q = exp(−λ · length) had not been seen in a round before. So what the copies count is not
independent, just as in the product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import cos, erf, exp, log, pi, sqrt
from typing import Final

TICK_SECONDS: Final = 10
HOURS: Final = 4
TICKS: Final = HOURS * 3600 // TICK_SECONDS
PEOPLE: Final = 2_000_000
VISITS_AN_HOUR: Final = 2.0
SIGMA: Final = 0.6
"""Of ln latency, which is what a shift of two buckets is measured against."""
CONTROL_PER_RING: Final = 10.0
RESTART_TICKS: Final = 180

ByTick = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class World:
    """Rates are those of the control's users; ``harm`` is what the candidate adds, by name of the guardrail."""

    name: str
    errors: ByTick
    weight: ByTick
    """Of the ring, 0 to 1."""
    steps: tuple[int, ...] = ()
    """Ticks at which the ring is widened: a round begins."""
    http_4xx: float = 0.03
    is_at_limit: bool = False
    """The candidate is exactly as bad as is tolerated: the hardest point of the null."""
    times: ByTick = lambda _tick: 1.0
    """What the candidate's errors are multiplied by."""

    @property
    def rounds(self) -> tuple[int, ...]:
        """When each round begins."""
        begun, found = 0, [0]
        for tick in range(1, TICKS):
            if tick in self.steps or tick - begun >= RESTART_TICKS:
                begun = tick
                found.append(tick)
        return tuple(found)

    def at_limit(self) -> World:
        return replace(self, name=f"{self.name}, at the limit", is_at_limit=True)


def _wave(tick: int) -> float:
    """Between 0.3 and 2 times half a percent, and for ten minutes 5 % in both rings."""
    if 700 <= tick < 760:
        return 0.05
    return 0.005 * (1.15 - 0.85 * cos(2 * pi * tick / TICKS))


def _step_of(tick: int) -> int:
    return 0 if tick < TICKS // 3 else 1 if tick < 2 * TICKS // 3 else 2


STEADY: Final = World("steady 0.5 %", lambda _: 0.005, lambda _: 0.01)
SWINGING: Final = World("daily wave, 10 minutes of 5 % in both", _wave, lambda _: 0.01)
WIDENING: Final = World(
    "1 → 5 → 25 % while errors go 0.2 → 0.4 → 0.8 %",
    lambda tick: (0.002, 0.004, 0.008)[_step_of(tick)],
    lambda tick: (0.01, 0.05, 0.25)[_step_of(tick)],
    steps=(TICKS // 3, 2 * TICKS // 3),
)
LATE: Final = replace(
    STEADY, name="a threefold regression after three hours", times=lambda tick: 3.0 if tick >= 3 * TICKS // 4 else 1.0
)


def tail(quantile: float, factor: float) -> float:
    """How many of the ring's latencies are above ``factor`` times the control's quantile, both lognormal."""
    low, high = -10.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _normal(middle) < quantile else (low, middle)
    return 1 - _normal(low + log(factor) / SIGMA)


def _normal(z: float) -> float:
    return (1 + erf(z / sqrt(2))) / 2


def first_seen(since_round_began: int) -> float:
    """The share of all people who are first seen in this tick of a round."""
    rate = VISITS_AN_HOUR * TICK_SECONDS / 3600
    return exp(-rate * since_round_began) - exp(-rate * (since_round_began + 1))


def unseen(ticks: int) -> float:
    """The share of people who are not seen in so many ticks."""
    return exp(-VISITS_AN_HOUR * TICK_SECONDS / 3600 * ticks)
