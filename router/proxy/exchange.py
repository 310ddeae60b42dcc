"""One request and its response: the glue between a client's connection and an endpoint's.

The way is one direction: ``start`` → head sent → ``respond`` → ``more`` … → finished. Whatever goes wrong arrives in
``upstream_lost``, ``fail`` or ``client_gone``, and each exchange ends exactly once, in ``settle``.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from router.core.hashing import UserKey
from router.proxy import ends
from router.proxy.answers import instead_of_backend
from router.proxy.attempts import (
    IDEMPOTENT,
    connect_to,
    is_sent_again,
    keeps,
    note_failure,
    spoil,
    survives,
    wait,
)  # fmt: skip
from router.proxy.changes import Lasting, is_event_stream
from router.proxy.endpoint import Endpoint
from router.proxy.failures import Failure
from router.proxy.forwarding import add_anonymous_cookie, timing_line
from router.proxy.framing import chunk, last_chunk
from router.proxy.heads import RequestHead, ResponseHead, has_field, replace_field
from router.proxy.tally import OVERHEAD_MASK
from router.proxy.tunnel import Tunnel
from router.proxy.upstream import Upstream

if TYPE_CHECKING:
    from router.proxy.downstream import Downstream
    from router.proxy.lane import Lane
    from router.proxy.tracing import Begun

CLIENT_GONE: Final = 499
"""nginx's code for a client that left before the response; never sent to anybody."""
_SHORT_HEAD: Final = 16 * 1024


class Exchange:
    """One request on its way. Made when a head is complete, dropped when the response is."""

    __slots__ = (
        "_chunks_request", "head", "_is_chunked", "outgoing", "client", "digest", "downstream", "endpoint", "flags",
        "has_interim", "has_met_stale", "head_due", "is_finished", "is_queued", "is_request_complete",
        "is_request_sent", "kept", "key", "lane", "lasting", "minted", "received", "request", "request_id", "sent",
        "overhead", "sent_at", "span", "start", "started", "status", "tried", "tunnel", "upstream", "waited",
        "websocket_key",
    )  # fmt: skip

    def __init__(
        self, downstream: Downstream, lane: Lane, head: RequestHead, key: UserKey | None, client: bytes, started: float,
        minted: bytes,
    ) -> None:  # fmt: skip
        self.downstream = downstream
        self.lane = lane
        self.request: RequestHead | None = head
        """Until the response has begun, and as long as there may be a decision anew."""
        self.lasting: Lasting | None = None
        self.start = head.start
        self.request_id = head.request_id
        self.key = key
        self.digest = head.digest
        self.minted = minted
        """The field that gives a new anonymous user a cookie with this response; empty for everybody else."""
        self.client = client
        """Whose request it is; not the peer's address where that is a trusted proxy."""
        self.span: Begun | None = None
        self.websocket_key = b""
        """Of a handshake; empty for everything else."""
        self.tunnel: Tunnel | None = None
        self.started = started
        self.sent_at = started
        self.waited = -1.0
        """From the request sent to the response head; below 0 until that comes."""
        self.overhead = -1.0
        """What this side took of the way to the endpoint, where it is measured."""
        self.sent = 0
        self.received = 0
        self.upstream: Upstream | None = None
        self.endpoint: Endpoint | None = None
        self.is_request_complete = False
        self.is_request_sent = False
        self.is_finished = False
        self.head = b"\r\n".join(head.lines)
        self._chunks_request = head.chunked
        self.outgoing: list[bytes] | None = None
        self.status = 0
        self.flags = b""
        """How it ended, if not as it should: see ``ends``."""
        self._is_chunked = False
        self.kept: bytes | bytearray | None = None
        """All that was sent, while it may have to be sent again."""
        self.tried: list[Endpoint] = []
        """Endpoints that have failed this request."""
        self.has_met_stale = False
        self.has_interim = False
        self.is_queued = False
        self.head_due = 0.0
        """When the last try has to be answered; 0 before the first retry."""

    def __repr__(self) -> str:
        return f"<Exchange {self.start.line!r} ring={self.lane.ring} status={self.status}>"

    # -- the request -------------------------------------------------------------------------------------------------

    def send(self, first: bytes, trailers: bytes, is_complete: bool) -> None:
        """Choose an endpoint and send the head with the body bytes that came with it."""
        lane = self.lane
        lane.decided += 1
        lane.meter.in_flight += 1
        self.is_request_complete = is_complete
        data = self.head
        if first or (is_complete and self._chunks_request):
            data += self._body(first, is_complete, trailers)
        pool = lane.pool
        pool.begun += 1
        if is_complete:
            self.kept = data
        elif keeps(self, len(data)):
            self.kept = bytearray(data)
        endpoint = None
        if not pool.is_limited or not pool.is_full:
            endpoint = pool.pick(self.downstream.plane.choose, self.key)
        if endpoint is None or (lane.is_closed and not pool.usable):
            self.outgoing = [data]
            wait(self)
            return
        self.endpoint = endpoint
        reserve = endpoint.reserve
        upstream = reserve.borrow() if self.start.method in IDEMPOTENT else reserve.borrow_silent()
        if upstream is None:
            self.outgoing = [data]
            connect_to(self, endpoint)
        else:
            self.upstream = upstream
            self.is_request_sent = is_complete
            upstream.begin(self, endpoint, data)
            if pool.begun & OVERHEAD_MASK == 1:
                self.overhead = monotonic() - self.started
        if lane.mirror is not None and is_complete:
            lane.mirror.copy(self, data)

    def hold_again(self) -> None:
        """What was sent is to be sent once more."""
        self.overhead = -1.0
        self._drop_upstream()
        self.outgoing = [bytes(self.kept or b"")]

    def may_be_unsent(self) -> bool:
        """Whether bytes of the request may still wait here: never those of a short head, or it had no answer."""
        return self.received > 0 or len(self.head) > _SHORT_HEAD

    def request_body(self, piece: bytes, trailers: bytes, *, done: bool) -> None:
        """More of the request body, already without its framing; ``trailers`` come with its end."""
        self.is_request_complete = done
        data = self._body(piece, done, trailers)
        if self.kept is not None:
            if keeps(self, len(self.kept) + len(data)):
                self.kept += data
            else:
                self.kept = None
        if self.outgoing is not None:
            self.outgoing.append(data)
            self.downstream.hold_reading()
            if self.is_queued:  # more of the body buys no more time in the queue
                self.downstream.arm(max(0.0, self.sent_at + self.lane.pool.queue_seconds - monotonic()))
        elif self.upstream is not None:
            self.upstream.transport.write(data)
            if done:
                self.is_request_sent = True
                self.sent_at = monotonic()
        if done and self.lane.mirror is not None:
            self.lane.mirror.copy(self, None if self.kept is None else bytes(self.kept))

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

    def upstream_lost(self, upstream: Upstream, kind: str) -> None:
        """The endpoint's connection ended before the response did. ``kind`` is ``reset`` or ``protocol``."""
        self.upstream = None
        endpoint = self.endpoint
        if self.is_finished or endpoint is None:
            return
        if self.tunnel is not None:
            self.tunnel.end()
            return
        if kind == "reset" and self.status == 0 and survives(self, upstream):
            return
        now = monotonic()
        spoil(endpoint, kind, now)
        note_failure(self, now)
        self.fail(Failure.UPSTREAM_RESET if kind == "reset" else Failure.UPSTREAM_PROTOCOL)

    # -- the response --------------------------------------------------------------------------------------------------

    def interim(self, head: ResponseHead) -> None:
        """A 1xx head: passed on to clients that can read one (RFC 9110 §15.2)."""
        self.has_interim = True
        replace_field(head.lines, b"content-length", None)  # RFC 9110 §8.6
        if not self.downstream.is_http10:
            self.downstream.transport.write(b"\r\n".join((*head.lines, b"", b"")))

    def open_tunnel(self, head: ResponseHead, piece: bytes) -> None:
        """The backend changes protocols: from here on bytes are passed as they are, both ways."""
        self.status = head.status
        self.tunnel = Tunnel(self, head, piece)
        self.downstream.enter_tunnel()
        self.downstream.plane.changes.watch(self)

    def respond(self, head: ResponseHead, piece: bytes, trailers: bytes, done: bool) -> None:
        """The response head with the first body bytes: one write."""
        downstream, lane = self.downstream, self.lane
        status = head.status
        now = monotonic()
        endpoint = self.endpoint
        if status >= 400:
            if is_sent_again(self, status, now):
                return
        elif endpoint is not None and endpoint.errors:
            endpoint.errors = 0
        self.status = status
        self.waited = now - self.sent_at
        lines = head.lines
        if self.minted:
            add_anonymous_cookie(lines, self.minted)
        if lane.response_lines:
            lines.append(lane.response_lines)
        if lane.says_timing:
            lines.append(timing_line(self.sent_at - self.started, now - self.sent_at))
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
        if done:
            self.settle(now, False)  # before the client can know of it: what was answered is counted, whatever comes
        downstream.transport.write(b"\r\n".join(lines))
        if self.overhead >= 0.0:
            downstream.plane.tally.worked(self.overhead + monotonic() - now)
        if done:
            downstream.finished(now)
            return
        if not downstream.is_write_paused:
            downstream.arm(lane.pool.between_bytes)
        if head.length < 0 and is_event_stream(head):
            downstream.plane.changes.watch(self)
        else:
            self.request = None

    def more(self, piece: bytes, trailers: bytes, *, done: bool) -> None:
        """More of the response body, and perhaps its end with its trailers."""
        if self.is_finished:
            return
        if self.tunnel is not None:
            self.tunnel.down(piece)
            if done:
                self.tunnel.end()
            return
        transport = self.downstream.transport
        self.sent += len(piece)
        now = 0.0
        if done:
            now = monotonic()
            self.settle(now, False)
        if self._is_chunked:
            framed = chunk(piece) if piece else b""
            transport.write(framed + last_chunk(trailers) if done else framed)
        elif piece:
            transport.write(piece)
        if done:
            self.downstream.finished(now)
        elif not self.downstream.is_write_paused:
            self.downstream.arm(self.lane.pool.between_bytes)

    def resume_response(self) -> None:
        """The client reads again: from here on it is the endpoint that is waited for."""
        listener, pool = self.downstream.plane.listener, self.lane.pool
        waits = pool.between_bytes if self.status else pool.waits
        self.downstream.arm(listener.tunnel_timeout if self.tunnel is not None else waits)
        if self.upstream is not None:
            self.upstream.resume_reading()

    # -- the ends ------------------------------------------------------------------------------------------------------

    def fail(self, failure: Failure) -> None:
        """Answer for the backend, or, when its head has gone out already, break off where the client can see it."""
        if self.is_finished:
            return
        downstream = self.downstream
        self.flags = ends.flags(self, failure.value.cause)
        self._drop_upstream()
        downstream.plane.tally.failed(failure.value.word)
        now = monotonic()
        if self.status:
            self.settle(now, True)
            downstream.break_off()
            return
        self.status = failure.value.status
        if failure.value.closes or not self.is_request_complete or downstream.plane.is_draining:
            downstream.keep_alive = False
        self.settle(now, False)
        downstream.transport.write(instead_of_backend(self, failure))
        downstream.finished(now)

    def come_back(self, cause: str = ends.MOVED) -> None:
        """Its user is to ask again: a WebSocket is told so, and an event stream ends as if it were complete."""
        self.flags = ends.flags(self, cause)
        if self.tunnel is not None:
            self.tunnel.restart()
        elif not self.is_finished:
            self._drop_upstream()
            now = monotonic()
            self.settle(now, False)
            if self._is_chunked:
                self.downstream.transport.write(last_chunk(b""))
            self.downstream.finished(now)

    def client_gone(self) -> None:
        """The client left: cancel what the endpoint is doing."""
        if self.is_finished:
            return
        is_killed = self.downstream.plane.is_closed
        if self.tunnel is not None:
            if is_killed:
                self.flags = ends.flags(self, ends.KILLED)
            self.tunnel.leave()
            return
        self.flags = ends.flags(self, ends.KILLED if is_killed else ends.CLIENT)
        self._drop_upstream()
        self.lane.meter.client_aborts += 1
        if not self.status:
            self.status = CLIENT_GONE
        self.settle(monotonic(), True, is_aborted=True)

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.close()

    def settle(self, now: float, is_error: bool, is_aborted: bool = False) -> None:
        """Settle the accounts. Of a tunnel's time, only that until it was opened is latency."""
        self.is_finished = True
        plane = self.downstream.plane
        if self.is_queued:
            self.lane.pool.leave_queue(self)
        if self.tunnel is not None:
            self.lane.meter.tunnels -= 1
        if self.lasting is not None:
            plane.changes.forget(self.lasting)
        until = now if self.tunnel is None else self.tunnel.opened_at
        status, duration = self.status, until - self.started
        plane.tally.finished(self, status, duration, is_error or status >= 500, is_aborted)
        if plane.tap is not None:
            plane.tap.take(self, status, duration)
        if self.span is not None:
            self.span.end(self, duration)
        access_log = plane.access_log
        if access_log is not None:
            access_log.add(
                now, self.client, self.start, status, self.sent, self.received, duration, self.lane,
                self.endpoint.address if self.endpoint is not None else b"", self.request_id, self.flags, self.key,
            )  # fmt: skip
