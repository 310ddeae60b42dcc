"""All members: a table for each ring that Redis lists somebody for, and one for each file of users.

Holds the tables and the tasks that keep them; what a task does is in ``member_sync``, what a table is in
``ring_table``. The tables that were good last are served from the start on, also while Redis is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from xxhash import xxh64_intdigest

from router.config.compile import Tables
from router.config.files import keys_in
from router.control.keys import members_place
from router.control.link import BadURL, error_text, hang_up, make_client
from router.control.member_sync import LONG_LOOSE, ServiceSync
from router.control.ring_keys import RingKeys
from router.control.ring_table import RingTable, TableDirectory
from router.core.spec import SnapshotSpec
from router.telemetry.tasks import end, spawn

FIRST_SYNC_SECONDS: Final = 0.5
"""How long a start waits for tables: with those the first snapshot is whole."""
AT_ONCE: Final = 2
"""Services that read their members at the same time: a Redis that came back is not to be flooded."""
_FILE: Final = "file"
"""The one source of a table that is made of a file."""


class Members:
    """``published`` is called when a table has another path: time for a new snapshot.

    ``by_key``: the engine asks no tables, so that the keys themselves go into the snapshot, as far as they are known;
    then ``published`` is also called when they are others.
    """

    def __init__(
        self,
        url: str | None,
        state_dir: Path,
        runtime: Path,
        published: Callable[[], None],
        log: Any,
        *,
        by_key: bool = False,
    ) -> None:
        self._url = url
        self._published = published
        self._log = log
        self._directory = TableDirectory(state_dir, runtime)
        self._keys_in = state_dir / "member-keys" if by_key else None
        self._client: Redis | None = None
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._rings: dict[str, dict[str, RingTable]] = {}
        self._keys: dict[str, dict[str, RingKeys]] = {}
        self._syncs: dict[str, ServiceSync] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lists: dict[str, tuple[str, RingTable]] = {}
        """File → digest of its content, and its table."""
        self._making: asyncio.Task[None] | None = None
        self._is_polling = False
        self._is_live = False
        self._said: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Members of {sorted(self._rings)}>"

    # -- what others look at -------------------------------------------------------------------------------------------

    @property
    def tables(self) -> Tables:
        """(service, ring) → the path of its table, where it has one; or its keys."""
        keys = {
            (service, ring): some.known
            for service, rings in self._keys.items()
            for ring, some in rings.items()
            if some.is_whole
        }
        paths = {
            (service, ring): table.path
            for service, rings in self._rings.items()
            for ring, table in rings.items()
            if table.path
        }
        return {**paths, **keys}

    @property
    def lists(self) -> dict[str, str]:
        """File of users → the path of its table, where it has one."""
        return {file: table.path for file, (_, table) in self._lists.items() if table.path}

    def counts(self, service: str) -> dict[str, int]:
        """Ring → how many members its table has; rings without a table are left out."""
        return {ring: table.count for ring, table in self._rings.get(service, {}).items() if table.path}

    def troubles(self, service: str) -> list[str]:
        """Why some of what Redis holds is not applied, or should be kept otherwise: sentences."""
        sync = self._syncs.get(service)
        if sync is None:
            return []
        long = [
            f"ring {ring} has more than {LONG_LOOSE:,} members in one set, which is read whole at each change: "
            f"`ring-router members import {ring} FILE` keeps them in shards."
            for ring in sorted(sync.is_long)
        ]
        return [*dict.fromkeys(sync.held.values()), *long]

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self, rings: Mapping[str, tuple[str, ...]], lists: Mapping[str, str]) -> None:
        """Serve the last good tables, begin to follow Redis, and give it a moment."""
        if self._url is not None:
            try:
                self._client = make_client(self._url)
            except BadURL:
                return  # said where the status is opened
        self.update(rings, lists)
        waiting: list[Coroutine[Any, Any, object]] = [sync.was_complete.wait() for sync in self._syncs.values()]
        if self._making is not None:
            waiting.append(_until(self._making))
        try:
            async with asyncio.timeout(FIRST_SYNC_SECONDS):
                await asyncio.gather(*waiting)
        except TimeoutError:
            return

    def update(self, rings: Mapping[str, tuple[str, ...]], lists: Mapping[str, str]) -> None:
        """The rings of each service, and the files of users with the digests of what they hold now."""
        self._make_lists(lists)
        if self._client is None:
            return
        for service in {*self._rings, *rings}:
            wanted = rings.get(service, ())
            known = self._rings.get(service, {})
            if tuple(known) == wanted:
                continue
            if service in self._tasks:
                spawn(end(self._tasks.pop(service)), name=f"end of the members of {service}")
                del self._syncs[service]
            for ring in known.keys() - set(wanted):
                known[ring].close(is_gone=True)
                if service in self._keys:
                    self._keys[service][ring].forget()
            self._rings[service] = {
                ring: known.get(ring) or RingTable(self._directory, f"{service}.{ring}") for ring in wanted
            }
            if not wanted:
                del self._rings[service]
                self._keys.pop(service, None)
                continue
            tables, keys = self._rings[service], self._keys.get(service, {})
            if self._keys_in is not None:
                keys = {
                    ring: keys.get(ring) or RingKeys(self._keys_in / f"{tables[ring].name}.json") for ring in wanted
                }
                self._keys[service] = keys
            sync = ServiceSync(service, tables, self._client, self._gate, self._published, self._say_trouble, keys=keys)
            sync.is_polling = self._is_polling
            self._syncs[service] = sync
            self._tasks[service] = spawn(self._follow(sync), name=f"members of {service}")

    async def stop(self) -> None:
        """Read no more; the tables stay where they are."""
        await end(*self._tasks.values(), *([self._making] if self._making is not None else []))
        for rings in self._rings.values():
            for table in rings.values():
                table.close(is_gone=False)
        for _, table in self._lists.values():
            table.close(is_gone=False)
        if self._client is not None:
            await hang_up(self._client)

    def sweep(self, spec: SnapshotSpec) -> None:
        """Every worker has this snapshot: tables that it does not name are removed."""
        tables = [table for rings in self._rings.values() for table in rings.values()]
        served = frozenset((*(table.path for table in tables), *self.lists.values()))
        named = frozenset(path for service in spec.services for ring in service.rings for path in ring.tables)
        for table in tables:
            if table.path in named or self._keys_in is not None:
                table.sweep(served)
        for _, table in self._lists.values():
            table.sweep(served)

    async def _follow(self, sync: ServiceSync) -> None:
        for table in sync.tables.values():
            if not table.path:
                for problem in await table.load():
                    self._log.warning(problem, service=sync.service)
        for ring, keys in sync.keys.items():
            table = sync.tables[ring]
            if not keys.has_loaded:
                keys.load(table.proof)
        if any(table.path for table in sync.tables.values()) or any(keys.known for keys in sync.keys.values()):
            self._published()
        if self._is_live:
            sync.survey()
        await sync.run()

    def _say_trouble(self, service: str, sentence: str) -> None:
        if self._said.get(service) != sentence:
            self._said[service] = sentence
            self._log.warning(f"members: {sentence}", service=service)

    # -- files of users ------------------------------------------------------------------------------------------------

    def _make_lists(self, lists: Mapping[str, str]) -> None:
        for file in self._lists.keys() - lists.keys():
            self._lists.pop(file)[1].close(is_gone=True)
        changed = [file for file, digest in lists.items() if file not in self._lists or self._lists[file][0] != digest]
        if not changed:
            return
        self._making = spawn(self._make(changed, dict(lists), self._making), name="lists of users")

    async def _make(self, files: Iterable[str], digests: Mapping[str, str], before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await _until(before)
        for file in files:
            known = self._lists.get(file)
            name = f"list.{xxh64_intdigest(file.encode()):016x}"
            table = RingTable(self._directory, name) if known is None else known[1]
            try:
                content = await asyncio.to_thread(Path(file).read_bytes)
                await table.put(_FILE, map(xxh64_intdigest, keys_in(content)))
                await table.settle()
                if not table.path or table.is_stale:
                    await table.build()
            except OSError as error:
                self._log.error(f"the list {file} stays as it was: {error_text(error)}")
                continue
            self._lists[file] = (digests[file], table)
        self._published()

    # -- MemberNews ----------------------------------------------------------------------------------------------------

    def link(self, state: str) -> None:
        """Whether Redis pushes (live), is read again and again (poll), or is away (down)."""
        was_live, self._is_live = self._is_live, state in ("live", "poll")
        self._is_polling = state == "poll"
        for sync in self._syncs.values():
            sync.is_polling = self._is_polling
            if self._is_live and not was_live:
                sync.survey()

    def touched(self, key: bytes) -> None:
        """A key has changed that may be one of members."""
        place = members_place(key)
        sync = self._syncs.get(place[0]) if place is not None else None
        if place is not None and sync is not None:
            sync.touched(place[1])

    def lost(self) -> None:
        """Everything may have changed (FLUSHALL)."""
        for sync in self._syncs.values():
            sync.survey()

    def revision(self, service: str, revision: bytes | None) -> None:
        """What ``members:rev`` says now; None where it says nothing."""
        sync = self._syncs.get(service)
        if sync is not None:
            sync.revision(revision)


async def _until(task: asyncio.Task[None]) -> None:
    """When a task has ended, whatever it ended with; it is not cancelled with the one who waits."""
    await asyncio.wait({task})
