"""The short form of the fault table's rows about backends; rows with the same stage share one, to save time."""

from __future__ import annotations

import pytest

from tests.faults import experiments_broken
from tests.faults.rig import Experiment, Stage, perform

NOT_YET = {
    3: "a request that met a reset on a fresh connection is not sent to the other endpoint yet",
    6: "an endpoint that does not accept connections is not left alone yet",
}
BROKEN = {one.number: one for one in experiments_broken.EXPERIMENTS}


async def kept(*experiments: Experiment) -> None:
    """All of them on one stage; what is not kept is named."""
    async with Stage(experiments[0].setup, is_short=True) as stage:
        assert all(one.setup == stage.setup for one in experiments)
        rows = [await perform(stage, one) for one in experiments]
    assert rows
    assert not [row for row in rows if row.broken], "\n".join(map(str, rows))


@pytest.mark.parametrize("numbers", [(1, 2, 5), (4,), (9,)])
async def test_a_backend_that_breaks_harms_only_what_it_was_doing(numbers: tuple[int, ...]) -> None:
    await kept(*(BROKEN[number] for number in numbers))


@pytest.mark.parametrize("number", sorted(NOT_YET))
async def test_a_promise_whose_keeping_is_still_being_built(number: int, request: pytest.FixtureRequest) -> None:
    request.applymarker(pytest.mark.xfail(reason=NOT_YET[number], strict=False))
    await kept(BROKEN[number])
