"""Users as units: each counts once in a round, by what happened to them in a window from when they are first seen.

Randomised are users, so users are what is counted (Deng, Knoblich & Lu 2018, arXiv 1803.06336): requests of one broken
client are not independent, and an A/A test in requests cries wolf. A *round* begins with each step and each delayed
start of the harm tests. A user who is seen in a round and has no open window gets one, of so many ticks; when it
closes, the user is one unit of every guardrail, and that is all they are until the next round.

* Whose version changes while a window is open belongs to neither side, and is left out.
* A new step drops the windows that are open: they are of another exposure.
* Sides are compared within a stratum: users whom the hash sorted are one; the members of a ring that people chose to be
  in are another, where a holdback keeps some of them on the version further out.

What is kept is bounded, and can be made again by whoever takes over: who was first seen when (``Note``) and the ticks
of one window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from router.rollout.observation import Cohort
from router.rollout.plan import Guardrail, Plan
from router.rollout.statistics.latency import Earlier
from router.telemetry.evidence import CLIENT_ERROR, FAILED, LEFT, SLICES, ArmKey, slice_of

_Figures = TypeVar("_Figures")
_CODES: Final = {"errors": FAILED, "http_4xx": CLIENT_ERROR, "aborts": LEFT}
Counts = Mapping[int, int]
"""Of one user: code → requests, see ``telemetry.evidence``."""
NOTHING: Final[Counts] = {}
Users = Mapping[ArmKey, Mapping[int, Counts]]
Waiting = Mapping[ArmKey, Mapping[int, Sequence[int]]]
"""Arm → user → the buckets of the ages of what is in flight."""
MOST_USERS: Final = 200_000
"""Of a rollout; then nobody is taken in who was never seen before."""


class Note(NamedTuple):
    """What has to be remembered of a user: their last round, the tick in which their window there began, and since
    which round they had not been seen."""

    round: int
    first: int
    since: int


@dataclass(slots=True)
class _Watched:
    note: Note
    stratum: str
    is_ring: bool
    counts: dict[int, int] = field(default_factory=dict)
    is_mixed: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """What a tick gave. ``notes`` are those who are new, to be kept where others find them."""

    cohorts: tuple[Cohort, ...]
    slices: tuple[tuple[str, tuple[int, ...], tuple[float, ...]], ...]
    ring_requests: int
    ring_errors: int
    failing_slices: int
    control_requests: int
    control_errors: int
    users_hurt: int
    """Of the ring, users to whom a request failed for the first time."""
    notes: Mapping[int, Note]


class Cohorts:
    """The users of one rollout. Mutable, but nothing else than what it is told moves it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._ticks = max(1, round(plan.window / plan.tick))
        self._chosen: frozenset[str] = frozenset()
        self._latencies = [one for one in plan.guardrails if one.latency is not None]
        self._outcomes = [one for one in plan.guardrails if one.outcome is not None]
        self._notes: dict[int, Note] = {}
        self._open: dict[int, _Watched] = {}
        self._hurt: set[int] = set()
        self._edges: dict[int, dict[str, int | None]] = {}
        """Tick → latency guardrail → edge, of the ticks in which an open window began."""
        self.earlier = Earlier()
        self.round = 0
        self.step_round = 0
        self._clean_tick = 0
        self.arrived = [0, 0]

    def begin_step(self, round_: int, clean_tick: int, chosen: Iterable[str]) -> None:
        """A new step: its round begins. ``clean_tick`` is the first whose users count: before it some were routed
        otherwise. ``chosen`` are rings whose members are compared among each other."""
        self.begin_round(round_)
        self._clean_tick = clean_tick
        self.step_round = round_
        self._open.clear()
        self._chosen = frozenset(chosen)
        self.arrived = [0, 0]

    def begin_round(self, round_: int) -> None:
        self.round = round_

    @property
    def edges(self) -> Mapping[int, Mapping[str, int | None]]:
        """Tick → the edges that users are judged by who were first seen in it; of windows that are open."""
        return self._edges

    def resume(
        self, round_: int, step_round: int, clean_tick: int, chosen: Iterable[str], notes: Mapping[int, Note],
        edges: Mapping[int, Mapping[str, int | None]], earlier: Earlier, arrived: tuple[int, int],
        ticks: Sequence[tuple[int, Users, Waiting]],
    ) -> None:  # fmt: skip
        """Take over where somebody else has left off: ``ticks`` are those of one window, up to the last one taken."""
        self.round, self.step_round, self._chosen = round_, step_round, frozenset(chosen)
        self._clean_tick = clean_tick
        self._notes, self.earlier = dict(notes), earlier
        self._edges = {tick: dict(one) for tick, one in edges.items()}
        self.arrived = [*arrived]
        over = ticks[-1][0] + 1 if ticks else 0
        for tick, users, pending in ticks:
            there = [*self._sorted(users), *((*one[:3], NOTHING) for one in self._sorted(pending))]
            for stratum, is_ring, digest, counts in there:
                note = self._notes.get(digest)
                if note is None or note.round < step_round or note.first > tick or note.first + self._ticks <= over:
                    continue
                known = self._open.setdefault(digest, _Watched(note, stratum, is_ring))
                _add(known, stratum, is_ring, counts)

    def take(self, tick: int, users: Users, pending: Waiting) -> Taken:
        """The requests that ended in a tick, and those that are still in flight at its end."""
        self._edges[tick] = {
            one.name: self.earlier.edge(one.latency.quantile, one.latency.shift_buckets)
            for one in self._latencies
            if one.latency is not None
        }
        fresh: dict[int, Note] = {}
        totals = [[0, 0], [0, 0]]
        failing, histogram, hurt = 0, dict[int, int](), len(self._hurt)
        for stratum, is_ring, digest, counts in self._sorted(users):
            known = self._open.get(digest) or self._opened(digest, tick, stratum, is_ring, fresh)
            if known is not None:
                _add(known, stratum, is_ring, counts)
            failed = counts.get(FAILED, 0)
            total = totals[0 if is_ring else 1]
            total[1] += failed
            for code, count in counts.items():
                if code < FAILED:
                    total[0] += count
                    if not is_ring:
                        histogram[code] = histogram.get(code, 0) + count
            if failed and is_ring:
                failing |= 1 << slice_of(digest)
                self._hurt.add(digest)
        waits: dict[int, Sequence[int]] = {}
        for stratum, is_ring, digest, ages in self._sorted(pending):
            waits[digest] = ages
            known = self._open.get(digest) or self._opened(digest, tick, stratum, is_ring, fresh)
            if known is not None:
                _add(known, stratum, is_ring, {})
        cohorts, slices = self._close(tick, waits)
        self.earlier = self.earlier.after(histogram)
        return Taken(
            cohorts,
            slices,
            totals[0][0],
            totals[0][1],
            failing,
            totals[1][0],
            totals[1][1],
            len(self._hurt) - hurt,
            fresh,
        )

    def _sorted(self, users: Mapping[ArmKey, Mapping[int, _Figures]]) -> Iterable[tuple[str, bool, int, _Figures]]:
        """Stratum, side, user and figures of all who can be compared."""
        for (ring, version, kind), mine in users.items():
            stratum = "hash" if kind == "hash" else ring
            if (kind == "hash" or ring in self._chosen) and version in (self._plan.candidate, self._plan.stable):
                is_ring = version == self._plan.candidate
                for digest, figures in mine.items():
                    yield stratum, is_ring, digest, figures

    def _opened(self, digest: int, tick: int, stratum: str, is_ring: bool, fresh: dict[int, Note]) -> _Watched | None:
        """A user without an open window: one for those who are new in this round."""
        if tick < self._clean_tick:
            return None
        before = self._notes.get(digest)
        if before is not None and before.round >= self.round:
            return None
        if before is None and len(self._notes) >= MOST_USERS:
            return None
        is_new = before is None or before.round < self.step_round
        note = Note(self.round, tick, 1 if before is None else before.round + 1)
        self._notes[digest] = fresh[digest] = note
        if is_new and stratum == "hash":
            self.arrived[0 if is_ring else 1] += 1
        known = self._open[digest] = _Watched(note, stratum, is_ring)
        return known

    def _close(
        self, tick: int, waits: Mapping[int, Sequence[int]]
    ) -> tuple[tuple[Cohort, ...], tuple[tuple[str, tuple[int, ...], tuple[float, ...]], ...]]:
        sums: dict[tuple[str, str, int, int], list[float]] = {}
        slices: dict[str, tuple[list[int], list[float]]] = {}
        over = [digest for digest, one in self._open.items() if one.note.first + self._ticks - 1 <= tick]
        for digest in over:
            one = self._open.pop(digest)
            if one.is_mixed:
                continue
            for guardrail, outcome in self._judged(one, waits.get(digest, ())):
                total = sums.setdefault((guardrail, one.stratum, one.note.since, one.note.round), [0, 0.0, 0, 0.0])
                at = 0 if one.is_ring else 2
                total[at] += 1
                total[at + 1] += outcome
                if not one.is_ring:
                    units, outcomes = slices.setdefault(guardrail, ([0] * SLICES, [0.0] * SLICES))
                    units[slice_of(digest)] += 1
                    outcomes[slice_of(digest)] += outcome
        for begun in [begun for begun in self._edges if begun + self._ticks <= tick]:
            del self._edges[begun]
        cohorts = [
            Cohort(*key, int(total[0]), round(total[1], 9), int(total[2]), round(total[3], 9))
            for key, total in sorted(sums.items())
        ]
        return tuple(cohorts), tuple(
            (name, tuple(units), tuple(round(one, 9) for one in outcomes))
            for name, (units, outcomes) in sorted(slices.items())
        )

    def _judged(self, one: _Watched, ages: Sequence[int]) -> Iterable[tuple[str, float]]:
        for guardrail in self._outcomes:
            yield guardrail.name, float(one.counts.get(_CODES[guardrail.outcome or "errors"], 0) > 0)
        edges = self._edges.get(one.note.first, {})
        for guardrail in self._latencies:
            edge = edges.get(guardrail.name)
            if edge is not None:
                share = _share_above(one, ages, edge, guardrail)
                if share is not None:
                    yield guardrail.name, share


def _add(known: _Watched, stratum: str, is_ring: bool, counts: Counts) -> None:
    known.is_mixed |= known.is_ring is not is_ring or known.stratum != stratum
    for code, count in counts.items():
        known.counts[code] = known.counts.get(code, 0) + count


def _share_above(one: _Watched, ages: Sequence[int], edge: int, guardrail: Guardrail) -> float | None:
    """Of a user's requests, those that took longer than the edge, or are in flight for longer: a ring that hangs
    completes nothing, and would never be slow."""
    if one.is_ring and guardrail.latency is not None:
        edge += guardrail.latency.shift_buckets
    waiting = sum(age >= edge for age in ages)
    requests = sum(count for code, count in one.counts.items() if code < FAILED) + waiting
    above = sum(count for code, count in one.counts.items() if edge <= code < FAILED) + waiting
    return above / requests if requests else None
