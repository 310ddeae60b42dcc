"""The audit trail of a service: who changed what and why, in the stream ``rings:{service}:audit``.

One shape for every change that goes through the router's own commands; what is typed at redis-cli is not in it.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Mapping
from typing import Any, Final, cast

from redis.asyncio import Redis

from router.control.keys import key_of

AUDIT_LENGTH: Final = 10_000
UNSET: Final = "-"
"""The field was (or is) not there; the config file's value counts."""


def actor() -> tuple[str, str]:
    """Who types this, and on which machine: ``ada@laptop``, ``laptop``."""
    host = socket.gethostname()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        user = "unknown"
    return f"{user}@{host}", host


def note(
    pipe: Redis, service: str, action: str, changes: Mapping[str, tuple[str, str]], reason: str, revision: str = ""
) -> Any:
    """Add one entry: field → what it was and what it is. A pipeline queues it; a client has to be awaited."""
    who, host = actor()
    # Several fields stand in one value with spaces between: a value with a space of its own goes in as one word.
    before, after = ([_word(pair[side]) for pair in changes.values()] for side in (0, 1))
    entry = {
        "actor": who, "host": host, "action": action, "field": " ".join(changes), "from": " ".join(before),
        "to": " ".join(after), "reason": reason, "rev": revision, "at": f"{time.time():.3f}",
    }  # fmt: skip
    return pipe.xadd(key_of(service, "audit"), cast("Any", entry), maxlen=AUDIT_LENGTH, approximate=True)


def _word(value: str) -> str:
    return value.replace(" ", "_") or "_"
