"""An open-loop load generator: requests leave when they are due, whether or not the answers to others have come.

Latency counts from the moment a request was due, not from the moment it could be sent, so a proxy that stalls is
charged with everyone who waited (no coordinated omission). A request that finds every connection busy waits for one,
on the proxy's account. What is not on its account is the generator itself being late: when more than 1 % of requests
were handled later than they were due by more than --late-ms, or it had no time
to spare, the run is refused instead of reported.

Waiting is done with a timerfd: asyncio's timers are too coarse (1 ms) for latencies of a tenth of that. Load tests
start it as a process of its own (``Generator``), which can leave a row for each request.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import collections
import contextlib
import ctypes
import gc
import json
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from loadtests.histogram import Histogram
from loadtests.rig import LOAD_CORE, PRIORITY, ROOT, RigError, python_module

LATE_SHARE: Final = 0.01
USERS: Final = 5000
BUSY_SHARE: Final = 0.9
WAITED_SHARE: Final = 0.01
GRACE_SECONDS: Final = 5.0
MARGIN_SECONDS: Final = 30.0
RECONNECT_SECONDS: Final = 0.01
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
_TFD_TIMER_ABSTIME: Final = 1
_CLOCK_MONOTONIC: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class RefusedError(Exception):
    """The figures would not mean what they say; the message says why."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a run is asked for. ``late_ms``: later than this counts as late; ``seed``: of the random arrivals.

    With ``rotate`` the connection that has been idle longest is used next, so all of them are; else the one used last.
    """

    url: str
    rate: float
    seconds: float = 10
    connections: int = 64
    poisson: bool = False
    rotate: bool = False
    late_ms: float = 1.0
    host: str | None = None
    seed: int | None = None


class Row(NamedTuple):
    """One request of a recorded run; nanoseconds, ``due`` on CLOCK_MONOTONIC, which all processes share."""

    due: int
    late: int
    """How late the generator itself was with it."""
    took: int
    """From when it was due to the end of the answer, or to its failure."""
    status: int
    """Of the answer; 0 without one."""


def read_rows(path: Path) -> list[Row]:
    """What a run has recorded, in the order in which requests ended."""
    numbers = array.array("q", path.read_bytes())
    width = len(Row._fields)
    return [Row(*numbers[start : start + width]) for start in range(0, len(numbers), width)]


class Alarm:
    """Calls back at a moment of CLOCK_MONOTONIC, to some 50 µs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._fd: int = _LIBC.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = ctypes.create_string_buffer(32)
        loop.add_reader(self._fd, self._fired)

    def at(self, nanoseconds: int) -> None:
        struct.pack_into("qqqq", self._spec, 0, 0, 0, *divmod(max(1, nanoseconds), 1_000_000_000))
        _LIBC.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, self._spec, None)

    def _fired(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        self._ring()

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    transport: asyncio.Transport

    def __init__(self, run: Run) -> None:
        self.run = run
        self.parser = httptools.HttpResponseParser(self)
        self.due = self.late = 0
        """When the request in flight was due (0 without one), and how late the generator was with it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.run.joined(self)

    def send(self, due: int, late: int, request: bytes) -> None:
        self.due, self.late = due, late
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_message_complete(self) -> None:
        due, self.due = self.due, 0
        self.run.ended(due, self.late, self.parser.get_status_code())
        if self.parser.should_keep_alive():
            self.run.is_free(self)
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.run.lost(self)


class Run:
    """One run at one rate. With ``record`` it also keeps a row for each request, written there at the end."""

    def __init__(self, load: Load, record: Path | None = None) -> None:
        self.load = load
        self.histogram = Histogram()
        self.errors = self.late = self.waited = self.sent = 0
        parts = urlsplit(load.url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._requests = [
            f"GET {target} HTTP/1.1\r\nHost: {load.host or parts.netloc}\r\nX-User-Id: user-{user}\r\n\r\n".encode()
            for user in range(USERS)
        ]
        self.busy = 0.0
        self._record = record
        self._rows = array.array("q")
        self._random = random.Random(load.seed)
        self._gap = 1e9 / load.rate
        self._late_ns = int(load.late_ms * 1e6)
        self._free: collections.deque[Connection] = collections.deque()
        self._next = self._free.popleft if load.rotate else self._free.pop
        self._all: set[Connection] = set()
        self._waiting: collections.deque[tuple[int, int]] = collections.deque()
        self._reconnecting: set[asyncio.Task[None]] = set()
        self._is_open = True

    async def __call__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        for _ in range(self.load.connections):
            await self._connect()
        gc.collect()
        gc.freeze()
        gc.disable()
        begun, used = time.monotonic(), time.process_time()
        self._due = float(time.monotonic_ns() + 100_000_000)
        self._end = self._due + self.load.seconds * 1e9
        alarm = Alarm(self._loop, self._tick)
        self._alarm = alarm
        try:
            alarm.at(int(self._due))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1 + self.load.seconds + GRACE_SECONDS):
                    await self._finished.wait()
        finally:
            self.busy = (time.process_time() - used) / (time.monotonic() - begun)
            self._is_open = False
            alarm.close()
            for connection in tuple(self._all):
                connection.transport.abort()
        await asyncio.sleep(0)  # what had no answer fails now, in connection_lost
        if self._record is not None:
            self._record.write_bytes(self._rows.tobytes())

    async def _connect(self) -> None:
        await self._loop.create_connection(lambda: Connection(self), self.host, self.port)

    async def _reconnect(self) -> None:
        while self._is_open:
            try:
                await self._connect()
                break
            except OSError:
                await asyncio.sleep(RECONNECT_SECONDS)

    def _tick(self) -> None:
        """Send what was due when it began, so that answers are read in between; ask to be woken for what is next."""
        now = time.monotonic_ns()
        while self._due <= now and self._due < self._end:
            due = int(self._due)
            late = now - due
            if late > self._late_ns:
                self.late += 1
            if self._free:
                self._send(self._next(), due, late)
            else:
                self.waited += 1
                self._waiting.append((due, late))
            self._due += self._random.expovariate(1) * self._gap if self.load.poisson else self._gap
        if self._due < self._end:
            self._alarm.at(int(self._due))
        else:
            self._look_for_end()

    def _send(self, connection: Connection, due: int, late: int) -> None:
        self.sent += 1
        connection.send(due, late, self._requests[self.sent % USERS])

    def joined(self, connection: Connection) -> None:
        self._all.add(connection)
        self.is_free(connection)

    def is_free(self, connection: Connection) -> None:
        if self._waiting:
            self._send(connection, *self._waiting.popleft())
            return
        self._free.append(connection)
        self._look_for_end()

    def _look_for_end(self) -> None:
        if self.sent and self._due >= self._end and len(self._free) == len(self._all):
            self._finished.set()

    def ended(self, due: int, late: int, status: int) -> None:
        """A request has its answer, or will have none (status 0)."""
        took = time.monotonic_ns() - due
        if status == 200:
            self.histogram.add(took)
        else:
            self.errors += 1
        if self._record is not None:
            self._rows.extend((due, late, took, status))

    def lost(self, connection: Connection) -> None:
        """A request in flight fails; the connection is made anew."""
        self._all.discard(connection)
        if connection.due:
            self.ended(connection.due, connection.late, 0)
        if connection in self._free:
            self._free.remove(connection)
        if self._is_open:
            task = self._loop.create_task(self._reconnect(), name="reconnect")
            self._reconnecting.add(task)
            task.add_done_callback(self._reconnecting.discard)

    def result(self) -> dict[str, Any]:
        """The figures. RefusedError when they are not those of the offered rate."""
        offered = self.sent + len(self._waiting)
        if not self.histogram.total:
            raise RefusedError(f"no answers; {self.errors} errors")
        if self.late > offered * LATE_SHARE:
            raise RefusedError(
                f"the generator could not keep {self.load.rate:g}/s: {self.late / offered:.1%} of {offered} requests "
                f"were late by more than {self.load.late_ms:g} ms (1 % may be)"
            )
        if self.waited > offered * WAITED_SHARE:
            raise RefusedError(
                f"{self.waited / offered:.1%} of {offered} requests found every connection busy (1 % may): "
                "the target, or the machine, is saturated"
            )
        if self.busy > BUSY_SHARE:
            raise RefusedError(f"the generator was busy {self.busy:.0%} of the time: latencies would be its own")
        if self._waiting:
            raise RefusedError(f"{len(self._waiting)} of {offered} requests were never sent: the target is saturated")
        return {
            "rate": self.load.rate,
            "arrivals": "poisson" if self.load.poisson else "constant",
            "requests": self.sent,
            "errors": self.errors,
            "late_percent": 100 * self.late / offered,
            "busy_percent": 100 * self.busy,
            "waited_percent": 100 * self.waited / offered,
            "latency_us": {f"p{p:g}": self.histogram.percentile(p) / 1e3 for p in PERCENTILES}
            | {"max": self.histogram.longest / 1e3},
        }


# -- as a process of its own -------------------------------------------------------------------------------------------


class Generator:
    """A run in a process of its own on the load core, with real-time priority where that is allowed.

    It begins to connect when the block begins, and has ended when the block has, whatever happened.
    """

    def __init__(self, load: Load, record: Path | None = None) -> None:
        self.load = load
        self._command = python_module("loadtests.openloop", load.url, "--json", "--realtime")
        self._command += [f"--{name}" for name in ("poisson", "rotate") if getattr(load, name)]
        wanted = {name: getattr(load, name) for name in ("rate", "seconds", "connections", "late_ms", "host", "seed")}
        for name, value in (wanted | {"record": record}).items():
            if value is not None:
                self._command += [f"--{name.replace('_', '-')}", str(value)]

    def __enter__(self) -> Generator:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def result(self) -> dict[str, Any]:
        """Wait for its end and return its figures. RigError when it refused them."""
        out, said = self._process.communicate(timeout=self.load.seconds + MARGIN_SECONDS)
        if self._process.returncode:
            raise RigError(said.strip().splitlines()[-1] if said.strip() else "the generator failed")
        found: dict[str, Any] = json.loads(out)
        return found


# -- on the command line -----------------------------------------------------------------------------------------------


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="http://127.0.0.1:PORT/path")
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--poisson", action="store_true", help="random arrivals, as of many users (else evenly spaced)")
    parser.add_argument("--rotate", action="store_true", help="use all connections in turn (else the one used last)")
    parser.add_argument("--late-ms", type=float, default=1.0, help="later than this counts as late")
    parser.add_argument("--host", help="Host header (else the URL's)")
    parser.add_argument("--seed", type=int, help="of the random arrivals")
    parser.add_argument("--realtime", action="store_true", help="run before other processes, where that is allowed")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--record", type=Path, help="a file for a row for each request (see read_rows)")
    asked = parser.parse_args()
    if asked.rate <= 0 or asked.seconds <= 0 or asked.connections <= 0:
        parser.error("--rate, --seconds and --connections are above 0")
    if urlsplit(asked.url).scheme != "http":
        parser.error("the URL begins with http://")
    return asked


def main() -> None:
    asked = options()
    if asked.realtime:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY + 1))
    run = Run(Load(**{name: getattr(asked, name) for name in Load.__dataclass_fields__}), asked.record)
    try:
        uvloop.run(run())
        found = run.result()
    except (RefusedError, OSError) as error:
        sys.exit(f"refused: {error}")
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{found['requests']} requests, {found['arrivals']} arrivals at {asked.rate:g}/s, {found['errors']} errors")
    print(f"late {found['late_percent']:.2f} %, waited for a connection {found['waited_percent']:.2f} %")
    print("  ".join(f"{name} {value / 1e3:.3f} ms" for name, value in found["latency_us"].items()))


if __name__ == "__main__":
    main()
