"""The bridge: stands in the place of the workers where Envoy is the data plane, and is one to control.

What control sends is written to the files that Envoy watches, and is applied when Envoy says so; what Envoy counts is
reported once a second as a worker reports. No request passes here: while the bridge is away, Envoy serves by what it
has, and what it counts meanwhile is reported afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import random
import signal
import time
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import structlog
import uvloop

from router.core.spec import SnapshotSpec
from router.envoy.admin import TIMEOUT, Admin, AwayError
from router.envoy.books import Books
from router.envoy.delivery import Delivery, RefusedError
from router.envoy.forward import Forward
from router.envoy.held import held
from router.envoy.options import EnvoyOptions
from router.envoy.refusals import refusals
from router.envoy.resources import Resources, resources
from router.envoy.stats import Reading, is_restarted, news
from router.envoy.upstreams import Upstream, new_failures
from router.envoy.users import Sorter
from router.process.lifetime import end_with_parent, unblock_signals
from router.process.memory import resident_bytes
from router.process.pulse import Pulse, State
from router.telemetry.counters import EndpointKey
from router.telemetry.log import configure
from router.telemetry.messages import (
    LENGTH,
    Applied,
    Hello,
    Install,
    Leaving,
    Report,
    Troubled,
    Watch,
    decode_from_control,
    frame,
    pack_counters,
)
from router.telemetry.tasks import spawn

CHANNEL_FILE: Final = "control.sock"
LOCK_FILE: Final = ".ring-router.lock"
REPORT_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.05
RECONNECT_SECONDS: Final = (0.05, 1.0)
AWAY_SECONDS: Final = 0.25
"""After which an Envoy that is away, or late, is asked again."""
REFUSED_SECONDS: Final = 30.0
"""After which one that has refused something is given it again: it may be another Envoy by then."""


class Look(msgspec.Struct):
    """What one Envoy said last; kept in the runtime directory, so that the next bridge goes on from there.

    One without numbers says when the router began: whoever served before that was not counted from its start.
    """

    reading: Reading
    upstreams: dict[EndpointKey, Upstream] = {}


class Bridge:
    """Between one control and the Envoys that read one directory."""

    def __init__(self, options: argparse.Namespace, session: aiohttp.ClientSession) -> None:
        self._runtime: Path = options.runtime
        self._directory: Path = options.directory
        self._envoys = [Admin(address, session) for address in options.admin]
        self._pulse = Pulse(options.pulse)
        self._log = structlog.get_logger()
        self._delivery = Delivery(self._directory, self._envoys)
        self._books = Books()
        self._sorter = Sorter()
        self._forward = Forward(self._directory, self._sorter.took)
        self._looks = {envoy.address: self._last_look(envoy.address) for envoy in self._envoys}
        self._spec: SnapshotSpec | None = None
        self._delivered: SnapshotSpec | None = None
        """What of the last one Envoy was given (``held``)."""
        self._watched: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._is_whole_due = True
        self._undelivered: list[str] = []
        self._unseen: list[str] = []
        """Sentences: why a snapshot is not in force everywhere, and whose figures are missing."""
        self._said: tuple[str, ...] = ()
        self._stop = asyncio.Event()
        self._random = random.Random()

    async def run(self) -> None:
        """Until SIGTERM. Envoy serves on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._tick()
        await self._forward.start()
        work = (self._talk(), self._deliver_all(), self._look_all())
        tasks = [spawn(one, name=name) for one, name in zip(work, ("channel", "delivery", "figures"), strict=True)]
        await self._stop.wait()
        self._pulse.enter(State.DRAINING)
        for task in tasks[1:]:
            task.cancel()
        if self._writer is not None:
            await self._look()
            self._report(self._writer)
            self._writer.write(frame(Leaving(is_gone=True)))
            with contextlib.suppress(OSError):
                await self._writer.drain()
        tasks[0].cancel()
        self._forward.stop()

    def _tick(self) -> None:
        self._pulse.beat()
        asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    # -- control -------------------------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        """Keep a channel to control open."""
        delay, longest = RECONNECT_SECONDS
        failures = 0
        while True:
            with contextlib.suppress(OSError, EOFError, msgspec.DecodeError):
                failures += 1
                reader, writer = await asyncio.open_unix_connection(str(self._runtime / CHANNEL_FILE))
                failures = 0
                await self._session(reader, writer)
            await asyncio.sleep(self._random.uniform(0, min(longest, delay * 2 ** min(failures, 10))))

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(Hello(0, os.getpid())))
        writer.write(frame(Troubled(self._said)))
        self._watched = frozenset()  # whom a new control watches, it says right behind the snapshot
        self._is_whole_due = True
        self._writer = writer
        try:
            while True:
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                match decode_from_control(await reader.readexactly(length)):
                    case Install(snapshot=snapshot):
                        self._spec = snapshot
                        self._wake.set()
                    case Watch(services=services):
                        self._sorter.watch(services)
                        self._watched = frozenset(one.service for one in services)
                        self._wake.set()
                    case _:  # a tap: Envoy shows nobody its requests
                        pass
        finally:
            self._sorter.watch(())
            self._writer = None
            writer.close()

    def _tell(self) -> None:
        """What is wrong, once each."""
        now = tuple(dict.fromkeys((*self._undelivered, *self._unseen)))
        if now == self._said:
            return
        for sentence in now:
            if sentence not in self._said:
                self._log.warning(sentence)
        if not now:
            self._log.info("Envoy is well again")
        self._said = now
        if self._writer is not None:
            self._writer.write(frame(Troubled(now)))

    # -- what goes to Envoy --------------------------------------------------------------------------------------------

    async def _deliver_all(self) -> None:
        """The newest snapshot, until Envoy has it or something newer comes."""
        retry_seconds: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(retry_seconds):
                    await self._wake.wait()
            self._wake.clear()
            spec = self._spec
            if spec is None:
                continue
            try:
                self._undelivered, retry_seconds = await self._deliver(spec)
            except RefusedError as error:
                self._undelivered = [f"generation {spec.generation} is not applied: {error}"]
                retry_seconds = REFUSED_SECONDS
            except OSError as error:
                self._undelivered = [f"generation {spec.generation} cannot be written to {self._directory}: {error}"]
                retry_seconds = REFUSED_SECONDS
            except Exception as error:  # noqa: BLE001 - a fault in one snapshot must not keep the next one from Envoy
                self._log.error(f"generation {spec.generation}: {error!r}", exc_info=error)
                self._undelivered = [f"generation {spec.generation} is not applied: {error}"]
            self._tell()
            if not self._undelivered:
                self._applied(spec)

    async def _deliver(self, spec: SnapshotSpec) -> tuple[list[str], float | None]:
        """Why it is not in force, or not as a whole, as sentences; and in how many seconds to try again, if at all.

        Raises RefusedError and OSError.
        """
        able, kept = held(spec, self._delivered)
        against = refusals(able)
        if against:
            return [f"generation {spec.generation} is not applied: Envoy cannot do it: {against[0]}"], None
        late = await self._delivery.deliver(self._translate(able), spec.generation)
        self._delivered = able
        if late:
            return late, AWAY_SECONDS
        if self._pulse.state == State.STARTING:
            self._pulse.enter(State.SERVING)
        return [f"Envoy cannot do {one}. That stays as it was; everything else is in force" for one in kept], None

    def _translate(self, spec: SnapshotSpec) -> Resources:
        self._sorter.installed(spec)
        self._books.installed(spec)
        options = EnvoyOptions(str(self._directory), watched=self._watched, is_counted=True, generation=spec.generation)
        return resources(spec, options)

    def _applied(self, spec: SnapshotSpec) -> None:
        if self._writer is not None:
            self._writer.write(frame(Applied(spec.generation, time.time())))

    # -- what Envoy says -----------------------------------------------------------------------------------------------

    async def _look_all(self) -> None:
        """Once a second, at even distances."""
        at = time.monotonic()
        while True:
            at = max(at + REPORT_SECONDS, time.monotonic())
            await asyncio.sleep(at - time.monotonic())
            try:
                await self._look()
                await self._delivery.tidy(self._spec.generation if self._spec is not None else 0)
            except Exception as error:  # noqa: BLE001 - a fault in one second must not end the figures for ever
                self._log.error(f"a look at Envoy failed: {error!r}", exc_info=error)
            if self._writer is not None and not self._writer.transport.get_write_buffer_size():
                self._report(self._writer)

    async def _look(self) -> None:
        looks = await asyncio.gather(*(self._look_at(envoy) for envoy in self._envoys))
        self._unseen = [one for one in looks if isinstance(one, str)]
        self._books.look((one.reading, one.upstreams) for one in looks if isinstance(one, Look))
        self._tell()

    async def _look_at(self, envoy: Admin) -> Look | str:
        """Take in what is new; or why that cannot be."""
        try:
            now = Look(await envoy.look(), await envoy.upstreams())
        except AwayError as error:
            return f"Envoy at {envoy.address} is away: {error}"
        before = self._looks[envoy.address]
        self._looks[envoy.address] = now
        self._keep(envoy.address, now)  # first: what is counted twice is worse than what is missing
        is_another = is_restarted(now.reading, before.reading)
        if not before.reading.numbers and not is_another:
            return now
        known = {} if is_another else before.upstreams
        self._books.add(news(now.reading, before.reading), new_failures(now.upstreams, known))
        return now

    def _path(self, address: str) -> Path:
        return self._runtime / f"envoy-{address.replace('/', '_')}.msgpack"

    def _keep(self, address: str, look: Look) -> None:
        with contextlib.suppress(OSError):
            new = self._path(address).with_suffix(".new")
            new.write_bytes(msgspec.msgpack.encode(look))
            os.replace(new, self._path(address))

    def _last_look(self, address: str) -> Look:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.msgpack.decode(self._path(address).read_bytes(), type=Look)
        first = Look(Reading(time.time()))
        self._keep(address, first)
        return first

    def _report(self, writer: asyncio.StreamWriter) -> None:
        seen, users = self._sorter.take()
        for one in seen:
            writer.write(frame(one))
        counters = self._books.report(resident_bytes(), whole=self._is_whole_due)
        self._is_whole_due = False
        writer.write(frame(Report(pack_counters(counters))))
        if users is not None:
            writer.write(frame(users))


async def _main(options: argparse.Namespace) -> None:
    with (options.directory / LOCK_FILE).open("w") as lock:
        await _alone(lock.fileno(), options.directory)
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            await Bridge(options, session).run()


async def _alone(lock: int, directory: Path) -> None:
    """Two routers that write to one directory would undo each other's work."""
    log = structlog.get_logger()
    is_said = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if not is_said:
                log.error(f"another router writes to {directory}: waiting until it ends")
            is_said = True
            await asyncio.sleep(REPORT_SECONDS)
        else:
            return


def main() -> None:
    """Entry point of the bridge process; the parent is the one who calls it."""
    parser = argparse.ArgumentParser(prog="ring-router bridge")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--admin", nargs="+", required=True)
    parser.add_argument("--pulse", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--runtime", type=Path, required=True)
    options = parser.parse_args()
    for number in (signal.SIGHUP, signal.SIGUSR2):  # of log files and listeners, of which it has none
        signal.signal(number, signal.SIG_IGN)
    unblock_signals()
    end_with_parent(options.parent)
    configure("bridge")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(options))


if __name__ == "__main__":
    main()
