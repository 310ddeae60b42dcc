"""Waiting for a condition, with a deadline: the tests' only way to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(predicate: Callable[[], object | Awaitable[object]], within: float = 5.0) -> None:
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
