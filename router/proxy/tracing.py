"""Spans of requests that are sampled: begun when the request goes on, noted when it is over, sent in batches.

One span for each request: what the backend does is a child of it. A request that is not sampled goes on as it came,
``traceparent`` and all. Nothing is sampled: all of this is not there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from time import time
from typing import TYPE_CHECKING, Final

from router.core.records import TracingSpec
from router.proxy.lines import field_name
from router.telemetry.messages import Span, Traced
from router.telemetry.sampling import Allowance
from router.telemetry.trace_context import Parent, read_traceparent, traceparent

if TYPE_CHECKING:
    from router.proxy.exchange import Exchange
    from router.proxy.heads import RequestHead

TRACE_FIELDS: Final = frozenset({b"traceparent"})
"""What has to be known of a request's head."""
BATCH_SECONDS: Final = 1.0
MOST_A_SECOND: Final = 1000
"""Of each worker: anybody can ask to be sampled."""
_IDS: Final = 1 << 64
_PATH_BYTES: Final = 1024


class Begun:
    """A span whose request is on its way; ids in hexadecimal, ``at`` is Unix time."""

    __slots__ = ("_tracer", "at", "authority", "parent_id", "scheme", "span_id", "trace_id")

    def __init__(
        self, tracer: Tracer, trace_id: bytes, span_id: bytes, parent_id: bytes, authority: bytes, scheme: bytes
    ) -> None:
        self._tracer = tracer
        self.at = time()
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.authority = authority
        self.scheme = scheme

    def end(self, exchange: Exchange, duration: float) -> None:
        """Its request is over."""
        lane, start = exchange.lane, exchange.start
        span = Span(
            self.trace_id.decode(), self.span_id.decode(), self.parent_id.decode(), self.at, duration,
            start.method.decode(), self.scheme.decode(), self.authority.decode("latin-1"),
            start.path[:_PATH_BYTES].decode("ascii", "backslashreplace"), exchange.status, exchange.flags.decode(),
            lane.service, lane.ring, lane.version, lane.reason,
            exchange.endpoint.address.decode() if exchange.endpoint is not None else "",
            exchange.request_id.decode("latin-1"),
        )  # fmt: skip
        self._tracer.take(span)


class Tracer:
    """A worker's; made anew when ``spec`` changes."""

    __slots__ = (
        "_allowance", "_batch", "_bits", "_bound", "_chance", "_dropped", "_is_due", "_loop", "_rate", "_send", "spec",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spec: TracingSpec,
        send: Callable[[Traced], None],
        most: int = MOST_A_SECOND,
    ) -> None:
        self.spec = spec
        self._loop = loop
        self._send = send
        self._rate = spec.rate
        self._bound = round(spec.rate * _IDS)
        source = Random()
        self._bits, self._chance = source.getrandbits, source.random
        self._allowance = Allowance(most, loop.time())
        self._batch: list[Span] = []
        self._dropped = 0
        self._is_due = False

    def begin(self, head: RequestHead, scheme: bytes) -> Begun | None:
        """The span of a request, if it is sampled; its head then says that it is the parent of what follows.

        The caller's word counts, where there is one; else chance decides, and the lower half of the new trace's id is
        one that OpenTelemetry's sampler TraceIdRatioBased would take at the same rate.
        """
        said = head.headers.get(b"traceparent")
        parent: Parent | None = None if said is None else read_traceparent(said)
        if parent is None:
            if self._chance() >= self._rate:
                return None
        elif not parent.is_sampled:
            return None
        if not self._allowance.take(self._loop.time()):
            self._dropped += 1
            self._is_news()
            return None
        if parent is None:
            trace_id = b"%016x%016x" % (self._bits(64) or 1, self._bits(64) * self._bound >> 64)
        else:
            trace_id = parent.trace_id
        span_id = b"%016x" % (self._bits(64) or 1)
        lines = head.lines
        if said is not None:
            # A state without the parent that it belongs to is worth nothing (Trace Context §4.3).
            gone = (b"traceparent",) if parent is not None else (b"traceparent", b"tracestate")
            lines[1:] = [line for line in lines[1:] if field_name(line) not in gone]
        lines.append(b"traceparent: " + traceparent(trace_id, span_id))
        return Begun(self, trace_id, span_id, b"" if parent is None else parent.span_id, head.authority, scheme)

    def take(self, span: Span) -> None:
        """One that is over."""
        self._batch.append(span)
        self._is_news()

    def _is_news(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(BATCH_SECONDS, self.flush)

    def flush(self) -> None:
        """Send what there is."""
        self._is_due = False
        batch, self._batch = self._batch, []
        dropped, self._dropped = self._dropped, 0
        if batch or dropped:
            self._send(Traced(batch, dropped))
