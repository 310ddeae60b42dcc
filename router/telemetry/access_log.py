"""The access log: one line per request, made in batches, written by a thread, bounded, never in the request's way.

A line is some twenty references to bytes that exist already: what a second, a client, a request line, a decision and an
endpoint add, and numbers out of tables. The event loop notes them and joins a batch at a time; a thread writes. When it
cannot (a full disk, a reader that stopped) further lines are dropped and counted, and writing resumes by itself.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from select import PIPE_BUF
from typing import Any, Final, Literal

import msgspec

QUEUE_LINES: Final = 10_000
"""Lines that wait at the most; faults.md row 23."""
BATCH_LINES: Final = 64
"""Lines that are joined and handed over at once."""
FLUSH_SECONDS: Final = 0.2
"""How long a line that no batch takes along waits."""
WRITE_SECONDS: Final = 0.05
"""The thread writes this often at the most: each time it wakes, the loop waits for it to fall asleep."""

_encode: Final = msgspec.json.Encoder().encode
_MILLIS: Final = [b'%03dZ","client":"' % number for number in range(1000)]
_STATUS: Final = [b',"status":%d,"bytes":' % number for number in range(1000)]
_THREE: Final = [b"%03d" % number for number in range(1000)]
_SMALL: Final = [b"%d" % number for number in range(10_000)]
"""What most numbers of a line look like: a look-up takes a fifth of the time of printing one."""


def json_request(method: bytes, target: bytes) -> bytes:
    """The part of a JSON line that is the same for every request with this request line."""
    return b'","method":"%b","target":%b' % (method, _encode(target.decode("latin-1")))


def json_lane(service: str, ring: str, version: str, reason: str) -> bytes:
    """The part of a JSON line that is the same for every request with this decision; names need no escaping."""
    return f',"service":"{service}","ring":"{ring}","version":"{version}","reason":"{reason}","endpoint":"'.encode()


def _number(value: int) -> bytes:
    return _SMALL[value] if value < 10_000 else b"%d" % value


class AccessLog:
    """Lines to a file descriptor.

    ``json`` is one object a line (``duration`` in seconds, ``bytes`` those of the bodies), ``combined`` Apache's format
    (referrer and agent are not kept) with ring, version and reason behind it. ``add`` and ``flush`` belong to the event
    loop, which calls ``flush`` every ``FLUSH_SECONDS``.
    """

    __slots__ = (
        "_batches", "_descriptor", "_done", "_is_json", "_is_pipe", "_is_stopped", "_is_torn", "_lines", "_lost",
        "_made", "_offset", "_parts", "_refused", "_second", "_stamp", "_wake", "_writer", "form",
    )  # fmt: skip

    def __init__(self, descriptor: int, form: Literal["json", "combined"], dropped: int = 0) -> None:
        self.form = form
        self._descriptor = descriptor
        self._is_json = form == "json"
        self._is_pipe = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._is_torn = False
        """Whether the last line that is there may be a part of one: of ours, or of a sibling's on the same disk."""
        self._offset = time.time() - time.monotonic()
        self._second = -1
        self._stamp = b""
        self._parts: list[bytes] = []
        self._lines = 0
        self._batches: list[tuple[bytes, int]] = []
        # Each has one writer, the loop or the thread, so that none needs a lock.
        self._refused = dropped
        self._made = 0
        self._done = 0
        self._lost = 0
        self._is_stopped = False
        self._wake = threading.Event()
        self._writer = threading.Thread(target=self._write_out, name="access-log", daemon=True)
        self._writer.start()

    @property
    def dropped(self) -> int:
        """Lines that were lost, on from an earlier log's count."""
        return self._refused + self._lost

    def add(
        self, now: float, client: bytes, start: Any, status: int, sent: int, received: int, duration: float, lane: Any,
        address: bytes, request_id: bytes,
    ) -> None:  # fmt: skip
        """Note a request that ended ``now``, on the monotonic clock; called on the request's way.

        ``start`` and ``lane`` are what it asked for and what was decided, ``address`` is the endpoint's. Only what a
        client can write is escaped; numbers, addresses and names from the config need none.
        """
        at = now + self._offset
        second = int(at)
        if second != self._second:
            self._turn(second)
        if self._is_json:
            if b'"' in request_id or b"\\" in request_id:
                request_id = _encode(request_id.decode("latin-1"))[1:-1]
            micros = int(duration * 1e6)
            self._parts += (
                self._stamp, _MILLIS[int((at - second) * 1000)], client, start.json, _STATUS[status], _number(sent),
                b',"request_bytes":', _number(received), b',"duration":', _number(micros // 1_000_000), b".",
                _THREE[micros // 1000 % 1000], _THREE[micros % 1000], lane.json, address, b'","request_id":"',
                request_id, b'"}\n',
            )  # fmt: skip
        else:
            target = start.target
            if b'"' in target or b"\\" in target:
                target = target.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            self._parts += (
                client, self._stamp, start.method, b" ", target, b' HTTP/1.1" ', _SMALL[status], b" ", _number(sent),
                lane.words,
            )  # fmt: skip
        self._lines += 1
        if self._lines >= BATCH_LINES:
            self.flush()

    def _turn(self, second: int) -> None:
        """What all lines of a second share."""
        self._second = second
        self._offset = time.time() - time.monotonic()
        form = '{"time":"%Y-%m-%dT%H:%M:%S.' if self._is_json else ' - - [%d/%b/%Y:%H:%M:%S +0000] "'
        self._stamp = time.strftime(form, time.gmtime(second)).encode()

    def flush(self) -> None:
        """Hand what was noted to the thread, or drop it when too much waits already."""
        count = self._lines
        if not count:
            return
        if self._made - self._done + count > QUEUE_LINES:
            self._refused += count
        else:
            self._made += count
            self._batches.append((b"".join(self._parts), count))
            self._wake.set()
        self._parts.clear()
        self._lines = 0

    def close(self) -> None:
        """No further lines; what was noted is written by the thread, which then ends."""
        self.flush()
        self._is_stopped = True
        self._wake.set()

    def stop(self) -> None:
        """Close, and wait for what is queued, for two seconds at the most. Not on a loop that serves."""
        self.close()
        self._writer.join(timeout=2.0)

    def _write_out(self) -> None:
        while not self._is_stopped or self._batches:
            self._wake.wait()
            if not self._is_stopped:
                time.sleep(WRITE_SECONDS)
                self._wake.clear()
            # Copy and delete, each one step under the interpreter's lock: a batch added in between stays.
            waiting = len(self._batches)
            batches = self._batches[:waiting]
            del self._batches[:waiting]
            if batches:
                lines = sum(count for _, count in batches)
                self._lost += self._write(b"".join([data for data, _ in batches]), lines)
                self._done += lines

    def _write(self, data: bytes, lines: int) -> int:
        """The number of lines that could not be written."""
        mended = 1 if self._is_torn else 0
        data = b"\n" * mended + data
        at, size = 0, len(data)
        while at < size:
            try:
                at += os.write(self._descriptor, data[at : self._end(data, at)])
            except BlockingIOError:
                time.sleep(FLUSH_SECONDS)
            except OSError:
                self._is_torn = True
                # A line that lacks nothing but its end is whole once the next write mends it.
                is_whole = at > mended and data[at : at + 1] == b"\n"
                return min(lines, data.count(b"\n", max(at, mended)) - is_whole)
        self._is_torn = False
        return 0

    def _end(self, data: bytes, at: int) -> int:
        """How far one write goes: workers share a pipe, and only short writes are not torn apart (POSIX, write)."""
        size = len(data)
        if not self._is_pipe or size - at <= PIPE_BUF:
            return size
        return (data.rfind(b"\n", at, at + PIPE_BUF) + 1) or (data.find(b"\n", at) + 1) or size
