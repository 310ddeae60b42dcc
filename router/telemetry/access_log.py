"""The access log: one line per request, written in batches by a thread, bounded, never in the request's way.

The event loop appends a tuple. A thread turns tuples into lines and writes them; when it cannot (a full disk, a reader
that stopped) the queue fills, further lines are dropped and counted, and writing resumes by itself.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec

QUEUE_LINES: Final = 10_000
"""Lines that wait at the most; faults.md row 23."""
FLUSH_SECONDS: Final = 0.2

if TYPE_CHECKING:

    class LaneLike(Protocol):
        """What of a lane is logged."""

        @property
        def service(self) -> str: ...
        @property
        def ring(self) -> str: ...
        @property
        def version(self) -> str: ...
        @property
        def reason(self) -> str: ...

    class ExchangeLike(Protocol):
        """What of an exchange is logged."""

        method: bytes
        target: bytes
        request_id: bytes
        sent: int
        received: int
        downstream: Any
        endpoint: Any

        @property
        def lane(self) -> LaneLike: ...


Record = tuple[float, bytes, bytes, bytes, int, int, int, float, "LaneLike", str, bytes]
_encode: Final = msgspec.json.Encoder().encode


def json_line(record: Record) -> bytes:
    """One JSON object. ``duration`` is seconds, ``bytes`` are of the bodies.

    Only what a client can write is encoded; numbers, addresses and names from the config need no escaping.
    """
    at, client, method, target, status, sent, received, duration, lane, endpoint, request_id = record
    return (
        b'{"time":"%b","client":"%b","method":"%b","target":%b,"status":%d,"bytes":%d,"request_bytes":%d,'
        b'"duration":%.6f,"service":"%b","ring":"%b","version":"%b","reason":"%b","endpoint":"%b","request_id":%b}\n'
    ) % (
        _timestamp(at), client, method, _encode(target.decode("latin-1")), status, sent, received, duration,
        lane.service.encode(), lane.ring.encode(), lane.version.encode(), lane.reason.encode(), endpoint.encode(),
        _encode(request_id.decode("latin-1")),
    )  # fmt: skip


def combined_line(record: Record) -> bytes:
    """Apache's combined format (referrer and agent are not kept) with ring, version and reason behind it."""
    at, client, method, target, status, sent, _, _, lane, _, _ = record
    stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(at)).encode()
    quoted = target.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'%b - - [%b] "%b %b HTTP/1.1" %d %d "-" "-" %b\n' % (
        client, stamp, method, quoted, status, sent, f"{lane.ring} {lane.version} {lane.reason}".encode(),
    )  # fmt: skip


@lru_cache(maxsize=4)
def _second(at: int) -> bytes:
    """The part of a time that all lines of a second share."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)).encode()


def _timestamp(at: float) -> bytes:
    second = int(at)
    return b"%b.%03dZ" % (_second(second), (at - second) * 1000)


class AccessLog:
    """Lines to a file descriptor. ``dropped`` counts the ones that were lost, on from an earlier log's count."""

    __slots__ = ("_descriptor", "_format", "_is_stopped", "_queue", "_thread", "_wake", "dropped", "form")

    def __init__(self, descriptor: int, form: Literal["json", "combined"], dropped: int = 0) -> None:
        self.form = form
        self.dropped = dropped
        self._descriptor = descriptor
        self._format: Callable[[Record], bytes] = json_line if form == "json" else combined_line
        self._queue: list[Record] = []
        self._is_stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._write_out, name="access-log", daemon=True)
        self._thread.start()

    def add(self, exchange: ExchangeLike, status: int, duration: float) -> None:
        """Queue a line; called on the request's way."""
        queue = self._queue
        if len(queue) >= QUEUE_LINES:
            self.dropped += 1
            return
        endpoint = exchange.endpoint
        queue.append(
            (
                time.time(), exchange.downstream.address, exchange.method, exchange.target, status, exchange.sent,
                exchange.received, duration, exchange.lane, endpoint.spec.address if endpoint else "",
                exchange.request_id,
            )
        )  # fmt: skip

    def close(self) -> None:
        """No further lines; what is queued is written by the thread, which then ends."""
        self._is_stopped = True
        self._wake.set()

    def stop(self) -> None:
        """Close, and wait for what is queued, for two seconds at the most. Not on a loop that serves."""
        self.close()
        self._thread.join(timeout=2.0)

    def _write_out(self) -> None:
        while not self._is_stopped or self._queue:
            self._wake.wait(FLUSH_SECONDS)
            # Copy and delete, each one step under the interpreter's lock: a line added in between stays in the queue.
            waiting = len(self._queue)
            batch = self._queue[:waiting]
            del self._queue[:waiting]
            if batch:
                self._write(b"".join(map(self._format, batch)), len(batch))

    def _write(self, data: bytes, lines: int) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                time.sleep(FLUSH_SECONDS)
            except OSError:
                self.dropped += lines if data.count(b"\n") >= lines else data.count(b"\n")
                return
