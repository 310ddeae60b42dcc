"""``unshare --net python -m tests.faults.within``: row 27, in a network with few ephemeral ports, as lines of JSON."""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import uvloop

from tests.faults.client import End, Request
from tests.faults.experiments_slow import CANARY
from tests.faults.findings import Findings
from tests.faults.load import P99, Shape, get
from tests.faults.rig import Experiment, Stage, perform
from tests.waiting import until

PORTS: Final = (33_000, 33_099)
SOURCES: Final = tuple(f"127.0.0.{number}" for number in range(2, 52))
"""The load comes from these: a hundred ports for each, where the router's own connections have a hundred in all."""
HELD: Final = 150
"""Requests at a time to one backend, for which there are a hundred ports."""


async def no_ports(stage: Stage, found: Findings) -> None:
    async with stage.load(Shape(rate=200, make=get, kept=16, fresh=0, sources=SOURCES)) as load:
        await load.some("before", stage.many(800, 40))
        load.phase = "fault"
        for number in range(HELD):
            request = Request(f"{load.prefix}-held{number}", query="head_after=1.5", fields=CANARY)
            load.begin(request, is_fresh=True)
        await load.some("fault", stage.many(1000, 100))
        await until(lambda: sum("-held" in one.request.id for one in load.outcomes) == HELD, within=30)
        await load.some("after", stage.many(1600, 60))
    held = [one for one in load.outcomes if "-held" in one.request.id]
    answers = collections.Counter(f"{one.status} {one.word or one.backend}" for one in held)
    found.note(f"{HELD} requests at a time to one backend, 100 ports: {dict(answers)}")
    failed = [one for one in held if one.end is not End.RIGHT]
    marked = [one for one in failed if one.end is End.MARKED and one.status in (502, 503)]
    found.counted("failures that are no marked 502 or 503", len(failed) - len(marked), most=0)
    found.timed("p99 of those that failed", load.p(P99, failed), most=1000)
    others = [one for one in load.bad() if "-held" not in one.request.id]
    found.none("errors of the other ring, on pooled connections", others)


EXPERIMENT: Final = Experiment(27, "within", "", "", no_ports)


async def _run(*, is_short: bool) -> Findings:
    async with Stage(EXPERIMENT.setup, is_short=is_short) as stage:
        row = await perform(stage, EXPERIMENT)
    return Findings(is_short, [row.measured], list(row.broken))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--short", action="store_true")
    is_short = options.parse_args().short
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{PORTS[0]} {PORTS[1]}")
    found = uvloop.run(_run(is_short=is_short))
    sys.stdout.write(json.dumps({"figures": found.figures, "broken": found.broken}) + "\n")


if __name__ == "__main__":
    main()
