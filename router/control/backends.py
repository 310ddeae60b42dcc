"""What control finds out about endpoints: where their names lead, and which of them are down.

It composes the look-ups and the checks, and asks for a new snapshot when one of them has news: the first at once, then
at most ten a second, however many endpoints go down together. It decides nothing about routing: it is one more
input of the one snapshot, beside the config and what is live in Redis.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import structlog

from router.config.endpoints import Down, Resolved, checked_endpoints, names_to_resolve
from router.config.settings import Settings
from router.control.names import Lookup, Names, system_lookup
from router.control.prober import ContextOf, Prober, Target
from router.core.spec import SnapshotSpec
from router.telemetry.counters import EndpointKey
from router.telemetry.exposition import EndpointChecks
from router.telemetry.tasks import end, spawn

MIN_GAP_SECONDS: Final = 0.1
"""Between two snapshots for the health of endpoints: a switch that dies takes a hundred of them down together."""


class Backends:
    """``on_change`` is called in the loop when ``resolved`` or ``down`` are other ones than before."""

    def __init__(
        self,
        on_change: Callable[[], None],
        context_of: ContextOf,
        *,
        lookup: Lookup = system_lookup,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        min_gap: float = MIN_GAP_SECONDS,
        log: Any = None,
    ) -> None:
        self._on_change = on_change
        self._settings: Settings | None = None
        self._news = asyncio.Event()
        self._min_gap = min_gap
        self._log = log or structlog.get_logger()
        self._telling: asyncio.Task[None] | None = None
        self._names = Names(self._news.set, lookup=lookup, chance=chance, sleep=sleep, log=log)
        self._prober = Prober(self._news.set, context_of, chance=chance, sleep=sleep, log=log)

    def __repr__(self) -> str:
        return f"<Backends {self._names} {self._prober}>"

    @property
    def resolved(self) -> Resolved:
        """Name → its addresses, sorted."""
        return self._names.resolved

    @property
    def down(self) -> Down:
        """(service, version) → addresses of its endpoints that are down, sorted."""
        return self._prober.all_down()

    async def start(self, settings: Settings, left_behind: SnapshotSpec | None) -> None:
        """Look names up (for half a second at the most) and begin to check.

        ``left_behind`` is the snapshot of the process before this one: what was down in it begins down, and its
        addresses count until a look-up says otherwise.
        """
        known = _known_names(left_behind)
        self._settings = settings
        if left_behind is not None:
            down = {(s.name, v.name): v.down for s in left_behind.services for v in s.versions if v.down}
            self._prober.update(targets_of(settings, known), down)
        await self._names.start(names_to_resolve(settings), known)
        self._prober.update(targets_of(settings, self.resolved))
        self._telling = spawn(self._tell(), name="news of endpoints")

    def update(self, settings: Settings) -> None:
        """The config has changed: look up and check what it wants. Does not call ``on_change``.

        To be called before the snapshot is made: ``down`` must not name what nobody checks any more.
        """
        self._settings = settings
        self._names.update(names_to_resolve(settings))
        self._prober.update(targets_of(settings, self.resolved))

    async def stop(self) -> None:
        """End all look-ups and checks."""
        if self._telling is not None:
            await end(self._telling)
        await self._names.stop()
        await self._prober.stop()

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                if self._settings is not None:
                    self._prober.update(targets_of(self._settings, self.resolved))
                self._on_change()
            except Exception:  # noqa: BLE001 - whatever one change has met, the next one has to be told
                self._log.exception("news of endpoints could not be applied; the next ones will be tried")
            await asyncio.sleep(self._min_gap)

    # -- what others look at -------------------------------------------------------------------------------------------

    def figures(self) -> dict[EndpointKey, EndpointChecks]:
        """What metrics show of each endpoint that is checked."""
        return {one.target.key: EndpointChecks(one.checks - one.failures, one.failures) for one in self._prober}

    def health(self, key: EndpointKey) -> dict[str, Any] | None:
        """What checks know of an endpoint, as plain data; None where it is not checked. ``since``: Unix time."""
        known = self._prober.get(key)
        if known is None:
            return None
        return {
            "state": known.health.state.value,
            "since": known.since,
            "last_error": known.last_error,
            "checks": known.checks,
            "failures": known.failures,
        }

    def names_state(self) -> dict[str, Any]:
        """Name → its addresses, and why the last look-up found nothing."""
        resolved, errors = self._names.resolved, self._names.errors
        return {
            name: {"addresses": resolved.get(name, ()), "error": errors.get(name, "")}
            for name in sorted({*resolved, *errors})
        }


def targets_of(settings: Settings, resolved: Resolved) -> Iterator[Target]:
    """What these settings want checked, at the addresses there are."""
    for one in checked_endpoints(settings, resolved):
        yield Target(one.service, one.version, one.endpoint, one.check)


def _known_names(spec: SnapshotSpec | None) -> dict[str, tuple[str, ...]]:
    known: dict[str, tuple[str, ...]] = {}
    for service in spec.services if spec is not None else ():
        for version in service.versions:
            for one in version.endpoints:
                if one.name and one.host not in known.get(one.name, ()):
                    known[one.name] = (*known.get(one.name, ()), one.host)
    return known
