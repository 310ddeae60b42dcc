"""A worker process: the data plane, the listening sockets it was given, and a channel to control.

It routes by the last snapshot it was sent and goes on doing so while control is away. It opens its listeners with its
first snapshot and not before. SIGTERM drains; a second one breaks off.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from router.core.spec import SnapshotSpec
from router.process.lifetime import end_with_parent, unblock_signals
from router.process.listening import Listening
from router.proxy.plane import DataPlane
from router.telemetry.access_log import FLUSH_SECONDS, AccessLog
from router.telemetry.messages import LENGTH, Applied, Hello, Report, decode_install, frame, pack_counters

REPORT_SECONDS: Final = 1.0
RECONNECT_SECONDS: Final = (0.05, 1.0)
SNAPSHOT_FILE: Final = "snapshot.msgpack"
CHANNEL_FILE: Final = "control.sock"


class Worker:
    """One worker: owns its plane, its server and its tasks."""

    def __init__(self, slot: int, workers: int, descriptors: list[int], runtime: Path) -> None:
        self.loop = asyncio.get_running_loop()
        self.slot = slot
        self.plane = DataPlane(self.loop, self.spawn, workers)
        self._listening = [
            Listening(self.plane, number, descriptor, self.spawn) for number, descriptor in enumerate(descriptors)
        ]
        self._runtime = runtime
        self._is_open = False
        self._failed = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._drained = asyncio.Event()
        self.is_clean = False
        """Whether everything in flight was answered."""
        self._terms = 0
        self._random = random.Random()

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
        channel = self.spawn(self._talk(), name="channel")
        await self._drained.wait()
        channel.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        self.plane.close()
        if self.plane.access_log is not None:
            self.plane.access_log.stop()

    # -- the end -------------------------------------------------------------------------------------------------------

    def _terminate(self) -> None:
        self._terms += 1
        if self._terms == 1:
            self.spawn(self._drain(), name="drain")
        else:
            self._drained.set()

    async def _drain(self) -> None:
        taken = [task for listening in self._listening for task in await listening.close()]
        try:
            async with asyncio.timeout(self.plane.listener.drain_timeout):
                if taken:
                    await asyncio.wait(taken)
                await self.plane.drain()
                self.is_clean = True
        except TimeoutError:
            pass
        self._drained.set()

    # -- the snapshot --------------------------------------------------------------------------------------------------

    async def _install(self, spec: SnapshotSpec) -> None:
        plane = self.plane
        plane.install(spec)
        log = plane.access_log
        if (log.form if log is not None else "off") != spec.access_log:
            if log is not None:
                plane.lines_dropped = log.dropped
                log.close()
            plane.access_log = None
            if spec.access_log != "off":
                plane.access_log = AccessLog(sys.stdout.fileno(), spec.access_log, plane.lines_dropped)
        if not self._is_open:
            # What start-up left behind is never garbage: keep the collector from walking it again and again.
            self._is_open = True
            gc.collect()
            gc.freeze()
            self._flush_log()
        if not self._terms:
            await self._open(spec)

    async def _open(self, spec: SnapshotSpec) -> None:
        """Open the listeners, or those that can be; the others are tried again, as long as nothing newer is there."""
        failed = ""
        for listening, one in zip(self._listening, spec.listener.sockets, strict=False):
            try:
                await listening.open(one)
            except OSError as error:
                failed = f"{one.address}: {error}"
        if failed and failed != self._failed:
            sys.stderr.write(f"worker {self.slot}: cannot open {failed}; trying again each second\n")
        self._failed = failed
        if failed:
            self.loop.call_later(REPORT_SECONDS, self._open_again, spec)

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
        writer.write(frame(Hello(self.slot, os.getpid())))
        reports = self.spawn(self._report(writer), name="reports")
        try:
            while True:
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                install = decode_install(await reader.readexactly(length))
                await self._install(install.snapshot)
                writer.write(frame(Applied(install.snapshot.generation, time.time())))
        finally:
            reports.cancel()
            writer.close()

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        whole, lag = True, 0.0  # a new control knows nothing yet
        while True:
            before = self.loop.time()
            counters = self.plane.collect(whole=whole)
            counters.resident_bytes, counters.loop_lag_seconds = resident_bytes(), lag
            writer.write(frame(Report(pack_counters(counters))))
            await writer.drain()
            await asyncio.sleep(REPORT_SECONDS)
            whole, lag = False, max(0.0, self.loop.time() - before - REPORT_SECONDS)


def resident_bytes() -> int:
    """This process's resident memory."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def _main(options: argparse.Namespace) -> bool:
    worker = Worker(options.slot, options.workers, options.fd, options.runtime)
    await worker.run()
    return worker.is_clean


def main() -> None:
    """Entry point of a worker process; the parent is the one who calls it."""
    parser = argparse.ArgumentParser(prog="ring-router worker")
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--fd", type=int, nargs="+", required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--runtime", type=Path, required=True)
    options = parser.parse_args()
    unblock_signals()
    end_with_parent(options.parent)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        is_clean = runner.run(_main(options))
    sys.exit(0 if is_clean else 1)


if __name__ == "__main__":
    main()
