"""A connection to an endpoint: sends one request at a time, reads its response, goes back to the pool.

It never decides anything about the client's side; it tells its exchange what came (``respond``, ``more``) or that
nothing will come any more (``upstream_lost``). An idle connection that becomes readable is dead and is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from router.proxy.endpoint import Endpoint
from router.proxy.forwarding import keeps_alive
from router.proxy.framing import BodyReader, ChunkedBody, LengthBody, UntilClose, trailers_of
from router.proxy.grammar import BARE_LF, FramingError
from router.proxy.heads import ResponseHead, read_response
from router.proxy.upgrade import is_accepted
from router.proxy.wheel import NEVER, Wheel

if TYPE_CHECKING:
    from router.proxy.exchange import Exchange

MAX_HEAD: Final = 64 * 1024
"""Bytes of a response head (interim heads included) before the backend counts as broken."""
LEAVE_SECONDS: Final = 2.0
"""How long the last bytes of a tunnel may take to be sent."""
MAX_INTERIM: Final = 64
"""Interim responses to one request before the backend counts as broken."""


class Upstream:
    """One connection to one address; ``endpoint`` is the one it is lent to, or was lent to last."""

    __slots__ = (
        "_body", "_has_ended", "_interims", "_keep_alive", "_partial", "_reserve", "_wheel", "deadline", "endpoint",
        "_spare", "exchange", "is_closed", "is_paused", "looked_at", "made_at", "slot", "transport", "uses",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, endpoint: Endpoint, wheel: Wheel) -> None:
        self.endpoint = endpoint
        self.exchange: Exchange | None = None
        self.is_closed = False
        self.is_paused = False
        self.uses = 0
        self.made_at = monotonic()
        self.deadline = NEVER
        self.slot = -1
        self.looked_at = NEVER
        self._reserve = endpoint.reserve
        self._wheel = wheel
        self._partial = bytearray()
        self._body: BodyReader | None = None
        self._interims = 0
        self._has_ended = False
        self._spare = -1
        """A second descriptor of the socket during an upload: see ``_last_words``."""
        self._keep_alive = False

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "active" if self.exchange else "idle"
        return f"<Upstream {self.endpoint.spec.address} {state} uses={self.uses}>"

    # -- sending -----------------------------------------------------------------------------------------------------

    def begin(self, exchange: Exchange, endpoint: Endpoint, data: bytes) -> None:
        """Lend this connection to an exchange and send the request head with the body bytes there are."""
        self.exchange = exchange
        self.endpoint = endpoint
        endpoint.active += 1
        endpoint.begun += 1
        endpoint.pool.in_flight += 1
        self.uses += 1
        self.deadline = NEVER
        self._interims = 0
        if not exchange.is_request_complete and endpoint.spec.tls is None:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # there is no socket any more
                self._spare = os.dup(self.transport.get_extra_info("socket").fileno())
        self.transport.write(data)

    def close(self) -> None:
        """Drop the connection; whatever its exchange was doing has been settled before."""
        if not self.is_closed:
            self._settle()
            self.is_closed = True
            self.transport.abort()

    def leave(self) -> None:
        """Close once what is on its way has been sent: the end of a tunnel."""
        if not self.is_closed:
            self._settle()
            self.is_closed = True
            self.transport.close()
            self.deadline = deadline = monotonic() + LEAVE_SECONDS
            if deadline < self.looked_at:
                self._wheel.sooner(self)

    def _settle(self) -> None:
        if self.exchange is not None:
            self.exchange = None
            self.endpoint.active -= 1
            pool = self.endpoint.pool
            pool.in_flight -= 1
            if pool.is_waited_for:
                pool.made_room()
        self._drop_spare()

    def rest_in_pool(self) -> None:
        """Wait for the next request, unless nobody will ever ask."""
        reserve, kept, now = self._reserve, self.endpoint.pool.connections, monotonic()
        if (
            reserve.is_closed
            or self.is_closed
            or len(reserve.idle) >= kept.idle_per_endpoint
            or (kept.max_age and now - self.made_at >= kept.max_age)
        ):
            self.close()
            return
        self.deadline = deadline = now + kept.idle
        if deadline < self.looked_at:
            self._wheel.sooner(self)
        reserve.idle.append(self)

    def has_news(self) -> bool:
        """Whether something waits to be read: of an idle connection that can only be the backend's farewell."""
        peer = self.transport.get_extra_info("socket")
        try:
            waits = select.poll()
            waits.register(peer.fileno(), select.POLLIN | select.POLLRDHUP)
            return bool(waits.poll(0))
        except AttributeError:  # no socket of the kernel's
            return False
        except (OSError, ValueError):
            return True

    @property
    def is_silent(self) -> bool:
        """Whether not a byte of an answer has come."""
        return not self._partial and not self._interims and self._body is None

    def _leave_reserve(self) -> None:
        """Nobody may borrow this connection any more."""
        if self in self._reserve.idle:
            self._reserve.idle.remove(self)
        self.close()

    # -- asyncio -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are not its subclasses
        self._wheel.place(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wheel.remove(self)
        if self._spare >= 0 and self._body is None and (words := self._last_words()):
            self.data_received(words)
        was_closed, self.is_closed = self.is_closed, True
        exchange = self.exchange
        if exchange is None:
            # Idle: `borrow` skips closed connections, but one that nobody borrows must not stay in the list.
            if not was_closed and self in self._reserve.idle:
                self._reserve.idle.remove(self)
            return
        self._settle()
        if exc is None and self._has_ended and isinstance(self._body, UntilClose):
            exchange.more(b"", b"", done=True)
        else:
            exchange.upstream_lost(self, "reset")

    def _last_words(self) -> bytes:
        """What a backend said before it slammed the door on an upload.

        An answer that comes before the upload is over and a reset behind it meet here in any order: the write that
        fails may be noticed first, and the event loop then closes without reading. The kernel still has the answer.
        """
        words = b""
        with contextlib.suppress(OSError):
            while len(words) <= MAX_HEAD and (piece := os.read(self._spare, MAX_HEAD)):
                words += piece
        self._drop_spare()
        return words

    def _drop_spare(self) -> None:
        if self._spare >= 0:
            spare, self._spare = self._spare, -1
            with contextlib.suppress(OSError):
                os.close(spare)

    def on_deadline(self, now: float) -> None:
        """Idle for too long, or leaving for too long."""
        if self.is_closed:
            self.transport.abort()
        elif self.exchange is None:
            self._leave_reserve()

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.pause_upload()

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.resume_upload()

    def pause_reading(self) -> None:
        """The client takes the response more slowly than the endpoint sends it."""
        if not self.is_paused and not self.is_closed:
            self.is_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.is_paused and not self.is_closed:
            self.is_paused = False
            self.transport.resume_reading()

    # -- reading -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self._leave_reserve()
            return
        try:
            body = self._body
            if body is None:
                self._head(exchange, data)
            else:
                piece = body.feed(data)
                if body.done:
                    self._complete(exchange, body.rest)
                    exchange.more(piece, trailers_of(body), done=True)
                else:
                    exchange.more(piece, b"", done=False)
        except FramingError:
            self.close()
            exchange.upstream_lost(self, "protocol")

    def eof_received(self) -> bool:
        """Nothing more will come; asyncio closes our half, and ``connection_lost`` says what that means.

        Over TLS it comes with the other side's farewell only (close_notify): without, somebody may have cut the line.
        """
        self._has_ended = True
        if self.exchange is None:
            self._leave_reserve()
        return False

    def _head(self, exchange: Exchange, data: bytes) -> None:
        """Read heads until one is final (RFC 9110 §15.2: any number of interim ones may come before)."""
        if self._partial:
            partial = self._partial
            scanned = len(partial)
            partial += data
            is_whole = partial.find(b"\r\n\r\n", max(0, scanned - 3)) >= 0
            if not is_whole and len(partial) <= MAX_HEAD and not BARE_LF.search(partial, scanned):
                return
            data = bytes(partial)
            partial.clear()
        while True:
            end = data.find(b"\r\n\r\n")
            if end > MAX_HEAD or (end < 0 and len(data) > MAX_HEAD):
                raise FramingError("response head too large")
            if end < 0:
                if BARE_LF.search(data):
                    raise FramingError("a line that ends without CR")
                self._partial += data
                return
            head = read_response(data[:end])
            data = data[end + 4 :]
            if head.status >= 200:
                break
            if head.status == 101:
                if not is_accepted(head, exchange.websocket_key):
                    raise FramingError("101 without a request for it")  # RFC 9110 §7.8
                self._body = UntilClose()
                exchange.open_tunnel(head, data)
                return
            self._interims += 1
            if self._interims > MAX_INTERIM:
                raise FramingError("too many interim responses")
            exchange.interim(head)
            if not data:
                return
        self._final(exchange, head, data)

    def _final(self, exchange: Exchange, head: ResponseHead, data: bytes) -> None:
        status, length = head.status, head.length
        self._keep_alive = (
            not head.is_http10 if head.connection is None else keeps_alive(head.connection, is_http10=head.is_http10)
        )
        if status == 204 or status == 304 or exchange.start.method == b"HEAD":
            length = 0
            if exchange.start.method != b"HEAD" and (head.chunked or (status == 204 and head.length > 0)):
                self._keep_alive = False  # the backend believes in a body, and may send it (RFC 9112 §6.3)
        elif head.chunked:
            self._framed(exchange, head, ChunkedBody(), data)
            return
        elif length < 0:
            self._keep_alive = False
            self._framed(exchange, head, UntilClose(), data)
            return
        left = length - len(data)
        if left > 0:
            self._body = LengthBody(left)
            exchange.respond(head, data, b"", False)
        else:
            self._complete(exchange, data[length:])
            exchange.respond(head, data if left == 0 else data[:length], b"", True)

    def _framed(self, exchange: Exchange, head: ResponseHead, body: BodyReader, data: bytes) -> None:
        """A body whose end only its reader finds."""
        piece = body.feed(data) if data else b""
        if body.done:
            self._complete(exchange, body.rest)
        else:
            self._body = body
        exchange.respond(head, piece, trailers_of(body) if body.done else b"", body.done)

    def _complete(self, exchange: Exchange, rest: bytes) -> None:
        """The response is read to its end: settle before the exchange goes on, so that the next one may borrow.

        ``rest`` is what came behind it, which nobody asked for: that connection is not used again.
        """
        self._body = None
        self.exchange = None
        if self._spare >= 0:
            self._drop_spare()
        endpoint = self.endpoint
        pool = endpoint.pool
        endpoint.active -= 1
        pool.in_flight -= 1
        exchange.upstream = None
        if self.is_paused:
            self.resume_reading()
        if (
            self._keep_alive
            and exchange.is_request_sent
            and not rest
            and not (exchange.may_be_unsent() and self.transport.get_write_buffer_size())
        ):
            self.rest_in_pool()
        else:
            self.close()
        if pool.is_waited_for:
            pool.made_room()
