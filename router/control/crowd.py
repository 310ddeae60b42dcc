"""Users whom the hash sorted lately, and in which ring: who of them is seen further out than before. Pure.

A worker may still route by an older snapshot while another has the next one: what an older generation says after a
newer one counts for nothing. The table is bounded; whoever was not seen for longest falls out of it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final

from router.core.spec import SnapshotSpec
from router.telemetry.messages import Seen

MOST_USERS: Final = 50_000
"""Of all services; some 15 MiB."""
_User = tuple[str, int]
"""Service, and the digest that its bucket is taken from."""
_Seat = tuple[int, int, int, int]
"""Generation, the ring's place, the mark that was in force when the user was handed on, and the generation since which
weights were as they are when the user was counted among those who arrived."""


class Crowd:
    """Who is where."""

    def __init__(self, most: int = MOST_USERS) -> None:
        self._most = most
        self._seats: OrderedDict[_User, _Seat] = OrderedDict()
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
        return len(self._seats)

    def installed(self, spec: SnapshotSpec) -> None:
        """A new snapshot. Places among other rings cannot be compared, nor what is hashed with another salt."""
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
        seats, news = self._seats, []
        weights_since, arrived = self._weights_since[service], self._arrived[service]
        is_counting = self._is_counting[service] and generation >= weights_since
        for digest, place in users.items():
            user = (service, digest)
            before, had, marked, counted = seats.get(user, (since, -1, -1, -1))
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
            seats[user] = (generation_now, place_now, mark, counted)
            seats.move_to_end(user)
        while len(seats) > self._most:
            (name, _), seat = seats.popitem(last=False)
            if seat[3] >= self._weights_since.get(name, 0):
                self._is_counting[name] = False
        return news
