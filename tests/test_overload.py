"""More to do than a version may have at a time: who waits, who is turned away, who leaves. On real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from router.core.spec import OverloadSpec, ServiceSpec, TimeoutsSpec
from router.proxy.pool import VersionPool
from router.telemetry.tasks import spawn
from tests.house import RunningPlane, running_plane, shop, snapshot
from tests.test_falling_outward import of
from tests.troubles import CANARY, Answer, Backend, Client, backends, settled
from tests.waiting import until

PATIENT = TimeoutsSpec(connect=1.0, first_byte=20.0, between_bytes=20.0)


class Gate:
    """A backend that answers when it is let; counts how many requests it has at a time."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.now = 0
        self.most = 0
        self._may = asyncio.Semaphore(0)
        backend.serve = self._serve

    def lets(self, count: int) -> None:
        for _ in range(count):
            self._may.release()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await self.backend.takes(reader)
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await self._may.acquire()
            finally:
                self.now -= 1
            writer.write(self.backend.says(200, head))


@dataclass
class Busy:
    """A version with one place, and somebody in it."""

    router: RunningPlane
    spec: ServiceSpec
    gate: Gate
    first: asyncio.Task[Answer]

    @property
    def pool(self) -> VersionPool:
        return self.router.plane.pools.versions["shop", "v1"]

    def ask(self, client: Client, method: str = "GET", body: bytes = b"") -> asyncio.Task[Answer]:
        return spawn(client.ask(method, body, within=30), name="waiting")

    async def waiting(self, count: int) -> None:
        await until(lambda: len(self.pool.waiting) == count)


@asynccontextmanager
async def busy(**overload: float) -> AsyncIterator[Busy]:
    async with backends("a") as (a,):
        gate = Gate(a)
        limits = OverloadSpec(**{"in_flight": 1, "queue_seconds": 30.0, **overload})  # type: ignore[arg-type]
        spec = shop((a.port,), (a.port,), canary=0, early=0, overload=limits, timeouts=PATIENT)
        async with running_plane(snapshot(spec)) as router:
            house = Busy(router, spec, gate, spawn(Client(router).ask(within=30), name="first"))
            await until(lambda: gate.now == 1)
            yield house
            gate.lets(1000)
            assert (await house.first).status == 200
            await settled(router)


async def test_those_who_wait_are_served_one_after_the_other_in_their_order() -> None:
    async with busy() as house:
        clients = []
        for _ in range(5):
            clients.append(house.ask(Client(house.router)))
            await house.waiting(len(clients))
        assert house.router.plane.collect().versions[("shop", "v1")].waiting == 5
        house.gate.lets(6)
        answers = await asyncio.gather(*clients)
        assert {answer.status for answer in answers} == {200}
        assert list(house.gate.backend.delivered)[1:] == [answer.request_id for answer in answers]
        assert house.gate.most == 1


async def test_whoever_finds_the_queue_full_is_told_at_once_and_nothing_was_sent() -> None:
    async with busy(queue=2) as house:
        waiting = [house.ask(Client(house.router)) for _ in range(2)]
        await house.waiting(2)
        client = Client(house.router)
        refused = await client.ask("POST", b"x", within=5)
        assert refused.status == 503
        assert b"overloaded" in refused.body
        assert refused.one("retry-after") == "1"
        assert refused.request_id not in house.gate.backend.delivered
        assert house.router.plane.collect().versions[("shop", "v1")].shed == {"queue_full": 1}
        house.gate.lets(10)
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}
        assert (await client.ask()).status == 200


async def test_whoever_waits_too_long_is_told_and_makes_room_for_the_next() -> None:
    async with busy(queue=1, queue_seconds=0.3) as house:
        client = Client(house.router)
        for _ in range(2):
            late = await client.ask("POST", b"x", within=5)
            assert late.status == 503
            assert b"overloaded" in late.body
            assert late.one("retry-after")
        assert house.router.plane.collect().versions[("shop", "v1")].shed == {"queue_time": 2}
        assert house.gate.backend.delivered.total() == 1
        waiting = house.ask(client)
        await house.waiting(1)
        house.gate.lets(2)
        assert (await waiting).status == 200


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_client_that_leaves_the_queue_takes_nothing_along(which: int) -> None:
    async with busy(queue=3) as house:
        clients = [Client(house.router) for _ in range(3)]
        names = []
        for client in clients:
            names.append(await client.send("POST", b"x"))
            await house.waiting(len(names))
        clients[which].close()
        await house.waiting(2)
        late = house.ask(Client(house.router))
        await house.waiting(3)
        house.gate.lets(4)
        assert (await late).status == 200
        for client in clients:
            if client is not clients[which]:
                assert (await client.answer()).status == 200
        assert names[which] not in house.gate.backend.delivered


async def test_an_upload_waits_like_everybody_and_arrives_whole() -> None:
    body = bytes(i % 251 for i in range(400_000))
    async with busy() as house:
        reader, writer = await house.router.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nX-Request-Id: up\r\nContent-Length: %d\r\n\r\n" % len(body))
        await house.waiting(1)
        writer.write(body)
        house.gate.lets(2)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert house.gate.backend.bodies[-1] == body
        writer.close()


@pytest.mark.parametrize("ends", [False, True])
async def test_an_upload_that_goes_on_waits_no_longer_than_others(ends: bool) -> None:
    async with busy(queue_seconds=0.5) as house:
        reader, writer = await house.router.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nX-Request-Id: up\r\nContent-Length: 10\r\n\r\n12345")
        await house.waiting(1)
        writer.write(b"67890" if ends else b"67")
        async with asyncio.timeout(8):
            assert b"503 " in await reader.readuntil(b"\r\n\r\n")
        assert "up" not in house.gate.backend.delivered
        writer.close()


async def test_a_limit_that_is_lifted_lets_those_go_on_who_wait() -> None:
    async with busy() as house:
        waiting = [house.ask(Client(house.router)) for _ in range(3)]
        await house.waiting(3)
        house.router.plane.install(snapshot(replace(house.spec, overload=OverloadSpec()), generation=2))
        await until(lambda: house.gate.now == 4)
        house.gate.lets(4)
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}


@pytest.mark.parametrize("what", ["service", "version", "endpoint"])
async def test_who_waits_for_something_that_goes_does_not_hang(what: str) -> None:
    async with busy(queue_seconds=1.0) as house:
        waiting = [house.ask(Client(house.router), "POST", b"x") for _ in range(3)]
        await house.waiting(3)
        spec = house.spec
        if what == "service":
            spec = replace(spec, name="other")
        elif what == "version":
            v2 = spec.versions[1]
            rings = tuple(replace(ring, version="v2") for ring in spec.rings)
            spec = replace(spec, versions=(v2,), rings=rings)
        else:
            address = f"127.0.0.1:{house.gate.backend.port}"
            spec = replace(spec, versions=tuple(replace(one, drained=(address,)) for one in spec.versions))
        old = house.pool
        house.router.plane.install(snapshot(spec, generation=2))
        answers = await asyncio.gather(*waiting)
        assert {answer.status for answer in answers} == {503}
        assert not old.waiting
        house.gate.lets(10)
        await until(lambda: old.in_flight == 0)


async def test_who_waits_for_a_version_that_goes_is_served_by_it_if_a_place_is_free_in_time() -> None:
    async with busy() as house:
        waiting = [house.ask(Client(house.router)) for _ in range(3)]
        await house.waiting(3)
        house.router.plane.install(snapshot(replace(house.spec, name="other"), generation=2))
        house.gate.lets(10)
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}
        assert house.gate.most == 1


@pytest.mark.parametrize("kind", ["in_flight", "endpoint_in_flight"])
async def test_a_crowd_never_gets_more_than_the_places_there_are(kind: str) -> None:
    async with backends("a", "b") as both:
        gates = [Gate(one) for one in both]
        ports = tuple(one.port for one in both)
        limits = OverloadSpec(**{kind: 3}, queue_seconds=30.0)
        spec = shop(ports, ports, canary=0, early=0, overload=limits, timeouts=PATIENT)
        async with running_plane(snapshot(spec)) as router:
            crowd = [spawn(Client(router).ask(within=20), name="crowd") for _ in range(40)]
            while not all(one.done() for one in crowd):
                total = sum(gate.now for gate in gates)
                await until(lambda: all(one.done() for one in crowd) or sum(gate.now for gate in gates) > 0)
                assert total <= (3 if kind == "in_flight" else 6)
                for gate in gates:
                    gate.lets(gate.now)
                await asyncio.sleep(0)
            assert {one.result().status for one in crowd} == {200}
            if kind == "endpoint_in_flight":
                assert max(gate.most for gate in gates) == 3
            await settled(router)


async def test_a_refuge_is_not_filled_beyond_its_limits() -> None:
    async with backends("canary", "early", "everyone") as three:
        gate = Gate(three[1])
        limits = OverloadSpec(in_flight=2, queue_seconds=30.0)
        async with running_plane(snapshot(of(*three, overload=limits, timeouts=PATIENT))) as router:
            await three[0].dies()
            crowd = [spawn(Client(router, lines=CANARY).ask(within=20), name="crowd") for _ in range(8)]
            pool = router.plane.pools.versions["shop", "v2"]
            await until(lambda: gate.now == 2 and len(pool.waiting) == 6)
            gate.lets(8)
            answers = await asyncio.gather(*crowd)
            assert {(answer.status, answer.version) for answer in answers} == {(200, "v2")}
            assert gate.most == 2
            await settled(router)


async def test_who_waits_for_a_backend_that_dies_falls_outward_with_the_others() -> None:
    async with backends("canary", "early", "everyone") as three:
        gate = Gate(three[0])
        limits = OverloadSpec(in_flight=2, queue_seconds=30.0)
        async with running_plane(snapshot(of(*three, overload=limits, timeouts=PATIENT))) as router:
            crowd = [spawn(Client(router, lines=CANARY).ask(within=20), name="crowd") for _ in range(8)]
            pool = router.plane.pools.versions["shop", "v3"]
            await until(lambda: gate.now == 2 and len(pool.waiting) == 6)
            await three[0].dies()
            answers = await asyncio.gather(*crowd)
            for answer in answers:
                was_there = answer.request_id in three[0].delivered
                assert (answer.status, answer.version) == ((502, "v3") if was_there else (200, "v2"))
            await settled(router)


async def test_who_waits_for_a_version_that_is_drained_falls_outward_at_once() -> None:
    async with backends("canary", "early", "everyone") as three:
        gate = Gate(three[0])
        spec = of(*three, overload=OverloadSpec(in_flight=1, queue_seconds=30.0), timeouts=PATIENT)
        async with running_plane(snapshot(spec)) as router:
            crowd = [spawn(Client(router, lines=CANARY).ask(within=20), name="crowd") for _ in range(4)]
            pool = router.plane.pools.versions["shop", "v3"]
            await until(lambda: gate.now == 1 and len(pool.waiting) == 3)
            inner = replace(spec.versions[0], drained=(f"127.0.0.1:{three[0].port}",))
            router.plane.install(snapshot(replace(spec, versions=(inner, *spec.versions[1:])), generation=2))
            await until(lambda: sum(one.done() for one in crowd) == 3)
            gate.lets(1)
            answers = await asyncio.gather(*crowd)
            assert sorted(answer.version for answer in answers) == ["v2", "v2", "v2", "v3"]
            assert {answer.status for answer in answers} == {200}
            await settled(router)
