"""The table: which experiments there are, how they run one after the other, and how ``docs/faults.md`` is written."""

from __future__ import annotations

import datetime
import gc
import os
import platform
import subprocess
import sys
import traceback
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
after; each row ran once. A request that met a stall of the load itself is not timed.

"""


def line(row: Row) -> str:
    one = row.experiment
    said = row.measured + "".join(f". **{words}**" for words in row.broken)
    cells = (str(one.number), one.fault, one.promise, one.figure, said, row.verdict)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def table(rows: list[Row]) -> str:
    return "\n".join(["| # | fault | promise | figure | measured | verdict |", "|---|---|---|---|---|---|",
                      *map(line, rows), ""])  # fmt: skip


def when() -> str:
    """Date, commit and machine in words."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    commit = git.stdout.strip() or "no commit"
    cores = os.cpu_count() or 1
    placed = "core 0 for the router, core 1 for backends, load and observer" if cores > 1 else "nothing is pinned"
    return (
        f"Measured on {datetime.datetime.now(datetime.UTC).date()} at {commit}, on a machine with {cores} cores "
        f"({placed}), {platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}."
    )


def write(rows: list[Row], path: Path = DOCUMENT) -> None:
    kept = sum(row.verdict == "kept" for row in rows)
    skipped = sum(bool(row.skipped) for row in rows)
    total = f"\n{len(rows)} rows: {kept} kept, {len(rows) - kept - skipped} not kept, {skipped} skipped.\n"
    path.write_text(_HEAD.format(when=when()) + table(rows) + total)


async def run(experiments: list[Experiment], *, is_short: bool) -> list[Row]:
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
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()
    return rows
