"""The workers' side of control: hands out snapshots, takes in counters, knows who has applied what.

A worker's counters are cumulative; when it says that it is gone, or its slot gets a new process, they are folded into a
total that lies in the runtime directory, so that no sum goes down when a worker or control dies. A slot has two
processes while one replaces the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import structlog

from router.core.spec import SnapshotSpec
from router.telemetry.buckets import Piece, difference
from router.telemetry.counters import (
    RingCounters,
    RingKey,
    VersionCounters,
    VersionKey,
    WorkerCounters,
    apply_report,
    fold,
    fold_versions,
)
from router.telemetry.messages import (
    LENGTH,
    Applied,
    Hello,
    Install,
    Leaving,
    Report,
    Seen,
    Tap,
    Tapped,
    Traced,
    decode_from_worker,
    frame,
    pack_counters,
    unpack_counters,
)
from router.telemetry.spans import Spans

CHANNEL_FILE: Final = "control.sock"
FOLDED_FILE: Final = "folded.msgpack"
_NOTHING: Final = RingCounters()


@dataclass(slots=True)
class WorkerState:
    """What control knows of one worker process."""

    slot: int
    pid: int
    generation: int = 0
    applied_at: float = 0.0
    is_leaving: bool = False
    has_reported: bool = False
    counters: WorkerCounters = field(default_factory=WorkerCounters)
    writer: asyncio.StreamWriter | None = None

    @property
    def is_connected(self) -> bool:
        """Whether it is there and takes new clients."""
        return self.writer is not None and not self.is_leaving


class Hub:
    """The unix socket that the workers talk to."""

    def __init__(self, runtime: Path, expected: int) -> None:
        self._runtime = runtime
        self.expected = expected
        self.workers: dict[int, WorkerState] = {}
        """By process id."""
        self.spec: SnapshotSpec | None = None
        self.published_at = 0.0
        self.on_tapped: Callable[[Tapped], None] = lambda _: None
        self.on_seen: Callable[[Seen], None] = lambda _: None
        self._tap = Tap()
        self._server: asyncio.Server | None = None
        self._log = structlog.get_logger()
        self.spans = Spans(self._log)
        self._folded = WorkerCounters()
        self._came: dict[RingKey, Piece] = {}
        with contextlib.suppress(OSError, msgspec.DecodeError):
            self._folded = unpack_counters((runtime / FOLDED_FILE).read_bytes())

    async def start(self) -> None:
        path = self._runtime / CHANNEL_FILE
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._server = await asyncio.start_unix_server(self._serve, path=str(path))
        path.chmod(0o600)  # snapshots go out here, with the signing keys in them

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for worker in self.workers.values():
            if worker.writer is not None:
                worker.writer.close()
        self.spans.stop()

    def publish(self, spec: SnapshotSpec) -> None:
        """Send a snapshot to every worker that is there; the others get it with their hello."""
        self.spec = spec
        self.published_at = time.time()
        data = frame(Install(spec))
        for worker in self.workers.values():
            if worker.writer is not None:
                worker.writer.write(data)

    def tap(self, tap: Tap) -> None:
        """Tell every worker who wants to see requests; those that come later are told with their first snapshot."""
        self._tap = tap
        data = frame(tap)
        for worker in self.workers.values():
            if worker.writer is not None:
                worker.writer.write(data)

    @property
    def connected(self) -> int:
        return sum(worker.is_connected for worker in self.workers.values())

    @property
    def applied_everywhere(self) -> int:
        """The generation that every expected worker has; 0 while one has none."""
        there = [worker.generation for worker in self.workers.values() if worker.is_connected]
        return min(there) if len(there) >= self.expected else 0

    def totals(self) -> WorkerCounters:
        """All workers, living and dead."""
        total = WorkerCounters()
        fold(total, self._folded, gauges=False)
        for worker in self.workers.values():
            fold(total, worker.counters, gauges=worker.writer is not None)
        return total

    def in_flight(self, key: RingKey) -> int:
        """Requests that are under way in one ring × version."""
        living = (worker for worker in self.workers.values() if worker.writer is not None)
        return sum(worker.counters.rings[key].in_flight for worker in living if key in worker.counters.rings)

    def take(self) -> dict[RingKey, Piece]:
        """What finished since the last call, as far as workers have reported it."""
        came, self._came = self._came, {}
        return came

    def _note(self, worker: WorkerState, report: WorkerCounters) -> None:
        """A worker's first report holds its whole life, which another control may have seen: nothing of it came now."""
        if worker.has_reported:
            for key, ring in report.rings.items():
                piece = difference(ring, worker.counters.rings.get(key, _NOTHING))
                self._came.setdefault(key, Piece({}, {}, {})).add(piece)
        worker.has_reported = True

    def refused_tokens(self) -> int:
        """Tokens whose signature was not good, ever, over all workers."""
        everybody = (self._folded, *(worker.counters for worker in self.workers.values()))
        return sum(
            count
            for one in everybody
            for (_, kind, word), count in one.proofs.items()
            if (kind, word) == ("token", "forged")
        )

    def versions(self) -> dict[VersionKey, VersionCounters]:
        """That part of ``totals`` alone: with thousands of rings the whole takes long to add up."""
        total: dict[VersionKey, VersionCounters] = {}
        fold_versions(total, self._folded.versions, gauges=False)
        for worker in self.workers.values():
            fold_versions(total, worker.counters.versions, gauges=worker.writer is not None)
        return total

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker: WorkerState | None = None
        try:
            while True:
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                message = decode_from_worker(await reader.readexactly(length))
                match message:
                    case Hello(slot=slot, pid=pid):
                        worker = self._welcome(slot, pid, writer)
                    case Applied(generation=generation, at=at) if worker is not None:
                        worker.generation, worker.applied_at = generation, at
                    case Report(counters=counters) if worker is not None:
                        report = unpack_counters(counters)
                        self._note(worker, report)
                        worker.counters = apply_report(worker.counters, report)
                    case Seen() as seen if worker is not None:
                        self.on_seen(seen)
                    case Traced() as traced if worker is not None:
                        self.spans.take(traced)
                    case Tapped() as tapped if worker is not None:
                        self.on_tapped(tapped)
                    case Leaving(is_gone=is_gone) if worker is not None:
                        worker.is_leaving = True
                        if is_gone:
                            self._fold(worker)
        except (EOFError, OSError, msgspec.DecodeError, asyncio.IncompleteReadError):
            pass
        finally:
            if worker is not None and worker.writer is writer:
                worker.writer = None
            writer.close()

    def _keep_folded(self) -> None:
        temporary = self._runtime / (FOLDED_FILE + ".new")
        try:
            temporary.write_bytes(pack_counters(self._folded))
            os.replace(temporary, self._runtime / FOLDED_FILE)
        except OSError as error:
            self._log.error(f"counters of a dead worker are kept in memory alone: {error}")

    def _fold(self, worker: WorkerState) -> None:
        """A worker that is gone: what it counted stays, but for endpoints that are gone as well."""
        if self.workers.get(worker.pid) is worker:
            del self.workers[worker.pid]
            fold(self._folded, worker.counters, gauges=False)
            if self.spec is not None:
                services = self.spec.services
                named = {(s.name, v.name, e.address) for s in services for v in s.versions for e in v.endpoints}
                for gone in self._folded.endpoints.keys() - named:
                    del self._folded.endpoints[gone]
            self._keep_folded()

    def _welcome(self, slot: int, pid: int, writer: asyncio.StreamWriter) -> WorkerState:
        for other in [*self.workers.values()]:
            is_same = (other.slot, other.pid) == (slot, pid)
            if not is_same and (other.pid == pid or (other.slot == slot and other.writer is None)):
                self._fold(other)
        known = self.workers.setdefault(pid, WorkerState(slot, pid))
        known.writer = writer
        if self.spec is not None:
            writer.write(frame(Install(self.spec)))
        if self._tap.wanted:
            writer.write(frame(self._tap))
        return known
