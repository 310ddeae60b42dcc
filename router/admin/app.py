"""The admin listener (aiohttp): ``/live``, ``/ready``, ``/metrics``, ``/api/v1/state``.

It shows what it is given through ``View`` and changes nothing. Only a Host of this machine or of the configured address
is answered: a page on another site must not read the state through the browser of somebody who can (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class View(Protocol):
    """What the admin side may look at."""

    def readiness(self) -> tuple[bool, str]:
        """Whether traffic may come, and a sentence."""

    def metrics(self) -> bytes:
        """The Prometheus exposition."""

    def state(self) -> dict[str, Any]:
        """Everything, as plain data."""


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
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


async def _live(_request: web.Request) -> web.Response:
    return web.Response(text="live\n")


async def _ready(request: web.Request) -> web.Response:
    is_ready, sentence = request.app[VIEW].readiness()
    return web.Response(status=200 if is_ready else 503, text=sentence + "\n")


async def _metrics(request: web.Request) -> web.Response:
    body = request.app[VIEW].metrics()
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _state(request: web.Request) -> web.Response:
    return web.Response(body=_encode(request.app[VIEW].state()), content_type="application/json")


async def _index(_request: web.Request) -> web.Response:
    return web.Response(text="ring-router admin: /live /ready /metrics /api/v1/state\n")
