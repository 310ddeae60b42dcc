"""The short form of the fault table's rows about backends; rows with the same stage share one."""

from __future__ import annotations

import pytest

from tests.faults import experiments_broken, experiments_slow
from tests.faults.short import kept

NOT_YET = {
    3: "a request that met a reset on a fresh connection is not sent to the other endpoint yet",
    6: "an endpoint that does not accept connections is not left alone yet",
    8: "nothing caps the requests in flight to an endpoint yet",
    12: "nobody remembers yet that an endpoint refused the last connection",
}
ROWS = {one.number: one for one in (*experiments_broken.EXPERIMENTS, *experiments_slow.EXPERIMENTS)}


@pytest.mark.parametrize("numbers", [(1, 2, 5), (4,), (9,), (7,), (10, 13)])
async def test_a_backend_that_breaks_harms_only_what_it_was_doing(numbers: tuple[int, ...]) -> None:
    await kept(*(ROWS[number] for number in numbers))


@pytest.mark.parametrize("number", sorted(NOT_YET))
async def test_a_promise_whose_keeping_is_still_being_built(number: int, request: pytest.FixtureRequest) -> None:
    request.applymarker(pytest.mark.xfail(reason=NOT_YET[number], strict=False))
    await kept(ROWS[number])
