"""Workers whose parent was killed: they serve on for a while, and the next parent finds and relieves them.

Each parent notes itself and its children in its runtime directory, with their start times: a process id alone may be
somebody else's by now.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

PREFIX: Final = "ring-router-"
NOTE: Final = "parent.json"
GONE: Final = "gone-"
GONE_SECONDS: Final = 2.0
"""For a killed process to be gone."""


def started_at(pid: int) -> int:
    """When a process began, in ticks since boot (proc(5), stat, field 22); 0 if it is not there, or dead already."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def note(runtime: Path, addresses: Sequence[str], control: int, workers: Iterable[int]) -> None:
    """Write down who belongs together; replaces what was noted before."""
    content = {
        "parent": [os.getpid(), started_at(os.getpid())],
        "addresses": list(addresses),
        "control": [control, started_at(control)],
        "workers": [[pid, started_at(pid)] for pid in workers],
    }
    temporary = runtime / (NOTE + ".new")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, runtime / NOTE)


def _alive(noted: Iterable[Any]) -> list[int]:
    return [int(pid) for pid, started in noted if started and started_at(int(pid)) == started]


def clean_up_after(runtime: Path) -> None:
    """The last worker without a parent leaves no directory behind."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        (runtime / f"{GONE}{os.getpid()}").touch()  # before looking: two that end together see each other's
        alive = _alive(json.loads((runtime / NOTE).read_text())["workers"])
        if [pid for pid in alive if not (runtime / f"{GONE}{pid}").exists()]:
            return
    shutil.rmtree(runtime, ignore_errors=True)


@dataclass(slots=True)
class Orphans:
    """Processes of parents that are dead, and what they listen on."""

    addresses: set[str] = field(default_factory=set)
    workers: list[int] = field(default_factory=list)
    controls: list[int] = field(default_factory=list)
    _directories: list[Path] = field(default_factory=list)

    @classmethod
    def find(cls, addresses: Iterable[str]) -> Orphans:
        """Those that listen on one of these addresses. Directories in which nobody lives any more are removed."""
        wanted, found = set(addresses), cls()
        for path in Path(tempfile.gettempdir()).glob(PREFIX + "*/" + NOTE):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                if path.stat().st_uid == os.geteuid():
                    found._look_at(path, wanted)
        return found

    def _look_at(self, path: Path, wanted: set[str]) -> None:
        noted = json.loads(path.read_text())
        if _alive([noted["parent"]]):
            return
        workers, controls = _alive(noted["workers"]), _alive([noted["control"]])
        if not workers and not controls:
            shutil.rmtree(path.parent, ignore_errors=True)
        elif wanted & set(noted["addresses"]):
            self.addresses |= set(noted["addresses"])
            self.workers += workers
            self.controls += controls
            self._directories.append(path.parent)

    def end_controls(self) -> None:
        """They end by themselves; here it is waited for, for they hold the admin address."""
        for pid in self.controls:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + GONE_SECONDS
        while any(started_at(pid) for pid in self.controls) and time.monotonic() < deadline:
            time.sleep(0.01)

    def relieve(self) -> int:
        """Others serve now: let them drain. How many there were."""
        for pid in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return len(self.workers)
