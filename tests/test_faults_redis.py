"""The short form of the fault table's rows about Redis; rows with the same stage share one."""

from __future__ import annotations

import asyncio

from tests.faults import experiments_redis, experiments_replies
from tests.faults.short import kept

ROWS = {one.number: one for one in (*experiments_redis.EXPERIMENTS, *experiments_replies.EXPERIMENTS)}


async def test_whatever_redis_does_no_request_notices() -> None:
    """Two stages beside each other: most of the time is waiting."""
    stages = ((40, 36, 37, 39, 35), (43, 42, 41, 38))
    await asyncio.gather(*(kept(*(ROWS[number] for number in numbers)) for numbers in stages))
