"""Taking passes back: the ``revoked`` hash of a service, which every instance watches, with an audit entry.

What is over by itself is cleared out at each change, so that the hash stays short enough to be read.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from typing import Any, cast

from redis.asyncio import Redis

from router.control.audit import UNSET, note
from router.control.keys import MAX_FIELDS, key_of
from router.control.revoked import is_field, until_of
from router.control.weights import Refused


async def revoke(client: Redis, service: str, field: str, until: int, reason: str) -> bool:
    """``field`` is ``pass:<id>`` or ``key:<id>``; ``until`` Unix time, 0 for ever. Whether it was not revoked before.

    Raises ``Refused`` for an id that no pass can have, and where there are too many.
    """
    if not is_field(field.encode()):
        raise Refused(f"{field.partition(':')[2]!r} is not the id of a pass or a key: letters, digits, - and _")
    key = key_of(service, "revoked")
    now = time.time()
    fields = await listed(client, service)
    over = [one for one, (ends, _) in fields.items() if 0 < ends <= now]
    if field not in fields and len(fields) - len(over) >= MAX_FIELDS["revoked"]:
        raise Refused(f"{key} is full ({MAX_FIELDS['revoked']} fields): rotate the signing key instead")
    async with client.pipeline(transaction=True) as pipe:
        if over:
            pipe.hdel(key, *over)
        pipe.hset(key, field, f"{until} {reason}".strip())
        note(pipe, service, "revoke", {field: (UNSET, str(until))}, reason)
        await pipe.execute()
    return field not in fields


async def listed(client: Redis, service: str) -> Mapping[str, tuple[int, str]]:
    """What is revoked: field → until when (Unix time, 0 for ever) and why."""
    fields: Mapping[bytes, bytes] = await cast("Awaitable[Any]", client.hgetall(key_of(service, "revoked")))
    return {
        name.decode("utf-8", "replace"): (until_of(value) or 0, value.decode("utf-8", "replace").partition(" ")[2])
        for name, value in sorted(fields.items())
    }
