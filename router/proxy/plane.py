"""One worker's data plane: the snapshot in force, its pools and counters, and the connections that use them.

``install`` turns a snapshot into tables that a request looks at once. Pools and counters outlive snapshots; an endpoint
that no snapshot names any more is retired: its requests in flight finish.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, cast

from router.core.snapshot import Decision, Service, Snapshot
from router.core.spec import EndpointSpec, ListenerSpec, SnapshotSpec
from router.proxy.downstream import Downstream
from router.proxy.heads import RequestReader
from router.proxy.pool import Endpoint, Reserve, VersionPool
from router.proxy.wheel import Wheel
from router.telemetry.access_log import AccessLog, json_lane
from router.telemetry.counters import EndpointCounters, EndpointKey, RingKey, WorkerCounters, read_meters
from router.telemetry.meters import RingMeter


class Lane:
    """Everything a request needs once its decision is made, ready as bytes. One per decision of a service."""

    __slots__ = (
        "anonymous_cookie", "decided", "host", "json", "meter", "pool", "reason", "request_lines", "response_lines",
        "ring", "service", "version", "words",
    )  # fmt: skip

    def __init__(self, service: Service, decision: Decision, pool: VersionPool, meter: RingMeter) -> None:
        self.service = service.spec.name
        self.ring = decision.ring
        self.version = decision.version
        self.reason = decision.reason.value
        self.words = f' "-" "-" {self.ring} {self.version} {self.reason}\n'.encode()
        self.json = json_lane(self.service, self.ring, self.version, self.reason)
        self.pool = pool
        self.meter = meter
        self.decided = 0
        """Requests since the last reading; ``_count_decisions`` takes them to the meter."""
        self.anonymous_cookie = service.anonymous_cookie
        self.host = pool.endpoints[0].spec.address.encode()
        """What a client of HTTP/1.0 that names no host is taken to have asked for."""
        self.request_lines = f"X-Ring: {decision.ring}\r\nX-Ring-Version: {decision.version}".encode()
        """Field lines with CRLF between them and none at the end."""
        self.response_lines = self.request_lines if service.spec.response_headers else b""
        """Likewise; empty if this service says nothing of its rings."""


class DataPlane:
    """The state that all connections of a worker share."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spawn: Callable[..., asyncio.Task[None]]) -> None:
        self.loop = loop
        self.wheel = Wheel(loop)
        self._meters: dict[RingKey, RingMeter] = {}
        self._endpoint_counters: dict[EndpointKey, EndpointCounters] = {}
        self._router_answers: dict[str, int] = {}
        self.snapshot: Snapshot | None = None
        self.lanes: list[list[Lane]] = []
        self.listener = ListenerSpec()
        self.reader = RequestReader()
        self.access_log: AccessLog | None = None
        self.lines_dropped = 0
        """By access logs that are closed."""
        self.is_draining = False
        self._spawn = spawn
        self._random = Random()
        self._chance = Random().random
        self._endpoints: dict[EndpointKey, Endpoint] = {}
        self._reserves: dict[EndpointSpec, Reserve] = {}
        self._connections: set[Downstream] = set()
        self._trusted: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
        self._id_prefix = os.urandom(6).hex().encode()
        self._id_count = 0
        self._empty: asyncio.Future[None] | None = None
        self.wheel.start()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        return self._spawn(work, name=name)

    # -- the snapshot --------------------------------------------------------------------------------------------------

    def install(self, spec: SnapshotSpec) -> None:
        """Compile a snapshot and swap it in. Requests in flight keep what they have."""
        snapshot = Snapshot(spec)
        endpoints: dict[EndpointKey, Endpoint] = {}
        lanes = []
        for service in snapshot.services:
            pools = self._pools(service, endpoints)
            lanes.append([self._lane(service, decision, pools) for decision in service.decisions])
        trusted = tuple(ipaddress.ip_network(cidr) for cidr in spec.listener.trusted_proxies)
        for key, endpoint in self._endpoints.items():
            if key not in endpoints:
                endpoint.counters.active = endpoint.counters.idle = 0
        self._count_decisions()
        self._endpoints = endpoints
        named = {endpoint.spec for endpoint in endpoints.values()}
        for spec_left in self._reserves.keys() - named:
            self._reserves.pop(spec_left).close()
        self.snapshot, self.lanes, self.listener = snapshot, lanes, spec.listener
        if snapshot.wanted_headers != self.reader.wanted:
            self.reader = RequestReader(snapshot.wanted_headers)
        if trusted != self._trusted:
            self._trusted = trusted
            for downstream in self._connections:
                downstream.is_trusted = self._trusts(downstream.address)

    def _pools(self, service: Service, endpoints: dict[EndpointKey, Endpoint]) -> dict[str, VersionPool]:
        pools = {}
        for version in service.spec.versions:
            members = []
            for spec in version.endpoints:
                key = (service.spec.name, version.name, spec.address)
                endpoint = self._endpoints.get(key)
                if endpoint is None:
                    counters = self._endpoint_counters.setdefault(key, EndpointCounters())
                    endpoint = Endpoint(spec, counters, self._reserves.setdefault(spec, Reserve()))
                endpoints[key] = endpoint
                members.append(endpoint)
            pools[version.name] = VersionPool(tuple(members), service.spec.timeouts)
        return pools

    def _lane(self, service: Service, decision: Decision, pools: dict[str, VersionPool]) -> Lane:
        meter = self.meter((service.spec.name, decision.ring, decision.version))
        return Lane(service, decision, pools[decision.version], meter)

    # -- connections ---------------------------------------------------------------------------------------------------

    def accept(self) -> asyncio.BaseProtocol:
        """A new client's connection. Not a subclass of asyncio's protocols: nothing of theirs is needed."""
        return cast(asyncio.BaseProtocol, Downstream(self))

    def joined(self, downstream: Downstream) -> None:
        self._connections.add(downstream)
        if self._trusted:
            downstream.is_trusted = self._trusts(downstream.address)

    def left(self, downstream: Downstream) -> None:
        self._connections.discard(downstream)
        if self._empty is not None and not self._connections and not self._empty.done():
            self._empty.set_result(None)

    def _trusts(self, address: bytes) -> bool:
        try:
            peer = ipaddress.ip_address(address.decode())
        except ValueError:
            return False
        return any(peer in network for network in self._trusted)

    def choose(self, count: int) -> int:
        """A random number below ``count``; randrange takes six times as long."""
        return int(self._chance() * count)

    def new_request_id(self) -> bytes:
        """Unique across workers and restarts: six random bytes of the process, then a count."""
        self._id_count += 1
        return b"%b%08x" % (self._id_prefix, self._id_count)

    def new_anonymous_key(self) -> bytes:
        return os.urandom(16).hex().encode()

    # -- counters and the end ------------------------------------------------------------------------------------------

    def meter(self, key: RingKey) -> RingMeter:
        return self._meters.setdefault(key, RingMeter())

    def answered(self, word: str) -> None:
        """The router answered a request itself, before it had a ring."""
        self._router_answers[word] = self._router_answers.get(word, 0) + 1

    def _count_decisions(self) -> None:
        for lanes in self.lanes:
            for lane in lanes:
                if lane.decided:
                    lane.meter.decided(lane.reason, lane.decided)
                    lane.decided = 0

    def collect(self, *, whole: bool = False) -> WorkerCounters:
        """What moved since the last time, or everything; and the gauges."""
        self._count_decisions()
        for endpoint in self._endpoints.values():
            endpoint.counters.active = endpoint.active
            endpoint.counters.idle = len(endpoint.reserve.idle)
        return WorkerCounters(
            rings=read_meters(self._meters, whole=whole),
            endpoints=self._endpoint_counters,
            connections=len(self._connections),
            router_answers=self._router_answers,
            access_log_dropped=self.access_log.dropped if self.access_log is not None else self.lines_dropped,
        )

    async def drain(self) -> None:
        """Answer everything in flight, close what is idle, and return when nobody is connected any more."""
        self.is_draining = True
        for downstream in tuple(self._connections):
            if downstream.is_idle:
                downstream.leave()
            else:
                downstream.keep_alive = False
        if self._connections:
            self._empty = self.loop.create_future()
            await self._empty

    def close(self) -> None:
        """Break off what is left."""
        self.wheel.stop()
        for downstream in tuple(self._connections):
            downstream.transport.abort()
        for reserve in self._reserves.values():
            reserve.close()
