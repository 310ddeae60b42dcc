"""What the router answers itself, and the access log's line of requests that never got a ring. Off the warm path."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

from router.core.spec import ErrorPageSpec
from router.proxy.client import client_behind
from router.proxy.ends import REQUEST
from router.proxy.failures import Failure, render
from router.proxy.heads import value_of
from router.proxy.lines import RequestLine
from router.telemetry.log_forms import Decided

if TYPE_CHECKING:
    from router.proxy.downstream import Downstream
    from router.proxy.exchange import Exchange
    from router.proxy.heads import RequestHead
    from router.telemetry.access_log import AccessLog

Make = Callable[[bytes, bool], bytes]
"""Makes the answer, of a request id and whether the connection is closed."""
_NOWHERE: Final = Decided("", "", "", "")
_UNREAD: Final = RequestLine(b"-", b"-", is_http10=False)
"""Of a head that was not read to its end, or not understood."""


def refusal(failure: Failure, head: RequestHead | None, head_only: bool, pages: tuple[ErrorPageSpec, ...]) -> Make:
    """What tells a client so."""
    accept = b"" if head is None else value_of(head.lines, b"accept")
    head_only = head_only or (head is not None and head.start.method == b"HEAD")
    return lambda request_id, close: render(
        failure, request_id, close=close, head_only=head_only, accept=accept, pages=pages
    )


def instead_of_backend(exchange: Exchange, failure: Failure) -> bytes:
    """What the client of a request is told whose backend failed it."""
    downstream, lane = exchange.downstream, exchange.lane
    answer = render(
        failure,
        exchange.request_id,
        close=not downstream.keep_alive,
        head_only=exchange.start.method == b"HEAD",
        lines=lane.response_lines,
        accept=value_of(exchange.head.split(b"\r\n"), b"accept"),
        pages=lane.error_pages,
    )
    return downstream.door.own(answer)


def note_unrouted(
    downstream: Downstream, log: AccessLog, head: RequestHead | None, request_id: bytes, answer: bytes, cause: str
) -> None:
    """``answer`` is the whole response; ``cause`` says why it is no other, empty where that is as it should be."""
    client = downstream.address
    if head is not None and downstream.is_trusted:
        client = client_behind((head.said or {}).get(b"x-forwarded-for", b""), client, downstream.plane.trusts)
    log.add(
        monotonic(), client, _UNREAD if head is None else head.start, int(answer[9:12]),
        len(answer.partition(b"\r\n\r\n")[2]), 0, 0.0, _NOWHERE, b"", request_id, (cause and cause + REQUEST).encode(),
        None,
    )  # fmt: skip
