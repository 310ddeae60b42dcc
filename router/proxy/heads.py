"""Message heads, read strictly (RFC 9112 §2–5): each line is held against the grammar once, and then it is known.

Lines repeat: the same agent, host, paths and answers come again and again, while only a few (a user, a trace) are new.
So a head is split at its line ends, each line is looked up among those seen lately, and only a new one is parsed
(``lines``). There is no lenient mode: a line that is not in the grammar is an error, and what is passed on is what was
understood. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from router.core.request import NOTHING, UNKNOWN, Request
from router.core.spec import LimitsSpec
from router.proxy.forwarding import (
    CARRIED,
    CODING,
    CONNECTION,
    COOKIE,
    DATE,
    DROP,
    EXPECT,
    FORWARDED,
    HOST,
    LENGTH,
    MAX_FORWARDS,
    REQUEST_ID,
    REQUEST_KINDS,
    RESPONSE_KINDS,
    UPGRADE,
    connection_options,
    is_strippable,
    split_absolute,
)
from router.proxy.grammar import TOKEN, ExpectationError, FramingError, TooManyFieldsError, UnknownCodingError
from router.proxy.lines import (
    Field,
    FieldJudge,
    Lines,
    RequestLine,
    StartJudge,
    StatusLine,
    checked_host,
    field_name,
    judge_status_line,
)

if TYPE_CHECKING:
    from router.trust.passes import Pass

MAX_RESPONSE_FIELDS: Final = 200
_LIMITS: Final = LimitsSpec()
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_USUAL_OPTIONS: Final = frozenset({b"keep-alive", b"close"})


class Carried:
    """What a request says of the ring it should be in, true or not; ``proofs`` finds out.

    ``fields`` are X-Ring, X-Ring-Pass, X-Ring-Override and baggage by their lower-case names. The cookie of a pass
    stays where it is.
    """

    __slots__ = ("fields", "held", "journey", "linked", "others")

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.held: Pass | None = None
        """The pass that holds."""
        self.linked = b""
        """The pass that stood in the query."""
        self.journey = b""
        """Our member of baggage where it is not the one of this service's ring: it goes on as it came."""
        self.others = b""
        """The other members of baggage."""


class RequestHead(Request):
    """A request head, sorted: what passes, what frames, what the decision may look at.

    ``lines`` are the request line and the fields to pass on, normalised, without their line ends. ``authority`` is the
    Host as the client wrote it. ``said`` holds Forwarded, X-Forwarded-* and X-Real-IP by their lower-case names.
    ``length`` is -1 where there is none, ``max_forwards`` is the field. ``carried`` is what it says of its ring,
    if it says anything.
    """

    __slots__ = (
        "authority", "carried", "chunked", "connection", "expects", "is_special", "length", "lines", "max_forwards",
        "request_id", "said", "start", "upgrade",
    )  # fmt: skip

    def __init__(self, start: RequestLine, lines: list[bytes]) -> None:
        self.host = b""
        self.authority = b""
        self.path = start.path
        self.headers = {}
        self.cookie = b""
        self.method = start.method
        self.query = self.client = b""
        self.is_trusted = False
        self.key = None
        self.now = 0.0
        self.claims = self.certificate = NOTHING
        self.override = self.propagated = ""
        self.digest = UNKNOWN
        self.start = start
        self.lines = lines
        self.length = -1
        self.chunked = False
        self.connection: bytes | None = None
        self.request_id = b""
        self.said: dict[bytes, bytes] | None = None
        self.upgrade: bytes | None = None
        self.max_forwards: Field | None = None
        self.expects = False
        self.is_special = False
        """Whether there is an upgrade, an expectation, a count of hops or a linked pass: worth only one look."""
        self.carried: Carried | None = None


class RequestReader:
    """Reads request heads; knows the lines seen lately and the names that the snapshot asks for."""

    __slots__ = ("_fields", "_most", "_starts", "limits", "serves_trace", "wanted")

    def __init__(
        self, wanted: frozenset[bytes] = frozenset(), limits: LimitsSpec = _LIMITS, *, serves_trace: bool = False
    ) -> None:
        self.wanted = wanted
        self.limits = limits
        self.serves_trace = serves_trace
        self._most = limits.fields + 1
        self._starts: Lines[RequestLine] = Lines(StartJudge(limits.uri_bytes, serves_trace=serves_trace))
        self._fields: Lines[Field | None] = Lines(FieldJudge(REQUEST_KINDS, wanted))

    def read(self, data: bytes) -> RequestHead:
        """Sort a head, given without the empty line at its end.

        Raises FramingError where the grammar is broken, or where two readers could disagree on the end of the message
        or on its host.
        """
        lines = data.split(b"\r\n")
        if len(lines) > self._most:
            raise TooManyFieldsError("too many fields")
        start = self._starts.now[lines[0]]
        lines[0] = start.line
        head = RequestHead(start, lines)
        headers, fields = head.headers, self._fields.now
        if start.has_pass:
            head.is_special = True
            head.carried = Carried()
        coding: bytes | None = None
        has_host = False
        for line in lines[1:]:
            field = fields[line]
            if field is None:
                continue
            kind = field.kind
            if kind == HOST:
                if has_host:
                    raise FramingError("more than one Host")
                has_host = True
                head.host = field.host
                head.authority = field.value
            elif kind == COOKIE:
                if field.number > 0 and head.carried is None:
                    head.carried = Carried()
                head.cookie = head.cookie + b"; " + field.value if head.cookie else field.value
            elif kind == LENGTH:
                if head.length >= 0:
                    raise FramingError("more than one Content-Length")
                head.length = field.number
            elif kind == MAX_FORWARDS:
                if head.max_forwards is not None:
                    raise FramingError("more than one Max-Forwards")
                head.max_forwards = field
                head.is_special = True
            elif kind >= DROP:
                lines.remove(line)
                if kind == CONNECTION:
                    head.connection = field.value if head.connection is None else head.connection + b"," + field.value
                elif kind == REQUEST_ID:
                    if _REQUEST_ID.fullmatch(field.value):
                        head.request_id = field.value
                elif kind == CODING:
                    coding = field.value if coding is None else coding + b"," + field.value
                elif kind == FORWARDED:
                    if head.said is None:
                        head.said = {}
                    _add(head.said, field)
                elif kind == UPGRADE:
                    head.upgrade = field.value if head.upgrade is None else head.upgrade + b"," + field.value
                    head.is_special = True
                elif kind == EXPECT and not start.is_http10:  # RFC 9110 §10.1.1: ignored in HTTP/1.0
                    if field.value.lower() != b"100-continue":
                        raise ExpectationError("an expectation other than 100-continue")
                    head.expects = head.is_special = True
                elif kind == CARRIED:
                    if head.carried is None:
                        head.carried = Carried()
                    _add(head.carried.fields, field)
            if field.is_wanted:
                if field.name in headers:
                    _add(headers, field)
                else:
                    headers[field.name] = field.value
            if field.line is not None and kind < DROP:
                lines[lines.index(line)] = field.line
        if coding is not None:
            _check_coding(coding, head.length, is_http10=start.is_http10)
            head.chunked = True
        if not has_host and not start.is_http10:
            raise FramingError("no Host")
        if head.connection is not None and head.connection not in _USUAL_OPTIONS:
            # What the decision is made by is not theirs to take away: the next router has to find it as well.
            _strip_nominated(lines, head.connection, self.wanted)
        return head


class ResponseHead:
    """A response head, sorted; ``lines`` as in ``RequestHead``. ``length`` is -1 where there is none."""

    __slots__ = ("chunked", "connection", "has_date", "is_http10", "length", "lines", "status", "upgrade")

    def __init__(self, start: StatusLine, lines: list[bytes]) -> None:
        self.status = start.status
        self.is_http10 = start.is_http10
        self.lines = lines
        self.length = -1
        self.chunked = False
        self.connection: bytes | None = None
        self.upgrade: bytes | None = None
        self.has_date = False


_status_lines: Final = Lines(judge_status_line)
_response_fields: Final = Lines(FieldJudge(RESPONSE_KINDS, forgives_space=True))


def read_response(data: bytes) -> ResponseHead:
    """Sort a response head, given without the empty line at its end. Raises FramingError."""
    lines = data.split(b"\r\n")
    if len(lines) > MAX_RESPONSE_FIELDS + 1:
        raise TooManyFieldsError("too many fields")
    start = _status_lines.now[lines[0]]
    lines[0] = start.line
    head = ResponseHead(start, lines)
    fields = _response_fields.now
    coding: bytes | None = None
    for line in lines[1:]:
        field = fields[line]
        if field is None:
            continue
        kind = field.kind
        if kind == LENGTH:
            if head.length >= 0:
                raise FramingError("more than one Content-Length")
            head.length = field.number
        elif kind == DATE:
            head.has_date = True
        elif kind >= DROP:
            lines.remove(line)
            if kind == CONNECTION:
                head.connection = field.value if head.connection is None else head.connection + b"," + field.value
            elif kind == CODING:
                coding = field.value if coding is None else coding + b"," + field.value
            elif kind == UPGRADE:
                head.upgrade = field.value
            continue
        if field.line is not None:
            lines[lines.index(line)] = field.line
    if coding is not None:
        _check_coding(coding, head.length, is_http10=start.is_http10)
        head.chunked = True
    if head.connection is not None and head.connection not in _USUAL_OPTIONS:
        _strip_nominated(lines, head.connection)
    return head


def _add(values: dict[bytes, bytes], field: Field) -> None:
    """RFC 9110 §5.3: a field that comes twice is one list."""
    known = values.get(field.name)
    values[field.name] = field.value if known is None else known + b", " + field.value


def _check_coding(value: bytes, length: int, *, is_http10: bool) -> None:
    """Raises FramingError unless the Transfer-Encoding is ``chunked`` and nothing else frames the message."""
    if length >= 0:
        raise FramingError("both Content-Length and Transfer-Encoding")
    if is_http10:
        raise FramingError("Transfer-Encoding in HTTP/1.0")  # RFC 9112 §6.1
    if value.lower() == b"chunked":
        return
    *before, last = [name.strip(b" \t") for name in value.lower().split(b",")]
    if last == b"chunked" and b"chunked" not in before and all(TOKEN.fullmatch(name) for name in before):
        raise UnknownCodingError("a transfer coding that is not known here")
    raise FramingError("chunked is not the final transfer coding, or there twice")  # RFC 9112 §6.3


def _strip_nominated(lines: list[bytes], connection: bytes, kept: frozenset[bytes] = frozenset()) -> None:
    """Remove the fields that a Connection field nominates (RFC 9110 §7.6.1), but for those nobody can strip."""
    nominated = {name for name in connection_options(connection) if is_strippable(name)} - kept
    lines[1:] = [line for line in lines[1:] if field_name(line) not in nominated]


def values(lines: list[bytes], name: bytes) -> list[bytes]:
    """The values of the field ``name`` (lower case), in order. Not for the warm path."""
    return [line.partition(b":")[2].strip(b" \t") for line in lines[1:] if field_name(line) == name]


def value_of(lines: list[bytes], name: bytes) -> bytes:
    """All values of a field as one list, empty without one (RFC 9110 §5.3)."""
    return b", ".join(values(lines, name))


def has_field(lines: list[bytes], name: bytes) -> bool:
    return any(field_name(line) == name for line in lines[1:])


def replace_field(lines: list[bytes], name: bytes, line: bytes | None) -> None:
    """Put ``line`` in the place of the field ``name`` (lower case), or remove it for None. Not for the warm path."""
    for i in range(1, len(lines)):
        if field_name(lines[i]) == name:
            if line is None:
                del lines[i]
            else:
                lines[i] = line
            return
    if line is not None:
        lines.append(line)


def to_origin_form(head: RequestHead) -> None:
    """Rewrite an absolute-form target, whose authority wins over Host (RFC 9112 §3.2.2). ``*`` stays as it is.

    Raises FramingError for anything else.
    """
    start = head.start
    if start.target == b"*":
        if start.method != b"OPTIONS":
            raise FramingError("an asterisk without OPTIONS")  # RFC 9112 §3.2.4
        return
    split = split_absolute(start.target)
    if split is None:
        raise FramingError("malformed request target")
    head.authority, target = split
    head.host = checked_host(head.authority)
    if start.method == b"OPTIONS" and not target:
        target = b"*"  # RFC 9112 §3.2.4: the last proxy says it so
    head.start = RequestLine(start.method, target or b"/", is_http10=start.is_http10)
    head.path = head.start.path
    head.lines[0] = head.start.line
    replace_field(head.lines, b"host", b"Host: " + head.authority)
