"""From a user's key to a bucket: the assignment, which is an API and is frozen.

``bucket = xxh64(salt + key, seed=0) mod 10000``, bit for bit what Envoy computes for weighted clusters with
``use_hash_policy`` on one header and weights that sum to 10000 (docs/architecture.md, "Assignment"). The known answers
stand in tests/test_core_hashing.py; whoever changes them moves every user of every installation.
"""

from __future__ import annotations

from typing import NewType

from xxhash import xxh64_intdigest

UserKey = NewType("UserKey", bytes)
"""Who asks, as the identity source gave it: raw header or cookie bytes, never decoded."""

BUCKETS = 10_000
"""Size of the hash space: one bucket is 0.01 percent, one basis point."""


def bucket_of(key: bytes, salt: bytes = b"") -> int:
    """The bucket (0 … 9999) of a user key; the same in every process, for ever."""
    return xxh64_intdigest(salt + key) % BUCKETS


def holdback_salt(ring: str, salt: bytes = b"") -> bytes:
    """What stands before a key in the hash of a ring's holdback, which is independent of where the user's bucket is."""
    return b"holdback\0" + ring.encode() + b"\0" + salt


def fingerprint(key: bytes) -> int:
    """The 64 bits under which member tables list a key; the bucket is taken of the same where the salt is empty."""
    return xxh64_intdigest(key)
