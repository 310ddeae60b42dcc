"""What it costs to see the rings: CPU per request beside a build that could not, and with everything on.

The earlier build is another checkout's, compiled alike: ``git worktree add ../before 10f6a02``, ``make -C ../before
compiled``, ``python -m loadtests.seeing --before ../before/build/compiled``. Without one, only what can be switched on
is compared: JSON access log, tracing (no request is sampled) and Server-Timing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from loadtests import contestants, report
from loadtests.rig import HOST, Rig, RigError, free_ports, lua, measure, say_cores, turns, wrk

BEFORE: Final = "before"
NOW: Final = "now"
EVERYTHING: Final = "everything"
INSTANCES: Final = 3
"""Of each build: two processes that do the same differ too. What can be switched is switched in the same process."""


def options() -> argparse.Namespace:
    parser = report.parser("CPU per request of this router by what it tells about itself.", rounds=9, seconds=3)
    parser.add_argument("--connections", type=int, default=32, help="keep-alive connections of wrk")
    parser.add_argument("--before", type=Path, metavar="TREE", help="build/compiled of an earlier commit's checkout")
    return parser.parse_args()


def switches(backend: contestants.Backend) -> dict[str, dict[str, Any]]:
    """What the config says in each form."""
    service = contestants.service([backend.v1], [backend.v2])
    (nobody,) = free_ports(1)  # no span is ever sent there
    return {
        NOW: {"access_log": {"format": "off"}, "tracing": None, "services": {"shop": service}},
        EVERYTHING: {
            "access_log": {"format": "json"},
            "tracing": {"endpoint": f"http://{HOST}:{nobody}", "sample": 0},
            "services": {"shop": {**service, "server_timing": True}},
        },
    }


def measure_all(asked: argparse.Namespace) -> list[dict[str, float]]:
    """CPU µs per request by form, a row for each round of each instance."""
    before = asked.before.resolve() if asked.before is not None else None
    if before is not None and not (before / "router").is_dir():
        raise RigError(f"--before {before} has no router/ in it: name the build/compiled of an earlier checkout")
    with Rig() as rig:
        contestants.need("wrk")
        backend = contestants.start_backend(rig)
        services = {"shop": contestants.service([backend.v1], [backend.v2])}
        forms = switches(backend)
        builds = {NOW: None} if before is None else {BEFORE: str(before), NOW: None}
        # With a log from the start, so that what it writes goes where nobody reads it.
        routers = {
            (build, number): contestants.start_router(rig, services, f"{build}-{number}", "json", code=code)
            for build, code in builds.items()
            for number in range(INSTANCES)
        }
        script = rig.write("users.lua", lua())
        for router in routers.values():
            contestants.check(router)
            wrk(script, router.port, 3, asked.connections)
        rounds = []
        for number, order in turns([*builds, EVERYTHING], asked.rounds):
            for instance in range(INSTANCES):
                found = {}
                for form in order:
                    router = routers[BEFORE if form == BEFORE else NOW, instance]
                    contestants.reconfigure(router, **forms[NOW if form == BEFORE else form])
                    one = measure(router.child, script, router.port, asked.seconds, asked.connections)
                    if one["errors"]:
                        raise RigError(f"{one['errors']:.0f} errors")
                    found[form] = one["cpu_us"]
                rounds.append(found)
            line = "  ".join(f"{form} {rounds[-1][form]:.1f}" for form in (*builds, EVERYTHING))
            print(f"round {number + 1}/{asked.rounds}, µs/request:  {line}", flush=True)
        return rounds


def main() -> None:
    asked = options()
    say_cores()
    rounds = measure_all(asked)
    forms = [form for form in (BEFORE, NOW, EVERYTHING) if form in rounds[0]]
    base = forms[0]
    summary: dict[str, Any] = {
        form: {
            "cpu_us": report.spread(one[form] for one in rounds),
            "more_us": report.spread(one[form] - one[base] for one in rounds),
        }
        for form in forms
    }
    print("\nMedian (range).\n")
    rows = [[form, report.shown(one["cpu_us"]), report.shown(one["more_us"])] for form, one in summary.items()]
    report.table(["router", "CPU µs/request", f"more than {base}"], rows)
    asked.before = asked.before is not None  # the result names no directory of one machine
    report.save("seeing", asked, {"summary": summary, "rounds": rounds})


if __name__ == "__main__":
    report.run(main)
