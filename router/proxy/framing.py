"""Where a message body ends (RFC 9112 §6): by length, by chunks, or with the connection.

Heads are read in `heads`; bodies are framed here, so that a large body is never copied through a parser and a
message boundary is known to the byte. A reader is fed what arrived and returns the payload in it; once ``done`` is
true, ``rest`` holds the bytes after the body. Nothing here writes or waits.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from router.proxy.grammar import BARE_LF, FIELD_LINE, TOKEN_FORM, FramingError

MAX_CHUNK_LINE: Final = 1024
"""Bytes of a chunk-size line with extensions; RFC 9112 §7.1.1 asks recipients to limit them."""
MAX_EXTENSIONS: Final = 16 * 1024
"""Bytes of all chunk extensions of a message: one in each chunk would be a body that nobody counts."""
MAX_TRAILERS: Final = 16 * 1024
"""Bytes of a trailer section."""

_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_EXTENSION: Final = (
    rb"[ \t]*+;[ \t]*+" + TOKEN_FORM + rb"(?:[ \t]*+=[ \t]*+(?:" + TOKEN_FORM + rb"|" + _QUOTED + rb"))?+"
)
_CHUNK_LINE: Final = re.compile(rb"(0*+[1-9A-Fa-f][0-9A-Fa-f]{0,14}|0++)((?:" + _EXTENSION + rb")*+)\r\n")
_CHUNK_BEGUN: Final = re.compile(rb"[0-9A-Fa-f]++(?:[ \t;][^\r\n]*+)?+\r?")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_LOCAL: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"host", b"connection", b"trailer", b"te", b"upgrade", b"keep-alive",
     b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"content-type", b"content-encoding",
     b"content-range", b"authorization", b"www-authenticate", b"authentication-info", b"proxy-authentication-info",
     b"cookie", b"set-cookie", b"cache-control", b"expect", b"max-forwards", b"range", b"age", b"expires", b"date",
     b"location", b"retry-after", b"vary", b"warning", b"pragma", b"forwarded", b"via", b"x-request-id",
     b"x-real-ip",
     b"baggage"}
)  # fmt: skip
"""Fields that may not stand in trailers, since somebody has acted on their absence already (RFC 9110 §6.5.1)."""


class BodyReader(Protocol):
    """What the three kinds of body have in common."""

    done: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes:
        """Payload in ``data``. Raises FramingError."""


class LengthBody:
    """A body of ``remaining`` bytes (RFC 9112 §6.2)."""

    __slots__ = ("done", "remaining", "rest")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        left = self.remaining - len(data)
        if left > 0:
            self.remaining = left
            return data
        self.done = True
        if left == 0:
            self.remaining = 0
            return data
        self.rest = data[self.remaining :]
        data = data[: self.remaining]
        self.remaining = 0
        return data


class UntilClose:
    """A response body that ends with the connection (RFC 9112 §6.3, last case)."""

    __slots__ = ("done", "rest")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        return data


class ChunkedBody:
    """A chunked body (RFC 9112 §7.1), strictly read: CRLF only, bounded lines, extensions read and dropped.

    ``trailers`` are the field lines to pass on, each with its CRLF.
    """

    __slots__ = ("_buffer", "_extensions", "_in_trailers", "_left", "_trailer_bytes", "done", "rest", "trailers")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # bytes of the current chunk still to come, its CRLF included; 0 at a size line
        self._in_trailers = False
        self._trailer_bytes = 0
        self._extensions = 0
        self.done = False
        self.rest = b""
        self.trailers = b""

    def feed(self, data: bytes) -> bytes:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        at, size, payload = 0, len(data), []
        while at < size:
            if self._in_trailers:
                self._trailers(data[at:])
                break
            if self._left == 0:
                line = _CHUNK_LINE.match(data, at, at + MAX_CHUNK_LINE)
                if line is None:
                    self._keep_line(data[at:])
                    break
                at = line.end()
                length = int(line[1], 16)
                self._extensions += len(line[2])
                if self._extensions > MAX_EXTENSIONS:
                    raise FramingError("too many chunk extensions")
                self._in_trailers = length == 0
                self._left = length + 2 if length else 0
            elif self._left > 2:
                piece = data[at : at + self._left - 2]
                payload.append(piece)
                at += len(piece)
                self._left -= len(piece)
            else:
                end = data[at : at + self._left]
                if end != b"\r\n"[2 - self._left : 2 - self._left + len(end)]:
                    raise FramingError("chunk data is not followed by CRLF")
                at += len(end)
                self._left -= len(end)
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _keep_line(self, line: bytes) -> None:
        """Hold back an unfinished size line; refuse one that can no longer become good."""
        if len(line) > MAX_CHUNK_LINE or not _CHUNK_BEGUN.fullmatch(line):
            raise FramingError("malformed chunk size")
        self._buffer = line

    def _trailers(self, data: bytes) -> None:
        at = 0
        while True:
            end = data.find(b"\r\n", at)
            if end < 0:
                data = data[at:]
                if BARE_LF.search(data) or len(data) + self._trailer_bytes > MAX_TRAILERS:
                    raise FramingError("malformed trailer section")
                self._buffer = data
                return
            line, at = data[at:end], end + 2
            if not line:
                self.done = True
                self.rest = data[at:]
                return
            self._trailer_bytes += len(line)
            field = FIELD_LINE.fullmatch(line)
            if field is None or self._trailer_bytes > MAX_TRAILERS:
                raise FramingError("malformed trailer field")
            if not _is_local(field[1].lower().replace(b"_", b"-")):
                self.trailers += b"%b: %b\r\n" % (field[1], field[2].strip(b" \t"))


def _is_local(name: bytes) -> bool:
    return name in _LOCAL or name[:3] == b"if-" or name[:6] == b"x-ring" or name[:12] == b"x-forwarded-"


def content_length(value: bytes) -> int:
    """A Content-Length value in bytes. Raises FramingError unless it is digits alone (RFC 9110 §8.6)."""
    if not _LENGTH.fullmatch(value):
        raise FramingError("malformed Content-Length")
    return int(value)


def chunk(data: bytes) -> bytes:
    """One chunk; ``data`` must not be empty, an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: bytes) -> bytes:
    """The end of a chunked body; each trailer line has its CRLF."""
    return b"0\r\n%b\r\n" % trailers


def trailers_of(body: BodyReader) -> bytes:
    """The trailer lines that a finished body passes on."""
    return body.trailers if isinstance(body, ChunkedBody) else b""
