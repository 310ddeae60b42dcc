"""Names of endpoints, resolved here and again and again, so that workers connect to addresses and never look up.

It asks the system's resolver (hosts file, search domains, whatever nsswitch says). IPv4 is taken where there is any,
else IPv6: ``localhost`` is both everywhere while backends often listen on one of them, and half of the endpoints of a
version would be dead. A look-up that fails or finds nothing changes nothing: the last known addresses stay. It must
never hold up the loop, and never have more than a few look-ups on their way: each one has a thread until it ends.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from router.telemetry.tasks import end, spawn

FIRST_SECONDS: Final = 0.5
"""How long a start waits for all names together; the store gives Redis as long."""
AT_A_TIME: Final = 3
"""libuv has four threads for look-ups, and Redis has a name too."""
JITTER: Final = 0.1

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""All addresses of a name, of both families, in any order. Raises OSError."""


async def system_lookup(name: str) -> Sequence[str]:
    """What the system's resolver says. Raises ``OSError`` (``socket.gaierror``)."""
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


def chosen(addresses: Iterable[str]) -> tuple[str, ...]:
    """The addresses that count, sorted: those of IPv4 if there are any."""
    every = {address: ipaddress.ip_address(address) for address in addresses}
    version = min((one.version for one in every.values()), default=4)
    return tuple(sorted((a for a, one in every.items() if one.version == version), key=every.__getitem__))


@dataclass(slots=True)
class _Name:
    every: float
    addresses: tuple[str, ...] = ()
    error: str = ""
    is_first_done: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Names:
    """``on_change`` is called in the loop when a name has other addresses than before, from the end of ``start`` on.

    ``chance`` gives numbers in [0, 1); ``sleep`` is time.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        *,
        lookup: Lookup = system_lookup,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        at_a_time: int = AT_A_TIME,
        log: Any = None,
    ) -> None:
        self._on_change = on_change
        self._lookup = lookup
        self._chance = chance
        self._sleep = sleep
        self._slots = asyncio.Semaphore(at_a_time)
        self._log = structlog.get_logger(__name__) if log is None else log
        self._names: dict[str, _Name] = {}
        self._is_started = False

    def __repr__(self) -> str:
        return f"<Names {dict(self.resolved)}>"

    @property
    def resolved(self) -> Mapping[str, tuple[str, ...]]:
        """Name → its addresses, sorted; a name that was never found is not in it."""
        return {name: one.addresses for name, one in self._names.items() if one.addresses}

    @property
    def errors(self) -> Mapping[str, str]:
        """Name → why the last look-up found nothing; names whose last look-up was good are not in it."""
        return {name: one.error for name, one in self._names.items() if one.error}

    async def start(
        self,
        names: Mapping[str, float],
        known: Mapping[str, tuple[str, ...]] | None = None,
        within: float = FIRST_SECONDS,
    ) -> None:
        """Look all of them up, and return when that is done, at the latest after ``within`` seconds.

        ``known`` is what another process found before: it counts until a look-up says otherwise.
        """
        self.update(names)
        for name, addresses in (known or {}).items():
            if name in self._names:
                self._names[name].addresses = addresses
        try:
            async with asyncio.timeout(within):
                for one in list(self._names.values()):
                    await one.is_first_done.wait()
        except TimeoutError:
            slow = sorted(name for name, one in self._names.items() if not one.is_first_done.is_set())
            self._log.warning(f"not looked up within {within:g} s: {', '.join(slow)}; the start does not wait for it")
        self._is_started = True

    def update(self, names: Mapping[str, float]) -> None:
        """Name → seconds between look-ups. New ones are looked up at once, others than these are forgotten."""
        for name in self._names.keys() - names.keys():
            task = self._names.pop(name).task
            if task is not None:
                spawn(end(task), name=f"end of look-ups of {name}")
        for name, every in names.items():
            known = self._names.get(name)
            if known is not None:
                known.every = every
                continue
            known = self._names[name] = _Name(every)
            known.task = spawn(self._watch(name, known), name=f"look-ups of {name}")

    async def stop(self) -> None:
        """End all look-ups."""
        await end(*(one.task for one in self._names.values() if one.task is not None))

    async def _watch(self, name: str, known: _Name) -> None:
        while True:
            async with self._slots:
                # Not bounded in time: that would give the slot away while the thread still hangs in the resolver.
                addresses, error = await self._look_up(name)
            if self._names.get(name) is not known:
                return
            self._note(name, known, addresses, error)
            known.is_first_done.set()
            await self._sleep(known.every * (1 - JITTER + 2 * JITTER * self._chance()))

    async def _look_up(self, name: str) -> tuple[tuple[str, ...], str]:
        try:
            addresses = chosen(await self._lookup(name))
        except (OSError, ValueError) as error:  # UnicodeError: a label that is too long for DNS
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return (), " ".join(str(said).split())[:200] or type(error).__name__
        return addresses, "" if addresses else "it has no address"

    def _note(self, name: str, known: _Name, addresses: tuple[str, ...], error: str) -> None:
        before, said = known.addresses, known.error
        known.error = error
        if error:
            if error != said:
                stays = f"{', '.join(before)} stays in force" if before else "workers will look it up themselves"
                self._log.warning(f"the name {name} was not found: {error}; {stays}")
            return
        known.addresses = addresses
        if addresses != before:
            was = f", before {', '.join(before)}" if before else ""
            self._log.info(f"the name {name} is {', '.join(addresses)}{was}")
            if self._is_started:
                self._on_change()
        elif said:
            self._log.info(f"the name {name} is found again: {', '.join(addresses)}")
