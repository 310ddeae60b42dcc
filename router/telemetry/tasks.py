"""The one way to start a task: it has a name, somebody holds it, and its death is never silent.

The event loop keeps only weak references to tasks, so a task nobody holds may vanish in the middle of its work; and an
exception nobody awaits is only reported when the task is garbage-collected. This must never swallow a cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import structlog

_Result = TypeVar("_Result")
ASK_AGAIN_SECONDS: Final = 0.1
_held: Final[set[asyncio.Task[Any]]] = set()
_log = structlog.get_logger(__name__)


def spawn(coroutine: Coroutine[Any, Any, _Result], *, name: str) -> asyncio.Task[_Result]:
    """Start ``coroutine`` as a task that is held until it ends; an exception that ends it is logged."""
    task = asyncio.create_task(coroutine, name=name)  # noqa: TID251 - this is the one place the ban points to
    _held.add(task)
    task.add_done_callback(_ended)
    return task


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and return when they have ended, whatever they ended with.

    Asks again until they obey: ``asyncio.wait_for`` before Python 3.12 drops a cancellation that arrives together with
    its result (python/cpython#86296), and redis-py writes through it. One lost cancellation would hang a shutdown.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=ASK_AGAIN_SECONDS)


def _ended(task: asyncio.Task[Any]) -> None:
    _held.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        _log.error(
            f"the task {task.get_name()} ended with an unexpected {type(error).__name__}: {error}", exc_info=error
        )
