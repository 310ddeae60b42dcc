"""The router's own cookie, signed: a value that was not minted here counts as no cookie at all.

``key.signature``, where the signature is HMAC-SHA256 (RFC 2104) over the cookie's name and the key, cut to 128 bits
(which RFC 2104 §5 allows) and written in base64url without padding: letters that a cookie may hold (RFC 6265 §4.1.1).
The key in front of the dot is what is hashed, so that another signing key moves nobody.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hmac import compare_digest, digest
from typing import Final

from router.core.hashing import UserKey
from router.core.spec import KeySpec

_PURPOSE: Final = b"ring-router anonymous cookie\0"
"""Keeps these signatures apart from all others that the same secrets make."""
_SIGNATURE_BYTES: Final = 16
_SIGNATURE_LENGTH: Final = 22


class CookieSigner:
    """Signs and verifies the values of one cookie. The first key signs, all of them verify: that is how they rotate."""

    __slots__ = ("_context", "_secrets")

    def __init__(self, keys: Sequence[KeySpec], cookie: bytes) -> None:
        """Raises ValueError without a key."""
        if not keys:
            name = cookie.decode(errors="replace")
            raise ValueError(f"the anonymous cookie {name} is to be signed, and there is no signing key: add one")
        self._secrets = tuple(key.secret.encode() for key in keys)
        self._context = _PURPOSE + cookie + b"\0"

    def sign(self, key: bytes) -> bytes:
        """What goes into the cookie for a key that was minted."""
        return key + b"." + self._signature(self._secrets[0], key)

    def verified(self, value: bytes) -> UserKey | None:
        """The key inside of a cookie's value; None if one of our keys did not sign it."""
        dot = len(value) - _SIGNATURE_LENGTH - 1
        if dot < 1 or value[dot : dot + 1] != b".":
            return None
        key, signature = value[:dot], value[dot + 1 :]
        for secret in self._secrets:
            if compare_digest(signature, self._signature(secret, key)):
                return UserKey(key)
        return None

    def _signature(self, secret: bytes, key: bytes) -> bytes:
        made = digest(secret, self._context + key, "sha256")
        return urlsafe_b64encode(made[:_SIGNATURE_BYTES]).rstrip(b"=")
