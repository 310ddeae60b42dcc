"""Added latency beside direct, nginx and HAProxy, at 30 % and 70 % of what saturates this router."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from loadtests import contestants, report
from loadtests.histogram import Histogram
from loadtests.openloop import Generator, Row, read_rows
from loadtests.openloop_run import LATE_SHARE, WAITED_SHARE, Load
from loadtests.rig import HOST, PRIORITY, PROXY_CORE, Child, Rig, RigError, lua, say_cores, turns, wrk
from loadtests.standstills import Watch, kept

DIRECT: Final = "direct"
SHARES: Final = (0.3, 0.7)
SHOWN: Final = ("p50", "p99", "p99.9")
KEPT_SHARE: Final = 0.5
"""A turn of which less is left says nothing."""
NEVER_LATE_MS: Final = 60_000.0

Latencies = dict[str, float]
Turn = dict[str, Any]
Rounds = list[dict[str, Turn]]


def options() -> argparse.Namespace:
    parser = report.parser("Added latency beside direct, nginx and HAProxy; open loop, Poisson arrivals.")
    parser.add_argument("--connections", type=int, default=64, help="keep-alive connections of the generator")
    parser.add_argument("--saturation", type=float, help="requests/s that saturate the router (else it is measured)")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of saturation (default: 0.3 0.7)")
    parser.add_argument("--warm-seconds", type=float, default=0.5, help="of load before each turn that do not count")
    parser.add_argument("--late-ms", type=float, default=1.0, help="the generator may be this late, but for 1 %%")
    return parser.parse_args()


def before_others(child: Child) -> None:
    """Let a contestant run before whatever else the machine has to do, where that is allowed.

    A machine has processes of its own that take a core for some milliseconds a few times a second: 1 % of the time, so
    they would be what p99 tells.
    """
    for pid in child.pids:
        with contextlib.suppress(FileNotFoundError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(PermissionError, ProcessLookupError):
                    os.sched_setscheduler(int(task.name), os.SCHED_RR, os.sched_param(PRIORITY))


def openloop(port: int, rate: float, seed: int, asked: argparse.Namespace, watch: Watch, record: Path) -> Turn:
    """One open-loop run on the load core, with and without what was due while a core stood still.

    RigError when it is refused.
    """
    load = Load(
        f"http://{HOST}:{port}/",
        rate,
        asked.warm_seconds + asked.seconds,
        asked.connections,
        poisson=True,
        late_ms=NEVER_LATE_MS,  # standstills make it late too: that is judged below, without them
        waited_share=1.0,  # likewise
        host="shop.example.com",
        seed=seed,
    )
    with Generator(load, record) as generator:
        found = generator.result()
    if found["errors"]:
        raise RigError(f"{found['errors']} errors")
    rows = read_rows(record)
    begun = min(row.due for row in rows) + int(asked.warm_seconds * 1e9)
    rows = [row for row in rows if row.due >= begun]
    counted = kept(rows, watch.found())
    if len(counted) < KEPT_SHARE * len(rows):
        raise RigError(f"the machine stood still too often: {len(counted) / len(rows):.0%} of the requests are left")
    late = sum(row.late > asked.late_ms * 1e6 for row in counted)
    if late > LATE_SHARE * len(counted):
        raise RigError(f"the generator was late by more than {asked.late_ms:g} ms with {late / len(counted):.1%}")
    waited = sum(row.waited for row in counted)
    if waited > WAITED_SHARE * len(counted):
        raise RigError(f"{waited / len(counted):.1%} found every connection busy: it is saturated")
    return {
        "kept_percent": 100 * len(counted) / len(rows),
        "latency_us": percentiles(counted),
        "all_us": percentiles(rows),
    }


def percentiles(rows: Sequence[Row]) -> Latencies:
    """Microseconds."""
    histogram = Histogram()
    for row in rows:
        histogram.add(row.took)
    return {name: histogram.percentile(float(name[1:])) / 1e3 for name in SHOWN}


def measure_all(asked: argparse.Namespace) -> dict[str, Any]:
    with Rig() as rig, Watch(rig.directory) as watch:
        record = rig.directory / "rows"
        backend = contestants.start_backend(rig, PROXY_CORE)  # the generator has its core to itself
        field = contestants.start_all(rig, backend, ("nginx", "haproxy"))
        ports = {DIRECT: backend.v1} | {name: one.port for name, one in field.contestants.items()}
        for child in (backend.child, *(one.child for one in field.contestants.values())):
            before_others(child)
        script = rig.write("users.lua", lua())
        for port in ports.values():
            wrk(script, port, 2)
        saturation = asked.saturation
        if saturation is None:
            found = [wrk(script, ports[contestants.ROUTER], asked.seconds) for _ in range(3)]
            saturation = statistics.median(one["requests"] / one["microseconds"] * 1e6 for one in found)
        print(f"This router, with the backend on its core, is saturated at {saturation:,.0f} requests/s.")
        loads: dict[str, Any] = {}
        for share in asked.shares:
            rounds: Rounds = []
            refused: dict[str, int] = {}
            for number, names in turns(list(ports), asked.rounds):
                one: dict[str, Turn] = {}
                for name in names:
                    try:
                        one[name] = openloop(ports[name], share * saturation, number, asked, watch, record)
                    except RigError as error:
                        refused[name] = refused.get(name, 0) + 1
                        print(f"round {number + 1}, {name} at {share:.0%}: {error}", flush=True)
                rounds.append(one)
            loads[f"{share:.0%}"] = {
                "rate": share * saturation, "rounds": rounds, "refused": refused, "summary": summary(rounds)
            }  # fmt: skip
            show(f"{share:.0%}", loads[f"{share:.0%}"], asked.rounds)
        return {"saturation": saturation, "loads": loads, "skipped": field.skipped}


def summary(rounds: Rounds) -> dict[str, Any]:
    """Each percentile, and by how much it is above direct's in the same round; median and range over rounds."""
    found: dict[str, Any] = {}
    for name in sorted({name for one in rounds for name in one}):
        mine = [one[name] for one in rounds if name in one]
        found[name] = {
            "rounds": len(mine),
            "kept_percent": report.spread(turn["kept_percent"] for turn in mine),
            "latency_us": {p: report.spread(turn["latency_us"][p] for turn in mine) for p in SHOWN},
        }
        both = [(one[name], one[DIRECT]) for one in rounds if name in one and DIRECT in one]
        if both and name != DIRECT:
            for which, added in (("latency_us", "added_us"), ("all_us", "added_to_all_us")):
                found[name][added] = {
                    p: report.spread(turn[which][p] - direct[which][p] for turn, direct in both) for p in SHOWN
                }
    return found


def show(load: str, found: dict[str, Any], rounds: int) -> None:
    print(f"\n{load} of saturation: {found['rate']:,.0f} requests/s, Poisson. µs, median (range).\n")
    rows = []
    for name, one in found["summary"].items():
        added = [one["added_us"][p] for p in SHOWN] + [one["added_to_all_us"]["p99"]] if "added_us" in one else []
        rows.append(
            [
                name,
                f"{one['rounds']}/{rounds}",
                report.shown(one["kept_percent"], 0),
                *(report.shown(one["latency_us"][p], 0) for p in SHOWN),
                *(report.shown(value, 0) for value in added),
                *[""] * (len(SHOWN) + 1 - len(added)),
            ]
        )
    head = ["proxy", "turns", "% kept", *SHOWN, *(f"added {p}" for p in SHOWN), "added p99, standstills too"]
    report.table(head, rows)


def main() -> None:
    asked = options()
    say_cores(backend=PROXY_CORE)
    report.save("latency", asked, measure_all(asked))


if __name__ == "__main__":
    report.run(main)
