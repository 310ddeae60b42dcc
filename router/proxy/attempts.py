"""Where a request goes when the first way does not work: another connection, another endpoint, the next ring out.

A request whose head has not been sent may go anywhere. One that was sent goes once more only if it is idempotent, all
of it is kept, no byte of an answer came, and the version's budget pays for it (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from router.proxy import ends
from router.proxy.connect import connect
from router.proxy.endpoint import Endpoint
from router.proxy.failures import Failure
from router.proxy.upstream import Upstream

if TYPE_CHECKING:
    from router.proxy.exchange import Exchange
    from router.proxy.lane import Lane

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110 §9.2.2."""


def connect_to(exchange: Exchange, endpoint: Endpoint) -> None:
    """Make a connection for a request. Until it is there it counts as one in flight: a black hole fills up."""
    exchange.endpoint = endpoint
    endpoint.active += 1
    endpoint.pool.in_flight += 1
    exchange.downstream.plane.spawn(_connected(exchange, endpoint), name=f"connect {endpoint.spec.address}")


async def _connected(exchange: Exchange, endpoint: Endpoint) -> None:
    pool = endpoint.pool
    try:
        made = await connect(exchange.downstream.plane, endpoint, pool.connect_timeout)
    finally:  # a place that is not given back is lost for good
        endpoint.active -= 1
        pool.in_flight -= 1
    # It may be over, or have gone elsewhere because this took longer than one try may take.
    is_wanted = not exchange.is_finished and exchange.endpoint is endpoint and exchange.upstream is None
    if isinstance(made, Failure):
        if is_wanted:
            _try_elsewhere(exchange, endpoint, made)
    elif is_wanted:
        _send_held(exchange, made, endpoint)
    else:
        made.uses = 1  # it will have waited: as likely to be dead as any other kept connection
        made.rest_in_pool()
    pool.made_room()


def _try_elsewhere(exchange: Exchange, endpoint: Endpoint, failure: Failure) -> None:
    """No connection, so nothing was sent: any method may go to a sibling, or else to the next version outward."""
    exchange.tried.append(endpoint)
    pool = exchange.lane.pool
    other = (
        pool.other(exchange.downstream.plane.choose, exchange.tried)
        if len(exchange.tried) <= pool.retries.attempts
        else None
    )
    if other is None:
        go_outward(exchange, failure)
    else:
        _count(pool.counters.retries, "connect")
        dispatch(exchange, other)


def go_outward(exchange: Exchange, failure: Failure) -> None:
    """Nothing was sent, and this version has nobody to send it to: the next one outward, or this failure."""
    plane, lane = exchange.downstream.plane, exchange.lane
    outer = lane.outward(plane)
    if outer is lane:
        note_failure(exchange, monotonic())
        exchange.fail(failure)
        return
    change_lane(exchange, outer)
    pool = outer.pool
    other = None if pool.is_limited and pool.is_full else pool.pick(plane.choose, exchange.key)
    if other is not None:
        dispatch(exchange, other)
    elif pool.is_limited:
        enqueue(exchange)
    else:
        exchange.fail(failure)


def change_lane(exchange: Exchange, lane: Lane) -> None:
    """Nothing was sent, and another version is to have it."""
    before, exchange.lane = exchange.lane, lane
    exchange.downstream.plane.tally.went_elsewhere(before)
    lane.decided += 1
    lane.meter.in_flight += 1
    lane.pool.begun += 1
    exchange.tried = []
    is_old = exchange.start.is_http10
    said = before.old_request_lines if is_old else before.request_lines
    says = lane.old_request_lines if is_old else lane.request_lines
    exchange.head = exchange.head.replace(said, says, 1)
    if exchange.outgoing:
        exchange.outgoing[0] = exchange.outgoing[0].replace(said, says, 1)
    if exchange.kept is not None:
        exchange.kept = exchange.kept.replace(said, says, 1)


def dispatch(exchange: Exchange, endpoint: Endpoint) -> None:
    """Send what is held, over a warm connection or a new one."""
    warm = endpoint.reserve.borrow_silent()
    if warm is None:
        connect_to(exchange, endpoint)
    else:
        _send_held(exchange, warm, endpoint)


def _send_held(exchange: Exchange, upstream: Upstream, endpoint: Endpoint) -> None:
    """Send what waited for a connection."""
    data = b"".join(exchange.outgoing or ())
    exchange.outgoing = None
    exchange.endpoint = endpoint
    exchange.upstream = upstream
    exchange.is_request_sent = exchange.is_request_complete
    exchange.sent_at = monotonic()
    exchange.downstream.release_reading()  # before the write, which may hold it again
    upstream.begin(exchange, endpoint, data)
    if exchange.downstream.is_write_paused:
        upstream.pause_reading()


def wait(exchange: Exchange) -> None:
    """Nowhere to go, or no room."""
    pool = exchange.lane.pool
    if pool.is_limited and pool.usable:
        enqueue(exchange)
    else:
        exchange.fail(Failure.NO_ENDPOINT)


def enqueue(exchange: Exchange) -> None:
    """No room for it in its version: wait for some, or be turned away."""
    pool = exchange.lane.pool
    if pool.queue(exchange):
        exchange.is_queued = True
        exchange.sent_at = monotonic()
        exchange.downstream.arm(pool.queue_seconds)
    else:
        shed(exchange, "queue_full")


def leave_queue(exchange: Exchange, endpoint: Endpoint | None) -> None:
    """Its turn has come; or, without an endpoint, it waits for nothing here."""
    exchange.is_queued = False
    exchange.sent_at = monotonic()
    listener, waits = exchange.downstream.plane.listener, exchange.lane.pool.waits
    exchange.downstream.arm(waits if exchange.is_request_complete else listener.body_timeout)
    if endpoint is None:
        go_outward(exchange, Failure.NO_ENDPOINT)
    else:
        dispatch(exchange, endpoint)


def shed(exchange: Exchange, why: str) -> None:
    """Too much to do."""
    _count(exchange.lane.pool.counters.shed, why)
    exchange.fail(Failure.OVERLOADED)


def survives(exchange: Exchange, upstream: Upstream) -> bool:
    """The connection ended before the answer began. Whether the request is on its way again."""
    endpoint = exchange.endpoint
    if endpoint is None or not _may_resend(exchange) or not upstream.is_silent:
        return False
    if upstream.uses > 1 and not exchange.has_met_stale:
        # A kept-alive connection may die just as it is used (RFC 9112 §9.3.1): once more, on a fresh one. This needs no
        # budget: the backend is as well as before.
        exchange.has_met_stale = True
        _resend(exchange, endpoint, "stale")
        return True
    if not _goes_again(exchange, endpoint, "reset"):
        return False
    spoil(endpoint, "reset", monotonic())
    return True


def is_sent_again(exchange: Exchange, status: int, now: float) -> bool:
    """An answer of 400 or more: what it says of the endpoint, and whether it is one to try again after."""
    endpoint = exchange.endpoint
    if endpoint is None:
        return False
    pool = endpoint.pool
    if status >= 500:
        pool.strike(endpoint, now)
    elif endpoint.errors:
        endpoint.errors = 0
    if (
        status in pool.retries.statuses
        and exchange.is_request_complete
        and _may_resend(exchange)
        and _goes_again(exchange, endpoint, "status")
    ):
        return True
    if status >= 500:
        note_failure(exchange, now)
    return False


def is_tried_again(exchange: Exchange, now: float) -> bool:
    """No answer in the time that one try has. Whether another endpoint is asked."""
    endpoint = exchange.endpoint
    if endpoint is None:
        return False
    pool = endpoint.pool
    due = exchange.sent_at + pool.first_byte if not exchange.head_due else exchange.head_due
    if (
        pool.retries.per_try
        and now < due
        and exchange.is_request_complete
        and _may_resend(exchange)
        and _goes_again(exchange, endpoint, "timeout")
    ):
        spoil(endpoint, "timeout", now)
        exchange.head_due = due
        exchange.downstream.arm(min(pool.waits, due - now))
        return True
    if pool.retries.per_try and now < due:  # nobody else to ask: this one has the whole time
        exchange.downstream.arm(due - now)
        return True
    return False


def timed_out(exchange: Exchange, *, is_last: bool) -> None:
    """A deadline passed: the client stalled, or the endpoint did, or (``is_last``) the whole took too long."""
    downstream = exchange.downstream
    if exchange.tunnel is not None:
        exchange.flags = ends.flags(exchange, ends.CLIENT_SLOW if downstream.is_write_paused else ends.IDLE)
        exchange.tunnel.end()
    elif is_last:
        exchange.fail(Failure.DEADLINE)
    elif exchange.is_queued:
        shed(exchange, "queue_time")
    elif not exchange.is_request_complete and exchange.status == 0 and not downstream.is_holding:
        exchange.fail(Failure.REQUEST_TIMEOUT)
    elif downstream.is_write_paused:
        exchange.fail(Failure.SLOW_READER)
    else:
        now, endpoint = monotonic(), exchange.endpoint
        if endpoint is not None and exchange.status == 0 and is_tried_again(exchange, now):
            return
        if endpoint is not None:
            spoil(endpoint, "timeout", now)
        note_failure(exchange, now)
        exchange.fail(Failure.UPSTREAM_TIMEOUT)


def keeps(exchange: Exchange, size: int) -> bool:
    """Whether so many bytes of an upload are kept, to be sent again or copied."""
    mirror = exchange.lane.mirror
    return size <= exchange.lane.pool.retries.replay_bytes or (mirror is not None and mirror.wants(exchange))


def note_failure(exchange: Exchange, now: float) -> None:
    """A user was failed by a version: enough of that, and its rings' users go outward, if it is better there."""
    lane = exchange.lane
    pool = lane.pool
    if pool.breaker.failed(exchange.key or exchange.client, pool.begun, now) and pool.is_well:
        outer = lane.outward(exchange.downstream.plane)
        if outer is not lane and 2 * outer.pool.failing(now) < pool.failing(now):
            pool.trip(now)


def _may_resend(exchange: Exchange) -> bool:
    return exchange.kept is not None and exchange.start.method in IDEMPOTENT and not exchange.has_interim


def _goes_again(exchange: Exchange, endpoint: Endpoint, why: str) -> bool:
    pool = endpoint.pool
    if len(exchange.tried) >= pool.retries.attempts:
        return False
    other = pool.other(exchange.downstream.plane.choose, [*exchange.tried, endpoint])
    if other is None and why != "status":  # the same one again would do the same again
        return False
    if not pool.budget.take(pool.begun):
        _count(pool.counters.retries, "no_budget")
        return False
    exchange.tried.append(endpoint)
    _resend(exchange, other or endpoint, why)
    return True


def spoil(endpoint: Endpoint, kind: str, now: float) -> None:
    """An endpoint has to answer for it, whether a user was failed or somebody else was asked."""
    endpoint.failed(kind)
    endpoint.pool.strike(endpoint, now)


def _resend(exchange: Exchange, endpoint: Endpoint, why: str) -> None:
    _count(endpoint.pool.counters.retries, why)
    exchange.hold_again()
    connect_to(exchange, endpoint)


def _count(counts: dict[str, int], word: str) -> None:
    counts[word] = counts.get(word, 0) + 1
