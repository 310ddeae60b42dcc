"""The names of the Redis keys, and what a read of them gives before anybody has judged it.

The braces keep a service's keys on one node of a cluster. Nothing here talks to Redis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

PREFIX: Final = "rings:{"
"""Every key of every service begins so."""
HashName = Literal["weights", "versions", "control", "revoked"]
HASHES: Final[tuple[HashName, ...]] = ("weights", "versions", "control", "revoked")
"""The hashes that operators write and every instance watches, in the order of ``RawService``."""
MAX_FIELDS: Final[Mapping[HashName, int]] = {"weights": 256, "versions": 256, "control": 256, "revoked": 5000}
"""A hash with more fields is not read: no service has that many rings, and a read must stay cheap."""
REVISION_FIELD: Final = "rev"


def key_of(service: str, name: str) -> str:
    """``rings:{shop}:weights``"""
    return f"{PREFIX}{service}}}:{name}"


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
    revoked: RawHash = field(default_factory=dict)
