"""Does a ring change, a config reload or a killed worker fail requests, or stall them? Beside nginx, at a steady load.

In each turn the open-loop load runs undisturbed, then one thing happens. The requests that were due in a window around
it stand beside those of a window of the same length just before. A thing that did not take effect is an error, never a
good figure.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtests import contestants, report
from loadtests.openloop import Generator, Row, read_rows
from loadtests.openloop_run import Load
from loadtests.rig import HOST, LOAD_CORE, Rig, RigError, family, fetch, say_cores, turns
from router.control.redis_server import EmbeddedRedis, ServerFailed, ServerNotFound, free_port, launch

WORKERS: Final = 2
LEAD_SECONDS: Final = 2.0
"""Until the generator has connected and everything is warm."""
BEFORE_SECONDS: Final = 0.25
"""The part of the window that lies before the event, for what is in flight then."""
TAIL_SECONDS: Final = 0.5
EFFECT_SECONDS: Final = 20.0
STALLED_MS: Final = 50.0
ESTABLISHED: Final = "01"
MEASURES: Final = ("requests", "failed", "worst_ms", "stalled", "generator_late_ms")

Window = dict[str, Any]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds; each event has a turn in each")
    parser.add_argument("--window", type=float, default=3, help="seconds of the event's window and of the quiet one")
    parser.add_argument("--rate", type=float, default=1000, help="requests/s, evenly spaced")
    parser.add_argument("--connections", type=int, default=64, help="keep-alive connections, used in turn")
    parser.add_argument("--late-ms", type=float, default=1.0, help="the generator may be this late, but for 1 %%")
    return parser.parse_args()


# -- what happens ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Effect:
    """What was done: how to see that it took effect, and how many clients a killed process had."""

    is_there: Callable[[], bool]
    connections: int | None = None


@dataclass(slots=True)
class Stage:
    """Both proxies with two workers each, and the Redis of this router."""

    router: contestants.Contestant
    nginx: contestants.Contestant
    redis: EmbeddedRedis
    canary: int = 5

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(fetch(f"http://{HOST}:{self.router.admin}/api/v1/state"))
        return state

    def has_weight(self, ring: str, weight: int) -> bool:
        """Every worker routes by this weight."""
        state = self.state()
        weights = {one["ring"]: one["weight"] for one in state["services"]["shop"]["rings"]}
        return bool(weights[ring] == weight and state["applied_everywhere"] == state["generation"])

    def workers(self) -> set[int]:
        """Of this router, those that control hears from."""
        return {one["pid"] for one in self.state()["workers"] if one["connected"]}

    def nginx_workers(self) -> set[int]:
        return set(family(self.nginx.child.process.pid)[1:])


def change_ring(stage: Stage) -> Effect:
    """One HSET, as redis-cli would send it."""
    stage.canary = weight = 11 - stage.canary
    words = [b"HSET", b"rings:{shop}:weights", b"canary", b"%d" % weight]
    with socket.create_connection((HOST, stage.redis.port), timeout=5) as wire:
        wire.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
        if not wire.recv(64).startswith(b":"):
            raise RigError("Redis refused the HSET")
    return Effect(lambda: stage.has_weight("canary", weight))


def rewrite(path: Path | None, old: str, new: str) -> bool:
    """Exchange two words in a config file, in one step; returns whether it is the new one now."""
    assert path is not None
    text = path.read_text()
    is_new = old in text
    beside = path.with_suffix(".new")
    beside.write_text(text.replace(old, new) if is_new else text.replace(new, old))
    beside.rename(path)
    return is_new


def reload_config(stage: Stage) -> Effect:
    """Another weight of early in the file, and SIGHUP."""
    is_new = rewrite(stage.router.config, '"weight": 20', '"weight": 21')
    stage.router.child.process.send_signal(signal.SIGHUP)
    return Effect(lambda: stage.has_weight("early", 21 if is_new else 20))


def reload_nginx(stage: Stage) -> Effect:
    """The same, which for nginx means new workers; the old ones finish what is in flight."""
    before = stage.nginx_workers()
    rewrite(stage.nginx.config, "20% early", "21% early")
    stage.nginx.child.process.send_signal(signal.SIGHUP)
    return Effect(lambda: len(stage.nginx_workers()) == WORKERS and not stage.nginx_workers() & before)


def kill_worker(stage: Stage) -> Effect:
    return kill_busiest(stage.workers, stage.router.port)


def kill_nginx_worker(stage: Stage) -> Effect:
    return kill_busiest(stage.nginx_workers, stage.nginx.port)


def kill_busiest(workers: Callable[[], set[int]], port: int) -> Effect:
    """SIGKILL for the worker with most clients."""
    held = {pid: clients(pid, port) for pid in workers()}
    killed = max(held, key=lambda pid: held[pid])
    os.kill(killed, signal.SIGKILL)
    return Effect(lambda: len(workers()) == WORKERS and killed not in workers(), held[killed])


def clients(pid: int, port: int) -> int:
    """How many established connections to this port the process has."""
    held = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            held.add(os.readlink(entry.path))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(
        line[3] == ESTABLISHED and int(line[1].rpartition(":")[2], 16) == port and f"socket:[{line[9]}]" in held
        for line in lines
    )


EVENTS: Final[dict[str, Callable[[Stage], Effect]]] = {
    "router: ring changed": change_ring,
    "router: config reloaded": reload_config,
    "router: worker killed": kill_worker,
    "nginx: config reloaded": reload_nginx,
    "nginx: worker killed": kill_nginx_worker,
}


# -- the measurement ---------------------------------------------------------------------------------------------------


def start(rig: Rig) -> Stage:
    backend = contestants.start_backend(rig)
    try:
        redis = launch(free_port(), rig.directory / "redis")
    except (ServerNotFound, ServerFailed) as error:
        raise RigError(str(error)) from None
    rig.callback(redis.stop)
    os.sched_setaffinity(redis.pid, {LOAD_CORE})
    services = {"shop": contestants.service([backend.v1], [backend.v2])}
    router = contestants.start_router(rig, services, workers=WORKERS, redis=redis.url)
    nginx = contestants.start_nginx(rig, backend.v1, backend.v2, workers=WORKERS)
    for one in (router, nginx):
        contestants.check(one)
    return Stage(router, nginx, redis)


def turn(stage: Stage, name: str, record: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """One event under load. RigError when the generator was late, or the event took no effect."""
    load = Load(
        f"http://{HOST}:{(stage.nginx if name.startswith('nginx') else stage.router).port}/",
        asked.rate,
        LEAD_SECONDS + 2 * asked.window + TAIL_SECONDS,
        asked.connections,
        rotate=True,
        late_ms=asked.late_ms,
        host="shop.example.com",
    )
    with Generator(load, record) as generator:
        time.sleep(LEAD_SECONDS + asked.window + BEFORE_SECONDS)
        begin = time.monotonic_ns() - int(BEFORE_SECONDS * 1e9)
        effect = EVENTS[name](stage)
        generator.result()
    deadline = time.monotonic() + EFFECT_SECONDS
    while not effect.is_there():
        if time.monotonic() > deadline:
            raise RigError(f"{name}: no effect within {EFFECT_SECONDS:g} s")
        time.sleep(0.1)
    rows, length = read_rows(record), int(asked.window * 1e9)
    dues = [row.due for row in rows]
    if min(dues) > begin - length or max(dues) < begin + length - 2e9 / asked.rate:
        raise RigError("the load did not cover both windows")
    found: dict[str, Any] = {"quiet": window(rows, begin - length, begin), "event": window(rows, begin, begin + length)}
    if effect.connections is not None:
        found["connections"] = effect.connections
    return found


def window(rows: Sequence[Row], begin: int, end: int) -> Window:
    """What became of the requests that were due in it."""
    mine = [row for row in rows if begin <= row.due < end]
    failed = [row.status for row in mine if row.status != 200]
    return {
        "requests": len(mine),
        "failed": len(failed),
        "failed_by_status": {str(status): count for status, count in sorted(collections.Counter(failed).items())},
        "worst_ms": max(row.took for row in mine) / 1e6,
        "stalled": sum(row.took > STALLED_MS * 1e6 for row in mine),
        "generator_late_ms": max(row.late for row in mine) / 1e6,
    }


def measure_all(asked: argparse.Namespace) -> dict[str, Any]:
    with Rig() as rig:
        stage = start(rig)
        rounds: list[dict[str, dict[str, Any]]] = []
        refused: dict[str, int] = {}
        for number, names in turns(list(EVENTS), asked.rounds):
            found: dict[str, dict[str, Any]] = {}
            for name in names:
                try:
                    found[name] = turn(stage, name, rig.directory / "rows", asked)
                except RigError as error:
                    refused[name] = refused.get(name, 0) + 1
                    print(f"round {number + 1}, {name}: {error}", flush=True)
            rounds.append(found)
            line = "  ".join(f"{name} {one['event']['worst_ms']:.1f}" for name, one in found.items())
            print(f"round {number + 1}/{asked.rounds}, worst ms:  {line}", flush=True)
    return {"summary": summary(rounds), "refused": refused, "rounds": rounds}


def summary(rounds: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in EVENTS:
        mine = [one[name] for one in rounds if name in one]
        if not mine:
            continue
        found[name] = {"rounds": len(mine)}
        for part in ("event", "quiet"):
            found[name][part] = {key: report.spread(one[part][key] for one in mine) for key in MEASURES}
        if "connections" in mine[0]:
            found[name]["connections"] = report.spread(one["connections"] for one in mine)
    return found


def main() -> None:
    asked = options()
    say_cores()
    found = measure_all(asked)
    rows = [
        [
            name,
            f"{one['rounds']}/{asked.rounds}",
            f"{one['event']['requests']['median']:,.0f}",
            report.shown(one["event"]["failed"], 0),
            report.shown(one["quiet"]["failed"], 0),
            report.shown(one["event"]["worst_ms"]),
            report.shown(one["quiet"]["worst_ms"]),
            report.shown(one["event"]["stalled"], 0),
            f"{one['event']['generator_late_ms']['max']:.1f}",
            report.shown(one["connections"], 0) if "connections" in one else "",
        ]
        for name, one in found["summary"].items()
    ]
    print(f"\n{asked.rate:g} requests/s over {asked.connections} connections, windows of {asked.window:g} s. ", end="")
    print("Median (range) over rounds.\n")
    head = ["event", "rounds kept", "requests", "failed", "undisturbed: failed", "worst ms", "undisturbed: worst ms"]
    report.table([*head, f"> {STALLED_MS:g} ms", "generator's ms", "its connections"], rows)
    report.save("disruption", asked, found)


if __name__ == "__main__":
    report.run(main)
