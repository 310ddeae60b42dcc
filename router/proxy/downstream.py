"""A client's connection: reads heads and bodies, one exchange at a time, in order.

It knows where messages end and who is connected; which ring and which endpoint is asked of the plane and carried out by
the exchange. Requests that arrive while one is in flight wait unread (pipelining, RFC 9112 §9.3.2).
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

import httptools

from router.core.decide import decide, identify
from router.core.hashing import UserKey
from router.core.rules import Request
from router.proxy.exchange import Exchange
from router.proxy.failures import Failure, render
from router.proxy.forwarding import (
    Fields,
    UnknownCodingError,
    bare_host,
    forwarded_by_trusted,
    keeps_alive,
    origin_form,
    sort_request,
    stripped,
)
from router.proxy.framing import BodyReader, ChunkedBody, FramingError, LengthBody
from router.proxy.wheel import NEVER

if TYPE_CHECKING:
    from router.proxy.plane import DataPlane

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request head. HAProxy's default buffer holds 16 KiB, nginx's four of 8 KiB, Envoy's 60 KiB."""
LINGER_SECONDS: Final = 2.0
"""How long the rest of a refused upload is read and thrown away, so that the answer is not lost to a reset."""
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_VERSIONS: Final = ("1.1", "1.0")
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")


class Downstream(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_bare_host", "_body", "_fields", "_forwarded_for", "_holds", "_host", "_is_in_head",
        "_lingers", "_now", "_parser", "_partial", "_target", "_unsent", "address", "deadline", "exchange",
        "is_http10", "is_trusted", "is_write_paused",
        "keep_alive", "looked_at", "plane", "slot", "transport",
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
        self._now = plane.wheel.now
        self._is_in_head = False
        self._parser = httptools.HttpRequestParser(self)
        self._partial = bytearray()
        self._fields: Fields = []
        self._target = b""
        self._body: BodyReader | None = None
        self._holds = False
        self._lingers = False
        self._host = self._bare_host = b""
        self._unsent = 0
        self._forwarded_for = b""

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
        self.address = peer[0].encode() if isinstance(peer, tuple) else b"unix:"
        self._forwarded_for = b"X-Forwarded-For: " + self.address + b"\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: "
        self.plane.joined(self)
        self.deadline = self.plane.wheel.now() + self.plane.listener.head_timeout
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
        self.deadline = deadline = self._now() + seconds
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
        if self._lingers:
            return
        exchange = self.exchange
        if exchange is None and not self.is_write_paused:
            if self._partial:
                scanned = len(self._partial)
                self._partial += data
                if self._is_still_waiting(scanned):
                    return
                data = bytes(self._partial)
                self._partial.clear()
            self._head(data)
            return
        body = self._body
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
            self.arm(exchange.lane.pool.timeouts.first_byte)
        else:
            self.arm(self.plane.listener.body_timeout)
        exchange.request_body(piece, done=body.done)

    def _is_still_waiting(self, scanned: int) -> bool:
        """Whether the bytes after ``scanned`` neither end the head nor spoil it: tiny pieces cost no more."""
        partial = self._partial
        return (
            partial.find(b"\r\n\r\n", max(0, scanned - 3)) < 0
            and len(partial) <= MAX_HEAD
            and not _BARE_LF.search(partial, scanned)
        )

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def _head(self, data: bytes) -> None:
        """A whole head if there is one, else wait for the rest of it."""
        if data[:2] == b"\r\n":  # RFC 9112 §2.2: an empty line before a request line is ignored; a flood of them is not
            data = data[2:]
            if data[:2] == b"\r\n":
                self.refuse(Failure.BAD_REQUEST)
                return
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > MAX_HEAD:
            if len(data) > MAX_HEAD:
                self.refuse(Failure.HEAD_TOO_LARGE)
            elif _BARE_LF.search(data):
                self.refuse(Failure.BAD_REQUEST)
            elif data:
                if not self._is_in_head:
                    # Once per head: a byte now and then must not buy more time.
                    self._is_in_head = True
                    self.arm(self.plane.listener.head_timeout)
                self._partial += data
            return
        self._is_in_head = False
        head, rest = (data, b"") if end + 4 == len(data) else (data[: end + 4], data[end + 4 :])
        self._fields = []
        self._target = b""
        parser = self._parser
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._parser = httptools.HttpRequestParser(self)
        except httptools.HttpParserInvalidMethodError:
            self.refuse(Failure.METHOD_REFUSED)
            return
        except httptools.HttpParserError:
            # llhttp refuses a coding it does not know as a malformed message; the client deserves the truth.
            codings = [value.lower() for name, value in self._fields if name.lower() == b"transfer-encoding"]
            is_unknown = any(b"chunked" not in coding for coding in codings)
            self.refuse(Failure.UNKNOWN_CODING if is_unknown else Failure.BAD_REQUEST)
            return
        if b" \r\n" in head or b"\t\r\n" in head:
            self._fields = stripped(self._fields)
        if b" HTTP/" not in head[: head.index(b"\r\n")]:  # llhttp takes RTSP and ICE as well
            self.refuse(Failure.VERSION_REFUSED)
            return
        self._request(parser, rest)

    def _request(self, parser: httptools.HttpRequestParser, rest: bytes) -> None:
        """A parsed head: who is it, which ring, which version; then on its way."""
        started = monotonic()
        plane = self.plane
        method: bytes = parser.get_method()
        version = parser.get_http_version()
        self.is_http10 = version == "1.0"
        if version not in _VERSIONS:
            self.refuse(Failure.VERSION_REFUSED)
            return
        if method == b"CONNECT":
            self.refuse(Failure.METHOD_REFUSED)
            return
        try:
            head = sort_request(self._fields, plane.request_names)
        except FramingError as error:
            is_unknown = isinstance(error, UnknownCodingError)
            self.refuse(Failure.UNKNOWN_CODING if is_unknown else Failure.BAD_REQUEST)
            return
        if head.chunked and self.is_http10:  # RFC 9112 §6.1: faulty framing
            self.refuse(Failure.BAD_REQUEST)
            return
        self.keep_alive = keeps_alive(head.connection, is_http10=self.is_http10)
        target = self._target
        if target[:1] != b"/":
            target = origin_form(target, head)
        if (head.host is None and not self.is_http10) or not target:
            self.refuse(Failure.BAD_REQUEST)
            return
        request_id = head.request_id
        if not request_id or not _REQUEST_ID.fullmatch(request_id):
            request_id = plane.new_request_id()
        body: BodyReader | None = None
        if head.chunked:
            body = ChunkedBody()
        elif head.length:
            body = LengthBody(head.length)
        if body is not None:
            # The parser still waits for a body that it will not see: the next head gets a new one.
            self._parser = httptools.HttpRequestParser(self)

        snapshot = plane.snapshot
        query = target.find(b"?")
        path = target if query < 0 else target[:query]
        host = head.host or b""
        if host != self._host:
            self._host, self._bare_host = host, bare_host(host)
        request = Request(self._bare_host, path, head.wanted, head.cookie)
        service = snapshot.find(request.host, path) if snapshot is not None else None
        if service is None:
            if body is None:
                self._partial += rest
            self.refuse(Failure.NO_SERVICE if snapshot is not None else Failure.NOT_READY, request_id, body is None)
            return
        key = identify(service, request)
        minted: bytes | None = None
        if key is None and service.anonymous_cookie is not None:
            minted = plane.new_anonymous_key()
            key = UserKey(minted)
        decision = decide(service, request, key)
        lane = plane.lanes[service.index][decision.index]
        reasons = lane.counters.reasons
        reasons[lane.reason] = reasons.get(lane.reason, 0) + 1

        parts = [method, b" ", target, b" HTTP/1.1\r\n", *head.forwarded, lane.request_headers]
        if head.host is None:
            parts += (b"Host: ", lane.host, b"\r\n")
        if self.is_trusted:
            parts.append(forwarded_by_trusted(head, self.address))
        else:
            parts += (self._forwarded_for, host, b"\r\n")
        parts += (b"X-Request-Id: ", request_id, b"\r\n")
        if head.length is not None:
            parts.append(b"Content-Length: %d\r\n\r\n" % head.length)
        elif head.chunked:
            parts.append(b"Transfer-Encoding: chunked\r\n\r\n")
        else:
            parts.append(b"\r\n")
        first = b""
        if body is not None and rest:
            try:
                first = body.feed(rest)
            except FramingError:
                self.refuse(Failure.BAD_REQUEST, request_id)
                return
            rest = body.rest
        complete = body is None or body.done
        self._body = None if complete else body
        if complete and rest:
            self._partial += rest
        exchange = Exchange(
            self, lane, method, target, request_id, b"".join(parts),
            chunks_request=head.chunked, started=started, minted=minted,
        )  # fmt: skip
        self.exchange = exchange
        self.arm(lane.pool.timeouts.first_byte if complete else plane.listener.body_timeout)
        exchange.start(first, complete=complete)

    def break_off(self) -> None:
        """End a response in the middle, so that the client can see it.

        A length or chunks show it by themselves; a body that ends with the connection needs a reset.
        """
        if self.is_http10:
            peer = self.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # -- the ends of a request -----------------------------------------------------------------------------------------

    def refuse(self, failure: Failure, request_id: bytes = b"", is_complete: bool = False) -> None:
        """Answer a request that never got a ring. The connection survives only if the message was whole."""
        plane = self.plane
        plane.counters.router_answers[failure.value.word] = plane.counters.router_answers.get(failure.value.word, 0) + 1
        self.keep_alive = self.keep_alive and is_complete and not failure.value.closes and not plane.is_draining
        self.transport.write(
            render(failure, request_id or plane.new_request_id(), close=not self.keep_alive, head_only=False)
        )
        self.finished()

    def finished(self) -> None:
        """The response is written: on to the next request, or away."""
        self.exchange = None
        if not self.keep_alive:
            self._body = None
            self._partial.clear()
            self._linger()
            return
        self.arm(self.plane.listener.idle_timeout)
        if self._partial:
            # Not from here: a client that pipelines would make the stack as deep as its queue.
            self.plane.loop.call_soon(self._next)
        elif self._holds:
            self.release_reading()

    def _next(self) -> None:
        if self.exchange is not None or self.is_write_paused or self._lingers or self.transport.is_closing():
            return
        data = bytes(self._partial)
        self._partial.clear()
        if data:
            self._head(data)
        if self.exchange is None or self._body is not None:
            self.release_reading()

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
