"""The short form of the fault table's rows about clients; rows with the same stage share one."""

from __future__ import annotations

import pytest

from tests.faults import experiments_clients
from tests.faults.short import kept

NOT_YET = {18: "nothing caps the connections to an endpoint yet"}
ROWS = {one.number: one for one in experiments_clients.EXPERIMENTS}


@pytest.mark.parametrize("numbers", [(14, 15, 16), (19, 20), (17,), (21,)])
async def test_a_client_that_does_not_behave_harms_nobody_else(numbers: tuple[int, ...]) -> None:
    await kept(*(ROWS[number] for number in numbers))


@pytest.mark.parametrize("number", sorted(NOT_YET))
async def test_a_promise_whose_keeping_is_still_being_built(number: int, request: pytest.FixtureRequest) -> None:
    request.applymarker(pytest.mark.xfail(reason=NOT_YET[number], strict=False))
    await kept(ROWS[number])
