"""The assignment is an API: these numbers are frozen. If one of them changes, every user of every router moves."""

from __future__ import annotations

import hashlib

import pytest

from router.core.hashing import bucket_of

KNOWN = [
    (b"", b"", 6921),  # xxh64("") is 0xef46db3751d8e999, as its specification says
    (b"", b"alice", 9289),
    (b"", b"bob", 27),
    (b"", b"user-1", 6856),
    (b"", b"42", 7401),
    (b"", b"550e8400-e29b-41d4-a716-446655440000", 6575),
    (b"", b"zo\xc3\xab", 6634),
    (b"", b"\xff\x00\xfe", 9769),
    (b"", b"x" * 1000, 8865),
    (b"search:", b"alice", 2984),
    (b"search:", b"bob", 3087),
]


@pytest.mark.parametrize(("salt", "key", "bucket"), KNOWN)
def test_known_keys_are_in_their_known_buckets(salt: bytes, key: bytes, bucket: int) -> None:
    assert bucket_of(key, salt) == bucket


def test_a_salt_is_put_before_the_key() -> None:
    assert bucket_of(b"alice", b"search:") == bucket_of(b"search:alice")


def test_a_thousand_users_are_where_they_always_were() -> None:
    buckets = b"".join(bucket_of(b"user-%d" % n).to_bytes(2, "big") for n in range(1000))
    assert hashlib.sha256(buckets).hexdigest() == "ead2c271bdbf0ce1df1b8251d9a74301f8acc542748ee846309c172371d929bb"
