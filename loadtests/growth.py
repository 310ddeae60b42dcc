"""CPU per request as the set-up grows: services, endpoints, rings with their rules. Each beside its smallest.

nginx grows beside it, since a part of that is the machine's: what was not used lately is not in its caches.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Final

from loadtests import contestants, report
from loadtests.peers import configs
from loadtests.rig import HOST, LOAD_CORE, Rig, free_ports, lua, measure, say_cores, turns, wrk

SERVICES: Final = 1000
ENDPOINTS: Final = 200
RINGS: Final = (2, 20)
RULES: Final = 50


@dataclass(frozen=True, slots=True)
class Setup:
    """A configuration, the hosts its load asks for, and the set-up it is compared with.

    ``nginx``: how many endpoints a version has, when it is nginx that runs and not this router.
    """

    services: dict[str, Any]
    hosts: tuple[str, ...]
    beside: str
    nginx: int = 0


def options() -> argparse.Namespace:
    parser = report.parser("CPU per request of this router as services, endpoints and rings grow.")
    parser.add_argument("--connections", type=int, default=32, help="keep-alive connections of wrk")
    return parser.parse_args()


def with_rings(service: dict[str, Any], count: int) -> dict[str, Any]:
    """``count`` rings of 50 rules each, and a default ring behind them (which takes the rest and has no rules).

    The load has the header they ask for and is in none of them, so all are tried.
    """
    rings: list[dict[str, Any]] = []
    for number in range(count):
        tenants = [{"header": {"name": "X-Tenant", "equals": f"tenant-{number}-{rule}"}} for rule in range(RULES)]
        rings.append({"name": f"ring-{number}", "version": "v2", "weight": 1, "audience": tenants})
    return {**service, "rings": [*rings, {"name": "everyone", "version": "v1"}]}


def setups(v1: list[int], v2: list[int]) -> dict[str, Setup]:
    one = contestants.service(v1[:1], v2[:1])
    host = ("shop.example.com",)
    many = tuple(f"shop-{number}.example.com" for number in range(SERVICES))
    few, most = (f"{count} rings of {RULES} rules" for count in RINGS)
    return {
        "1 service": Setup({"shop": {**one, "hosts": list(host)}}, host, "1 service"),
        f"{SERVICES} services": Setup(
            {name.partition(".")[0]: {**one, "hosts": [name]} for name in many}, many, "1 service"
        ),
        "1 endpoint": Setup({"shop": one}, host, "1 endpoint"),
        f"{ENDPOINTS} endpoints": Setup({"shop": contestants.service(v1, v2)}, host, "1 endpoint"),
        few: Setup({"shop": with_rings(one, RINGS[0])}, host, few),
        most: Setup({"shop": with_rings(one, RINGS[1])}, host, few),
        # Sockets that were not used lately cost every proxy more: what of the growth is not this router's doing.
        "nginx, 1": Setup({}, host, "nginx, 1", nginx=1),
        f"nginx, {SERVICES} services": Setup({}, many, "nginx, 1", nginx=1),
        f"nginx, {ENDPOINTS} endpoints": Setup({}, host, "nginx, 1", nginx=ENDPOINTS),
    }


def measure_all(asked: argparse.Namespace) -> dict[str, Any]:
    with Rig() as rig:
        contestants.need("nginx")
        contestants.need("wrk")
        ports = free_ports(2 * ENDPOINTS)
        v1, v2 = ports[:ENDPOINTS], ports[ENDPOINTS:]
        config = rig.write("backend.conf", configs.backend(rig.directory, "backend", [v1, v2]))
        rig.start("backend", ["nginx", "-c", config], LOAD_CORE, f"http://{HOST}:{v1[0]}/")
        routers, scripts = {}, {}
        chosen = setups(v1, v2)
        for number, (name, setup) in enumerate(chosen.items()):
            if setup.nginx:
                hosts = setup.hosts if len(setup.hosts) > 1 else ("",)
                some = (v1[: setup.nginx], v2[: setup.nginx])
                routers[name] = contestants.start_nginx(rig, *some, hosts=hosts, name=f"nginx-{number}")
            else:
                routers[name] = contestants.start_router(rig, setup.services, f"router-{number}")
            scripts[name] = rig.write(f"{number}.lua", lua(setup.hosts))
        for name, router in routers.items():
            wrk(scripts[name], router.port, 3, asked.connections)
        rounds = []
        for number, names in turns(list(routers), asked.rounds):
            found = {}
            for name in names:
                router = routers[name]
                found[name] = measure(router.child, scripts[name], router.port, asked.seconds, asked.connections)
            rounds.append(found)
            line = "  ".join(f"{name} {found[name]['cpu_us']:.1f}" for name in routers)
            print(f"round {number + 1}/{asked.rounds}, µs/request:  {line}", flush=True)
    summary = {
        name: {
            "cpu_us": report.spread(one[name]["cpu_us"] for one in rounds),
            "errors": max(one[name]["errors"] for one in rounds),
            "beside": setup.beside,
            "ratio": report.spread(one[name]["cpu_us"] / one[setup.beside]["cpu_us"] for one in rounds),
        }
        for name, setup in chosen.items()
    }
    return {"summary": summary, "rounds": rounds}


def main() -> None:
    asked = options()
    say_cores()
    found = measure_all(asked)
    rows = [
        [name, report.shown(one["cpu_us"]), report.shown(one["ratio"], 2), f"{one['errors']:.0f}"]
        for name, one in found["summary"].items()
    ]
    print("\nMedian (range).\n")
    report.table(["set-up", "CPU µs/request", "ratio to the smallest", "errors"], rows)
    report.save("growth", asked, found)


if __name__ == "__main__":
    report.run(main)
