"""The ring as it travels: a member of the ``baggage`` field (W3C Baggage, https://www.w3.org/TR/baggage/). Pure.

``ring=canary``, and where there is a key ``ring=canary;kid=k1;exp=1732500000;sig=…``: HMAC-SHA256 (RFC 2104) over key
id, ring and end, cut to 128 bits. The ring counts for the whole journey, whichever services it passes; what is signed
lives for minutes, since whoever sees it can send it on. Members of others are passed on as they came.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from enum import StrEnum
from hmac import compare_digest, digest
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from router.core.spec import KeySpec

LIFETIME: Final = 900
"""Seconds that a signed member holds."""
MOST_BYTES: Final = 8192
MOST_MEMBERS: Final = 180
"""A platform has to carry 64 members and 8192 bytes at the least; 180 was the limit before (W3C Baggage §3.3.2)."""
_PURPOSE: Final = b"ring-router propagated ring\0"
"""Keeps these signatures apart from all others that the same secrets make."""
_SIGNATURE_BYTES: Final = 16
_MEMBER: Final = b"ring"
_OPTIONAL_WHITESPACE: Final = b" \t"
_END: Final = re.compile(rb"[0-9]{1,12}")
LONGEST_RING: Final = 256


class Claim(StrEnum):
    """What a propagated ring is worth."""

    VALID = "valid"
    EXPIRED = "expired"
    FORGED = "forged"
    """Its signature is not one of ours."""
    UNTRUSTED = "untrusted"
    """Not signed, and from somebody who is not believed without."""
    MALFORMED = "malformed"


class Baggage(NamedTuple):
    """A baggage field, taken apart."""

    ring: bytes
    """The member ``ring`` with its properties as it came; empty if there is none. Of several, the first."""
    others: bytes
    """All other members as they came, with commas between them."""


def read_baggage(field: bytes) -> Baggage:
    """Ours and the others'. Neither values nor properties can hold a comma or a semicolon (W3C Baggage §3.3.1)."""
    ring = b""
    others = []
    for member in field.split(b","):
        stripped = member.strip(_OPTIONAL_WHITESPACE)
        if stripped.partition(b";")[0].partition(b"=")[0].rstrip(_OPTIONAL_WHITESPACE) == _MEMBER:
            ring = ring or stripped
        elif stripped:
            others.append(stripped)
    return Baggage(ring, b",".join(others))


def with_others(line: bytes, others: bytes) -> bytes:
    """Our member with those of others behind it. Beyond what a field may have, the last ones are left out."""
    room = MOST_BYTES - len(line)
    members = others.split(b",")
    if len(members) < MOST_MEMBERS and len(others) < room:
        return line + b"," + others
    kept = []
    for member in members[: MOST_MEMBERS - 1]:
        room -= len(member) + 1
        if room < 0:
            break
        kept.append(member)
    return b",".join([line, *kept])


def ring_of(member: bytes) -> str:
    """The ring that a member names, percent-decoded; empty if it names none."""
    value = member.partition(b";")[0].partition(b"=")[2].strip(_OPTIONAL_WHITESPACE)
    if len(value) > LONGEST_RING:
        return ""
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        return ""


def write_member(keys: Sequence[KeySpec], ring: str, now: float) -> bytes:
    """The member that names a ring; signed by the first key, if there is one, for ``LIFETIME`` seconds from ``now``."""
    value = quote(ring, safe="").encode()
    if not keys:
        return b"ring=%b" % value
    key = keys[0]
    ends = b"%d" % (int(now) + LIFETIME)
    return b"ring=%b;kid=%b;exp=%b;sig=%b" % (value, key.id.encode(), ends, _signature(key, ring, ends))


def check_member(keys: Sequence[KeySpec], member: bytes, now: float) -> Claim:
    """What a member is worth that came from a stranger: only its signature speaks for it."""
    properties: dict[bytes, bytes] = {}
    for one in member.split(b";")[1:]:
        name, _, value = one.partition(b"=")
        properties.setdefault(name.strip(_OPTIONAL_WHITESPACE), value.strip(_OPTIONAL_WHITESPACE))
    signature = properties.get(b"sig")
    if signature is None:
        return Claim.UNTRUSTED
    ends, ring, key_id = properties.get(b"exp", b""), ring_of(member), properties.get(b"kid", b"")
    if not ring or not _END.fullmatch(ends):
        return Claim.MALFORMED
    key = next((one for one in keys if one.id.encode() == key_id), None)
    if key is None or not compare_digest(signature, _signature(key, ring, ends)):
        return Claim.FORGED
    return Claim.VALID if now < int(ends) else Claim.EXPIRED


def _signature(key: KeySpec, ring: str, ends: bytes) -> bytes:
    said = b"\0".join((key.id.encode(), ends, ring.encode()))
    made = digest(key.secret.encode(), _PURPOSE + said, "sha256")
    return urlsafe_b64encode(made[:_SIGNATURE_BYTES]).rstrip(b"=")
