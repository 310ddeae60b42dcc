"""Who is the primary now: asked of Sentinels or of the nodes of a cluster, all at once and never for long.

Asked at most once a second for a URL, however many clients there are; what is known stays while nobody answers. The
sentinels are believed, and not the server's own ROLE: in a manual failover the old primary calls itself one for ten
seconds more and throws away what is written to it (redis/redis#6062).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from router.config.redis_url import Address
from router.telemetry.tasks import spawn

Ask = Callable[[Address, Sequence[tuple[str, ...]]], Awaitable[list[Any]]]
"""Sends commands to one server over a connection of their own."""
ASK_SECONDS: Final = 0.5
FRESH_SECONDS: Final = 0.9
"""Looked up again after so long, so that each heartbeat (1 s) sees something new."""
GAP_SECONDS: Final = 0.05
GRACE_SECONDS: Final = 0.05


class Directory(Protocol):
    """Knows where a key is written."""

    async def find(self, key: str) -> Address:
        """Raises redis-py's ConnectionError when nobody has ever answered."""
        ...

    def forget(self) -> None:
        """Something went wrong with what was found: ask again."""
        ...


class _Asking:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._asked_at = float("-inf")
        self._is_doubted = False
        self.last_error: Exception | None = None

    def forget(self) -> None:
        self._is_doubted = True

    def _is_due(self) -> bool:
        age = time.monotonic() - self._asked_at
        if age < (GAP_SECONDS if self._is_doubted else FRESH_SECONDS):
            return False
        self._asked_at, self._is_doubted = time.monotonic(), False
        return True

    async def _answers(self, addresses: Iterable[Address], *words: tuple[str, ...]) -> list[list[Any]]:
        """What they say within half a second; once more than half have, the others get only a moment more.

        So who is stopped costs little, and one sentinel that alone knows of a failover yet is heard.
        """
        tasks = [spawn(self._one(address, words), name="who is the primary") for address in addresses]
        ends = time.monotonic() + ASK_SECONDS
        waiting = set(tasks)
        said: list[list[Any]] = []
        try:
            while waiting and (left := ends - time.monotonic()) > 0:
                done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                said += [answer for task in done if (answer := task.result()) is not None]
                if 2 * len(said) > len(tasks):
                    ends = min(ends, time.monotonic() + GRACE_SECONDS)
        finally:
            for task in waiting:
                task.cancel()
        return said

    async def _one(self, address: Address, words: Sequence[tuple[str, ...]]) -> list[Any] | None:
        try:
            return await self._ask(address, words)
        # A dead transport may raise RuntimeError, TypeError or AttributeError as well.
        except Exception as error:  # noqa: BLE001
            self.last_error = error
            return None


class Sentinels(_Asking):
    """The primary that the sentinels announce: the newest configuration, and among equals what most say."""

    def __init__(self, addresses: Sequence[Address], primary: str, ask: Ask) -> None:
        super().__init__(ask)
        self._addresses = addresses
        self._primary = primary
        self._known: Address | None = None

    async def find(self, key: str) -> Address:
        if self._known is None or self._is_due():
            votes: Counter[tuple[int, Address]] = Counter()
            words = (("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._primary), ("SENTINEL", "MASTER", self._primary))
            for address, details in await self._answers(self._addresses, *words):
                if isinstance(address, list) and len(address) == 2:
                    announced = (address[0].decode(), int(address[1]))
                    votes[_epoch(details, announced), announced] += 1
            if votes:
                self._known = max(votes, key=lambda vote: (vote[0], votes[vote]))[1]
        if self._known is None:
            where = ", ".join(f"{host}:{port}" for host, port in self._addresses)
            raise RedisConnectionError(
                f"no sentinel of {where} knows the primary {self._primary!r}: are they up, is that its name there, "
                f"and do sentinel_username and sentinel_password allow +sentinel? ({self.last_error or 'unknown name'})"
            )
        return self._known


def _epoch(details: Any, announced: Address) -> int:
    """How new a sentinel's word is. One that leads a failover announces the new primary before it records it."""
    if isinstance(details, list):
        details = dict(zip(details[::2], details[1::2], strict=False))
    if not isinstance(details, dict):
        return 0
    recorded = (details.get(b"ip", b"").decode(), int(details.get(b"port", 0)))
    return int(details.get(b"config-epoch", 0)) + (recorded != announced)


class Slots(_Asking):
    """The owners of a cluster's slots, as most of its nodes see them."""

    def __init__(self, seeds: Sequence[Address], ask: Ask) -> None:
        super().__init__(ask)
        self._seeds = tuple(seeds)
        self._nodes = self._seeds
        self._owners: tuple[tuple[int, int, Address], ...] = ()

    async def find(self, key: str) -> Address:
        if not self._owners or self._is_due():
            await self._look()
        slot = key_slot(key.encode())
        for first, last, owner in self._owners:
            if first <= slot <= last:
                return owner
        nodes = ", ".join(f"{host}:{port}" for host, port in self._nodes)
        raise RedisConnectionError(
            f"nobody of the cluster {nodes} owns slot {slot} (of {key}): is it whole? ({self.last_error or ''})"
        )

    async def grouped(self, keys: Mapping[str, str]) -> dict[Address, list[str]]:
        """Owner → names, of name → key."""
        found: dict[Address, list[str]] = {}
        for name, key in keys.items():
            found.setdefault(await self.find(key), []).append(name)
        return found

    async def _look(self) -> None:
        asked = dict.fromkeys((*self._nodes, *self._seeds))
        votes: Counter[tuple[tuple[int, int, Address], ...]] = Counter()
        nodes: set[Address] = set()
        for (rows,) in await self._answers(asked, ("CLUSTER", "SLOTS")):
            if isinstance(rows, list) and rows:
                votes[tuple(sorted((row[0], row[1], _address(row[2])) for row in rows))] += 1
                nodes |= {_address(node) for row in rows for node in row[2:]}
        if votes:
            self._owners, self._nodes = votes.most_common(1)[0][0], tuple(sorted(nodes))


def _address(node: Sequence[Any]) -> Address:
    return node[0].decode(), int(node[1])
