"""Those who listen to live requests: what they want is told to the workers, and what comes is handed to each of them.

Each has a queue of its own that is never waited for: who reads slowly misses requests, and is told how many. Workers do
nothing for it while nobody listens.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from router.core.spec import ServiceSpec
from router.telemetry.messages import Sample, Tap, Tapped, Wanted
from router.telemetry.sampling import Allowance

MOST_LISTENERS: Final = 16
"""Each is a look at every request in every worker."""
MOST_A_SECOND: Final = 1000
QUEUE_SAMPLES: Final = 1000
SILENCE_SECONDS: Final = 1.0
"""After so long without a request there is a sign of life, so that a listener that has left is noticed."""


class TooManyListeners(Exception):
    """Nobody more can be served; the message says how many are."""


class UnknownPlace(Exception):
    """There is no such service or ring; the message says which there are."""


def check_place(services: Sequence[ServiceSpec], service: str, ring: str) -> None:
    """Raises ``UnknownPlace`` for what nobody could ever listen to; either may be empty."""
    here = [one for one in services if service in ("", one.name)]
    if service and not here:
        raise UnknownPlace(f"there is no service {service!r}; there is: {', '.join(one.name for one in services)}")
    rings = dict.fromkeys(one.name for spec in here for one in spec.rings)
    if ring and ring not in rings:
        raise UnknownPlace(f"there is no ring {ring!r}; there is: {', '.join(rings)}")


class Listener:
    """One who listens. ``batches`` ends when the router does; ``close`` it in any case."""

    def __init__(self, taps: Taps, wanted: Wanted) -> None:
        self.wanted = wanted
        self._taps = taps
        self._allowance = Allowance(wanted.rate, time.monotonic())
        self._queue: deque[Sample] = deque()
        self._dropped = 0
        self._news = asyncio.Event()
        self._is_over = False

    def offer(self, sample: Sample) -> None:
        """A request that a worker has chosen; all workers together may have chosen too many."""
        if len(self._queue) < QUEUE_SAMPLES and self._allowance.take(time.monotonic()):
            self._queue.append(sample)
        else:
            self._dropped += 1
        self._news.set()

    def dropped(self, count: int) -> None:
        """So many requests it will not see."""
        self._dropped += count
        self._news.set()

    def end(self) -> None:
        self._is_over = True
        self._news.set()

    async def batches(self) -> AsyncIterator[tuple[list[Sample], int]]:
        """What came, and how many requests were left out; both empty as a sign of life."""
        while not self._is_over:
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            samples, dropped = list(self._queue), self._dropped
            self._queue.clear()
            self._dropped = 0
            yield samples, dropped

    def close(self) -> None:
        """It does not listen any more."""
        self._taps.leave(self)


class Taps:
    """All who listen. ``tell`` hands to the workers what they want."""

    def __init__(self, tell: Callable[[Tap], None]) -> None:
        self._tell = tell
        self._key = os.urandom(16)
        self._listeners: dict[int, Listener] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._listeners)

    def open(self, service: str = "", ring: str = "", rate: int = 10) -> Listener:
        """Somebody listens from now on. Raises ``TooManyListeners``."""
        if len(self._listeners) >= MOST_LISTENERS:
            raise TooManyListeners(f"{MOST_LISTENERS} listen already: that is as many as there may be")
        self._count += 1
        wanted = Wanted(self._count, max(1, min(MOST_A_SECOND, rate)), service, ring)
        listener = self._listeners[wanted.number] = Listener(self, wanted)
        self._say()
        return listener

    def leave(self, listener: Listener) -> None:
        if self._listeners.pop(listener.wanted.number, None) is not None:
            self._say()

    def taken(self, tapped: Tapped) -> None:
        """What a worker has sent."""
        for sample, numbers in tapped.samples:
            for number in numbers:
                listener = self._listeners.get(number)
                if listener is not None:
                    listener.offer(sample)
        for number, count in tapped.dropped.items():
            listener = self._listeners.get(number)
            if listener is not None:
                listener.dropped(count)

    def end(self) -> None:
        """Control stops: nobody hears anything any more."""
        for listener in self._listeners.values():
            listener.end()

    def _say(self) -> None:
        self._tell(Tap(tuple(one.wanted for one in self._listeners.values()), self._key))
