"""Watches services wherever they live: one watcher, or in a cluster one for each owner of services.

An owner that is dead holds back only what lives on it. When slots move, the services are grouped anew; a replica that
takes over its owner's services changes no group, and their watcher only reconnects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError

from router.control.directory import Slots
from router.control.keys import key_of
from router.control.link import directory_of
from router.control.watch import LinkState, MemberNews, OnLink, OnRead, Watcher
from router.telemetry.tasks import end, spawn

REGROUP_SECONDS: Final = 1.0
_WORST: Final[tuple[LinkState, ...]] = ("down", "poll", "live")


class Watchers:
    """Run ``run()`` as a task; cancel it to stop. Its arguments are those of ``Watcher``."""

    def __init__(
        self,
        url: str,
        services: Iterable[str],
        on_read: OnRead,
        on_link: OnLink,
        *,
        name: str = "",
        members: MemberNews | None = None,
    ) -> None:
        self._url = url
        self._services = tuple(services)
        self._on_read = on_read
        self._on_link = on_link
        self._more: dict[str, Any] = {"name": name, "members": members}
        self._running: dict[frozenset[str], tuple[Watcher, asyncio.Task[None]]] = {}
        self._states: dict[frozenset[str], tuple[LinkState, BaseException | None]] = {}

    @property
    def watching(self) -> list[Watcher]:
        """Those that run now."""
        return [watcher for watcher, _ in self._running.values()]

    async def run(self) -> None:
        directory = directory_of(self._url)
        try:
            while True:
                await self._regroup(directory)
                await asyncio.sleep(REGROUP_SECONDS)
        finally:
            await end(*(task for _, task in self._running.values()))

    async def _regroup(self, directory: Any) -> None:
        groups = {frozenset(self._services)}
        if isinstance(directory, Slots):
            try:
                found = await directory.grouped({service: key_of(service, "weights") for service in self._services})
            except RedisConnectionError as error:
                if not self._running:
                    self._on_link("down", error)
                return  # whoever runs goes on
            groups = {frozenset(some) for some in found.values()}
        gone = [group for group in self._running if group not in groups]
        for group in gone:
            self._states.pop(group, None)
        await end(*(self._running.pop(group)[1] for group in gone))
        for group in groups - self._running.keys():
            watcher = Watcher(self._url, sorted(group), self._on_read, self._listener(group), **self._more)
            self._running[group] = (watcher, spawn(watcher.run(), name="Redis watcher"))

    def _listener(self, group: frozenset[str]) -> OnLink:
        def heard(state: LinkState, error: BaseException | None) -> None:
            self._states[group] = (state, error)
            states = [one for one, _ in self._states.values()]
            worst = min(states, key=_WORST.index)
            self._on_link(*next(one for one in self._states.values() if one[0] == worst))

        return heard
