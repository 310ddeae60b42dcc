"""Children without an exec: they begin with what the parent has imported, and share its memory until somebody writes.

Importing is most of what a start costs. The parent has one thread, no event loop and no connection, so nothing that a
child inherits is half done; what it has open is closed but for the descriptors that are named.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

_PR_SET_NAME: Final = 15
_LONGEST_NAME: Final = 15


class Forked:
    """A child process as ``subprocess.Popen`` shows one: ``returncode`` is negative after a signal."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """How it ended, if it has."""
        if self.returncode is None:
            self._take(os.WNOHANG)
        return self.returncode

    def wait(self) -> int:
        """How it ended, when it has."""
        while self.returncode is None:
            self._take(0)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:  # its number may be somebody else's once it was waited for
            os.kill(self.pid, number)

    def _take(self, options: int) -> None:
        pid, status = os.waitpid(self.pid, options)
        if pid:
            self.returncode = os.waitstatus_to_exitcode(status)


def fork(module: str, arguments: Sequence[str], descriptors: Sequence[int], name: str) -> Forked:
    """Run ``main()`` of a module, with these arguments, in a child that has these descriptors beside the standard ones.

    It is in a process group of its own and reads from /dev/null; signals are blocked in it as they are here. ``ps``
    shows it by its ``name``. The module is imported here, once: whoever takes the child's place later is of the same
    release, whatever has been installed meanwhile. Raises OSError and ImportError.
    """
    main = importlib.import_module(module).main
    _flush()  # or both would write what is left
    gc.collect()
    gc.freeze()  # the collector would write to all of it, and nothing were shared any more
    pid = os.fork()
    if pid == 0:
        _be(main, [module, *arguments], descriptors, name)
    return Forked(pid)


def _be(main: Callable[[], None], words: list[str], descriptors: Sequence[int], name: str) -> NoReturn:
    """The child, from its first moment to its last: it never returns into what the parent was about to do."""
    code = 1
    try:
        os.setpgid(0, 0)
        _close_others(descriptors)
        _show(name)
        sys.argv = words
        main()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter would at its end
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _flush() -> None:
    """Nobody may read any more what is written; then there is nothing to be lost."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # None, where it was closed before the start
            stream.flush()


def _close_others(descriptors: Sequence[int]) -> None:
    """Objects of the parent still name some of them. They live in frames below this one and are never ended."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    kept = {0, 1, 2, *descriptors}
    for one in map(int, os.listdir("/proc/self/fd")):
        if one not in kept:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(one)


def _show(name: str) -> None:
    """In the place of the command line, as far as it has room, and as the name of the process."""
    library = ctypes.CDLL(None)
    library.prctl(_PR_SET_NAME, name.encode()[:_LONGEST_NAME], 0, 0, 0)
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        begin, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5)
        room = end - begin
        if room > 0:
            text = f"ring-router: {name}".encode()[: room - 1]
            ctypes.memmove(begin, text.ljust(room, b"\0"), room)
