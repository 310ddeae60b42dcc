"""Requests for those who listen live: a few a second of each worker, sent in batches. Nobody listens: it is not there.

A user's key stays here: what is sent is a keyed hash of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from time import time
from typing import TYPE_CHECKING, Final

from router.telemetry.messages import Sample, Tapped, Wanted
from router.telemetry.sampling import Allowance

if TYPE_CHECKING:
    from router.proxy.exchange import Exchange

BATCH_SECONDS: Final = 0.1
IDENTITY_BYTES: Final = 6
"""Enough to tell the users of a tap apart, and short enough for a line."""
PATH_BYTES: Final = 1024


class Sampler:
    """What a worker has to do for those who listen now; replaced whenever they are others."""

    __slots__ = ("_batch", "_dropped", "_is_due", "_key", "_loop", "_send", "_wanted")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, wanted: tuple[Wanted, ...], key: bytes, send: Callable[[Tapped], None]
    ) -> None:
        now = loop.time()
        self._loop = loop
        self._wanted = [(one, Allowance(one.rate, now)) for one in wanted]
        self._key = key
        self._send = send
        self._batch: list[tuple[Sample, tuple[int, ...]]] = []
        self._dropped: dict[int, int] = {}
        self._is_due = False

    def take(self, exchange: Exchange, status: int, duration: float) -> None:
        """A request is over: note it for those who want it and have not had enough this moment."""
        lane, now = exchange.lane, self._loop.time()
        takers: list[int] = []
        is_wanted = False
        for one, allowance in self._wanted:
            if (one.service and one.service != lane.service) or (one.ring and one.ring != lane.ring):
                continue
            is_wanted = True
            if allowance.take(now):
                takers.append(one.number)
            else:
                self._dropped[one.number] = self._dropped.get(one.number, 0) + 1
        if takers:
            self._batch.append((self._sample(exchange, status, duration), tuple(takers)))
        if is_wanted and not self._is_due:
            self._is_due = True
            self._loop.call_later(BATCH_SECONDS, self._flush)

    def _sample(self, exchange: Exchange, status: int, duration: float) -> Sample:
        lane, start, key = exchange.lane, exchange.start, exchange.key
        known = b"" if key is None else blake2b(key, key=self._key, digest_size=IDENTITY_BYTES).digest()
        return Sample(
            time(), lane.service, start.method.decode("latin-1"),
            start.path[:PATH_BYTES].decode("ascii", "backslashreplace"), lane.ring, lane.version, lane.reason, status,
            round(duration, 6), known.hex(),
        )  # fmt: skip

    def _flush(self) -> None:
        self._is_due = False
        batch, self._batch = self._batch, []
        dropped, self._dropped = self._dropped, {}
        self._send(Tapped(batch, dropped))
