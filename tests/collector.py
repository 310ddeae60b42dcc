"""An OpenTelemetry collector for tests: takes spans by OTLP over HTTP on loopback, and reads what they say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """``spans`` are those that came, ``resources`` the attributes of who sent them. ``status`` is what it answers."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []
        self.status = 200
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        data = await request.read()
        assert request.headers["Content-Type"] == "application/x-protobuf"
        if self.status == 200:
            for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                self.resources.append(said(resource.resource.attributes))
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response(status=self.status)

    def by_path(self) -> dict[str, Span]:
        return {said(span.attributes)["url.path"]: span for span in self.spans}


def said(attributes: Any) -> dict[str, Any]:
    """Attributes as a dictionary."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()
