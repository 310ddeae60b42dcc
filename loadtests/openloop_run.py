"""The open-loop generator at work: one thread, plain sockets, one wait for answers and for the next moment alike.

Where it shares a core with the backend it asks, what it takes itself is in every latency. On an event loop a request
cost it seven system calls; here it is four: wait, send, wait, receive. The wait is epoll_pwait2 (Linux 5.11), since
other timers that sockets can be waited for with are a thousand times coarser or take two calls more.
"""

from __future__ import annotations

import array
import collections
import contextlib
import ctypes
import errno
import gc
import heapq
import platform
import random
import select
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httptools

from loadtests.histogram import Histogram

LATE_SHARE: Final = 0.01
USERS: Final = 5000
BUSY_SHARE: Final = 0.9
WAITED_SHARE: Final = 0.01
CONNECT_SECONDS: Final = 5.0
LEAD_NS: Final = 100_000_000
"""Until the first request is due."""
GRACE_NS: Final = 5_000_000_000
RECONNECT_NS: Final = 10_000_000
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
_NEVER: Final = 1 << 62
_EVENTS: Final = 64
_BUFFER: Final = memoryview(bytearray(256 * 1024))
"""For what is received: a new one each time would cost more than all the rest."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_EVENT: Final = struct.Struct("=Ii4x" if platform.machine() == "x86_64" else "=I4xi4x")
"""epoll_event, which is packed on x86-64: what happened, and the descriptor it happened to."""
_PR_SET_TIMERSLACK: Final = 29


class RefusedError(Exception):
    """The figures would not mean what they say; the message says why."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a run is asked for. ``late_ms``: later than this counts as late; ``waited_share``: so many may find every
    connection busy; ``seed``: of the random arrivals.

    With ``rotate`` the connection that has been idle longest is used next, so all of them are; else the one used last.
    """

    url: str
    rate: float
    seconds: float = 10
    connections: int = 64
    poisson: bool = False
    rotate: bool = False
    late_ms: float = 1.0
    waited_share: float = WAITED_SHARE
    host: str | None = None
    seed: int | None = None


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Waiter:
    """Waits for sockets, to the microsecond. RefusedError where the system cannot."""

    def __init__(self) -> None:
        self._wait = getattr(_LIBC, "epoll_pwait2", None)
        if self._wait is None:
            raise RefusedError("epoll_pwait2 is needed: glibc 2.35 on Linux 5.11")
        _LIBC.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        self.epoll = select.epoll()
        self._buffer = ctypes.create_string_buffer(_EVENTS * _EVENT.size)
        self._timeout = _Timespec()
        self._arguments = (self.epoll.fileno(), self._buffer, _EVENTS, ctypes.byref(self._timeout), None)

    def wait(self, nanoseconds: int) -> list[int]:
        """The descriptors that something happened to; none after so long."""
        self._timeout.seconds, self._timeout.nanoseconds = divmod(max(0, nanoseconds), 1_000_000_000)
        count = self._wait(*self._arguments)
        if count < 0:
            failed = ctypes.get_errno()
            if failed != errno.EINTR:  # which comes after SIGCONT as well
                raise OSError(failed, "epoll_pwait2")
        return [_EVENT.unpack_from(self._buffer, at)[1] for at in range(0, count * _EVENT.size, _EVENT.size)]


class Connection:
    """One keep-alive connection, one request at a time."""

    __slots__ = ("due", "is_connecting", "late", "parser", "run", "socket", "waited")

    def __init__(self, run: Run, connected: socket.socket, *, is_connecting: bool) -> None:
        self.run = run
        self.socket = connected
        self.is_connecting = is_connecting
        self.parser = httptools.HttpResponseParser(self)
        self.due = self.late = self.waited = 0
        """When the request in flight was due (0 without one), how late the generator was with it, and whether it
        waited for this connection."""

    def send(self, due: int, late: int, waited: int, request: bytes) -> None:
        self.due, self.late, self.waited = due, late, waited
        try:
            self.socket.send(request)
        except OSError:
            self.run.lost(self)

    def is_ready(self) -> None:
        """Something has come, or the connection was made, or is no more."""
        if self.is_connecting:
            self.run.answered(self, self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            return
        try:
            count = self.socket.recv_into(_BUFFER)
            if count:
                self.parser.feed_data(_BUFFER[:count])
                return
        except BlockingIOError:
            return
        except (OSError, httptools.HttpParserError):
            pass
        self.run.lost(self)

    def on_message_complete(self) -> None:
        due, self.due = self.due, 0
        if not due:  # nobody asked
            self.run.lost(self)
            return
        self.run.ended(due, self.late, self.waited, self.parser.get_status_code())
        if self.parser.should_keep_alive():
            self.run.is_free(self)
        else:
            self.run.lost(self)


class Run:
    """One run at one rate. With ``record`` it also keeps a row for each request, written there at the end."""

    def __init__(self, load: Load, record: Path | None = None) -> None:
        self.load = load
        self.histogram = Histogram()
        self.errors = self.late = self.waited = self.sent = 0
        self.busy = 0.0
        parts = urlsplit(load.url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._requests = [
            f"GET {target} HTTP/1.1\r\nHost: {load.host or parts.netloc}\r\nX-User-Id: user-{user}\r\n\r\n".encode()
            for user in range(USERS)
        ]
        self._record = record
        self._rows = array.array("q")
        self._chance = random.Random(load.seed).expovariate
        self._gap = 1e9 / load.rate
        self._late_ns = int(load.late_ms * 1e6)
        self._waiter = Waiter()
        self._connections: dict[int, Connection] = {}
        """By descriptor; those that are being made as well."""
        self._free: collections.deque[Connection] = collections.deque()
        self._next = self._free.popleft if load.rotate else self._free.pop
        self._waiting: collections.deque[tuple[int, int]] = collections.deque()
        self._retries: list[int] = []
        """When to connect again; a heap."""
        self._is_open = True

    def __call__(self) -> None:
        """Raises OSError when nobody is there at the beginning."""
        for _ in range(self.load.connections):
            made = socket.create_connection(self._address, CONNECT_SECONDS)
            self._add(made, is_connecting=False)
        gc.collect()
        gc.freeze()
        gc.disable()
        begun, used = time.monotonic(), time.process_time()
        self._due = float(time.monotonic_ns() + LEAD_NS)
        self._end = self._due + self.load.seconds * 1e9
        try:
            self._work(int(self._end) + GRACE_NS)
        finally:
            self.busy = (time.process_time() - used) / (time.monotonic() - begun)
            self._is_open = False
            for connection in tuple(self._connections.values()):  # what had no answer fails now
                self.lost(connection)
        if self._record is not None:
            self._record.write_bytes(self._rows.tobytes())

    def _work(self, deadline: int) -> None:
        connections, wait, clock = self._connections, self._waiter.wait, time.monotonic_ns
        while (now := clock()) < deadline:
            if self._due <= now:
                self._send_due(now)
            elif self._due >= self._end and self._is_done():
                return
            while self._retries and self._retries[0] <= now:
                heapq.heappop(self._retries)
                self._reconnect()
            until = min(self._due if self._due < self._end else deadline, self._retries[0] if self._retries else _NEVER)
            for descriptor in wait(int(until) - now):
                connection = connections.get(descriptor)
                if connection is not None:
                    connection.is_ready()

    def _is_done(self) -> bool:
        """Every request has had its end, and there is nobody who might have one."""
        return self.sent > 0 and not self._waiting and all(not one.due for one in self._connections.values())

    def _send_due(self, now: int) -> None:
        """Send what was due when it began, so that answers are read in between."""
        while self._due <= now and self._due < self._end:
            due = int(self._due)
            late = now - due
            if late > self._late_ns:
                self.late += 1
            if self._free:
                self._send(self._next(), due, late, 0)
            else:
                self.waited += 1
                self._waiting.append((due, late))
            self._due += self._chance(1) * self._gap if self.load.poisson else self._gap
        if self._due >= self._end:
            self._due = float(_NEVER)

    def _send(self, connection: Connection, due: int, late: int, waited: int) -> None:
        self.sent += 1
        connection.send(due, late, waited, self._requests[self.sent % USERS])

    def is_free(self, connection: Connection) -> None:
        if self._waiting:
            self._send(connection, *self._waiting.popleft(), 1)
        else:
            self._free.append(connection)

    def ended(self, due: int, late: int, waited: int, status: int) -> None:
        """A request has its answer, or will have none (status 0)."""
        took = time.monotonic_ns() - due
        if status == 200:
            self.histogram.add(took)
        else:
            self.errors += 1
        if self._record is not None:
            self._rows.extend((due, late, took, status, waited))

    # -- connections ---------------------------------------------------------------------------------------------------

    def _add(self, made: socket.socket, *, is_connecting: bool) -> None:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, made, is_connecting=is_connecting)
        self._connections[made.fileno()] = connection
        self._waiter.epoll.register(made, select.EPOLLOUT if is_connecting else select.EPOLLIN)
        if not is_connecting:
            self.is_free(connection)

    def _reconnect(self) -> None:
        made = socket.socket()
        made.setblocking(False)
        failed = made.connect_ex(self._address)
        if failed in (0, errno.EINPROGRESS):
            self._add(made, is_connecting=True)
        else:
            made.close()
            heapq.heappush(self._retries, time.monotonic_ns() + RECONNECT_NS)

    def answered(self, connection: Connection, failed: int) -> None:
        """A connection was made, or could not be (an errno)."""
        if failed:
            self.lost(connection)
            return
        connection.is_connecting = False
        self._waiter.epoll.modify(connection.socket, select.EPOLLIN)
        self.is_free(connection)

    def lost(self, connection: Connection) -> None:
        """A request in flight fails; the connection is made anew."""
        if self._connections.pop(connection.socket.fileno(), None) is None:
            return
        connection.socket.close()
        with contextlib.suppress(ValueError):
            self._free.remove(connection)
        if connection.due:
            due, connection.due = connection.due, 0
            self.ended(due, connection.late, connection.waited, 0)
        if self._is_open:
            heapq.heappush(self._retries, time.monotonic_ns() + (RECONNECT_NS if connection.is_connecting else 0))

    # -- figures -------------------------------------------------------------------------------------------------------

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
        if self.waited > offered * self.load.waited_share:
            raise RefusedError(
                f"{self.waited / offered:.1%} of {offered} requests found every connection busy "
                f"({self.load.waited_share:.0%} may): the target, or the machine, is saturated"
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
