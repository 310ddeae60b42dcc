"""Is the ring worse than its control, or proven not to be: the two-ring e-process, with margin and delayed starts.

A tick closes with n_r units in the ring and n_b in the control, and the sums x_r, x_b of their outcomes, each in [0, 1]
(1: failed). For the mean outcomes μ_r, μ_b of the units of a tick, tolerance ρ (ratio) and δ (absolute):

    harm   H0: μ_r ≤ ρ μ_b + δ      rejected: the ring is worse than tolerated
    safe   H0: μ_r ≥ ρ μ_b + δ      rejected: the ring is proven to be within tolerance

For alternatives ρ_k (harm: above ρ, safe: below), per tick and with the same line on both sides

    a_k = ρ_k (ρ n_r + n_b) / (ρ (ρ_k n_r + n_b))      b_k = (ρ n_r + n_b) / (ρ_k n_r + n_b)
    ℓ_k += x_r ln a_k + x_b ln b_k − δ n_r (a_k − 1)
    E    = (1/K) Σ_k exp(ℓ_k)

**Guarantee.** E ≤ 1 in expectation at every stopping time, so P(ever E ≥ 1/α) ≤ α under the null. *Proof*: for y in
[0, 1] with mean μ, a^y ≤ 1 + y(a−1), so E[a^y] ≤ exp(μ(a−1)). Units of a tick being independent, E[a^x_r b^x_b] ≤
exp(n_r μ_r (a−1) − n_b μ_b (1−b)). In the harm null (a > 1) that is at most exp(n_r δ (a−1)) times
exp(μ_b [ρ n_r (a−1) − n_b (1−b)]), and a_k, b_k are such that the bracket is 0, for every μ_b, known or not, constant
or not. The safe null has a < 1 and the inequality turned. Products over ticks and means over k keep it. So the base
rate may swing, incidents may hit both, weights may change at any tick; only the inequality between the two means
matters, and that units are independent: feed users, not requests, wherever something is decided.

The margin form is this project's own. Its roots: Lindon & Malek, NeurIPS 2022 (arXiv 2011.03567) §4; Turner, Ly &
Grünwald, JSPI 2024 (2106.02693); Waudby-Smith & Ramdas, JRSS-B 2024 (2010.09686); mixtures: Howard, Ramdas, McAuliffe &
Sekhon, Annals of Statistics 2021 (1810.08240) §3.

Where lower is worse (orders, logins) the sides change places: the safe line with ρ < 1 is the harm test, and the harm
line is the proof.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite, log, log1p
from typing import Final

from router.rollout.statistics.levels import always_valid_p
from router.rollout.statistics.special import log_sum_exp

HARM_MULTIPLES: Final = (1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 35.0, 60.0)
SAFE_MULTIPLES: Final = (0.97, 0.94, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)
COPIES: Final = 16
"""Of a harm test that runs for a whole rollout. Simulated: a 3× regression after 216,000 good units is noticed after
86,000 with one copy and after some 2,900 with 16; the price is ln 16 where it is bad from the start."""
RESTART_SECONDS: Final = 1800.0


class Side(StrEnum):
    """Which of the two nulls is to be rejected."""

    HARM = "harm"
    SAFE = "safe"


@dataclass(frozen=True, slots=True)
class Margin:
    """What is tolerated: a mean outcome of ``ratio`` times the control's, plus ``absolute`` (0.001 is 0.1 pp)."""

    ratio: float = 1.0
    absolute: float = 0.0

    def __post_init__(self) -> None:
        if not (isfinite(self.ratio) and self.ratio > 0 and isfinite(self.absolute)):
            raise ValueError(f"a margin needs a ratio above 0 and a finite absolute part, not {self}")


@dataclass(frozen=True, slots=True)
class Tick:
    """What happened in one stretch of time: units, and the sum of their outcomes, each in [0, 1]; ring and control."""

    ring_units: int
    ring_outcomes: float
    control_units: int
    control_outcomes: float

    def __post_init__(self) -> None:
        for name, units, outcomes in (
            ("ring", self.ring_units, self.ring_outcomes),
            ("control", self.control_units, self.control_outcomes),
        ):
            if not 0 <= outcomes <= units < inf:
                raise ValueError(f"{name}: outcomes are in [0, 1], so {units} units cannot sum to {outcomes}")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one ``TwoRing`` knows after some ticks.

    Copies with delayed starts differ only in where they began, ℓ_k − ℓ_k(start), so their mixture is one weight per
    alternative: ``weights[k]`` = ln Σ_j exp(−ℓ_k(start of j)) / (J K).
    """

    logs: tuple[float, ...]
    """ℓ_k since the first start, in the order of the alternatives."""
    weights: tuple[float, ...]
    started: int
    """Copies."""
    peak: float
    """The greatest ln E at the end of any tick, and 0 before the first."""

    def to_plain(self) -> dict[str, object]:
        """For JSON; ``from_plain`` gives back exactly this."""
        return {"logs": [*self.logs], "weights": [*self.weights], "started": self.started, "peak": self.peak}

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> Evidence:
        """Raises ValueError for what ``to_plain`` cannot have made."""
        match plain:
            case {"logs": [*logs], "weights": [*weights], "started": int(started), "peak": float() | int() as peak}:
                numbers = [float(n) for n in (*logs, *weights, peak) if isinstance(n, float | int)]
                count = len(logs)
                if count == len(weights) and len(numbers) == 2 * count + 1 and all(map(isfinite, numbers)):
                    return cls(tuple(numbers[:count]), tuple(numbers[count:-1]), started, numbers[-1])
        raise ValueError(f"not the evidence of a two-ring test: {plain!r}")


@dataclass(frozen=True, slots=True)
class TwoRing:
    """One test: which side, what is tolerated, the alternatives as multiples of the margin's ratio, and how many copies
    with delayed starts there may be, each with the same share of the prior.

    A copy that has not started counts as E = 1: E = Σ_{j started} E_j / J + (J − started) / J, still an e-process, so α
    is spent once for as long as the test runs.
    """

    side: Side
    margin: Margin = Margin()
    multiples: tuple[float, ...] = ()
    """None named: the default grid of the side."""
    copies: int = 1

    def __post_init__(self) -> None:
        if not self.multiples:
            is_harm = self.side is Side.HARM
            object.__setattr__(self, "multiples", HARM_MULTIPLES if is_harm else SAFE_MULTIPLES)
        for multiple in self.multiples:
            is_beyond = 1 < multiple < inf if self.side is Side.HARM else 0 < multiple < 1
            if not is_beyond:
                raise ValueError(f"{multiple} is no alternative for the {self.side} side: harm is above 1, safe below")
        if self.copies < 1:
            raise ValueError(f"a test needs at least one copy, not {self.copies}")

    def to_plain(self) -> dict[str, object]:
        """For JSON, so that whoever has the counts can work the evidence out again; ``from_plain`` gives back this."""
        return {
            "side": self.side.value,
            "ratio": self.margin.ratio,
            "absolute": self.margin.absolute,
            "multiples": [*self.multiples],
            "copies": self.copies,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> TwoRing:
        """Raises ValueError for what ``to_plain`` cannot have made."""
        match plain:
            case {
                "side": "harm" | "safe" as side,
                "ratio": float() | int() as ratio,
                "absolute": float() | int() as absolute,
                "multiples": [*multiples],
                "copies": int(copies),
            }:
                numbers = [float(multiple) for multiple in multiples if isinstance(multiple, float | int)]
                if len(numbers) == len(multiples):
                    return cls(Side(side), Margin(float(ratio), float(absolute)), tuple(numbers), copies)
        raise ValueError(f"not a two-ring test: {plain!r}")

    def begin(self) -> Evidence:
        """No evidence yet, the first copy started."""
        count = len(self.multiples)
        return Evidence((0.0,) * count, (-log(self.copies * count),) * count, 1, 0.0)

    def after(self, evidence: Evidence, tick: Tick) -> Evidence:
        """One more tick. A tick without units in one of the two says nothing and changes nothing."""
        units, control = tick.ring_units, tick.control_units
        if units == 0 or control == 0:
            return evidence
        ratio, absolute = self.margin.ratio, self.margin.absolute
        both = ratio * units + control
        logs = []
        for multiple, known in zip(self.multiples, evidence.logs, strict=True):
            beyond = ratio * (multiple - 1)  # ρ_k − ρ
            log_b = -log1p(units * beyond / both)
            a_less_one = control * beyond / (ratio * (both + units * beyond))
            gain = tick.ring_outcomes * (log(multiple) + log_b) + tick.control_outcomes * log_b
            logs.append(known + gain - absolute * units * a_less_one)
        found = Evidence(tuple(logs), evidence.weights, evidence.started, evidence.peak)
        return Evidence(found.logs, found.weights, found.started, max(found.peak, self.log_e(found)))

    def restarted(self, evidence: Evidence) -> Evidence:
        """The next copy starts now. Raises ValueError when all have: ask ``is_restart_due``, which says no then."""
        if evidence.started >= self.copies:
            raise ValueError(f"all {self.copies} copies have started: make the test with more, or ask is_restart_due")
        share = -log(self.copies * len(self.multiples))
        weights = tuple(
            log_sum_exp((weight, share - known)) for weight, known in zip(evidence.weights, evidence.logs, strict=True)
        )
        return Evidence(evidence.logs, weights, evidence.started + 1, evidence.peak)

    def log_e(self, evidence: Evidence) -> float:
        """ln E now."""
        terms = [known + weight for known, weight in zip(evidence.logs, evidence.weights, strict=True)]
        if evidence.started < self.copies:
            terms.append(log((self.copies - evidence.started) / self.copies))
        return log_sum_exp(terms)

    def p_value(self, evidence: Evidence) -> float:
        """Always valid: min(1, 1/max E)."""
        return always_valid_p(evidence.peak)


def is_restart_due(
    evidence: Evidence, copies: int, seconds_since_start: float, interval_seconds: float = RESTART_SECONDS
) -> bool:
    """Whether the next copy should start, so long after the last one did.

    The first half of the copies start an interval apart, and then each waits twice as long as the one before: with the
    defaults every 30 minutes for four hours, and the last one after more than five days.
    """
    if evidence.started >= copies:
        return False
    doublings = max(0, evidence.started - max(1, copies // 2))
    return seconds_since_start >= interval_seconds * float(2**doublings)
