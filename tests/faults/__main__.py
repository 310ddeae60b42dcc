"""``python -m tests.faults``: run the fault table, print it, write docs/faults.md; exit code 1 for a row not kept."""

from __future__ import annotations

import argparse
import gc
import os
import sys

import uvloop

from loadtests.rig import raise_open_files
from tests.faults import table
from tests.faults.rig import OTHER_CORE, Row


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    options.add_argument("--only", help="numbers of rows: 1,5,9; the others stay as they are in docs/faults.md")
    options.add_argument("--short", action="store_true", help="the form of `make test`; docs/faults.md stays as it is")
    asked = options.parse_args()
    wanted = {int(number) for number in asked.only.split(",")} if asked.only else None
    chosen = [one for one in table.EXPERIMENTS if wanted is None or one.number in wanted]
    raise_open_files()
    gc.disable()  # its pauses would be counted as the router's
    if not asked.short and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {OTHER_CORE})

    def done(row: Row) -> None:
        if not asked.short:
            table.write([row])

    rows = uvloop.run(table.run(chosen, is_short=asked.short, done=done))
    sys.stdout.write("\n" + table.table(map(table.line, rows)))
    return int(any(row.broken for row in rows))


if __name__ == "__main__":
    sys.exit(main())
