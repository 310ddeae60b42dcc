"""An open-loop load generator: requests leave when they are due, whether or not the answers to others have come.

Latency counts from the moment a request was due, not from the moment it could be sent, so a proxy that stalls is
charged with everyone who waited (no coordinated omission). A request that finds every connection busy waits for one,
on the proxy's account. What is not on its account is the generator itself being late: when more than 1 % of requests
were handled later than they were due by more than --late-ms, or it had no time
to spare, the run is refused instead of reported.

Load tests start it as a process of its own (``Generator``), which can leave a row for each request; what it does is in
``openloop_run``.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from loadtests.openloop_run import WAITED_SHARE, Load, RefusedError, Run
from loadtests.rig import LOAD_CORE, PRIORITY, ROOT, RigError, in_child, python_module

MARGIN_SECONDS: Final = 30.0


class Row(NamedTuple):
    """One request of a recorded run; nanoseconds, ``due`` on CLOCK_MONOTONIC, which all processes share."""

    due: int
    late: int
    """How late the generator itself was with it."""
    took: int
    """From when it was due to the end of the answer, or to its failure."""
    status: int
    """Of the answer; 0 without one."""
    waited: int = 0
    """1 if it found every connection busy."""


def read_rows(path: Path) -> list[Row]:
    """What a run has recorded, in the order in which requests ended."""
    numbers = array.array("q", path.read_bytes())
    width = len(Row._fields)
    return [Row(*numbers[start : start + width]) for start in range(0, len(numbers), width)]


# -- as a process of its own -------------------------------------------------------------------------------------------


class Generator:
    """A run in a process of its own on the load core, with real-time priority where that is allowed.

    It begins to connect when the block begins, and has ended when the block has, whatever happened.
    """

    def __init__(self, load: Load, record: Path | None = None) -> None:
        self.load = load
        self._command = python_module("loadtests.openloop", load.url, "--json", "--realtime")
        self._command += [f"--{name}" for name in ("poisson", "rotate") if getattr(load, name)]
        names = ("rate", "seconds", "connections", "late_ms", "waited_share", "host", "seed")
        wanted = {name: getattr(load, name) for name in names}
        for name, value in (wanted | {"record": record}).items():
            if value is not None:
                self._command += [f"--{name.replace('_', '-')}", str(value)]

    def __enter__(self) -> Generator:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=lambda: in_child(LOAD_CORE),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def result(self) -> dict[str, Any]:
        """Wait for its end and return its figures. RigError when it refused them."""
        out, said = self._process.communicate(timeout=self.load.seconds + MARGIN_SECONDS)
        if self._process.returncode:
            raise RigError(said.strip().splitlines()[-1] if said.strip() else "the generator failed")
        found: dict[str, Any] = json.loads(out)
        return found


# -- on the command line -----------------------------------------------------------------------------------------------


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="http://127.0.0.1:PORT/path")
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--poisson", action="store_true", help="random arrivals, as of many users (else evenly spaced)")
    parser.add_argument("--rotate", action="store_true", help="use all connections in turn (else the one used last)")
    parser.add_argument("--late-ms", type=float, default=1.0, help="later than this counts as late")
    parser.add_argument(
        "--waited-share", type=float, default=WAITED_SHARE, help="so many may find every connection busy"
    )
    parser.add_argument("--host", help="Host header (else the URL's)")
    parser.add_argument("--seed", type=int, help="of the random arrivals")
    parser.add_argument("--realtime", action="store_true", help="run before other processes, where that is allowed")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--record", type=Path, help="a file for a row for each request (see read_rows)")
    asked = parser.parse_args()
    if asked.rate <= 0 or asked.seconds <= 0 or asked.connections <= 0:
        parser.error("--rate, --seconds and --connections are above 0")
    if urlsplit(asked.url).scheme != "http":
        parser.error("the URL begins with http://")
    return asked


def main() -> None:
    asked = options()
    if asked.realtime:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY + 1))
    try:
        run = Run(Load(**{name: getattr(asked, name) for name in Load.__dataclass_fields__}), asked.record)
        run()
        found = run.result()
    except (RefusedError, OSError) as error:
        sys.exit(f"refused: {error}")
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{found['requests']} requests, {found['arrivals']} arrivals at {asked.rate:g}/s, {found['errors']} errors")
    print(f"late {found['late_percent']:.2f} %, waited for a connection {found['waited_percent']:.2f} %")
    print("  ".join(f"{name} {value / 1e3:.3f} ms" for name, value in found["latency_us"].items()))


if __name__ == "__main__":
    main()
