"""/metrics held against the load generator's own count, while workers are killed, replaced and reloaded; and its price.

Two workers, 20 services × 5 rings × 3 versions. Killed between two loads, a worker may lose nothing: both counts are
equal. Killed under load it cuts requests off, which it may have counted or not: these are the only ones in doubt. All
the time /metrics is read, and no counter may ever be less than it was. At the end scrapes are timed under load.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from loadtests import contestants, exposed, report
from loadtests.openloop import Generator, read_rows
from loadtests.openloop_run import Load
from loadtests.rig import HOST, LOAD_CORE, PROXY_CORE, Rig, RigError, fetch, lua, say_cores, wrk

WORKERS: Final = 2
SERVICES, RINGS, VERSIONS = 20, 5, 3
POLL_SECONDS: Final = 0.1
MOST_MS: Final = 50.0
IDLE: Final = "/live, for comparison"
"""Asks for nothing: what a neighbour on the machine makes an answer of control wait."""
FORMATS: Final[dict[str, dict[str, str]]] = {
    IDLE: {},
    "text": {},
    "text, gzip": {"Accept-Encoding": "gzip"},
    "OpenMetrics, gzip": {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"},
}
HOSTS: Final = [f"service-{number:02}.example.com" for number in range(SERVICES)]


def options() -> argparse.Namespace:
    parser = report.parser(__doc__.splitlines()[0], rounds=5, seconds=4)
    parser.add_argument("--rate", type=float, default=1000, help="requests per second")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--scrapes", type=int, default=200, help="of each format, timed")
    parser.add_argument("--dry", action="store_true", help="write no result")
    return parser.parse_args()


# -- the router --------------------------------------------------------------------------------------------------------


def services(v1: int, v2: int, turned: int) -> dict[str, Any]:
    """All services; ``turned`` times each ring has gone on to the next version."""
    endpoints = [v1, v2, v1]
    return {
        f"service-{number:02}": {
            "hosts": [host],
            "identity": [{"header": "X-User-Id"}],
            "versions": {f"v{n + 1}": {"endpoints": [f"http://{HOST}:{port}"]} for n, port in enumerate(endpoints)},
            "rings": [
                {"name": f"ring-{n}", "version": f"v{(n + turned) % VERSIONS + 1}"}
                | ({"weight": 100 // RINGS} if n < RINGS - 1 else {})
                for n in range(RINGS)
            ],
        }
        for number, host in enumerate(HOSTS)
    }


class Stage:
    """The router, and what the clients have counted so far."""

    def __init__(self, rig: Rig, asked: argparse.Namespace) -> None:
        self._rig, self._asked = rig, asked
        self._backend = contestants.start_backend(rig)
        self.router = contestants.start_router(
            rig, services(self._backend.v1, self._backend.v2, 0), workers=WORKERS, recycle={}
        )
        exposed.await_ready(self.router.admin)
        self.router.child.settle()
        for pid in self.router.child.pids:  # as it is shipped: on no core of its own
            os.sched_setaffinity(pid, {PROXY_CORE, LOAD_CORE})
        self.answered = self.cut_off = 0

    def load(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Some seconds of load; what was answered, and what was not, is added to the account."""
        record = self._rig.directory / "rows"
        load = Load(
            f"http://{HOST}:{self.router.port}/", self._asked.rate, seconds, self._asked.connections, rotate=True,
            late_ms=1000, host=HOSTS[0],
        )  # fmt: skip
        with Generator(load, record) as generator:
            meanwhile()
            with contextlib.suppress(RigError):  # latencies are not what is asked for
                generator.result()
        rows = read_rows(record)
        self.answered += sum(row.status == 200 for row in rows)
        self.cut_off += sum(row.status == 0 for row in rows)
        if any(row.status not in (0, 200) for row in rows):
            raise RigError(f"answers that are none: {sorted({row.status for row in rows})}")

    def fill(self) -> None:
        """Every ring has some of every version in its histograms, from all workers; nobody counts these."""
        script = self._rig.write("fill.lua", lua(HOSTS))
        for turned in range(VERSIONS):
            if turned:
                self.rewrite(services=services(self._backend.v1, self._backend.v2, turned))
            wrk(script, self.router.port, 4)
        time.sleep(exposed.SETTLE_SECONDS)
        self.answered = int(counted(self.router.admin)["requests"])

    def rewrite(self, **changes: Any) -> None:
        """Other lines of the config, and SIGHUP; returns when every worker routes by them."""
        assert self.router.config is not None
        config = json.loads(self.router.config.read_text()) | changes
        before = exposed.state_of(self.router.admin)["config"]["revision"]
        self.router.config.write_text(json.dumps(config))
        self.router.child.process.send_signal(signal.SIGHUP)
        exposed.await_that(
            lambda: bool(exposed.state_of(self.router.admin)["config"]["revision"] > before), "the config is in force"
        )
        exposed.await_ready(self.router.admin)

    def workers(self) -> list[int]:
        return [one["pid"] for one in exposed.state_of(self.router.admin)["workers"] if one["connected"]]

    def kill(self, pids: list[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

        def are_replaced() -> bool:
            with contextlib.suppress(OSError):
                now = self.workers()
                return len(now) == WORKERS and not set(now) & set(pids)
            return False

        exposed.await_that(are_replaced, "killed workers are replaced")

    def control(self) -> int:
        for pid in self.router.child.pids:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ring-router: control"):
                    return pid
        raise RigError("no control process")


def counted(admin: int) -> dict[str, float]:
    """What /metrics says of all requests, in three ways that have to agree."""
    found = values(fetch(f"http://{HOST}:{admin}/metrics"))
    names = {
        "requests": "requests_total", "durations": "request_duration_seconds_count",
        "decisions": "route_decisions_total",
    }  # fmt: skip
    return {
        what: sum(value for series, value in found.items() if series.startswith(f"ringrouter_{name}{{"))
        for what, name in names.items()
    }


def values(text: str) -> dict[str, float]:
    """Series → value, of counters and histograms."""
    found, counts = {}, False
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            counts = line.rsplit(" ", 1)[1] in ("counter", "histogram")
        elif counts and line[0] != "#":
            series, _, value = line.rpartition(" ")
            found[series] = float(value)
    return found


# -- nothing goes down -------------------------------------------------------------------------------------------------


class Watch(threading.Thread):
    """Reads /metrics all the time, and notes what is less than it was."""

    def __init__(self, admin: int) -> None:
        super().__init__(name="watch", daemon=True)
        self._url = f"http://{HOST}:{admin}/metrics"
        self._ends = threading.Event()
        self.scrapes = self.missed = 0
        self.fallen: list[str] = []

    def run(self) -> None:
        before: dict[str, float] = {}
        while not self._ends.wait(POLL_SECONDS):
            try:
                now = values(fetch(self._url))
            except OSError:  # control was killed
                self.missed += 1
                continue
            self.scrapes += 1
            self.fallen += [
                f"{series}: {value:g} → {now[series]:g}"
                for series, value in before.items()
                if now.get(series, value) < value
            ]
            before = now

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self.join()


# -- the parts ---------------------------------------------------------------------------------------------------------


def equal(stage: Stage, what: str) -> dict[str, Any]:
    """Both counts; where some were cut off under load, the difference is these at the most."""
    deadline = time.monotonic() + 10
    while True:
        found = counted(stage.router.admin)
        more = found["requests"] - stage.answered
        agree = len(set(found.values())) == 1
        if (agree and 0 <= more <= stage.cut_off) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    row = {"after": what, "clients": stage.answered, "cut_off": stage.cut_off, **found}
    row["is_exact"] = agree and 0 <= more <= stage.cut_off
    print(f"{what}: clients {stage.answered:,}, /metrics {found['requests']:,.0f}, cut off {stage.cut_off}", flush=True)
    stage.answered, stage.cut_off = int(found["requests"]), 0
    return row


def rounds(stage: Stage, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    chance = random.Random(1)
    for number in range(asked.rounds):
        stage.load(asked.seconds)
        stage.kill(stage.workers())
        yield equal(stage, "all workers killed, between two loads")
        drain = {"drain": f"{2 + number}s"}  # another one each time: what is the same is not in force anew
        stage.load(asked.seconds, lambda: stage.rewrite(workers=WORKERS, timeouts=drain))  # noqa: B023
        yield equal(stage, "config reloaded, under load")
        before = restarted(stage, "requests")
        stage.rewrite(recycle={"requests": int(asked.rate)})
        stage.load(2 * asked.seconds)
        exposed.await_that(lambda: restarted(stage, "requests") > before, "workers are recycled")  # noqa: B023
        stage.rewrite(recycle={})
        yield equal(stage, "workers recycled, under load")
        stage.load(asked.seconds, lambda: kill_control(stage))
        yield equal(stage, "control killed, under load")

        def kill_one() -> None:
            time.sleep(asked.seconds / 2)
            stage.kill([chance.choice(stage.workers())])

        stage.load(asked.seconds, kill_one)
        yield equal(stage, "a worker killed, under load")


def kill_control(stage: Stage) -> None:
    stage.router.child.settle()
    os.kill(stage.control(), signal.SIGKILL)


def restarted(stage: Stage, reason: str) -> int:
    return exposed.Exposed(stage.router.admin).by("worker_restarts_total", "reason")[reason]


def timed(stage: Stage, asked: argparse.Namespace) -> dict[str, Any]:
    """Scrapes under load, each format in turn."""
    took: dict[str, list[float]] = {name: [] for name in FORMATS}
    sizes: dict[str, int] = {}
    lines = 0

    def scrape() -> None:
        nonlocal lines
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        time.sleep(1)
        for _ in range(asked.scrapes):
            for name, headers in FORMATS.items():
                begun = time.monotonic()
                url = f"http://{HOST}:{stage.router.admin}/{'live' if name == IDLE else 'metrics'}"
                with opener.open(urllib.request.Request(url, headers=headers), timeout=10) as response:
                    body = response.read()
                took[name].append(1000 * (time.monotonic() - begun))
                sizes[name] = len(body)
                if name == "text":
                    lines = sum(not line.startswith(b"#") for line in body.splitlines())
                time.sleep(0.02)

    stage.load(4 + asked.scrapes * len(FORMATS) * 0.08, scrape)
    return {
        "series": lines,
        "rate": asked.rate,
        "formats": {
            name: {
                "bytes": sizes[name],
                "p50_ms": statistics.median(mine),
                "p99_ms": statistics.quantiles(mine, n=100)[98],
                "max_ms": max(mine),
            }
            for name, mine in took.items()
        },
    }


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    with Rig() as rig:
        stage = Stage(rig, asked)
        stage.fill()
        with Watch(stage.router.admin) as watch:
            accounts = list(rounds(stage, asked))
        scrape = timed(stage, asked)
    wrong = [one for one in accounts if not one["is_exact"]]
    problems = [f"{one['after']}: clients {one['clients']}, /metrics {one['requests']:g}" for one in wrong]
    problems += watch.fallen[:5]
    slow = {name: one["p50_ms"] for name, one in scrape["formats"].items() if one["p50_ms"] > MOST_MS}
    problems += [f"{name}: {value:.0f} ms" for name, value in slow.items()]
    return {
        "summary": {
            "exact": len(accounts) - len(wrong),
            "compared": len(accounts),
            "cut_off": sum(one["cut_off"] for one in accounts),
            "scrapes": watch.scrapes,
            "scrapes_while_control_was_away": watch.missed,
            "counters_that_fell": len(watch.fallen),
            "scrape": scrape,
            "problems": problems,
        },
        "accounts": accounts,
    }


def main() -> None:
    asked = options()
    say_cores()
    found = measure(asked)
    summary = found["summary"]
    print(
        f"\n{summary['exact']} of {summary['compared']} counts exact; {summary['cut_off']} requests cut off by kills; "
        f"{summary['counters_that_fell']} counters fell in {summary['scrapes']} scrapes.\n"
        f"{summary['scrape']['series']:,} series at {asked.rate:g} requests/s:\n"
    )
    rows = [
        [name, f"{one['bytes'] / 1024:,.0f}", *(f"{one[key]:.1f}" for key in ("p50_ms", "p99_ms", "max_ms"))]
        for name, one in summary["scrape"]["formats"].items()
    ]
    report.table(["scrape", "KiB", "p50 ms", "p99 ms", "max ms"], rows)
    for problem in summary["problems"]:
        print(f"\nPROBLEM: {problem}")
    if not asked.dry:
        report.save("scraping", asked, found)
    if summary["problems"]:
        sys.exit(1)


if __name__ == "__main__":
    report.run(main)
