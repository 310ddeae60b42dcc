"""The short form of the fault table's rows about the router's own processes, and of everything at random."""

from __future__ import annotations

import asyncio

from tests.faults import experiments_processes, experiments_soak
from tests.faults.short import kept

ROWS = {one.number: one for one in (*experiments_processes.EXPERIMENTS, *experiments_soak.EXPERIMENTS)}


async def test_processes_that_are_killed_stopped_and_replaced_are_not_noticed() -> None:
    """Two stages beside each other: most of the time is waiting."""
    stages = ((34, 29, 30, 31, 32, 33), (46,))
    await asyncio.gather(*(kept(*(ROWS[number] for number in numbers)) for numbers in stages))
