"""What the access log costs: CPU per request with it and without, switched live in the same processes."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, Final

from loadtests import contestants, report
from loadtests.rig import HOST, Rig, RigError, fetch, lua, measure, say_cores, turns, wrk

FORMS: Final = ("off", "json", "combined")
INSTANCES: Final = 2
SWITCH_SECONDS: Final = 10.0


def options() -> argparse.Namespace:
    parser = report.parser("CPU per request of this router by the form of its access log.", rounds=9, seconds=3)
    parser.add_argument("--connections", type=int, default=32, help="keep-alive connections of wrk")
    return parser.parse_args()


def switch(router: contestants.Contestant, form: str) -> None:
    """Write another form into the config file and wait until every worker has it.

    Two processes that do the same differ by more than the log costs; so it is one process that changes.
    """
    assert router.config is not None
    config = json.loads(router.config.read_text())
    if config["access_log"]["format"] == form:
        return
    before = generation(router)
    config["access_log"]["format"] = form
    router.config.write_text(json.dumps(config))
    deadline = time.monotonic() + SWITCH_SECONDS
    while generation(router) == before:
        if time.monotonic() > deadline:
            raise RigError(f"the access log did not become {form} within {SWITCH_SECONDS:g} s")
        time.sleep(0.05)


def generation(router: contestants.Contestant) -> int:
    """What all its workers have applied."""
    return int(json.loads(fetch(f"http://{HOST}:{router.admin}/api/v1/state"))["applied_everywhere"])


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
                    switch(router, form)
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
