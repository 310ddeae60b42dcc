"""The evidence of rollouts: what this instance's workers saw, written to Redis for whoever leads, and read by them.

``rings:{shop}:evidence:<tick>`` is a hash with one field per instance (``telemetry.evidence.TickPart``), written whole
each time, so that a write that is repeated counts once. ``rings:{shop}:acks`` says what *all* workers of each instance
route by (``Ack``), at once when the last of them has applied a snapshot. Ticks are those of Redis's clock. Nothing
waits for Redis: what it misses is kept for a quarter of an hour, and what nobody can be told after that is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from router.control.gathering import KEPT_SECONDS, Facts, Following, Gathering
from router.control.hub import Hub
from router.control.keys import key_of
from router.control.link import TROUBLE, error_text, hang_up, make_client
from router.core.spec import ServiceSpec, SnapshotSpec
from router.telemetry.counters import VersionCounters
from router.telemetry.evidence import Ack, TickPart, pack_ack, unpack, unpack_ack
from router.telemetry.messages import Users, Watch, Watched
from router.telemetry.tasks import end, spawn

ACK_SECONDS: Final = 2.0
WRITE_SECONDS: Final = (0.25, 2.0)
"""Between two writes of a tick that fills, a quarter of it; within these."""
ASK_SECONDS: Final = 1.0
FAREWELL_SECONDS: Final = 0.5
EXPIRE_SECONDS: Final = 2 * 3600
MOST_BYTES: Final = 4 * 1024 * 1024
"""In one exchange; more follows in the next one."""
_EXACT_SECONDS: Final = 0.1
"""An answer that took longer says little about whose clock is right."""
_NOTHING: Final = VersionCounters()
_Said = TypeVar("_Said")


def evidence_key(service: str, tick: int) -> str:
    """``rings:{shop}:evidence:176406120``"""
    return key_of(service, f"evidence:{tick}")


def acks_key(service: str) -> str:
    """``rings:{shop}:acks``"""
    return key_of(service, "acks")


async def read_tick(client: Redis, service: str, tick: int) -> dict[str, TickPart]:
    """Instance → its part of a tick. What is no part is left out. Raises what redis-py does when Redis is away."""
    return await _read(client, evidence_key(service, tick), unpack)


async def read_acks(client: Redis, service: str) -> dict[str, Ack]:
    """Instance → what it said last that all its workers route by; see ``at`` for when. Otherwise as ``read_tick``."""
    return await _read(client, acks_key(service), unpack_ack)


async def _read(client: Redis, key: str, decode: Callable[[bytes], _Said]) -> dict[str, _Said]:
    try:
        fields: Mapping[Any, Any] = await client.hgetall(key)
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            return {}
        raise
    found = {}
    for name, raw in fields.items():
        try:
            found[name.decode()] = decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # of another version of this router, or of somebody at the prompt
    return found


def ack_of(service: ServiceSpec, at: float, since: float) -> Ack:
    """What a snapshot that all workers have says of a service."""
    outer = service.rings[:-1]
    return Ack(
        round(at, 3), round(since, 3), {ring.name: ring.basis_points for ring in outer},
        {ring.name: ring.version for ring in service.rings},
        {ring.name: ring.holdback for ring in outer if ring.holdback}, list(service.killed),
    )  # fmt: skip


class Evidence:
    """Of this instance. ``follow`` says what is wanted; without a URL nobody is told anything."""

    def __init__(
        self,
        url: str | None,
        instance: str,
        hub: Hub,
        arrived: Callable[[str], Sequence[int]],
        is_up: Callable[[], bool],
        log: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``arrived``: a service's users by ring, since its weights are as they are."""
        self._url = url
        self._instance = instance
        self._hub = hub
        self._arrived = arrived
        self._is_up = is_up
        self._log = structlog.get_logger(__name__) if log is None else log
        self._clock = clock
        self._following: dict[str, Following] = {}
        self._gathered: dict[str, Gathering] = {}
        self._ahead: float | None = None
        """Redis's clock less this one's; None until it was asked."""
        self._applied: SnapshotSpec | None = None
        """What all workers route by."""
        self._applied_at = 0.0
        self._ack_at = 0.0
        """When the next acks are due, by our clock."""
        self._news = asyncio.Event()
        self._said = ""
        self.lost = 0
        """Parts that Redis was never told."""
        self._task: asyncio.Task[None] | None = None
        hub.on_users = self._took
        hub.on_applied = self._everywhere

    def now(self) -> float:
        """Unix time of Redis, as far as it is known."""
        return time.time() if self._ahead is None else self._clock() + self._ahead

    def follow(self, services: Mapping[str, Following]) -> None:
        """Services under a rollout, and no others; the same as before changes nothing."""
        if self._url is None or services == self._following:
            return
        watched = [Watched(name, one.candidate, one.keep_ppm) for name, one in services.items()]
        self._following = dict(services)
        if not services:
            self._ahead = None  # clocks drift; it is asked again
        for name, gathering in list(self._gathered.items()):
            wanted = services.get(name)
            if wanted is None or wanted.tick != gathering.following.tick:
                del self._gathered[name]
            else:
                gathering.following = wanted
        self._gather()
        self._hub.watch(Watch(tuple(watched)))
        self._ack_at = 0.0
        self._news.set()

    def _gather(self) -> None:
        """Begin what is followed and not gathered yet; not before it is known which tick it is."""
        if self._ahead is None:
            return
        for name, one in self._following.items():
            if name not in self._gathered:
                self._gathered[name] = Gathering(one, partial(self._facts, name), self.now())

    def _facts(self, service: str) -> Facts:
        candidate = self._hub.versions().get((service, self._following[service].candidate), _NOTHING)
        return Facts(self._hub.finished[service], candidate.sick, list(self._arrived(service)))

    def _took(self, worker: int, users: Users) -> None:
        now = self.now()
        for service, gathering in self._gathered.items():
            gathering.took(worker, users, service, now)

    def _everywhere(self, spec: SnapshotSpec) -> None:
        self._applied, self._applied_at = spec, self._clock()
        self._ack_at = 0.0
        self._news.set()

    def start(self) -> None:
        if self._url is not None:
            self._task = spawn(self._run(self._url), name="evidence of rollouts")

    async def stop(self) -> None:
        """It stops: nobody has to wait any more for what it routes by."""
        if self._task is None or self._url is None:
            return
        await end(self._task)
        if not self._following or not self._is_up():
            return
        client = make_client(self._url)
        with suppress(*TROUBLE, TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                for service in self._following:
                    await client.hdel(acks_key(service), self._instance)
        await hang_up(client)

    # -- Redis ---------------------------------------------------------------------------------------------------------

    async def _run(self, url: str) -> None:
        client = make_client(url)
        try:
            while True:
                await self._wait()
                self._look()
                if not self._is_up():
                    await asyncio.sleep(WRITE_SECONDS[0])
                    continue
                try:
                    async with asyncio.timeout(ASK_SECONDS):
                        await self._exchange(client)
                # A dead transport may raise RuntimeError, TypeError or AttributeError as well; the watcher says it.
                except Exception as error:  # noqa: BLE001
                    self._ack_at = 0.0
                    self._say(_why(error))
                    await asyncio.sleep(WRITE_SECONDS[0])
        finally:
            await hang_up(client)

    async def _wait(self) -> None:
        """Until there is something to write."""
        if not self._following:
            await self._news.wait()
        elif not any(gathering.waiting for gathering in self._gathered.values()):
            shortest, longest = WRITE_SECONDS
            step = min(one.tick for one in self._following.values()) / 4
            ends = min((one.ends_at for one in self._gathered.values()), default=0.0) - self.now()
            seconds = min(max(shortest, min(longest, step)), max(0.0, ends) + 0.001)
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                pass
        self._news.clear()

    def _look(self) -> None:
        now = self.now()
        there = [worker.pid for worker in self._hub.workers.values() if worker.writer is not None]
        for gathering in self._gathered.values():
            gathering.keep_workers(there)
            gathering.look(now)
        lost = sum(gathering.lost for gathering in self._gathered.values())
        if lost:
            for gathering in self._gathered.values():
                gathering.lost = 0
            self.lost += lost
            self._say(f"Redis is away for too long: {lost} parts of a rollout's evidence are lost, so it stands still")

    async def _exchange(self, client: Redis) -> None:
        """Ask for the time; write what is due."""
        if self._ahead is None:
            self._set_clock(self._clock(), await client.time())
            self._gather()
        asked, parts, acks = self._clock(), self._parts(), self._acks()
        keys: list[str] = []
        async with client.pipeline(transaction=False) as pipe:
            pipe.time()
            for service, key, data in (*((s, evidence_key(s, tick), part) for s, tick, part in parts), *acks):
                keys += [key, key]
                pipe.hset(key, self._instance, data)
                pipe.expire(key, self._expire_seconds(service))
            clock, *answers = await pipe.execute(raise_on_error=False)
        for answer in (clock, *answers):
            if isinstance(answer, Exception) and not str(answer).startswith("WRONGTYPE"):
                raise answer
        self._set_clock(asked, clock)
        for service, tick, data in parts:
            gathering = self._gathered.get(service)
            if gathering is not None and gathering.waiting.get(tick) is data:
                del gathering.waiting[tick]
        junk = [key for key, answer in zip(keys, answers, strict=True) if isinstance(answer, Exception)]
        self._say(f"{junk[0]} is not a hash, so the rollout stands still: DEL it" if junk else "")

    def _parts(self) -> list[tuple[str, int, bytes]]:
        """Service, tick and part: those that are over first, the oldest first."""
        found: list[tuple[str, int, bytes]] = []
        size = 0
        for service, gathering in self._gathered.items():
            for tick in sorted(gathering.waiting):
                if size < MOST_BYTES:
                    found.append((service, tick, gathering.waiting[tick]))
                    size += len(gathering.waiting[tick])
        for service, gathering in self._gathered.items():
            if gathering.is_small and size < MOST_BYTES:
                found.append((service, gathering.tick, gathering.part(self.now())))
        return found

    def _acks(self) -> list[tuple[str, str, bytes]]:
        """Service, key and ack, when they are due."""
        spec, now = self._applied, self._clock()
        if spec is None or now < self._ack_at:
            return []
        self._ack_at = now + ACK_SECONDS  # before they are on their way: news may come meanwhile
        since = self._applied_at + (self._ahead or 0.0)
        return [
            (service.name, acks_key(service.name), pack_ack(ack_of(service, self.now(), since)))
            for service in spec.services
            if service.name in self._following
        ]

    def _set_clock(self, asked: float, answer: tuple[int, int]) -> None:
        taken = self._clock() - asked
        if self._ahead is None or taken < _EXACT_SECONDS:
            self._ahead = answer[0] + answer[1] / 1e6 - asked - taken / 2

    def _expire_seconds(self, service: str) -> int:
        following = self._following.get(service)
        return max(EXPIRE_SECONDS, int(3 * following.window) if following is not None else 0)

    def _say(self, sentence: str) -> None:
        """Once, until something goes well again."""
        if sentence != self._said:
            self._said = sentence
            if sentence:
                self._log.warning(sentence)


def _why(error: Exception) -> str:
    if isinstance(error, NoPermissionError):
        return (
            f"Redis does not let this router tell what a rollout rests on ({error_text(error)}): allow it "
            f"+time +hset +expire on rings:*:evidence:* and rings:*:acks"
        )
    return f"the evidence of a rollout could not be written: {error_text(error)}; it is kept for {KEPT_SECONDS:g} s"
