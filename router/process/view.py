"""What the admin side sees of the control process: its parts as plain data, without what nobody may read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from router import __version__
from router.admin.bodies import Asked, Change, Done, Ordered, Reload, StartRollout
from router.admin.shapes import (
    AuditEntry,
    Backends,
    BackendState,
    CheckState,
    ConfigChange,
    ConfigProblem,
    ConfigState,
    ConfigValue,
    Trail,
)
from router.admin.view import Figures as RingFigures
from router.admin.view import Listener
from router.config.admin import AdminSettings
from router.config.origins import Value, values_of
from router.config.problems import hidden_line
from router.control.board import shown
from router.control.keys import key_of
from router.core.health import is_version_up
from router.core.spec import ServiceSpec
from router.process import rollouts
from router.process.backends import backends_state, live_state, rings_state
from router.process.explaining import explain_asked
from router.process.figures import figures, workers_state
from router.process.levers import Levers
from router.process.tapping import listen
from router.process.trail import AuditTrail
from router.rollout.observation import Verb
from router.rollout.progress import Progress
from router.telemetry.backends import backends
from router.telemetry.exposition import render
from router.telemetry.page import Kept
from router.telemetry.picture import POINTS, Fleet, Metric, Picture, Scope, Series

if TYPE_CHECKING:
    from router.process.control import Control


class ControlView:
    """``shown`` is whoever counts; everything else is looked up in the control process when it is asked for."""

    def __init__(self, control: Control, shown: RingFigures) -> None:
        self._control = control
        self._figures = shown
        self._levers = Levers(control)
        self._shown: Kept = {}
        self._trail = AuditTrail(control.redis, lambda: list(control.config.settings.services))

    # -- Health --------------------------------------------------------------------------------------------------------

    def readiness(self) -> tuple[bool, str]:
        return self._control.readiness()

    def metrics(self, *, is_open: bool = False) -> bytes:
        return render(figures(self._control), is_open=is_open, kept=self._shown)

    # -- Looks ---------------------------------------------------------------------------------------------------------

    def settings(self) -> AdminSettings:
        """Tokens and names are those of the config in force; the address is the one that is listened on."""
        start, now = self._control.config.at_start.admin, self._control.config.settings.admin
        return now if now.listen == start.listen else now.model_copy(update={"listen": start.listen})

    def state(self) -> dict[str, Any]:
        control, config, store = self._control, self._control.config, self._control.store
        spec, totals = control.board.spec, control.hub.totals()
        requests = self._requests()
        return {
            "instance": control.instance,
            "version": __version__,
            "started_at": control.started_at,
            "listen": control.listen,
            "config_path": str(config.path.resolve()),
            "config": {
                "revision": config.revision,
                "loaded_at": config.loaded_at,
                "error": config.error,
                "needs_restart": config.needs_restart,
            },
            "store": {
                "state": store.state,
                "staleness_seconds": store.staleness_seconds,
                "last_error": store.last_error,
            },
            "generation": spec.generation if spec else 0,
            "applied_everywhere": control.hub.applied_everywhere,
            "published_at": control.hub.published_at,
            "workers": workers_state(control.hub),
            "services": {
                service.name: {
                    **self._service_state(service, requests),
                    "backends": backends_state(service, totals.endpoints, control.backends.health),
                }
                for service in (spec.services if spec else ())
            },
            "names": control.backends.names_state(),
            "issuers": control.issuers.state(),
            "snapshot": None if spec is None else shown(spec),
        }

    def service_state(self, service: str) -> dict[str, Any] | None:
        spec = self._control.board.spec
        for one in spec.services if spec is not None else ():
            if one.name == service:
                return self._service_state(one, self._requests())
        return None

    def _requests(self) -> Counter[tuple[str, str]]:
        requests: Counter[tuple[str, str]] = Counter()
        for (service, ring, _), counters in self._control.hub.totals().rings.items():
            requests[service, ring] += sum(counters.codes.values())
        return requests

    def _service_state(self, service: ServiceSpec, requests: Mapping[tuple[str, str], int]) -> dict[str, Any]:
        control, name = self._control, service.name
        return {
            "rev": control.store.rev(name),
            **live_state(name, control.store, control.said_of(name)),
            "members": control.members.counts(name),
            "versions": {version.name: {"up": is_version_up(version)} for version in service.versions},
            "rings": rings_state(service, requests),
        }

    def backends(self) -> Backends:
        control = self._control
        spec, counters = control.board.spec, control.hub.totals().endpoints
        found: list[BackendState] = []
        for service in spec.services if spec is not None else ():
            for one in backends(service, counters):
                known = control.backends.health((service.name, one.version, one.endpoint.address))
                found.append(
                    BackendState(
                        service=service.name, version=one.version, endpoint=one.endpoint.address,
                        name=one.endpoint.name, weight=one.endpoint.weight, state=one.state, is_well=one.is_well,
                        workers=dict(one.states), active=one.counters.active, idle=one.counters.idle,
                        failures=dict(one.counters.failures), ejections=dict(one.counters.ejections),
                        check=None if known is None else msgspec.convert(known, CheckState),
                    )
                )  # fmt: skip
        return Backends(time.time(), control.instance, found)

    def explain(self, asked: Asked) -> dict[str, Any]:
        return explain_asked(self._control.board.spec, asked)

    def config(self) -> ConfigState:
        config = self._control.config
        values = values_of(config.settings, config.text, str(config.path))
        changed: list[ConfigChange] = []
        if config.before is not None:
            old = {one.path: one.value for one in values_of(*config.before, str(config.path))}
            new = {one.path: one.value for one in values}
            changed = [
                ConfigChange(path, old.get(path), new.get(path))
                for path in dict.fromkeys([*old, *new])
                if old.get(path) != new.get(path)
            ]
        return ConfigState(
            revision=config.revision, loaded_at=config.loaded_at, path=str(config.path.resolve()), error=config.error,
            problems=[
                ConfigProblem(one.file, one.line, one.column, one.message, one.hint, hidden_line(one.source_line))
                for one in config.problems
            ],
            needs_restart=list(config.needs_restart), values=[self._in_force(one) for one in values],
            changed=changed, reloads=dict(config.reloads),
        )  # fmt: skip

    def _in_force(self, value: Value) -> ConfigValue:
        """What Redis says over the file, and what the start has fixed."""
        config, parts = self._control.config, value.path.split(".")
        top = next((key for key in config.needs_restart if value.path == key or value.path.startswith(f"{key}.")), None)
        if top is not None:
            before = {one.path: one.value for one in values_of(config.at_start, "", "")}
            return ConfigValue(value.path, before.get(value.path), "start", value.place, value.value)
        if len(parts) == 5 and parts[0] == "services" and parts[2] == "rings":
            live = self._control.store.live.get(parts[1])
            if live is not None and parts[4] == "weight" and parts[3] in live.weights:
                points, key = live.weights[parts[3]], key_of(parts[1], "weights")
                return ConfigValue(value.path, points / 100, "redis", key, value.value)
            if live is not None and parts[4] == "version" and parts[3] in live.versions:
                version, key = live.versions[parts[3]], key_of(parts[1], "versions")
                return ConfigValue(value.path, version, "redis", key, value.value)
        return ConfigValue(value.path, value.value, value.origin, value.place)

    async def trail(self, services: list[str], count: int, before: str) -> Trail:
        return await self._trail.read(services, count, before)

    async def newest(self) -> list[AuditEntry]:
        return await self._trail.news()

    def tap(self, service: str, ring: str, rate: int) -> Listener:
        return listen(self._control.taps, self._control.board.spec, service, ring, rate)

    # -- Figures and Levers --------------------------------------------------------------------------------------------

    def picture(self, scope: Scope = "fleet", points: int = POINTS) -> Picture:
        return self._figures.picture(scope, points)

    def series(self, service: str, ring: str, version: str | None, metric: Metric, begin: float, step: int) -> Series:
        return self._figures.series(service, ring, version, metric, begin, step)

    async def looked(self) -> None:
        await self._figures.looked()

    def fleet(self) -> Fleet:
        return self._figures.fleet()

    async def change(self, wanted: Change | Reload, actor: str) -> Done:
        return await self._levers.change(wanted, actor)

    # -- Rollouts ------------------------------------------------------------------------------------------------------

    def progress_of(self, service: str) -> Progress | None:
        return self._control.conductor.progress.get(service)

    async def start_rollout(self, service: str, wanted: StartRollout, actor: str) -> Progress:
        return await rollouts.start(self._control, service, wanted, actor)

    async def order(self, service: str, verb: Verb, wanted: Ordered, actor: str) -> Progress:
        return await rollouts.order(self._control, service, verb, wanted, actor)
