"""Users whom the hash sorted lately, and in which ring: who of them is seen further out than before. Pure.

A worker may still route by an older snapshot while another has the next one: what an older generation says after a
newer one counts for nothing. The table is bounded; whoever was not seen for long falls out of it.

Thousands may be told of in a second, and the workers wait meanwhile where they share a core with control: for a user of
whom there is nothing new it is one look, and one comparison.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from router.core.spec import SnapshotSpec
from router.telemetry.messages import Seen

MOST_USERS: Final = 50_000
"""Of all services: so many are remembered at least, and never more than twice as many and those of two reports."""
_Seat = tuple[int, int, int, int]
"""Generation, the ring's place, the mark that was in force when the user was handed on, and the generation since which
weights were as they are when the user was counted among those who arrived."""
_Seats = dict[str, dict[int, _Seat]]
"""Service → the digest that the bucket is taken from → the user's seat."""
_NOBODYS: Final[_Seat] = (-1, -1, -1, -1)


class Crowd:
    """Who is where."""

    def __init__(self, most: int = MOST_USERS) -> None:
        self._most = most
        self._seats: _Seats = {}
        self._seated = 0
        """In ``_seats``. When they are too many, all of them are old."""
        self._old: _Seats = {}
        """Those who were not seen since. They go when the next ones are old."""
        self._kinds: dict[_Seat, _Seat] = {}
        """Seats that are equal are one: few differ."""
        self._rings: dict[str, tuple[str, ...]] = {}
        self._since: dict[str, int] = {}
        """Service → the generation that it has had these rings, in this order and by this salt, since."""
        self._weights: dict[str, tuple[object, ...]] = {}
        self._weights_since: dict[str, int] = {}
        """Service → the generation that its weights are as they are since."""
        self._is_counting: dict[str, bool] = {}
        self._arrived: dict[str, list[int]] = {}
        self.flips: Counter[str] = Counter()
        """Service → users seen in a ring further out than in an earlier generation."""

    def __len__(self) -> int:
        return self._seated + sum(map(len, self._old.values()))

    def installed(self, spec: SnapshotSpec) -> None:
        """A new snapshot. Places among other rings cannot be compared, nor what is hashed with another salt."""
        self._kinds.clear()
        for service in spec.services:
            rings = (service.salt, *(ring.name for ring in service.rings))
            if self._rings.get(service.name) != rings:
                self._rings[service.name] = rings
                self._since[service.name] = spec.generation
            weights = (rings, service.killed, *(ring.basis_points for ring in service.rings))
            if self._weights.get(service.name) != weights:
                self._weights[service.name] = weights
                self._weights_since[service.name] = spec.generation
                self._arrived[service.name] = [0] * len(service.rings)
                self._is_counting[service.name] = True

    def arrived(self, service: str) -> list[int]:
        """Ring's place → users whom the hash put there since weights are as they are, each counted once.

        When one of them falls out of the table the count stands still: they would be counted again.
        """
        return self._arrived.get(service, [])

    def saw(self, seen: Seen, mark: int) -> dict[str, list[int]]:
        """Note what a worker saw. Returns service → users that were not returned before with this mark."""
        news: dict[str, list[int]] = {}
        for service, users in seen.users.items():
            since = self._since.get(service)
            if since is not None and seen.generation >= since:
                found = self._note(service, users, seen.generation, since, mark)
                if found:
                    news[service] = found
        return news

    def _note(self, service: str, users: Mapping[int, int], generation: int, since: int, mark: int) -> list[int]:
        seats, old, news = self._seats.setdefault(service, {}), self._old.get(service, {}), []
        weights_since, arrived = self._weights_since[service], self._arrived[service]
        is_counting = self._is_counting[service] and generation >= weights_since
        known, before_all, kinds = len(seats), (since, -1, -1, -1), self._kinds
        settled: dict[int, _Seat] = {}  # place → a seat that stays as it is when its user is seen there
        for digest, place in users.items():
            seat = seats.get(digest, _NOBODYS)
            if seat is settled.get(place):
                continue
            if seat is _NOBODYS:
                seat = old.pop(digest, before_all)
            before, had, marked, counted = seat
            if marked != mark:
                news.append(digest)
            if generation < before:  # an older snapshot's word
                generation_now, place_now = before, had
            elif before < since or had < 0:
                generation_now, place_now = generation, place
            else:
                if generation > before and place > had:
                    self.flips[service] += 1
                generation_now, place_now = generation, place if generation > before else max(place, had)
            if is_counting and counted < weights_since:
                arrived[place] += 1
                counted = weights_since
            seat = (generation_now, place_now, mark, counted)
            seats[digest] = settled[place] = kinds.setdefault(seat, seat)
        self._seated += len(seats) - known
        if self._seated >= self._most:
            self._turn()
        return news

    def _turn(self) -> None:
        """Forget the old; whoever is here is old from now on."""
        for service, users in self._old.items():
            since = self._weights_since.get(service, 0)
            if self._is_counting.get(service) and any(seat[3] >= since for seat in users.values()):
                self._is_counting[service] = False
        self._old, self._seats, self._seated = self._seats, {}, 0
