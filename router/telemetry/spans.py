"""Spans on their way to a collector: OpenTelemetry's exporter in a thread of control's, behind a bounded queue.

The only place that knows OpenTelemetry, which is an extra (``otel``) and imported when there are spans to send. A
collector that is away or slow costs spans, which are counted, and nothing else.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from router import __version__
from router.telemetry.messages import Span, Traced

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    Send = Callable[[Sequence[Span]], bool]

QUEUE_SPANS: Final = 4096
BATCH_SPANS: Final = 512
EXPORT_SECONDS: Final = 5.0
"""For one batch, with the exporter's own retries."""

_REASONS: Final = {
    "hash": "split",
    "default": "default",
    "member": "targeting_match",
    "rule": "targeting_match",
    "override": "targeting_match",
    "propagated": "targeting_match",
}
"""Ours → one of those that OpenTelemetry knows for a feature flag; ``unknown`` for others."""
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_PORTS: Final = {"http": 80, "https": 443}
_FAULTS: Final = frozenset("UuDK")
"""Flags of the access log by whose cause it is not the client who has to do something else."""
CLIENT_GONE: Final = 499


def attributes(span: Span) -> dict[str, str | int]:
    """By OpenTelemetry's conventions for HTTP servers and for feature flags: the service is the flag, the ring its
    variant. What these have no name for is under ``ring_router``."""
    host, port = _server(span)
    known = span.method in _METHODS
    found: dict[str, str | int] = {
        "http.request.method": span.method if known else "_OTHER",
        "url.scheme": span.scheme,
        "url.path": span.path,
        "server.address": host,
        "server.port": port,
        "feature_flag.key": span.service,
        "feature_flag.provider.name": "ring-router",
        "feature_flag.result.variant": span.ring,
        "feature_flag.result.reason": _REASONS.get(span.reason, "unknown"),
        "ring_router.version": span.version,
        "ring_router.reason": span.reason,
        "ring_router.endpoint": span.endpoint,
        "ring_router.request_id": span.request_id,
    }
    if not known:
        found["http.request.method_original"] = span.method
    if span.status != CLIENT_GONE:
        found["http.response.status_code"] = span.status
    if span.flags:
        found["ring_router.flags"] = span.flags
    if span.flags or span.status >= 500:
        found["error.type"] = span.flags or str(span.status)
    return found


def _server(span: Span) -> tuple[str, int]:
    host, colon, port = span.authority.rpartition(":")
    if colon and port.isdigit():
        return host.strip("[]"), int(port)
    return span.authority.strip("[]"), _PORTS[span.scheme]


def is_error(span: Span) -> bool:
    """Whether a server's span is one that failed: a client's own mistake is none (conventions for HTTP spans)."""
    return span.status >= 500 or span.flags[:1] in _FAULTS


def exporter_to(url: str, service_name: str) -> Send:
    """What sends spans to a collector, and says whether they arrived. Raises ImportError without the extra."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what there is to say is said here
    exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_SECONDS)
    resource = Resource.create({"service.name": service_name, "service.version": __version__})
    scope = InstrumentationScope("ring-router", __version__)

    def send(spans: Sequence[Span]) -> bool:
        return exporter.export([_readable(span, resource, scope) for span in spans]) is SpanExportResult.SUCCESS

    return send


def _readable(span: Span, resource: Any, scope: Any) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    trace_id = int(span.trace_id, 16)

    def context(span_id: str, is_remote: bool) -> SpanContext:
        return SpanContext(trace_id, int(span_id, 16), is_remote, TraceFlags(TraceFlags.SAMPLED))

    began = int(span.at * 1e9)
    method = span.method if span.method in _METHODS else "HTTP"
    return ReadableSpan(
        name=method,
        context=context(span.span_id, False),
        parent=context(span.parent_id, True) if span.parent_id else None,
        resource=resource,
        attributes=attributes(span),
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR if is_error(span) else StatusCode.UNSET),
        start_time=began,
        end_time=began + int(span.duration * 1e9),
        instrumentation_scope=scope,
    )


class Spans:
    """Takes what workers send. ``take`` and ``send_to`` never wait; ``stop`` gives what is queued a moment."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._queue: list[Span] = []
        self.dropped = 0
        """Spans that nobody got, ever."""
        self._target: tuple[str, str] | None = None
        self._is_stopped = False
        self._is_failing = False
        self._news = threading.Event()
        self._thread: threading.Thread | None = None

    def send_to(self, target: tuple[str, str] | None) -> None:
        """To this URL spans go from now on, as those of a service of this name; None: nowhere."""
        self._target = target
        if self._target is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
            self._thread.start()

    def take(self, traced: Traced) -> None:
        """What a worker has."""
        room = QUEUE_SPANS - len(self._queue)
        self.dropped += traced.dropped + max(0, len(traced.spans) - room)
        self._queue += traced.spans[:room]
        self._news.set()

    def stop(self) -> None:
        """Send what there is, for two seconds at the most."""
        self._is_stopped = True
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def _run(self) -> None:
        target: tuple[str, str] | None = None
        send: Send | None = None
        while not self._is_stopped or self._queue:
            self._news.wait()
            self._news.clear()
            while self._queue:
                batch = self._queue[:BATCH_SPANS]
                del self._queue[: len(batch)]
                if self._target != target:
                    target, send = self._target, None
                    if target is not None:
                        send = exporter_to(*target)
                if send is None or not send(batch):
                    self.dropped += len(batch)
                    self._say(target, is_failing=True)
                else:
                    self._say(target, is_failing=False)

    def _say(self, target: tuple[str, str] | None, *, is_failing: bool) -> None:
        if is_failing == self._is_failing or target is None:
            return
        self._is_failing = is_failing
        if is_failing:
            self._log.warning(f"spans cannot be sent to {target[0]}: they are dropped, {self.dropped} so far")
        else:
            self._log.info(f"spans are sent to {target[0]} again; {self.dropped} were dropped so far")
