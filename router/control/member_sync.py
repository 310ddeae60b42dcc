"""Keeps one service's member tables like the sets in Redis: reads what has changed, and nothing else.

Loose sets are scanned, shards read whole. What has changed comes from the watcher's pushes; what no push told (a
reconnect, a Redis that sends none) is found by sizes and revisions at once, and by reading everything gently, spread
over half a minute. A set that is gone counts as empty only where the same read shows that Redis was not flushed:
absence never changes routing. It reads on connections of its own, never on the watcher's.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from redis.asyncio import Redis

from router.control.keys import REVISION_FIELD, SHARDS
from router.control.link import error_text
from router.control.member_sets import MemberSets, Trouble, kept_place
from router.control.ring_table import KEPT, STEP, RingTable, TableDirectory

SCAN_REST: Final = 50.0
"""Between two scans of a set: so many times as long as the last one took, so that scanning stays below 2 percent."""
GAP_SECONDS: Final = 0.01
"""Between two rounds: a flood of SADDs becomes few of them, and the first one is read at once."""
LOOK_SECONDS: Final = 1.0
"""Between two looks at the sizes of loose sets where Redis sends no pushes, and at what is held."""
GENTLE_SECONDS: Final = 30.0
BACKOFF_SECONDS: Final = (0.05, 2.0)
LONG_LOOSE: Final = 20_000
PARTS: Final = 64
"""A loose set is kept in so many parts, by the first bits of the fingerprint, so that none takes long to compare."""
_PART_SHIFT: Final = 64 - 6
LOOSE: Final = "loose "
"""What the names of a loose set's sources begin with."""
SHARDED: Final = frozenset(SHARDS)


class ServiceSync:
    """Run ``run()`` as a task. ``gate`` bounds how many services read at a time; ``published`` hears of new tables."""

    def __init__(
        self,
        service: str,
        tables: Mapping[str, RingTable],
        client: Redis,
        gate: asyncio.Semaphore,
        published: Callable[[], None],
        failed: Callable[[str, str], None],
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.service = service
        self.tables = tables
        self._sets = MemberSets(client, service)
        self._gate = gate
        self._published = published
        self._failed = failed
        self._uniform = uniform
        self._dirty: set[str] = set()
        self._news = asyncio.Event()
        self._gentle: deque[str] = deque()
        self._next_gentle = self._next_look = 0.0
        self._revisions: Mapping[bytes, bytes] = {}
        self._scan_from: dict[str, float] = {}
        self._scan_wanted: set[str] = set()
        self._is_loaded = False
        self._gone: list[RingTable] = []
        self.is_polling = False
        """Whether nobody pushes what has changed."""
        self.is_complete = False
        """Whether everything in Redis has been read once."""
        self.was_complete = asyncio.Event()
        self.held: dict[str, str] = {}
        """Place (``canary``, ``canary:0f``) → why what it last held stays."""
        self.is_long: set[str] = set()
        """Rings whose loose set is too long for one."""
        self.synced_at = 0.0
        """When it was last known that the tables are as Redis is; monotonic."""
        self.seconds = 0.0
        """What the last round took that changed something."""

    def __repr__(self) -> str:
        return f"<ServiceSync {self.service} {list(self.tables.values())}>"

    # -- what the watcher tells ----------------------------------------------------------------------------------------

    def touched(self, place: str) -> None:
        """This set, or ``rev``, has changed."""
        self._dirty.add(place)
        self._news.set()

    def survey(self) -> None:
        """Anything may have changed: what sizes and revisions show is read at once, the rest gently."""
        self._dirty.add("*")
        self._news.set()

    def revision(self, revision: bytes | None) -> None:
        """What the heartbeat read in ``members:rev``."""
        known = self._revisions.get(REVISION_FIELD.encode())
        if revision != known and revision is not None:
            self.touched(REVISION_FIELD)
        elif self.is_complete and not self._dirty:
            self.synced_at = time.monotonic()

    def want(self, rings: Iterable[str], directory: TableDirectory) -> None:
        """The config file has changed: these are the rings now."""
        wanted = {ring: self.tables.get(ring) or RingTable(directory, f"{self.service}.{ring}") for ring in rings}
        for ring in self.tables.keys() - wanted.keys():
            self._gone.append(self.tables[ring])
            self.held = {place: why for place, why in self.held.items() if place.partition(":")[0] != ring}
            self.is_long.discard(ring)
        self.tables = wanted
        self.survey()

    # -- rounds --------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Serve what was known last, once."""
        if self._is_loaded:
            return
        self._is_loaded = True
        for table in self.tables.values():
            for problem in await table.load():
                self._failed(self.service, problem)
        if any(table.path for table in self.tables.values()):
            self._published()

    async def run(self) -> None:
        """Follow Redis for ever."""
        failures = 0
        await self.load()
        while True:
            await self._wait()
            taken, self._dirty = self._dirty, set()
            self._news.clear()
            try:
                async with self._gate:
                    await self._round(taken if self.is_complete else taken | {"*"})
            # A dead transport may raise RuntimeError, TypeError or AttributeError as well.
            except Exception as error:  # noqa: BLE001
                self._dirty |= taken
                self._failed(self.service, error_text(error))
                first, longest = BACKOFF_SECONDS
                await asyncio.sleep(self._uniform(0, min(longest, first * 2 ** min(failures, 10))))
                failures += 1
                continue
            failures = 0
            self.was_complete.set()
            await asyncio.sleep(GAP_SECONDS)

    async def _wait(self) -> None:
        """Until there is news, or time to look or to read something gently; adds what is to be read to ``_dirty``."""
        while not self._dirty:
            now = time.monotonic()
            ends = []
            if self.is_polling or self.held or self._scan_wanted:
                ends.append(self._next_look)
            if self._gentle:
                ends.append(self._next_gentle)
            try:
                async with asyncio.timeout(max(0.0, min(ends) - now) if ends else None):
                    await self._news.wait()
            except TimeoutError:
                now = time.monotonic()
                if now >= self._next_look:
                    self._next_look = now + LOOK_SECONDS
                    self._dirty |= {"?"}
                if self._gentle and now >= self._next_gentle:
                    self._dirty.add(self._gentle.popleft())
                    self._pace()
            else:
                return

    def _pace(self) -> None:
        apart = GENTLE_SECONDS / max(1, sum(len(table.sizes) for table in self.tables.values()))
        self._next_gentle = time.monotonic() + self._uniform(0.5, 1.5) * apart

    async def _round(self, asked: set[str]) -> None:
        started = time.monotonic()
        places, revisions = set(asked), self._revisions
        if "*" in asked:
            places |= await self._sizes(shards=True)
            self._read_gently()
        if "?" in asked:
            places |= await self._look()
        if "*" in asked or REVISION_FIELD in places:
            revised, revisions = await self._revised()
            places |= revised
        wanted = [place for place in sorted(places) if self._table_of(place) is not None]
        for place in wanted:
            await self._read(place)
        if not self.is_complete:
            await self._first_look()
        for table in self.tables.values():
            await table.settle()
        stale = [table for table in self.tables.values() if table.is_stale]
        for table in stale:
            await table.build()
        for table in self._gone:
            table.close(is_gone=True)
        self._gone = []
        self._revisions = revisions  # not before: what could not be read has to be found again
        self.is_complete = True
        self.synced_at = time.monotonic()
        if wanted:
            self.seconds = self.synced_at - started
        if stale:
            self._published()

    async def _first_look(self) -> None:
        """The last good tables make way for what Redis says, or, where it was flushed, stay."""
        is_proof = await self._sets.has_proof()
        for ring, table in self.tables.items():
            if not is_proof:
                await table.keep()
                if table.size(KEPT):
                    self._hold(
                        kept_place(ring),
                        f"members missing: Redis has nothing of {self.service} any more: the {table.count} members of "
                        f"{ring} that were last known stay. `ring-router weights reset` says that this is meant.",
                    )
            if table.path or table.sizes:
                table.is_stale = True  # a table of this process, that can be changed in place

    def _table_of(self, place: str) -> RingTable | None:
        """The ring of a place that can be read."""
        ring, colon, shard = place.partition(":")
        if ring == REVISION_FIELD and not colon:
            return None
        return self.tables.get(ring) if not colon or shard in SHARDED or shard == KEPT else None

    def _read_gently(self) -> None:
        places = [place for ring, table in self.tables.items() for place in _places(ring, table)]
        random.shuffle(places)
        self._gentle = deque(places)
        self._pace()

    # -- what is to be read --------------------------------------------------------------------------------------------

    async def _sizes(self, *, shards: bool) -> set[str]:
        """The sets whose sizes are not those that are known."""
        known = {ring: not SHARDED.isdisjoint(table.sizes) for ring, table in self.tables.items()} if shards else {}
        found = await self._sets.sizes(self.tables, known)
        return {place for place, size in found.items() if size != self._known(place)}

    async def _look(self) -> set[str]:
        """Once a second: what is held may be provable now; scans that waited; loose sets that nobody pushes."""
        found = set(self._scan_wanted)
        if self.held:
            has_proof = await self._sets.has_proof()
            found |= {place for place in self.held if has_proof or not place.endswith(KEPT)}
        if self.is_polling:
            found |= await self._sizes(shards=False)
            if not self._gentle:
                self._read_gently()
                found |= await self._sizes(shards=True)
        return found

    async def _revised(self) -> tuple[set[str], Mapping[bytes, bytes]]:
        """The shards whose revision is not the one that is known, and all revisions there are now."""
        before = self._revisions
        try:
            now = await self._sets.revisions()
        except Trouble as trouble:
            self._hold(REVISION_FIELD, str(trouble))
            return set(), before
        self.held.pop(REVISION_FIELD, None)
        changed = {field.decode("utf-8", "replace") for field, value in now.items() if before.get(field) != value}
        return changed - {REVISION_FIELD}, now

    def _known(self, place: str) -> int:
        ring, _, shard = place.partition(":")
        table = self.tables[ring]
        if shard:
            return table.size(shard)
        return sum(size for source, size in table.sizes.items() if source.startswith(LOOSE))

    # -- reading -------------------------------------------------------------------------------------------------------

    async def _read(self, place: str) -> None:
        ring, _, shard = place.partition(":")
        table = self.tables[ring]
        try:
            if shard == KEPT:
                await table.put(KEPT, ())
            elif shard:
                await table.put(shard, await self._sets.read(place, table.size(shard)))
            elif not await self._loose(ring, table):
                return
        except Trouble as trouble:
            self._hold(place, str(trouble))
        else:
            self.held.pop(place, None)

    async def _loose(self, ring: str, table: RingTable) -> bool:
        """Read a loose set; False if it was scanned only a moment ago, and has to wait."""
        if time.monotonic() < self._scan_from.get(ring, 0.0):
            self._scan_wanted.add(ring)  # its turn comes with a look
            return False
        self._scan_wanted.discard(ring)
        known = self._known(ring)
        if await self._sets.is_long(ring, known):
            # Who comes or goes during the scan makes for a push, and so for another one.
            started = time.monotonic()
            members = await self._sets.scan(ring)
            self._scan_from[ring] = time.monotonic() + SCAN_REST * (time.monotonic() - started)
        else:
            members = await self._sets.read(ring, known)
        (self.is_long.add if len(members) > LONG_LOOSE else self.is_long.discard)(ring)
        parts: list[array[int]] = [array("Q") for _ in range(PARTS)]
        for number, one in enumerate(members, 1):
            parts[one >> _PART_SHIFT].append(one)
            if number % STEP == 0:
                await asyncio.sleep(0)
        for number, part in enumerate(parts):
            source = f"{LOOSE}{number}"
            if part or table.size(source):
                await table.put(source, part)
        return True

    def _hold(self, place: str, why: str) -> None:
        if self.held.get(place) != why:
            self.held[place] = why
            self._failed(self.service, why)


def _places(ring: str, table: RingTable) -> set[str]:
    """What is known to be read for a ring."""
    places = {f"{ring}:{source}" for source in SHARDED.intersection(table.sizes)}
    return places | {ring} if ring != REVISION_FIELD else places
