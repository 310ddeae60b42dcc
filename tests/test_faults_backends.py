"""The short form of the fault table's rows about backends; rows with the same stage share one."""

from __future__ import annotations

import pytest

from tests.faults import experiments_broken, experiments_slow
from tests.faults.short import kept

ROWS = {one.number: one for one in (*experiments_broken.EXPERIMENTS, *experiments_slow.EXPERIMENTS)}


@pytest.mark.parametrize("numbers", [(1, 2, 5), (3,), (4,), (6,), (9,), (7,), (8,), (10, 13), (12,)])
async def test_a_backend_that_breaks_harms_only_what_it_was_doing(numbers: tuple[int, ...]) -> None:
    await kept(*(ROWS[number] for number in numbers))
