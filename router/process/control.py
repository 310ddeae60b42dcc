"""The control process: config file, Redis, snapshots and the admin side, in one loop that no request waits for.

It composes what the layers below offer and decides nothing itself. A bad config changes nothing and is said; killed, it
is restarted by the parent and goes on from the runtime directory while the workers route as before.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final, get_args

import structlog
import uvloop

from router.admin.app import ADMIN, create_app
from router.admin.shapes import News, NewsKind
from router.config.compile import LiveConflict, ring_names
from router.config.files import list_files
from router.config.load import load_settings
from router.config.settings import Settings
from router.control.backends import Backends
from router.control.board import Board, Found
from router.control.conductor import Conductor
from router.control.evidence import Evidence
from router.control.fleet import Fleet
from router.control.hub import Hub
from router.control.in_force import Engine
from router.control.jwks import Issuers
from router.control.members import Members
from router.control.people import People
from router.control.rules import say_changes, service_rules
from router.control.shares import Shares
from router.control.store import Store
from router.control.taps import Taps
from router.control.trouble import Trouble, news, troubles, warning
from router.control.unhealthy import warnings_of, widened
from router.core.live import Live
from router.core.spec import SnapshotSpec
from router.process.admin_site import AdminSite
from router.process.config_file import ConfigFile
from router.process.experience import Experience
from router.process.lifetime import end_with_parent, unblock_signals
from router.process.past import Memory
from router.process.restarts import Restarts
from router.process.rings import Rings
from router.process.surroundings import Surroundings
from router.process.view import ControlView
from router.proxy.tls import client_context
from router.rollout.progress import Progress
from router.telemetry.counters import VersionKey
from router.telemetry.log import configure
from router.telemetry.tasks import spawn

CONFIG_POLL_SECONDS: Final = 1.0
"""A ConfigMap is swapped through symlinks, which inotify on the file does not see: the content is polled."""
COLLECT_SECONDS: Final = 1.0


class Control:
    """One running control process."""

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
        engine: Engine = "router",
    ) -> None:
        self._is_stopping = False
        self.config = ConfigFile(path, settings, listen, self._accept_config)
        self.redis = settings.redis
        self.listen = listen
        self.started_at = time.time()
        self.rules = service_rules(settings)
        """What live values are judged by, per service."""
        self._log = structlog.get_logger()
        self._stop = asyncio.Event()
        self.instance = settings.instance or f"{socket.gethostname()}:{listen[0].rpartition(':')[2]}"
        self.hub = Hub(runtime, workers)
        self.shares = Shares()
        self.restarts = Restarts()
        self.memory = Memory(runtime)
        self.board = Board(runtime, self.hub.publish)
        self.taps = Taps(self.hub.tap)
        self.hub.on_tapped = self.taps.taken
        self.backends = Backends(self._found_changed, client_context, log=self._log)
        self.hub.on_trouble = self._envoy_in_trouble
        self.warnings: dict[str, tuple[str, ...]] = {}
        self.troubles: dict[VersionKey, Trouble] = {}
        state_dir = Path(settings.state_dir)
        self.issuers = Issuers(self._found_changed, state_dir, log=self._log)
        self.members = Members(
            settings.redis, state_dir, runtime, self._found_changed, self._log, by_key=engine == "envoy"
        )
        self.store = Store(
            settings.redis, self.rules, state_dir, self.instance, self._live_changed, self._log, self.members,
            engine,
        )  # fmt: skip
        self.people = People(settings.redis, self.store.is_up, self._log)
        self.hub.on_seen = self.people.saw
        self._live: dict[str, Live] = {}
        self._said_store = self.store.state
        self.experience = Experience(self.hub.take, self.people.arrived)
        self.fleet = self.experience.fleet = Fleet(
            settings.redis, self.instance, self._services, self.experience.own, self.store.is_up, self._log
        )
        self.evidence = Evidence(
            settings.redis, self.instance, self.hub, self.people.arrived, self.store.is_up, self._log
        )
        self.surroundings = Surroundings(self)
        self.conductor = Conductor(
            settings.redis, self.instance, f"{self.instance}:{uuid.uuid4().hex[:12]}",
            self._services, self.surroundings, self.evidence.follow, self.store.is_up, self._rollout_changed, self._log,
        )  # fmt: skip
        self.look = ControlView(self, Rings(self, self.experience, self.fleet))
        self.admin = create_app(self.look)
        self._site = AdminSite(
            self.admin, self.look.settings, lambda: self.readiness()[0], self._log, admin, waits=waits
        )

    async def run(self) -> None:
        """Until SIGTERM."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        loop.add_signal_handler(signal.SIGUSR1, self._stopping)
        loop.add_signal_handler(signal.SIGUSR2, self._site.yields.set)
        await self._site.start()
        settings = self.config.settings
        # Redis and DNS have half a second to say what is live; then the workers get what there is.
        await asyncio.gather(
            self.store.start(),
            self.backends.start(settings, self.board.spec),
            self.issuers.start(settings),
            self.members.start(ring_names(settings), list_files(settings)),
        )
        self._live, self._said_store = self.store.live, self.store.state
        self._refresh(self.store.live)
        if self.hub.spec is None and self.board.spec is not None:
            self.hub.publish(self.board.spec)
        self.people.start()
        self.fleet.start()
        self.evidence.start()
        await self.surroundings.start()
        self.conductor.start()
        await self.hub.start()
        # What start-up left behind is never garbage, and to walk it takes longer than to write a scrape.
        gc.collect()
        gc.freeze()
        watching = spawn(self._watch_config(), name="config file")
        collecting = spawn(self._collect(), name="history")
        await self._stop.wait()
        await self._site.let_go()
        watching.cancel()
        collecting.cancel()
        self.taps.end()
        await self.backends.stop()
        await self.issuers.stop()
        await self.members.stop()
        await self.people.stop()
        await self.fleet.stop()
        await self.conductor.stop()
        await self.surroundings.stop()
        await self.evidence.stop()
        await self.store.stop()
        await self.hub.stop()
        await self._site.stop()

    def _stopping(self) -> None:
        """SIGUSR1: the router is about to stop, and says so before it does."""
        self._is_stopping = True

    # -- what changes routing ------------------------------------------------------------------------------------------

    def _live_changed(self, live: Mapping[str, Live]) -> None:
        before, self._live = self._live, dict(live)
        self._refresh(live)
        for name, rules in self.rules.items():
            now = live.get(name, Live())
            if said := say_changes(rules, before.get(name, Live()), now):
                self._tell("routing", name, said)

    def _found_changed(self) -> None:
        """Endpoints, members or keys of issuers are others."""
        generation = self.board.spec.generation if self.board.spec is not None else 0
        self._refresh(self.store.live)
        if self.board.spec is not None and self.board.spec.generation != generation:
            self._tell("routing", None, ["endpoints, members or the keys of issuers are others"])

    def _refresh(self, live: Mapping[str, Live]) -> None:
        before = self.board.spec
        found = Found(
            self.backends.resolved, self.backends.down, self.members.tables, self.members.lists, self.issuers.found
        )
        self.hub.spans.send_to(self.config.settings.spans_to)
        try:
            self.board.refresh(self.config.settings, live, self.listen, found)
        except LiveConflict as conflict:
            self.config.conflict(f"the config and what is live in Redis do not fit together: {conflict}")
            self._log.error(f"{self.config.error}; the routing stays as it was")
            return
        spec = self.board.spec
        if spec is None:
            return
        self.people.installed(spec)
        self.experience.installed(spec)
        self._say_warnings(before, spec)
        self.store.note_applied(spec, self._all_warnings())

    def _all_warnings(self) -> dict[str, tuple[str, ...]]:
        """By service; what is wrong with Envoy concerns all that it routes."""
        troubles = self.hub.troubles
        if not troubles:
            return self.warnings
        return {name: (*self.warnings.get(name, ()), *troubles) for name in self.config.settings.services}

    def _envoy_in_trouble(self) -> None:
        """The bridge has logged it; here it is said where operators look."""
        if self.board.spec is not None:
            self.store.note_applied(self.board.spec, self._all_warnings())
        self._tell("warning", None, list(self.hub.troubles) or ["Envoy is well again"])

    def _say_warnings(self, before: SnapshotSpec | None, after: SnapshotSpec) -> None:
        """Each once: when a ring's version has nobody left, and when such a ring is widened all the same."""
        known = {} if before is None else {service.name: service for service in before.services}
        warnings = {service.name: warnings_of(service) for service in after.services}
        for service in after.services:
            was = known.get(service.name)
            wider = () if was is None else widened(was, service)
            news = [one for one in warnings[service.name] if one not in self.warnings.get(service.name, ())]
            for sentence in (*wider, *news):
                self._log.warning(sentence, service=service.name)
                self._tell("warning", service.name, [sentence])
        self.warnings = {name: said for name, said in warnings.items() if said}

    async def _collect(self) -> None:
        """At even distances, whatever a collection takes."""
        at = time.monotonic()
        while True:
            at = max(at + COLLECT_SECONDS, time.monotonic())
            await asyncio.sleep(at - time.monotonic())
            try:
                self.experience.second()
            except Exception as error:  # noqa: BLE001 - a fault in one second must not end the history for ever
                self._log.error(f"a second is missing in the history: {error!r}", exc_info=error)

    async def _watch_config(self) -> None:
        while True:
            await asyncio.sleep(CONFIG_POLL_SECONDS)
            try:
                self._look_around()
            except Exception as error:  # noqa: BLE001 - the file is looked at again, whatever was wrong
                self._log.error(f"a look at config and troubles failed: {error!r}", exc_info=error)

    def _look_around(self) -> None:
        self._look_at_config(is_asked=False)
        self._say_troubles()
        self.memory.whole(self)
        if self.shares.is_due(time.monotonic()):
            self.shares.note(time.monotonic(), self.hub.decisions())
        self.issuers.note_refused_tokens(self.hub.refused_tokens())
        if self.board.spec is not None and self.hub.applied_everywhere == self.board.spec.generation:
            self.members.sweep(self.board.spec)

    def _say_troubles(self) -> None:
        before, self.troubles = self.troubles, troubles(self.hub.versions())
        for sentence in news(before, self.troubles, self.hub.expected):
            self._log.warning(sentence)
            self._tell("warning", None, [sentence])
        if self.store.state != self._said_store:
            self._said_store = self.store.state
            self._tell("store", None, [f"Redis is {self.store.state}"])

    def said_of(self, service: str) -> list[str]:
        """What operators should know of a service, as sentences."""
        found = (warning(key[1], one) for key, one in self.troubles.items() if key[0] == service)
        return [*self.warnings.get(service, ()), *self.hub.troubles, *found]

    def _services(self) -> list[str]:
        return list(self.config.settings.services)

    def reload(self) -> str:
        """SIGHUP and the API: look at the file now, and say so whatever comes of it."""
        return self._look_at_config(is_asked=True)

    def _look_at_config(self, *, is_asked: bool) -> str:
        before = self.config.error, self.config.revision
        said = self.config.look(is_asked=is_asked)
        if (self.config.error, self.config.revision) != before:
            self._tell("config", None, [said])
        return said

    def _accept_config(self, settings: Settings) -> None:
        self.rules = service_rules(settings)
        self.store.update_rules(self.rules)
        self.issuers.update(settings)
        self.members.update(ring_names(settings), list_files(settings))
        self.backends.update(settings)
        self._refresh(self.store.live)

    def _rollout_changed(self, service: str, before: Progress | None, now: Progress) -> None:
        """A plain tick is news without a sentence."""
        known = before.events[-1].at if before is not None and before.id == now.id and before.events else 0.0
        self._tell("rollout", service, [event.sentence for event in now.events if event.at > known and event.sentence])

    def _tell(self, kind: NewsKind, service: str | None, sentences: list[str]) -> None:
        """Whoever looks at the dashboard hears of it now."""
        spec = self.board.spec
        generation = spec.generation if spec is not None else 0
        self.admin[ADMIN].feed.say(News(time.time(), kind, service, sentences, generation))

    # -- what is said of itself ----------------------------------------------------------------------------------------

    def readiness(self) -> tuple[bool, str]:
        if self._is_stopping:
            return False, "stopping"
        if self.restarts.has_yielded:
            return True, "ready"  # the successor is, and whoever asked here was on the way before it took over
        hub = self.hub
        having = sum(1 for w in hub.workers.values() if w.is_connected and w.generation)
        if having < hub.expected:
            why = f": {hub.troubles[0]}" if hub.troubles else ""
            return False, f"not ready: {having} of {hub.expected} workers have a snapshot{why}"
        if self.store.state == "down":
            places = {"redis": "memory", "disk": "disk", "config": "the config file"}
            sources = sorted({places[self.store.source(name)] for name in self.config.settings.services})
            return True, f"ready, degraded: Redis is down, weights come from {' and '.join(sources)}"
        if self.issuers.missing:
            return True, f"ready, degraded: no keys of {', '.join(self.issuers.missing)}, whose tokens are not believed"
        if hub.troubles:
            return True, f"ready, degraded: {hub.troubles[0]}"
        return True, "ready"


async def _main(options: argparse.Namespace) -> None:
    settings = load_settings(options.config, os.environ)
    admin = None if options.admin_fd is None else socket.socket(fileno=options.admin_fd)
    control = Control(
        settings, options.config, options.runtime, options.workers, options.listen, admin,
        waits=options.waits, engine=options.engine,
    )  # fmt: skip
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
    parser.add_argument("--engine", choices=get_args(Engine), default="router")
    options = parser.parse_args()
    unblock_signals()
    end_with_parent(options.parent)
    configure("control")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(options))


if __name__ == "__main__":
    main()
