"""Passes: a ring for one service, signed and dated, that a tester carries as a header, a cookie or a link. Pure.

A pass is ``<key id>.<payload>.<signature>``, all of it safe in a URL and in a cookie. The key's id stands in front in
the clear, so that old keys can go on verifying while a new one signs, and is covered by the signature; the payload is
JSON in base64url: ``[service, ring, user, expires_at, id]``. Nothing in it is secret, and nothing of it is believed
before its signature is.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Container, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from itsdangerous import Signer
from itsdangerous.encoding import base64_decode, base64_encode
from itsdangerous.exc import BadData

from router.core.spec import KeySpec

LONGEST: Final = 2048
"""Characters of a token: what is longer is none, and costs nothing more. A cookie holds 4 KiB (RFC 6265 §6.1)."""
_SALT: Final = b"ring-router pass"
"""Keys sign other things too: what is signed for one of them is no proof for another."""
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PASS_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Verdict(StrEnum):
    """What a pass is worth for one request. Only a valid one changes its ring."""

    VALID = "valid"
    EXPIRED = "expired"
    FORGED = "forged"
    """Not signed by a key that is known (any more), or changed afterwards."""
    REVOKED = "revoked"
    FOREIGN = "foreign"
    """Another service's, or another user's."""
    MALFORMED = "malformed"


class PassError(ValueError):
    """Not a pass that can be believed; ``verdict`` says why: expired, forged or malformed."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"the pass is {verdict.value}")
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass says. ``user`` empty: it holds for whoever has it. ``expires_at``: Unix time in seconds."""

    service: str
    ring: str
    user: str
    expires_at: int
    id: str
    key_id: str


def sign_pass(keys: Sequence[KeySpec], service: str, ring: str, user: str, expires_at: float, pass_id: str = "") -> str:
    """A new pass, signed by the first key. An empty ``pass_id`` is filled with 64 random bits.

    Raises ValueError where there is no key, or where an id is not made of letters, digits, ``-`` and ``_``.
    """
    if not keys:
        raise ValueError("no key to sign with: add one under `trust: {keys: …}`")
    key = keys[0]
    pass_id = pass_id or secrets.token_urlsafe(8)
    for id_, form in ((key.id, _KEY_ID), (pass_id, _PASS_ID)):
        if not form.fullmatch(id_):
            raise ValueError(f"{id_!r} is no id: take up to 64 letters, digits, - and _")
    said = json.dumps([service, ring, user, int(expires_at), pass_id], separators=(",", ":"), ensure_ascii=False)
    value = f"{key.id}.{base64_encode(said).decode()}"
    token = f"{value}.{_signature(key, value)}"
    if len(token) > LONGEST:
        raise ValueError(f"the pass is {len(token)} characters long, and {LONGEST} is the most: take shorter names")
    return token


def read_pass(keys: Sequence[KeySpec], token: str, now: float | None = None) -> Pass:
    """What a pass says, once its signature is verified; expiry is looked at where ``now`` (Unix time) is given.

    Raises PassError.
    """
    parts = token.split(".") if len(token) <= LONGEST and token.isascii() else []
    if len(parts) != 3 or not all(parts):
        raise PassError(Verdict.MALFORMED)
    key_id, payload, signature = parts
    key = next((one for one in keys if one.id == key_id), None)
    # Compared as text: a base64 whose last letter differs can mean the same bytes, and a pass has one spelling.
    if key is None or not hmac.compare_digest(signature, _signature(key, f"{key_id}.{payload}")):
        raise PassError(Verdict.FORGED)
    found = _parse(payload, key_id)
    if now is not None and now >= found.expires_at:
        raise PassError(Verdict.EXPIRED)
    return found


def check_pass(found: Pass, service: str, revoked: Container[str], user: str, now: float) -> Verdict:
    """What a verified pass is worth for a request to ``service`` by ``user`` (empty: nobody known) at ``now``.

    ``revoked`` holds ``pass:<id>`` and ``key:<id>``. A pass for a user is worth nothing in anybody else's hands.
    """
    if found.service != service or (found.user and found.user != user):
        return Verdict.FOREIGN
    if f"pass:{found.id}" in revoked or f"key:{found.key_id}" in revoked:
        return Verdict.REVOKED
    return Verdict.EXPIRED if now >= found.expires_at else Verdict.VALID


def _signature(key: KeySpec, value: str) -> str:
    signer = Signer(key.secret, salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256)
    return signer.get_signature(value).decode()


def _parse(payload: str, key_id: str) -> Pass:
    try:
        match json.loads(base64_decode(payload)):
            case [str(service), str(ring), str(user), int(expires_at), str(id_)] if not isinstance(expires_at, bool):
                return Pass(service, ring, user, expires_at, id_, key_id)
    except (BadData, ValueError, RecursionError):
        pass
    raise PassError(Verdict.MALFORMED)
