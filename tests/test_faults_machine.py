"""The short form of the fault table's rows about the machine, as far as the machine permits them."""

from __future__ import annotations

import sys

import pytest

from tests.faults import experiments_machine
from tests.faults.findings import Findings
from tests.faults.short import kept

NOT_YET = {
    22: "the line behind one that was torn by a full disk is torn as well, and not counted",
    24: "descriptors for backends are not set aside when the limit falls under a running worker",
}
ROWS = {one.number: one for one in experiments_machine.EXPERIMENTS}


async def kept_if_possible(*numbers: int) -> None:
    """Skipped when the machine permits none of them; those that it does not are printed."""
    reasons = {number: reason for number in numbers if (reason := ROWS[number].possible())}
    for number, reason in reasons.items():
        sys.stdout.write(f"row {number} skipped: {reason}\n")
    if len(reasons) == len(numbers):
        pytest.skip("; ".join(reasons.values()))
    await kept(*(ROWS[number] for number in numbers if number not in reasons))


@pytest.mark.parametrize("numbers", [(26, 23, 25), (28,)])
async def test_a_machine_that_runs_out_of_something_stops_nobody(numbers: tuple[int, ...]) -> None:
    await kept_if_possible(*numbers)


async def test_a_machine_without_free_ports_goes_on_with_the_connections_it_has() -> None:
    reason = ROWS[27].possible()
    if reason:
        pytest.skip(reason)
    found = Findings(is_short=True)
    await experiments_machine.in_a_small_network(found)
    assert not found.broken, found.figures


@pytest.mark.parametrize("number", sorted(NOT_YET))
async def test_a_promise_whose_keeping_is_still_being_built(number: int, request: pytest.FixtureRequest) -> None:
    request.applymarker(pytest.mark.xfail(reason=NOT_YET[number], strict=False))
    await kept_if_possible(number)
