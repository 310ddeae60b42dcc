"""A stage for the dashboard: an admin side whose view is set up as a story needs it, without a router behind it.

For what a real router cannot be brought to within a second: every verdict at once, a fleet of eighteen, a config file
with errors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from router.admin.app import ADMIN, create_app
from router.admin.bodies import Asked, Change, Done, Move, Ordered, Reload, Resume, StartRollout
from router.admin.shapes import AuditEntry, Backends, ConfigState, News, Tapped, Trail
from router.admin.trouble import Trouble
from router.config.admin import AdminSettings
from router.rollout.observation import Verb
from router.rollout.progress import Progress
from router.telemetry.picture import POINTS, Fleet, Metric, Picture, Scope, Series, ServiceFigures
from tests.browser import invented


class Line:
    """A tap that has a few requests to tell, and then holds its tongue."""

    def __init__(self, seen: Sequence[Tapped]) -> None:
        self._seen = seen

    async def batches(self) -> AsyncIterator[tuple[Sequence[Any], int]]:
        yield list(self._seen), 0
        while True:
            await asyncio.sleep(10)
            yield [], 0

    def close(self) -> None:
        pass


@dataclass
class Stage:
    """A view (``router.admin.view.View``) of what is put on it."""

    service: ServiceFigures = field(default_factory=invented.shop)
    store: Any = "live"
    instances: Fleet = field(default_factory=invented.fleet)
    configured: ConfigState = field(default_factory=invented.config)
    entries: list[AuditEntry] = field(default_factory=invented.trail)
    requests: list[Tapped] = field(default_factory=lambda: [invented.tapped(number) for number in range(14)])
    port: int = 0
    tokens: list[dict[str, str]] = field(default_factory=list)
    """Of ``admin.tokens``."""
    rollout: Progress | None = None
    refusal: str = ""
    """Why no order can be carried out now; empty: each is."""
    orders: list[tuple[str, str, str, str]] = field(default_factory=list)
    """What reached the lever: verb, actor, reason, how."""
    plans: list[StartRollout] = field(default_factory=list)
    app: web.Application | None = None

    # -- Health

    def readiness(self) -> tuple[bool, str]:
        return True, "ready"

    def metrics(self, *, is_open: bool = False) -> bytes:
        return b""

    # -- Figures

    async def looked(self) -> None:
        return None

    def picture(self, _scope: Scope = "fleet", points: int = POINTS) -> Picture:
        services = {self.service.service: invented.newest(self.service, points)}
        return Picture(time.time(), "fleet", 60, self.instances.count, 42, 42, self.store, services)

    def series(self, service: str, ring: str, version: str | None, metric: Metric, begin: float, step: int) -> Series:
        raise KeyError(f"series of {service} {ring} {version} {metric} from {begin} by {step}")

    def fleet(self) -> Fleet:
        return self.instances

    # -- Looks

    def settings(self) -> AdminSettings:
        return AdminSettings.model_validate({"listen": f"127.0.0.1:{self.port}", "tokens": self.tokens})

    def state(self) -> dict[str, Any]:
        config = self.configured
        return {
            "instance": "edge-01:8080", "version": "1.0.0", "started_at": time.time() - 86_400,
            "listen": ["0.0.0.0:8080"],
            "config": {
                "revision": config.revision, "loaded_at": config.loaded_at, "error": config.error, "needs_restart": [],
            },
            "store": {
                "state": self.store, "staleness_seconds": 14.0 if self.store == "down" else 0.0,
                "last_error": "connection refused",
            },
            "services": {self.service.service: self.service_state(self.service.service)},
        }  # fmt: skip

    def service_state(self, service: str) -> dict[str, Any] | None:
        if service != self.service.service:
            return None
        return {
            "rev": self.service.rev, "freeze": self.service.freeze, "drained": ["10.0.4.13:8080"], "refused": [],
            "warnings": [], "versions": {name: {"up": True} for name in ("v2", "v3", "v4")},
            "rings": [
                {"ring": one.ring, "version": one.version, "weight": one.target, "killed": one.is_killed, "requests": 0}
                for one in self.service.rings
            ],
        }  # fmt: skip

    def backends(self) -> Backends:
        return invented.backends()

    def config(self) -> ConfigState:
        return self.configured

    def explain(self, asked: Asked) -> dict[str, Any]:
        return invented.EXPLAINED

    async def trail(self, services: list[str], count: int, before: str) -> Trail:
        return Trail(self.entries[:count], True)

    async def newest(self) -> list[AuditEntry]:
        return []

    def tap(self, service: str, ring: str, rate: int) -> Line:
        return Line(self.requests)

    # -- Levers

    async def change(self, wanted: Change | Reload, actor: str) -> Done:
        """Whatever is wanted, this is what it would do; nothing moves."""
        command = "HSET 'rings:{shop}:weights' early 25 rev 43"
        moves = [Move("everyone", "early", "inward", 5.0)]
        return Done(wanted.dry_run, ["early 20 → 25 percent"], self.service.rev, command, moves)

    # -- Rollouts

    def progress_of(self, service: str) -> Progress | None:
        return self.rollout if self.rollout is not None and self.rollout.service == service else None

    async def start_rollout(self, service: str, wanted: StartRollout, actor: str) -> Progress:
        self.plans.append(wanted)
        return await self.order(service, "approve", Resume(reason=wanted.reason), actor)

    async def order(self, service: str, verb: Verb, wanted: Ordered, actor: str) -> Progress:
        if self.refusal or self.rollout is None:
            current = None if self.rollout is None else msgspec.to_builtins(self.rollout)
            raise Trouble("not_now", self.refusal or f"No rollout of {service} runs.", current=current)
        self.orders.append((verb, actor, wanted.reason, getattr(wanted, "how", "")))
        return self.rollout

    def becomes(self, rollout: Progress | None, *sentences: str) -> None:
        """The leader has stored another progress, and whoever looks hears of it."""
        self.rollout = rollout
        if self.app is not None:
            self.app[ADMIN].feed.say(News(time.time(), "rollout", self.service.service, list(sentences), 42))


@asynccontextmanager
async def on_stage(stage: Stage) -> AsyncIterator[tuple[str, str]]:
    """The address of the admin side, and a one-time link's path that makes its visitor an operator."""
    app = stage.app = create_app(stage)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stage.port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{stage.port}", app[ADMIN].make_link() or ""
    finally:
        await runner.cleanup()
