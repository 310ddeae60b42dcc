"""The members of one ring: what each set in Redis holds, as fingerprints, and the table that they make together.

Sets in Redis are *sources*: a user who is in two of them is a member until gone from both. The table is changed in
place where it has room, and made anew where it has not; until the new one is whole, the one before is served.
Nothing here talks to Redis. No step takes more than some milliseconds of the loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from xxhash import xxh64_intdigest

from router.core.table import DIGEST_AT, HEADER_WORDS, TOMBSTONE, BadTable
from router.members.files import UNFINISHED, TableFile, map_table, remove_abandoned
from router.members.writer import SLICE, TableFull, capacity_for, normal, verify

STEP: Final = 4096
"""Members between two looks at the loop: adding or removing so many takes less than ten milliseconds."""
KEPT: Final = "(kept)"
"""The source of members that are known from the last good table alone."""


class TableDirectory:
    """Where tables lie: ``<service>.<ring>.<number>``, the number growing with time. ``state_dir`` outlives a restart.

    Where it cannot be written, tables lie in ``runtime``, and ``trouble`` says so.
    """

    def __init__(self, state_dir: Path, runtime: Path | None = None) -> None:
        self._places = [state_dir / "members", *([runtime / "members"] if runtime is not None else [])]
        self.trouble: OSError | None = None

    def create(self, name: str, capacity: int) -> TableFile:
        """An empty table for ``<service>.<ring>``. Raises ``OSError`` when there is no place for it."""
        number = f"{time.time_ns():x}"
        for at, place in enumerate(self._places):
            try:
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
                table = TableFile(place / f"{name}.{number}", capacity)
            except OSError as error:
                self.trouble = error
                if at + 1 == len(self._places):
                    raise
            else:
                if at == 0:
                    self.trouble = None
                return table
        raise AssertionError("no place")

    def tables(self, name: str) -> list[Path]:
        """The whole tables of ``<service>.<ring>`` in the state directory, the newest first."""
        return sorted(self._files(name, unfinished=False), key=lambda path: path.suffix, reverse=True)

    def clean(self, name: str, served: Iterable[str]) -> bool:
        """Remove what is neither served nor written by anybody; False if another router still writes some of it."""
        kept, is_clean = set(served), True
        for path in self._files(name, unfinished=True):
            if str(path) not in kept:
                try:
                    is_clean &= remove_abandoned(path)
                except OSError:
                    continue
        return is_clean

    def _files(self, name: str, *, unfinished: bool) -> Iterator[Path]:
        try:
            entries = sorted(entry.name for entry in os.scandir(self._places[0]))
        except OSError:
            return
        for entry in entries:
            whole = entry.removesuffix(UNFINISHED)
            if whole.rpartition(".")[0] == name and (unfinished or whole == entry):
                yield self._places[0] / entry


class RingTable:
    """One ring's members. All but the properties is for one task alone."""

    def __init__(self, directory: TableDirectory, name: str) -> None:
        self._directory = directory
        self.name = name
        """``<service>.<ring>``"""
        self._sources: dict[str, array[int]] = {}
        self._more: dict[int, int] = {}
        """Fingerprint → in how many sources beyond the first it is; only of those that are in several."""
        self._leaving: list[int] = []
        self._table: TableFile | None = None
        self._retired: list[TableFile] = []
        self._kept = (0, 0)
        self._is_clean = False
        self.path = ""
        """What is to be served; empty while there is nothing."""
        self.is_stale = False
        """Whether the table has to be made anew: there is none yet, or it has no room."""

    def __repr__(self) -> str:
        return f"<RingTable {self.name} {self.count} members of {len(self._sources)} sources>"

    @property
    def count(self) -> int:
        """Members that are served."""
        return self.proof[0]

    @property
    def sizes(self) -> Mapping[str, int]:
        """Source → how many members it has."""
        return {source: len(members) for source, members in self._sources.items()}

    @property
    def proof(self) -> tuple[int, int]:
        """How many members are served, and their fingerprints, xor: alike for the same members, and for no others."""
        return (self._table.writer.count, self._table.writer.digest) if self._table is not None else self._kept

    def size(self, source: str) -> int:
        return len(self._sources.get(source, ()))

    # -- the last good one ---------------------------------------------------------------------------------------------

    async def load(self) -> list[str]:
        """Serve the newest table that is whole, until there is a new one; why others were not taken."""
        problems = []
        for path in self._directory.tables(self.name):
            try:
                words = map_table(str(path))
                count = -1
                for found in verify(words):
                    count = found
                    await asyncio.sleep(0)
            except (OSError, BadTable) as error:
                problems.append(f"{path} is not used: {error}")
                continue
            self.path, self._kept = str(path), (count, words[DIGEST_AT])
            break
        return problems

    async def keep(self) -> None:
        """Take the members of the last good table for a source: Redis does not say whether they are gone."""
        if not self.path or self._table is not None:
            return
        words = map_table(self.path)
        found = array("Q")
        for start in range(HEADER_WORDS, len(words), SLICE):
            found.extend(one for one in words[start : start + SLICE].tolist() if one > TOMBSTONE)
            await asyncio.sleep(0)
        self._sources[KEPT] = found

    # -- changes -------------------------------------------------------------------------------------------------------

    async def put(self, source: str, fingerprints: Iterable[int]) -> None:
        """These are the members of a source now. Who is gone from it leaves with ``settle``: they may be in another."""
        now = set(fingerprints)
        if not now.isdisjoint((0, 1)):
            now = {normal(one) for one in now}
        before = set(self._sources.pop(source, ()))
        if now:
            self._sources[source] = array("Q", now)
        table = self._table
        if table is None or self.is_stale:
            self.is_stale = self.is_stale or now != before
            return
        coming = now - before
        self._leaving.extend(before - now)
        for number, one in enumerate(coming, 1):
            try:
                if not table.writer.add(one):
                    self._more[one] = self._more.get(one, 0) + 1
            except TableFull:
                self.is_stale = True  # the new one is made of the sources, which are complete
                return
            if number % STEP == 0:
                await asyncio.sleep(0)

    async def settle(self) -> None:
        """Everything that had changed has been put: who is in no source any more is no member now."""
        leaving, self._leaving = self._leaving, []
        if self._table is None or self.is_stale:
            return
        for number, one in enumerate(leaving, 1):
            others = self._more.get(one, 0)
            if others == 0:
                self._table.writer.remove(one)
            elif others == 1:
                del self._more[one]
            else:
                self._more[one] = others - 1
            if number % STEP == 0:
                await asyncio.sleep(0)

    async def build(self) -> None:
        """A new table of all sources, to be served instead. Raises ``OSError``; the one before is then still there."""
        total = sum(len(members) for members in self._sources.values())
        table = self._directory.create(self.name, capacity_for(total))
        try:
            more: dict[int, int] = {}
            for members in self._sources.values():
                for start in range(0, len(members), STEP):
                    for again in table.writer.fill(members[start : start + STEP]):
                        more[again] = more.get(again, 0) + 1
                    await asyncio.sleep(0)
            await asyncio.to_thread(table.sync)
            table.publish()
        except BaseException:
            table.close(is_gone=True)
            raise
        if self._table is not None:
            self._retired.append(self._table)
        self._table, self._more, self._leaving = table, more, []
        self.path, self.is_stale = str(table.path), False

    # -- the end of tables ---------------------------------------------------------------------------------------------

    def sweep(self, served: frozenset[str]) -> None:
        """``served`` are the paths that every worker has by now: others that nobody needs are removed."""
        if self.path not in served:
            return
        for table in self._retired:
            table.close(is_gone=True)
        self._retired = []
        if self._table is not None and not self._is_clean:
            self._is_clean = self._directory.clean(self.name, {self.path})

    def close(self, *, is_gone: bool) -> None:
        """Write no more; ``is_gone``: nobody needs the table any more either."""
        for table in self._retired:
            table.close(is_gone=is_gone)
        if self._table is not None:
            self._table.close(is_gone=is_gone)
        elif is_gone:
            self._directory.clean(self.name, ())
        self._retired, self._table, self.path = [], None, ""


async def fingerprints(members: list[bytes]) -> array[int]:
    """What a table has of these keys."""
    found = array("Q")
    for start in range(0, len(members), STEP):
        found.extend(map(xxh64_intdigest, members[start : start + STEP]))
        await asyncio.sleep(0)
    return found
