"""Says in Redis, where the operator is looking, what this instance has applied and what it refused.

``HGETALL rings:{shop}:status`` has one field per instance. It uses a client of its own, never the watcher's connection,
and never waits for anybody: what cannot be written now is written ten seconds later.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from redis.asyncio import Redis

from router.control.keys import key_of
from router.control.link import hang_up, make_client

EVERY_SECONDS: Final = 10.0
MIN_GAP_SECONDS: Final = 0.1
WRITE_SECONDS: Final = 1.0
FORGET_SECONDS: Final = 3600.0
"""An instance that has said nothing for an hour is gone."""
PRUNE_EVERY_SECONDS: Final = 600.0
FAREWELL_SECONDS: Final = 0.5

Report = Callable[[], Mapping[str, Mapping[str, Any]]]
"""Service → what to say about it."""


class StatusWriter:
    """Run ``run()`` as a task; ``wake()`` when there is something new to say."""

    def __init__(
        self,
        url: str,
        instance: str,
        report: Report,
        on_error: Callable[[BaseException], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = make_client(url)
        self._instance = instance
        self._report = report
        self._on_error = on_error
        self._clock = clock
        self._news = asyncio.Event()
        self._next_prune = 0.0

    def wake(self) -> None:
        self._news.set()

    async def run(self) -> None:
        """Write at each news and every ten seconds; a failure is told and tried again next time."""
        try:
            while True:
                try:
                    async with asyncio.timeout(EVERY_SECONDS):
                        await self._news.wait()
                except TimeoutError:
                    pass
                self._news.clear()
                try:
                    await self._write()
                # A dead transport may raise RuntimeError, TypeError or AttributeError as well.
                except Exception as error:  # noqa: BLE001
                    self._on_error(error)
                await asyncio.sleep(MIN_GAP_SECONDS)
        finally:
            await hang_up(self._client)

    async def _write(self) -> None:
        at = self._clock()
        reports = self._report()
        async with asyncio.timeout(WRITE_SECONDS):
            async with self._client.pipeline(transaction=False) as pipe:
                for service, said in reports.items():
                    text = json.dumps({**said, "at": round(at, 3)}, ensure_ascii=False)
                    pipe.hset(key_of(service, "status"), self._instance, text)
                await pipe.execute()
            if at >= self._next_prune:
                self._next_prune = at + PRUNE_EVERY_SECONDS
                for service in reports:
                    await prune(self._client, service, at)

    async def farewell(self, services: tuple[str, ...]) -> None:
        """Take this instance out of the status, if Redis is there. Call it when ``run`` has ended."""
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                for service in services:
                    await self._client.hdel(key_of(service, "status"), self._instance)
        except Exception:  # noqa: BLE001 - nobody is waiting for this; the entry is pruned after an hour
            return
        finally:
            await hang_up(self._client)


async def prune(client: Redis, service: str, now: float) -> None:
    """Forget the instances that have not written for an hour. A field that is not ours is left alone."""
    key = key_of(service, "status")
    fields: Mapping[Any, Any] = await client.hgetall(key)
    old = [name for name, text in fields.items() if (at := _written_at(text)) is not None and now - at > FORGET_SECONDS]
    if old:
        await client.hdel(key, *old)


def _written_at(text: bytes) -> float | None:
    try:
        at = json.loads(text)["at"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return at if isinstance(at, (int, float)) else None
