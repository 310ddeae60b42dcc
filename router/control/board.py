"""The one writer of snapshots: config, live state and what is known of endpoints in, a numbered snapshot out when
something changed.

The last snapshot lies in the runtime directory, so that a restarted control goes on with its number and a restarted
worker has something to route by while control is away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog

from router.config.audiences import NO_LISTS, Lists
from router.config.compile import NO_TABLES, Tables, snapshot_spec
from router.config.endpoints import NONE_DOWN, NONE_RESOLVED, Down, Resolved
from router.config.settings import Settings
from router.config.trust import NO_KEY_SETS, KeySets
from router.core.audience import KeySpec, TrustSpec
from router.core.live import Live
from router.core.spec import SnapshotSpec

SNAPSHOT_FILE: Final = "snapshot.msgpack"


class Found(NamedTuple):
    """What control has found out by itself, as ``snapshot_spec`` takes it."""

    resolved: Resolved = NONE_RESOLVED
    down: Down = NONE_DOWN
    tables: Tables = NO_TABLES
    lists: Lists = NO_LISTS
    key_sets: KeySets = NO_KEY_SETS


NOTHING_FOUND: Final = Found()


def shown(spec: SnapshotSpec) -> SnapshotSpec:
    """The snapshot as others may see it: without secrets. Whether there are keys, and which ids they have, stays."""
    keys = tuple(KeySpec(key.id, "(not shown)") for key in spec.trust.keys)
    issuers = tuple(replace(issuer, secret="") for issuer in spec.trust.issuers)
    access_log = replace(spec.access_log, identity_key=b"")  # the pseudonyms of the log could be turned back with it
    return replace(spec, trust=TrustSpec(keys, issuers), access_log=access_log)


class Board:
    """Holds the snapshot in force and hands every new one to ``publish``."""

    def __init__(self, runtime: Path, publish: Callable[[SnapshotSpec], None]) -> None:
        self._file = runtime / SNAPSHOT_FILE
        self._publish = publish
        self._log = structlog.get_logger()
        self.spec: SnapshotSpec | None = None
        self._generation = 0
        try:
            left_behind = msgspec.msgpack.decode(self._file.read_bytes(), type=SnapshotSpec)
        except (OSError, msgspec.DecodeError):
            return
        self.spec, self._generation = left_behind, left_behind.generation

    def refresh(
        self,
        settings: Settings,
        live: Mapping[str, Live],
        addresses: Sequence[str] = (),
        found: Found = NOTHING_FOUND,
    ) -> bool:
        """Compile and publish; False when nothing that routes has changed. Raises ``LiveConflict``."""
        before = self.spec.listener.sockets if self.spec is not None else ()
        spec = snapshot_spec(
            settings,
            live,
            self._generation,
            addresses,
            before,
            resolved=found.resolved,
            down=found.down,
            tables=found.tables,
            lists=found.lists,
            key_sets=found.key_sets,
        )
        if spec == self.spec:
            return False
        self._generation += 1
        self.spec = replace(spec, generation=self._generation)
        # Workers first: the file is for those that are not there yet.
        self._publish(self.spec)
        temporary = self._file.with_suffix(".new")
        try:
            _write_secret(temporary, msgspec.msgpack.encode(self.spec))
            os.replace(temporary, self._file)
        except OSError as error:
            self._log.error(
                f"cannot leave a snapshot at {self._file}: {error.strerror}; a restart needs Redis or config"
            )
        return True


def _write_secret(path: Path, content: bytes) -> None:
    """The snapshot has signing keys in it: nobody else may read it, whatever the umask and the directory allow."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(handle, "wb") as file:
        os.fchmod(handle, 0o600)
        file.write(content)
