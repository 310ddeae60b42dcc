"""Tables of the files of users that rules ask for (``in_file``): one per file, made anew when what it holds changes.

Short ones stand in the snapshot itself and have none. A file is read by whoever reads the config; this only turns it
into a table, a slice at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import structlog
from xxhash import xxh64_intdigest

from router.config.files import digest_of, keys_in
from router.control.ring_table import STEP, RingTable, TableDirectory
from router.core.spec import ConditionSpec, SnapshotSpec
from router.telemetry.tasks import end, spawn

RETRY_SECONDS: Final = 1.0
"""A file that is being changed just now is looked at again."""


class ListTables:
    """``on_tables`` is called in the loop when a file has a new table."""

    def __init__(
        self, state_dir: Path, on_tables: Callable[[], None], runtime: Path | None = None, log: Any = None
    ) -> None:
        self._directory = TableDirectory(state_dir, runtime)
        self._on_tables = on_tables
        self._log = structlog.get_logger(__name__) if log is None else log
        self._wanted: dict[str, str] = {}
        self._made: dict[str, str] = {}
        """File → digest of what its table was made of, or could not be made of."""
        self._tables: dict[str, RingTable] = {}
        self._retired: list[RingTable] = []
        self._working: asyncio.Task[None] | None = None

    @property
    def tables(self) -> dict[str, str]:
        """Absolute path of a file → path of its table; of those that have one."""
        return {path: table.path for path, table in self._tables.items()}

    @property
    def is_behind(self) -> bool:
        """Whether a file has no table yet: nobody can say who is listed there."""
        return any(path not in self._made for path in self._wanted)

    def update(self, files: Mapping[str, str]) -> None:
        """Absolute path → digest of what it holds, of the files that need a table."""
        self._wanted = dict(files)
        for path in self._tables.keys() - files.keys():
            self._retired.append(self._tables.pop(path))
        self._made = {path: digest for path, digest in self._made.items() if path in files}
        if self._wanted != self._made and (self._working is None or self._working.done()):
            self._working = spawn(self._work(), name="tables of list files")

    async def stop(self) -> None:
        """The tables stay, for workers that start meanwhile."""
        if self._working is not None:
            await end(self._working)
        for table in (*self._tables.values(), *self._retired):
            table.close(is_gone=False)

    def sweep(self, spec: SnapshotSpec) -> None:
        """Every worker routes by this snapshot now: tables that it does not name are needed no more."""
        served = frozenset(
            path for service in spec.services for ring in service.rings for path in _listed((*ring.rules, *ring.denied))
        )
        for table in [one for one in self._retired if one.path not in served]:
            table.close(is_gone=True)
            self._retired.remove(table)
        for table in self._tables.values():
            table.sweep(served)

    async def _work(self) -> None:
        while (path := self._next()) is not None:
            digest = self._wanted[path]
            try:
                content = await asyncio.to_thread(Path(path).read_bytes)
                if digest_of(content) != digest:
                    await asyncio.sleep(RETRY_SECONDS)  # whoever reads the config sees it too, and says so
                    continue
                table = await self._table(path, content)
            except OSError as error:
                self._log.warning(f"no table could be made of {path} ({error}): who was listed before stays so")
            else:
                if path in self._tables:
                    self._retired.append(self._tables[path])
                self._tables[path] = table
            self._made[path] = digest
            self._on_tables()

    def _next(self) -> str | None:
        return next((path for path, digest in self._wanted.items() if self._made.get(path) != digest), None)

    async def _table(self, path: str, content: bytes) -> RingTable:
        """A new one each time: a rule sees the old list or the new one, never a mixture. Raises ``OSError``."""
        table = RingTable(self._directory, f"file-{hashlib.sha256(path.encode()).hexdigest()[:16]}.list")
        keys, number = keys_in(content), 0
        while some := [xxh64_intdigest(key) for key in islice(keys, STEP)]:
            await table.put(str(number), some)
            number += 1
            await asyncio.sleep(0)
        await table.build()
        return table


def _listed(conditions: tuple[ConditionSpec, ...]) -> Iterator[str]:
    for one in conditions:
        if one.compare == "listed":
            yield from one.values
        yield from _listed(one.children)
