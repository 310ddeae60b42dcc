"""The short form: several rows on one stage, to save the time it takes to build one."""

from __future__ import annotations

from tests.faults.rig import Experiment, Stage, perform


async def kept(*experiments: Experiment) -> None:
    """Run them in this order on one stage, which they all have to want alike. AssertionError names what is not kept."""
    async with Stage(experiments[0].setup, is_short=True) as stage:
        assert all(one.setup == stage.setup for one in experiments), "these want different stages"
        rows = [await perform(stage, one) for one in experiments]
    assert rows
    assert not any(row.broken for row in rows), "\n".join(map(str, rows))
