"""The short form of the fault table's rows about the machine, as far as the machine permits them."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from tests.faults import experiments_machine
from tests.faults.findings import Findings
from tests.faults.short import kept

ROWS = {one.number: one for one in experiments_machine.EXPERIMENTS}


async def kept_if_possible(*numbers: int) -> None:
    """Those that the machine permits; the others are warned of, with the reason."""
    reasons = {number: reason for number in numbers if (reason := ROWS[number].possible())}
    for number, reason in reasons.items():
        warnings.warn(f"row {number} skipped: {reason}", stacklevel=2)
    if len(reasons) < len(numbers):
        await kept(*(ROWS[number] for number in numbers if number not in reasons))


async def test_a_machine_that_runs_out_of_something_stops_nobody() -> None:
    """Two stages beside each other: most of the time is waiting."""
    await asyncio.gather(kept_if_possible(26, 22, 23, 25), kept_if_possible(28))


async def test_a_worker_without_descriptors_keeps_those_it_has() -> None:
    await kept_if_possible(24)


async def test_a_machine_without_free_ports_goes_on_with_the_connections_it_has() -> None:
    reason = ROWS[27].possible()
    if reason:
        pytest.skip(reason)
    found = Findings(is_short=True)
    await experiments_machine.in_a_small_network(found)
    assert not found.broken, found.figures
