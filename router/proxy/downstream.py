"""A client's connection: reads heads and bodies, one exchange at a time, in order.

It knows where messages end and who is connected; which ring and which endpoint is the business of ``admit`` and the
exchange. Requests that arrive while one is in flight wait unread (pipelining, RFC 9112 §9.3.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from router.core.spec import ErrorPageSpec
from router.proxy.admit import admit
from router.proxy.answers import Make, note_unrouted, refusal
from router.proxy.attempts import timed_out
from router.proxy.client import UNIX, forwarded_by_stranger
from router.proxy.exchange import Exchange
from router.proxy.failures import Failure, failure_of
from router.proxy.framing import BodyReader, trailers_of
from router.proxy.grammar import BARE_LF, FramingError
from router.proxy.heads import RequestHead, to_origin_form
from router.proxy.progress import taken
from router.proxy.wheel import NEVER

if TYPE_CHECKING:
    from router.proxy.door import Door
    from router.proxy.plane import DataPlane

LINGER_SECONDS: Final = 2.0
"""How long the rest of a refused upload is read and thrown away, so that the answer is not lost to a reset."""
_CR: Final = 13
_LF: Final = 10


class Downstream:
    """One client connection."""

    __slots__ = (
        "_body", "_body_due", "_has_skipped", "_held_at", "_is_in_head", "_is_next_due", "_lingers", "_taken",
        "address", "certificate", "deadline", "door", "ends", "exchange", "forwarded", "is_holding", "is_http10",
        "is_trusted", "is_write_paused", "keep_alive", "looked_at", "partial", "plane", "requests", "slot", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, plane: DataPlane, door: Door, address: bytes) -> None:
        self.plane = plane
        self.door = door
        self.exchange: Exchange | None = None
        self.keep_alive = True
        self.is_http10 = False
        self.is_trusted = False
        self.is_write_paused = False
        self.address = address
        """Of the client, as the socket or a PROXY header says; empty until there is a connection."""
        self.deadline = NEVER
        self.slot = -1
        self.looked_at = NEVER
        self._is_in_head = self._has_skipped = self._is_next_due = False
        self.partial = bytearray()
        self._body: BodyReader | None = None
        self.is_holding = False
        """Whether it is this side that keeps the client from sending."""
        self._lingers = False
        self._taken = -1
        self.requests = 0
        self.ends = NEVER
        """When the whole request has to be over."""
        self._body_due = NEVER
        """When the upload, at its slowest, has to be over; moves with what is received."""
        self._held_at = 0.0
        self.forwarded = b""
        self.certificate: dict[str, tuple[bytes, ...]] | None = None
        """What the client's says, once somebody asked."""

    def __repr__(self) -> str:
        return f"<Downstream {self.address.decode('latin-1')} {self.exchange or 'idle'}>"

    @property
    def is_idle(self) -> bool:
        """Nothing received that is not answered."""
        return self.exchange is None and not self.partial and not self._lingers

    # -- asyncio -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are not its subclasses
        if not self.address:
            peer = transport.get_extra_info("peername")
            if isinstance(peer, tuple):
                self.address = peer[0].removeprefix("::ffff:").encode()
            elif self.door.is_unix:
                self.address = UNIX
            else:
                # Gone before it was accepted: nobody can tell any more who it was.
                self.plane.tally.answered("client_gone")
                self.transport.abort()
                return
        self.forwarded = forwarded_by_stranger(self.address, self.door.scheme)
        self.deadline = monotonic() + self.plane.listener.head_timeout
        self.plane.wheel.place(self)
        refused = self.plane.joined(self)
        if refused is not None:
            self.refuse(refused)
            if self.plane.is_crowded:
                self.transport.close()  # no time to linger

    def connection_lost(self, exc: Exception | None) -> None:
        self.plane.wheel.remove(self)
        self.plane.left(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self.arm(self.plane.listener.send_timeout)
        if self.exchange is not None and self.exchange.upstream is not None:
            self.exchange.upstream.pause_reading()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self.exchange is None:
            self._next()
        else:
            self.exchange.resume_response()

    def hold_reading(self) -> None:
        """The client sends faster than this side takes it."""
        if not self.is_holding:
            self.is_holding = True
            self._held_at = monotonic()
            self.transport.pause_reading()
            if self._body is not None:
                self.arm(self.plane.listener.body_timeout)  # for the backend to take what it has been sent

    def release_reading(self) -> None:
        if self.is_holding:
            self.is_holding = False
            self.transport.resume_reading()
            if self._body is not None:
                self._body_due += monotonic() - self._held_at  # the wait was not the client's
                self._await_body(0)

    def arm(self, seconds: float) -> None:
        """Set the deadline of what is being waited for."""
        self.deadline = deadline = min(monotonic() + seconds, self.ends)
        if deadline < self.looked_at:
            self.plane.wheel.sooner(self)

    def on_deadline(self, now: float) -> None:
        exchange = self.exchange
        if exchange is None and self.partial and not self._lingers and not self.is_write_paused:
            self.refuse(Failure.REQUEST_TIMEOUT)
        elif now < self.ends and self._is_moving():
            listener = self.plane.listener
            self.arm(listener.body_timeout if self.is_holding else listener.send_timeout)
        elif exchange is not None:
            timed_out(exchange, is_last=now >= self.ends)
        else:
            self.transport.abort()

    def _is_moving(self) -> bool:
        """Whether the side that is waited for is slow, but reading: then what is on its way may arrive."""
        exchange = self.exchange
        waits: asyncio.Transport | None = None
        if exchange is None or self.is_write_paused:
            waits = self.transport
        elif self.is_holding and exchange.upstream is not None:
            waits = exchange.upstream.transport
        before, self._taken = self._taken, -1 if waits is None else taken(waits)
        return self._taken >= 0 and self._taken != before

    # -- reading -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.exchange is not None or self.is_write_paused or self._lingers:
            self._out_of_turn(data)
            return
        if self.partial:
            scanned = len(self.partial)
            self.partial += data
            if self._is_still_waiting(scanned):
                return
            data = bytes(self.partial)
            self.partial.clear()
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
            if exchange is not None and exchange.tunnel is not None:
                exchange.tunnel.up(data)
                if not self.is_write_paused:
                    self.arm(self.plane.listener.tunnel_timeout)
                return
            # The next request, before this one is answered and taken: it waits, and so does the client.
            self.partial += data
            self.hold_reading()
            return
        try:
            piece = body.feed(data)
        except FramingError:
            exchange.fail(Failure.BAD_REQUEST)
            return
        limit = exchange.lane.body_bytes
        if limit and exchange.received + len(piece) > limit:
            exchange.fail(Failure.BODY_TOO_LARGE)
        elif body.done:
            self._body = None
            self.partial += body.rest
            self.arm(exchange.lane.pool.waits)
            exchange.request_body(piece, trailers_of(body), done=True)
        else:
            self._await_body(len(data))
            exchange.request_body(piece, b"", done=False)

    def _await_body(self, received: int) -> None:
        """More of the upload has to come: some of it soon, and all of it not too slowly."""
        listener = self.plane.listener
        if listener.limits.body_rate:
            self._body_due += received / listener.limits.body_rate
        self.arm(min(listener.body_timeout, max(0.0, self._body_due - monotonic())))

    def _is_still_waiting(self, scanned: int) -> bool:
        """Whether the bytes after ``scanned`` neither end the head nor spoil it: tiny pieces cost no more."""
        partial = self.partial
        return (
            partial.find(b"\r\n\r\n", max(0, scanned - 3)) < 0
            and len(partial) <= self.plane.listener.limits.head_bytes
            and not BARE_LF.search(partial, scanned)
        )

    def _head(self, data: bytes) -> None:
        """A whole head if there is one, else wait for the rest of it."""
        end = data.find(b"\r\n\r\n")
        if not 0 < end <= self.plane.listener.limits.head_bytes:
            self._no_head(data)
            return
        if data[0] == _CR and data[1] == _LF:
            self._skip_line()
            if not self._lingers:
                self._head(data[2:])
            return
        self._is_in_head = self._has_skipped = False
        plane = self.plane
        try:
            head = plane.reader.read(data[:end])
            if head.path[:1] != b"/":
                to_origin_form(head)
        except FramingError as error:
            self.refuse(failure_of(error), head_only=data[:5] == b"HEAD ")
            return
        admit(self, head, data[end + 4 :])

    def _no_head(self, data: bytes) -> None:
        """No end of a head in sight, or one out of bounds."""
        if data == b"\r\n" and not self._is_in_head:
            self._skip_line()
        elif data[:4] == b"\r\n\r\n":
            self.refuse(Failure.BAD_REQUEST)
        elif len(data) > self.plane.listener.limits.head_bytes:
            self.refuse(Failure.HEAD_TOO_LARGE if b"\r\n" in data[:-2] else Failure.URI_TOO_LONG)
        elif BARE_LF.search(data):
            self.refuse(Failure.BAD_REQUEST)
        elif data:
            if not self._is_in_head:
                # Once per head: a byte now and then must not buy more time.
                self._is_in_head = True
                self.arm(self.plane.listener.head_timeout)
            self.partial += data

    def _skip_line(self) -> None:
        """RFC 9112 §2.2: some clients send an empty line behind a body; one is ignored, and not a second one."""
        if self._has_skipped:
            self.refuse(Failure.BAD_REQUEST)
        self._has_skipped = True

    def expect_body(self, body: BodyReader, due: float) -> None:
        """What follows is this body, over by ``due`` at its slowest."""
        self._body = body
        self._body_due = due

    def enter_tunnel(self) -> None:
        """What the client sends from now on is the backend's; some of it may have come already."""
        self.ends = NEVER
        self.arm(self.plane.listener.tunnel_timeout)
        data = bytes(self.partial)
        self.partial.clear()
        self.release_reading()  # before it is sent, which may hold it again
        if data and self.exchange is not None and self.exchange.tunnel is not None:
            self.exchange.tunnel.up(data)

    def break_off(self) -> None:
        """End a response in the middle, so that the client can see it.

        A length or chunks show it by themselves; a body that ends with the connection needs a reset.
        """
        if self.is_http10:
            with contextlib.suppress(OSError, ValueError):  # it is closed already
                peer = self.transport.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # -- the ends of a request -----------------------------------------------------------------------------------------

    def refuse(
        self,
        failure: Failure,
        head: RequestHead | None = None,
        is_complete: bool = False,
        head_only: bool = False,
        pages: tuple[ErrorPageSpec, ...] = (),
    ) -> None:
        """Answer a request that never got a ring. The connection survives only if the message was whole."""
        said = failure.value
        make = refusal(failure, head, head_only, pages)
        self.answer(said.word, make, head, is_complete and not said.closes, said.cause)

    def answer(self, word: str, make: Make, head: RequestHead | None, is_complete: bool, cause: str = "") -> None:
        """Answer a request here; ``make`` gets the request id, and whether the connection is closed."""
        plane = self.plane
        plane.tally.answered(word)
        self.keep_alive = self.keep_alive and is_complete and not plane.is_draining
        request_id = head.request_id if head is not None and head.request_id else plane.new_request_id()
        answer = self.door.own(make(request_id, not self.keep_alive))
        self.transport.write(answer)
        if plane.access_log is not None:
            note_unrouted(self, plane.access_log, head, request_id, answer, cause)
        self.finished(monotonic())

    def finished(self, now: float) -> None:
        """The response is written: on to the next request, or away."""
        self.exchange = None
        self.ends = NEVER
        if not self.keep_alive:
            self._body = None
            self.partial.clear()
            self._linger()
            return
        self.deadline = deadline = now + self.plane.listener.idle_timeout
        if deadline < self.looked_at:
            self.plane.wheel.sooner(self)
        if self.partial:
            # Not from here: a client that pipelines would make the stack as deep as its queue. Nothing more is read
            # before its turn: what is answered here at once would let the queue grow faster than it is worked off.
            self.hold_reading()
            self._is_next_due = True
            self.plane.loop.call_soon(self._next)
        elif self.is_holding:
            self.release_reading()

    def _next(self) -> None:
        """Read the request that waited. If there is none that wants more, the client may send again."""
        self._is_next_due = False
        if self._is_busy() or self.transport.is_closing():
            return
        data = bytes(self.partial)
        self.partial.clear()
        if data:
            self._head(data)
        if not self._is_busy() and not self._is_next_due:
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
        if not self.transport.is_closing():
            if self.transport.can_write_eof():
                self.transport.write_eof()
            else:
                self.transport.close()  # TLS has no half; what is written goes out first
        self.arm(LINGER_SECONDS)
