"""Member tables as files: how one is opened to be read, and made to be written.

A table is made under a name that nobody opens, reserved on the disk to its last byte (a hole that the disk has no room
for would kill whoever writes to it), and renamed when it is whole. Its writer holds a lock on it (``flock``): two
routers may share a directory while one takes over from the other, and neither writes, or removes, the other's tables.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from pathlib import Path
from typing import Final

from router.core.table import BadTable, MemberTable
from router.members.writer import TableWriter, begin, words_for

UNFINISHED: Final = ".new"


def open_table(path: str) -> MemberTable:
    """A table, mapped to be read; what its writer changes is seen at once. Raises ``OSError``, ``BadTable``.

    The mapping ends with the last reference to the table. Whether the slots hold what was once written is not looked at
    here: that takes as long as reading them all, and whoever publishes the path has done it.
    """
    return MemberTable(map_table(path))


def map_table(path: str) -> memoryview:
    """The words of a table's file, to be read. Raises ``OSError``, ``BadTable``; a file of others is a BadTable."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if status.st_uid not in (os.geteuid(), 0):
            raise BadTable("it belongs to another user")
        if status.st_mode & 0o022:
            raise BadTable(f"it may be written by others (mode {status.st_mode & 0o777:o})")
        if status.st_size < 8 or status.st_size % 8:
            raise BadTable("too short for a table")
        # The mapping is shared and outlives the descriptor.
        return memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_READ)).cast("Q")
    finally:
        os.close(handle)


class TableFile:
    """A new table of this process: filled, then published under its name, then changed in place until it is closed."""

    def __init__(self, path: Path, capacity: int) -> None:
        """Make it, unpublished. Raises ``OSError``."""
        self.path = path
        self._at = path.with_name(path.name + UNFINISHED)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.open(self._at, flags, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(self._handle, 0, words_for(capacity) * 8)
            words = memoryview(mmap.mmap(self._handle, 0)).cast("Q")
        except BaseException:
            os.close(self._handle)
            os.unlink(self._at)
            raise
        begin(words)
        self.writer = TableWriter(words)

    def __repr__(self) -> str:
        return f"<TableFile {self.path.name} {self.writer!r}>"

    def sync(self) -> None:
        """To the disk; blocks, so call it in a thread. Raises ``OSError``."""
        os.fsync(self._handle)

    def publish(self) -> None:
        """Under its name from now on. Raises ``OSError``."""
        os.replace(self._at, self.path)
        self._at = self.path

    def close(self, *, is_gone: bool) -> None:
        """Write it no more; ``is_gone`` takes the file away as well (those who have it open keep it)."""
        if is_gone:
            with contextlib.suppress(OSError):
                os.unlink(self._at)
        os.close(self._handle)


def remove_abandoned(path: Path) -> bool:
    """Remove a table that nobody writes; False if somebody does. Raises ``OSError``."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
