"""The proxy a user would write in an afternoon: aiohttp on both sides, uvloop, rings by header, cookie or hash."""

import sys

import uvloop
import xxhash
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "x-ring"}
port, v1, v2 = int(sys.argv[1]), f"http://127.0.0.1:{sys.argv[2]}", f"http://127.0.0.1:{sys.argv[3]}"


def ring_of(request: web.Request) -> str:
    if request.headers.get("X-Ring") == "canary" or request.cookies.get("ring") == "canary":
        return "canary"
    bucket = xxhash.xxh64_intdigest(request.headers.get("X-User-Id", "").encode()) % 10000
    return "canary" if bucket < 500 else "early" if bucket < 2500 else "everyone"


async def proxy(request: web.Request) -> web.StreamResponse:
    ring = ring_of(request)
    headers = [(k, v) for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP]
    headers += [("Host", request.host), ("X-Ring", ring), ("X-Forwarded-For", request.remote or "")]
    url = (v1 if ring == "everyone" else v2) + request.path_qs
    body = request.content if request.can_read_body else None
    async with request.app["session"].request(
        request.method, url, headers=headers, data=body, allow_redirects=False
    ) as answer:
        passed = [(k, v) for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP]
        response = web.StreamResponse(status=answer.status, headers=passed)
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def make() -> web.Application:
    app = web.Application(client_max_size=0)
    connector = TCPConnector(limit=0, keepalive_timeout=60)
    app["session"] = ClientSession(connector=connector, auto_decompress=False, timeout=ClientTimeout(total=60))
    app.on_cleanup.append(lambda app: app["session"].close())
    app.router.add_route("*", "/{path:.*}", proxy)
    return app


if __name__ == "__main__":
    web.run_app(make(), host="127.0.0.1", port=port, access_log=None, print=None, loop=uvloop.new_event_loop())
