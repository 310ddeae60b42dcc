"""The short form of the fault table's rows about clients; rows with the same stage share one."""

from __future__ import annotations

import pytest

from tests.faults import experiments_clients
from tests.faults.short import kept

ROWS = {one.number: one for one in experiments_clients.EXPERIMENTS}


@pytest.mark.parametrize("numbers", [(14, 15, 16), (19, 20), (17,), (18,), (21,)])
async def test_a_client_that_does_not_behave_harms_nobody_else(numbers: tuple[int, ...]) -> None:
    await kept(*(ROWS[number] for number in numbers))
