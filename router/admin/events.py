"""Event streams: one feed for all tabs. What happens is encoded once, and the same bytes go to everybody who listens.

Nobody is waited for: whoever does not read is dropped. There is no replay; a stream begins with everything.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from router.admin.shapes import News, Snapshot
from router.admin.trouble import Trouble
from router.admin.view import View
from router.telemetry.tasks import end, spawn

MOST_STREAMS: Final = 64
QUEUE_BYTES: Final = 4 * 1024 * 1024
"""Waiting for one listener, beside what the kernel holds; beyond it is dropped."""
TICK_SECONDS: Final = 1.0
PING_SECONDS: Final = 15.0
SEND_SECONDS: Final = 20.0
"""A listener that takes nothing for so long is gone."""
PING: Final = b": ping\n\n"
HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect events until its buffer is full
}
encode: Final = msgspec.json.Encoder(order="deterministic").encode


def event(name: str, data: Any) -> bytes:
    """One event as it goes over the wire; JSON has no line breaks outside of strings, and none inside."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode(data))


class Stream:
    """One who listens, and what is still to be sent to them."""

    def __init__(self, may_listen: Callable[[], bool]) -> None:
        self.may_listen = may_listen
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self.is_over = False

    def offer(self, data: bytes) -> None:
        """Put into the queue; a full one ends the stream."""
        if self.is_over:
            return
        self._waiting.append(data)
        self._bytes += len(data)
        if self._bytes > QUEUE_BYTES:
            self.end()
        self._news.set()

    def end(self) -> None:
        self.is_over = True
        self._waiting.clear()
        self._bytes = 0
        self._news.set()

    async def next(self) -> bytes:
        """What is to be sent, all of it at once; empty: the stream is over."""
        while not self._waiting and not self.is_over:
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return data


class Feed:
    """All streams, and the clock that ticks for them. Nobody listens: it looks at nothing."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._streams: set[Stream] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._log = structlog.get_logger()
        self.dropped = 0
        """Streams that were dropped because they did not read."""

    def __len__(self) -> int:
        return len(self._streams)

    def start(self) -> None:
        self._tasks = [spawn(self._run(), name="events"), spawn(self._follow(), name="events of the audit")]

    async def stop(self) -> None:
        for stream in tuple(self._streams):
            stream.end()
        await end(*self._tasks)

    def open(self, may_listen: Callable[[], bool]) -> Stream:
        """Somebody listens; their first event is everything. Raises ``Trouble`` (busy)."""
        if len(self._streams) >= MOST_STREAMS:
            raise Trouble("busy", f"{MOST_STREAMS} streams are open already: close one.", retry_after=5)
        stream = Stream(may_listen)
        state = {name: value for name, value in self._view.state().items() if name != "snapshot"}
        stream.offer(event("snapshot", Snapshot(state, msgspec.to_builtins(self._view.picture()))))
        self._streams.add(stream)
        return stream

    def close(self, stream: Stream) -> None:
        stream.end()
        self._streams.discard(stream)

    def say(self, news: News) -> None:
        """Something is other than it was; the figures that go with it are not kept for the next tick."""
        if self._streams:
            self._publish(event("change", news))
            self._publish(event("tick", self._view.picture(points=0)))

    def _publish(self, data: bytes) -> None:
        for stream in self._streams:
            stream.offer(data)

    async def _run(self) -> None:
        """Ticks come at even distances, whatever a tick takes."""
        next_tick = time.monotonic()
        ticks = 0
        while True:
            next_tick = max(next_tick + TICK_SECONDS, time.monotonic())
            await asyncio.sleep(next_tick - time.monotonic())
            if not self._streams:
                continue
            ticks += 1
            try:
                self._tick(is_ping=ticks % round(PING_SECONDS / TICK_SECONDS) == 0)
            except Exception as error:  # noqa: BLE001 - a fault in one picture must not end all streams for ever
                self._log.error(f"an event could not be made: {error!r}", exc_info=error)

    async def _follow(self) -> None:
        """The audit has a pace of its own: a tick does not wait for Redis."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if not self._streams:
                continue
            try:
                for entry in await self._view.newest():
                    self._publish(event("audit", entry))
            except Exception as error:  # noqa: BLE001 - a dead transport must not end the audit's events for ever
                self._log.error(f"the audit could not be read: {error!r}", exc_info=error)

    def _tick(self, *, is_ping: bool) -> None:
        for stream in tuple(self._streams):
            if not stream.may_listen():
                stream.end()
        self._publish(event("tick", self._view.picture(points=1)))
        if is_ping:
            self._publish(PING)


async def serve(request: web.Request, feed: Feed, may_listen: Callable[[], bool]) -> web.StreamResponse:
    """GET /events, until one of the two has had enough."""
    stream = feed.open(may_listen)
    response = web.StreamResponse(headers=HEADERS)
    try:
        await response.prepare(request)
        while data := await stream.next():
            async with asyncio.timeout(SEND_SECONDS):
                await response.write(data)
    except TimeoutError:
        feed.dropped += 1
    except ConnectionError:
        pass  # they have left
    finally:
        feed.close(stream)
    # Over in the middle of a chunked body: nobody takes that for the end of what there was to say.
    if request.transport is not None:
        request.transport.abort()
    return response
