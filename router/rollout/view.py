"""What the dashboard's table says of each ring and version: plain figures out of plain counts.

Two things are kept apart. The *window* (some 60 s, then and now) says what users get at this moment: traffic,
successes, latencies, shares. The *epoch* is everything since versions or weights last changed; over it the sequences
run that compare each ring with the next one outward. ``after`` carries an epoch on and begins another when it must;
``table`` makes the rows. The caller keeps the epoch and the counts of some moment ago, nothing else.

What there are no counts of is None. No traffic is no traffic, and never 0 % errors.

Requests are what is counted here, and requests of one user are alike. So a verdict of this table is a hint; what a
rollout decides by is counted in users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Final

from router.rollout.statistics.latency import Earlier, shift_tick
from router.rollout.statistics.levels import harm_level, proof_level
from router.rollout.statistics.quantiles import quantile_difference
from router.rollout.statistics.ratio import Split
from router.rollout.statistics.sequences import Interval, difference_sequence, rate_sequence
from router.rollout.statistics.two_ring import Evidence, Margin, Side, Tick, TwoRing
from router.telemetry.quantiles import quantile_seconds

ALPHA: Final = 0.01
"""Of "breached", for both guardrails together."""
BETA: Final = 0.05
"""Of "within", and of every interval that is drawn."""
ERRORS: Final = Margin(1.25, 0.001)
"""What is tolerated: 1.25 times the outer ring's errors, plus 0.1 pp."""
SLOW: Final = 0.95
"""The latency quantile that is compared; tolerated is a factor of 1.0905 (two buckets)."""
ERRORS_HARM: Final = TwoRing(Side.HARM, ERRORS)
ERRORS_SAFE: Final = TwoRing(Side.SAFE, ERRORS)
SLOW_HARM: Final = TwoRing(Side.HARM)
SLOW_SAFE: Final = TwoRing(Side.SAFE)


class Verdict(StrEnum):
    """Of a ring beside the next one outward."""

    COLLECTING = "collecting"
    WITHIN = "within"
    BREACHED = "breached"
    NO_DATA = "no data"
    """Nobody says what it gets, or there is nothing to compare it with."""
    NO_TRAFFIC = "no traffic"


@dataclass(frozen=True, slots=True)
class Counts:
    """Finished requests, how many of them failed, and their durations in the buckets of ``telemetry.meters``.

    Cumulative, as they are counted; or of a stretch of time, as ``since`` makes them.
    """

    requests: int = 0
    errors: int = 0
    histogram: Mapping[int, int] = field(default_factory=dict)

    def since(self, then: Counts) -> Counts | None:
        """What came after ``then``; None if something went down, so that the two are not of one count."""
        histogram = {
            bucket: count - then.histogram.get(bucket, 0)
            for bucket, count in self.histogram.items()
            if count != then.histogram.get(bucket, 0)
        }
        requests, errors = self.requests - then.requests, self.errors - then.errors
        is_one_count = then.histogram.keys() <= self.histogram.keys() and min(histogram.values(), default=0) >= 0
        return Counts(requests, errors, histogram) if is_one_count and 0 <= errors <= requests else None


@dataclass(frozen=True, slots=True)
class RingCounts:
    """One ring × version as it is counted now. Rings come in order, inner to outer."""

    ring: str
    version: str
    target: int
    """The ring's weight in basis points; of the default ring, the rest."""
    counts: Counts | None
    """Cumulative; None: nobody reports."""
    users: int | None = None
    """Users that the hash has put into the ring, each counted once, cumulative; None: users are not counted. Requests
    are no substitute: one busy client would look like a wrong split."""
    is_current: bool = True
    """False for a version that the ring does not run any more, or that it borrows for a while."""

    @property
    def name(self) -> tuple[str, str]:
        return self.ring, self.version


@dataclass(frozen=True)
class Comparison:
    """A ring beside the next one outward, in one epoch: what is drawn, and what is proven."""

    outer: tuple[str, str]
    ring_last: Counts | None
    """As both were counted at the end of the last tick in which both were."""
    outer_last: Counts | None
    ring_counts: Counts = field(default_factory=Counts)
    """What came in the epoch."""
    outer_counts: Counts = field(default_factory=Counts)
    earlier: Earlier = field(default_factory=Earlier)
    errors_harm: Evidence = field(default_factory=ERRORS_HARM.begin)
    errors_safe: Evidence = field(default_factory=ERRORS_SAFE.begin)
    slow_harm: Evidence = field(default_factory=SLOW_HARM.begin)
    slow_safe: Evidence = field(default_factory=SLOW_SAFE.begin)

    def after(self, ring_now: Counts | None, outer_now: Counts | None) -> Comparison:
        """One more tick, if both are counted: else the next one is longer, for both alike."""
        if ring_now is None or outer_now is None:
            return self
        begun = replace(self, ring_last=ring_now, outer_last=outer_now)
        if self.ring_last is None or self.outer_last is None:
            return begun
        ring, outer = ring_now.since(self.ring_last), outer_now.since(self.outer_last)
        if ring is None or outer is None:
            return begun
        if not ring.requests and not outer.requests:
            return self
        errors = Tick(ring.requests, ring.errors, outer.requests, outer.errors)
        slow_harm, slow_safe = self.slow_harm, self.slow_safe
        edge = self.earlier.edge(SLOW)
        if edge is not None:
            slow = shift_tick(ring.histogram, outer.histogram, edge)
            slow_harm, slow_safe = SLOW_HARM.after(slow_harm, slow), SLOW_SAFE.after(slow_safe, slow)
        return replace(
            begun,
            ring_counts=_sum(self.ring_counts, ring),
            outer_counts=_sum(self.outer_counts, outer),
            earlier=self.earlier.after(outer.histogram),
            errors_harm=ERRORS_HARM.after(self.errors_harm, errors),
            errors_safe=ERRORS_SAFE.after(self.errors_safe, errors),
            slow_harm=slow_harm,
            slow_safe=slow_safe,
        )

    @property
    def breached(self) -> tuple[str, ...]:
        """Which are proven to be worse than tolerated: ``errors``, ``p95``."""
        level = harm_level(ALPHA, tests=2)
        found = (("errors", self.errors_harm), ("p95", self.slow_harm))
        return tuple(name for name, evidence in found if evidence.peak >= level)

    @cached_property
    def differences(self) -> tuple[Interval | None, Interval | None]:
        """Of error rates (0 to 1) and of p95 (seconds): the ring's minus the outer one's; None where nobody asked."""
        ring, outer = self.ring_counts, self.outer_counts
        errors = p95 = None
        if ring.requests and outer.requests:
            errors = difference_sequence(ring.errors, ring.requests, outer.errors, outer.requests, BETA)
        if ring.histogram and outer.histogram:
            p95 = quantile_difference(ring.histogram, outer.histogram, SLOW, BETA)
        return errors, p95

    @property
    def is_within(self) -> bool:
        level = proof_level(BETA)
        return self.errors_safe.peak >= level and self.slow_safe.peak >= level


def _sum(one: Counts, other: Counts) -> Counts:
    histogram = dict(one.histogram)
    for bucket, count in other.histogram.items():
        histogram[bucket] = histogram.get(bucket, 0) + count
    return Counts(one.requests + other.requests, one.errors + other.errors, histogram)


@dataclass(frozen=True, slots=True)
class Epoch:
    """A service since versions or weights last changed."""

    key: tuple[tuple[str, str, int], ...]
    """Ring, version and weight of each ring: what has to stay as it is."""
    comparisons: Mapping[tuple[str, str], Comparison]
    """(ring, version) → beside the next ring outward; the outermost has none."""
    split: Split | None
    """None: users are not counted."""
    users_at_start: Mapping[str, int]


def _key(rings: Sequence[RingCounts]) -> tuple[tuple[str, str, int], ...]:
    return tuple((ring.ring, ring.version, ring.target) for ring in rings if ring.is_current)


def _users(rings: Sequence[RingCounts]) -> dict[str, int] | None:
    """Ring → users, whatever version they got; None if they are not counted in every ring."""
    users: dict[str, int] = {}
    for ring in rings:
        if ring.users is None:
            return None
        users[ring.ring] = users.get(ring.ring, 0) + ring.users
    return users


def _targets(rings: Sequence[RingCounts]) -> dict[str, int]:
    return {ring.ring: ring.target for ring in rings if ring.is_current}


def begin(rings: Sequence[RingCounts]) -> Epoch:
    """A new epoch: nothing is known, and all that was counted before is left out."""
    current = [ring for ring in rings if ring.is_current]
    comparisons = {}
    for place, ring in enumerate(current[:-1]):
        further = current[place + 1 :]
        outer = next((other for other in further if other.target > 0), further[-1])
        comparisons[ring.name] = Comparison(outer.name, ring.counts, outer.counts)
    users = _users(rings)
    split = None if users is None else Split.begin(len(_targets(rings)))
    return Epoch(_key(rings), comparisons, split, users or {})


def after(epoch: Epoch | None, rings: Sequence[RingCounts]) -> Epoch:
    """One tick later; a new epoch when versions or weights are not what they were, or when there was none."""
    if epoch is None or epoch.key != _key(rings):
        return begin(rings)
    counts = {ring.name: ring.counts for ring in rings}
    comparisons = {
        name: comparison.after(counts.get(name), counts.get(comparison.outer))
        for name, comparison in epoch.comparisons.items()
    }
    users, split = _users(rings), epoch.split
    if users is not None and split is not None:
        targets = _targets(rings)
        arrived = [users[ring] - epoch.users_at_start.get(ring, 0) for ring in targets]
        whole = sum(targets.values())
        if whole and min(arrived) >= 0:
            split = split.after(arrived, [target / whole for target in targets.values()])
    return Epoch(epoch.key, comparisons, split, epoch.users_at_start)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table. Shares and rates are 0 to 1, durations seconds; None is "not known", never 0."""

    ring: str
    version: str
    target_share: float
    actual_share: float | None
    """Of the service's requests in the window that the ring got, whatever the version."""
    mismatch_p: float | None
    """That users arrive in the shares that were asked for: always valid, corrected for the number of rings."""
    requests_per_second: float | None
    success: Interval | None
    """Of the window's requests."""
    p50: float | None
    p95: float | None
    p99: float | None
    outer: tuple[str, str] | None
    """Ring and version that it is compared with; None for the outermost, and for versions that are not current."""
    error_difference: Interval | None
    """Its error rate minus the outer ring's, over the epoch, with what covers the truth at every moment at once."""
    p95_difference: Interval | None
    """The same of p95, in seconds; ends may be infinite."""
    verdict: Verdict | None
    breached: tuple[str, ...] = ()
    """By what: ``errors``, ``p95``."""


def table(
    epoch: Epoch, then: Sequence[RingCounts], now: Sequence[RingCounts], window_seconds: float
) -> tuple[Row, ...]:
    """The rows, in the order of ``now``; ``then`` is the same so many seconds ago. A ring × version that ``then`` does
    not have had counted nothing yet."""
    if window_seconds <= 0:
        raise ValueError(f"a window is longer than 0 s, not {window_seconds}")
    before = {ring.name: ring.counts for ring in then}
    window: dict[tuple[str, str], Counts] = {}
    for ring in now:
        base = before.get(ring.name, Counts())
        seen = None if ring.counts is None or base is None else ring.counts.since(base)
        if seen is not None:
            window[ring.name] = seen
    total = sum(counts.requests for counts in window.values())
    targets = _targets(now)
    p_values = dict(zip(targets, epoch.split.p_values, strict=True)) if epoch.split and epoch.key == _key(now) else {}
    rows = []
    for ring in now:
        counts = window.get(ring.name)
        has_traffic = counts is not None and counts.requests > 0
        comparison = epoch.comparisons.get(ring.name) if ring.is_current else None
        in_ring = [window[name] for name in window if name[0] == ring.ring]
        histogram = counts.histogram if counts is not None else {}
        errors, p95 = comparison.differences if comparison else (None, None)
        rows.append(
            Row(
                ring=ring.ring,
                version=ring.version,
                target_share=ring.target / 10_000,
                actual_share=sum(part.requests for part in in_ring) / total if total and in_ring else None,
                mismatch_p=p_values.get(ring.ring),
                requests_per_second=None if counts is None else counts.requests / window_seconds,
                success=_success(counts) if counts is not None and has_traffic else None,
                p50=quantile_seconds(histogram, 0.5),
                p95=quantile_seconds(histogram, 0.95),
                p99=quantile_seconds(histogram, 0.99),
                outer=comparison.outer if comparison else None,
                error_difference=errors,
                p95_difference=p95,
                verdict=_verdict(comparison, counts, window) if comparison else _alone(counts),
                breached=comparison.breached if comparison else (),
            )
        )
    return tuple(rows)


def _success(counts: Counts) -> Interval:
    return rate_sequence(counts.requests - counts.errors, counts.requests, BETA)


def _alone(counts: Counts | None) -> Verdict | None:
    """Of what is compared with nothing: only whether there is anything to see."""
    if counts is None:
        return Verdict.NO_DATA
    return None if counts.requests else Verdict.NO_TRAFFIC


def _verdict(comparison: Comparison, counts: Counts | None, window: Mapping[tuple[str, str], Counts]) -> Verdict:
    alone = _alone(counts)
    outer = window.get(comparison.outer)
    if alone is not None:
        return alone
    if comparison.breached:
        return Verdict.BREACHED
    if outer is None or not outer.requests:
        return Verdict.NO_DATA
    return Verdict.WITHIN if comparison.is_within else Verdict.COLLECTING
