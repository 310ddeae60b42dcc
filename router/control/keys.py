"""The names of the Redis keys, and what a read of them gives before anybody has judged it.

The braces keep a service's keys on one node of a cluster. Nothing here talks to Redis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from zlib import crc32

PREFIX: Final = "rings:{"
"""Every key of every service begins so."""
MAX_FIELDS: Final = 256
"""A hash with more fields is not read: no service has that many rings, and a read must stay cheap."""

HashName = Literal["weights", "versions", "control"]
HASHES: Final[tuple[HashName, ...]] = ("weights", "versions", "control")
"""The hashes that operators write and every instance watches."""
REVISION_FIELD: Final = "rev"


def key_of(service: str, name: str) -> str:
    """``rings:{shop}:weights``"""
    return f"{PREFIX}{service}}}:{name}"


MEMBERS: Final = "members"
SHARDS: Final = tuple(f"{number:02x}" for number in range(256))
"""What a long list is kept in: a change is found by reading one of them, and not the whole list."""


def members_prefix(service: str) -> str:
    """``rings:{shop}:members:``, which every key of the service's members begins with."""
    return f"{key_of(service, MEMBERS)}:"


def members_key(service: str, ring: str, shard: str = "") -> str:
    """``rings:{shop}:members:canary``, the loose set, or ``rings:{shop}:members:canary:0f``, a shard."""
    return f"{members_prefix(service)}{ring}:{shard}" if shard else f"{members_prefix(service)}{ring}"


def members_revision_key(service: str) -> str:
    """``rings:{shop}:members:rev``: a hash of ``rev``, all changes, and ``<ring>:<shard>``, those of one shard."""
    return f"{members_prefix(service)}{REVISION_FIELD}"


def shard_of(user: bytes) -> str:
    """The shard of a user's key: two hexadecimal digits, the low byte of its CRC-32 (the one of zlib)."""
    return SHARDS[crc32(user) & 0xFF]


def members_place(key: bytes) -> tuple[str, str] | None:
    """Service, and what stands behind the prefix (``canary``, ``canary:0f``, ``rev``); None for another kind of key."""
    head, found, place = key.partition(b"}:members:")
    if not found or not head.startswith(PREFIX.encode()):
        return None
    return head[len(PREFIX) :].decode("utf-8", "replace"), place.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class RawFault:
    """Why a key could not be read. ``reason`` is a stable word: wrong_type, too_many_fields, unreadable."""

    reason: str
    message: str


RawHash = Mapping[bytes, bytes] | RawFault
"""The fields as Redis has them, junk included; empty when the key does not exist."""


@dataclass(frozen=True, slots=True)
class RawService:
    """One consistent read (one MULTI … EXEC) of a service's hashes."""

    weights: RawHash = field(default_factory=dict)
    versions: RawHash = field(default_factory=dict)
    control: RawHash = field(default_factory=dict)
