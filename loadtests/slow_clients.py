"""Do 500 slow clients make the others wait? The same open-loop load without them and with them, round by round.

Half of them send a request head one byte a second, half a body. They come back as soon as they are shown the door, so
as many are there all the time, and what each of them was answered, and when, is counted too.

The control: the same load straight to the backend, past the router, while they are at the router. What they do to it
is the machine's doing, their process and the kernel on the load core, and no proxy's.
"""

from __future__ import annotations

import argparse
import collections
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

from loadtests import contestants, exposed, report
from loadtests.openloop import Generator
from loadtests.openloop_run import Load
from loadtests.rig import HOST, Rig, RigError, say_cores, turns
from loadtests.trickle import UPLOAD_HOST, SlowClients, Slowness
from router.proxy.admit import RATE_GRACE_SECONDS

WITHOUT, WITH = "without", "with"
PAST_WITHOUT, PAST_WITH = "past the router, without", "past the router, with"
KINDS: Final = (WITHOUT, WITH, PAST_WITHOUT, PAST_WITH)
SHOWN: Final = ("p50", "p99", "p99.9")
SETTLE_SECONDS: Final = 1.0
"""After the last of them has come."""
ALLOWED_P99: Final = 1.2
"""What their presence may do to the p99 of the others."""
BODY_RATE: Final = 500.0
"""limits.body_rate as it comes; an upload of a byte a second falls short of it."""

RATIOS: Final = (
    ("ratio", "with ÷ without"),
    ("ratio_past_the_router", "the same past the router"),
    ("ratio_through_to_past", "through ÷ past"),
    ("ratio_without_to_without", "without ÷ the one before"),
)

Round = dict[str, dict[str, Any]]


def options() -> argparse.Namespace:
    parser = report.parser(__doc__.splitlines()[0], seconds=25)
    parser.add_argument("--rate", type=float, default=3000, help="normal requests/s, Poisson arrivals")
    parser.add_argument("--connections", type=int, default=64, help="keep-alive connections of the normal load")
    parser.add_argument("--late-ms", type=float, default=1.0, help="the generator may be this late, but for 1 %%")
    parser.add_argument("--clients", type=int, default=500, help="slow clients")
    parser.add_argument("--bodies", type=float, default=0.5, help="the share of them that are slow in the body")
    parser.add_argument("--head-timeout", type=float, default=5.0, help="timeouts.head of the router, seconds")
    parser.add_argument("--ramp", type=float, default=5.0, help="seconds over which they come")
    parser.add_argument("--dry", action="store_true", help="write no result")
    asked = parser.parse_args()
    if asked.seconds <= 0 or not 0 <= asked.bodies <= 1:
        parser.error("--seconds is above 0, --bodies from 0 to 1")
    return asked


# -- the measurement ---------------------------------------------------------------------------------------------------


def start(rig: Rig, asked: argparse.Namespace) -> tuple[contestants.Contestant, int]:
    """The router, and its backend's port. nginx answers the normal load.

    Uploads go to a socket that nobody accepts on: it costs the load core nothing.
    """
    backend = contestants.start_backend(rig)
    sink = rig.enter_context(socket.create_server((HOST, 0), backlog=4096))
    port = sink.getsockname()[1]
    upload = {
        "hosts": [UPLOAD_HOST],
        "versions": {"v1": {"endpoints": [f"http://{HOST}:{port}"]}},
        "rings": [{"name": "everyone", "version": "v1"}],
    }
    services = {"shop": contestants.service([backend.v1], [backend.v2]), "upload": upload}
    timeouts = {"drain": "1s", "idle": "300s", "head": f"{asked.head_timeout:g}s"}
    router = contestants.start_router(rig, services, timeouts=timeouts)
    exposed.await_ready(router.admin)
    contestants.check(router)
    return router, backend.v1


def normal_load(port: int, number: int, asked: argparse.Namespace) -> dict[str, Any]:
    """The same arrivals in both turns of a round."""
    load = Load(
        f"http://{HOST}:{port}/",
        asked.rate,
        asked.seconds,
        asked.connections,
        poisson=True,
        late_ms=asked.late_ms,
        host="shop.example.com",
        seed=number,
    )
    with Generator(load) as generator:
        return generator.result()


def turn(
    router: contestants.Contestant, backend: int, kind: str, number: int, asked: argparse.Namespace
) -> dict[str, Any]:
    """One turn. RigError when the generator was late."""
    port = router.port if kind in {WITHOUT, WITH} else backend
    if kind in {WITHOUT, PAST_WITHOUT}:
        return normal_load(port, number, asked)
    slowness = Slowness(
        router.port, asked.clients, asked.bodies, asked.ramp, asked.head_timeout, RATE_GRACE_SECONDS, BODY_RATE
    )
    refused: RigError | None = None
    with SlowClients(slowness) as crowd:
        time.sleep(asked.ramp + SETTLE_SECONDS)
        found: dict[str, Any] = {}
        try:
            found = normal_load(port, number, asked)
        except RigError as error:
            refused = error
        found["slow"] = crowd.result()  # also of a refused turn: the router counted them all
    if refused is not None:
        found["refused"] = str(refused)
    return found


def measure_all(asked: argparse.Namespace) -> dict[str, Any]:
    rounds: list[Round] = []
    with Rig() as rig:
        router, backend = start(rig, asked)
        for number, kinds in turns(KINDS, asked.rounds):
            found: Round = {}
            for kind in kinds:
                try:
                    found[kind] = turn(router, backend, kind, number, asked)
                except RigError as error:
                    found[kind] = {"refused": str(error)}
                if "refused" in found[kind]:
                    print(f"round {number + 1}, {kind}: {found[kind]['refused']}", flush=True)
            rounds.append(found)
            line = "  ".join(f"{kind} {one['latency_us']['p99']:.0f}" for kind, one in measured(found))
            print(f"round {number + 1}/{asked.rounds}, p99 µs:  {line}", flush=True)
        counted = exposed.settled(router.admin)
        answers = {
            "head": counted.by("router_answers_total", "word").get("request_timeout", 0),
            "body": counted.by("requests_total", "code").get("408", 0),
        }
    return {"summary": summary(rounds, answers), "rounds": rounds}


# -- what came of it ---------------------------------------------------------------------------------------------------


def measured(one: Round) -> Iterator[tuple[str, dict[str, Any]]]:
    """The turns that were not refused."""
    return ((kind, found) for kind, found in sorted(one.items()) if "latency_us" in found)


def summary(rounds: Sequence[Round], answers: dict[str, int]) -> dict[str, Any]:
    """Latencies, ratios within a round, and every slow client. ``answers``: 408s as the router counted them."""
    kept = [dict(measured(one)) for one in rounds]
    pairs = [one for one in kept if len(one) == len(KINDS)]
    if not pairs:
        raise RigError("no round has all turns")
    alone = [one[WITHOUT]["latency_us"] for one in kept if WITHOUT in one]
    found: dict[str, Any] = {"rounds": len(pairs)}
    for kind in KINDS:
        mine = [one[kind] for one in kept if kind in one]
        found[kind] = {
            "requests": sum(one["requests"] for one in mine),
            "failed": sum(one["errors"] for one in mine),
            "latency_us": {p: report.spread(one["latency_us"][p] for one in mine) for p in SHOWN},
        }
    through, past = (
        {p: [one[after]["latency_us"][p] / one[before]["latency_us"][p] for one in pairs] for p in SHOWN}
        for before, after in ((WITHOUT, WITH), (PAST_WITHOUT, PAST_WITH))
    )
    found["ratio"] = {p: report.spread(through[p]) for p in SHOWN}
    found["ratio_past_the_router"] = {p: report.spread(past[p]) for p in SHOWN}
    found["ratio_through_to_past"] = {
        p: report.spread(one / other for one, other in zip(through[p], past[p], strict=True)) for p in SHOWN
    }
    if len(alone) > 1:  # what two turns without them differ by: less than that is not measured
        found["ratio_without_to_without"] = {
            p: report.spread(later[p] / earlier[p] for earlier, later in pairwise(alone)) for p in SHOWN
        }
    found["p99_is_kept"] = found["ratio"]["p99"]["median"] < ALLOWED_P99
    crowds = [one[kind]["slow"] for one in rounds for kind in (WITH, PAST_WITH) if "slow" in one[kind]]
    found["fewest_slow_at_once"] = min(crowd["fewest_at_once"] for crowd in crowds)
    found["slow"] = {kind: slow_summary(crowds, kind, answers[kind]) for kind in answers}
    found["problems"] = problems(found)
    return found


def problems(found: dict[str, Any]) -> list[str]:
    """What must not be, however busy the machine is; a ratio of latencies is for the reader to judge."""
    said = [f"{found[kind]['failed']} requests failed {kind} slow clients" for kind in KINDS
            if found[kind]["failed"]]  # fmt: skip
    for kind, one in found["slow"].items():
        if one["by_status"].keys() - {"408"}:
            said.append(f"slow {kind}: not all ended with 408: {one['by_status']}")
        if one["by_status"].get("408", 0) != one["router_counted_408"]:
            said.append(
                f"slow {kind}: the router counted {one['router_counted_408']} times 408, not {one['by_status']}"
            )
    return said


def slow_summary(crowds: Sequence[dict[str, Any]], kind: str, counted: int) -> dict[str, Any]:
    """The slow ones of one kind over all rounds; ranges are over all attempts, medians over the rounds' medians."""
    mine = [crowd[kind] for crowd in crowds if kind in crowd]
    statuses: collections.Counter[str] = collections.Counter()
    for one in mine:
        statuses.update(one["by_status"])
    found: dict[str, Any] = {
        "attempts": sum(one["attempts"] for one in mine),
        "by_status": dict(sorted(statuses.items())),
        "router_counted_408": counted,
    }
    for name in ("seconds", "late_ms") if mine else ():
        found[name] = {
            "median": report.spread(one[name]["median"] for one in mine)["median"],
            "min": min(one[name]["min"] for one in mine),
            "max": max(one[name]["max"] for one in mine),
        }
    return found


def show(found: dict[str, Any], asked: argparse.Namespace) -> None:
    print(f"\n{asked.rate:,.0f} requests/s, Poisson, beside {asked.clients} slow clients. µs, median (range).\n")
    rows = [
        [f"{kind} slow clients", f"{found[kind]['requests']:,}", f"{found[kind]['failed']}",
         *(report.shown(found[kind]["latency_us"][p], 0) for p in SHOWN)]
        for kind in KINDS
    ]  # fmt: skip
    for name, said in RATIOS:
        if name in found:
            rows.append([said, "", "", *(report.shown(found[name][p], 2) for p in SHOWN)])
    report.table(["", "requests", "failed", *SHOWN], rows)
    print(f"\np99 rises by {'less' if found['p99_is_kept'] else 'MORE'} than 20 % (median of the ratios).")
    print(f"Never fewer than {found['fewest_slow_at_once']} slow clients at once.\n")
    rows = [
        [f"slow {kind}", f"{one['attempts']}",
         ", ".join(f"{count} × {status}" for status, count in one["by_status"].items()),
         f"{one['router_counted_408']}", report.shown(one["seconds"], 2), report.shown(one["late_ms"], 0)]
        for kind, one in found["slow"].items() if one["attempts"]
    ]  # fmt: skip
    report.table(["", "attempts", "ended with", "408s the router counted", "after s", "ms after its time-out"], rows)
    for problem in found["problems"]:
        print(f"\nPROBLEM: {problem}")


def main() -> None:
    asked = options()
    say_cores()
    found = measure_all(asked)
    show(found["summary"], asked)
    if not asked.dry:
        report.save("slow_clients", asked, found)
    if found["summary"]["problems"]:
        sys.exit(1)


if __name__ == "__main__":
    report.run(main)
