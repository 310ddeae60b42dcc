"""What the decision may look at: one request, and how single values are found in it.

Values are bytes as they stood on the wire: nothing is decoded, neither a cookie nor a query parameter.
"""

from __future__ import annotations

from typing import Final

from router.core.hashing import UserKey, fingerprint

_OPTIONAL_WHITESPACE: Final = b" \t"
_SEMICOLON: Final = 0x3B
_AMPERSAND: Final = 0x26
_EQUALS: Final = 0x3D
UNKNOWN: Final = -1

NOTHING: Final[dict[str, tuple[bytes, ...]]] = {}
"""No claims; never written to."""


class Request:
    """What the decision may look at.

    ``host`` is lower-case and without a port, ``path`` is without a query. ``headers`` maps lower-case names to values
    (repeated fields joined with ``, ``, RFC 9110 §5.3) and may leave out names no rule or identity of the snapshot
    asks for. ``cookie`` is the Cookie field (several joined with ``; ``), empty if absent.

    The rest is empty unless the service ``needs`` it: ``query`` is what stands behind the ``?``, ``client`` the address
    of whoever asks, ``now`` Unix time in seconds. ``claims`` are those of a verified token: name → its values as text,
    those inside of others with dots between the names. ``certificate`` is what a client's verified certificate says:
    ``subject``, ``cn``, ``dns`` …. ``override`` and ``propagated`` are rings that the shell found proof for.
    """

    __slots__ = (
        "certificate", "claims", "client", "cookie", "fingerprint", "hashed", "headers", "host", "is_trusted", "key",
        "method", "now", "outer", "override", "path", "propagated", "query",
    )  # fmt: skip

    def __init__(
        self, host: bytes, path: bytes, headers: dict[bytes, bytes], cookie: bytes = b"", method: bytes = b"GET"
    ) -> None:
        self.host = host
        self.path = path
        self.headers = headers
        self.cookie = cookie
        self.method = method
        self.query = b""
        self.client = b""
        self.is_trusted = False
        """Whether the peer is one of ``trusted_proxies``."""
        self.key: UserKey | None = None
        """The user's, once ``identify`` has found it: lists and comparisons inside of rules ask for it."""
        self.now = 0.0
        self.claims = NOTHING
        self.certificate = NOTHING
        self.override = ""
        self.propagated = ""
        # These three are the decision's own notes, made where a service has shares, lists or a login mode.
        self.hashed: UserKey | None = None
        """What is hashed in the place of ``key``: the anonymous cookie's key of a user who logged in."""
        self.outer: UserKey | None = None
        """A second key that is hashed beside the first; the outer of the two places counts."""
        self.fingerprint = UNKNOWN
        """Of ``key``, once somebody asked for it."""

    def __repr__(self) -> str:
        return f"<Request {self.host!r} {self.path!r} headers={dict(self.headers)!r} cookie={self.cookie!r}>"


def fingerprint_of(request: Request, key: UserKey) -> int:
    """``xxh64(key)``: what member tables are asked for, and the hash of the key where the salt is empty."""
    known = request.fingerprint
    if known == UNKNOWN:
        request.fingerprint = known = fingerprint(key)
    return known


def cookie_value(field: bytes, name: bytes) -> bytes | None:
    """The value of the first cookie called ``name`` in a Cookie field (RFC 6265 §4.2.1), unquoted; None if absent.

    Scans for the name instead of parsing all cookies: 0.2–3 µs where http.cookies takes 43 µs.
    """
    needle = name + b"="
    at = field.find(needle)
    while at >= 0:
        before = at - 1
        while before >= 0 and field[before] in _OPTIONAL_WHITESPACE:
            before -= 1
        if before < 0 or field[before] == _SEMICOLON:
            end = field.find(b";", at)
            value = field[at + len(needle) : end if end >= 0 else len(field)].strip(_OPTIONAL_WHITESPACE)
            return value[1:-1] if len(value) >= 2 and value[:1] == value[-1:] == b'"' else value
        at = field.find(needle, at + 1)
    return None


def query_value(query: bytes, name: bytes) -> bytes | None:
    """The value of the first parameter called ``name`` in a query; empty for one without ``=``, None if absent.

    Name and value are compared as they stand on the wire: ``%41`` is not ``A``, and ``+`` is no space. Whatever decodes
    differently than the application behind it does would be a way around a rule.
    """
    size = len(name)
    at = query.find(name)
    while at >= 0:
        after = at + size
        if at == 0 or query[at - 1] == _AMPERSAND:
            if after == len(query) or query[after] == _AMPERSAND:
                return b""
            if query[after] == _EQUALS:
                end = query.find(b"&", after)
                return query[after + 1 : end] if end >= 0 else query[after + 1 :]
        at = query.find(name, at + 1)
    return None
