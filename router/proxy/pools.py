"""All versions and endpoints of a worker; they outlive snapshots.

An endpoint that no snapshot names any more is retired: its requests in flight finish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from router.core.snapshot import Service
from router.core.standing import Event, Standing
from router.proxy.endpoint import Endpoint, Reserve, Target, target
from router.proxy.pool import VersionPool
from router.telemetry.counters import EndpointCounters, EndpointKey, VersionCounters, VersionKey, WorkerCounters

_STATES: Final = {standing: {standing.value: 1} for standing in Standing}


class Pools:
    """What a snapshot's versions and endpoints are in this worker."""

    __slots__ = (
        "_has_told_all", "_on_room", "_on_trouble", "_version_counters", "endpoints", "reserves", "versions",
    )  # fmt: skip

    def __init__(self, on_trouble: Callable[[VersionPool], None], on_room: Callable[[VersionPool], None]) -> None:
        self._on_trouble = on_trouble
        self._on_room = on_room
        self.versions: dict[VersionKey, VersionPool] = {}
        self.endpoints: dict[EndpointKey, Endpoint] = {}
        self.reserves: dict[Target, Reserve] = {}
        self._has_told_all = False
        """Whether control knows which endpoints there are."""
        self._version_counters: dict[VersionKey, VersionCounters] = {}

    def update(self, services: Iterable[Service], workers: int, now: float) -> None:
        """Those of a new snapshot. ``workers``: so many share what is limited for all of them."""
        endpoints: dict[EndpointKey, Endpoint] = {}
        versions: dict[VersionKey, VersionPool] = {}
        for service in services:
            self._update(service, endpoints, versions, workers, now)
        for key in self.versions.keys() - versions.keys():
            self.versions[key].retire()
        self.versions = versions
        if [*endpoints] != [*self.endpoints]:
            self._has_told_all = False
        self.endpoints = endpoints
        named = {target(endpoint.spec) for endpoint in endpoints.values()}
        for left in self.reserves.keys() - named:
            self.reserves.pop(left).close()

    def _update(
        self,
        service: Service,
        endpoints: dict[EndpointKey, Endpoint],
        versions: dict[VersionKey, VersionPool],
        workers: int,
        now: float,
    ) -> None:
        name = service.spec.name
        for version in service.spec.versions:
            pool_key = (name, version.name)
            pool = self.versions.get(pool_key)
            if pool is None:
                counters = self._version_counters.setdefault(pool_key, VersionCounters())
                pool = VersionPool(pool_key, counters, self._on_trouble, self._on_room)
            members = []
            for spec in version.endpoints:
                key = (name, version.name, spec.address)
                endpoint = self.endpoints.get(key)
                if endpoint is None or target(endpoint.spec) != target(spec):
                    before, reserve = endpoint, self.reserves.setdefault(target(spec), Reserve())
                    kept = EndpointCounters() if before is None else before.counters
                    endpoint = Endpoint(spec, kept, reserve, pool)
                    if before is not None:
                        before.heir = endpoint
                endpoint.spec, endpoint.weight = spec, spec.weight
                was_out = endpoint.is_down or endpoint.is_drained
                endpoint.is_down = spec.address in version.down
                endpoint.is_drained = spec.address in version.drained
                if was_out and not endpoint.is_down and not endpoint.is_drained:
                    pool.happened(endpoint, Event.RECOVERED, now)
                endpoints[key] = endpoint
                members.append(endpoint)
            pool.update(tuple(members), service.spec, workers, now)
            pool.connections = service.alike.one(service.spec.connections)
            versions[pool_key] = pool

    def tell_endpoints(self, counters: WorkerCounters, *, whole: bool) -> None:
        """Put endpoints into a report: those that moved since the last one, or all."""
        is_all = whole or not self._has_told_all
        self._has_told_all, counters.has_all_endpoints = True, is_all
        levels, moved = counters.levels, counters.endpoints
        for key, endpoint in self.endpoints.items():
            levels.append(endpoint.active)
            levels.append(len(endpoint.reserve.idle))
            if is_all or endpoint.has_moved or endpoint.told is not endpoint.standing:
                endpoint.has_moved, endpoint.told = False, endpoint.standing
                endpoint.counters.states = _STATES[endpoint.standing]
                moved[key] = endpoint.counters

    def news(self) -> dict[VersionKey, VersionCounters]:
        """The versions where something has happened."""
        for pool in self.versions.values():
            pool.count()
        return {key: counters for key, counters in self._version_counters.items() if counters.has_news}

    def close(self) -> None:
        for reserve in self.reserves.values():
            reserve.close()
