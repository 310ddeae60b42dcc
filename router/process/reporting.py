"""What a worker tells control: its counters once a second, and requests and spans that somebody wants to see.

While control is slow to read, reports wait, and of the others what is too much is thrown away and counted.
"""

from __future__ import annotations

import asyncio
from typing import Final

from router.process.memory import Trimmer, resident_bytes
from router.process.pulse import Pulse
from router.process.wear import Wear
from router.proxy.plane import DataPlane
from router.telemetry.counters import REPORTED_RINGS, WorkerCounters
from router.telemetry.journal import Journal
from router.telemetry.messages import Report, Tapped, Traced, frame, pack_counters

REPORT_SECONDS: Final = 1.0
TAP_BUFFER_BYTES: Final = 256 * 1024


class Reporter:
    """Of one worker. ``writer`` is the channel to control; None while there is none."""

    def __init__(self, plane: DataPlane, journal: Journal, pulse: Pulse, wear: Wear) -> None:
        self.writer: asyncio.StreamWriter | None = None
        self._plane = plane
        self._journal = journal
        self._pulse = pulse
        self._wear = wear
        self._trimmer = Trimmer()

    async def run(self, writer: asyncio.StreamWriter) -> None:
        """A report a second, as long as the channel is open."""
        whole = True  # a new control knows nothing yet
        while True:
            # What is not in the kernel's hands yet would be lost with this process, and the journal of it with a
            # report more.
            if whole or not writer.transport.get_write_buffer_size():
                counters = self.report(writer, whole=whole)
                self.users(writer)
                self._trimmer.look(counters.connections)
                self._pulse.wish = self._wear.wish(self._plane.listener.recycle, counters)
            await writer.drain()
            await asyncio.sleep(REPORT_SECONDS)
            whole = False

    def report(self, writer: asyncio.StreamWriter, *, whole: bool) -> WorkerCounters:
        """Everything that moved since the last report, or ``whole``."""
        counters = self._plane.collect(whole=whole)
        counters.resident_bytes = resident_bytes()
        for seen in self._plane.sightings.take(whole=whole):  # first: who sees a request counted knows whose it was
            writer.write(frame(seen))
        is_all = whole or len(counters.rings) < REPORTED_RINGS
        epoch, at = (self._journal.turn(), 0) if is_all else self._journal.place
        writer.write(frame(Report(pack_counters(counters), epoch, at)))
        return counters

    def users(self, writer: asyncio.StreamWriter) -> None:
        """Those of services under a rollout; with nobody to tell of it is a sign that nothing is missing."""
        users = self._plane.collect_users()
        if users is not None:
            writer.write(frame(users))

    def report_early(self) -> None:
        """The journal is full, in the middle of a request: the report comes right after it."""
        self._plane.loop.call_soon(self._report_early)

    def _report_early(self) -> None:
        writer = self.writer
        if writer is None or writer.transport.get_write_buffer_size():
            return
        while True:  # until it knows all, which is when the journal begins anew
            counters = self.report(writer, whole=False)
            self._wear.wish(self._plane.listener.recycle, counters)
            if len(counters.rings) < REPORTED_RINGS:
                return

    def tapped(self, tapped: Tapped) -> None:
        """Requests for those who listen."""
        writer = self.writer
        if writer is None:
            return
        if writer.transport.get_write_buffer_size() > TAP_BUFFER_BYTES:
            for _, takers in tapped.samples:
                for number in takers:
                    tapped.dropped[number] = tapped.dropped.get(number, 0) + 1
            tapped.samples = []
        writer.write(frame(tapped))

    def traced(self, traced: Traced) -> None:
        """Spans that are over."""
        writer = self.writer
        if writer is None:
            return
        if writer.transport.get_write_buffer_size() > TAP_BUFFER_BYTES:
            traced = Traced([], traced.dropped + len(traced.spans))
        writer.write(frame(traced))
