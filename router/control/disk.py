"""Files that are believed when they are read again: replaced whole, and only taken from who may write them.

What is written is complete or is not there (write, fsync, rename, fsync of the directory). All of it blocks on the
disk.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


class Rejected(Exception):
    """The file is there and is not used; the message says why."""


def read_own(path: Path, most: int) -> bytes | None:
    """Up to ``most`` + 1 bytes of a file that nobody but this user or root may write; None without a file.

    Raises ``Rejected``.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Rejected(f"{path} cannot be opened: {error.strerror}") from None
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if status.st_uid not in (os.geteuid(), 0):
            raise Rejected(f"{path} belongs to another user")
        if status.st_mode & 0o022:
            raise Rejected(f"{path} may be written by others (mode {status.st_mode & 0o777:o})")
        try:
            return file.read(most + 1)
        except OSError as error:
            raise Rejected(f"{path} cannot be read: {error.strerror}") from None


def replace_whole(path: Path, content: bytes) -> None:
    """Write the file anew, readable by this user alone (mode 0600). Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
