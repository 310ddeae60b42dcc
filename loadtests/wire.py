"""Just enough HTTP/1.1 and WebSocket for both ends of the soak test, without a line of the router's own code.

What is in a body follows from the request's target, so either end knows every byte that the other has to send.
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
import zlib
from typing import Final

MOST: Final = 1 << 16
"""Bytes of a body."""
PATTERN: Final = random.Random(20).randbytes(2 * MOST)
MARK: Final = b"X-Soak"
"""A field of each answer of the backend: the number of the request, and length and CRC-32 of the body it came with."""
CLOSE_FRAME: Final = b"\x88\x02\x03\xe8"
_LENGTH: Final = re.compile(rb"\r\nContent-Length: *(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\nTransfer-Encoding: *chunked", re.IGNORECASE)
_MARK: Final = re.compile(rb"\r\nX-Soak: *([^\r]*)", re.IGNORECASE)
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 §1.3."""


def payload(offset: int, size: int) -> bytes:
    return PATTERN[offset : offset + size]


def mark(number: bytes, body: bytes) -> bytes:
    """What the backend says of a request."""
    return b"%b %d %08x" % (number, len(body), zlib.crc32(body))


def chunked(body: bytes, cut: int) -> bytes:
    """In two chunks, cut anywhere; a chunk that would be empty is left out."""
    pieces = (piece for piece in (body[:cut], body[cut:]) if piece)
    return b"".join([*(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n"])


class Reader:
    """The messages of one connection, one at a time: ``head`` without its empty line, ``body`` without its framing.

    An answer that is neither framed nor bodiless is taken to have no body: a client of HTTP/1.1 never gets one that
    ends with the connection from this router.
    """

    __slots__ = ("_data", "_pieces", "_size", "body", "head")

    def __init__(self) -> None:
        self._data = b""
        self.next()

    def next(self) -> None:
        """Forget the message; what came behind it is still there."""
        self.head = self.body = b""
        self._size = 0
        self._pieces: list[bytes] = []

    @property
    def rest(self) -> bytes:
        """What has come and is not yet part of a whole message."""
        return self._data

    @property
    def seen(self) -> int:
        """Bytes there are of a body with a length."""
        return len(self._data) if self.head else 0

    def feed(self, data: bytes, *, is_bodiless: bool = False) -> bool:
        """Whether the message is whole now. ValueError for a chunk size that is none."""
        if self._data:
            data = self._data + data
        if not self.head:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._data = data
                return False
            self.head, data = data[:end], data[end + 4 :]
            self._size = 0 if is_bodiless else self._framing()
        self._data = data
        return self._whole() if self._size >= 0 else self._chunks()

    def _framing(self) -> int:
        """Bytes of the body; -1 for chunks."""
        if self.head[9:12] in (b"204", b"304") and self.head.startswith(b"HTTP/"):
            return 0
        if _CHUNKED.search(self.head):
            return -1
        length = _LENGTH.search(self.head)
        return int(length[1]) if length else 0

    def _whole(self) -> bool:
        if len(self._data) < self._size:
            return False
        self.body, self._data = self._data[: self._size], self._data[self._size :]
        return True

    def _chunks(self) -> bool:
        data, at = self._data, 0
        while (end := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:end], 16)
            if len(data) < end + size + 4:
                break
            self._pieces.append(data[end + 2 : end + 2 + size])
            at = end + size + 4
            if not size:
                self.body, self._data = b"".join(self._pieces), data[at:]
                return True
        self._data = data[at:]
        return False

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    @property
    def mark(self) -> bytes:
        found = _MARK.search(self.head)
        return found[1] if found else b""


# -- WebSocket (RFC 6455), messages of at most 125 bytes ---------------------------------------------------------------


def accept(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def masked(frame: bytes) -> bytes:
    """As a client sends it; a mask of zeros leaves the payload as it is."""
    return frame[:1] + bytes([0x80 | frame[1]]) + bytes(4) + frame[2:]


def message(data: bytes) -> bytes:
    return b"\x82" + bytes([len(data)]) + data


def frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole frames without their mask of zeros, and what is left over."""
    found, at = [], 0
    while len(data) - at >= 2:
        begin = at + (6 if data[at + 1] & 0x80 else 2)
        size = data[at + 1] & 0x7F
        if len(data) < begin + size:
            break
        found.append(data[at : at + 1] + bytes([size]) + data[begin : begin + size])
        at = begin + size
    return found, data[at:]
