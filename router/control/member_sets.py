"""What is asked of Redis about one service's members: sizes, revisions, and whole sets as fingerprints.

A set that is gone is empty only if the same transaction shows something else that operators wrote for the service:
else Redis was flushed, and that is no instruction. Nothing here remembers anything, and nothing here writes.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from xxhash import xxh64_intdigest

from router.control.keys import REVISION_FIELD, SHARDS, key_of, members_key, members_revision_key
from router.control.link import error_text
from router.control.ring_table import KEPT, STEP

AT_ONCE: Final = 4096
"""A loose set of up to so many members is read with one SMEMBERS: 2 ms of Redis (measured: 10,000 take 5 to 8 ms)."""
SCAN_COUNT: Final = 1000
"""0.7 ms of Redis for each step of a scan (measured)."""


class Trouble(Exception):
    """A set cannot be used as it is; the message says why and what helps."""


class MemberSets:
    """Reads over ``client``. A *place* is what stands behind ``members:`` in a key: ``canary``, ``canary:0f``."""

    def __init__(self, client: Redis, service: str) -> None:
        self._client = client
        self._service = service
        self._proofs = (key_of(service, "weights"), members_revision_key(service))

    def key(self, place: str) -> str:
        """The key of a place."""
        return members_key(self._service, *place.split(":"))

    async def has_proof(self) -> bool:
        """Whether Redis has something of this service that operators wrote: it was not flushed."""
        return bool(await cast("Awaitable[Any]", self._client.exists(*self._proofs)))

    async def sizes(self, rings: Iterable[str], shards: Mapping[str, bool]) -> dict[str, int | None]:
        """Place → members, of the loose sets of ``rings``; and of the shards of those rings that have any.

        ``shards`` is ring → whether some are known of; a ring that is not in it is not asked for them. None where there
        is something else than a set.
        """
        places = [ring for ring in rings if ring != REVISION_FIELD]
        for ring, is_known in shards.items():
            of_ring = [f"{ring}:{shard}" for shard in SHARDS]
            if is_known or await cast("Awaitable[Any]", self._client.exists(*map(self.key, of_ring))):
                places += of_ring
        async with self._client.pipeline(transaction=False) as pipe:
            for place in places:
                pipe.scard(self.key(place))
            sizes = await pipe.execute(raise_on_error=False)
        return {place: size if isinstance(size, int) else None for place, size in zip(places, sizes, strict=True)}

    async def revisions(self) -> Mapping[bytes, bytes]:
        """``members:rev``: ``rev``, and ``<ring>:<shard>`` for each shard. Raises ``Trouble``."""
        key = members_revision_key(self._service)
        try:
            return cast("Mapping[bytes, bytes]", await cast("Awaitable[Any]", self._client.hgetall(key)))
        except ResponseError as error:
            raise Trouble(f"{key} cannot be read: {error_text(error)}") from None

    async def read(self, place: str, known: int) -> array[int]:
        """The fingerprints of all members of a set that had ``known`` of them. Raises ``Trouble``."""
        key = self.key(place)
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.exists(*self._proofs)
            pipe.smembers(key)
            proof, members = await pipe.execute(raise_on_error=False)
        self._check(key, proof, members, known)
        found, listed = array("Q"), list(members)
        for start in range(0, len(listed), STEP):
            found.extend(map(xxh64_intdigest, listed[start : start + STEP]))
            await asyncio.sleep(0)
        return found

    async def is_long(self, place: str, known: int) -> bool:
        """Whether a set has to be scanned rather than read. Raises ``Trouble``."""
        if 0 < known <= AT_ONCE:
            return False
        key = self.key(place)
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.exists(*self._proofs)
            pipe.scard(key)
            proof, size = await pipe.execute(raise_on_error=False)
        self._check(key, proof, size, known)
        return bool(size > AT_ONCE)

    async def scan(self, place: str) -> array[int]:
        """All members of a long set, a thousand at a time. Who comes or goes meanwhile may be in it or not (SSCAN)."""
        found, cursor = array("Q"), 0
        while True:
            reply = await cast("Awaitable[Any]", self._client.sscan(self.key(place), cursor, count=SCAN_COUNT))
            cursor = int(reply[0])
            found.extend(map(xxh64_intdigest, reply[1]))
            if cursor == 0:
                return found

    def _check(self, key: str, proof: Any, reply: Any, known: int) -> None:
        """Raises ``Trouble`` for a reply that changes nothing."""
        if isinstance(reply, ResponseError):
            if str(reply).startswith("WRONGTYPE"):
                raise Trouble(f"{key} is not a set; its members stay as they were. DEL {key}, and SADD them again.")
            raise Trouble(f"{key} cannot be read ({error_text(reply)}); its members stay as they were.")
        if isinstance(proof, Exception):
            raise proof
        if not reply and known and not proof:
            raise Trouble(
                f"members missing: {key} is gone, and neither {self._proofs[0]} nor {self._proofs[1]} is there: its "
                f"{known} members stay. `ring-router weights reset` says that Redis is meant to be as it is."
            )


def kept_place(ring: str) -> str:
    """The place of members that are known from the last good table alone."""
    return f"{ring}:{KEPT}"
