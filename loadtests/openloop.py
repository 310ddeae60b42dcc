"""An open-loop load generator: requests leave when they are due, whether or not the answers to others have come.

Latency counts from the moment a request was due, not from the moment it could be sent, so a proxy that stalls is
charged with everyone who waited (no coordinated omission). A request that finds every connection busy waits for one,
on the proxy's account. What is not on its account is the generator itself being late: when more than 1 % of requests
were handled later than they were due by more than --late-ms, or it had no time
to spare, the run is refused instead of reported.

Waiting is done with a timerfd: asyncio's timers are too coarse (1 ms) for latencies of a tenth of that.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import ctypes
import gc
import json
import os
import random
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from loadtests.histogram import Histogram

LATE_SHARE: Final = 0.01
USERS: Final = 5000
BUSY_SHARE: Final = 0.9
GRACE_SECONDS: Final = 5.0
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
_TFD_TIMER_ABSTIME: Final = 1
_CLOCK_MONOTONIC: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class RefusedError(Exception):
    """The figures would not mean what they say; the message says why."""


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
        self.due = 0
        """When the request in flight was due; 0 without one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.run.is_free(self)

    def send(self, due: int, request: bytes) -> None:
        self.due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_message_complete(self) -> None:
        due, self.due = self.due, 0
        if self.parser.get_status_code() == 200:
            self.run.histogram.add(time.monotonic_ns() - due)
        else:
            self.run.errors += 1
        self.run.is_free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.run.lost(self)


class Run:
    """One run at one rate."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.histogram = Histogram()
        self.errors = self.late = self.waited = self.sent = 0
        parts = urlsplit(asked.url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._requests = [
            f"GET {target} HTTP/1.1\r\nHost: {asked.host or parts.netloc}\r\nX-User-Id: user-{user}\r\n\r\n".encode()
            for user in range(USERS)
        ]
        self.busy = 0.0
        self._random = random.Random(asked.seed)
        self._gap = 1e9 / asked.rate
        self._late_ns = int(asked.late_ms * 1e6)
        self._free: list[Connection] = []
        self._all: set[Connection] = set()
        self._waiting: collections.deque[int] = collections.deque()
        self._is_open = True

    async def __call__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        for _ in range(self.asked.connections):
            await self._connect()
        gc.collect()
        gc.freeze()
        gc.disable()
        begun, used = time.monotonic(), time.process_time()
        self._due = float(time.monotonic_ns() + 100_000_000)
        self._end = self._due + self.asked.seconds * 1e9
        alarm = Alarm(self._loop, self._tick)
        self._alarm = alarm
        try:
            alarm.at(int(self._due))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1 + self.asked.seconds + GRACE_SECONDS):
                    await self._finished.wait()
        finally:
            self.busy = (time.process_time() - used) / (time.monotonic() - begun)
            self._is_open = False
            alarm.close()
            for connection in tuple(self._all):
                connection.transport.abort()

    async def _connect(self) -> None:
        _, connection = await self._loop.create_connection(lambda: Connection(self), self.host, self.port)
        self._all.add(connection)

    def _tick(self) -> None:
        """Send what was due when it began, so that answers are read in between; ask to be woken for what is next."""
        now = time.monotonic_ns()
        while self._due <= now and self._due < self._end:
            due = int(self._due)
            if now - due > self._late_ns:
                self.late += 1
            if self._free:
                self._send(self._free.pop(), due)
            else:
                self.waited += 1
                self._waiting.append(due)
            self._due += self._random.expovariate(1) * self._gap if self.asked.poisson else self._gap
        if self._due < self._end:
            self._alarm.at(int(self._due))
        else:
            self._look_for_end()

    def _send(self, connection: Connection, due: int) -> None:
        self.sent += 1
        connection.send(due, self._requests[self.sent % USERS])

    def is_free(self, connection: Connection) -> None:
        if self._waiting:
            self._send(connection, self._waiting.popleft())
            return
        self._free.append(connection)
        self._look_for_end()

    def _look_for_end(self) -> None:
        if self.sent and self._due >= self._end and len(self._free) == len(self._all):
            self._finished.set()

    def lost(self, connection: Connection) -> None:
        """A request in flight fails; the connection is made anew."""
        self._all.discard(connection)
        if connection.due:
            self.errors += 1
        if connection in self._free:
            self._free.remove(connection)
        if self._is_open:
            self._again = self._loop.create_task(self._connect(), name="reconnect")

    def result(self) -> dict[str, Any]:
        """The figures. RefusedError when they are not those of the offered rate."""
        offered = self.sent + len(self._waiting)
        if not self.histogram.total:
            raise RefusedError(f"no answers; {self.errors} errors")
        if self.late > offered * LATE_SHARE:
            raise RefusedError(
                f"the generator could not keep {self.asked.rate:g}/s: {self.late / offered:.1%} of {offered} requests "
                f"were late by more than {self.asked.late_ms:g} ms (1 % may be)"
            )
        if self.busy > BUSY_SHARE:
            raise RefusedError(f"the generator was busy {self.busy:.0%} of the time: latencies would be its own")
        if self._waiting:
            raise RefusedError(f"{len(self._waiting)} of {offered} requests were never sent: the target is saturated")
        return {
            "rate": self.asked.rate,
            "arrivals": "poisson" if self.asked.poisson else "constant",
            "requests": self.sent,
            "errors": self.errors,
            "late_percent": 100 * self.late / offered,
            "busy_percent": 100 * self.busy,
            "waited_percent": 100 * self.waited / offered,
            "latency_us": {f"p{p:g}": self.histogram.percentile(p) / 1e3 for p in PERCENTILES}
            | {"max": self.histogram.longest / 1e3},
        }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="http://127.0.0.1:PORT/path")
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--poisson", action="store_true", help="random arrivals, as of many users (else evenly spaced)")
    parser.add_argument("--late-ms", type=float, default=1.0, help="later than this counts as late")
    parser.add_argument("--host", help="Host header (else the URL's)")
    parser.add_argument("--seed", type=int, help="of the random arrivals")
    parser.add_argument("--realtime", action="store_true", help="run before other processes, where that is allowed")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
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
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    run = Run(asked)
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
