"""A head that was read: who asks, which ring, which version; then on its way, or answered here."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from router.core.decide import decide, identify
from router.core.hashing import UserKey
from router.core.request import UNKNOWN
from router.core.snapshot import Service
from router.proxy.client import client_behind, forwarded_by_trusted
from router.proxy.exchange import Exchange
from router.proxy.facts import gather, minted_cookie
from router.proxy.failures import Failure
from router.proxy.forwarding import keeps_alive
from router.proxy.framing import BodyReader, ChunkedBody, LengthBody, trailers_of
from router.proxy.grammar import FramingError
from router.proxy.heads import RequestHead, replace_field, values
from router.proxy.proofs import take_link, travelling, weigh
from router.proxy.special import count_hop, last_hop, redirect, see_other
from router.proxy.upgrade import UPGRADE_LINES, check_handshake, wants_websocket
from router.proxy.wheel import NEVER

if TYPE_CHECKING:
    from router.proxy.downstream import Downstream

RATE_GRACE_SECONDS: Final = 20.0
"""How long an upload may be slower than ``body_rate`` (Apache's RequestReadTimeout, body=20)."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def admit(downstream: Downstream, head: RequestHead, rest: bytes) -> None:
    """Send a request on its way; ``rest`` is what came behind its head."""
    started = monotonic()
    plane = downstream.plane
    is_http10 = head.start.is_http10
    downstream.is_http10 = is_http10
    downstream.keep_alive = (
        not is_http10 if head.connection is None else keeps_alive(head.connection, is_http10=is_http10)
    )
    downstream.requests += 1
    limits = plane.listener.limits
    if limits.requests_per_connection and downstream.requests >= limits.requests_per_connection:
        downstream.keep_alive = False
    body: BodyReader | None = None
    if head.chunked:
        body = ChunkedBody()
    elif head.length > 0:
        body = LengthBody(head.length)

    snapshot = plane.snapshot
    service = snapshot.find(head.host, head.path) if snapshot is not None else None
    if (service is None or head.is_special or downstream.door.redirect_port) and _is_answered(
        downstream, service, head, body is None, rest
    ):
        return
    assert service is not None
    client = downstream.address
    if downstream.is_trusted:
        head.is_trusted = True
        client = client_behind((head.said or {}).get(b"x-forwarded-for", b""), client, plane.trusts)
    head.client = client
    if service.has_to_gather:
        gather(downstream, service, head)
    key = identify(service, head)
    minted = b""
    if key is None and service.anonymous_cookie is not None:
        key = UserKey(plane.new_anonymous_key())
        minted = minted_cookie(downstream, service, head, key)
    carried = head.carried
    if carried is not None:
        cookie = weigh(downstream, service, head, carried, key)
        if cookie:
            _follow(downstream, head, cookie, body is None, rest)
            return
    decision = decide(service, head, key)
    if head.digest != UNKNOWN:
        plane.sightings.saw(service.index, decision.place, head.digest)
    lane = plane.lanes[service.index][decision.index]
    if not lane.pool.is_well:
        lane = lane.outward(plane)

    if not head.request_id:
        head.request_id = plane.new_request_id()
    lines = head.lines
    if not head.authority:
        head.authority = lane.host
        replace_field(lines, b"host", b"Host: " + lane.host)
    if head.is_trusted:
        forwarded = forwarded_by_trusted(head.said or {}, downstream.address, downstream.door.scheme, head.authority)
    else:
        forwarded = downstream.forwarded + head.authority
    span = plane.tracer.begin(head, downstream.door.scheme) if plane.tracer is not None else None
    said = lane.head_lines if not is_http10 else lane.old_head_lines
    if carried is not None:
        said = travelling(lane, carried, lane.request_lines if not is_http10 else lane.old_request_lines)
    if head.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    lines += (said, forwarded, b"X-Request-Id: " + head.request_id, b"", b"")
    first = trailers = b""
    is_complete = True
    if body is not None:
        if rest:
            try:
                first = body.feed(rest)
            except FramingError:
                downstream.refuse(Failure.BAD_REQUEST, head)
                return
            rest = body.rest
        if lane.body_bytes and max(head.length, len(first)) > lane.body_bytes:
            downstream.refuse(Failure.BODY_TOO_LARGE, head, pages=lane.error_pages)
            return
        is_complete = body.done
        if is_complete:
            trailers = trailers_of(body)
        else:
            if head.expects and plane.listener.answers_expect and not first:
                downstream.transport.write(_CONTINUE)
            downstream.expect_body(body, started + RATE_GRACE_SECONDS if limits.body_rate else NEVER)
    if rest and is_complete:
        downstream.partial += rest
    exchange = Exchange(downstream, lane, head, key, client, started, minted)
    exchange.span = span
    downstream.exchange = exchange
    waits = lane.pool.waits if is_complete else plane.listener.body_timeout
    if plane.listener.request_timeout:
        downstream.ends = started + plane.listener.request_timeout
        waits = min(waits, plane.listener.request_timeout)
    downstream.deadline = deadline = started + waits
    if deadline < downstream.looked_at:
        plane.wheel.sooner(downstream)
    if not is_complete:
        downstream.release_reading()  # before it is sent, which may hold it again
    if head.upgrade is not None and wants_websocket(head):
        exchange.websocket_key = values(head.lines, b"sec-websocket-key")[0]
    exchange.send(first, trailers, is_complete)


def _is_answered(
    downstream: Downstream, service: Service | None, head: RequestHead, is_bodiless: bool, rest: bytes
) -> bool:
    """Whether the request ends here: redirected, refused, or at its last hop. What else it asks for is noted."""
    plane = downstream.plane
    if is_bodiless and (service is None or downstream.door.redirect_port):
        downstream.partial += rest
    if downstream.door.redirect_port:
        if not head.authority:
            downstream.refuse(Failure.BAD_REQUEST, head)
        else:
            port = downstream.door.redirect_port
            downstream.answer("redirect", lambda name, close: redirect(head, port, name, close), head, is_bodiless)
        return True
    if service is None:
        downstream.refuse(Failure.NO_SERVICE if plane.snapshot is not None else Failure.NOT_READY, head, is_bodiless)
        return True
    if head.carried is not None and head.start.has_pass:
        take_link(head, head.carried)
    try:
        if count_hop(head):
            if is_bodiless:
                downstream.partial += rest
            downstream.answer("last_hop", lambda name, close: last_hop(head, name, close), head, is_bodiless)
            return True
    except FramingError:
        downstream.refuse(Failure.BAD_REQUEST, head)
        return True
    if head.upgrade is not None and wants_websocket(head):
        failure = check_handshake(head)
        if failure is not None:
            downstream.refuse(failure, head)
            return True
        head.lines += UPGRADE_LINES
    if head.expects and not is_bodiless and not plane.listener.answers_expect:
        head.lines.append(b"Expect: 100-continue")
    return False


def _follow(downstream: Downstream, head: RequestHead, cookie: bytes, is_bodiless: bool, rest: bytes) -> None:
    """A link with a pass was opened: from now on the browser has it as a cookie, and the address is clean."""
    if is_bodiless:
        downstream.partial += rest
    target = head.start.target
    downstream.answer("pass_link", lambda name, close: see_other(target, cookie, name, close), head, is_bodiless)
