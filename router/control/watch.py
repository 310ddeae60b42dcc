"""The watcher: one connection to Redis that knows within milliseconds when a watched hash has changed.

It asks for invalidation pushes (CLIENT TRACKING ON BCAST), re-reads on the same connection when one comes, and reads
everything once a second as a heartbeat. The push is only an accelerator: whatever is lost, the heartbeat finds within
about two seconds, so it needs no server configuration and has no gap after a reconnect. Where tracking is refused it
polls the same read. It knows nothing about rings: it gives raw replies away. It must never write on its connection,
never trust a read that came back empty, and never give up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError

from router.control.keys import (
    HASHES,
    MAX_FIELDS,
    PREFIX,
    REVISION_FIELD,
    HashName,
    RawFault,
    RawHash,
    RawService,
    key_of,
    members_prefix,
    members_revision_key,
)
from router.control.link import REPLY_SECONDS, directory_of, doubt, has_moved, make_connection

LinkState = Literal["live", "poll", "down"]
OnRead = Callable[[Mapping[str, RawService], float], None]
"""Service → raw hashes, and the seconds the read took."""
OnLink = Callable[[LinkState, BaseException | None], None]
"""The state of the link; with the error when it is down, with the reason (if any) when it only polls."""

HEARTBEAT_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.25
JITTER: Final = 0.1
MIN_GAP_SECONDS: Final = 0.02
"""Between two reads: 3000 HSETs in 0.32 s became 17 reads (measured), and the first change is still read at once."""
CONNECT_SECONDS: Final = 2.0
BACKOFF_FIRST_SECONDS: Final = 0.05
BACKOFF_CAP_SECONDS: Final = 2.0
BACKOFF_CAP_ELSEWHERE_SECONDS: Final = 0.5
"""With Sentinels or a Cluster: another server takes over in a second or two, and is asked for nothing before that."""
HEALTHY_SECONDS: Final = 5.0
"""A session that lived this long starts the backoff anew."""
EARLY_SECONDS: Final = 0.05
"""A wait that ends this much too early, and without a push, comes from a dead transport (see ``_wait``)."""
EXACT_PREFIXES: Final = 64
"""Up to this many services the exact keys are tracked, beyond it the common prefix."""


class MemberNews(Protocol):
    """Who hears of members: the watcher reads none of them itself. None of these may block or raise."""

    def touched(self, key: bytes) -> None:
        """A key has changed that may be one of members."""
        ...

    def lost(self) -> None:
        """Everything may have changed (FLUSHALL)."""
        ...

    def revision(self, service: str, revision: bytes | None) -> None:
        """What ``members:rev`` says, at every read of the service; None where it says nothing."""
        ...


class MemberFollower(MemberNews, Protocol):
    """The same, for whoever holds the watcher and says what is known of members."""

    def link(self, state: str) -> None:
        """The state of the link: live, poll or down."""
        ...

    def counts(self, service: str) -> dict[str, int]:
        """Ring → members."""
        ...

    def troubles(self, service: str) -> list[str]:
        """What is not applied, as sentences."""
        ...


class Watcher:
    """Run ``run()`` as a task; cancel it to stop. ``uniform(a, b)`` is chance, as an argument."""

    def __init__(
        self,
        url: str,
        services: Iterable[str],
        on_read: OnRead,
        on_link: OnLink,
        *,
        name: str = "",
        members: MemberNews | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.url = url
        self.name = name
        self.services = tuple(services)
        self._on_read = on_read
        self._on_link = on_link
        self._members = members
        self._asks_revision = members is not None
        self._uniform = uniform
        self._service_of = {key_of(svc, name).encode(): svc for svc in self.services for name in HASHES}
        self._dirty: set[str] = set()
        self._pushes = 0
        self._oversize: dict[str, RawFault] = {}
        self._healthy_since: float | None = None
        self.connection: AbstractConnection | None = None
        """The connection of the running session; for tests that break it."""

    async def run(self) -> None:
        """Hold a session for ever, with full-jitter backoff between two."""
        now = asyncio.get_running_loop().time
        cap = BACKOFF_CAP_SECONDS if directory_of(self.url) is None else BACKOFF_CAP_ELSEWHERE_SECONDS
        failures = 0
        while True:
            self._healthy_since = None
            try:
                await self._session()
            # A dead transport may raise RuntimeError (uvloop), TypeError or AttributeError (CPython ≥ 3.12).
            except Exception as error:  # noqa: BLE001
                if self._healthy_since is not None and now() - self._healthy_since >= HEALTHY_SECONDS:
                    failures = 0
                self._on_link("down", error)
            highest = min(cap, BACKOFF_FIRST_SECONDS * 2 ** min(failures, 10))
            failures += 1
            await asyncio.sleep(self._uniform(0.0, highest))

    async def _session(self) -> None:
        connection = make_connection(self.url, key_of(self.services[0], "weights"))
        self.connection = connection
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]
            await self._introduce(connection)
            refusal = await self._track(connection)  # track first, read afterwards: no gap
            await self._follow(connection, "live" if refusal is None else "poll", refusal)
        except Exception:
            doubt(connection)
            raise
        finally:
            self.connection = None
            await connection.disconnect(nowait=True)

    async def _introduce(self, connection: AbstractConnection) -> None:
        """Give the connection a name that CLIENT LIST shows; not worth failing for."""
        try:
            await self._call(connection, "CLIENT", "SETNAME", f"ring-router:{self.name}".replace(" ", "-"))
        except ResponseError:
            return

    async def _track(self, connection: AbstractConnection) -> Exception | None:
        """Ask for pushes; the reason why there will be none. Decided by capability at each connect, not by version."""
        self._dirty.clear()
        parser: Any = connection._parser
        if not hasattr(parser, "set_invalidation_push_handler"):
            return RedisConnectionError("this redis-py has no invalidation pushes")
        parser.set_invalidation_push_handler(self._on_push)
        few = len(self.services) <= EXACT_PREFIXES
        prefixes = [key.decode() for key in self._service_of] if few else [PREFIX]
        if few and self._members is not None:
            prefixes += [members_prefix(service) for service in self.services]  # none begins another: Redis insists
        words = [word for prefix in prefixes for word in ("PREFIX", prefix)]
        try:
            await self._call(connection, "CLIENT", "TRACKING", "ON", "BCAST", *words)
        except ResponseError as error:
            return error
        return None

    async def _on_push(self, push: Sequence[Any]) -> None:
        """Runs inside redis-py's reader, which swallows its exceptions: it only marks what to read again."""
        self._pushes += 1
        keys = push[1] if len(push) > 1 else None
        if keys is None:  # FLUSHALL or FLUSHDB
            self._dirty.update(self.services)
            if self._members is not None:
                self._members.lost()
            return
        for key in keys:
            service = self._service_of.get(bytes(key))
            if service is not None:
                self._dirty.add(service)
            elif self._members is not None:
                self._members.touched(bytes(key))

    async def _follow(self, connection: AbstractConnection, mode: LinkState, reason: Exception | None) -> None:
        loop = asyncio.get_running_loop()
        every = HEARTBEAT_SECONDS if mode == "live" else POLL_SECONDS
        next_full = last_read = float("-inf")
        while True:
            now = loop.time()
            is_full = now >= next_full
            if not is_full and not self._dirty:
                await self._wait(connection, mode, next_full - now)
                continue
            if (left := last_read + MIN_GAP_SECONDS - now) > 0:
                await asyncio.sleep(left)
            if is_full and await has_moved(connection):
                raise RedisConnectionError("another server is the primary now")
            services = self.services if is_full else tuple(self._dirty)
            self._dirty.difference_update(services)  # before the read: a push during it marks the service again
            last_read = loop.time()
            raw = await self._read(connection, services)
            if self._healthy_since is None:
                self._healthy_since = loop.time()
                self._on_link(mode, reason)
            self._on_read(raw, loop.time() - last_read)
            if is_full:
                next_full = last_read + every * self._uniform(1 - JITTER, 1 + JITTER)

    async def _wait(self, connection: AbstractConnection, mode: LinkState, seconds: float) -> None:
        """Until a push or the time is over.

        ``read_response(timeout=…)`` takes the kernel's ETIMEDOUT for the end of that time-out and then returns at once,
        for ever, without yielding. So returning early without a push means that the connection is dead.
        """
        if mode == "poll":
            await asyncio.sleep(seconds)
            return
        loop = asyncio.get_running_loop()
        ends, pushes = loop.time() + seconds, self._pushes
        await connection.read_response(push_request=True, timeout=seconds, disconnect_on_error=False)
        left = ends - loop.time()
        if self._pushes != pushes or left <= 0:
            return
        if left > EARLY_SECONDS:
            raise RedisConnectionError("the connection died: a read came back early and empty")
        await asyncio.sleep(left)

    async def _call(self, connection: AbstractConnection, *words: str) -> Any:
        async with asyncio.timeout(REPLY_SECONDS):
            await connection.send_command(*words, check_health=False)
            return await connection.read_response(disconnect_on_error=False)

    async def _read(self, connection: AbstractConnection, services: Sequence[str]) -> dict[str, RawService]:
        """All hashes of ``services`` in one MULTI … EXEC, sent in one write."""
        try:
            return await self._read_hashes(connection, services)
        except NoPermissionError as error:
            if not self._asks_revision or "'hget'" not in str(error):
                raise
            self._asks_revision = False  # an account from before there were members: its weights go on
            return await self._read_hashes(connection, services)

    async def _read_hashes(self, connection: AbstractConnection, services: Sequence[str]) -> dict[str, RawService]:
        asked: list[tuple[str, ...]] = []
        for service in services:
            for name in HASHES:
                key = key_of(service, name)
                asked.append(("HLEN", key))
                if key not in self._oversize:
                    asked.append(("HGETALL", key))
            if self._asks_revision:
                asked.append(("HGET", members_revision_key(service), REVISION_FIELD))
        replies = iter(await self._transaction(connection, asked))
        found = {}
        for service in services:
            found[service] = RawService(*(self._hash(service, name, replies) for name in HASHES))
            if self._asks_revision and self._members is not None:
                revision = next(replies)
                self._members.revision(service, revision if isinstance(revision, bytes) else None)
        return found

    async def _transaction(self, connection: AbstractConnection, asked: list[tuple[str, ...]]) -> list[Any]:
        refused: ResponseError | None = None
        async with asyncio.timeout(REPLY_SECONDS):
            packed = connection.pack_commands([("MULTI",), *asked, ("EXEC",)])
            await connection.send_packed_command(packed, check_health=False)
            for _ in range(len(asked) + 1):  # +OK and the +QUEUEDs; a refused command says why here, not in EXEC
                try:
                    await connection.read_response(disconnect_on_error=False)
                except ResponseError as error:
                    refused = refused or error
            try:
                replies = await connection.read_response(disconnect_on_error=False)
            except ResponseError as error:
                raise (refused or error) from None
        if refused is not None or not isinstance(replies, list) or len(replies) != len(asked):
            raise refused or RedisConnectionError("EXEC did not answer with one reply per command")
        return replies

    def _hash(self, service: str, name: HashName, replies: Any) -> RawHash:
        """One hash out of the replies: its length, and its fields if they were asked for."""
        key = key_of(service, name)
        length = next(replies)
        fields = {} if key in self._oversize else next(replies)
        if isinstance(length, Exception) or isinstance(fields, Exception):
            self._oversize.pop(key, None)
            text = str(length if isinstance(length, Exception) else fields)
            return RawFault("wrong_type" if text.startswith("WRONGTYPE") else "unreadable", text)
        if length > MAX_FIELDS[name]:
            # From now on only its length is asked for, until somebody has cleaned up.
            self._oversize[key] = RawFault("too_many_fields", f"{length} fields, more than {MAX_FIELDS[name]}")
            return self._oversize[key]
        if key in self._oversize:
            self._dirty.add(service)  # it fits again: read it in a moment
            return self._oversize.pop(key)
        if isinstance(fields, list):
            return dict(zip(fields[::2], fields[1::2], strict=False))
        return dict(fields)
