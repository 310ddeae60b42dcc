"""Users whom the hash sorted, and in which ring, until the next report to control: those it has not heard of lately.

Most users of a second are those of the second before. Telling all of them each time would stop the worker, and control
on the same core, for milliseconds, which the slowest hundredth of all requests feels. So a table of fixed size knows
who was told of: two digests have a place in it beside one another, and whom a third one drives out is told of anew.
"""

from __future__ import annotations

from typing import Final

from router.core.snapshot import Snapshot
from router.telemetry.messages import Seen

MOST_SEEN: Final = 16_384
"""Users in one report: some 200 KiB. The others are told of when they come again."""
MOST_GENERATIONS: Final = 4
"""In one report: with more changes in a second, the oldest are left out."""
SLOTS: Final = 1 << 15
"""256 KiB, and as many integers again where all are taken."""
TOLD_AGAIN: Final = 60
"""In so many reports everybody is told of once more, a part in each: control forgets whom it does not hear of."""
MOST_RINGS: Final = 1 << 24
"""More than all services of a snapshot have."""
NOBODY: Final = -1


class Sightings:
    """Of one worker."""

    __slots__ = ("_before", "_end", "_first", "_forgotten", "_news", "_room", "_snapshot", "_stride", "_told")

    def __init__(self) -> None:
        self._first = 0
        self._stride = 0
        """A ring's slots are shifted by ``_first`` + service × ``_stride`` + place. No two rings, nor one in two
        snapshots, are shifted as far, as long as there are fewer than half of ``SLOTS``: so a digest that is found was
        told of in this ring, and by this snapshot."""
        self._told: list[int] = [NOBODY] * SLOTS
        """Slot → the digest that was told of."""
        self._news: list[int] = []
        """Those to be told of: digest × ``MOST_RINGS`` + service × ``_stride`` + place. Numbers, because pairs would be
        so many things that the garbage collector comes to look at."""
        self._room = MOST_SEEN
        """For so many more of them."""
        self._end = 0
        """The first shift that no ring has had."""
        self._snapshot: Snapshot | None = None
        self._before: list[Seen] = []
        """The same of earlier snapshots."""
        self._forgotten = 0
        """Up to this slot, in this round."""

    def begin(self, snapshot: Snapshot) -> None:
        """From here on this snapshot decides."""
        self._put_away()
        self._snapshot = snapshot
        self._start_over()

    def saw(self, service: int, place: int, digest: int) -> None:
        """A request of this user goes into the ring at this place of the service with this index."""
        told = self._told
        ring = service * self._stride + place
        slot = ((digest & SLOTS - 1) + 2 * (self._first + ring)) & SLOTS - 1
        if told[slot] != digest and told[slot ^ 1] != digest and self._room > 0:
            if told[slot] != NOBODY:
                told[slot ^ 1] = told[slot]
            told[slot] = digest
            self._news.append(digest * MOST_RINGS + ring)
            self._room -= 1

    def take(self, *, whole: bool = False) -> list[Seen]:
        """Who is to be told of: each generation by itself, the oldest first. After ``whole`` nobody was told of."""
        self._put_away()
        if whole:
            self._start_over()
        else:
            end = min(self._forgotten + SLOTS // TOLD_AGAIN + 1, SLOTS)
            self._told[self._forgotten : end] = [NOBODY] * (end - self._forgotten)
            self._forgotten = end % SLOTS
        taken, self._before = self._before, []
        return taken

    def _start_over(self) -> None:
        """Nobody was told of anybody: other slots from here on, and a new table when there are none left."""
        if self._snapshot is None:
            return
        services = self._snapshot.services
        self._stride = max([len(service.spec.rings) for service in services], default=0)
        self._first, self._end = self._end, self._end + len(services) * self._stride
        if self._end > SLOTS // 2:
            self._told, self._first, self._end = [NOBODY] * SLOTS, 0, self._end - self._first

    def _put_away(self) -> None:
        if self._snapshot is None or not self._news:
            return
        users: dict[str, dict[int, int]] = {}
        services, stride = self._snapshot.services, self._stride
        for number in self._news:
            digest, ring = divmod(number, MOST_RINGS)
            seen = users.setdefault(services[ring // stride].spec.name, {})
            place = ring % stride
            if digest not in seen or seen[digest] < place:  # of two in one report the outer one is told
                seen[digest] = place
        self._before = [*self._before[1 - MOST_GENERATIONS :], Seen(self._snapshot.generation, users)]
        self._news, self._room = [], MOST_SEEN
