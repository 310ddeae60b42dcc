"""About how many people: sketches in Redis of who was seen, for each hundredth of the hash space and each day.

``rings:{shop}:seen:<00..99>:<day>`` are HyperLogLogs (Flajolet et al. 2007; Redis keeps 12 KiB each and errs by 0.81
percent) that all instances add to. An element is a hash of the hash that the bucket is taken from: no key of a user can
be read from them. Nothing waits for Redis: what cannot be written is thrown away, and added when its users come again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError
from xxhash import xxh64_digest

from router.control.crowd import Crowd
from router.control.keys import key_of
from router.control.link import error_text, hang_up, make_client
from router.core.hashing import BUCKETS
from router.core.spec import SnapshotSpec
from router.telemetry.messages import Seen
from router.telemetry.tasks import end, spawn

EVERY_SECONDS: Final = 10.0
WRITE_SECONDS: Final = 1.0
KEPT_SECONDS: Final = 2 * 86_400
RANGES: Final = 100
RANGE: Final = BUCKETS // RANGES
AGAIN_SECONDS: Final = 3600.0
"""Divides a day: after so long a user is written again, should somebody have emptied Redis."""
MOST_DUE: Final = 50_000
"""Users that wait for the next write; beyond, they are added when they come again."""

Span = tuple[int, int]
"""Buckets from the first up to, and without, the second."""


def sketch_key(service: str, number: int, day: int) -> str:
    """``rings:{shop}:seen:07:20418``; a day is 86,400 s of Unix time, counted from 1970."""
    return key_of(service, f"seen:{number:02}:{day}")


def day_of(now: float) -> int:
    return int(now // 86_400)


async def about(client: Redis, service: str, spans: Sequence[Span], now: float) -> int:
    """About how many people of these buckets were seen today and yesterday (UTC).

    A span that holds a part of a hundredth counts that part of its people. Raises what redis-py does.
    """
    whole: list[str] = []
    parts: list[tuple[list[str], float]] = []
    days = (day_of(now), day_of(now) - 1)
    for first, last in spans:
        for number in range(first // RANGE, -(-last // RANGE)):
            keys = [sketch_key(service, number, day) for day in days]
            share = (min(last, (number + 1) * RANGE) - max(first, number * RANGE)) / RANGE
            if share == 1:
                whole += keys
            elif share > 0:
                parts.append((keys, share))
    people = float(await client.pfcount(*whole)) if whole else 0.0
    for keys, share in parts:
        people += share * await client.pfcount(*keys)
    return round(people)


@dataclass(frozen=True, slots=True)
class Estimate:
    """About how many people were seen in two days, of all and of some spans each."""

    everybody: int
    moving: tuple[int, ...]


async def estimate(client: Redis, service: str, moving: Sequence[Sequence[Span]], now: float) -> Estimate | None:
    """About how many people there are in each of these lists of spans; None where nobody keeps count."""
    everybody = await about(client, service, [(0, BUCKETS)], now)
    if not everybody:
        return None
    return Estimate(everybody, tuple([min(everybody, await about(client, service, one, now)) for one in moving]))


class People:
    """Takes in whom the workers have seen; without a URL only flips are counted."""

    def __init__(
        self,
        url: str | None,
        is_up: Callable[[], bool],
        log: Any = None,
        clock: Callable[[], float] = time.time,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._url = url
        self._is_up = is_up
        self._log = structlog.get_logger(__name__) if log is None else log
        self._clock = clock
        self._every_seconds = every_seconds
        self._crowd = Crowd()
        self._due: dict[str, set[int]] = {}
        self._is_refused = False
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def flips(self) -> Mapping[str, int]:
        """Service → users seen in a ring further out than in an earlier generation."""
        return self._crowd.flips

    def arrived(self, service: str) -> list[int]:
        """Ring's place → users whom the hash put there since weights are as they are."""
        return self._crowd.arrived(service)

    def installed(self, spec: SnapshotSpec) -> None:
        self._crowd.installed(spec)

    def saw(self, seen: Seen) -> None:
        """A worker's report. Who was written lately is not written again, unless something went wrong since."""
        mark = (int(self._clock() // AGAIN_SECONDS) << 32) + self._failures
        for service, digests in self._crowd.saw(seen, mark).items():
            if self._url is None:
                continue
            if sum(map(len, self._due.values())) + len(digests) <= MOST_DUE:
                self._due.setdefault(service, set()).update(digests)
            else:
                self._failures += 1

    def start(self) -> None:
        if self._url is not None:
            self._task = spawn(self._run(self._url), name="sketches of people")

    async def stop(self) -> None:
        if self._task is not None:
            await end(self._task)

    async def _run(self, url: str) -> None:
        client = make_client(url)
        try:
            while True:
                await asyncio.sleep(self._every_seconds)
                due, self._due = self._due, {}
                if not due:
                    continue
                if not self._is_up():
                    self._failures += 1
                    continue
                try:
                    await self._write(client, due)
                    self._is_refused = False
                except NoPermissionError as error:
                    self._failures += 1
                    if not self._is_refused:
                        self._is_refused = True
                        self._log.warning(
                            f"Redis does not let this router keep count of people ({error_text(error)}), so nobody can "
                            f"say how many would move: allow it +pfadd +pfcount +expire on rings:*:seen:*"
                        )
                # A dead transport may raise RuntimeError, TypeError or AttributeError as well; the watcher says it.
                except Exception:  # noqa: BLE001
                    self._failures += 1
        finally:
            await hang_up(client)

    async def _write(self, client: Redis, due: Mapping[str, set[int]]) -> None:
        day = day_of(self._clock())
        for service, digests in due.items():
            ranges: dict[int, list[bytes]] = {}
            for digest in digests:
                element = xxh64_digest(digest.to_bytes(8, "big"))
                ranges.setdefault(digest % BUCKETS // RANGE, []).append(element)
            async with asyncio.timeout(WRITE_SECONDS):
                async with client.pipeline(transaction=False) as pipe:
                    for number, elements in ranges.items():
                        key = sketch_key(service, number, day)
                        pipe.pfadd(key, *elements)
                        pipe.expire(key, KEPT_SECONDS)
                    await pipe.execute()
