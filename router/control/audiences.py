"""Who is in which list: the members that Redis has and the files that rules name, as paths of tables for the snapshot.

The two sides of the same thing, so that the rest of control has one to talk to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from router.config.files import list_files
from router.config.settings import Settings
from router.control.list_tables import ListTables
from router.control.members import Members
from router.core.spec import SnapshotSpec


class Audiences:
    """``on_tables`` is called in the loop when there are other tables, once ``start`` is over."""

    def __init__(self, settings: Settings, runtime: Path, on_tables: Callable[[], None], log: Any = None) -> None:
        state_dir = Path(settings.state_dir)
        self._on_tables = on_tables
        self._is_started = False
        self.members = Members(settings.redis, _rings(settings), state_dir, self._changed, runtime, log)
        self.lists = ListTables(state_dir, self._changed, runtime, log)

    async def start(self, settings: Settings) -> None:
        """Serve the tables of the last time, and begin with those of files."""
        self.lists.update(_long_files(settings))
        await self.members.start()

    async def first(self) -> None:
        """Until what is in Redis has been read once, or half a second is over."""
        await self.members.first()
        self._is_started = True

    async def stop(self) -> None:
        await self.members.stop()
        await self.lists.stop()

    def update(self, settings: Settings) -> None:
        """The config file has changed. Does not call ``on_tables``."""
        self.members.update(_rings(settings))
        self.lists.update(_long_files(settings))

    @property
    def paths(self) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
        """(service, ring) → its table, and list file → its table."""
        return self.members.tables, self.lists.tables

    @property
    def is_behind(self) -> bool:
        """Whether a new list file has no table yet, so that nobody can say who is listed there."""
        return self.lists.is_behind

    def sweep(self, spec: SnapshotSpec | None, applied: int) -> None:
        """``applied`` is the generation that every worker has: tables that it does not name are removed."""
        if spec is not None and spec.generation == applied:
            self.members.sweep(spec)
            self.lists.sweep(spec)

    def _changed(self) -> None:
        if self._is_started:
            self._on_tables()


def _rings(settings: Settings) -> dict[str, tuple[str, ...]]:
    return {name: tuple(ring.name for ring in service.rings) for name, service in settings.services.items()}


def _long_files(settings: Settings) -> dict[str, str]:
    """Those whose keys do not stand in the snapshot itself."""
    files = settings.files
    few = {files.found[path] for path, keys in files.lists.items() if keys and path in files.found}
    return {path: digest for path, digest in list_files(settings).items() if path not in few}
