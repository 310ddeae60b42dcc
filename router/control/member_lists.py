"""Changing and reading members in Redis: in shards, with the revisions that instances follow, and an audit entry.

A list may have millions of members: it is read a shard at a time and written a thousand keys at a time. It must never
write a key that could not be an identity, and never leave a change without its entry in the audit trail.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from router.control.audit import UNSET, note
from router.control.authors import Author
from router.control.keys import REVISION_FIELD, SHARDS, members_key, members_revision_key, shard_of
from router.control.weights import Refused

LONGEST_KEY: Final = 512
"""Bytes; what is longer is no identity but a mistake."""
AT_ONCE: Final = 1000
"""Keys in one command: a millisecond or two of Redis."""
OnProgress = Callable[[int], None]


def checked(key: bytes) -> bytes:
    """A user's key. Raises ``Refused`` for what cannot be one."""
    if not key or key.strip() != key:
        raise Refused(f"{key[:40]!r} is not a user's key: it is empty, or has spaces around it")
    if len(key) > LONGEST_KEY:
        raise Refused(f"{key[:40]!r}… is not a user's key: it has {len(key)} bytes, and {LONGEST_KEY} is the most")
    if b"\n" in key or b"\r" in key or b"\0" in key:
        raise Refused(f"{key[:40]!r} is not a user's key: it has a line end or a zero byte in it")
    return key


def by_shard(keys: Iterable[bytes]) -> dict[str, set[bytes]]:
    """Keys by the shard that each belongs to. Raises ``Refused``."""
    found: dict[str, set[bytes]] = defaultdict(set)
    for key in keys:
        found[shard_of(checked(key))].add(key)
    return found


async def add(
    client: Redis,
    service: str,
    ring: str,
    keys: Iterable[bytes],
    reason: str,
    told: OnProgress = lambda count: None,
    *,
    by: Author | None = None,
) -> int:
    """Make users members; how many were not yet."""
    shards = by_shard(keys)
    await _tell(client, service, "members add", ring, f"+{_total(shards)}", reason, by)
    changed = 0
    for shard, members in sorted(shards.items()):
        listed = sorted(members)
        for start in range(0, len(listed), AT_ONCE):
            some = listed[start : start + AT_ONCE]
            changed += await _write(client, service, ring, shard, "SADD", some)
            told(len(some))
    return changed


async def remove(
    client: Redis, service: str, ring: str, keys: Iterable[bytes], reason: str, *, by: Author | None = None
) -> int:
    """Users are members no more, wherever they are listed; how many were."""
    shards = by_shard(keys)
    await _tell(client, service, "members remove", ring, f"-{_total(shards)}", reason, by)
    gone = 0
    for shard, members in sorted(shards.items()):
        listed = sorted(members)
        loose = [one for one in listed if await _has(client, members_key(service, ring), one)]
        gone += await _write(client, service, ring, shard, "SREM", listed)
        if loose:
            await cast("Awaitable[Any]", client.srem(members_key(service, ring), *loose))
            gone += len(loose)
    return gone


async def replace(
    client: Redis, service: str, ring: str, keys: Iterable[bytes], reason: str, told: OnProgress = lambda count: None
) -> tuple[int, int]:
    """These are the members from now on, and nobody else; (come, gone). Nobody who stays is away for a moment."""
    shards = by_shard(keys)
    await _tell(client, service, "members import", ring, f"={_total(shards)}", reason)
    come = gone = 0
    for shard in SHARDS:
        key = members_key(service, ring, shard)
        now = shards.get(shard, set())
        before = await _members(client, key)
        for members, is_coming in ((sorted(now - before), True), (sorted(before - now), False)):
            for start in range(0, len(members), AT_ONCE):
                some = members[start : start + AT_ONCE]
                if is_coming:
                    come += await _write(client, service, ring, shard, "SADD", some)
                else:
                    gone += await _write(client, service, ring, shard, "SREM", some)
        told(len(now))
    loose = members_key(service, ring)
    gone += len([one for one in await _members(client, loose) if one not in shards.get(shard_of(one), ())])
    await cast("Awaitable[Any]", client.delete(loose))
    return come, gone


async def export(client: Redis, service: str, ring: str) -> AsyncIterator[bytes]:
    """All members, each once: those of the loose set, then those of the shards, in order."""
    loose = await _members(client, members_key(service, ring))
    for one in sorted(loose):
        yield one
    for shard in SHARDS:
        for one in sorted(await _members(client, members_key(service, ring, shard)) - loose):
            yield one


async def count(client: Redis, service: str, ring: str) -> int:
    """Members, those that are in the loose set and in a shard twice."""
    async with client.pipeline(transaction=False) as pipe:
        for place in ("", *SHARDS):
            pipe.scard(members_key(service, ring, place))
        sizes = await pipe.execute(raise_on_error=False)
    return sum(size for size in sizes if isinstance(size, int))


async def find(client: Redis, service: str, rings: Iterable[str], key: bytes) -> list[str]:
    """The rings that list a user, in their order."""
    found = []
    for ring in rings:
        places = (members_key(service, ring), members_key(service, ring, shard_of(key)))
        if any([await _has(client, place, key) for place in places]):
            found.append(ring)
    return found


def _total(shards: dict[str, set[bytes]]) -> int:
    return sum(map(len, shards.values()))


async def _tell(
    client: Redis, service: str, action: str, ring: str, what: str, reason: str, by: Author | None = None
) -> None:
    """The entry in the audit trail. It comes first: a long change that breaks off has changed something as well."""
    await cast("Awaitable[Any]", note(client, service, action, {ring: (UNSET, what)}, reason, by=by))


async def _write(client: Redis, service: str, ring: str, shard: str, verb: str, keys: Sequence[bytes]) -> int:
    """One change of one shard with its revision, in one transaction."""
    revisions = members_revision_key(service)
    async with client.pipeline(transaction=True) as pipe:
        pipe.execute_command(verb, members_key(service, ring, shard), *keys)
        pipe.hincrby(revisions, f"{ring}:{shard}", 1)
        pipe.hincrby(revisions, REVISION_FIELD, 1)
        changed, *_ = await pipe.execute()
    return int(changed)


async def _members(client: Redis, key: str) -> set[bytes]:
    try:
        return set(await cast("Awaitable[Any]", client.smembers(key)))
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            raise Refused(f"{key} is not a set: remove it with DEL, and try again") from None
        raise


async def _has(client: Redis, key: str, user: bytes) -> bool:
    try:
        return bool(await cast("Awaitable[Any]", client.sismember(key, cast("Any", user))))
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            return False
        raise
