"""Active health checks: each endpoint that has one is asked again and again, once per instance and not per worker.

After a result that may be the beginning of a change (a failure while it counts as up, a pass while it counts as down)
the next check comes after a fifth of the interval. Otherwise three failures in a row would take three intervals to be
seen; asking everybody that often would only be load. A new endpoint is asked at once, and then once at a random time
within the interval, so that endpoints of one config are not asked in step for ever. It must never take the absence of
an answer to its own question (a cancelled check, a full queue) for a failure, and never forget what it knows of an
endpoint because the config was read again.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from router.config.endpoints import Down
from router.control.check import check, words
from router.core.health import KNOWN_DOWN, Health
from router.core.spec import ClientTlsSpec, EndpointSpec, HealthCheckSpec
from router.telemetry.counters import EndpointKey
from router.telemetry.tasks import end, spawn

AT_A_TIME: Final = 128
"""Checks on their way: what a thousand endpoints that hang may take of file descriptors and of this loop."""
JITTER: Final = 0.1
SOONER: Final = 5
"""The next check after an undecided one comes after the interval by this."""
SOONEST_SECONDS: Final = 0.2

ContextOf = Callable[[ClientTlsSpec], ssl.SSLContext]
"""Raises OSError or ssl.SSLError."""


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint to be checked, and how."""

    service: str
    version: str
    endpoint: EndpointSpec
    check: HealthCheckSpec

    @property
    def key(self) -> EndpointKey:
        return (self.service, self.version, self.endpoint.address)

    def __str__(self) -> str:
        return f"{self.service} {self.version} {self.endpoint.address}"


@dataclass(slots=True)
class Checked:
    """What is known of an endpoint. ``since``: Unix time when it last went up or down, or was first seen."""

    target: Target
    health: Health
    since: float
    last_error: str = ""
    """Of the last check that failed; it stays when later ones pass."""
    checks: int = 0
    failures: int = 0
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Prober:
    """``on_change`` is called in the loop whenever an endpoint has gone down or is up again.

    ``chance`` gives numbers in [0, 1), ``sleep`` and ``clock`` (Unix time) are time.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        context_of: ContextOf,
        *,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
        at_a_time: int = AT_A_TIME,
        log: Any = None,
    ) -> None:
        self._on_change = on_change
        self._context_of = context_of
        self._chance = chance
        self._sleep = sleep
        self._clock = clock
        self._slots = asyncio.Semaphore(at_a_time)
        self._log = structlog.get_logger(__name__) if log is None else log
        self._contexts: dict[ClientTlsSpec, ssl.SSLContext] = {}
        self._known: dict[EndpointKey, Checked] = {}

    def __repr__(self) -> str:
        return f"<Prober of {len(self._known)}, down {dict(self.all_down())}>"

    def __iter__(self) -> Iterator[Checked]:
        """All that is known, in no order to rely on."""
        return iter(self._known.values())

    def get(self, key: EndpointKey) -> Checked | None:
        """What is known of an endpoint; None where it is not checked."""
        return self._known.get(key)

    def down(self, service: str, version: str) -> tuple[str, ...]:
        """Addresses of the version's endpoints that are down, sorted."""
        return self.all_down().get((service, version), ())

    def all_down(self) -> Down:
        """Every version that has endpoints that are down."""
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for service, version, address in sorted(key for key, one in self._known.items() if one.health.is_down):
            found[service, version] = (*found.get((service, version), ()), address)
        return found

    def update(self, targets: Iterable[Target], down: Down | None = None) -> None:
        """Check these from now on, and no others. What is known of those that stay is kept.

        New ones count as up, but for those that ``down`` names: a process that takes over from another begins with what
        that one knew. Does not call ``on_change``.
        """
        wanted = {target.key: target for target in targets}
        for key in self._known.keys() - wanted.keys():
            self._stop(self._known.pop(key))
        for key, target in wanted.items():
            known = self._known.get(key)
            if known is None:
                was_down = key[2] in (down or {}).get(key[:2], ())
                known = Checked(target, KNOWN_DOWN if was_down else Health(), self._clock())
                self._known[key] = known
            elif known.target == target:
                continue
            else:
                self._stop(known)
                known.target = target
            known.task = spawn(self._watch(known, target), name=f"health of {target}")
        in_use = {target.endpoint.tls for target in wanted.values()}
        self._contexts = {spec: context for spec, context in self._contexts.items() if spec in in_use}

    async def stop(self) -> None:
        """End all checks. What is known can still be read."""
        await end(*(one.task for one in self if one.task is not None))

    def _stop(self, known: Checked) -> None:
        if known.task is not None:
            spawn(end(known.task), name=f"end of health of {known.target}")

    async def _watch(self, known: Checked, target: Target) -> None:
        is_first = True
        while True:
            try:
                async with self._slots:
                    why = await self._check(target)
            # A dead transport may raise RuntimeError, TypeError or AttributeError as well: no result is no failure.
            except Exception as error:  # noqa: BLE001
                self._log.error(f"{target} could not be checked: {words(error)}", exc_info=error)
            else:
                if self._known.get(target.key) is not known or known.target is not target:
                    # The config was read again meanwhile, and the end of this task is on its way.
                    return
                self._note(known, why)
            await self._sleep(self._pause(known, is_first))
            is_first = False

    def _pause(self, known: Checked, is_first: bool) -> float:
        interval = known.target.check.interval
        if known.health.is_undecided:
            interval = min(interval, max(interval / SOONER, SOONEST_SECONDS))
        elif is_first:
            return interval * self._chance()
        return interval * (1 - JITTER + 2 * JITTER * self._chance())

    async def _check(self, target: Target) -> str:
        tls = target.endpoint.tls
        try:
            context = None if tls is None else self._context(tls)
        except (OSError, ssl.SSLError) as error:
            return f"its authorities or our certificate cannot be used: {words(error)}"
        return await check(target.endpoint, target.check, context)

    def _context(self, spec: ClientTlsSpec) -> ssl.SSLContext:
        # Loading the system's authorities takes 10 ms of this loop: once for each way of speaking TLS.
        if spec not in self._contexts:
            self._contexts[spec] = self._context_of(spec)
        return self._contexts[spec]

    def _note(self, known: Checked, why: str) -> None:
        before, target = known.health, known.target
        known.checks += 1
        if why:
            known.failures += 1
            known.last_error = why
        known.health = before.after(not why, target.check)
        if known.health.is_down == before.is_down:
            return
        known.since = self._clock()
        count = known.health.in_a_row
        if known.health.is_down:
            many = f"{count} checks in a row failed, the last with" if count > 1 else "a check failed with"
            self._log.warning(f"{target} is down: {many}: {why}")
        else:
            many = f"{count} checks in a row" if count > 1 else "a check"
            self._log.info(f"{target} is up again: {many} passed")
        self._on_change()
