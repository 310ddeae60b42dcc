"""The members of every service's rings: which table each is served from, and what there is to say about them.

Composes one sync per service with the directory where tables lie, and hears of changes from the watcher. Without Redis
in the config there is none: the config file alone decides. What is bad about a set is said once, and changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from router.control.keys import members_key, members_place
from router.control.link import BadURL, make_client
from router.control.member_sync import LONG_LOOSE, ServiceSync
from router.control.ring_table import RingTable, TableDirectory
from router.control.watch import LinkState
from router.core.spec import SnapshotSpec
from router.telemetry.tasks import end, spawn

AT_A_TIME: Final = 4
"""Services that are read at a time: so many connections, however many services there are."""
FIRST_SECONDS: Final = 0.5
"""How long a start waits, so that short lists are there from the first snapshot on."""


@dataclass(frozen=True, slots=True)
class MembersFigures:
    """What is shown of one service's members."""

    counts: Mapping[str, int]
    """Ring → members that are served."""
    age_seconds: float
    """Since the tables were last known to be as Redis is."""
    round_seconds: float
    """What the last change took, from its news to the tables."""


class Members:
    """``on_tables`` is called in the loop when ``tables`` has other paths, from the end of ``first`` on."""

    def __init__(
        self,
        url: str | None,
        rings: Mapping[str, tuple[str, ...]],
        state_dir: Path,
        on_tables: Callable[[], None],
        runtime: Path | None = None,
        log: Any = None,
    ) -> None:
        self._url = url
        self._on_tables = on_tables
        self._log = structlog.get_logger(__name__) if log is None else log
        self._directory = TableDirectory(state_dir, runtime)
        self._gate = asyncio.Semaphore(AT_A_TIME)
        self._client: Redis | None = None
        self._rings = dict(rings)
        self._syncs: dict[str, ServiceSync] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._said: dict[tuple[str, str], float] = {}
        self._is_first = True
        self._is_polling = False
        self._started_at = time.monotonic()
        self._has_said_disk = False
        self._said_long: set[tuple[str, str]] = set()

    def __repr__(self) -> str:
        return f"<Members {list(self._syncs.values())}>"

    # -- what others look at -------------------------------------------------------------------------------------------

    @property
    def tables(self) -> dict[tuple[str, str], str]:
        """(service, ring) → the file of its table; of those that have one."""
        return {
            (name, ring): table.path
            for name, sync in self._syncs.items()
            for ring, table in sync.tables.items()
            if table.path
        }

    def counts(self, service: str) -> dict[str, int]:
        """Ring → members, of the rings that have a table."""
        sync = self._syncs.get(service)
        return {} if sync is None else {ring: table.count for ring, table in sync.tables.items() if table.path}

    def refused(self, service: str) -> list[str]:
        """Why some members are not what Redis says now."""
        sync = self._syncs.get(service)
        return [] if sync is None else [why for _, why in sorted(sync.held.items())]

    def notes(self, service: str) -> list[str]:
        """What is applied and should be done in another way."""
        sync = self._syncs.get(service)
        return [] if sync is None else [_say_long(service, ring) for ring in sorted(sync.is_long)]

    def figures(self) -> dict[str, MembersFigures]:
        """Service → figures, of the services that have members."""
        now = time.monotonic()
        return {
            name: MembersFigures(counts, now - (sync.synced_at or self._started_at), sync.seconds)
            for name, sync in self._syncs.items()
            if (counts := self.counts(name))
        }

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve the tables of the last time; ``link`` says when there is a Redis to follow."""
        if self._url is None:
            return
        try:
            self._client = make_client(self._url)
        except BadURL:
            return  # the store says so
        self.update(self._rings)
        for sync in self._syncs.values():
            await sync.load()

    async def first(self) -> None:
        """Until everything has been read once, or half a second is over."""
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                for sync in list(self._syncs.values()):
                    await sync.was_complete.wait()
        except TimeoutError:
            pass
        self._is_first = False

    async def stop(self) -> None:
        """End all tasks. The tables stay, for the next start and for workers that start meanwhile."""
        await end(*self._tasks.values())
        for sync in self._syncs.values():
            for table in sync.tables.values():
                table.close(is_gone=False)
        if self._client is not None:
            await self._client.aclose()

    def update(self, rings: Mapping[str, tuple[str, ...]]) -> None:
        """The config file has changed: service → its rings. Does not call ``on_tables``."""
        self._rings = dict(rings)
        if self._client is None:
            return
        for name in self._syncs.keys() - rings.keys():
            spawn(self._leave(self._syncs.pop(name), self._tasks.pop(name)), name=f"end of the members of {name}")
        for name, names in rings.items():
            sync = self._syncs.get(name)
            if sync is None:
                tables = {ring: RingTable(self._directory, f"{name}.{ring}") for ring in names}
                sync = ServiceSync(name, tables, self._client, self._gate, self._published, self._failed)
                sync.is_polling = self._is_polling
                self._syncs[name] = sync
                self._tasks[name] = spawn(sync.run(), name=f"members of {name}")
                if not self._is_first:
                    sync.survey()
            elif set(names) != set(sync.tables):
                sync.want(names, self._directory)

    async def _leave(self, sync: ServiceSync, task: asyncio.Task[None]) -> None:
        await end(task)
        for table in sync.tables.values():
            table.close(is_gone=True)

    def sweep(self, spec: SnapshotSpec) -> None:
        """Every worker routes by this snapshot now: tables that it does not name are needed no more."""
        served = frozenset(path for service in spec.services for ring in service.rings for path in ring.tables)
        for sync in self._syncs.values():
            for table in sync.tables.values():
                table.sweep(served)

    # -- what the watcher tells ----------------------------------------------------------------------------------------

    def link(self, state: LinkState) -> None:
        """The watcher's connection is there again, or gone."""
        if state == "down":
            return
        self._is_polling = state == "poll"
        for sync in self._syncs.values():
            sync.is_polling = self._is_polling
            sync.survey()

    def touched(self, key: bytes) -> None:
        place = members_place(key)
        if place is not None and (sync := self._syncs.get(place[0])) is not None:
            sync.touched(place[1])

    def lost(self) -> None:
        for sync in self._syncs.values():
            sync.survey()

    def revision(self, service: str, revision: bytes | None) -> None:
        sync = self._syncs.get(service)
        if sync is not None:
            sync.revision(revision)

    # -- what the syncs tell -------------------------------------------------------------------------------------------

    def _published(self) -> None:
        if self._directory.trouble is not None and not self._has_said_disk:
            self._log.warning(
                f"member tables cannot be kept in the state directory ({self._directory.trouble}): a restart while "
                f"Redis is away would begin without them. Set `state_dir` to a writable directory."
            )
        self._has_said_disk = self._directory.trouble is not None
        for name, sync in self._syncs.items():
            for ring in sync.is_long:
                if (name, ring) not in self._said_long:
                    self._said_long.add((name, ring))
                    self._log.warning(_say_long(name, ring), service=name)
        if not self._is_first:
            self._on_tables()

    def _failed(self, service: str, why: str) -> None:
        """Once per minute and sentence."""
        now = time.monotonic()
        self._said = {key: at for key, at in self._said.items() if now - at < 60.0}
        if (service, why) not in self._said:
            self._said[service, why] = now
            self._log.warning(f"members: {why}", service=service)


def _say_long(service: str, ring: str) -> str:
    key = members_key(service, ring)
    return (
        f"{key} has more than {LONG_LOOSE:,} members: each change of it means to read all of them. "
        f"`ring-router members import {ring} FILE --service {service}` keeps them in shards."
    )
