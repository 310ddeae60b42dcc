"""Where lines of the access log go: a thread that writes, behind a bounded queue. Whoever hands lines over never waits.

When it cannot write (a full disk, a reader that stopped, a file that cannot be opened) further lines are dropped whole
and counted, and writing resumes by itself. Not even opening the file is the caller's business: a disk can hang.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from queue import SimpleQueue
from select import PIPE_BUF
from typing import Final

QUEUE_LINES: Final = 10_000
"""Lines that wait at the most; faults.md row 23."""
QUEUE_BYTES: Final = 16 * 1024 * 1024
AGAIN_SECONDS: Final = 0.2
"""Before a reader that is slow is tried again."""
PUSH_LINES: Final = 2_500
"""The thread is woken for so many, or when the loop asks for it: each time, the loop waits for it to fall asleep."""
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Sink:
    """Lines to a file descriptor, or to the file ``path``, which is made if it is not there.

    ``offer``, ``push``, ``reopen`` and ``close`` belong to the event loop. ``dropped`` goes on from an earlier sink's.
    """

    def __init__(self, descriptor: int = -1, path: str = "", dropped: int = 0) -> None:
        self._path = path
        self._descriptor = descriptor
        self._is_pipe = False
        self._is_torn = False
        """Whether the last line that is there may be a part of one: of ours, or of a sibling's on the same disk."""
        self._batches: list[bytes] = []
        self._lines = 0
        """In those that the thread has not been given yet."""
        # Each has one writer, the loop or the thread, so that none needs a lock.
        self._refused = dropped
        self._made = self._made_bytes = 0
        self._done = self._done_bytes = 0
        self._lost = 0
        if descriptor >= 0:
            self._look()
        self._given: SimpleQueue[tuple[list[bytes], int] | None] = SimpleQueue()
        """Batches with the number of their lines; without any: the file is opened anew; None: it is over."""
        self._writer = threading.Thread(target=self._write_out, name="access-log", daemon=True)
        self._writer.start()
        self.reopen()

    @property
    def dropped(self) -> int:
        """Lines that were lost."""
        return self._refused + self._lost

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits."""
        return self._made == self._done

    def offer(self, parts: list[bytes], count: int) -> None:
        """Take so many lines, in any number of parts; or drop them when too much waits already."""
        if self._made - self._done + count > QUEUE_LINES or self._made_bytes - self._done_bytes > QUEUE_BYTES:
            self._refused += count
            return
        data = b"".join(parts)
        self._made += count
        self._made_bytes += len(data)
        self._lines += count
        self._batches.append(data)
        if self._lines >= PUSH_LINES:
            self.push()

    def push(self) -> None:
        """Have written what was taken."""
        if self._batches:
            self._given.put((self._batches, self._lines))
            self._batches, self._lines = [], 0

    def reopen(self) -> None:
        """Open the file anew: somebody has moved it away. Nothing for a descriptor that was given."""
        if self._path:
            self.push()
            self._given.put(([], 0))

    def close(self) -> None:
        """No further lines; what was taken is written by the thread, which then ends."""
        self.push()
        self._given.put(None)

    def stop(self) -> None:
        """Close, and wait for what is queued, for two seconds at the most. Not on a loop that serves."""
        self.close()
        self._writer.join(timeout=2.0)

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _write_out(self) -> None:
        while (given := self._given.get()) is not None:
            batches, lines = given
            if batches:
                size = sum(map(len, batches))
                self._lost += self._write(batches, lines)
                self._done += lines
                self._done_bytes += size
            else:
                self._open()
        if self._path:
            self._shut()

    def _open(self) -> None:
        self._shut()
        with contextlib.suppress(OSError):  # tried again with the next lines, which are lost and counted until then
            self._descriptor = os.open(self._path, _FLAGS, 0o640)
            self._look()

    def _shut(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _look(self) -> None:
        mode = os.fstat(self._descriptor).st_mode
        self._is_pipe = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self._is_torn = False

    def _write(self, parts: list[bytes], lines: int) -> int:
        """The number of lines that could not be written."""
        if self._descriptor < 0:
            self._open()
            if self._descriptor < 0:
                return lines
        mended = 1 if self._is_torn else 0
        if mended:
            parts.insert(0, b"\n")
        at = 0
        if not self._is_pipe:
            with contextlib.suppress(OSError):  # which comes again below
                at = os.writev(self._descriptor, parts)
        data = b"" if at == sum(map(len, parts)) else b"".join(parts)
        size = len(data)
        while at < size:
            try:
                at += os.write(self._descriptor, data[at : self._end(data, at)])
            except BlockingIOError:
                time.sleep(AGAIN_SECONDS)
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
