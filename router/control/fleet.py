"""All instances, through Redis: each writes its own field of the ten-second bucket, and reads those of the others.

``rings:{shop}:stats:<bucket>`` is a hash with one field per instance, written whole each time, so that a write that is
repeated counts once. ``rings:{shop}:status`` says what each routes by. Nothing waits for Redis: while it is away there
is this instance alone, and what it would have said is never made up for.

Of more than ``MANY`` the others are read only while somebody looks: everybody reading everybody grows with the square,
and a thousand had no time left for anything else (loadtests.thousand).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from router.control.keys import key_of
from router.control.link import error_text, hang_up, make_client
from router.telemetry.buckets import BUCKET_SECONDS, Pieces, bucket_of, pack, unpack
from router.telemetry.tasks import end, spawn

EVERY_SECONDS: Final = 2.0
ASK_SECONDS: Final = 1.0
KEPT_SECONDS: Final = 2 * 3600
KEPT_BUCKETS: Final = 8
"""Here: a minute, the one that fills, and one that is still read."""
PEERS_PER_TURN: Final = 20
"""With more instances each reads the others less often, so that Redis has not a hundred times a hundred to say."""
LONGEST_STRIDE: Final = 5
"""Turns; a bucket has to be read once more when it is over."""
MANY: Final = PEERS_PER_TURN * LONGEST_STRIDE
LOOKED_SECONDS: Final = 30.0
"""So long after somebody looked, many others are still read."""
SERVICES_AT_ONCE: Final = 50
"""Asked about in one turn; of more services each comes less often."""

Own = Callable[[int], Mapping[str, Pieces]]
"""Bucket → service → what this instance counted in it so far."""


class _Said(NamedTuple):
    raw: bytes
    meaning: Any


class _Status(msgspec.Struct):
    """What of a status is read; anything else is not of this router."""

    at: float
    generation: int
    refused: list[str] = []
    warnings: list[str] = []


class Fleet:
    """What the others said. Without a URL nobody is asked, and there are no others."""

    def __init__(
        self,
        url: str | None,
        instance: str,
        services: Callable[[], list[str]],
        own: Own,
        is_up: Callable[[], bool],
        log: Any = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._instance = instance
        self._services = services
        self._own = own
        self._is_up = is_up
        self._log = structlog.get_logger(__name__) if log is None else log
        self._clock = clock
        self._peers: dict[int, dict[str, dict[str, _Said]]] = {}
        """Bucket → service → instance → what it counted."""
        self._written: dict[int, dict[str, bytes]] = {}
        """Bucket → service → what was written."""
        self._statuses: dict[str, dict[str, _Said]] = {}
        self.read_at = 0.0
        """When Redis answered last (Unix seconds); 0: never."""
        self._turn = 0
        self._stride = 1
        """Turns between two readings."""
        self._size = 0
        """Instances that have a status, of the service that has most; 0: not asked yet."""
        self._looked_at = 0.0
        self._asked = asyncio.Event()
        self._read = asyncio.Event()
        """Set while what is known of others is of these seconds."""
        self._said = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_there(self) -> bool:
        """Whether what is known of others is of these seconds."""
        return self._is_up() and self._clock() - self.read_at < 2 * BUCKET_SECONDS

    @property
    def lag_seconds(self) -> float:
        """How old at the most is what is known of others: their last writing, and our reading."""
        return EVERY_SECONDS * (1 + self._stride)

    def peers(self, bucket: int, service: str) -> dict[str, Pieces]:
        """Instance → what it counted, of the others; nobody while Redis is away."""
        known = self._peers.get(bucket, {}).get(service, {}) if self.is_there else {}
        return {instance: said.meaning for instance, said in known.items()}

    def statuses(self, service: str) -> dict[str, dict[str, Any]]:
        """Instance → what it said of itself, this one's too."""
        return {instance: said.meaning for instance, said in self._statuses.get(service, {}).items()}

    def look(self) -> None:
        """Somebody looks at the fleet: others who are many are read from now on, for a while."""
        self._looked_at = self._clock()
        if self._size > MANY and not self.is_there:
            self._read.clear()
            self._asked.set()

    async def looked(self) -> None:
        """``look``, and wait for what others say where that has to be read first; at most ``ASK_SECONDS``."""
        self.look()
        if self._asked.is_set() and self._is_up():
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_SECONDS):
                    await self._read.wait()

    @property
    def _is_wanted(self) -> bool:
        return self._size <= MANY or self._clock() - self._looked_at < LOOKED_SECONDS

    def start(self) -> None:
        if self._url is not None:
            self._task = spawn(self._run(self._url), name="figures of the fleet")

    async def stop(self) -> None:
        if self._task is not None:
            await end(self._task)

    async def _run(self, url: str) -> None:
        client = make_client(url)
        try:
            turns = 0
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_SECONDS):
                        await self._asked.wait()
                turns += 1
                is_due = turns % self._stride == 0 or self._asked.is_set()
                self._asked.clear()
                if not self._is_up():
                    continue
                try:
                    async with asyncio.timeout(ASK_SECONDS):
                        if is_due:
                            await self._count(client)
                        await self._exchange(client, is_reading=is_due and self._is_wanted)
                    self._said = ""
                except NoPermissionError as error:
                    self._say(
                        f"Redis does not let this router exchange figures with the others ({error_text(error)}), "
                        f"so it shows its own: allow it +hset +hgetall +expire on rings:*:stats:*"
                    )
                # A dead transport may raise RuntimeError, TypeError or AttributeError as well; the watcher says it.
                except Exception as error:  # noqa: BLE001
                    self._say(f"figures could not be exchanged with the other routers: {error_text(error)}")
        finally:
            await hang_up(client)

    def _say(self, sentence: str) -> None:
        """Each once, until an exchange succeeds again."""
        if self._said != sentence:
            self._said = sentence
            self._log.warning(sentence)

    async def _count(self, client: Redis) -> None:
        """How many there are, before all that they say is asked for."""
        async with client.pipeline(transaction=False) as pipe:
            for service in self._services()[:SERVICES_AT_ONCE]:
                pipe.hlen(key_of(service, "status"))
            lengths: list[Any] = await pipe.execute(raise_on_error=False)
        self._size = max((length for length in lengths if isinstance(length, int)), default=0)
        self._stride = min(LONGEST_STRIDE, -(-self._size // PEERS_PER_TURN) or 1)

    async def _exchange(self, client: Redis, *, is_reading: bool) -> None:
        """Write what is new of this instance, and read what the others wrote."""
        now = bucket_of(self._clock())
        names = self._services() if is_reading else []
        some = [names[(self._turn + place) % len(names)] for place in range(min(len(names), SERVICES_AT_ONCE))]
        self._turn = (self._turn + len(some)) % max(1, len(names))
        buckets = [(bucket, service) for bucket in (now - 1, now) for service in some]
        async with client.pipeline(transaction=False) as pipe:
            for bucket, service in buckets:
                pipe.hgetall(f"{key_of(service, 'stats')}:{bucket}")
            for service in some:
                pipe.hgetall(key_of(service, "status"))
            own = {
                (bucket, service): pack(pieces)
                for bucket in (now - 1, now)
                for service, pieces in self._own(bucket).items()
            }
            for (bucket, service), data in own.items():
                self._write(pipe, bucket, service, data)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not str(answer).startswith("WRONGTYPE"):  # that key alone is of no use
                raise answer
        for (bucket, service), data in own.items():
            self._written.setdefault(bucket, {})[service] = data
        if is_reading:
            self.read_at = self._clock()
        for (bucket, service), fields in zip(buckets, answers, strict=False):
            known = self._peers.setdefault(bucket, {}).setdefault(service, {})
            known |= _decoded(fields, known, unpack)
            known.pop(self._instance, None)
        for service, fields in zip(some, answers[len(buckets) :], strict=False):
            self._statuses[service] = _decoded(fields, self._statuses.get(service, {}), _status)
        if is_reading:
            self._read.set()
        elif not self.is_there:
            self._statuses.clear()  # a thousand of them are some megabytes
        for by_bucket in (self._peers, self._written):
            for bucket in [bucket for bucket in by_bucket if bucket <= now - KEPT_BUCKETS]:
                del by_bucket[bucket]

    def _write(self, pipe: Any, bucket: int, service: str, data: bytes) -> None:
        if self._written.get(bucket, {}).get(service) != data:
            key = f"{key_of(service, 'stats')}:{bucket}"
            pipe.hset(key, self._instance, data)
            pipe.expire(key, KEPT_SECONDS)


def _decoded(fields: Any, before: Mapping[str, _Said], decode: Callable[[bytes], Any]) -> dict[str, _Said]:
    """Instance → what it said; what says the same as before is not decoded again, and what cannot be is left out."""
    found = {}
    for name, raw in fields.items() if isinstance(fields, dict) else ():
        instance = name.decode("utf-8", "replace")
        known = before.get(instance)
        if known is not None and known.raw == raw:
            found[instance] = known
            continue
        # Of another version of this router, or of somebody at the prompt.
        with suppress(msgspec.DecodeError, ValueError, RecursionError):
            found[instance] = _Said(raw, decode(raw))
    return found


def _status(raw: bytes) -> dict[str, Any]:
    said = json.loads(raw)
    msgspec.convert(said, _Status)
    return dict(said)
