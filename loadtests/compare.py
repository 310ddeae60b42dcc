"""CPU per request, requests/s and memory of this router beside nginx, HAProxy, Envoy and an aiohttp proxy."""

from __future__ import annotations

import argparse
from typing import Any, Final

from loadtests import contestants, report
from loadtests.rig import Rig, lua, measure, say_cores, turns, wrk

MEASURES: Final = ("cpu_us", "requests_per_s", "rss_mib", "serving_rss_mib", "errors")
BASES: Final = ("nginx", "envoy", "aiohttp")

Rounds = list[dict[str, dict[str, float]]]


def options() -> argparse.Namespace:
    parser = report.parser("This router beside its peers, in one run, interleaved round by round.")
    parser.add_argument("--connections", type=int, default=32, help="keep-alive connections of wrk")
    parser.add_argument("--warmup", type=float, default=3, help="seconds of load before the first round")
    parser.add_argument("--peers", nargs="*", default=contestants.PEERS, choices=contestants.PEERS)
    return parser.parse_args()


def measure_all(asked: argparse.Namespace, load: str, of: str = "request") -> tuple[Rounds, dict[str, str]]:
    """Every contestant under the load of this wrk script, ``asked.rounds`` times."""
    with Rig() as rig:
        contestants.need("wrk")
        backend = contestants.start_backend(rig)
        field = contestants.start_all(rig, backend, asked.peers, both=True)
        script = rig.write("users.lua", load)
        for contestant in field.contestants.values():
            wrk(script, contestant.port, asked.warmup, asked.connections)
        rounds: Rounds = []
        for number, names in turns(list(field.contestants), asked.rounds):
            found = {}
            for name in names:
                contestant = field.contestants[name]
                found[name] = measure(contestant.child, script, contestant.port, asked.seconds, asked.connections)
            rounds.append(found)
            line = "  ".join(f"{name} {found[name]['cpu_us']:.1f}" for name in field.contestants)
            print(f"round {number + 1}/{asked.rounds}, µs/{of}:  {line}", flush=True)
        return rounds, field.skipped


def summary(rounds: Rounds) -> dict[str, Any]:
    """Median and range of each measure; ratios within a round first, their median then."""
    names = list(rounds[0])
    found: dict[str, Any] = {}
    for name in names:
        found[name] = {key: report.spread(one[name][key] for one in rounds) for key in MEASURES}
        found[name]["ratio_to"] = {
            base: report.spread(one[name]["cpu_us"] / one[base]["cpu_us"] for one in rounds)
            for base in BASES
            if base in names
        }
    return found


def show(found: dict[str, Any], of: str = "request") -> None:
    bases = [base for base in BASES if base in found]
    names = sorted(found, key=lambda name: found[name]["cpu_us"]["median"])
    rows = [
        [
            name,
            report.shown(found[name]["cpu_us"]),
            report.shown(found[name]["requests_per_s"], 0),
            f"{found[name]['rss_mib']['median']:.0f}",
            f"{found[name]['serving_rss_mib']['median']:.0f}",
            f"{found[name]['errors']['max']:.0f}",
            *(report.shown(found[name]["ratio_to"][base], 2) for base in bases),
        ]
        for name in names
    ]
    head = ["proxy", f"CPU µs/{of}", f"{of}s/s", "RSS MiB", "of it serving", "errors"]
    print("\nMedian (range). CPU and RSS: all processes of the proxy, memory that they share counted in each.\n")
    report.table([*head, *(f"CPU / {base}" for base in bases)], rows)


def main() -> None:
    asked = options()
    say_cores()
    rounds, skipped = measure_all(asked, lua())
    found = summary(rounds)
    show(found)
    for name, why in skipped.items():
        print(f"skipped: {name}: {why}")
    report.save("compare", asked, {"summary": found, "skipped": skipped, "rounds": rounds}, contestants.find_envoy())


if __name__ == "__main__":
    report.run(main)
