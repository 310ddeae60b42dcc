"""When a core stood still: on a machine that is shared, a core is at times taken away for milliseconds.

A process that comes before all others on its core (SCHED_FIFO) wakes each half millisecond. When it wakes late, nobody
on that core could run: as a rule the machine was elsewhere. (A system call that long would look the same where the
kernel is not preempted in one; so what is left out is told for each contestant.) ``Watch`` has one such process on each
core; ``kept`` leaves out what was due then and while the queue drained, for every contestant by the same rule, and by
when a request was due, never by how long it took.
"""

from __future__ import annotations

import array
import bisect
import gc
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from loadtests.openloop import Row
from loadtests.rig import LOAD_CORE, PRIORITY, PROXY_CORE, ROOT, RigError, in_child, python_module

WATCHING: Final = "watching"
PERIOD_NS: Final = 500_000
LATE_NS: Final = 250_000
BEFORE_NS: Final = 1_000_000
"""A request that was due so shortly before may have been on its way."""
AFTER_NS: Final = 1_000_000
DRAIN: Final = 4.0
"""What has gathered in a standstill is gone after so many times its length: u/(1-u) of it where a core is busy for a
part u of the time, 2.3 at 70 %, three in nine of ten cases."""


class Standstill(NamedTuple):
    """Nanoseconds on CLOCK_MONOTONIC."""

    begun: int
    """When the core was last seen to work; it stopped within PERIOD_NS after it."""
    ended: int


class Watch:
    """A watching process on the proxies' core and on that of the load, while the block lasts.

    Where real-time priority is not allowed there is none, and it says so: then no standstill is ever found.
    """

    def __init__(self, directory: Path) -> None:
        self._seen = {core: directory / f"standstills-{core}" for core in sorted({PROXY_CORE, LOAD_CORE})}
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Watch:
        for core, path in self._seen.items():
            path.touch()
            self._start(core, path)
        return self

    def _start(self, core: int, path: Path) -> None:
        process = subprocess.Popen(
            python_module("loadtests.standstills", str(path)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=lambda: in_child(core),
        )
        assert process.stdout is not None
        if process.stdout.readline().strip() == WATCHING:
            self._processes.append(process)
        else:
            process.wait()
            print(f"Nobody may run before all others on core {core}, so its standstills are counted with the rest.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
            process.communicate()

    def found(self) -> list[Standstill]:
        """All so far, of all cores, in the order in which they began. RigError when a watching process has died."""
        if any(process.poll() is not None for process in self._processes):
            raise RigError("a process that watched for standstills died")
        numbers = [array.array("q", path.read_bytes()) for path in self._seen.values()]
        return sorted(Standstill(*pair) for one in numbers for pair in zip(one[::2], one[1::2], strict=True))


def kept(rows: Sequence[Row], standstills: Sequence[Standstill]) -> list[Row]:
    """Those that were not due in a standstill, shortly before it, or while what it had gathered drained."""
    spans: list[tuple[int, int]] = []
    for one in standstills:
        begins, ends = one.begun - BEFORE_NS, one.ended + int(DRAIN * (one.ended - one.begun)) + AFTER_NS
        if spans and begins <= spans[-1][1]:
            begins, ends = spans[-1][0], max(ends, spans.pop()[1])
        spans.append((begins, ends))
    starts = [begins for begins, _ in spans]

    def is_disturbed(due: int) -> bool:
        place = bisect.bisect_right(starts, due) - 1
        return place >= 0 and due <= spans[place][1]

    return [row for row in rows if not is_disturbed(row.due)]


# -- the watching process ----------------------------------------------------------------------------------------------


def main() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY + 2))
    except PermissionError:
        return
    gc.disable()
    with Path(sys.argv[1]).open("wb", buffering=0) as out:
        print(WATCHING, flush=True)
        due = time.monotonic_ns() + PERIOD_NS
        while True:
            time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
            now = time.monotonic_ns()
            if now - due > LATE_NS:
                out.write(array.array("q", (due - PERIOD_NS, now)).tobytes())
            due = max(due + PERIOD_NS, now)


if __name__ == "__main__":
    main()
