"""Where a message body ends (RFC 9112 §6): by length, by chunks, or with the connection.

Heads are read in `heads`; bodies are framed here, so that a large body is never copied through a parser and a
message boundary is known to the byte. A reader is fed what arrived and returns the payload in it; once ``done`` is
true, ``rest`` holds the bytes after the body. Nothing here writes or waits.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

MAX_CHUNK_LINE: Final = 256
"""Bytes of a chunk-size line with extensions; RFC 9112 §7.1.1 asks recipients to limit them."""
MAX_TRAILERS: Final = 16 * 1024
"""Bytes of a trailer section."""

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class FramingError(ValueError):
    """The message cannot be framed; whoever sent it cannot be trusted with the connection any longer."""


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
    """A chunked body (RFC 9112 §7.1), strictly read: CRLF only, bounded lines, trailers read and dropped."""

    __slots__ = ("_buffer", "_in_trailers", "_left", "_trailer_bytes", "done", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # bytes of the current chunk still to come, its CRLF included; 0 at a size line
        self._in_trailers = False
        self._trailer_bytes = 0
        self.done = False
        self.rest = b""

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
                line = _CHUNK_LINE.match(data, at)
                if line is None:
                    self._keep_line(data[at:])
                    break
                at = line.end()
                length = int(line[1], 16)
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
        if b"\n" in line or len(line) > MAX_CHUNK_LINE or not re.match(rb"[0-9A-Fa-f]{1,15}(?:[ \t;\r]|$)", line):
            raise FramingError("malformed chunk size")
        self._buffer = line

    def _trailers(self, data: bytes) -> None:
        at = 0
        while True:
            end = data.find(b"\r\n", at)
            if end < 0:
                data = data[at:]
                if b"\n" in data or len(data) + self._trailer_bytes > MAX_TRAILERS:
                    raise FramingError("malformed trailer section")
                self._buffer = data
                return
            line, at = data[at:end], end + 2
            if not line:
                self.done = True
                self.rest = data[at:]
                return
            self._trailer_bytes += len(line)
            if b"\n" in line or b":" not in line or line[:1] in b" \t" or self._trailer_bytes > MAX_TRAILERS:
                raise FramingError("malformed trailer field")


def content_length(value: bytes) -> int:
    """A Content-Length value in bytes. Raises FramingError unless it is digits alone (RFC 9110 §8.6)."""
    if not _LENGTH.fullmatch(value):
        raise FramingError("malformed Content-Length")
    return int(value)


def chunk(data: bytes) -> bytes:
    """One chunk; ``data`` must not be empty, an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
