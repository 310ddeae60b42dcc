"""Message heads, read strictly (RFC 9112 §2–5): each line is held against the grammar once, and then it is known.

Lines repeat: the same agent, host, paths and answers come again and again, while only a few (a user, a trace) are new.
So a head is split at its line ends, each line is looked up among those seen lately, and only a new one is parsed. There
is no lenient mode: a line that is not in the grammar is an error, and what is passed on is what was understood. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from router.core.rules import Request
from router.proxy.forwarding import (
    CODING,
    CONNECTION,
    COOKIE,
    DROP,
    FORWARDED,
    HOST,
    LENGTH,
    PASS,
    PROTECTED,
    REQUEST_ID,
    REQUEST_KINDS,
    RESPONSE_KINDS,
    bare_host,
    connection_options,
    split_absolute,
)
from router.proxy.framing import FramingError, content_length
from router.telemetry.access_log import json_request

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]++) HTTP/([0-9]\.[0-9])")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*+))?")
_FIELD_LINE: Final = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*+)")
"""RFC 9112 §3, §4, §5; possessive, so that no line can make the matcher go back and forth."""
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]++\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*+)(?::[0-9]*+)?")
"""RFC 9110 §7.2, RFC 3986 §3.2.2."""
BARE_LF: Final = re.compile(rb"(?<!\r)\n")
MAX_FIELDS: Final = 200
"""Fields of a head. Envoy and Apache take 100, HAProxy 101; nginx limits their bytes alone."""
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_USUAL_OPTIONS: Final = frozenset({b"keep-alive", b"close"})

Meaning = TypeVar("Meaning")


class UnknownCodingError(FramingError):
    """A transfer coding other than a single chunked (RFC 9112 §6.1)."""


class UnknownVersionError(FramingError):
    """A major version that is not ours (RFC 9110 §2.5)."""


class RefusedMethodError(FramingError):
    """A method that is not for this proxy."""


class TooManyFieldsError(FramingError):
    """More than ``MAX_FIELDS`` fields."""


class Lines(dict[bytes, Meaning], Generic[Meaning]):
    """Lines seen lately and what they mean; a new one is judged. Two generations, so that what recurs stays known.

    Bounded, since lines come from strangers: ``LIMIT`` lines of ``LONGEST`` bytes in each generation.
    """

    LIMIT: Final = 4096
    LONGEST: Final = 256

    def __init__(self, judge: Callable[[bytes], Meaning]) -> None:
        super().__init__()
        self._judge = judge
        self._older: dict[bytes, Meaning] = {}

    def __missing__(self, line: bytes) -> Meaning:
        """Raises FramingError when the line is not in the grammar."""
        meaning = self._older[line] if line in self._older else self._judge(line)
        if len(line) <= self.LONGEST:
            if len(self) >= self.LIMIT:
                self._older = dict(self)
                self.clear()
            self[line] = meaning
        return meaning


class RequestLine:
    """A request line. ``target`` as it came, ``path`` without its query; ``line`` is what the backend gets."""

    __slots__ = ("_json", "is_http10", "line", "method", "path", "target")

    def __init__(self, method: bytes, target: bytes, *, is_http10: bool) -> None:
        self.method = method
        self.target = target
        self.path = target.partition(b"?")[0]
        self.is_http10 = is_http10
        self.line = b"%b %b HTTP/1.1" % (method, target)
        self._json = b""

    @property
    def json(self) -> bytes:
        """What the access log says of it; made once, for as long as the line is remembered."""
        if not self._json:
            self._json = json_request(self.method, self.target)
        return self._json


class StatusLine:
    """A status line; ``line`` is what the client gets."""

    __slots__ = ("is_http10", "line", "status")

    def __init__(self, status: int, reason: bytes, *, is_http10: bool) -> None:
        self.status = status
        self.is_http10 = is_http10
        self.line = b"HTTP/1.1 %d %b" % (status, reason)


class Field:
    """A field line that does more than pass. ``name`` is in lower case.

    ``line`` is how it is passed on, if it is; None for as it came. ``length`` is that of a Content-Length, ``host`` the
    bare host of a Host.
    """

    __slots__ = ("host", "is_wanted", "kind", "length", "line", "name", "value")

    def __init__(self, kind: int, name: bytes, value: bytes, line: bytes | None, is_wanted: bool) -> None:
        self.kind = kind
        self.name = name
        self.value = value
        self.line = line
        self.is_wanted = is_wanted
        self.length = content_length(value) if kind == LENGTH else -1
        self.host = checked_host(value) if kind == HOST else b""


def checked_host(value: bytes) -> bytes:
    """The bare host of a Host value or an authority. Raises FramingError when it is none (RFC 9112 §3.2)."""
    if not _HOST.fullmatch(value):
        raise FramingError("malformed host")
    return bare_host(value)


def judge_request_line(line: bytes) -> RequestLine:
    """Raises FramingError, and of its kind UnknownVersionError and RefusedMethodError."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise FramingError("malformed request line")
    method, target, version = match.groups()
    if version not in (b"1.1", b"1.0"):
        raise UnknownVersionError("a version other than HTTP/1.1 and HTTP/1.0")
    if method == b"CONNECT":
        raise RefusedMethodError("CONNECT is for tunnels, and this is none")
    return RequestLine(method, target, is_http10=version == b"1.0")


def judge_status_line(line: bytes) -> StatusLine:
    """Raises FramingError. The space before an empty reason is often forgotten, and harmless."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise FramingError("malformed status line")
    return StatusLine(int(match[2]), match[3] or b"", is_http10=match[1] == b"0")


class FieldJudge:
    """What a field line means, by its name; None for one that is only passed on, which is nearly every one."""

    __slots__ = ("_kinds", "wanted")

    def __init__(self, kinds: dict[bytes, int], wanted: frozenset[bytes] = frozenset()) -> None:
        self._kinds = kinds
        self.wanted = wanted
        """Lower-case names that rules and identities ask for."""

    def __call__(self, line: bytes) -> Field | None:
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise FramingError("malformed field line")
        name, spaced = match.groups()
        value = spaced.strip(b" \t")
        lower = name.lower()
        kind = self._kinds.get(lower, PASS)
        if kind == PASS and b"_" in lower and lower.replace(b"_", b"-") in self._kinds:
            kind = DROP  # a backend behind CGI or WSGI could not tell it from ours
        is_wanted = lower in self.wanted
        is_normal = len(spaced) == len(value) + 1 and spaced[:1] == b" "
        if is_normal and kind == PASS and not is_wanted:
            return None
        return Field(kind, lower, value, None if is_normal else b"%b: %b" % (name, value), is_wanted)


class RequestHead(Request):
    """A request head, sorted: what passes, what frames, what the decision may look at.

    ``lines`` are the request line and the fields to pass on, normalised, without their line ends. ``authority`` is the
    Host as the client wrote it. ``via_proxy`` holds X-Forwarded-* by their lower-case names.
    """

    __slots__ = ("authority", "chunked", "connection", "length", "lines", "request_id", "start", "via_proxy")

    def __init__(self, start: RequestLine, lines: list[bytes]) -> None:
        self.host = b""
        self.authority = b""
        self.path = start.path
        self.headers = {}
        self.cookie = b""
        self.start = start
        self.lines = lines
        self.length = -1
        self.chunked = False
        self.connection: bytes | None = None
        self.request_id = b""
        self.via_proxy: dict[bytes, bytes] | None = None


class RequestReader:
    """Reads request heads; knows the lines seen lately and the names that the snapshot asks for."""

    __slots__ = ("_fields", "_starts", "wanted")

    def __init__(self, wanted: frozenset[bytes] = frozenset()) -> None:
        self.wanted = wanted
        self._starts: Lines[RequestLine] = Lines(judge_request_line)
        self._fields: Lines[Field | None] = Lines(FieldJudge(REQUEST_KINDS, wanted))

    def read(self, data: bytes) -> RequestHead:
        """Sort a head, given without the empty line at its end.

        Raises FramingError where the grammar is broken, or where two readers could disagree on the end of the message
        or on its host.
        """
        lines = data.split(b"\r\n")
        if len(lines) > MAX_FIELDS:
            raise TooManyFieldsError("too many fields")
        start = self._starts[lines[0]]
        lines[0] = start.line
        head = RequestHead(start, lines)
        headers, fields = head.headers, self._fields
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
                head.cookie = head.cookie + b"; " + field.value if head.cookie else field.value
            elif kind == LENGTH:
                if head.length >= 0:
                    raise FramingError("more than one Content-Length")
                head.length = field.length
            elif kind >= DROP:
                lines.remove(line)
                if kind == CONNECTION:
                    head.connection = field.value if head.connection is None else head.connection + b"," + field.value
                elif kind == REQUEST_ID:
                    if _REQUEST_ID.fullmatch(field.value):
                        head.request_id = field.value
                elif kind == CODING:
                    _coding(field.value, head.chunked)
                    head.chunked = True
                elif kind == FORWARDED:
                    if head.via_proxy is None:
                        head.via_proxy = {}
                    _add(head.via_proxy, field)
            if field.is_wanted:
                if field.name in headers:
                    _add(headers, field)
                else:
                    headers[field.name] = field.value
            if field.line is not None and kind < DROP:
                lines[lines.index(line)] = field.line
        if head.chunked:
            if head.length >= 0:
                raise FramingError("both Content-Length and Transfer-Encoding")
            if start.is_http10:
                raise FramingError("Transfer-Encoding in HTTP/1.0")  # RFC 9112 §6.1
        if not has_host and not start.is_http10:
            raise FramingError("no Host")
        if head.connection is not None and head.connection not in _USUAL_OPTIONS:
            _strip_nominated(lines, head.connection)
        return head


class ResponseHead:
    """A response head, sorted; ``lines`` as in ``RequestHead``. ``length`` is -1 where there is none."""

    __slots__ = ("chunked", "connection", "is_http10", "length", "lines", "status")

    def __init__(self, start: StatusLine, lines: list[bytes]) -> None:
        self.status = start.status
        self.is_http10 = start.is_http10
        self.lines = lines
        self.length = -1
        self.chunked = False
        self.connection: bytes | None = None


_status_lines: Final = Lines(judge_status_line)
_response_fields: Final = Lines(FieldJudge(RESPONSE_KINDS))


def read_response(data: bytes) -> ResponseHead:
    """Sort a response head, given without the empty line at its end. Raises FramingError."""
    lines = data.split(b"\r\n")
    if len(lines) > MAX_FIELDS:
        raise TooManyFieldsError("too many fields")
    start = _status_lines[lines[0]]
    lines[0] = start.line
    head = ResponseHead(start, lines)
    fields = _response_fields
    for line in lines[1:]:
        field = fields[line]
        if field is None:
            continue
        kind = field.kind
        if kind == LENGTH:
            if head.length >= 0:
                raise FramingError("more than one Content-Length")
            head.length = field.length
        elif kind >= DROP:
            lines.remove(line)
            if kind == CONNECTION:
                head.connection = field.value if head.connection is None else head.connection + b"," + field.value
            elif kind == CODING:
                _coding(field.value, head.chunked)
                head.chunked = True
            continue
        if field.line is not None:
            lines[lines.index(line)] = field.line
    if head.chunked:
        if head.length >= 0:
            raise FramingError("both Content-Length and Transfer-Encoding")
        if start.is_http10:
            raise FramingError("Transfer-Encoding in HTTP/1.0")  # RFC 9112 §6.1
    if head.connection is not None and head.connection not in _USUAL_OPTIONS:
        _strip_nominated(lines, head.connection)
    return head


def _add(values: dict[bytes, bytes], field: Field) -> None:
    """RFC 9110 §5.3: a field that comes twice is one list."""
    known = values.get(field.name)
    values[field.name] = field.value if known is None else known + b", " + field.value


def _coding(value: bytes, is_chunked: bool) -> None:
    if is_chunked or value.lower() != b"chunked":
        raise UnknownCodingError("a transfer coding other than a single chunked")


def _strip_nominated(lines: list[bytes], connection: bytes) -> None:
    """Remove the fields that a Connection field nominates (RFC 9110 §7.6.1), but for those nobody can strip."""
    nominated = connection_options(connection) - PROTECTED
    lines[1:] = [line for line in lines[1:] if line.partition(b":")[0].lower() not in nominated]


def replace_field(lines: list[bytes], name: bytes, line: bytes | None) -> None:
    """Put ``line`` in the place of the field ``name`` (lower case), or remove it for None. Not for the warm path."""
    for i in range(1, len(lines)):
        if lines[i].partition(b":")[0].lower() == name:
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
        return
    split = split_absolute(start.target)
    if split is None:
        raise FramingError("malformed request target")
    head.authority, target = split
    head.host = checked_host(head.authority)
    head.start = RequestLine(start.method, target, is_http10=start.is_http10)
    head.path = head.start.path
    head.lines[0] = head.start.line
    replace_field(head.lines, b"host", b"Host: " + head.authority)
