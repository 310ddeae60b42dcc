"""A reader of messages that is not the router's: what it cannot read without guessing, it refuses.

It reads what the router wrote, to a backend or to a client, so it accepts no more than RFC 9112 lets senders make.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
_FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class ProtestError(Exception):
    """The router wrote something that no sender may write."""


@dataclass(slots=True)
class Message:
    """A request or a response. ``fields`` and ``trailers`` have names in lower case."""

    start: bytes
    first: bytes
    """The method, or the status."""
    second: bytes
    """The target, or the reason."""
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    framing: str = "none"
    is_whole: bool = False
    connection: int = -1
    """Which of the backend's connections it came by."""

    def values(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.fields if known == name]

    @property
    def status(self) -> int:
        return int(self.first)


def read_requests(data: bytes, at: int) -> tuple[Message | None, int]:
    """The request that begins at ``at`` and where it ends; ``is_whole`` is false while its body is not there.

    None while its head is not there. Raises ProtestError.
    """
    message, at = _head(data, at, _REQUEST_LINE)
    if message is None:
        return None, at
    return message, _body(message, data, at)


def read_responses(data: bytes, methods: tuple[bytes, ...], *, ended: bool, reset: bool) -> tuple[list[Message], bytes]:
    """All responses to requests with these methods (GET where they do not reach), and what is behind the last one.

    Raises ProtestError.
    """
    at, answered = 0, 0
    found: list[Message] = []
    while at < len(data):
        message, at = _head(data, at, _STATUS_LINE)
        if message is None:
            break
        found.append(message)
        status = message.status
        if status < 200:
            if message.values(b"content-length") or message.values(b"transfer-encoding"):
                raise ProtestError(f"an interim response with a length: {message.start!r}")
            message.is_whole = True
            if status == 101:
                break
            continue
        method = methods[answered] if answered < len(methods) else b"GET"
        answered += 1
        if method == b"HEAD" or status in (204, 304):
            message.is_whole = True
            if status == 204 and (message.values(b"content-length") or message.values(b"transfer-encoding")):
                raise ProtestError("a 204 with a length")
        elif message.values(b"content-length") or message.values(b"transfer-encoding"):
            at = _body(message, data, at)
        else:
            message.framing, message.body, at = "close", data[at:], len(data)
            message.is_whole = ended and not reset
        if not message.is_whole:
            break
    return found, data[at:]


def _head(data: bytes, at: int, start_line: re.Pattern[bytes]) -> tuple[Message | None, int]:
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        return None, at
    lines = data[at:end].split(b"\r\n")
    match = start_line.fullmatch(lines[0])
    if match is None:
        raise ProtestError(f"malformed start line {lines[0]!r}")
    return Message(lines[0], match[1], match[2], [_field(line) for line in lines[1:]]), end + 4


def _field(line: bytes) -> tuple[bytes, bytes]:
    match = _FIELD_LINE.fullmatch(line)
    if match is None:
        raise ProtestError(f"malformed field line {line!r}")
    return match[1].lower(), match[2]


def _body(message: Message, data: bytes, at: int) -> int:
    """Fill in the body that begins at ``at``; where it ends."""
    codings, lengths = message.values(b"transfer-encoding"), message.values(b"content-length")
    if codings:
        if lengths or [coding.lower() for coding in codings] != [b"chunked"]:
            raise ProtestError(f"framed twice or strangely: {codings!r} {lengths!r}")
        message.framing = "chunked"
        return _chunks(message, data, at)
    if lengths:
        if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
            raise ProtestError(f"Content-Length {lengths!r}")
        end = at + int(lengths[0])
        message.framing, message.body, message.is_whole = "length", data[at:end], end <= len(data)
        return min(end, len(data))
    message.is_whole = True
    return at


def _chunks(message: Message, data: bytes, at: int) -> int:
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return at
        match = _CHUNK_LINE.fullmatch(data, at, end)
        if match is None:
            raise ProtestError(f"malformed chunk line {data[at:end]!r}")
        size, at = int(match[1], 16), end + 2
        if size == 0:
            return _trailers(message, data, at)
        message.body += data[at : at + size]
        if len(data) < at + size + 2:
            return at
        if data[at + size : at + size + 2] != b"\r\n":
            raise ProtestError("chunk data without its CRLF")
        at += size + 2


def _trailers(message: Message, data: bytes, at: int) -> int:
    while (end := data.find(b"\r\n", at)) >= 0:
        if end == at:
            message.is_whole = True
            return end + 2
        message.trailers.append(_field(data[at:end]))
        at = end + 2
    return at
