"""What an instance tells of one tick of a service under a rollout, and by what it routes: as Redis keeps it.

Users are digests: the 64 bits that their bucket is taken from (``digest % 10000``), so that ``digest // 10000`` is
independent of the ring. Their requests are codes with counts; what each verdict rests on is worked out of these alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from router.telemetry.meters import HISTOGRAM_BUCKETS

FAILED: Final = HISTOGRAM_BUCKETS
"""Codes below this one are buckets of durations (``meters``), and every request has exactly one of these. Then what
went wrong, if something did: this one is for 5xx, and for an answer that broke off or never came."""
CLIENT_ERROR: Final = FAILED + 1
"""4xx, but for 499."""
LEFT: Final = FAILED + 2
"""The client left, or stopped reading, before its answer was whole."""
SLICES: Final = 64
_BUCKETS: Final = 10_000

ArmKey = tuple[str, str, str]
"""Ring, version, and what brought its users there: ``hash``, or ``chosen`` (members and rules)."""
Codes = dict[int, int]
"""Code → finished requests."""
Finished = dict[ArmKey, dict[int, Codes]]
"""Arm → digest → what became of the user's requests."""
Pending = dict[ArmKey, dict[int, list[int]]]
"""Arm → digest → buckets of the ages of requests that are under way for long."""


def slice_of(digest: int) -> int:
    """One of 64 parts of all users, independent of their rings."""
    return digest // _BUCKETS % SLICES


class TickPart(msgspec.Struct):
    """One instance's part of one tick of one service."""

    is_done: bool = False
    """Whether the tick is over, and no more comes."""
    seconds: float = 0.0
    """How much of the tick it has watched."""
    finished: Finished = {}
    pending: Pending = {}
    """As of the last look."""
    all_requests: int = 0
    """Of the whole service that finished, whoever asked."""
    open_breakers: int = 0
    """Workers that send the candidate's users outward on their own."""
    arrived: list[int] = []
    """Users whom the hash put into each ring since its weights are as they are, inner to outer."""
    dropped: int = 0
    """Requests that are missing here, because there were too many users."""


class Ack(msgspec.Struct):
    """What all workers of an instance route by. ``at`` and ``since`` are Unix time of Redis: when it was said, and
    since when it is so. Weights and holdbacks in basis points, without the default ring."""

    at: float
    since: float
    weights: dict[str, int]
    versions: dict[str, str]
    holdbacks: dict[str, int] = {}
    killed: list[str] = []


_part: Final = msgspec.msgpack.Decoder(TickPart)
_ack: Final = msgspec.json.Decoder(Ack)


def pack(part: TickPart) -> bytes:
    return msgspec.msgpack.encode(part)


def unpack(data: bytes) -> TickPart:
    """Raises ``msgspec.DecodeError`` for what is none."""
    return _part.decode(data)


def pack_ack(ack: Ack) -> bytes:
    return msgspec.json.encode(ack)


def unpack_ack(data: bytes) -> Ack:
    """Raises ``msgspec.DecodeError`` for what is none."""
    return _ack.decode(data)


def together(parts: Iterable[TickPart]) -> tuple[Finished, Pending]:
    """The users of all instances: somebody who was seen by two is one."""
    finished: Finished = {}
    pending: Pending = {}
    for part in parts:
        for arm, users in part.finished.items():
            known = finished.setdefault(arm, {})
            for digest, codes in users.items():
                counts = known.setdefault(digest, {})
                for code, count in codes.items():
                    counts[code] = counts.get(code, 0) + count
        for arm, waiting in part.pending.items():
            waits = pending.setdefault(arm, {})
            for digest, ages in waiting.items():
                waits[digest] = [*waits.get(digest, []), *ages]
    return finished, pending
