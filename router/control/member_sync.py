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
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from xxhash import xxh64_intdigest

from router.control.keys import REVISION_FIELD, SHARDS, key_of, members_key, members_revision_key
from router.control.link import error_text
from router.control.ring_keys import MOST, RingKeys
from router.control.ring_table import KEPT, STEP, RingTable, fingerprints

LOOSE_AT_ONCE: Final = 4096
"""A loose set of up to so many members is read with one SMEMBERS: 2 ms of Redis (measured: 10,000 take 5 to 8 ms).

At least ``ring_keys.MOST``: a set that is scanned comes without keys.
"""
SCAN_COUNT: Final = 1000
"""0.7 ms of Redis for each step of a scan (measured)."""
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
_PART_BITS: Final = 58


class Trouble(Exception):
    """A set cannot be used as it is; the message says why and what helps."""


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
        keys: Mapping[str, RingKeys] = {},
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.service = service
        self.tables = tables
        self.keys = keys
        self._client = client
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

    # -- rounds --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow Redis for ever."""
        failures = 0
        while True:
            await self._wait()
            taken, self._dirty = self._dirty, set()
            self._news.clear()
            try:
                async with self._gate:
                    await self._round(set(taken))
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
            if self.is_polling or self.held or self._scan_from or self._short_again():
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

    async def _round(self, places: set[str]) -> None:
        started = time.monotonic()
        if "*" in places:
            places |= await self._sizes(shards=True)
            self._read_gently()
        if "?" in places:
            places |= await self._look()
        if REVISION_FIELD in places or "*" in places:
            places |= await self._revised()
        revisions = self._revisions
        wanted = [place for place in sorted(places) if self._table_of(place) is not None]
        for place in wanted:
            await self._read(place)
        if "*" in places:
            await self._first_look(bool(wanted))
        self._revisions = revisions
        for table in self.tables.values():
            await table.settle()
        stale = [table for table in self.tables.values() if table.is_stale]
        for table in stale:
            await table.build()
        others = [ring for ring, keys in self.keys.items() if await self._settle(ring, keys)]
        if stale or others:
            self._published()
        self.is_complete = True
        self.synced_at = time.monotonic()
        if wanted:
            self.seconds = self.synced_at - started

    def _short_again(self) -> set[str]:
        """The sets whose keys were too many to keep, of rings that are short enough now."""
        short = (keys for ring, keys in self.keys.items() if self.tables[ring].count <= MOST)
        return set().union(*(keys.unread for keys in short))

    async def _settle(self, ring: str, keys: RingKeys) -> bool:
        is_other = await keys.settle(self.tables[ring].proof)
        if is_other and keys.trouble is not None:
            self._failed(self.service, f"{ring} is not kept for a restart without Redis: {error_text(keys.trouble)}")
        return is_other

    async def _first_look(self, has_read: bool) -> None:
        """The last good tables make way for what Redis says, or, where it was flushed, stay."""
        if self.is_complete:
            return
        is_proof = await self._has_proof()
        for ring, table in self.tables.items():
            if not is_proof:
                await table.keep()
                if table.size(KEPT):
                    self._hold(f"{ring}:{KEPT}", f"its members are gone from Redis; the {table.count} last known stay")
            if table.path or table.sizes:
                table.is_stale = True  # a table of this process, that can be changed in place

    def _table_of(self, place: str) -> RingTable | None:
        """The ring of a place that can be read."""
        ring, colon, shard = place.partition(":")
        if ring == REVISION_FIELD and not colon:
            return None
        return self.tables.get(ring) if not colon or shard in SHARDS or shard == KEPT else None

    def _read_gently(self) -> None:
        places = [place for ring, table in self.tables.items() for place in _places(ring, table)]
        random.shuffle(places)
        self._gentle = deque(places)
        self._pace()

    # -- what is to be read --------------------------------------------------------------------------------------------

    async def _sizes(self, *, shards: bool) -> set[str]:
        """The sets whose sizes are not those that are known."""
        found = set()
        for ring, table in self.tables.items():
            places = [ring] if ring != REVISION_FIELD else []
            known = [source for source in table.sizes if source in SHARDS]
            if shards and (known or await self._ask("EXISTS", *(members_key(self.service, ring, s) for s in SHARDS))):
                places += [f"{ring}:{shard}" for shard in SHARDS]
            async with self._client.pipeline(transaction=False) as pipe:
                for place in places:
                    pipe.scard(members_key(self.service, *place.split(":")))
                sizes = await pipe.execute(raise_on_error=False)
            found |= {place for place, size in zip(places, sizes, strict=True) if size != self._known(place)}
        return found

    async def _look(self) -> set[str]:
        """Once a second: what is held may be provable now; scans that waited; loose sets that nobody pushes."""
        found = self._short_again()
        if self.held and await self._has_proof():
            found |= set(self.held)
        elif self.held:
            found |= {place for place in self.held if not place.endswith(KEPT)}
        now = time.monotonic()
        for ring, after in list(self._scan_from.items()):
            if now >= after:
                found.add(ring)
        if self.is_polling:
            found |= await self._sizes(shards=False)
            if not self._gentle:
                self._read_gently()
                found |= await self._sizes(shards=True)
        return found

    async def _revised(self) -> set[str]:
        """The shards whose revision is not the one that is known."""
        try:
            now: dict[bytes, bytes] = await self._ask("HGETALL", members_revision_key(self.service))
        except ResponseError as error:
            self._hold(REVISION_FIELD, f"{members_revision_key(self.service)} cannot be read: {error_text(error)}")
            return set()
        self.held.pop(REVISION_FIELD, None)
        before, self._revisions = self._revisions, now
        changed = {field.decode("utf-8", "replace") for field, value in now.items() if before.get(field) != value}
        return changed - {REVISION_FIELD}

    async def _has_proof(self) -> bool:
        """Whether Redis has something of this service that operators wrote: it was not flushed."""
        return bool(await self._ask("EXISTS", *self._proofs()))

    def _proofs(self) -> tuple[str, str]:
        return key_of(self.service, "weights"), members_revision_key(self.service)

    async def _ask(self, *words: str) -> Any:
        return await cast("Awaitable[Any]", self._client.execute_command(*words))  # type: ignore[no-untyped-call]

    # -- reading -------------------------------------------------------------------------------------------------------

    async def _read(self, place: str) -> None:
        ring, _, shard = place.partition(":")
        table = self.tables[ring]
        try:
            if shard == KEPT:
                await table.put(KEPT, ())
            elif shard:
                await table.put(shard, await self._whole(place, table.size(shard)))
            else:
                await self._loose(ring, table)
        except Trouble as trouble:
            self._hold(place, str(trouble))
        else:
            self.held.pop(place, None)

    async def _whole(self, place: str, known: int) -> array[int]:
        """All members of a set, with the proof that it is right to be empty. Raises ``Trouble``."""
        key = members_key(self.service, *place.split(":"))
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.exists(*self._proofs())
            pipe.smembers(key)
            proof, members = await pipe.execute(raise_on_error=False)
        self._check(key, proof, members, len(members) if isinstance(members, (set, list)) else 0, known)
        found = list(members)
        if (keys := self.keys.get(place.partition(":")[0])) is not None:
            keys.read(place, found)
        return await fingerprints(found)

    async def _loose(self, ring: str, table: RingTable) -> None:
        key, known = members_key(self.service, ring), self._known(ring)
        self._scan_from.pop(ring, None) if time.monotonic() >= self._scan_from.get(ring, 0.0) else None
        if ring in self._scan_from:
            return  # its turn comes with a look
        if 0 < known <= LOOSE_AT_ONCE:
            members = await self._whole(ring, known)
        else:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.exists(*self._proofs())
                pipe.scard(key)
                proof, size = await pipe.execute(raise_on_error=False)
            self._check(key, proof, size, size, known)
            if size <= LOOSE_AT_ONCE:
                members = await self._whole(ring, known)
            else:
                members = await self._scan(ring, key)
        (self.is_long.add if len(members) > LONG_LOOSE else self.is_long.discard)(ring)
        parts: list[array[int]] = [array("Q") for _ in range(PARTS)]
        for number, one in enumerate(members, 1):
            parts[one >> _PART_BITS].append(one)
            if number % STEP == 0:
                await asyncio.sleep(0)
        for number, part in enumerate(parts):
            source = f"loose {number}"
            if part or table.size(source):
                await table.put(source, part)

    async def _scan(self, ring: str, key: str) -> array[int]:
        """A long set, a thousand at a time. Who comes or goes meanwhile makes for a push, and so for another scan."""
        started = time.monotonic()
        found, cursor = array("Q"), 0
        while True:
            cursor, some = await cast("Awaitable[Any]", self._client.sscan(key, cursor, count=SCAN_COUNT))
            found.extend(map(xxh64_intdigest, some))
            if int(cursor) == 0:
                break
        if ring in self.keys:
            self.keys[ring].read(ring, None)
        self._scan_from[ring] = time.monotonic() + SCAN_REST * (time.monotonic() - started)
        return found

    def _known(self, place: str) -> int:
        ring, _, shard = place.partition(":")
        table = self.tables[ring]
        if shard:
            return table.size(shard)
        return sum(size for source, size in table.sizes.items() if source.startswith("loose "))

    def _check(self, key: str, proof: Any, reply: Any, size: int, known: int) -> None:
        """Raises ``Trouble`` for a reply that changes nothing."""
        if isinstance(reply, ResponseError):
            if str(reply).startswith("WRONGTYPE"):
                raise Trouble(
                    f"{key} is not a set; its members stay as they were. Remove it (DEL {key}) and SADD again."
                )
            raise Trouble(f"{key} cannot be read ({error_text(reply)}); its members stay as they were.")
        if isinstance(proof, Exception):
            raise proof
        if size == 0 and known and not proof:
            raise Trouble(
                f"members missing: {key} is gone, and so is everything else of {self.service}; its {known} members "
                f"stay. HSET {key_of(self.service, 'weights')} says that this is meant."
            )

    def _hold(self, place: str, why: str) -> None:
        if self.held.get(place) != why:
            self.held[place] = why
            self._failed(self.service, why)


def _places(ring: str, table: RingTable) -> set[str]:
    """What is known to be read for a ring."""
    places = {f"{ring}:{source}" for source in table.sizes if source in SHARDS}
    return places | {ring} if ring != REVISION_FIELD else places
