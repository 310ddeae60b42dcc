"""What needs the kernel's permission: small disks, memory groups, network namespaces, another clock.

Each has a function that tries it and returns why it is not possible here, or nothing.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/sys/fs/cgroup/memory")
_LIBRARIES: Final = ("/usr/lib", "/usr/local/lib", "/lib")


def _refusal(command: Sequence[str]) -> str:
    """Why a command fails; nothing when it does not."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    return "" if done.returncode == 0 else done.stderr.strip() or f"{command[0]} ended with {done.returncode}"


# -- a small disk ------------------------------------------------------------------------------------------------------


def mount(directory: Path, kib: int) -> None:
    """A disk of its own at this directory; unmount it when nobody has files open there. Raises AssertionError."""
    reason = _refusal(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(directory)])
    assert not reason, reason


def enlarge(directory: Path, kib: int) -> None:
    reason = _refusal(["mount", "-o", f"remount,size={kib}k", str(directory)])
    assert not reason, reason


def unmount(directory: Path) -> None:
    _refusal(["umount", str(directory)])


def why_no_disk() -> str:
    with tempfile.TemporaryDirectory() as name:
        try:
            mount(Path(name), 64)
        except AssertionError as error:
            return f"no tmpfs can be mounted ({error})"
        unmount(Path(name))
    return ""


# -- a memory group (cgroup v1) ----------------------------------------------------------------------------------------


class MemoryGroup:
    """A group below this process's own, for processes that are started with ``prefix``."""

    def __init__(self, mib: int) -> None:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        own = [path for _, controllers, path in lines if controllers == "memory"]
        if not own:
            raise OSError("this machine has no memory controller of cgroup v1")
        self.path = _MEMORY / own[0].lstrip("/") / f"ring-router-faults-{os.getpid()}"
        self.path.mkdir()
        try:
            (self.path / "memory.limit_in_bytes").write_text(str(mib * 2**20))
        except OSError:
            self.remove()
            raise

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("sh", "-c", f'echo $$ > "{self.path}/cgroup.procs" && exec "$@"', "sh")

    @property
    def most_used(self) -> int:
        """Bytes, since the beginning; what the page cache holds counts too."""
        return int((self.path / "memory.max_usage_in_bytes").read_text())

    @property
    def kills(self) -> int:
        """Of the OOM killer."""
        for line in (self.path / "memory.oom_control").read_text().splitlines():
            word, _, count = line.partition(" ")
            if word == "oom_kill":
                return int(count)
        return 0

    def remove(self) -> None:
        self.path.rmdir()


def why_no_memory_group() -> str:
    try:
        MemoryGroup(200).remove()
    except OSError as error:
        return f"no memory group can be made ({error})"
    return ""


# -- a network namespace -----------------------------------------------------------------------------------------------


def why_no_namespace() -> str:
    reason = _refusal(["unshare", "--net", "ip", "link", "set", "lo", "up"])
    return f"no network namespace can be made ({reason})" if reason else ""


# -- another wall clock ------------------------------------------------------------------------------------------------


def faketime() -> Path | None:
    """libfaketime, which Debian and Ubuntu have in the package faketime."""
    found = (path for place in _LIBRARIES for path in Path(place).glob("**/faketime/libfaketime.so.1"))
    return next(found, None)


def why_no_faketime() -> str:
    return "" if faketime() else "the wall clock can be moved with libfaketime only (apt-get install faketime)"


@contextmanager
def wall_clock(path: Path) -> Iterator[dict[str, str]]:
    """The environment of a process whose wall clock is moved by what ``path`` says: ``+3600``. Monotonic time stays."""
    path.write_text("+0\n")
    yield {
        "LD_PRELOAD": str(faketime()),
        "FAKETIME_TIMESTAMP_FILE": str(path),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
