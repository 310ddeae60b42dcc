"""The workers' side of control: hands out snapshots, takes in counters, knows who has applied what.

A worker's counters are cumulative. One that says that it is gone has told everything; what one has counted that was
killed, and had not told yet, is read from its journal. Both are folded into one total, and the ledger keeps all of it:
no sum goes down when a worker dies, or control, or one after the other. A slot has two processes while one replaces the
other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import structlog

from router.control.ledger import Ledger
from router.core.spec import SnapshotSpec
from router.telemetry.buckets import Piece, put
from router.telemetry.counters import (
    RingKey,
    VersionCounters,
    VersionKey,
    WorkerCounters,
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
    Troubled,
    Users,
    Watch,
    decode_from_worker,
    frame,
    unpack_counters,
)
from router.telemetry.replay import OpenJournal
from router.telemetry.reports import apply_report
from router.telemetry.spans import Spans

CHANNEL_FILE: Final = "control.sock"


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
    journal: OpenJournal | None = None

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
        self.on_users: Callable[[int, Users], None] = lambda _, __: None
        """Whom a worker counted, and its process id."""
        self.troubles: tuple[str, ...] = ()
        """What is wrong with Envoy, where that is the data plane: as its bridge said last."""
        self.on_trouble: Callable[[], None] = lambda: None
        self.on_applied: Callable[[SnapshotSpec], None] = lambda _: None
        """Every expected worker routes by this now."""
        self._tap = Tap()
        self._watch = Watch()
        self._told = 0
        """The last generation that ``on_applied`` was told of."""
        self._server: asyncio.Server | None = None
        self._log = structlog.get_logger()
        self.spans = Spans(self._log)
        self._came: dict[RingKey, Piece] = {}
        self.finished: Counter[str] = Counter()
        """Service → requests that are over, as far as workers have reported them since this control began."""
        self._ledger = Ledger(runtime)
        for (slot, pid), counters in self._ledger.found.items():
            self.workers[pid] = WorkerState(slot, pid, counters=counters)

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
        self._ledger.close()

    def publish(self, spec: SnapshotSpec) -> None:
        """Send a snapshot to every worker that is there; the others get it with their hello."""
        self.spec = spec
        self.published_at = time.time()
        self._say(Install(spec))

    def tap(self, tap: Tap) -> None:
        """Tell every worker who wants to see requests; those that come later are told with their first snapshot."""
        self._tap = tap
        self._say(tap)

    def watch(self, watch: Watch) -> None:
        """Tell every worker whose users to count; those that come later are told likewise."""
        self._watch = watch
        self._say(watch)

    def _say(self, message: Install | Tap | Watch) -> None:
        data = frame(message)
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
        fold(total, self._ledger.folded, gauges=False)
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

    def decisions(self) -> dict[tuple[str, str], int]:
        """Service and ring → requests sorted there, ever, over all workers."""
        found: dict[tuple[str, str], int] = {}
        for one in (self._ledger.folded, *(worker.counters for worker in self.workers.values())):
            for (service, ring, _), counters in one.rings.items():
                place = (service, ring)
                found[place] = found.get(place, 0) + sum(counters.reasons.values())
        return found

    def refused_tokens(self) -> int:
        """Tokens whose signature was not good, ever, over all workers."""
        everybody = (self._ledger.folded, *(worker.counters for worker in self.workers.values()))
        return sum(
            count
            for one in everybody
            for (_, kind, word), count in one.proofs.items()
            if (kind, word) == ("token", "forged")
        )

    def versions(self) -> dict[VersionKey, VersionCounters]:
        """That part of ``totals`` alone: with thousands of rings the whole takes long to add up."""
        total: dict[VersionKey, VersionCounters] = {}
        fold_versions(total, self._ledger.folded.versions, gauges=False)
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
                    case Hello(slot=slot, pid=pid, journal=journal):
                        worker = self._welcome(slot, pid, writer)
                        self._open_journal(worker, journal)
                    case Applied(generation=generation, at=at) if worker is not None:
                        worker.generation, worker.applied_at = generation, at
                        self._look_who_applied()
                    case Report() as report if worker is not None:
                        self._take(worker, report)
                    case Seen() as seen if worker is not None:
                        self.on_seen(seen)
                    case Users() as users if worker is not None:
                        self.on_users(worker.pid, users)
                    case Traced() as traced if worker is not None:
                        self.spans.take(traced)
                    case Troubled(sentences=sentences) if worker is not None:
                        self.troubles = sentences
                        self.on_trouble()
                    case Tapped() as tapped if worker is not None:
                        self.on_tapped(tapped)
                    case Leaving(is_gone=is_gone) if worker is not None:
                        worker.is_leaving = True
                        if is_gone:
                            self._fold(worker)
                        self._look_who_applied()
        except (EOFError, OSError, msgspec.DecodeError, asyncio.IncompleteReadError):
            pass
        finally:
            if worker is not None and worker.writer is writer:
                worker.writer = None
                self._catch_up(worker)
                self._look_who_applied()
            writer.close()

    def _look_who_applied(self) -> None:
        spec = self.spec
        if spec is not None and self._told != spec.generation == self.applied_everywhere:
            self._told = spec.generation
            self.on_applied(spec)

    def _open_journal(self, worker: WorkerState, descriptor: int) -> None:
        if worker.journal is None and descriptor >= 0:
            try:
                worker.journal = OpenJournal(worker.pid, descriptor)
            except OSError as error:
                self._log.warning(f"should worker {worker.slot} be killed, its last second is not counted: {error}")

    def _take(self, worker: WorkerState, report: Report) -> None:
        counters = unpack_counters(report.counters)
        if worker.journal is not None:
            worker.journal.reported(report.epoch, report.at, counters)
        # Its first report holds its whole life, which another control may have seen: nothing of it came now.
        news: dict[RingKey, Piece] | None = {} if worker.has_reported else None
        worker.has_reported = True
        worker.counters = apply_report(worker.counters, counters, news)
        for key, piece in (news or {}).items():
            self.finished[key[0]] += piece.requests
            put(self._came, key, piece)
        self._ledger.report(worker.slot, worker.pid, report.counters, worker.counters)

    def _catch_up(self, worker: WorkerState) -> None:
        """Its connection has ended: it may be dead, and what it has not told is in its journal."""
        if worker.journal is not None and self.workers.get(worker.pid) is worker:
            try:
                worker.journal.replay(worker.counters)
            except (OSError, ValueError) as error:
                self._log.error(f"what worker {worker.slot} counted last cannot be read: {error}")
            self._ledger.note(worker.slot, worker.pid, worker.counters)

    def _fold(self, worker: WorkerState) -> None:
        """A worker that is gone: what it counted stays, but for endpoints that are gone as well."""
        if self.workers.get(worker.pid) is worker:
            del self.workers[worker.pid]
            folded = self._ledger.folded
            fold(folded, worker.counters, gauges=False)
            if self.spec is not None:
                services = self.spec.services
                named = {(s.name, v.name, e.address) for s in services for v in s.versions for e in v.endpoints}
                for gone in folded.endpoints.keys() - named:
                    del folded.endpoints[gone]
            self._ledger.fold(worker.slot, worker.pid)
            if worker.journal is not None:
                worker.journal.close()

    def _welcome(self, slot: int, pid: int, writer: asyncio.StreamWriter) -> WorkerState:
        for other in [*self.workers.values()]:
            is_same = (other.slot, other.pid) == (slot, pid)
            if not is_same and (other.pid == pid or (other.writer is None and not _is_alive(other.pid))):
                self._catch_up(other)
                self._fold(other)
        known = self.workers.setdefault(pid, WorkerState(slot, pid))
        known.writer = writer
        if self.spec is not None:
            writer.write(frame(Install(self.spec)))
        if self._tap.wanted:
            writer.write(frame(self._tap))
        if self._watch.services:
            writer.write(frame(self._watch))
        return known


def _is_alive(pid: int) -> bool:
    """A worker that lost its connection comes back, and then tells everything; until then it is not gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
