"""Many instances in one process, for ``thousand``: each with the product's own ``Store`` and ``Fleet``, and no workers.

``python -m loadtests.thousand_clients URL FIRST COUNT DIRECTORY``. A store is a watcher on a connection of its own, the
parser, the last known good file and the status in Redis; a fleet writes the figures of each ten seconds and reads those
of the others. Says one line of JSON when all are live, one whenever the last of them has applied a weight, and one for
each word on its standard input: ``figures``, or ``look`` (one instance's fleet is looked at every second from then on).
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
import uvloop

from loadtests import rig
from router.control.fleet import Fleet
from router.control.rules import ServiceRules
from router.control.store import Store
from router.core.live import Live
from router.telemetry.buckets import Piece, Pieces
from router.telemetry.tasks import spawn
from tests.waiting import until

SHOP = ServiceRules(
    name="shop",
    rings=("canary", "early", "everyone"),
    weights={"canary": 100, "early": 1000},
    versions={"canary": "v2", "early": "v2", "everyone": "v1"},
    version_names=frozenset({"v1", "v2"}),
)
LATENCIES = range(40, 70)
"""Histogram buckets that an ordinary instance has something in."""


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


class Crowd:
    """All of this process. ``applied``: hundredths of a percent of canary → how many have them, and since when."""

    def __init__(self, url: str, first: int, count: int, directory: Path) -> None:
        self.applied: dict[int, list[float]] = {}
        self.stores: list[Store] = []
        self.fleets: list[Fleet] = []
        for number in range(first, first + count):
            name = f"edge-{number:04}"
            home = directory / name
            home.mkdir(exist_ok=True)
            store = Store(url, {"shop": SHOP}, home, name, self._changed)
            self.stores.append(store)
            self.fleets.append(Fleet(url, name, lambda: ["shop"], _own, store.is_up))

    def _changed(self, live: Mapping[str, Live]) -> None:
        points = live["shop"].weights.get("canary")
        if points is None:
            return
        times = self.applied.setdefault(points, [])
        times.append(time.time())
        if len(times) == len(self.stores):
            say(applied=points, times=times)

    async def run(self) -> None:
        await asyncio.gather(*(self._join(place) for place in range(len(self.stores))))
        await until(lambda: all(store.is_up() for store in self.stores), within=100)
        say(live=len(self.stores))
        words = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
        while word := (await words.readline()).strip():
            if word == b"look":
                spawn(self._look(), name="somebody who looks")
            say(**self._figures())

    async def _join(self, place: int) -> None:
        await asyncio.sleep(place * 0.01)  # a hundred a second from each process, as a rolling start would
        await self.stores[place].start()
        self.fleets[place].start()

    async def _look(self) -> None:
        while True:
            self.fleets[0].look()
            await asyncio.sleep(1)

    def _figures(self) -> dict[str, Any]:
        used, now = resource.getrusage(resource.RUSAGE_SELF), time.time()
        reader = self.fleets[0]
        return {
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "resident_mib": used.ru_maxrss / 1024,
            "up": sum(store.is_up() for store in self.stores),
            "statuses_known": len(reader.statuses("shop")),
            "fleet_read_seconds_ago": now - reader.read_at,
            "fleets_read_lately": sum(now - fleet.read_at < 20 for fleet in self.fleets),
        }


def _own(bucket: int) -> dict[str, Pieces]:
    """Ten requests a second in each ring: what is written changes with every second."""
    seconds = int(time.time()) - bucket * 10
    if not 0 < seconds <= 20:
        return {}
    count = 10 * min(10, seconds)
    piece = Piece({200: count, 404: 1, 503: 1}, {"hash": count, "member": 2}, dict.fromkeys(LATENCIES, count))
    return {"shop": {(ring, SHOP.versions[ring]): piece for ring in SHOP.rings}}


def main() -> None:
    url, first, count, directory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    rig.raise_open_files()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    uvloop.run(Crowd(url, first, count, directory).run())


if __name__ == "__main__":
    main()
