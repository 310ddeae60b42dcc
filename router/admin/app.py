"""The admin listener (aiohttp): ``/live``, ``/ready``, ``/metrics``, the API in ``/api/v1``, the dashboard in ``/ui/``.

It shows what it is given through ``View``, and changes what ``View`` lets it change. Who may do what is for ``auth`` to
say; this module only asks it, before any handler, for every path but those that probes and browsers need.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from http.cookies import CookieError
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from router.admin import auth, bodies, events, intake, reads, rollouts, static
from router.admin.auth import Access, Caller
from router.admin.events import Feed
from router.admin.openapi import ENDPOINTS, PREFIX
from router.admin.reads import DOCUMENT, VIEW, give
from router.admin.scrape import scraped
from router.admin.sessions import LINK_NAME, SESSION_SECONDS, Link, Sessions
from router.admin.trouble import Trouble
from router.admin.view import View
from router.admin.writes import CALLER, LEVERS, lever
from router.config.admin import Token

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SESSION_COOKIE: Final = "ring_session"
SECURE_SESSION_COOKIE: Final = "__Host-ring_session"
"""Where the browser speaks TLS: the prefix keeps other hosts of the domain from setting it (RFC 6265bis §4.1.3.2)."""
CSRF_COOKIE: Final = "ring_csrf"
PROBLEM: Final = "application/problem+json"


class Admin:
    """What the admin side knows beside the view: sessions, failures, streams, what was asked how often."""

    def __init__(self, view: View, assets: Path = static.DIRECTORY) -> None:
        self.view = view
        self.sessions = Sessions()
        self.failures = auth.Failures()
        self.feed = Feed(view)
        self.assets = static.load_assets(assets)
        self.link: Link | None = None
        self.requests: Counter[tuple[str, int]] = Counter()
        """(route, status) → how many."""
        self.log = structlog.get_logger()

    def make_link(self) -> str | None:
        """The path of a one-time link, new each time; None where nobody may come by one."""
        if not auth.is_link_allowed(self.view.settings()):
            return None
        self.link = Link(time.time())
        return f"/ui/login?once={self.link.secret}"

    def caller_of(self, request: web.Request) -> Caller:
        """Who asks. Raises ``Trouble`` for a token that is nobody's; a session that is over is a stranger's."""
        settings, now = self.view.settings(), time.time()
        header = request.headers.get("Authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            if scheme.lower() != "bearer" or len(request.headers.getall("Authorization")) > 1:
                raise Trouble("bad_token", "Authorization is `Bearer` and a token, once.")
            return self._by_token(request, token.strip())
        cookie = session_cookie(request)
        if cookie is None:
            return auth.STRANGER
        return self.sessions.read(cookie, settings, now) or auth.STRANGER

    def _by_token(self, request: web.Request, token: str) -> Caller:
        known = self.check_token(request, token)
        return Caller(known.name, known.role, "token")

    def check_token(self, request: web.Request, token: str) -> Token:
        """Whose it is. Raises ``Trouble``, and remembers the failure."""
        address, now = request.remote or "?", time.monotonic()
        self.failures.check(address, now)
        known = auth.holder_of(token, self.view.settings())
        if known is None:
            self.failed(request, "a token that is nobody's")
            raise Trouble("bad_token", "No token of `admin.tokens` has this digest.")
        return known

    def failed(self, request: web.Request, what: str) -> None:
        """Somebody tried: counted, and said; not more often than ``Failures`` lets them try."""
        self.failures.note(request.remote or "?", time.monotonic())
        self.log.warning(f"refused: {what}", address=request.remote, path=request.path)

    def refused(self, request: web.Request, caller: Caller, trouble: Trouble) -> None:
        """A write that never got to its lever."""
        self.log.warning(
            f"refused: {trouble.detail}",
            address=request.remote,
            path=request.path,
            actor=caller.name,
            code=trouble.code,
        )


ADMIN: Final = web.AppKey("admin", Admin)
_ACCESS: Final[dict[tuple[str, str], Access]] = {
    (endpoint.method.upper(), PREFIX + endpoint.path): endpoint.access for endpoint in ENDPOINTS
}
_WITHOUT_CSRF: Final = frozenset({PREFIX + "/explain", PREFIX + "/login"})
"""They change nothing that a session has."""
_NOTHING: Final = "There is nothing here; /api/v1/openapi.json says what there is."


def create_app(view: View, assets: Path = static.DIRECTORY) -> web.Application:
    """The admin application; the caller runs it."""
    app = web.Application(middlewares=[_guard], client_max_size=intake.BODY_BYTES)
    app[VIEW] = view
    app[ADMIN] = Admin(view, assets)
    app[DOCUMENT] = reads.openapi_bytes()
    app.cleanup_ctx.append(_run_feed)
    app.on_shutdown.append(_end_streams)
    api: list[tuple[str, str, Handler]] = [
        ("GET", "/openapi.json", reads.openapi), ("GET", "/session", _session), ("POST", "/login", _login),
        ("POST", "/logout", _logout), ("GET", "/state", reads.state), ("GET", "/rings", reads.rings),
        ("GET", "/series", reads.series), ("GET", "/backends", reads.backends), ("GET", "/config", reads.config),
        ("GET", "/audit", reads.audit), ("GET", "/fleet", reads.fleet), ("GET", "/explain", reads.explain),
        ("POST", "/explain", reads.explain), ("GET", "/events", _events), ("GET", "/tap", _tap),
        *(("POST", path, lever(path)) for path in LEVERS), *rollouts.routes(),
    ]  # fmt: skip
    for method, path, handler in api:
        # HEAD of an event stream would be a stream that says nothing.
        more = {"allow_head": False} if method == "GET" else {}
        app.add_routes([web.route(method, PREFIX + path, handler, **more)])
    app.add_routes(
        [
            web.get("/live", _live),
            web.get("/ready", _ready),
            web.get("/metrics", _metrics),
            web.get("/", _index),
            web.get("/ui", _to_dashboard),
            web.get("/ui/login", _login_page),
            web.get("/ui/{name:.*}", _asset),
        ]
    )
    return app


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Before everything: is it for us, who asks, may they, and does it come from our own pages."""
    admin = request.app[ADMIN]
    try:
        _admit(admin, request)
        response = await handler(request)
    except Trouble as trouble:
        response = _said(trouble)
    except web.HTTPException as error:
        if not request.path.startswith(PREFIX + "/"):
            raise
        response = _said(_translated(request, error))
    if not response.prepared:
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    admin.requests[_route(request) or "none", response.status] += 1
    return response


def _route(request: web.Request) -> str:
    """The route's path as it was added; empty: there is none."""
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical


def _admit(admin: Admin, request: web.Request) -> None:
    """Raises ``Trouble``."""
    host = request.headers.get("Host", "")
    settings = admin.view.settings()
    auth.check_host(host, settings)
    # The route that was found decides, not the path as it was written: two spellings of one must not differ.
    route = _route(request)
    access = _ACCESS.get((request.method, route))
    if access is None:
        if route.startswith(PREFIX):
            raise Trouble("not_found", _NOTHING)
        return
    caller = request[CALLER] = admin.caller_of(request)
    if request.method == "POST":
        _admit_write(admin, request, caller, host)
    try:
        auth.demand(access, caller, settings)
    except Trouble as trouble:
        if access == "operator":
            admin.refused(request, caller, trouble)
        raise


def _admit_write(admin: Admin, request: web.Request, caller: Caller, host: str) -> None:
    is_session = caller.by == "session"
    try:
        auth.check_origin(
            host, request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site"), is_session=is_session
        )
        if _route(request) not in _WITHOUT_CSRF:
            auth.check_csrf(caller, request.headers.get("X-CSRF-Token"), _cookies(request).get(CSRF_COOKIE))
    except Trouble as trouble:
        admin.refused(request, caller, trouble)
        raise


def _said(trouble: Trouble) -> web.Response:
    response = web.Response(status=trouble.status, body=events.encode(trouble.body()), content_type=PROBLEM)
    if trouble.retry_after is not None:
        response.headers["Retry-After"] = str(trouble.retry_after)
    if trouble.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _translated(request: web.Request, error: web.HTTPException) -> Trouble:
    """What aiohttp refuses, in the API's own shape."""
    match error.status:
        case 404:
            return Trouble("not_found", _NOTHING)
        case 405:
            return Trouble("method", f"{request.method} does nothing here; /api/v1/openapi.json says what does.")
        case 413:
            return Trouble("too_large", f"A body has {intake.BODY_BYTES} bytes at the most.")
        case _:
            return Trouble("malformed", f"{error.reason}.")


def _cookies(request: web.Request) -> dict[str, str]:
    try:
        return dict(request.cookies)
    except CookieError:
        return {}


def session_cookie(request: web.Request) -> str | None:
    cookies = _cookies(request)
    return cookies.get(SECURE_SESSION_COOKIE) or cookies.get(SESSION_COOKIE) or None


async def _run_feed(app: web.Application) -> AsyncIterator[None]:
    feed = app[ADMIN].feed
    feed.start()
    yield
    await feed.stop()


async def _end_streams(app: web.Application) -> None:
    await app[ADMIN].feed.stop()


async def _live(_request: web.Request) -> web.Response:
    return web.Response(text="live\n")


async def _ready(request: web.Request) -> web.Response:
    is_ready, sentence = request.app[VIEW].readiness()
    return web.Response(status=200 if is_ready else 503, text=sentence + "\n")


async def _metrics(request: web.Request) -> web.Response:
    return await scraped(request, request.app[VIEW].metrics)


async def _index(_request: web.Request) -> web.Response:
    return web.Response(text="ring-router admin: /ui/ /live /ready /metrics /api/v1/state /api/v1/openapi.json\n")


async def _to_dashboard(_request: web.Request) -> web.Response:
    return web.Response(status=308, headers={"Location": "/ui/"})


async def _asset(request: web.Request) -> web.Response:
    return static.answer(request, request.app[ADMIN].assets, request.match_info["name"] or "index.html")


async def _events(request: web.Request) -> web.StreamResponse:
    return await events.serve(request, request.app[ADMIN].feed, partial(_may_listen, request))


async def _tap(request: web.Request) -> web.StreamResponse:
    return await reads.tap(request, partial(_may_listen, request))


def _may_listen(request: web.Request) -> bool:
    """Whether who opened a stream may still see what is in it."""
    admin = request.app[ADMIN]
    try:
        auth.demand("viewer", admin.caller_of(request), admin.view.settings())
    except Trouble:
        return False
    return True


# -- sessions ----------------------------------------------------------------------------------------------------------


async def _session(request: web.Request) -> web.Response:
    admin = request.app[ADMIN]
    return give(_who(request[CALLER], admin))


def _who(caller: Caller, admin: Admin) -> bodies.Session:
    is_open = auth.are_reads_open(admin.view.settings())
    return bodies.Session(caller.name, caller.role, caller.by, is_open, caller.expires, caller.csrf)


async def _login(request: web.Request) -> web.Response:
    admin = request.app[ADMIN]
    body = await intake.read_body(request, bodies.Login)
    token = admin.check_token(request, body.token)
    cookie, caller = admin.sessions.begin(token, time.time())
    admin.log.info(f"{caller.name} has a session", address=request.remote, role=caller.role)
    response = give(_who(caller, admin))
    _give_cookies(request, response, cookie, caller)
    return response


async def _login_page(request: web.Request) -> web.Response:
    """The one-time link; without its secret, the dashboard, which asks for a token."""
    admin = request.app[ADMIN]
    secret = request.query.get("once")
    if secret is None:
        return static.answer(request, admin.assets, "index.html")
    admin.failures.check(request.remote or "?", time.monotonic())
    allowed = auth.is_link_allowed(admin.view.settings())
    if admin.link is None or not allowed or not admin.link.redeem(secret, time.time()):
        admin.failed(request, "a one-time link that is used, over or wrong")
        text = "This link was used already, or is older than 10 minutes. The router logs a new one when it starts.\n"
        return web.Response(status=401, text=text, headers=static.HEADERS)
    cookie, caller = admin.sessions.begin(None, time.time())
    admin.log.info(f"{LINK_NAME} has a session", address=request.remote, role=caller.role)
    response = web.Response(status=303, headers={**static.HEADERS, "Location": "/ui/"})
    _give_cookies(request, response, cookie, caller)
    return response


async def _logout(request: web.Request) -> web.Response:
    cookie = session_cookie(request)
    if cookie is not None:
        request.app[ADMIN].sessions.end(cookie)
    response = web.Response(status=204)
    for name in (SESSION_COOKIE, SECURE_SESSION_COOKIE, CSRF_COOKIE):
        response.del_cookie(name, path="/", secure=name == SECURE_SESSION_COOKIE or None)
    return response


def _give_cookies(request: web.Request, response: web.Response, cookie: str, caller: Caller) -> None:
    # A browser says by itself, in Origin, whether it speaks TLS; that it does can only make the cookie stricter.
    is_tls = request.secure or request.headers.get("Origin", "").startswith("https://")
    name = SECURE_SESSION_COOKIE if is_tls else SESSION_COOKIE
    age, secure = int(SESSION_SECONDS), is_tls or None
    response.set_cookie(name, cookie, max_age=age, path="/", httponly=True, samesite="Strict", secure=secure)
    response.set_cookie(CSRF_COOKIE, caller.csrf or "", max_age=age, path="/", samesite="Strict", secure=secure)
