"""Users whom the hash sorted, and in which ring, until the next report to control: those it has not heard of lately.

Most users of a second are those of the second before. Telling all of them each time would stop the worker, and control
on the same core, for milliseconds, which the slowest hundredth of all requests feels. So a table of fixed size knows
who was told of: two digests have a place in it beside one another, and whom a third one drives out is told of anew.
"""

from __future__ import annotations

from typing import Final

from router.core.snapshot import Snapshot
from router.telemetry.messages import Seen

MOST_SEEN: Final = 8192
"""Users of a service in one report: some 100 KiB."""
MOST_GENERATIONS: Final = 4
"""In one report: with more changes in a second, the oldest are left out."""
SLOTS: Final = 1 << 15
"""256 KiB, and as many integers again where all are taken."""
TOLD_AGAIN: Final = 60
"""In so many reports everybody is told of once more, a part in each: control forgets whom it does not hear of."""

NOBODY: Final = -1


class Sightings:
    """Of one worker."""

    __slots__ = ("_before", "_end", "_firsts", "_forgotten", "_now", "_snapshot", "_told")

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._before: list[Seen] = []
        """Those to be told of, by earlier snapshots."""
        self._now: list[dict[int, int]] = []
        """By the service's index: digest → the ring's place."""
        self._told: list[int] = [NOBODY] * SLOTS
        """Slot → the digest that was told of."""
        self._firsts: list[int] = []
        """By the service's index: how far the slots of its first ring are shifted. No two rings, nor one in two
        snapshots, are shifted as far, so a digest that is found was told of in this ring, and by this snapshot."""
        self._end = 0
        """The first shift that no ring has had."""
        self._forgotten = 0

    def begin(self, snapshot: Snapshot) -> None:
        """From here on this snapshot decides."""
        self._put_away()
        self._snapshot = snapshot
        self._start_over()

    def saw(self, service: int, place: int, digest: int) -> None:
        """A request of this user goes into the ring at this place. Of two in one report the outer one is told."""
        told = self._told
        slot = ((digest & SLOTS - 1) + 2 * (self._firsts[service] + place)) & SLOTS - 1
        if told[slot] != digest and told[slot ^ 1] != digest:
            seen = self._now[service]
            if len(seen) < MOST_SEEN:
                if told[slot] != NOBODY:
                    told[slot ^ 1] = told[slot]
                told[slot] = digest
                if digest not in seen or seen[digest] < place:
                    seen[digest] = place

    def take(self, *, whole: bool = False) -> list[Seen]:
        """Who is to be told of: each generation by itself, the oldest first. After ``whole`` nobody was told of."""
        self._put_away()
        if whole:
            self._start_over()
        else:
            step = -(-SLOTS // TOLD_AGAIN)
            end = min(self._forgotten + step, SLOTS)
            self._told[self._forgotten : end] = [NOBODY] * (end - self._forgotten)
            self._forgotten = end % SLOTS
        taken, self._before = self._before, []
        return taken

    def _start_over(self) -> None:
        """Nobody was told of anybody: other slots from here on, and a new table when there are none left."""
        if self._snapshot is None:
            return
        services = self._snapshot.services
        self._now = [{} for _ in services]
        if self._end + sum([len(service.spec.rings) for service in services]) > SLOTS // 2:
            self._told, self._end = [NOBODY] * SLOTS, 0
        self._firsts = []
        for service in services:
            self._firsts.append(self._end)
            self._end += len(service.spec.rings)

    def _put_away(self) -> None:
        if self._snapshot is None:
            return
        services = zip(self._snapshot.services, self._now, strict=True)
        users = {service.spec.name: users for service, users in services if users}
        if users:
            self._before = [*self._before[1 - MOST_GENERATIONS :], Seen(self._snapshot.generation, users)]
            self._now = [{} for _ in self._now]
