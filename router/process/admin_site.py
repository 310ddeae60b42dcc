"""The admin side's socket: opened at the start, or when another control is relieved; handed on to a successor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from router.admin.app import ADMIN
from router.config.admin import AdminSettings
from router.telemetry.tasks import spawn

LONGEST_LINE: Final = 64 * 1024
"""Of an admin request: /explain has a whole request in its query."""
POLL_SECONDS: Final = 0.02
PATIENCE_SECONDS: Final = 1.0
"""For a connection that was accepted to ask, and be answered, before what is idle is closed."""


class AdminSite:
    """``start`` and ``stop`` once; ``yields`` is set when another control answers from now on."""

    def __init__(
        self,
        app: web.Application,
        settings: Callable[[], AdminSettings],
        is_ready: Callable[[], bool],
        log: Any,
        given: socket.socket | None,
        *,
        waits: bool,
    ) -> None:
        """``given`` is a socket that listens already; with ``waits`` another control answers on it until this one
        ``is_ready``."""
        self._app = app
        self._settings = settings
        self._is_ready = is_ready
        self._log = log
        self._given = given
        self._waits = waits
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, max_line_size=LONGEST_LINE)
        self._site: web.BaseSite | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.yields = asyncio.Event()

    async def start(self) -> None:
        """It is open then, unless it has to wait."""
        await self._runner.setup()
        opening = spawn(self._open(), name="admin side")
        self._tasks = [spawn(self._yield(), name="admin side, at a take-over"), opening]
        if not self._waits:
            await opening

    async def let_go(self) -> None:
        """Where it yields, until it has."""
        if self.yields.is_set():
            await self._tasks[0]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._runner.cleanup()

    async def _open(self) -> None:
        while self._waits and not self._is_ready():  # noqa: ASYNC110 - readiness is a look, it tells nobody
            await asyncio.sleep(POLL_SECONDS)
        listen = self._settings().listen
        try:
            site: web.BaseSite
            if self._given is not None:
                site = web.SockSite(self._runner, self._given)
            else:
                site = web.TCPSite(self._runner, listen.host, listen.port, reuse_address=True)
            await site.start()
            self._site = site
            self._say_dashboard()
        except OSError as error:
            where = f"{listen.host}:{listen.port}"
            self._log.error(f"the admin side cannot listen on {where}: {error.strerror}; set `admin.listen`")

    def _say_dashboard(self) -> None:
        """Where no token is configured, the log is what tells the operator from a stranger."""
        admin, link = self._settings(), self._app[ADMIN].make_link()
        if link is not None:
            self._log.info(f"dashboard, for 10 minutes and one use: http://{admin.listen}{link}")
        elif not admin.tokens:
            self._log.warning(
                f"nobody can use the API on {admin.listen}: it is not loopback, and `admin.tokens` is empty; "
                f"`ring-router token` makes one"
            )

    async def _yield(self) -> None:
        await self.yields.wait()
        if self._site is not None:
            await self._site.stop()
        await asyncio.sleep(PATIENCE_SECONDS)
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()  # kept connections would go on hearing of this one
        await self._app[ADMIN].feed.stop()
