"""What the access log costs: CPU per request with it and without, switched live in the same processes."""

from __future__ import annotations

import argparse
from typing import Any, Final

from loadtests import contestants, report
from loadtests.rig import Rig, RigError, lua, measure, say_cores, turns, wrk

FORMS: Final = ("off", "json", "combined")
INSTANCES: Final = 2


def options() -> argparse.Namespace:
    parser = report.parser("CPU per request of this router by the form of its access log.", rounds=9, seconds=3)
    parser.add_argument("--connections", type=int, default=32, help="keep-alive connections of wrk")
    return parser.parse_args()


def measure_all(asked: argparse.Namespace) -> list[dict[str, float]]:
    """CPU µs per request by form, a row for each round of each instance."""
    with Rig() as rig:
        contestants.need("wrk")
        backend = contestants.start_backend(rig)
        services = {"shop": contestants.service([backend.v1], [backend.v2])}
        routers = [contestants.start_router(rig, services, f"router-{i}", "json") for i in range(INSTANCES)]
        script = rig.write("users.lua", lua())
        for router in routers:
            wrk(script, router.port, 3, asked.connections)
        rounds = []
        for number, forms in turns(FORMS, asked.rounds):
            for router in routers:
                found = {}
                for form in forms:
                    # Two processes that do the same differ by more than the log costs: it is one that changes.
                    contestants.reconfigure(router, access_log={"format": form})
                    one = measure(router.child, script, router.port, asked.seconds, asked.connections)
                    if one["errors"]:
                        raise RigError(f"{one['errors']:.0f} errors")
                    found[form] = one["cpu_us"]
                rounds.append(found)
            line = "  ".join(f"{form} {rounds[-1][form]:.1f}" for form in FORMS)
            print(f"round {number + 1}/{asked.rounds}, µs/request:  {line}", flush=True)
        return rounds


def main() -> None:
    asked = options()
    say_cores()
    rounds = measure_all(asked)
    summary: dict[str, Any] = {
        form: {
            "cpu_us": report.spread(one[form] for one in rounds),
            "ratio_to_off": report.spread(one[form] / one["off"] for one in rounds),
        }
        for form in FORMS
    }
    print("\nMedian (range).\n")
    rows = [[form, report.shown(one["cpu_us"]), report.shown(one["ratio_to_off"], 2)] for form, one in summary.items()]
    report.table(["access log", "CPU µs/request", "ratio to off"], rows)
    report.save("access_log", asked, {"summary": summary, "rounds": rounds})


if __name__ == "__main__":
    report.run(main)
