"""One thing that ``doctor`` has looked at, and how it asks Redis."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, cast

from redis.asyncio import Redis

NOBODY: Final = "ring-router doctor"
"""A field that no hash has."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``remedy`` is empty where nothing has to be done."""

    level: Literal["ok", "warning", "bad"]
    what: str
    remedy: str = ""

    def plain(self) -> dict[str, str]:
        return asdict(self)


async def say(client: Redis, *words: Any) -> Any:
    """One command, as it would be typed."""
    return await cast("Any", client).execute_command(*words)
