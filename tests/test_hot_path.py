"""What one request may cost: counted in function calls, which no neighbour on the machine can change."""

from __future__ import annotations

import asyncio

from loadtests.replay import Replay, calls

CALLS_PER_EXCHANGE = 81
"""Measured: 80.9, of which 11 are for two lines never seen before, and 3 for the journal (interpreted; native code
calls less). A change that needs more has to say what it buys, and docs/performance.md is where."""


async def test_a_warm_exchange_stays_as_short_as_it_was_and_makes_no_task() -> None:
    replay = Replay()
    for i in range(500):
        replay.exchange(i)
    tasks = asyncio.all_tasks()
    stats = replay.profile(1_000)
    assert calls(stats) / 1_000 <= CALLS_PER_EXCHANGE
    assert asyncio.all_tasks() == tasks
    called = {name for _, _, name in stats.stats}  # type: ignore[attr-defined]
    assert not called & {"create_task", "create_future", "call_later", "call_soon", "info", "warning", "connect"}
    rings = replay.plane.collect(whole=True).rings.values()
    assert sum(ring.codes.get(200, 0) for ring in rings) == 1_500
    assert sum(ring.in_flight for ring in rings) == 0
    replay.plane.close()
