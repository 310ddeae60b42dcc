"""What a worker's journal says, added to what it had reported: all that it ever counted, though it is gone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from router.telemetry.counters import RingCounters, RingKey, WorkerCounters
from router.telemetry.journal import (
    HALF,
    HAS_UPSTREAM,
    IS_ABORTED,
    IS_COUNT,
    IS_ERROR,
    IS_SETTLED,
    NAMES_AT,
    RECORD,
    RECORDS,
    SEPARATOR,
)
from router.telemetry.meters import ERROR, UPSTREAM, histogram_index

_CHUNK_BYTES = 1 << 20


@dataclass(slots=True)
class Place:
    """How far a journal is known: everything of the epochs before, and so many records of this one and those after."""

    epoch: int = 0
    read: dict[int, int] = field(default_factory=dict)
    """Epoch → records."""
    partly: tuple[int, int] = (0, 0)
    """Up to here (epoch, records) the latest report knew what has no ring."""
    rings: dict[RingKey, tuple[int, int]] = field(default_factory=dict)
    """Likewise, of those that a report had while it had not all."""
    decided: dict[int, int] = field(default_factory=dict)
    """Number of a lane → decisions that its last record told of."""
    owed: dict[int, int] = field(default_factory=dict)
    """Number of a lane → decisions that were taken back, and not yet taken from those that came."""
    fresh: dict[int, int] = field(default_factory=dict)
    """Number of a lane → decisions that nobody has been told of yet."""


class OpenJournal:
    """Control's side: a worker's journal, held open for when the worker is gone."""

    def __init__(self, pid: int, descriptor: int) -> None:
        """Raises OSError."""
        self._descriptor = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        self.place = Place()

    def reported(self, epoch: int, at: int, report: WorkerCounters) -> None:
        """A report has come that knows everything before this place; with ``at`` above 0, of its own rings alone."""
        if not at:
            self.place = Place(epoch)
            return
        self.place.partly = (epoch, at)
        self.place.rings.update(dict.fromkeys(report.rings, (epoch, at)))

    def replay(self, counters: WorkerCounters) -> None:
        """Add what is not known yet. Raises OSError."""
        data = _whole(self._descriptor)
        names = data[NAMES_AT:].decode().split("\n")
        replay(data, [name.split(SEPARATOR) for name in names], self.place, counters)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def _whole(descriptor: int) -> bytes:
    """From the beginning, whatever was read before."""
    found, at = [], 0
    while piece := os.pread(descriptor, _CHUNK_BYTES, at):
        found.append(piece)
        at += len(piece)
    return b"".join(found)


Record = tuple[int, int, int, int, int, int, int, int, int]


def _records(data: bytes, epoch: int) -> Iterator[Record]:
    """Those of one epoch, which are the first ones of its half."""
    half = (epoch % 2) * HALF
    for at in range(half, half + RECORDS * RECORD.size, RECORD.size):
        record = RECORD.unpack_from(data, at)
        if record[-1] != epoch:
            return
        yield record


def replay(data: bytes, names: list[list[str]], place: Place, counters: WorkerCounters) -> None:
    """Add the records after ``place`` to the counters, and move the place. Pure."""
    place.fresh.clear()
    for epoch in sorted({_epoch_of(data, 0), _epoch_of(data, 1)}):
        if epoch < max(place.epoch, 1):
            continue
        known = place.read.get(epoch, 0)
        read = 0
        for read, record in enumerate(_records(data, epoch), 1):
            if read > known:
                _add((epoch, read), record, names[record[5] - 1], place, counters)
        place.read[epoch] = read


def _epoch_of(data: bytes, half: int) -> int:
    epoch: int = RECORD.unpack_from(data, half * HALF)[-1]
    return epoch


def _add(at: tuple[int, int], record: Record, name: list[str], place: Place, counters: WorkerCounters) -> None:
    sent, received, decided, duration, waited, number, status, flags, _ = record
    if flags & IS_COUNT:
        if at > place.partly:
            _count(name, counters)
        return
    _, service, ring, version, reason = name
    if at <= place.rings.get((service, ring, version), (0, 0)):
        return
    mine = counters.ring((service, ring, version))
    before = place.decided.get(number, 0)
    if flags & IS_SETTLED:
        # What was told of already, and was settled now, is not decided twice; below 0 it only takes something back.
        news = max(0, decided - before)
        place.decided[number] = 0 if decided > 0 else before
        if decided < 0:
            # Taken from what nobody was told of, else from what comes, never from what was told: no total goes down.
            back = min(-decided, place.fresh.get(number, 0))
            if back:
                place.fresh[number] -= back
                mine.reasons[reason] -= back
            place.owed[number] = place.owed.get(number, 0) - decided - back
    else:
        news = max(0, decided - before)
        place.decided[number] = max(before, decided)
    taken = min(news, place.owed.get(number, 0))
    if taken:
        place.owed[number] -= taken
    if news > taken:
        mine.reasons[reason] = mine.reasons.get(reason, 0) + news - taken
        place.fresh[number] = place.fresh.get(number, 0) + news - taken
    if flags & IS_SETTLED:
        return
    mine.codes[status] = mine.codes.get(status, 0) + 1
    mine.request_bytes += received
    mine.response_bytes += sent
    mine.client_aborts += bool(flags & IS_ABORTED)
    _time(mine, duration, waited if flags & HAS_UPSTREAM else -1, is_error=bool(flags & IS_ERROR))


def _time(ring: RingCounters, duration: int, waited: int, *, is_error: bool) -> None:
    """As ``RingMeter.finished`` does it."""
    durations, first = ring.durations, ERROR if is_error else 0
    index = first + histogram_index(duration)
    durations[index] = durations.get(index, 0) + 1
    if waited >= 0:
        index = UPSTREAM + first + histogram_index(waited)
        durations[index] = durations.get(index, 0) + 1
    if is_error:
        ring.error_micros += duration
        ring.upstream_error_micros += max(0, waited)
    else:
        ring.success_micros += duration
        ring.upstream_success_micros += max(0, waited)


def _count(name: list[str], counters: WorkerCounters) -> None:
    match name:
        case ["answer", word]:
            counters.router_answers[word] = counters.router_answers.get(word, 0) + 1
        case ["failure", word]:
            counters.failures[word] = counters.failures.get(word, 0) + 1
        case ["proof", service, kind, word]:
            key = (service, kind, word)
            counters.proofs[key] = counters.proofs.get(key, 0) + 1
        case _:
            raise ValueError(f"nobody counts {name}")
