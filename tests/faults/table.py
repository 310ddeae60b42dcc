"""The table: which experiments there are, how they run one after the other, and how ``docs/faults.md`` is written."""

from __future__ import annotations

import datetime
import gc
import os
import platform
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from tests.faults import (
    experiments_broken,
    experiments_clients,
    experiments_machine,
    experiments_processes,
    experiments_redis,
    experiments_replies,
    experiments_slow,
    experiments_soak,
)
from tests.faults.processes import ROOT
from tests.faults.rig import Experiment, Row, perform_alone

MODULES: Final = (
    experiments_broken, experiments_slow, experiments_clients, experiments_machine, experiments_processes,
    experiments_redis, experiments_replies, experiments_soak,
)  # fmt: skip
EXPERIMENTS: Final = sorted((one for module in MODULES for one in module.EXPERIMENTS), key=lambda one: one.number)
DOCUMENT: Final = ROOT / "docs" / "faults.md"
_ROW: Final = re.compile(r"^\| (\d+) \|.*\|$", re.MULTILINE)
_HEAD: Final = """\
# Faults

What must hold when things break, and what was measured when they did. Every row is a real router (`ring-router run`,
two workers), real backends, open-loop load and one fault. `make faults` runs them all and writes this file; a short
form of each runs in `make test`.

{when}

After every row these hold as well, unless it says otherwise:

* **I1** no answer belongs to another request: each body is a hash of the request's id, and checked to its last byte;
* **I2** no POST is delivered twice;
* **I3** every request ends before its deadline: in its answer, in an error that the router made and marked, or in a
  break that the client can detect;
* **I4** from 5 s after the fault, p99 is at most 1.5 times that before (or 2 ms more: the load's clock is no better);
* **I5** when the load has ended, the workers hold at most 10 MiB more than before, and not one more descriptor (tasks
  cannot be counted from outside);
* **I6** no worker ends unplanned, no traceback is logged, the admin side's p99 is at most 100 ms during the fault;
* **I7** access-log lines and counters are what clients saw, by status.

The load is 400 requests a second, due at fixed times and timed from when they were due: GET 60 %, POST 25 %, chunks
both ways 10 %, WebSocket 5 %, on 64 kept connections, 20 a second on new ones. About 4 s before, 10 s of fault, 8 s
after; each run of a row is one. A request that met a stall of the load itself is not timed.

"""


_COLUMNS: Final = ("#", "fault", "promise", "figure", "measured", "verdict", "run")


def line(row: Row, run: str = "") -> str:
    one = row.experiment
    said = row.measured + "".join(f". **{words}**" for words in row.broken)
    cells = (str(one.number), one.fault, one.promise, one.figure, said, row.verdict, run)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def table(lines: Iterable[str]) -> str:
    return "\n".join([f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|", *lines, ""])


def machine() -> str:
    cores = os.cpu_count() or 1
    placed = "core 0 for the router, core 1 for backends, load and observer" if cores > 1 else "nothing is pinned"
    return (
        f"The machine has {cores} cores ({placed}), {platform.system()} {platform.release().split('-')[0]}, Python "
        f"{platform.python_version()}. The last column says when a row was run, and at which commit."
    )


def run_now() -> str:
    """Date and commit."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return f"{datetime.datetime.now(datetime.UTC).date()} {git.stdout.strip() or 'no commit'}"


def write(rows: list[Row], path: Path = DOCUMENT) -> None:
    """Put these rows into the document, in the place of what it has of them; the others stay."""
    known = {int(found[1]): found[0] for found in _ROW.finditer(path.read_text() if path.is_file() else "")}
    run = run_now()
    known |= {row.experiment.number: line(row, run) for row in rows}
    lines = [known[one.number] for one in EXPERIMENTS if one.number in known]
    broken, skipped = (sum(word in one for one in lines) for word in ("| **not kept** |", "| skipped: "))
    total = f"\n{len(lines)} rows: {len(lines) - broken - skipped} kept, {broken} not kept, {skipped} skipped.\n"
    path.write_text(_HEAD.format(when=machine()) + table(lines) + total)


async def run(experiments: list[Experiment], *, is_short: bool, done: Callable[[Row], None]) -> list[Row]:
    """One after the other, each on a stage of its own; what an experiment itself stumbles over is a row not kept."""
    rows = []
    for experiment in experiments:
        try:
            row = await perform_alone(experiment, is_short=is_short)
        except Exception as error:  # noqa: BLE001 - one row must not take the others along
            traceback.print_exc()
            row = Row(experiment, "the experiment did not come to its end", (f"{type(error).__name__}: {error}"[:300],))
        gc.collect()
        rows.append(row)
        done(row)
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()
    return rows
