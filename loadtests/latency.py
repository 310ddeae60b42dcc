"""Added latency beside direct, nginx and HAProxy, at 30 % and 70 % of what saturates this router."""

from __future__ import annotations

import argparse
import statistics
from typing import Any, Final

from loadtests import contestants, report
from loadtests.openloop import Generator, Load
from loadtests.rig import HOST, Rig, RigError, lua, say_cores, turns, wrk

DIRECT: Final = "direct"
SHARES: Final = (0.3, 0.7)
SHOWN: Final = ("p50", "p99", "p99.9")

Latencies = dict[str, float]
Rounds = list[dict[str, Latencies]]


def options() -> argparse.Namespace:
    parser = report.parser("Added latency beside direct, nginx and HAProxy; open loop, Poisson arrivals.")
    parser.add_argument("--connections", type=int, default=64, help="keep-alive connections of the generator")
    parser.add_argument("--saturation", type=float, help="requests/s that saturate the router (else it is measured)")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of saturation (default: 0.3 0.7)")
    parser.add_argument("--late-ms", type=float, default=1.0, help="the generator may be this late, but for 1 %%")
    return parser.parse_args()


def openloop(port: int, rate: float, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """One open-loop run on the load core. RigError when it is refused."""
    load = Load(
        f"http://{HOST}:{port}/",
        rate,
        asked.seconds,
        asked.connections,
        poisson=True,
        late_ms=asked.late_ms,
        host="shop.example.com",
        seed=seed,
    )
    with Generator(load) as generator:
        found = generator.result()
    if found["errors"]:
        raise RigError(f"{found['errors']} errors")
    return found


def measure_all(asked: argparse.Namespace) -> dict[str, Any]:
    with Rig() as rig:
        backend = contestants.start_backend(rig)
        field = contestants.start_all(rig, backend, ("nginx", "haproxy"))
        ports = {DIRECT: backend.v1} | {name: one.port for name, one in field.contestants.items()}
        script = rig.write("users.lua", lua())
        for port in ports.values():
            wrk(script, port, 2)
        saturation = asked.saturation
        if saturation is None:
            found = [wrk(script, ports[contestants.ROUTER], asked.seconds) for _ in range(3)]
            saturation = statistics.median(one["requests"] / one["microseconds"] * 1e6 for one in found)
        print(f"This router is saturated at {saturation:,.0f} requests/s.")
        loads: dict[str, Any] = {}
        for share in asked.shares:
            rounds: Rounds = []
            refused: dict[str, int] = {}
            for number, names in turns(list(ports), asked.rounds):
                one: dict[str, Latencies] = {}
                for name in names:
                    try:
                        one[name] = openloop(ports[name], share * saturation, number, asked)["latency_us"]
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
        both = [one for one in rounds if name in one and DIRECT in one]
        found[name] = {"rounds": len(mine), "latency_us": {p: report.spread(one[p] for one in mine) for p in SHOWN}}
        if both and name != DIRECT:
            found[name]["added_us"] = {p: report.spread(one[name][p] - one[DIRECT][p] for one in both) for p in SHOWN}
    return found


def show(load: str, found: dict[str, Any], rounds: int) -> None:
    print(f"\n{load} of saturation: {found['rate']:,.0f} requests/s, Poisson. µs, median (range).\n")
    rows = []
    for name, one in found["summary"].items():
        added = one.get("added_us")
        rows.append(
            [
                name,
                f"{one['rounds']}/{rounds}",
                *(report.shown(one["latency_us"][p], 0) for p in SHOWN),
                *(report.shown(added[p], 0) if added else "" for p in SHOWN),
            ]
        )
    report.table(["proxy", "rounds kept", *SHOWN, *(f"added {p}" for p in SHOWN)], rows)
    print(flush=True)


def main() -> None:
    asked = options()
    say_cores()
    report.save("latency", asked, measure_all(asked))


if __name__ == "__main__":
    report.run(main)
