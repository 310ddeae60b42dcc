"""One request and its response: the glue between a client's connection and an endpoint's.

The way is one direction: ``start`` → head sent → ``respond`` → ``more`` … → finished. Whatever goes wrong arrives in
``upstream_lost``, ``fail`` or ``client_gone``, and each exchange ends exactly once, in ``_finish``.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from router.proxy.connect import connect
from router.proxy.failures import Failure, render
from router.proxy.forwarding import add_anonymous_cookie
from router.proxy.framing import chunk, last_chunk
from router.proxy.heads import RequestHead, ResponseHead, has_field, replace_field, value_of
from router.proxy.pool import Endpoint
from router.proxy.upgrade import UPGRADE_LINES
from router.proxy.upstream import Upstream

if TYPE_CHECKING:
    from router.proxy.downstream import Downstream
    from router.proxy.plane import Lane

_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110 §9.2.2."""
CLIENT_GONE: Final = 499
"""nginx's code for a client that left before the response; never sent to anybody."""
CONNECT_ATTEMPTS: Final = 3
_SHORT_HEAD: Final = 16 * 1024


class Exchange:
    """One request on its way. Made when a head is complete, dropped when the response is."""

    __slots__ = (
        "_attempts", "_chunks_request", "_connecting", "_head", "_is_chunked", "_outgoing", "_retried",
        "_status", "client", "downstream", "endpoint", "is_finished", "is_request_complete", "is_request_sent",
        "is_tunnel", "lane", "minted", "received", "request_id", "sent", "sent_at", "start", "started", "upstream",
        "websocket_key",
    )  # fmt: skip

    def __init__(
        self, downstream: Downstream, lane: Lane, head: RequestHead, client: bytes, started: float, minted: bytes
    ) -> None:
        self.downstream = downstream
        self.lane = lane
        self.start = head.start
        self.request_id = head.request_id
        self.minted = minted
        """The key of an anonymous user who gets a cookie with this response; empty for everybody else."""
        self.client = client
        """Whose request it is; not the peer's address where that is a trusted proxy."""
        self.websocket_key = b""
        """Of a handshake; empty for everything else."""
        self.is_tunnel = False
        self.started = started
        self.sent_at = started
        self.sent = 0
        self.received = 0
        self.upstream: Upstream | None = None
        self.endpoint: Endpoint | None = None
        self.is_request_complete = False
        self.is_request_sent = False
        self.is_finished = False
        self._head = b"\r\n".join(head.lines)
        self._chunks_request = head.chunked
        self._outgoing: list[bytes] | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._attempts = 0
        self._retried = False
        self._status = 0
        self._is_chunked = False

    def __repr__(self) -> str:
        return f"<Exchange {self.start.line!r} ring={self.lane.ring} status={self._status}>"

    # -- the request -------------------------------------------------------------------------------------------------

    def send(self, first: bytes, trailers: bytes, is_complete: bool) -> None:
        """Choose an endpoint and send the head with the body bytes that came with it."""
        lane = self.lane
        lane.decided += 1
        lane.meter.in_flight += 1
        self.is_request_complete = is_complete
        data = self._head
        if first or (is_complete and self._chunks_request):
            data += self._body(first, is_complete, trailers)
        endpoint = lane.pool.pick(self.downstream.plane.choose)
        if endpoint is None:
            self.fail(Failure.NO_ENDPOINT)
            return
        self.endpoint = endpoint
        upstream = endpoint.reserve.borrow()
        if upstream is None:
            self._outgoing = [data]
            self._connect(endpoint)
        else:
            self.upstream = upstream
            self.is_request_sent = is_complete
            upstream.begin(self, endpoint, data)

    def _send_held(self, upstream: Upstream, endpoint: Endpoint) -> None:
        """Send what waited for a connection."""
        data = b"".join(self._outgoing or ())
        self._outgoing = None
        self.upstream = upstream
        self.is_request_sent = self.is_request_complete
        self.sent_at = monotonic()
        self.downstream.release_reading()  # before the write, which may hold it again
        upstream.begin(self, endpoint, data)
        if self.downstream.is_write_paused:
            upstream.pause_reading()

    def may_be_unsent(self) -> bool:
        """Whether bytes of the request may still wait here: never those of a short head, or it had no answer."""
        return self.received > 0 or len(self._head) > _SHORT_HEAD

    def request_body(self, piece: bytes, trailers: bytes, *, done: bool) -> None:
        """More of the request body, already without its framing; ``trailers`` come with its end."""
        self.is_request_complete = done
        data = self._body(piece, done, trailers)
        if self._outgoing is not None:
            self._outgoing.append(data)
            self.downstream.hold_reading()
        elif self.upstream is not None:
            self.upstream.transport.write(data)
            if done:
                self.is_request_sent = True
                self.sent_at = monotonic()

    def _body(self, piece: bytes, done: bool, trailers: bytes = b"") -> bytes:
        self.received += len(piece)
        if not self._chunks_request:
            return piece
        framed = chunk(piece) if piece else b""
        return framed + last_chunk(trailers) if done else framed

    def pause_upload(self) -> None:
        self.downstream.hold_reading()

    def resume_upload(self) -> None:
        self.downstream.release_reading()

    # -- a connection, when none was warm ------------------------------------------------------------------------------

    def _connect(self, endpoint: Endpoint) -> None:
        self._attempts += 1
        self._connecting = self.downstream.plane.spawn(
            self._connected(endpoint), name=f"connect {endpoint.spec.address}"
        )

    async def _connected(self, endpoint: Endpoint) -> None:
        plane = self.downstream.plane
        made = await connect(plane, endpoint, self.lane.pool.connect_timeout)
        if isinstance(made, Upstream):
            if self.is_finished:
                made.uses = 1  # it will have waited: as likely to be dead as any other kept connection
                made.rest_in_pool()
                return
            self._send_held(made, endpoint)
            return
        if self.is_finished:
            return
        # Nothing was sent, so any method may go to another endpoint of the same version.
        other = self.lane.pool.pick(plane.choose, avoid=endpoint)
        if other is None or other is endpoint or self._attempts >= CONNECT_ATTEMPTS:
            self.fail(made)
            return
        self.endpoint = other
        warm = other.reserve.borrow()
        if warm is None:
            self._connect(other)
        else:
            self._send_held(warm, other)

    def upstream_lost(self, kind: str) -> None:
        """The endpoint's connection ended before the response did. ``kind`` is ``reset`` or ``protocol``."""
        upstream, self.upstream = self.upstream, None
        endpoint = self.endpoint
        if self.is_finished or endpoint is None:
            return
        if self.is_tunnel:
            self.end_tunnel()
            return
        was_reused = upstream is not None and upstream.uses > 1
        if (
            kind == "reset"
            and was_reused
            and self._status == 0
            and not self._retried
            and self.received == 0
            and not self._chunks_request
            and self.is_request_complete
            and self.start.method in _IDEMPOTENT
        ):
            # A kept-alive connection may die just as it is used (RFC 9112 §9.3.1): once more, on a fresh one.
            self._retried = True
            self.lane.meter.retries += 1
            self._outgoing = [self._head]
            self._connect(endpoint)
            return
        endpoint.failed(kind)
        self.fail(Failure.UPSTREAM_RESET if kind == "reset" else Failure.UPSTREAM_PROTOCOL)

    # -- the response --------------------------------------------------------------------------------------------------

    def interim(self, head: ResponseHead) -> None:
        """A 1xx head: passed on to clients that can read one (RFC 9110 §15.2)."""
        replace_field(head.lines, b"content-length", None)  # RFC 9110 §8.6
        if not self.downstream.is_http10:
            self.downstream.transport.write(b"\r\n".join((*head.lines, b"", b"")))

    def open_tunnel(self, head: ResponseHead, piece: bytes) -> None:
        """The backend changes protocols: from here on bytes are passed as they are, both ways."""
        downstream, lane = self.downstream, self.lane
        self.is_tunnel = True
        downstream.plane.tunnels += 1
        self._status = head.status
        now = monotonic()
        lane.meter.answered(now - self.sent_at)
        self.sent_at = now
        downstream.keep_alive = False
        self.sent += len(piece)
        replace_field(head.lines, b"content-length", None)  # RFC 9110 §8.6
        lines = [line for line in (*head.lines, *UPGRADE_LINES, lane.response_lines) if line]
        downstream.transport.write(b"\r\n".join((*lines, b"", piece)))
        downstream.enter_tunnel()

    def up_the_tunnel(self, data: bytes) -> None:
        self.received += len(data)
        if self.upstream is not None:
            self.upstream.transport.write(data)

    def end_tunnel(self) -> None:
        """One side has left: what is on its way may arrive, then the other side leaves too."""
        if self.is_finished:
            return
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.leave()
        self._finish(self.sent_at, False)
        self.downstream.finished(monotonic())

    def respond(self, head: ResponseHead, piece: bytes, trailers: bytes, done: bool) -> None:
        """The response head with the first body bytes: one write."""
        downstream, lane = self.downstream, self.lane
        self._status = status = head.status
        now = monotonic()
        lane.meter.answered(now - self.sent_at)
        lines = head.lines
        if self.minted and lane.anonymous_cookie is not None:
            add_anonymous_cookie(lines, lane.anonymous_cookie, self.minted)
        if lane.response_lines:
            lines.append(lane.response_lines)
        if not head.has_date:
            lines.append(downstream.plane.date_line())  # RFC 9110 §6.6.1
        if downstream.door.hsts and not has_field(lines, b"strict-transport-security"):
            lines.append(downstream.door.hsts)
        if head.length < 0:
            if self.start.method != b"HEAD" and status != 204 and status != 304:
                if downstream.is_http10:
                    downstream.keep_alive = False
                else:
                    self._is_chunked = True
                    lines.append(b"Transfer-Encoding: chunked")
        elif status == 204:  # RFC 9110 §8.6
            replace_field(lines, b"content-length", None)
        if not self.is_request_complete or downstream.plane.is_draining:
            # An early response: the rest of the upload is thrown away and the connection ends (RFC 9112 §9.3).
            downstream.keep_alive = False
        if not downstream.keep_alive:
            lines.append(b"Connection: close")
        elif downstream.is_http10:
            lines.append(b"Connection: keep-alive")
        self.sent += len(piece)
        if self._is_chunked:
            if piece:
                piece = chunk(piece)
            if done:
                piece += last_chunk(trailers)
        lines += (b"", piece)
        downstream.transport.write(b"\r\n".join(lines))
        if done:
            self._finish(now, False)
            downstream.finished(now)
        elif not downstream.is_write_paused:
            downstream.arm(lane.pool.between_bytes)

    def more(self, piece: bytes, trailers: bytes, *, done: bool) -> None:
        """More of the response body, and perhaps its end with its trailers."""
        if self.is_finished:
            return
        transport = self.downstream.transport
        self.sent += len(piece)
        if self._is_chunked:
            framed = chunk(piece) if piece else b""
            transport.write(framed + last_chunk(trailers) if done else framed)
        elif piece:
            transport.write(piece)
        if self.is_tunnel:
            if done:
                self.end_tunnel()
            elif not self.downstream.is_write_paused:
                self.downstream.arm(self.downstream.plane.listener.tunnel_timeout)
        elif done:
            now = monotonic()
            self._finish(now, False)
            self.downstream.finished(now)
        elif not self.downstream.is_write_paused:
            self.downstream.arm(self.lane.pool.between_bytes)

    def resume_response(self) -> None:
        """The client reads again: from here on it is the endpoint that is waited for."""
        listener, pool = self.downstream.plane.listener, self.lane.pool
        waits = pool.between_bytes if self._status else pool.first_byte
        self.downstream.arm(listener.tunnel_timeout if self.is_tunnel else waits)
        if self.upstream is not None:
            self.upstream.resume_reading()

    # -- the ends ------------------------------------------------------------------------------------------------------

    def fail(self, failure: Failure) -> None:
        """Answer for the backend, or, when its head has gone out already, break off where the client can see it."""
        if self.is_finished:
            return
        downstream = self.downstream
        self._drop_upstream()
        downstream.plane.failed(failure.value.word)
        now = monotonic()
        if self._status:
            self._finish(now, True)
            downstream.break_off()
            return
        self._status = failure.value.status
        if failure.value.closes or not self.is_request_complete or downstream.plane.is_draining:
            downstream.keep_alive = False
        answer = render(
            failure,
            self.request_id,
            close=not downstream.keep_alive,
            head_only=self.start.method == b"HEAD",
            lines=self.lane.response_lines,
            accept=value_of(self._head.split(b"\r\n"), b"accept"),
            pages=self.lane.error_pages,
        )
        downstream.transport.write(downstream.door.own(answer))
        self._finish(now, False)
        downstream.finished(now)

    def timed_out(self, *, is_last: bool) -> None:
        """A deadline passed: the client stalled, or the endpoint did, or (``is_last``) the whole took too long."""
        if self.is_tunnel:
            self.end_tunnel()
        elif is_last:
            self.fail(Failure.DEADLINE)
        elif not self.is_request_complete and self._status == 0 and not self.downstream.is_holding:
            self.fail(Failure.REQUEST_TIMEOUT)
        elif self.downstream.is_write_paused:
            self.fail(Failure.SLOW_READER)
        else:
            if self.endpoint is not None:
                self.endpoint.failed("timeout")
            self.fail(Failure.UPSTREAM_TIMEOUT)

    def client_gone(self) -> None:
        """The client left: cancel what the endpoint is doing."""
        if self.is_finished:
            return
        if self.is_tunnel:
            upstream, self.upstream = self.upstream, None
            if upstream is not None:
                upstream.leave()
            self._finish(self.sent_at, False)
            return
        self._drop_upstream()
        self.lane.meter.client_aborts += 1
        if not self._status:
            self._status = CLIENT_GONE
        self._finish(monotonic(), True)

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.close()

    def _finish(self, now: float, is_error: bool) -> None:
        """Settle the accounts. For a tunnel ``now`` is when it was opened: what follows is no latency."""
        self.is_finished = True
        if self.is_tunnel:
            self.downstream.plane.tunnels -= 1
        status, duration = self._status, now - self.started
        self.lane.meter.finished(status, duration, self.received, self.sent, is_error or status >= 500)
        access_log = self.downstream.plane.access_log
        if access_log is not None:
            access_log.add(
                now, self.client, self.start, status, self.sent, self.received, duration, self.lane,
                self.endpoint.address if self.endpoint is not None else b"", self.request_id,
            )  # fmt: skip
