"""Revoking passes: the hash ``revoked`` that every instance watches, and an entry in the audit trail for each change.

A pass is revoked by its id, or all that a key has signed by the key's. What has expired since is cleared away at the
next change, so that the hash stays short. It knows ids only: tokens are read elsewhere.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError, WatchError

from router.control.audit import UNSET, note
from router.control.keys import MAX_FIELDS, REVISION_FIELD, key_of
from router.control.revoked import until_and_reason
from router.control.weights import ATTEMPTS, Refused

_FIELD: Final = re.compile(r"(pass|key):[A-Za-z0-9_-]{1,64}")
LONGEST_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class Revocation:
    """One field of the hash. ``until``: Unix time from which it matters no more; 0: for ever; None: not readable."""

    field: str
    until: int | None
    reason: str

    def matters(self, now: float) -> bool:
        return not self.until or self.until > now

    def __str__(self) -> str:
        if self.until is None:
            when = "for ever (its value does not begin with a time)"
        elif not self.until:
            when = "for ever"
        else:
            when = time.strftime("until %Y-%m-%d %H:%M:%S UTC", time.gmtime(self.until))
        return f"{self.field:<24} {when}" + (f"  ({self.reason})" if self.reason else "")


async def read_revoked(client: Redis, service: str) -> list[Revocation]:
    """What is revoked, as the hash has it. Raises ``Refused`` if the key is of another type."""
    key = key_of(service, "revoked")
    try:
        fields = cast("Mapping[bytes, bytes]", await cast("Awaitable[Any]", client.hgetall(key)))
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            raise Refused(f"{key} is not a hash: look at it with TYPE, and DEL it if it is a mistake") from None
        raise
    return [_revocation(name, value) for name, value in sorted(fields.items()) if name != REVISION_FIELD.encode()]


async def revoke(
    client: Redis, service: str, field: str, *, until: int = 0, reason: str = "", now: float | None = None
) -> bool:
    """Revoke ``pass:<id>`` or ``key:<id>`` from now on; False if it was already, at least for so long.

    Raises ``Refused`` before anything is written.
    """
    if _FIELD.fullmatch(field) is None:
        raise Refused(f"{field!r} is not revoked by that name: an id has up to 64 letters, digits, - and _")
    reason = " ".join(reason.split())[:LONGEST_REASON]
    for _ in range(ATTEMPTS):
        try:
            return await _try_revoke(client, service, field, until, reason, time.time() if now is None else now)
        except WatchError:
            continue
    raise Refused(f"somebody else keeps changing {key_of(service, 'revoked')}: try again")


async def _try_revoke(client: Redis, service: str, field: str, until: int, reason: str, now: float) -> bool:
    key = key_of(service, "revoked")
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch(key)
        known = await read_revoked(client, service)
        before = next((one for one in known if one.field == field), None)
        if before is not None and (not before.until or 0 < until <= before.until):
            return False
        expired = [one.field for one in known if not one.matters(now)]
        if len(known) - len(expired) >= MAX_FIELDS["revoked"] and before is None:
            remedy = "replace the key that signed them, in `signing_keys`, and `ring-router pass revoke-key` it"
            raise Refused(f"{key} has {len(known)} entries, and instances read no more: {remedy}")
        pipe.multi()  # type: ignore[no-untyped-call]
        if expired:
            pipe.hdel(key, *expired)
        pipe.hset(key, field, f"{until} {reason}".rstrip())
        was = UNSET if before is None else str(before.until)
        note(pipe, service, "revoke", {field: (was, str(until))}, reason)
        await pipe.execute()
    return True


def _revocation(name: bytes, value: bytes) -> Revocation:
    until, reason = until_and_reason(value)
    return Revocation(name.decode("utf-8", "backslashreplace"), until, reason.decode("utf-8", "backslashreplace"))
