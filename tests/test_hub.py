"""Control's side of the workers' channel: what stays of workers that are gone. Over the real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from router.control.hub import Hub
from router.core.spec import SnapshotSpec
from router.telemetry.counters import EndpointCounters, VersionCounters, WorkerCounters
from router.telemetry.exposition import ConfigFigures, Figures, ProcessFigures, StoreFigures, render
from router.telemetry.messages import Hello, Leaving, Report, frame, pack_counters
from tests.house import shop, snapshot
from tests.waiting import until


def key(port: int) -> tuple[str, str, str]:
    return ("shop", "v1", f"127.0.0.1:{port}")


def counted(*ports: int) -> WorkerCounters:
    """What a worker says that has failed to connect once to each of these."""
    counters = WorkerCounters(endpoints={key(port): EndpointCounters({"connect": 1}) for port in ports})
    counters.versions["shop", "v1"] = VersionCounters(retries={"connect": len(ports)}, sick=1)
    return counters


@asynccontextmanager
async def started(runtime: Path) -> AsyncIterator[Hub]:
    hub = Hub(runtime, 1)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


async def worker_goes(hub: Hub, runtime: Path, pid: int, counters: WorkerCounters) -> None:
    """A worker that comes, reports once, and is gone."""
    _, writer = await asyncio.open_unix_connection(str(runtime / "control.sock"))
    writer.write(frame(Hello(0, pid)) + frame(Report(pack_counters(counters))))
    await until(lambda: pid in hub.workers and hub.workers[pid].counters.endpoints == counters.endpoints)
    assert hub.versions()["shop", "v1"].sick == 1
    writer.write(frame(Leaving(is_gone=True)))
    await until(lambda: pid not in hub.workers)
    writer.close()


def endpoints_shown(hub: Hub, spec: SnapshotSpec) -> set[str]:
    figures = Figures(hub.totals(), spec, StoreFigures(), ConfigFigures(), ProcessFigures(), 0.0, {"v": "x"})
    lines = render(figures).decode().splitlines()
    return {part for line in lines for part in line.split('"') if part.startswith("127.0.0.1:")}


async def test_workers_that_are_gone_leave_their_counts_and_none_of_addresses_that_are_gone_too(tmp_path: Path) -> None:
    async with started(tmp_path) as hub:
        for number in range(5):
            spec = snapshot(shop((1, 100 + number), (2,)), generation=number + 1)
            hub.publish(spec)
            await worker_goes(hub, tmp_path, 1000 + number, counted(1, 100 + number))
            assert endpoints_shown(hub, spec) == {f"127.0.0.1:{port}" for port in (1, 2, 100 + number)}
        assert hub.totals().endpoints[key(1)].failures == {"connect": 5}
        assert hub.versions() == hub.totals().versions
        assert hub.versions()["shop", "v1"] == VersionCounters(retries={"connect": 10})
        assert set(hub.totals().endpoints) == {key(1), key(104)}
    again = Hub(tmp_path, 1)
    assert again.totals() == hub.totals()
