"""One instance's evidence of one service: the tick that fills, and the parts that wait to be written. Pure.

A request counts in the tick in which a worker's report of it arrives. That is up to a second late, the same for all
sides of a comparison, and it makes a tick whole the moment it is over: nothing that comes later belongs to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from router.telemetry.evidence import FAILED, Codes, Finished, Pending, TickPart, pack
from router.telemetry.messages import Users

MOST_USERS: Final = 100_000
"""In one part: some 1.5 MB in Redis, and twenty times that here while it fills."""
KEPT_SECONDS: Final = 900.0
"""How long parts wait for a Redis that is away."""
KEPT_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Following:
    """What a service's rollout wants to be told. ``tick`` and ``window`` in seconds; ``keep_ppm``: of the users who do
    not have the candidate, those of a million who are counted."""

    candidate: str
    tick: float
    keep_ppm: int
    window: float


class Facts(NamedTuple):
    """What else is known of a service at a moment; ``finished`` is cumulative."""

    finished: int
    open_breakers: int
    arrived: list[int]


class Gathering:
    """``took`` whatever a worker says, ``look`` now and then; ``waiting`` is what Redis should have."""

    def __init__(self, following: Following, facts: Callable[[], Facts], now: float) -> None:
        self.following = following
        self._facts = facts
        self.tick = self._tick_of(now)
        self._since = now
        """When this tick began, or the watching of it."""
        self._before = facts().finished
        self._finished: Finished = {}
        self._users = 0
        self._dropped = 0
        self._pending: dict[int, Pending] = {}
        """By the worker's process id: its latest look."""
        self.waiting: dict[int, bytes] = {}
        """Tick → its whole part."""
        self.lost = 0
        """Parts that waited for too long."""

    def _tick_of(self, now: float) -> int:
        return int(now // self.following.tick)

    @property
    def ends_at(self) -> float:
        """When the tick that fills is over."""
        return (self.tick + 1) * self.following.tick

    @property
    def is_small(self) -> bool:
        """Whether what came so far is worth writing again and again."""
        return self._users * 5 <= MOST_USERS

    def took(self, worker: int, users: Users, service: str, now: float) -> None:
        """A worker's report."""
        self.look(now)
        self._dropped += users.dropped.get(service, 0)
        self._pending[worker] = users.pending.get(service, {})
        for arm, some in users.finished.get(service, {}).items():
            mine = self._finished.setdefault(arm, {})
            for digest, codes in some.items():
                known = mine.get(digest)
                if known is not None:
                    for code, count in codes.items():
                        known[code] = known.get(code, 0) + count
                elif self._users < MOST_USERS:
                    mine[digest] = codes
                    self._users += 1
                else:
                    self._dropped += _requests(codes)

    def look(self, now: float) -> None:
        """Let time pass. A clock that was put right by a little does not open a tick that was over."""
        tick = self._tick_of(now)
        if tick in (self.tick, self.tick - 1):
            return
        facts = self._facts()
        self.waiting[self.tick] = pack(self._part(facts, self.ends_at, is_done=True))
        self.tick, self._since, self._before = tick, tick * self.following.tick, facts.finished
        self._finished, self._users, self._dropped = {}, 0, 0
        while self.waiting and self._is_too_much(tick):
            del self.waiting[min(self.waiting)]
            self.lost += 1

    def _is_too_much(self, tick: int) -> bool:
        oldest = (tick - min(self.waiting)) * self.following.tick
        return oldest > KEPT_SECONDS or sum(map(len, self.waiting.values())) > KEPT_BYTES

    def part(self, now: float) -> bytes:
        """The tick that fills, as it is."""
        return pack(self._part(self._facts(), now, is_done=False))

    def _part(self, facts: Facts, until: float, *, is_done: bool) -> TickPart:
        return TickPart(
            is_done=is_done, seconds=round(max(0.0, until - self._since), 3), finished=self._finished,
            pending=_together(self._pending.values()), all_requests=facts.finished - self._before,
            open_breakers=facts.open_breakers, arrived=facts.arrived, dropped=self._dropped,
        )  # fmt: skip

    def keep_workers(self, there: Iterable[int]) -> None:
        """What the others had under way is over."""
        known = set(there)
        for gone in [worker for worker in self._pending if worker not in known]:
            del self._pending[gone]


def _requests(codes: Codes) -> int:
    return sum(count for code, count in codes.items() if code < FAILED)


def _together(several: Iterable[Pending]) -> Pending:
    total: Pending = {}
    for pending in several:
        for arm, users in pending.items():
            mine = total.setdefault(arm, {})
            for digest, ages in users.items():
                mine[digest] = [*mine.get(digest, ()), *ages]
    return total
