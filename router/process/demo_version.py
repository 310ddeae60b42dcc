"""One version of the demo's shop: answers every request with its name and the ring it was told.

It has a dial for faults: ``PUT /.demo/fault`` on its own port turns it (``ring-router demo fault``), ``GET`` shows it.
What comes through the router is a request like any other, whatever its path.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Final, Literal

import msgspec
from aiohttp import web

from router.process.lifetime import end_with_parent

DIAL: Final = "/.demo/fault"
USUAL_SECONDS: Final = 0.008
"""The median of what a real shop would take; without it there would be nothing but the noise of this machine."""
SPREAD: Final = 0.4
"""σ of ln seconds."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Shares of requests, 0 to 1, that fail or hang; and seconds that all take longer."""

    errors: float = 0.0
    hang: float = 0.0
    latency: float = 0.0

    def befalls(self, drawn: float) -> Literal["error", "hang", ""]:
        """What happens to a request that has drawn this number in [0, 1)."""
        if drawn < self.hang:
            return "hang"
        return "error" if drawn < self.hang + self.errors else ""


@dataclass
class Shop:
    """A version, and how its dial stands."""

    version: str
    chance: Random
    fault: Fault = Fault()
    hanging: int = 0
    nothing: asyncio.Event = field(default_factory=asyncio.Event)
    """Never set."""

    async def answer(self, request: web.Request) -> web.Response:
        fault = self.fault
        befallen = fault.befalls(self.chance.random())
        if befallen == "hang":
            self.hanging += 1
            try:
                await self.nothing.wait()
            finally:
                self.hanging -= 1
        await asyncio.sleep(self.chance.lognormvariate(0.0, SPREAD) * USUAL_SECONDS + fault.latency)
        if befallen == "error":
            return web.Response(status=500, text=f"The shop, version {self.version}, is out of order.\n")
        ring = request.headers.get("X-Ring", "no ring")
        user = request.headers.get("X-User-Id", "somebody")
        return web.Response(text=f"Hello {user}, this is the shop, version {self.version}, ring {ring}.\n")

    async def turn(self, request: web.Request) -> web.Response:
        try:
            self.fault = msgspec.json.decode(await request.read(), type=Fault)
        except msgspec.DecodeError as error:
            return web.Response(status=400, text=f"{error}\n")
        return await self.show(request)

    async def show(self, _request: web.Request) -> web.Response:
        return web.json_response(asdict(self.fault) | {"version": self.version, "hanging": self.hanging})


def application(shop: Shop) -> web.Application:
    """The shop, and its dial for whoever asks it directly."""

    def unless_routed(
        handler: Callable[[web.Request], Awaitable[web.Response]],
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            return await (shop.answer if "X-Ring" in request.headers else handler)(request)

        return handle

    app = web.Application()
    app.router.add_get(DIAL, unless_routed(shop.show))
    app.router.add_put(DIAL, unless_routed(shop.turn))
    app.router.add_route("*", "/{path:.*}", shop.answer)
    return app


def main() -> None:
    """``python -m router.process.demo_version VERSION PORT PARENT``; on loopback until SIGTERM."""
    version, port, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    end_with_parent(parent)
    app = application(Shop(version, Random()))
    web.run_app(
        app, host="127.0.0.1", port=port, print=None, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
    )


if __name__ == "__main__":
    main()
