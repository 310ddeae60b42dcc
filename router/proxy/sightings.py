"""Users whom the hash sorted, and in which ring, until the next report to control."""

from __future__ import annotations

from typing import Final

from router.core.snapshot import Snapshot
from router.telemetry.messages import Seen

MOST_GENERATIONS: Final = 4
"""In one report: with more changes in a second, the oldest are left out."""


class Sightings:
    """``now`` is what requests write: by the service's index, a user's digest → the ring's place."""

    __slots__ = ("_before", "_snapshot", "now")

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._before: list[Seen] = []
        """The same of earlier snapshots."""
        self.now: list[dict[int, int]] = []

    def begin(self, snapshot: Snapshot) -> None:
        """From here on this snapshot decides."""
        self._put_away()
        self._snapshot = snapshot
        self.now = [{} for _ in snapshot.services]

    def take(self) -> list[Seen]:
        """Who was seen since the last time: each generation by itself, the oldest first."""
        self._put_away()
        taken, self._before = self._before, []
        return taken

    def _put_away(self) -> None:
        if self._snapshot is None:
            return
        services = zip(self._snapshot.services, self.now, strict=True)
        users = {service.spec.name: users for service, users in services if users}
        if users:
            self._before = [*self._before[1 - MOST_GENERATIONS :], Seen(self._snapshot.generation, users)]
            self.now = [{} for _ in self.now]
