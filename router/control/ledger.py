"""What control was told of the workers, in the runtime directory: a control that is killed goes on where it was.

Each worker's reports stand in a file one behind the other, as they came; the sum of the workers that are gone stands in
one more. So a total that somebody has seen never goes down, whoever dies, in whatever order. The directory is the
router's own and ends with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import structlog

from router.telemetry.counters import WorkerCounters
from router.telemetry.messages import LENGTH, pack_counters, unpack_counters
from router.telemetry.reports import apply_report

FOLDED_FILE: Final = "folded.msgpack"
DIRECTORY: Final = "counters"
COMPACT_BYTES: Final = 1 << 20
"""A file that is longer, and several times as long as what it says, is written anew."""
COMPACT_TIMES: Final = 4


class Folded(msgspec.Struct):
    """The workers that are gone; ``last`` is the one that was added last, whose own file counts no more."""

    counters: WorkerCounters
    last: str = ""


class Account:
    """One worker's file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._size = 0
        self._limit = COMPACT_BYTES

    def add(self, report: bytes, known: WorkerCounters) -> None:
        """One more report, and what is known with it. Raises OSError."""
        if self._descriptor < 0 or self._size > self._limit:
            self.write(known)
            return
        self._append(report)

    def write(self, known: WorkerCounters) -> None:
        """Everything in one. Raises OSError."""
        self.close()
        new = self._path.with_suffix(".new")
        self._descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._size = 0
        self._append(pack_counters(known))
        self._limit = max(COMPACT_BYTES, COMPACT_TIMES * self._size)
        try:
            os.replace(new, self._path)
        except OSError:
            self.close()
            raise

    def _append(self, packed: bytes) -> None:
        data = LENGTH.pack(len(packed)) + packed
        try:
            written = os.write(self._descriptor, data)
        except OSError:
            self.close()
            raise
        if written < len(data):  # nothing that comes behind half a report can be read: the next one writes all anew
            self.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


class Ledger:
    """All of them. What cannot be written is kept in memory alone, and that is said once."""

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime
        self._log = structlog.get_logger()
        self._accounts: dict[str, Account] = {}
        self._is_failing = False
        self.folded = WorkerCounters()
        self.found: dict[tuple[int, int], WorkerCounters] = {}
        """What a control before this one knew: (slot, process id) → counters."""
        self._load()

    def _load(self) -> None:
        last = ""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            read = msgspec.msgpack.decode((self._runtime / FOLDED_FILE).read_bytes(), type=Folded)
            self.folded, last = read.counters, read.last
        directory = self._runtime / DIRECTORY
        with contextlib.suppress(OSError):
            directory.mkdir(mode=0o700, exist_ok=True)
            for path in sorted(directory.iterdir()):
                slot, _, pid = path.name.partition("-")
                if path.name == last or not pid.isdigit():
                    path.unlink()
                else:
                    self.found[int(slot), int(pid)] = _read(path)

    def report(self, slot: int, pid: int, report: bytes, known: WorkerCounters) -> None:
        """A worker has reported."""
        with self._said():
            self._account(slot, pid).add(report, known)

    def note(self, slot: int, pid: int, known: WorkerCounters) -> None:
        """More is known of a worker than it had reported."""
        with self._said():
            self._account(slot, pid).write(known)

    def fold(self, slot: int, pid: int) -> None:
        """A worker is gone, and ``folded`` has what it counted."""
        name = f"{slot}-{pid}"
        new = self._runtime / (FOLDED_FILE + ".new")
        with self._said():
            new.write_bytes(msgspec.msgpack.encode(Folded(self.folded, name)))
            os.replace(new, self._runtime / FOLDED_FILE)
            self._account(slot, pid).remove()
        self._accounts.pop(name, None)

    def close(self) -> None:
        for account in self._accounts.values():
            account.close()

    def _account(self, slot: int, pid: int) -> Account:
        name = f"{slot}-{pid}"
        return self._accounts.setdefault(name, Account(self._runtime / DIRECTORY / name))

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                self._log.error(f"what the workers count is kept in memory alone: {self._runtime}: {error}")
            self._is_failing = True


def _read(path: Path) -> WorkerCounters:
    """As far as it is whole: the end may be half a report."""
    known, data, at = WorkerCounters(), path.read_bytes(), 0
    with contextlib.suppress(msgspec.DecodeError):
        while at + LENGTH.size <= len(data):
            (length,) = LENGTH.unpack_from(data, at)
            body = data[at + LENGTH.size : at + LENGTH.size + length]
            if len(body) < length:
                break
            known = apply_report(known, unpack_counters(body))
            at += LENGTH.size + length
    return known
