"""A worker process: the data plane, the listening sockets it was given, and a channel to control.

It routes by the last snapshot it was sent and goes on doing so while control is away. It opens its listeners with its
first snapshot and not before. SIGTERM drains; a second one breaks off. SIGUSR1 says that the parent is dead: it
serves on for a while, and drains. SIGUSR2 closes the inbound listeners (sidecar). SIGHUP opens the access log anew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from router.core.records import NO_LOG, AccessLogSpec
from router.core.spec import SnapshotSpec
from router.process.lifetime import end_with_parent, unblock_signals
from router.process.listening import Listening
from router.process.orphans import clean_up_after
from router.process.pulse import Pulse, State
from router.process.reporting import Reporter
from router.process.wear import Wear
from router.proxy.headcount import Headcount
from router.proxy.plane import DataPlane
from router.proxy.tap import Sampler
from router.proxy.tracing import Tracer
from router.telemetry.access_log import FLUSH_SECONDS, AccessLog
from router.telemetry.journal import Journal
from router.telemetry.log_sink import Sink
from router.telemetry.messages import (
    LENGTH,
    Applied,
    Hello,
    Install,
    Leaving,
    Tap,
    Watch,
    decode_from_control,
    frame,
)

LOOK_AGAIN_SECONDS: Final = 1.0
RECONNECT_SECONDS: Final = (0.05, 1.0)
TICK_SECONDS: Final = 0.05
"""Between two beats, and two looks at the siblings' queues: so long a new client waits for a worker that is stuck."""
PATIENCE_SECONDS: Final = 2.0
"""How long a draining worker takes further requests on connections that look idle."""
FAREWELL_SECONDS: Final = 1.0
"""For what is told to the last ones to be sent."""
LAST_REPORT_SECONDS: Final = 1.0
SNAPSHOT_FILE: Final = "snapshot.msgpack"
CHANNEL_FILE: Final = "control.sock"


class Worker:
    """One worker: owns its plane, its server and its tasks."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.loop = asyncio.get_running_loop()
        self.slot: int = options.slot
        headcount = Headcount(self.slot, options.workers, options.headcount)
        self._journal = Journal(lambda: self._reporter.report_early(), is_shared=True)
        self.plane = DataPlane(self.loop, self.spawn, options.workers, headcount, self._journal)
        self._listening = [
            Listening(self.plane, number, own, self.spawn, siblings) for number, own, siblings in options.listen
        ]
        self._runtime: Path = options.runtime
        self._pulse = Pulse(options.pulse)
        self._orphan_seconds: float = options.orphans
        self._is_orphan = False
        self._is_connected = asyncio.Event()
        self._reports: asyncio.Task[None] | None = None
        self._is_open = False
        self._failed = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._drained = asyncio.Event()
        self.is_clean = False
        """Whether everything in flight was answered."""
        self._terms = 0
        self._random = random.Random()
        self._reporter = Reporter(self.plane, self._journal, self._pulse, Wear(self._random))
        self._tick_due = time.monotonic()

    def spawn(self, work: object, *, name: str) -> asyncio.Task[None]:
        """A task with a name and an owner: kept until it ends, cancelled when the worker does."""
        task: asyncio.Task[None] = self.loop.create_task(work, name=name)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run(self) -> None:
        """Until drained."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._terminate)
        self.loop.add_signal_handler(signal.SIGUSR1, self._orphaned)
        self.loop.add_signal_handler(signal.SIGUSR2, self._close_inbound)
        self.loop.add_signal_handler(signal.SIGHUP, self._reopen_log)
        channel = self.spawn(self._talk(), name="channel")
        self._tick()
        await self._drained.wait()
        self.plane.close()
        await self._report_last()
        channel.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        if self.plane.access_log is not None:
            self.plane.access_log.stop()
        if self._is_orphan:
            clean_up_after(self._runtime)

    def _tick(self) -> None:
        """A sign of life, and a look at who waits for a sibling that shows none."""
        self.plane.tally.lagged(max(0.0, time.monotonic() - self._tick_due))
        self._pulse.beat()
        self.plane.count_heads()  # a worker that this one relieves may have written last
        has_more = False
        if self._pulse.state == State.SERVING:
            for listening in self._listening:
                has_more = listening.look_around() or has_more
        delay = TICK_SECONDS / 10 if has_more else TICK_SECONDS
        self._tick_due = time.monotonic() + delay
        self.loop.call_later(delay, self._tick)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _terminate(self) -> None:
        self._terms += 1
        if self._terms == 1:
            self._pulse.enter(State.DRAINING)
            if self._reporter.writer is not None:
                self._reporter.writer.write(frame(Leaving()))
            self.spawn(self._drain(), name="drain")
        else:
            self._drained.set()

    def _orphaned(self) -> None:
        """The parent is dead. Somebody may come soon to relieve this worker; until then it serves on."""
        self._is_orphan = True
        if not self._is_open:
            self._drained.set()
        elif not self._terms:
            self.loop.call_later(self._orphan_seconds, self._terminate_once)

    def _terminate_once(self) -> None:
        if not self._terms:
            self._terminate()

    def _close_inbound(self) -> None:
        """Its application ends: nothing new comes in, what it sends out itself goes on."""
        self.spawn(self._end_inbound(), name="inbound")

    async def _end_inbound(self) -> None:
        inbound = [listening for listening in self._listening if listening.is_inbound]
        self._listening = [listening for listening in self._listening if listening not in inbound]
        for listening in inbound:
            await listening.close()
        doors = {self.plane.door(listening.number) for listening in inbound}
        await asyncio.sleep(PATIENCE_SECONDS)  # what was on its way is answered first
        while doors:
            self.plane.leave(doors)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _drain(self) -> None:
        taken = [task for listening in self._listening for task in await listening.close()]
        try:
            async with asyncio.timeout(self.plane.listener.drain_timeout):
                if taken:
                    await asyncio.wait(taken, timeout=PATIENCE_SECONDS)
                await self.plane.drain(PATIENCE_SECONDS)
                self.is_clean = True
        except TimeoutError:
            await self._say_farewell()
        self._drained.set()

    async def _say_farewell(self) -> None:
        """Time is over. WebSockets may last for days: they are told to come back, which is a clean end."""
        self.is_clean = self.plane.restart_tunnels()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self.plane.drain()

    async def _report_last(self) -> None:
        """Everything it has counted, so that nothing is lost with it."""
        if self._is_orphan or not self._is_open:
            return
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(LAST_REPORT_SECONDS):
                await self._is_connected.wait()  # control may be away, and come back in time
                writer = self._reporter.writer
                if writer is None or self._reports is None:
                    return
                self._reports.cancel()
                await asyncio.sleep(TICK_SECONDS)  # connections that were broken off end, and are counted
                if self.plane.tracer is not None:
                    self.plane.tracer.flush()
                self._reporter.report(writer, whole=True)
                self._reporter.users(writer)
                writer.write(frame(Leaving(is_gone=True)))
                writer.close()
                await writer.wait_closed()

    # -- the snapshot --------------------------------------------------------------------------------------------------

    async def _install(self, spec: SnapshotSpec) -> None:
        plane = self.plane
        state = self._pulse.state
        if state == State.SERVING:
            self._pulse.enter(State.INSTALLING)
        plane.install(spec)
        self._log_as(spec.access_log)
        tracer = plane.tracer
        if (None if tracer is None else tracer.spec) != spec.tracing:
            if tracer is not None:
                tracer.flush()
            plane.tracer = None if spec.tracing is None else Tracer(self.loop, spec.tracing, self._reporter.traced)
        if not self._is_open:
            # What start-up left behind is never garbage: keep the collector from walking it again and again.
            self._is_open = True
            gc.collect()
            gc.freeze()
            self._flush_log()
        self._pulse.enter(state)
        if not self._terms:
            await self._open(spec)

    def _log_as(self, spec: AccessLogSpec) -> None:
        """Write the access log so from now on."""
        plane = self.plane
        log = plane.access_log
        if (log.spec if log is not None else NO_LOG) == spec:
            return
        if log is not None:
            plane.lines_dropped = log.sink.dropped
            log.close()
        plane.access_log = None
        if spec != NO_LOG:
            descriptor = -1 if spec.path else sys.stdout.fileno()
            plane.access_log = AccessLog(spec, Sink(descriptor, spec.path, plane.lines_dropped))

    def _reopen_log(self) -> None:
        """Its file has been moved away."""
        if self.plane.access_log is not None:
            self.plane.access_log.flush()
            self.plane.access_log.sink.reopen()

    async def _open(self, spec: SnapshotSpec) -> None:
        """Open the listeners, or those that can be; the others are tried again, as long as nothing newer is there."""
        failed = ""
        for listening in self._listening:
            one = spec.listener.sockets[listening.number]
            try:
                await listening.open(one)
            except OSError as error:
                failed = f"{one.address}: {error}"
        if not failed and not self._terms:
            self._pulse.enter(State.SERVING)
        if failed and failed != self._failed:
            sys.stderr.write(f"worker {self.slot}: cannot open {failed}; trying again each second\n")
        self._failed = failed
        if failed:
            self.loop.call_later(LOOK_AGAIN_SECONDS, self._open_again, spec)

    def _open_again(self, spec: SnapshotSpec) -> None:
        snapshot = self.plane.snapshot
        if not self._terms and snapshot is not None and snapshot.spec is spec:
            self.spawn(self._open(spec), name="open listeners")

    def _flush_log(self) -> None:
        """Lines that no batch has taken along."""
        self.loop.call_later(FLUSH_SECONDS, self._flush_log)
        if self.plane.access_log is not None:
            self.plane.access_log.flush()

    async def _talk(self) -> None:
        """Keep a channel to control open; without control, start from the snapshot it left."""
        delay, longest = RECONNECT_SECONDS
        failures = 0
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._runtime / CHANNEL_FILE))
                failures = 0
                await self._session(reader, writer)
            except (OSError, EOFError, msgspec.DecodeError):
                failures += 1
            if not self._is_open and failures > 1:
                await self._install_left_behind()
            await asyncio.sleep(self._random.uniform(0, min(longest, delay * 2 ** min(failures, 10))))

    async def _install_left_behind(self) -> None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            data = (self._runtime / SNAPSHOT_FILE).read_bytes()
            await self._install(msgspec.msgpack.decode(data, type=SnapshotSpec))

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(Hello(self.slot, os.getpid(), self._journal.descriptor)))
        if self._terms:
            writer.write(frame(Leaving()))
        reports = self._reports = self.spawn(self._reporter.run(writer), name="reports")
        self._reporter.writer = writer
        self._is_connected.set()
        try:
            while True:
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                match decode_from_control(await reader.readexactly(length)):
                    case Install(snapshot=snapshot):
                        await self._install(snapshot)
                        writer.write(frame(Applied(snapshot.generation, time.time())))
                    case Tap() as tap:
                        self._listen(tap)
                    case Watch(services=services):
                        self.plane.watch(services)
        finally:
            self.plane.tap = None
            self.plane.watch(())  # nobody takes it in; what piled up would count for a moment that is long over
            self._reporter.writer = None
            self._is_connected.clear()
            reports.cancel()
            writer.close()

    def _listen(self, tap: Tap) -> None:
        """Somebody wants to see requests, or nobody any more."""
        self.plane.tap = Sampler(self.loop, tap.wanted, tap.key, self._reporter.tapped) if tap.wanted else None


async def _main(options: argparse.Namespace) -> bool:
    worker = Worker(options)
    await worker.run()
    return worker.is_clean


def _listener(value: str) -> tuple[int, int, list[int]]:
    """``number:own:siblings``, the siblings' descriptors with commas between them."""
    number, own, siblings = value.split(":")
    return int(number), int(own), [int(one) for one in siblings.split(",") if one]


def main() -> None:
    """Entry point of a worker process; the parent is the one who calls it."""
    parser = argparse.ArgumentParser(prog="ring-router worker")
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--listen", type=_listener, nargs="+", required=True)
    parser.add_argument("--pulse", type=int, required=True)
    parser.add_argument("--headcount", type=int, required=True)
    parser.add_argument("--orphans", type=float, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--runtime", type=Path, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # log files that were moved while it starts; it opens them anyway
    unblock_signals()
    end_with_parent(options.parent, signal.SIGUSR1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        is_clean = runner.run(_main(options))
    sys.exit(0 if is_clean else 1)


if __name__ == "__main__":
    main()
