"""What the clients of the soak test do: a plan for one request after another, and what has to become of it."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from loadtests import wire

_Thing = TypeVar("_Thing")
HOST: Final = b"soak.example.com"
METHODS: Final = {b"GET": 30, b"HEAD": 7, b"POST": 33, b"PUT": 22, b"DELETE": 8}
ANSWERS: Final = {
    (b"l", 200): 45,
    (b"l", 201): 8,
    (b"l", 404): 2,
    (b"c", 200): 20,
    (b"x", 200): 5,
    (b"x", 206): 1,
    (b"n", 204): 7,
    (b"n", 304): 5,
    (b"l", 500): 3,
    (b"l", 502): 1,
    (b"c", 503): 3,
}
"""Framing and status; those above 500 are the backend's own, and pass."""
MALFORMED: Final[Sequence[tuple[bytes, ...]]] = (
    (b"GET / HTTP/1.1\r\nHost: %b\r\nA Name: with a space\r\n\r\n" % HOST,),
    (b"GET / HTTP/1.1\r\nHost: %b\r\nHost: %b\r\n\r\n" % (HOST, HOST),),
    (b"GET / HTTP/1.1\r\nX-User-Id: user-1\r\n\r\n",),
    (b"GET / HTTP/1.1\nHost: %b\n\n" % HOST,),
    (b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: 1x\r\n\r\na" % HOST,),
    (b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % HOST,),
    (b"POST /h/200/0/0/0 HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n" % HOST,),
    (b"POST /h/200/0/0/0 HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % HOST, b"none\r\n"),
)
"""Heads that are none, and two bodies that are none: one found with its head, one when the request is on its way."""
UPLOAD_LEFT: Final = 1 << 14
"""Bytes sent at the most before leaving: they are the kernel's at once, so a reset loses none of them."""


@dataclass(slots=True)
class Plan:
    """One request. ``pieces`` are sent one after the other, with a pause in between."""

    kind: str
    pieces: Sequence[bytes]
    number: int = 0
    status: int = 0
    """Of the answer; 0 when there must be none."""
    mark: bytes = b""
    """What the backend has to say of it; empty: the answer has to be the router's own."""
    body: bytes = b""
    """Of the answer; of a WebSocket, the key's answer."""
    upload: int = 0
    """Bytes of the request's body, without framing, that a ring's service gets."""
    has_body: bool = False
    is_head: bool = False
    asks_close: bool = False
    stays: int = 0
    """Bytes of the answer's body after which a client leaves that leaves during a download."""


class Planner:
    """Plans, by chance, but with the same seed always the same."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        kinds: dict[Callable[[bool], Plan], int] = {
            self._plain: 910,
            self._malformed: 20,
            self._unknown_host: 20,
            self._leave_upload: 15,
            self._leave_waiting: 10,
            self._leave_download: 15,
            self._websocket: 10,
        }
        self._kinds = _spread(kinds)
        self._methods = _spread(METHODS)
        self._answers = _spread(ANSWERS)
        self._number = 0

    def below(self, count: int) -> int:
        return int(self._random.random() * count)

    def next(self, *, asks_close: bool = False) -> Plan:
        self._number += 1
        plan = self._kinds[self.below(len(self._kinds))](asks_close)
        plan.number = self._number
        return plan

    def _size(self) -> int:
        """From a few bytes to 64 KiB, as many small as large ones in each doubling."""
        return int(2.0 ** (self._random.random() * 16))

    def _target(self, kind: bytes, status: int, offset: int, size: int) -> bytes:
        return b"/%b/%d/%d/%d/%d" % (kind, status, offset, size, self._number)

    def _head(self, method: bytes, target: bytes, host: bytes = HOST) -> bytes:
        user = self.below(5000)
        ring = b"X-Ring: canary\r\n" if user % 25 == 0 else b""
        return b"%b %b HTTP/1.1\r\nHost: %b\r\nX-User-Id: user-%d\r\n%b" % (method, target, host, user, ring)

    def _with_body(self, head: bytes, body: bytes) -> list[bytes]:
        """The request in one piece or in two, with a length or in chunks."""
        chance = self.below(10)
        if chance < 6:
            head += b"Content-Length: %d\r\n\r\n" % len(body)
        else:
            head += b"Transfer-Encoding: chunked\r\n\r\n"
            body = wire.chunked(body, self.below(len(body) + 1))
        if chance % 3:
            return [head + body]
        cut = self.below(len(body) + 1)
        return [head + body[:cut], body[cut:]]

    def _plain(self, asks_close: bool) -> Plan:
        method = self._methods[self.below(len(self._methods))]
        kind, status = self._answers[self.below(len(self._answers))]
        offset, size = self.below(wire.MOST), self._size()
        head = self._head(method, self._target(kind, status, offset, size))
        if asks_close:
            head += b"Connection: close\r\n"
        has_body = method in (b"POST", b"PUT")
        upload = wire.payload(self.below(wire.MOST), self._size()) if has_body else b""
        is_head = method == b"HEAD"
        return Plan(
            "plain",
            self._with_body(head, upload) if has_body else [head + b"\r\n"],
            status=status,
            mark=wire.mark(b"%d" % self._number, upload),
            body=b"" if is_head or kind == b"n" else wire.payload(offset, size),
            upload=len(upload),
            has_body=has_body,
            is_head=is_head,
            asks_close=asks_close,
        )

    def _malformed(self, asks_close: bool) -> Plan:
        return Plan("malformed", MALFORMED[self.below(len(MALFORMED))], status=400, asks_close=True)

    def _unknown_host(self, asks_close: bool) -> Plan:
        head = self._head(b"POST", b"/", b"nobody.example.com")
        if self.below(2):
            return Plan("unknown_host", [head + b"\r\n"], status=404)
        body = wire.payload(0, self._size())
        return Plan(
            "unknown_host", [head + b"Content-Length: %d\r\n\r\n" % len(body) + body], status=404, has_body=True,
            asks_close=True,
        )  # fmt: skip

    def _leave_upload(self, asks_close: bool) -> Plan:
        size = self._size() + 1
        head = self._head(b"POST", self._target(b"l", 200, 0, 1))
        body = wire.payload(0, min(self.below(size), UPLOAD_LEFT))
        if self.below(2) or not body:
            data = head + b"Content-Length: %d\r\n\r\n" % size + body
        else:
            data = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body)
        return Plan("leave_upload", [data], upload=len(body), has_body=True)

    def _leave_waiting(self, asks_close: bool) -> Plan:
        return Plan("leave_waiting", [self._head(b"GET", self._target(b"h", 200, 0, 0)) + b"\r\n"])

    def _leave_download(self, asks_close: bool) -> Plan:
        size = self._size()
        head = self._head(b"GET", self._target(b"s", 200, 0, size))
        body = wire.payload(0, size // 2)
        return Plan("leave_download", [head + b"\r\n"], status=200, body=body, stays=size // 2)

    def _websocket(self, asks_close: bool) -> Plan:
        key = base64.b64encode(self._random.randbytes(16))
        head = self._head(b"GET", self._target(b"w", 101, 0, 0)) + (
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
            % key
        )
        said = wire.mark(b"%d" % self._number, b"")
        return Plan("websocket", [head], status=101, mark=said, body=wire.accept(key), asks_close=True)


def _spread(weights: dict[_Thing, int]) -> list[_Thing]:
    """Each as often as it weighs."""
    return [one for one, weight in weights.items() for _ in range(weight)]
