"""/metrics says exactly what the clients counted, whoever is killed, replaced or reloaded; and no counter goes down.

The long form, with figures, is ``loadtests.scraping``.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.metrics import fallen, samples, total
from tests.running import CONFIG, Router, running_router, some_more, steady_load
from tests.waiting import until, until_said

COUNTERS = ("counter", "histogram")
REQUESTS = "ringrouter_requests_total"


@asynccontextmanager
async def watched(router: Router) -> AsyncIterator[list[int]]:
    """Scrapes without end: no counter is ever less than it was. Yields how many there were."""
    scrapes = [0]

    async def watch() -> None:
        before = {}
        while True:
            try:
                text = (await asyncio.to_thread(router.get, "/metrics")).decode()
            except OSError:  # control is away
                await asyncio.sleep(0.01)
                continue
            now = samples(text, COUNTERS)
            assert not fallen(before, now)
            before = now
            scrapes[0] += 1
            await asyncio.sleep(0.02)

    task = asyncio.get_running_loop().create_task(watch(), name="watch")
    try:
        yield scrapes
        assert not task.done() or task.result() is None
    finally:
        task.cancel()
        await asyncio.wait([task])


async def counted(router: Router) -> dict[str, float]:
    found = samples((await asyncio.to_thread(router.get, "/metrics")).decode())
    return {
        "requests": total(found, REQUESTS),
        "durations": total(found, "ringrouter_request_duration_seconds_count"),
        "decisions": total(found, "ringrouter_route_decisions_total"),
        "bytes": total(found, "ringrouter_response_bytes_total") / 2,
    }


async def says(router: Router, answered: int) -> None:
    """That it counts just these; ``until`` shows what it counts else."""
    wanted = dict.fromkeys(("requests", "durations", "decisions", "bytes"), float(answered))
    found: dict[str, float] = {}

    async def is_said() -> bool:
        nonlocal found
        found = await counted(router)
        return found == wanted

    try:
        await until(is_said, within=10)
    except AssertionError:
        assert found == wanted


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


async def replaced(router: Router, gone: list[int]) -> None:
    await until_said(lambda: router.is_ready() and not set(gone) & set(router.worker_pids()), within=20)


async def test_workers_that_are_killed_and_recycled_lose_no_request(tmp_path: Path) -> None:
    recycled = CONFIG.replace("services:", "recycle: {{requests: 1500}}\nservices:")
    async with running_router(tmp_path, config=recycled) as router:
        answered = 0
        async with watched(router) as scrapes:
            for _ in range(3):
                async with steady_load(router) as tally:
                    await some_more(tally, 400)
                answered += tally.answered
                assert not tally.failures
                pids = router.worker_pids()
                kill(pids)  # at once: no report has told of the last ones
                await replaced(router, pids)
                await says(router, answered)
            async with steady_load(router) as tally:
                await until_said(
                    lambda: router.metric(r'ringrouter_worker_restarts_total\{reason="requests"') >= 2, within=30
                )
            answered += tally.answered
            assert not tally.failures
            await says(router, answered)
            assert router.metric(r'ringrouter_worker_restarts_total\{reason="crash"') == 6
        await until(lambda: scrapes[0] > 20)


async def test_control_that_is_killed_goes_on_counting_where_it_was_and_so_it_does_beside_dead_workers(
    tmp_path: Path,
) -> None:
    async with running_router(tmp_path) as router, watched(router) as scrapes:
        async with steady_load(router) as tally:
            await some_more(tally, 400)
            kill([router.control_pid()])
            await some_more(tally, 400)
        answered = tally.answered
        assert not tally.failures
        await until_said(router.is_ready, within=60)
        await says(router, answered)
        pids = router.worker_pids()
        kill([router.control_pid(), *pids])
        await until_said(lambda: router.is_ready() and not set(pids) & set(router.worker_pids()), within=20)
        await says(router, answered)
        async with steady_load(router) as tally:
            await some_more(tally, 400)
        await says(router, answered + tally.answered)
        assert router.metric("ringrouter_control_restarts_total") == 2
        await until(lambda: scrapes[0] > 20)


async def test_a_worker_that_is_killed_under_load_has_counted_every_answer_that_a_client_saw(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router, watched(router):
        async with steady_load(router) as tally:
            for _ in range(3):
                await some_more(tally, 300)
                pids = router.worker_pids()[:1]
                kill(pids)
                await replaced(router, pids)
        # A request that the kill cut off is counted, or is not: nobody can know. No other one is in doubt.
        await until(lambda: tally.answered <= router.metric(REQUESTS), within=5)
        assert router.metric(REQUESTS) <= tally.answered + len(tally.failures)
        assert len(tally.failures) <= 3 * 8
