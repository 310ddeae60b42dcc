"""The admin listener (aiohttp): ``/live``, ``/ready``, ``/metrics``, ``/api/v1/state``, ``/api/v1/tap``.

It shows what it is given through ``View`` and changes nothing. Only a Host of this machine or of the configured address
is answered: a page on another site must not read the state through the browser of somebody who can (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web

from router.admin.scrape import scraped

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Listener(Protocol):
    """Somebody who listens to requests."""

    def batches(self) -> AsyncIterator[tuple[Sequence[Any], int]]:
        """Requests, and how many were left out; both empty as a sign of life."""

    def close(self) -> None:
        """They listen no more."""


class Refused(Exception):
    """Nobody can listen so; the message says why. ``status`` is that of the answer."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class View(Protocol):
    """What the admin side may look at."""

    def readiness(self) -> tuple[bool, str]:
        """Whether traffic may come, and a sentence."""

    def metrics(self, *, is_open: bool = False) -> bytes:
        """The exposition; as OpenMetrics if it ``is_open``."""

    def state(self) -> dict[str, Any]:
        """Everything, as plain data."""

    def tap(self, service: str, ring: str, rate: int) -> Listener:
        """Live requests, so many a second at the most; of all services and rings where those are empty.

        Raises ``Refused``.
        """


HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""On every response."""
VIEW = web.AppKey("view", View)
_encode = msgspec.json.Encoder(order="deterministic").encode


def create_app(view: View) -> web.Application:
    """The admin application; the caller runs it."""
    app = web.Application(middlewares=[_guard_host])
    app[VIEW] = view
    app.add_routes(
        [
            web.get("/live", _live),
            web.get("/ready", _ready),
            web.get("/metrics", _metrics),
            web.get("/api/v1/state", _state),
            web.get("/api/v1/tap", _tap),
            web.get("/", _index),
        ]
    )
    return app


@web.middleware
async def _guard_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    host = (request.url.host or "").lower()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost" and "." in host:
            raise web.HTTPMisdirectedRequest(
                text=f"Host {host!r} is not this admin listener's: ask by its IP address, localhost or a bare name.\n"
            ) from None
    response = await handler(request)
    if not response.prepared:
        response.headers.update(HEADERS)
    return response


async def _live(_request: web.Request) -> web.Response:
    return web.Response(text="live\n")


async def _ready(request: web.Request) -> web.Response:
    is_ready, sentence = request.app[VIEW].readiness()
    return web.Response(status=200 if is_ready else 503, text=sentence + "\n")


async def _metrics(request: web.Request) -> web.Response:
    return await scraped(request, request.app[VIEW].metrics)


async def _state(request: web.Request) -> web.Response:
    return web.Response(body=_encode(request.app[VIEW].state()), content_type="application/json")


async def _tap(request: web.Request) -> web.StreamResponse:
    """Live requests as server-sent events (WHATWG HTML §9.2): a JSON object each; ``dropped`` says how many are not."""
    query = request.query
    try:
        rate = int(query.get("rate", "10"))
        listener = request.app[VIEW].tap(query.get("service", ""), query.get("ring", ""), rate)
    except ValueError:
        return web.Response(status=400, text=f"rate={query['rate']!r} is not a whole number of requests a second\n")
    except Refused as refused:
        return web.Response(status=refused.status, text=f"{refused}\n")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **HEADERS})
    try:
        await response.prepare(request)
        await response.write(b": listening\n\n")
        async for samples, dropped in listener.batches():
            said = b"".join(b"data: %b\n\n" % _encode(sample) for sample in samples)
            if dropped:
                said += b'event: dropped\ndata: {"dropped":%d}\n\n' % dropped
            await response.write(said or b":\n\n")
        await response.write_eof()
    except OSError:
        pass  # the listener has left
    finally:
        listener.close()
    return response


async def _index(_request: web.Request) -> web.Response:
    return web.Response(text="ring-router admin: /live /ready /metrics /api/v1/state /api/v1/tap\n")
