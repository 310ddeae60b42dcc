"""Which fields pass and which are ours; who the client is said to be; what a target means. Pure; bytes in, bytes out.

A head is never copied through: every line is parsed, judged and written again (docs/architecture.md). Order, case and
repetition of the fields that pass are kept, which is what keeps several Set-Cookie apart.
"""

from __future__ import annotations

from typing import Final

PASS: Final = 0
"""Forwarded, and nothing more."""
HOST: Final = 1
COOKIE: Final = 2
LENGTH: Final = 3
DROP: Final = 4
"""This kind and those after it are not forwarded; some are written anew."""
CONNECTION: Final = 5
CODING: Final = 6
REQUEST_ID: Final = 7
FORWARDED: Final = 8

_HOP_BY_HOP: Final = {
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"te": DROP,
    b"trailer": DROP,
    b"upgrade": DROP,
    # Ours alone: a client must not tell the backend which ring it is in, nor a backend the client.
    b"x-ring": DROP,
    b"x-ring-version": DROP,
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
}
"""RFC 9110 §7.6.1 and the fields that frame a message."""

REQUEST_KINDS: Final = {
    **_HOP_BY_HOP,
    b"proxy-authorization": DROP,
    b"host": HOST,
    b"cookie": COOKIE,
    b"x-request-id": REQUEST_ID,
    b"x-forwarded-for": FORWARDED,
    b"x-forwarded-proto": FORWARDED,
    b"x-forwarded-host": FORWARDED,
}
RESPONSE_KINDS: Final = {**_HOP_BY_HOP, b"proxy-authenticate": DROP}

PROTECTED: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"cookie", b"authorization", b"set-cookie", b"x-ring",
     b"x-ring-version", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"}
)  # fmt: skip
"""Fields that nobody can strip by nominating them in Connection."""


def connection_options(value: bytes) -> set[bytes]:
    """The options of a Connection field, in lower case (RFC 9110 §7.6.1)."""
    return {name.strip(b" \t") for name in value.lower().split(b",")}


def keeps_alive(connection: bytes | None, *, is_http10: bool) -> bool:
    """Whether the connection persists after this message (RFC 9112 §9.3)."""
    if connection is None:
        return not is_http10
    if connection == b"keep-alive":
        return True
    options = connection_options(connection)
    return b"close" not in options and (not is_http10 or b"keep-alive" in options)


def bare_host(value: bytes) -> bytes:
    """A Host value in lower case and without its port; brackets of an IPv6 address go too."""
    value = value.lower()
    if value[:1] == b"[":
        return value[1 : value.find(b"]")]
    colon = value.find(b":")
    return value if colon < 0 else value[:colon]


def split_absolute(target: bytes) -> tuple[bytes, bytes] | None:
    """Authority and origin form of an absolute-form target (RFC 9112 §3.2.2); None if it is something else."""
    scheme, separator, after = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return None
    slash = min((i for i in (after.find(b"/"), after.find(b"?")) if i >= 0), default=len(after))
    authority, path = after[:slash], after[slash:]
    if not authority or b"@" in authority:
        return None
    return authority, path if path[:1] == b"/" else b"/" + path


_FORWARDED: Final = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b"


def forwarded_by_stranger(address: bytes, host: bytes) -> bytes:
    """X-Forwarded-* lines for a client that is not a trusted proxy: whatever it said of them is not repeated."""
    return _FORWARDED % (address, b"http", host)


def forwarded_by_trusted(said: dict[bytes, bytes], address: bytes, host: bytes) -> bytes:
    """X-Forwarded-* lines appended to what a trusted proxy says. ``said`` has its fields by their lower-case names."""
    before = said.get(b"x-forwarded-for")
    return _FORWARDED % (
        b"%b, %b" % (before, address) if before else address,
        _last(said.get(b"x-forwarded-proto")) or b"http",
        _last(said.get(b"x-forwarded-host")) or host,
    )


def _last(said: bytes | None) -> bytes:
    """The nearest proxy's word, where several speak."""
    return said.rpartition(b",")[2].strip(b" \t") if said else b""
