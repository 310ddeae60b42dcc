"""Which fields pass, which are ours, and how heads are rebuilt from parsed parts. Pure; bytes in, bytes out.

A head is never copied through: every field is parsed, judged and written again (docs/architecture.md). Order, case and
repetition of the fields that pass are kept, which is what keeps several Set-Cookie apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Final

from router.proxy.framing import FramingError, content_length

Fields = list[tuple[bytes, bytes]]
"""Field name and value, as they arrived."""


class Kind(Enum):
    """What a field name means to a proxy; names without a kind are forwarded."""

    CONNECTION = auto()
    LENGTH = auto()
    CODING = auto()
    HOST = auto()
    COOKIE = auto()
    REQUEST_ID = auto()
    FORWARDED_FOR = auto()
    FORWARDED_PROTO = auto()
    FORWARDED_HOST = auto()
    WANTED = auto()
    DROP = auto()


_HOP_BY_HOP: Final = {
    b"keep-alive": Kind.DROP,
    b"proxy-connection": Kind.DROP,
    b"te": Kind.DROP,
    b"trailer": Kind.DROP,
    b"upgrade": Kind.DROP,
    # Ours alone: a client must not tell the backend which ring it is in, nor a backend the client.
    b"x-ring": Kind.DROP,
    b"x-ring-version": Kind.DROP,
    b"connection": Kind.CONNECTION,
    b"content-length": Kind.LENGTH,
    b"transfer-encoding": Kind.CODING,
}
"""RFC 9110 §7.6.1 and the fields that frame a message."""

REQUEST_KINDS: Final = {
    **_HOP_BY_HOP,
    b"proxy-authorization": Kind.DROP,
    b"host": Kind.HOST,
    b"cookie": Kind.COOKIE,
    b"x-request-id": Kind.REQUEST_ID,
    b"x-forwarded-for": Kind.FORWARDED_FOR,
    b"x-forwarded-proto": Kind.FORWARDED_PROTO,
    b"x-forwarded-host": Kind.FORWARDED_HOST,
}
RESPONSE_KINDS: Final = {**_HOP_BY_HOP, b"proxy-authenticate": Kind.DROP}

PROTECTED: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"cookie", b"authorization", b"set-cookie", b"x-ring",
     b"x-ring-version", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"}
)  # fmt: skip
"""Fields that nobody can strip by nominating them in Connection."""


class RequestHead:
    """A parsed request head, sorted: what passes, what frames, what the decision may look at."""

    __slots__ = (
        "chunked", "connection", "cookie", "forwarded", "forwarded_for", "forwarded_host", "forwarded_proto", "host",
        "length", "request_id", "wanted",
    )  # fmt: skip

    def __init__(self) -> None:
        self.forwarded: list[bytes] = []
        self.host: bytes | None = None
        self.cookie = b""
        self.wanted: dict[bytes, bytes] = {}
        self.length: int | None = None
        self.chunked = False
        self.connection: bytes | None = None
        self.request_id = b""
        self.forwarded_for = b""
        self.forwarded_proto = b""
        self.forwarded_host = b""


class ResponseHead:
    """A parsed response head, sorted."""

    __slots__ = ("chunked", "connection", "forwarded", "length")

    def __init__(self) -> None:
        self.forwarded: list[bytes] = []
        self.length: int | None = None
        self.chunked = False
        self.connection: bytes | None = None


_USUAL_OPTIONS: Final = frozenset({b"keep-alive", b"close"})


class Names(dict[bytes, Kind | None]):
    """Field name, as written → its kind; None for a name that is only passed on, which is nearly every one.

    One look-up instead of a lower-casing and two look-ups per field. Bounded: names come from strangers.
    """

    LIMIT: Final = 1024
    LONGEST: Final = 64

    def __init__(self, kinds: Mapping[bytes, Kind], wanted: frozenset[bytes] = frozenset()) -> None:
        super().__init__()
        self._kinds = kinds
        self.wanted = wanted
        """Lower-case names that rules and identities ask for."""

    def __missing__(self, name: bytes) -> Kind | None:
        lower = name.lower()
        kind = self._kinds.get(lower)
        if kind is None and lower in self.wanted:
            kind = Kind.WANTED
        if len(self) < self.LIMIT and len(name) <= self.LONGEST:
            self[name] = kind
        return kind


class UnknownCodingError(FramingError):
    """A transfer coding other than a single chunked (RFC 9112 §6.1)."""


def sort_request(fields: Fields, names: Names) -> RequestHead:
    """Sort a request's fields; the values of ``names.wanted`` are kept for the decision.

    Raises FramingError where two readers could disagree on the end of the message or on its host.
    """
    head = RequestHead()
    forwarded = head.forwarded
    for name, value in fields:
        kind = names[name]
        if kind is None:
            forwarded += (name, b": ", value, b"\r\n")
            continue
        lower = name.lower()
        if kind is Kind.WANTED:
            forwarded += (name, b": ", value, b"\r\n")
        elif kind is Kind.HOST:
            if head.host is not None:
                raise FramingError("more than one Host")
            head.host = value
            forwarded += (name, b": ", value, b"\r\n")
        elif kind is Kind.COOKIE:
            head.cookie = head.cookie + b"; " + value if head.cookie else value
            forwarded += (name, b": ", value, b"\r\n")
        elif kind is Kind.CONNECTION:
            head.connection = value if head.connection is None else head.connection + b"," + value
        elif kind is Kind.LENGTH:
            _length(head, value)
        elif kind is Kind.CODING:
            _coding(head, value)
        elif kind is Kind.REQUEST_ID:
            head.request_id = value
        elif kind is Kind.FORWARDED_FOR:
            head.forwarded_for = head.forwarded_for + b", " + value if head.forwarded_for else value
        elif kind is Kind.FORWARDED_PROTO:
            head.forwarded_proto = value
        elif kind is Kind.FORWARDED_HOST:
            head.forwarded_host = value
        if lower in names.wanted:
            known = head.wanted.get(lower)
            head.wanted[lower] = value if known is None else known + b", " + value
    if head.chunked and head.length is not None:
        raise FramingError("both Content-Length and Transfer-Encoding")
    if head.connection is not None and head.connection.lower() not in _USUAL_OPTIONS:
        head.forwarded = _without(forwarded, connection_options(head.connection) - PROTECTED)
    return head


def sort_response(fields: Fields) -> ResponseHead:
    """Sort a response's fields. Raises FramingError when its end is ambiguous."""
    head = ResponseHead()
    forwarded = head.forwarded
    for name, value in fields:
        kind = _RESPONSE_NAMES[name]
        if kind is None:
            forwarded += (name, b": ", value, b"\r\n")
        elif kind is Kind.CONNECTION:
            head.connection = value if head.connection is None else head.connection + b"," + value
        elif kind is Kind.LENGTH:
            _length(head, value)
        elif kind is Kind.CODING:
            _coding(head, value)
    if head.chunked and head.length is not None:
        raise FramingError("both Content-Length and Transfer-Encoding")
    if head.connection is not None and head.connection.lower() not in _USUAL_OPTIONS:
        head.forwarded = _without(forwarded, connection_options(head.connection) - PROTECTED)
    return head


_RESPONSE_NAMES: Final = Names(RESPONSE_KINDS)


def _length(head: RequestHead | ResponseHead, value: bytes) -> None:
    if head.length is not None:
        raise FramingError("more than one Content-Length")
    head.length = content_length(value)


def _coding(head: RequestHead | ResponseHead, value: bytes) -> None:
    if head.chunked or value.lower() != b"chunked":
        raise UnknownCodingError("a transfer coding other than a single chunked")
    head.chunked = True


def stripped(fields: Fields) -> Fields:
    """The same fields without white space behind their values (RFC 9110 §5.5), which llhttp leaves there."""
    return [(name, value.rstrip(b" \t")) for name, value in fields]


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


def _without(forwarded: Iterable[bytes], nominated: set[bytes]) -> list[bytes]:
    kept: list[bytes] = []
    parts = iter(forwarded)
    for name, colon, value, end in zip(parts, parts, parts, parts, strict=True):
        if name.lower() not in nominated:
            kept += (name, colon, value, end)
    return kept


def bare_host(value: bytes) -> bytes:
    """A Host value in lower case and without its port; brackets of an IPv6 address go too."""
    value = value.lower()
    if value[:1] == b"[":
        return value[1 : value.find(b"]")]
    colon = value.find(b":")
    return value if colon < 0 else value[:colon]


def origin_form(target: bytes, head: RequestHead) -> bytes:
    """The origin form of an absolute-form target, whose authority wins over Host (RFC 9112 §3.2.2).

    ``*`` stays as it is; anything else gives an empty answer.
    """
    if target == b"*":
        return target
    scheme, separator, after = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return b""
    slash = min((i for i in (after.find(b"/"), after.find(b"?")) if i >= 0), default=len(after))
    authority, path = after[:slash], after[slash:]
    if not authority or b"@" in authority:
        return b""
    for i in range(0, len(head.forwarded), 4):
        if head.forwarded[i].lower() == b"host":
            head.forwarded[i + 2] = authority
    if head.host is None:
        head.forwarded += (b"Host", b": ", authority, b"\r\n")
    head.host = authority
    return path if path[:1] == b"/" else b"/" + path


def forwarded_by_trusted(head: RequestHead, address: bytes) -> bytes:
    """X-Forwarded-* appended to what a trusted proxy says; for everybody else they are made anew."""
    before = head.forwarded_for + b", " if head.forwarded_for else b""
    return b"X-Forwarded-For: %b%b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (
        before, address, head.forwarded_proto or b"http", head.forwarded_host or head.host or b"",
    )  # fmt: skip
