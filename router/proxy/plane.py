"""One worker's data plane: the snapshot in force, its pools and counters, and the connections that use them.

``install`` turns a snapshot into tables that a request looks at once. Pools and counters outlive snapshots; an endpoint
that no snapshot names any more is retired: its requests in flight finish.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import resource
import ssl
from collections.abc import Callable, Collection, Coroutine, Iterable
from email.utils import formatdate
from random import Random
from time import monotonic, time
from typing import Any, Final

from router.core.snapshot import Decision, Reason, Service, Snapshot, outward
from router.core.spec import ClientTlsSpec, ListenerSpec, SnapshotSpec
from router.proxy import ends
from router.proxy.changes import Changes
from router.proxy.client import UNIX
from router.proxy.door import Door
from router.proxy.downstream import Downstream
from router.proxy.failures import Failure
from router.proxy.headcount import Headcount
from router.proxy.heads import RequestReader
from router.proxy.lane import MIRROR_LINE, Lane
from router.proxy.mirror import Mirror
from router.proxy.pool import VersionPool
from router.proxy.pools import Pools
from router.proxy.proofs import Verifier
from router.proxy.recovery import Recovery
from router.proxy.sightings import Sightings
from router.proxy.tables import OpenTables
from router.proxy.tally import Tally
from router.proxy.tap import Sampler
from router.proxy.tls import client_context
from router.proxy.tracing import TRACE_FIELDS, Tracer
from router.proxy.wheel import Wheel
from router.proxy.witness import Witness
from router.telemetry.access_log import AccessLog
from router.telemetry.counters import WorkerCounters, read_meters
from router.telemetry.journal import Journal
from router.telemetry.messages import Users, Watched
from router.telemetry.meters import RingMeter

RESERVED_DESCRIPTORS: Final = 64
"""Of a worker: listeners, log, channel to control, and what libraries open for a moment."""


class DataPlane:
    """The state that all connections of a worker share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spawn: Callable[..., asyncio.Task[None]],
        workers: int = 1,
        headcount: Headcount | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.loop = loop
        self._workers = workers
        self._headcount = headcount or Headcount()
        self.wheel = Wheel(loop)
        self.tally = Tally(journal or Journal())
        self.snapshot: Snapshot | None = None
        self.lanes: list[tuple[Lane, ...]] = []
        self.sightings = Sightings()
        self.witness = Witness()
        self.listener = ListenerSpec()
        self.reader = RequestReader()
        self.access_log: AccessLog | None = None
        self.tracer: Tracer | None = None
        self.tap: Sampler | None = None
        """Of those who listen to requests; None while nobody does."""
        self.lines_dropped = 0
        """By access logs that are closed."""
        self.is_draining = self.is_closed = False
        self._spawn = spawn
        self._chance = Random().random
        self.recovery = Recovery(self)
        self.changes = Changes(self)
        self.verifier = Verifier(self)
        self.pools = Pools(self.recovery.watch, self._has_room)
        self._outward: dict[tuple[str, str, str], Lane] = {}
        """Service, ring and version → the lane of those who fell outward; of this snapshot."""
        self._connections: set[Downstream] = set()
        self._refused: set[Downstream] = set()
        """Turned away, and not gone yet."""
        self.greeting = 0
        """Connections that have not said yet who they are (PROXY protocol)."""
        self._of_client: dict[bytes, int] = {}
        self._most = self._allowed = 0
        self._contexts: dict[ClientTlsSpec, ssl.SSLContext] = {}
        self._doors: list[Door] = []
        self._tables: OpenTables | None = None
        self._date = b""
        self._date_at = -1
        self._trusted: tuple[str, ...] = ()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._id_prefix = os.urandom(6).hex().encode()
        self._id_count = 0
        self._empty: asyncio.Future[None] | None = None
        self.wheel.start()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        return self._spawn(work, name=name)

    # -- the snapshot --------------------------------------------------------------------------------------------------

    def install(self, spec: SnapshotSpec) -> None:
        """Compile a snapshot and swap it in. Requests in flight keep what they have."""
        tables = OpenTables(self._tables, is_first=self.snapshot is None)
        snapshot = Snapshot(spec, tables.find)
        self._tables = tables
        self.verifier.install(spec.trust, {one.name: frozenset(one.revoked) for one in spec.services if one.revoked})
        self.listener = listener = spec.listener
        self.pools.update(snapshot.services, self._workers, monotonic())
        self._settle()
        self._outward = {}
        lanes = []
        for service in snapshot.services:
            mirrors = self._mirrors(service)
            lanes.append(tuple([self._lane(service, decision, mirrors) for decision in service.decisions]))
        self.sightings.begin(snapshot)
        self.witness.attach(snapshot.services, lanes)
        trusted = tuple(listener.trusted_proxies)
        before, self.snapshot, self.lanes = self.snapshot, snapshot, lanes
        reader = self.reader
        wanted = snapshot.wanted_headers | TRACE_FIELDS if spec.tracing is not None else snapshot.wanted_headers
        if (wanted, listener.limits, listener.serves_trace) != (reader.wanted, reader.limits, reader.serves_trace):
            self.reader = RequestReader(wanted, listener.limits, serves_trace=listener.serves_trace)
        for number, one in enumerate(listener.sockets):
            self.door(number).update(one)
        self._limit_connections()
        kept = {one.spec.tls for one in self.pools.endpoints.values() if one.spec.tls is not None}
        self._contexts = {key: context for key, context in self._contexts.items() if key in kept}
        if trusted != self._trusted:
            self._trusted = trusted
            self._networks = [ipaddress.ip_network(cidr) for cidr in trusted if cidr != "unix:"]
            for downstream in self._connections:
                downstream.is_trusted = self.trusts(downstream.address)
        self.changes.installed(before, snapshot)

    def _has_room(self, pool: VersionPool) -> None:
        self.loop.call_soon(pool.wake, self.choose)

    def _mirrors(self, service: Service) -> dict[str, Mirror]:
        """Ring → where its requests are copied to."""
        found = {}
        for ring in service.spec.rings:
            if ring.mirror is not None:
                version = ring.mirror.version
                decision = Decision(-1, ring.name, version, Reason.DEFAULT)
                pool = self.pools.versions[service.spec.name, version]
                lane = Lane(service, decision, pool, RingMeter(), self.listener, (), MIRROR_LINE)
                found[ring.name] = Mirror(self, ring.mirror, lane)
        return found

    def _lane(self, service: Service, decision: Decision, mirrors: dict[str, Mirror]) -> Lane:
        name = service.spec.name
        meter = self.tally.meter((name, decision.ring, decision.version))
        pool = self.pools.versions[name, decision.version]
        outer = outward(service.spec, decision.ring)
        if decision.version in outer:  # held back
            outer = outer[outer.index(decision.version) + 1 :]
        lane = Lane(service, decision, pool, meter, self.listener, outer, member=self._member(decision.ring))
        mirror = mirrors.get(decision.ring)
        if mirror is not None and mirror.version != decision.version:
            lane.mirror = mirror
        return lane

    def _member(self, ring: str) -> bytes:
        """What requests carry in baggage."""
        return self.verifier.member(ring) if self.listener.sends_baggage else b""

    def all_lanes(self) -> list[Lane]:
        return [lane for lanes in self.lanes for lane in lanes] + list(self._outward.values())

    def lane_outward(self, lane: Lane, version: str) -> Lane | None:
        """The lane of a ring's users who fall outward to this version, which is one of ``lane.outer``.

        None if they may not any more: a request whose connection is being made may be older than the snapshot.
        """
        key = (lane.service, lane.ring, version)
        found = self._outward.get(key)
        if found is None:
            services = self.snapshot.services if self.snapshot is not None else ()
            service = next((one for one in services if one.spec.name == lane.service), None)
            if service is None or lane.ring not in {ring.name for ring in service.spec.rings}:
                return None
            versions = outward(service.spec, lane.ring)
            if version not in versions:
                return None
            outer = versions[versions.index(version) + 1 :]
            meter = self.tally.meter((lane.service, lane.ring, version))
            decision = Decision(-1, lane.ring, version, Reason.FALLBACK)
            pool = self.pools.versions[lane.service, version]
            member = self._member(lane.ring)
            found = self._outward[key] = Lane(service, decision, pool, meter, self.listener, outer, member=member)
        return found

    # -- connections ---------------------------------------------------------------------------------------------------

    def door(self, number: int) -> Door:
        """The listening socket with this number, in the order of the configuration."""
        while len(self._doors) <= number:
            self._doors.append(Door(self))
        return self._doors[number]

    def accept(self) -> asyncio.BaseProtocol:
        """A new client's connection, through the first door."""
        return self.door(0).accept()

    def joined(self, downstream: Downstream) -> Failure | None:
        """A client is connected; why it has to go again, if it has."""
        address = downstream.address
        # Somebody may have lowered what this process may open: refusing is better than failing to accept, or having
        # no descriptor left for a backend.
        self._limit_connections()
        count = self._of_client[address] = self._of_client.get(address, 0) + 1
        downstream.is_trusted = bool(self._trusted) and self.trusts(address)
        failure = None
        most = self.listener.limits.connections_per_client
        # Counted before it is judged: two workers that looked first would both take the last place.
        self._connections.add(downstream)
        if self.count_heads() > self._allowed or self._headcount.everywhere > self._most:
            failure = Failure.TOO_MANY_CONNECTIONS
        elif most and count > most and not downstream.is_trusted and address != UNIX:
            failure = Failure.TOO_MANY_OF_CLIENT
        if failure is not None:
            self._connections.discard(downstream)
            self._refused.add(downstream)
            self.count_heads()
        return failure

    def _limit_connections(self) -> None:
        asked, self._allowed = self.listener.limits.connections, allowed_connections()
        self._most = asked or self._allowed * self._workers

    def count_heads(self) -> int:
        """Tell the other workers how many clients are here, which is the answer too."""
        here = len(self._connections) + self.greeting
        if not self.is_draining:  # its successor counts in the same place
            self._headcount.note(here)
        return here

    @property
    def is_full(self) -> bool:
        """Whether no further client is taken: by this worker, or by all of them together."""
        return self.count_heads() >= self._allowed or self._headcount.everywhere >= self._most

    @property
    def is_crowded(self) -> bool:
        """Whether those who are turned away take up as much as this worker's share of those who may be served."""
        return len(self._refused) > self._most // self._workers

    def left(self, downstream: Downstream) -> None:
        self._connections.discard(downstream)
        self._refused.discard(downstream)
        self.count_heads()
        address = downstream.address
        count = self._of_client.get(address, 0) - 1
        if count > 0:
            self._of_client[address] = count
        else:
            self._of_client.pop(address, None)
        if self._empty is not None and not self._connections and not self._empty.done():
            self._empty.set_result(None)

    def trusts(self, address: bytes) -> bool:
        """Whether an address is a trusted proxy's."""
        if address == UNIX:
            return "unix:" in self._trusted
        try:
            peer = ipaddress.ip_address(address.decode("latin-1"))
        except ValueError:
            return False
        return any(peer in network for network in self._networks)

    def client_context(self, spec: ClientTlsSpec) -> ssl.SSLContext:
        """The TLS context of an endpoint. Raises OSError (ssl.SSLError is one) when its files cannot be used."""
        context = self._contexts.get(spec)
        if context is None:
            context = self._contexts[spec] = client_context(spec)
        return context

    def date_line(self) -> bytes:
        """A Date field of now."""
        now = int(time())
        if now != self._date_at:
            self._date_at = now
            self._date = b"Date: " + formatdate(now, usegmt=True).encode()
        return self._date

    def now(self) -> float:
        """The clock of deadlines."""
        return monotonic()

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

    def _settle(self) -> None:
        for lane in self.all_lanes():
            self.tally.settle(lane)

    def collect(self, *, whole: bool = False) -> WorkerCounters:
        """What moved since the last time, or everything; and the gauges."""
        self._settle()
        tally = self.tally
        counters = WorkerCounters(
            rings=read_meters(tally.meters, whole=whole),
            versions=self.pools.news(),
            connections=len(self._connections),
            router_answers=tally.answers,
            failures=tally.failures,
            proofs=tally.proofs,
            overhead=tally.overhead,
            overhead_micros=tally.overhead_micros,
            loop_lag=tally.lag,
            loop_lag_micros=tally.lag_micros,
            access_log_dropped=self.access_log.sink.dropped if self.access_log is not None else self.lines_dropped,
        )
        self.pools.tell_endpoints(counters, whole=whole)
        return counters

    def watch(self, watched: Iterable[Watched]) -> None:
        """Count the users of these services, and of no others."""
        self.witness.watch(watched)
        if self.snapshot is not None:
            self.witness.attach(self.snapshot.services, self.lanes)

    def collect_users(self) -> Users | None:
        """Those who were counted since the last time; None while nobody is."""
        return self.witness.take(self._connections, monotonic())

    async def drain(self, patience: float = 0.0) -> None:
        """Answer everything in flight, close what is idle, and return when nobody is connected any more.

        A connection that looks idle may have a request on its way: for ``patience`` seconds it is still taken, and
        its answer says that it was the last one.
        """
        self.is_draining = True
        if self._connections and patience:
            self._empty = self.loop.create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._empty
        for downstream in tuple(self._connections):
            if downstream.is_idle:
                downstream.leave()
            else:
                downstream.keep_alive = False
        if self._connections:
            self._empty = self.loop.create_future()
            await self._empty

    def restart_tunnels(self) -> bool:
        """The time to drain is over: WebSockets are told to come back. Whether nothing else is in flight."""
        for downstream in tuple(self._connections):
            if downstream.exchange is not None and downstream.exchange.tunnel is not None:
                downstream.exchange.come_back(ends.KILLED)
        return all(downstream.exchange is None for downstream in self._connections)

    def leave(self, doors: Collection[Door]) -> None:
        """Close the idle connections that came through these doors."""
        for downstream in tuple(self._connections):
            if downstream.is_idle and downstream.door in doors:
                downstream.leave()

    def close(self) -> None:
        """Break off what is left."""
        self.is_closed = True
        self.wheel.stop()
        self.recovery.stop()
        for downstream in (*self._connections, *self._refused):
            downstream.transport.abort()
        self.pools.close()


def allowed_connections() -> int:
    """Connections of clients that this process may take: half of its descriptors, for backends need theirs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else max(1, (soft - RESERVED_DESCRIPTORS) // 2)
