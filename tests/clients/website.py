"""The website that clients meet behind the router: files, uploads, streams, cookies, events, long polls."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import BodyPartReader, web
from multidict import CIMultiDict

from tests.clients.house import Seen, Serve, noise, sha256

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SEEN: web.RequestKey[Seen] = web.RequestKey("seen", Seen)
TEXT = "Rings widen; nobody moves back. " * 4_000
REFUSED_OVER = 1 << 20


def noted(version: str, request: web.Request) -> Seen:
    http = f"{request.version.major}.{request.version.minor}"
    return Seen(version, request.method, request.path_qs, CIMultiDict(request.headers), http)


@asynccontextmanager
async def site(app: web.Application) -> AsyncIterator[int]:
    """An application on a port of its own; bodies arrive as they were sent, compressed ones too."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, auto_decompress=False, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def recording(version: str, seen: list[Seen]) -> web.Application:
    """An application that notes each request before it is handled."""

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[SEEN] = noted(version, request)
        seen.append(request[SEEN])
        return await handler(request)

    return web.Application(middlewares=[note], client_max_size=1 << 30)


class Website:
    """The handlers of one version, and who waits there. ``files`` is a directory, served at /files."""

    def __init__(self, version: str, seen: list[Seen], files: Path) -> None:
        self.version = version
        self.seen = seen
        self.acknowledged: dict[str, asyncio.Queue[None]] = defaultdict(asyncio.Queue)
        self.waiting: dict[str, list[asyncio.Future[str]]] = defaultdict(list)
        self.app = recording(version, seen)
        add = self.app.router.add_route
        self.app.router.add_static("/files", files)
        add("*", "/hello", self.hello)
        add("*", "/upload", self.upload, expect_handler=self.go_on)
        add("*", "/guarded", self.upload, expect_handler=self.guard)
        add("GET", "/stream", self.stream)
        add("POST", "/echo", self.echo)
        add("GET", "/text", self.text)
        add("POST", "/form", self.form)
        add("GET", "/cookies/set", self.set_cookies)
        add("GET", "/cookies", self.cookies)
        add("*", "/elsewhere/{where}", self.elsewhere)
        add("GET", "/events/{name}", self.events)
        add("POST", "/ack/{name}", self.acknowledge)
        add("GET", "/poll/{name}", self.poll)
        add("POST", "/publish/{name}", self.publish)

    async def hello(self, request: web.Request) -> web.Response:
        return web.Response(text=f"hello from {self.version}: {request.query.get('n', '')}")

    # -- uploads -----------------------------------------------------------------------------------------------------

    async def upload(self, request: web.Request) -> web.Response:
        request[SEEN].body = body = await request.read()
        return web.json_response({"sha256": sha256(body), "length": len(body), "version": self.version})

    async def go_on(self, request: web.Request) -> None:
        """100 Continue, in this version's own words."""
        assert request.transport is not None
        request.transport.write(f"HTTP/1.1 100 Continue\r\nX-Said-By: {self.version}\r\n\r\n".encode())

    async def guard(self, request: web.Request) -> web.Response | None:
        """Refuses a large upload before its body is sent."""
        if int(request.headers["Content-Length"]) > REFUSED_OVER:
            self.seen.append(noted(self.version, request))
            return web.Response(status=413, text="no, thank you")
        await self.go_on(request)
        return None

    async def form(self, request: web.Request) -> web.Response:
        fields: dict[str, str] = {}
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            fields[part.name or ""] = sha256(await part.read())
        return web.json_response(fields)

    # -- streams -----------------------------------------------------------------------------------------------------

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """A body of unknown length: ``pieces`` pieces of 64 KiB."""
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await response.prepare(request)
        for n in range(int(request.query["pieces"])):
            await response.write(noise(1 << 16, f"piece {n}"))
        return response

    async def echo(self, request: web.Request) -> web.StreamResponse:
        """Sends back what arrives, as it arrives."""
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece)
        return response

    # -- negotiation, cookies, redirects -------------------------------------------------------------------------------

    async def text(self, request: web.Request) -> web.Response:
        response = web.Response(text=TEXT, headers={"Vary": "Accept-Encoding"})
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            response.enable_compression(web.ContentCoding.gzip)
        return response

    async def set_cookies(self, request: web.Request) -> web.Response:
        response = web.Response(text="baked")
        response.set_cookie("session", "s-1", httponly=True)
        response.set_cookie("basket", "b-2", path="/cookies")
        response.set_cookie("old", "", max_age=0)
        return response

    async def cookies(self, request: web.Request) -> web.Response:
        return web.json_response(dict(request.cookies))

    async def elsewhere(self, request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"/{request.match_info['where']}")

    # -- waiting -----------------------------------------------------------------------------------------------------

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events, each sent only after the one before it was acknowledged."""
        name = request.match_info["name"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        try:
            for n in range(int(request.query["count"])):
                await response.write(f"id: {n}\ndata: event {n}\n\n".encode())
                await self.acknowledged[name].get()
        except asyncio.CancelledError:
            request[SEEN].notes.append("left")
            raise
        return response

    async def acknowledge(self, request: web.Request) -> web.Response:
        self.acknowledged[request.match_info["name"]].put_nowait(None)
        return web.Response(status=204)

    async def poll(self, request: web.Request) -> web.Response:
        """Answers when somebody publishes."""
        news: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting = self.waiting[request.match_info["name"]]
        waiting.append(news)
        try:
            return web.Response(text=await news)
        finally:
            waiting.remove(news)

    async def publish(self, request: web.Request) -> web.Response:
        text = await request.text()
        waiting = [news for news in self.waiting[request.match_info["name"]] if not news.done()]
        for news in waiting:
            news.set_result(text)
        return web.Response(text=str(len(waiting)))


def website(files: Path) -> Serve:
    """Serves the website in each version."""
    return lambda version, seen: site(Website(version, seen, files).app)
