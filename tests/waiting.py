"""Waiting for a condition, with a deadline: the tests' only way to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

PATIENCE_SECONDS: Final = 15.0
"""Not a promise of anything: how long a busy machine may take. Where seconds are promised a test says ``within``."""


async def until(predicate: Callable[[], object | Awaitable[object]], within: float = PATIENCE_SECONDS) -> None:
    """Return when ``predicate`` (which may be async) is true; fail after ``within`` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        result = predicate()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return
        if loop.time() >= deadline:
            raise AssertionError(f"not within {within:g} s")
        await asyncio.sleep(0.01)


async def until_said(ask: Callable[[], object], within: float = PATIENCE_SECONDS) -> None:
    """``until`` for what has to be asked of another process: in a thread, so that this loop's clients go on meanwhile.

    A router that is busy, or gives way to another, may take its time; clients that stood still as long would look
    like people who connect and say nothing, whom a worker that ends does not wait for.
    """
    await until(lambda: asyncio.to_thread(ask), within)
