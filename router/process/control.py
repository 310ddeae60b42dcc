"""The control process: config file, Redis, snapshots and the admin side, in one loop that no request waits for.

It composes what the layers below offer and decides nothing itself. A bad config changes nothing and is said; killed, it
is restarted by the parent and goes on from the runtime directory while the workers route as before.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from aiohttp import web

from router import __version__
from router.admin.app import create_app
from router.config.compile import LiveConflict, ring_names
from router.config.files import list_files, look_at
from router.config.load import ConfigError, load_settings
from router.config.settings import Settings
from router.control.backends import Backends
from router.control.board import Board, Found, shown
from router.control.hub import Hub
from router.control.jwks import Issuers
from router.control.members import Members
from router.control.people import People
from router.control.rules import service_rules
from router.control.shares import Shares
from router.control.store import Store
from router.control.taps import Listener, Taps
from router.control.trouble import Trouble, news, troubles, warning
from router.control.unhealthy import warnings_of, widened
from router.core.health import is_version_up
from router.core.live import Live
from router.core.spec import SnapshotSpec
from router.process.backends import backends_state, live_state, rings_state
from router.process.figures import figures, workers_state
from router.process.lifetime import end_with_parent, unblock_signals
from router.process.past import Memory
from router.process.restarts import Restarts
from router.process.tapping import listen
from router.proxy.tls import client_context
from router.telemetry.counters import VersionKey
from router.telemetry.exposition import render
from router.telemetry.log import configure
from router.telemetry.page import Kept
from router.telemetry.tasks import spawn

CONFIG_POLL_SECONDS: Final = 1.0
"""A ConfigMap is swapped through symlinks, which inotify on the file does not see: the content is polled."""
ADMIN_POLL_SECONDS: Final = 0.02
ADMIN_PATIENCE_SECONDS: Final = 1.0
"""For a connection that was accepted to ask, and be answered, before what is idle is closed."""


class Control:
    """One running control process; also the admin side's view of it."""

    def __init__(
        self,
        settings: Settings,
        path: Path,
        runtime: Path,
        workers: int,
        listen: list[str],
        admin: socket.socket | None = None,
        *,
        waits: bool = False,
    ) -> None:
        self._admin = admin
        self._waits = waits
        """Whether another control answers on the admin socket until the workers of this one serve."""
        self._is_stopping = False
        self._yields = asyncio.Event()
        self._site: web.BaseSite | None = None
        self.settings = settings
        self._path = path
        self._listen = listen
        self._started_at = time.time()
        self._at_start = settings
        self._refused: dict[str, str] = {}
        """Config and files as they were when they were refused."""
        self.config_error = ""
        self._needs_restart: tuple[str, ...] = ()
        self.reloads: Counter[str] = Counter()
        self.loaded_at = time.time()
        self._revision = 1
        self._log = structlog.get_logger()
        self._stop = asyncio.Event()
        self.instance = settings.instance or f"{socket.gethostname()}:{listen[0].rpartition(':')[2]}"
        self.hub = Hub(runtime, workers)
        self.shares = Shares()
        self.restarts = Restarts()
        self.memory = Memory(runtime)
        self._shown: Kept = {}
        self.board = Board(runtime, self.hub.publish)
        self.taps = Taps(self.hub.tap)
        self.hub.on_tapped = self.taps.taken
        self.backends = Backends(self._again, client_context, log=self._log)
        self._warnings: dict[str, tuple[str, ...]] = {}
        self._troubles: dict[VersionKey, Trouble] = {}
        state_dir = Path(settings.state_dir)
        self.issuers = Issuers(self._again, state_dir, log=self._log)
        self.members = Members(settings.redis, state_dir, runtime, self._again, self._log)
        self.store = Store(
            settings.redis, service_rules(settings), state_dir, self.instance, self._refresh, self._log, self.members
        )
        self.people = People(settings.redis, lambda: self.store.state in ("live", "poll"), self._log)
        self.hub.on_seen = self.people.saw

    async def run(self) -> None:
        """Until SIGTERM."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        runner = web.AppRunner(create_app(self), access_log=None, handle_signals=False)
        await runner.setup()
        loop.add_signal_handler(signal.SIGUSR1, self._stopping)
        loop.add_signal_handler(signal.SIGUSR2, self._yields.set)
        yielding = spawn(self._yield_admin(runner), name="admin side, at a take-over")
        opening = spawn(self._open_admin(runner), name="admin side")
        if not self._waits:
            await opening
        # Redis and DNS have half a second to say what is live; then the workers get what there is.
        await asyncio.gather(
            self.store.start(),
            self.backends.start(self.settings, self.board.spec),
            self.issuers.start(self.settings),
            self.members.start(ring_names(self.settings), list_files(self.settings)),
        )
        self._refresh(self.store.live)
        if self.hub.spec is None and self.board.spec is not None:
            self.hub.publish(self.board.spec)
        self.people.start()
        await self.hub.start()
        watching = spawn(self._watch_config(), name="config file")
        await self._stop.wait()
        if self._yields.is_set():
            await yielding
        watching.cancel()
        self.taps.end()
        await self.backends.stop()
        yielding.cancel()
        await self.issuers.stop()
        await self.members.stop()
        await self.people.stop()
        await self.store.stop()
        await self.hub.stop()
        await runner.cleanup()

    async def _open_admin(self, runner: web.AppRunner) -> None:
        while self._waits and not self.readiness()[0]:  # noqa: ASYNC110 - readiness is a look, it tells nobody
            await asyncio.sleep(ADMIN_POLL_SECONDS)
        host, port = self.settings.admin.listen.host, self.settings.admin.listen.port
        try:
            site: web.BaseSite
            if self._admin is not None:
                site = web.SockSite(runner, self._admin)
            else:
                site = web.TCPSite(runner, host, port, reuse_address=True)
            await site.start()
            self._site = site
        except OSError as error:
            self._log.error(f"the admin side cannot listen on {host}:{port}: {error.strerror}; set `admin.listen`")

    def _stopping(self) -> None:
        """SIGUSR1: the router is about to stop, and says so before it does."""
        self._is_stopping = True

    async def _yield_admin(self, runner: web.AppRunner) -> None:
        """SIGUSR2: another control answers on the admin socket from now on."""
        await self._yields.wait()
        if self._site is not None:
            await self._site.stop()
        await asyncio.sleep(ADMIN_PATIENCE_SECONDS)
        if runner.server is not None:
            runner.server.pre_shutdown()  # kept connections would go on hearing of this one

    # -- what changes routing ------------------------------------------------------------------------------------------

    def _again(self) -> None:
        """Endpoints, members or keys of issuers have changed."""
        self._refresh(self.store.live)

    def _refresh(self, live: Mapping[str, Live]) -> None:
        before = self.board.spec
        found = Found(
            self.backends.resolved, self.backends.down, self.members.tables, self.members.lists, self.issuers.found
        )
        try:
            self.board.refresh(self.settings, live, self._listen, found)
        except LiveConflict as conflict:
            self.config_error = f"the config and what is live in Redis do not fit together: {conflict}"
            self._log.error(f"{self.config_error}; the routing stays as it was")
            return
        spec = self.board.spec
        if spec is None:
            return
        self.people.installed(spec)
        self._say_warnings(before, spec)
        self.store.note_applied(spec, self._warnings)

    def _say_warnings(self, before: SnapshotSpec | None, after: SnapshotSpec) -> None:
        """Each once: when a ring's version has nobody left, and when such a ring is widened all the same."""
        known = {} if before is None else {service.name: service for service in before.services}
        warnings = {service.name: warnings_of(service) for service in after.services}
        for service in after.services:
            was = known.get(service.name)
            wider = () if was is None else widened(was, service)
            news = [one for one in warnings[service.name] if one not in self._warnings.get(service.name, ())]
            for sentence in (*wider, *news):
                self._log.warning(sentence, service=service.name)
        self._warnings = {name: said for name, said in warnings.items() if said}

    async def _watch_config(self) -> None:
        while True:
            await asyncio.sleep(CONFIG_POLL_SECONDS)
            self._look_at_config(is_asked=False)
            self._say_troubles()
            self.memory.whole(self)
            if self.shares.is_due(time.monotonic()):
                self.shares.note(time.monotonic(), self.hub.decisions())
            self.issuers.note_refused_tokens(self.hub.refused_tokens())
            if self.board.spec is not None and self.hub.applied_everywhere == self.board.spec.generation:
                self.members.sweep(self.board.spec)

    def _say_troubles(self) -> None:
        before, self._troubles = self._troubles, troubles(self.hub.versions())
        for sentence in news(before, self._troubles, self.hub.expected):
            self._log.warning(sentence)

    def _said_of(self, service: str) -> list[str]:
        found = (warning(key[1], one) for key, one in self._troubles.items() if key[0] == service)
        return [*self._warnings.get(service, ()), *found]

    def reload(self) -> None:
        """SIGHUP: look at the file now, and say so whatever comes of it."""
        self._look_at_config(is_asked=True)

    def _look_at_config(self, *, is_asked: bool) -> None:
        in_force = self.settings.files.seen
        if look_at(in_force) == in_force:
            if is_asked:
                self.reloads["unchanged"] += 1
                self._log.info(f"config {self._path} is unchanged")
            if self.config_error:
                self._log.info(f"config {self._path} is again the one in force, #{self._revision}")
            self.config_error, self._refused = "", {}
            return
        if self._refused and look_at(self._refused) == self._refused and not is_asked:
            return
        try:
            settings = load_settings(self._path, os.environ)
        except ConfigError as error:
            self._refuse_config(str(error), look_at([str(self._path), *error.files]))
            return
        self._accept_config(settings)

    def _refuse_config(self, why: str, seen: dict[str, str]) -> None:
        if seen == self._refused:
            return
        self._refused, self.config_error = seen, why
        self.reloads["failure"] += 1
        self._log.error(f"config refused, #{self._revision} stays in force: {why}")

    def _accept_config(self, settings: Settings) -> None:
        self.settings = settings
        self._refused, self.config_error = {}, ""
        self.reloads["success"] += 1
        self._revision += 1
        self.loaded_at = time.time()
        fixed = ("admin", "workers", "state_dir", "redis", "instance")
        self._needs_restart = tuple(key for key in fixed if getattr(self._at_start, key) != getattr(settings, key))
        if {str(one.address) for one in settings.listen} != set(self._listen):
            self._needs_restart = ("listen", *self._needs_restart)
        self.store.update_rules(service_rules(settings))
        self.issuers.update(settings)
        self.members.update(ring_names(settings), list_files(settings))
        self.backends.update(settings)
        self._refresh(self.store.live)
        self._log.info(f"config #{self._revision} is in force: {len(settings.services)} services")
        if self._needs_restart:
            self._log.warning(
                f"changed, but only read at the start: {', '.join(self._needs_restart)}; restart to apply"
            )

    # -- View ----------------------------------------------------------------------------------------------------------

    def readiness(self) -> tuple[bool, str]:
        if self._is_stopping:
            return False, "stopping"
        if self._yields.is_set():
            return True, "ready"  # the successor is, and whoever asked here was on the way before it took over
        hub = self.hub
        having = sum(1 for w in hub.workers.values() if w.is_connected and w.generation)
        if having < hub.expected:
            return False, f"not ready: {having} of {hub.expected} workers have a snapshot"
        if self.store.state == "down":
            places = {"redis": "memory", "disk": "disk", "config": "the config file"}
            sources = sorted({places[self.store.source(name)] for name in self.settings.services})
            return True, f"ready, degraded: Redis is down, weights come from {' and '.join(sources)}"
        if self.issuers.missing:
            return True, f"ready, degraded: no keys of {', '.join(self.issuers.missing)}, whose tokens are not believed"
        return True, "ready"

    def metrics(self, *, is_open: bool = False) -> bytes:
        return render(figures(self), is_open=is_open, kept=self._shown)

    def tap(self, service: str, ring: str, rate: int) -> Listener:
        return listen(self.taps, self.board.spec, service, ring, rate)

    def state(self) -> dict[str, Any]:
        spec, store = self.board.spec, self.store
        requests: Counter[tuple[str, str]] = Counter()
        totals = self.hub.totals()
        for (service, ring, _), counters in totals.rings.items():
            requests[service, ring] += sum(counters.codes.values())
        return {
            "instance": self.instance,
            "version": __version__,
            "started_at": self._started_at,
            "listen": self._listen,
            "config_path": str(self._path.resolve()),
            "config": {
                "revision": self._revision,
                "loaded_at": self.loaded_at,
                "error": self.config_error,
                "needs_restart": self._needs_restart,
            },
            "store": {
                "state": store.state,
                "staleness_seconds": store.staleness_seconds,
                "last_error": store.last_error,
            },
            "generation": spec.generation if spec else 0,
            "applied_everywhere": self.hub.applied_everywhere,
            "published_at": self.hub.published_at,
            "workers": workers_state(self.hub),
            "services": {
                service.name: {
                    **live_state(service.name, store, self._said_of(service.name)),
                    "members": self.members.counts(service.name),
                    "versions": {version.name: {"up": is_version_up(version)} for version in service.versions},
                    "rings": rings_state(service, requests),
                    "backends": backends_state(service, totals.endpoints, self.backends.health),
                }
                for service in (spec.services if spec else ())
            },
            "names": self.backends.names_state(),
            "issuers": self.issuers.state(),
            "snapshot": None if spec is None else shown(spec),
        }


async def _main(options: argparse.Namespace) -> None:
    settings = load_settings(options.config, os.environ)
    admin = None if options.admin_fd is None else socket.socket(fileno=options.admin_fd)
    control = Control(
        settings, options.config, options.runtime, options.workers, options.listen, admin, waits=options.waits
    )
    control.restarts = Restarts(options.restarts)
    await control.run()


def main() -> None:
    """Entry point of the control process; the parent is the one who calls it."""
    parser = argparse.ArgumentParser(prog="ring-router control")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--runtime", type=Path, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--listen", nargs="+", required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--admin-fd", type=int)
    parser.add_argument("--restarts", type=int, default=-1)
    parser.add_argument("--waits", action="store_true")
    options = parser.parse_args()
    unblock_signals()
    end_with_parent(options.parent)
    configure("control")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(options))


if __name__ == "__main__":
    main()
