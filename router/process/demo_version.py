"""One version of the demo's shop: answers every request with its name and the ring it was told."""

from __future__ import annotations

import sys

from aiohttp import web

from router.process.lifetime import end_with_parent


async def _answer(request: web.Request) -> web.Response:
    ring = request.headers.get("X-Ring", "no ring")
    user = request.headers.get("X-User-Id", "somebody")
    return web.Response(text=f"Hello {user}, this is the shop, version {request.app[VERSION]}, ring {ring}.\n")


VERSION = web.AppKey("version", str)


def main() -> None:
    """``python -m router.process.demo_version VERSION PORT PARENT``; on loopback until SIGTERM."""
    version, port, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    end_with_parent(parent)
    app = web.Application()
    app[VERSION] = version
    app.router.add_route("*", "/{path:.*}", _answer)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
