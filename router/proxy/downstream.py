"""A client's connection: reads heads and bodies, one exchange at a time, in order.

It knows where messages end and who is connected; which ring and which endpoint is asked of the plane and carried out by
the exchange. Requests that arrive while one is in flight wait unread (pipelining, RFC 9112 §9.3.2).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from router.core.decide import decide, identify
from router.core.hashing import UserKey
from router.proxy.exchange import Exchange
from router.proxy.failures import Failure, render
from router.proxy.forwarding import (
    forwarded_by_stranger,
    forwarded_by_trusted,
    keeps_alive,
)
from router.proxy.framing import BodyReader, ChunkedBody, FramingError, LengthBody
from router.proxy.heads import (
    BARE_LF,
    RefusedMethodError,
    RequestHead,
    TooManyFieldsError,
    UnknownCodingError,
    UnknownVersionError,
    replace_field,
    to_origin_form,
)
from router.proxy.wheel import NEVER

if TYPE_CHECKING:
    from router.proxy.plane import DataPlane

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request head. HAProxy's default buffer holds 16 KiB, nginx's four of 8 KiB, Envoy's 60 KiB."""
LINGER_SECONDS: Final = 2.0
"""How long the rest of a refused upload is read and thrown away, so that the answer is not lost to a reset."""
_CR: Final = 13
_LF: Final = 10
_REFUSALS: Final = {
    UnknownCodingError: Failure.UNKNOWN_CODING,
    UnknownVersionError: Failure.VERSION_REFUSED,
    RefusedMethodError: Failure.METHOD_REFUSED,
    TooManyFieldsError: Failure.HEAD_TOO_LARGE,
}
"""What is wrong with a head, where it is not just malformed."""


class Downstream:
    """One client connection."""

    __slots__ = (
        "_body", "_forwarded", "_holds", "_is_in_head", "_lingers", "_partial", "_unsent",
        "address", "deadline", "exchange", "is_http10", "is_trusted", "is_write_paused", "keep_alive", "looked_at",
        "plane", "slot", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, plane: DataPlane) -> None:
        self.plane = plane
        self.exchange: Exchange | None = None
        self.keep_alive = True
        self.is_http10 = False
        self.is_trusted = False
        self.is_write_paused = False
        self.address = b""
        self.deadline = NEVER
        self.slot = -1
        self.looked_at = NEVER
        self._is_in_head = False
        self._partial = bytearray()
        self._body: BodyReader | None = None
        self._holds = False
        self._lingers = False
        self._unsent = 0
        self._forwarded = b""

    def __repr__(self) -> str:
        return f"<Downstream {self.address.decode('latin-1')} {self.exchange or 'idle'}>"

    @property
    def is_idle(self) -> bool:
        """Nothing received that is not answered."""
        return self.exchange is None and not self._partial

    # -- asyncio -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are not its subclasses
        peer = transport.get_extra_info("peername")
        self.address = peer[0].removeprefix("::ffff:").encode() if isinstance(peer, tuple) else b"unix:"
        self._forwarded = forwarded_by_stranger(self.address, b"")
        self.plane.joined(self)
        self.deadline = monotonic() + self.plane.listener.head_timeout
        self.plane.wheel.place(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.plane.wheel.remove(self)
        self.plane.left(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        self.is_write_paused = True
        if self.exchange is not None and self.exchange.upstream is not None:
            self.exchange.upstream.pause_reading()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self.exchange is None:
            self._next()
        elif self.exchange.upstream is not None:
            self.exchange.upstream.resume_reading()

    def hold_reading(self) -> None:
        """The client sends faster than this side takes it."""
        if not self._holds:
            self._holds = True
            self.transport.pause_reading()

    def release_reading(self) -> None:
        if self._holds:
            self._holds = False
            self.transport.resume_reading()

    @property
    def is_holding(self) -> bool:
        """Whether it is this side that keeps the client from sending."""
        return self._holds

    def arm(self, seconds: float) -> None:
        """Set the deadline of what is being waited for."""
        self.deadline = deadline = monotonic() + seconds
        if deadline < self.looked_at:
            self.plane.wheel.sooner(self)

    def on_deadline(self, now: float) -> None:
        if self.exchange is not None:
            self.exchange.timed_out()
        elif self._partial and not self._lingers:
            self.refuse(Failure.REQUEST_TIMEOUT)
        elif (unsent := self.transport.get_write_buffer_size()) and unsent != self._unsent:
            # Slow, but reading: what is on its way may arrive as long as some of it does.
            self._unsent = unsent
            self.arm(self.plane.listener.body_timeout)
        else:
            self.transport.abort()

    # -- reading -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.exchange is not None or self.is_write_paused or self._lingers:
            self._out_of_turn(data)
            return
        if self._partial:
            scanned = len(self._partial)
            self._partial += data
            if self._is_still_waiting(scanned):
                return
            data = bytes(self._partial)
            self._partial.clear()
        self._head(data)

    def eof_received(self) -> bool:
        """A client that closes its half is taken to be gone, like HAProxy's ``abortonclose``; asyncio closes ours."""
        return False

    def _out_of_turn(self, data: bytes) -> None:
        """Bytes that are not the head of the next request: a body, or what has to wait, or what nobody wants."""
        if self._lingers:
            return
        body, exchange = self._body, self.exchange
        if body is None or exchange is None:
            # The next request, before this one is answered and taken: it waits, and so does the client.
            self._partial += data
            self.hold_reading()
            return
        try:
            piece = body.feed(data)
        except FramingError:
            exchange.fail(Failure.BAD_REQUEST)
            return
        if body.done:
            self._body = None
            self._partial += body.rest
            self.arm(exchange.lane.pool.first_byte)
        else:
            self.arm(self.plane.listener.body_timeout)
        exchange.request_body(piece, done=body.done)

    def _is_still_waiting(self, scanned: int) -> bool:
        """Whether the bytes after ``scanned`` neither end the head nor spoil it: tiny pieces cost no more."""
        partial = self._partial
        return (
            partial.find(b"\r\n\r\n", max(0, scanned - 3)) < 0
            and len(partial) <= MAX_HEAD
            and not BARE_LF.search(partial, scanned)
        )

    def _head(self, data: bytes) -> None:
        """A whole head if there is one, else wait for the rest of it."""
        end = data.find(b"\r\n\r\n")
        if not 0 < end <= MAX_HEAD:
            self._no_head(data)
            return
        if data[0] == _CR and data[1] == _LF:
            # RFC 9112 §2.2: an empty line before a request line is ignored; two of them were refused above.
            self._head(data[2:])
            return
        self._is_in_head = False
        plane = self.plane
        try:
            head = plane.reader.read(data[:end])
            if head.path[:1] != b"/":
                to_origin_form(head)
        except FramingError as error:
            self.refuse(_REFUSALS.get(type(error), Failure.BAD_REQUEST))
            return
        self._request(head, data[end + 4 :])

    def _no_head(self, data: bytes) -> None:
        """No end of a head in sight, or one out of bounds."""
        if data == b"\r\n" and not self._is_in_head:
            return  # some clients send one behind a body; it is not the beginning of anything
        if data[:4] == b"\r\n\r\n":
            self.refuse(Failure.BAD_REQUEST)
        elif len(data) > MAX_HEAD:
            self.refuse(Failure.HEAD_TOO_LARGE)
        elif BARE_LF.search(data):
            self.refuse(Failure.BAD_REQUEST)
        elif data:
            if not self._is_in_head:
                # Once per head: a byte now and then must not buy more time.
                self._is_in_head = True
                self.arm(self.plane.listener.head_timeout)
            self._partial += data

    def _request(self, head: RequestHead, rest: bytes) -> None:
        """A head that was read: who is it, which ring, which version; then on its way."""
        started = monotonic()
        plane = self.plane
        is_http10 = head.start.is_http10
        self.is_http10 = is_http10
        self.keep_alive = (
            not is_http10 if head.connection is None else keeps_alive(head.connection, is_http10=is_http10)
        )
        body: BodyReader | None = None
        if head.chunked:
            body = ChunkedBody()
        elif head.length > 0:
            body = LengthBody(head.length)

        snapshot = plane.snapshot
        service = snapshot.find(head.host, head.path) if snapshot is not None else None
        if service is None:
            if body is None:
                self._partial += rest
            failure = Failure.NO_SERVICE if snapshot is not None else Failure.NOT_READY
            self.refuse(failure, head.request_id, body is None, head.start.method == b"HEAD")
            return
        key = identify(service, head)
        minted = b""
        if key is None and service.anonymous_cookie is not None:
            minted = plane.new_anonymous_key()
            key = UserKey(minted)
        lane = plane.lanes[service.index][decide(service, head, key).index]

        request_id = head.request_id or plane.new_request_id()
        lines = head.lines
        if not head.authority:
            replace_field(lines, b"host", b"Host: " + lane.host)
        if self.is_trusted:
            forwarded = forwarded_by_trusted(head.via_proxy or {}, self.address, head.authority)
        else:
            forwarded = self._forwarded + head.authority
        if head.chunked:
            lines.append(b"Transfer-Encoding: chunked")
        lines += (lane.request_lines, forwarded, b"X-Request-Id: " + request_id, b"", b"")
        first = b""
        is_complete = True
        if body is not None:
            if rest:
                try:
                    first = body.feed(rest)
                except FramingError:
                    self.refuse(Failure.BAD_REQUEST, request_id)
                    return
                rest = body.rest
            is_complete = body.done
            if not is_complete:
                self._body = body
        if rest and is_complete:
            self._partial += rest
        exchange = Exchange(self, lane, head, request_id, started, minted)
        self.exchange = exchange
        waits = lane.pool.first_byte if is_complete else plane.listener.body_timeout
        self.deadline = deadline = started + waits
        if deadline < self.looked_at:
            plane.wheel.sooner(self)
        if not is_complete:
            self.release_reading()  # before it is sent, which may hold it again
        exchange.send(first, is_complete)

    def break_off(self) -> None:
        """End a response in the middle, so that the client can see it.

        A length or chunks show it by themselves; a body that ends with the connection needs a reset.
        """
        if self.is_http10:
            peer = self.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # -- the ends of a request -----------------------------------------------------------------------------------------

    def refuse(
        self, failure: Failure, request_id: bytes = b"", is_complete: bool = False, head_only: bool = False
    ) -> None:
        """Answer a request that never got a ring. The connection survives only if the message was whole."""
        plane = self.plane
        plane.answered(failure.value.word)
        self.keep_alive = self.keep_alive and is_complete and not failure.value.closes and not plane.is_draining
        self.transport.write(
            render(failure, request_id or plane.new_request_id(), close=not self.keep_alive, head_only=head_only)
        )
        self.finished(monotonic())

    def finished(self, now: float) -> None:
        """The response is written: on to the next request, or away."""
        self.exchange = None
        if not self.keep_alive:
            self._body = None
            self._partial.clear()
            self._linger()
            return
        self.deadline = deadline = now + self.plane.listener.idle_timeout
        if deadline < self.looked_at:
            self.plane.wheel.sooner(self)
        if self._partial:
            # Not from here: a client that pipelines would make the stack as deep as its queue.
            self.plane.loop.call_soon(self._next)
        elif self._holds:
            self.release_reading()

    def _next(self) -> None:
        """Read the request that waited. If there is none that wants more, the client may send again."""
        if self._is_busy() or self.transport.is_closing():
            return
        data = bytes(self._partial)
        self._partial.clear()
        if data:
            self._head(data)
        if not self._is_busy():
            self.release_reading()

    def _is_busy(self) -> bool:
        return self.exchange is not None or self.is_write_paused or self._lingers

    def leave(self) -> None:
        """Close an idle connection; what is still being written may arrive, for as long as a lingering one's."""
        self.keep_alive = False
        self._lingers = True
        self.transport.close()
        self.arm(LINGER_SECONDS)

    def _linger(self) -> None:
        """Close our half, and read what is still coming for a moment: a reset would take the answer with it."""
        self._lingers = True
        self.release_reading()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self.arm(LINGER_SECONDS)
