"""How unreachable endpoints are found again, and how connections are kept: stories on real sockets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from time import monotonic

from router.core.spec import BalanceSpec, ClientTlsSpec, ConnectionsSpec, EndpointSpec, SnapshotSpec, VersionSpec
from router.core.standing import Standing
from router.proxy.endpoint import Endpoint
from tests.house import RunningPlane, endpoint, running_plane, shop, snapshot
from tests.troubles import Answer, Client, backends, reset, settled
from tests.waiting import until


def one(router: RunningPlane, port: int) -> Endpoint:
    return next(e for e in router.plane.pools.endpoints.values() if e.spec.port == port)


def plain(*ports: int, **changes: object) -> SnapshotSpec:
    return snapshot(shop(ports, ports[:1], canary=0, early=0, **changes))


async def test_an_endpoint_that_comes_back_is_found_by_a_background_connection_and_not_by_a_user() -> None:
    async with backends("a", "b") as (a, b):
        async with running_plane(plain(a.port, b.port, balance=BalanceSpec(slow_start=0.3))) as router:
            await a.dies()
            client = Client(router)
            while one(router, a.port).standing is not Standing.UNREACHABLE:
                assert (await client.ask()).status == 200
            retries = dict(router.plane.collect().versions["shop", "v1"].retries)
            assert {(await client.ask()).body for _ in range(50)} == {b"b"}
            assert router.plane.collect().versions["shop", "v1"].retries == retries, "no user has tried"
            await a.comes_back()
            await until(lambda: one(router, a.port).is_usable, within=10)
            assert one(router, a.port).standing is Standing.WARMING
            assert router.plane.collect().endpoints["shop", "v1", f"127.0.0.1:{a.port}"].states == {"slow start": 1}
            await until(lambda: one(router, a.port).standing is Standing.WELL)
            assert {(await client.ask()).body for _ in range(50)} == {b"a", b"b"}
            await settled(router)


async def test_a_dead_endpoint_is_asked_at_most_twice_a_second_whatever_is_asked_of_the_router() -> None:
    """It is counted at one that accepts and fails the handshake, since nobody counts what is refused."""
    async with backends("no tls", "good") as (bad, good):
        at: list[float] = []

        async def slams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            at.append(monotonic())
            reset(writer)

        bad.serve = slams
        over_tls = EndpointSpec("127.0.0.1", bad.port, tls=ClientTlsSpec(verify=False))
        spec = shop((good.port,), (good.port,), canary=0, early=0)
        for members in ((over_tls, endpoint(good.port)), (over_tls,)):
            at.clear()
            versions = (VersionSpec("v1", members), spec.versions[1])
            async with running_plane(snapshot(replace(spec, versions=versions))) as router:
                client = Client(router)
                while len(at) < 4:
                    answer = await client.ask("POST", b"x")
                    assert answer.status == 200 if len(members) == 2 else answer.status in (502, 503)
                assert all(later - earlier > 0.45 for earlier, later in pairwise(at))
                await settled(router)


async def test_nobody_waits_for_a_version_that_cannot_be_reached_and_it_is_back_soon() -> None:
    async with backends("a") as (a,):
        async with running_plane(plain(a.port)) as router:
            await a.dies()
            client = Client(router)
            answers = [await client.ask("POST", b"x")]
            while answers[-1].status == 502:
                answers.append(await client.ask("POST", b"x"))
            assert answers[-1].status == 503
            assert answers[-1].one("retry-after")
            await a.comes_back()

            async def is_served() -> bool:
                return (await client.ask("POST", b"x")).status == 200

            await until(is_served, within=10)
            await settled(router)


async def test_nothing_runs_in_the_background_when_all_is_well_or_gone() -> None:
    async with backends("a", "b") as (a, b):
        async with running_plane(
            plain(a.port, b.port, balance=BalanceSpec(slow_start=0.2), return_after=0.2)
        ) as router:
            recovery = router.plane.recovery
            await until(lambda: not recovery._troubled and recovery._timer is None)
            await a.dies()
            client = Client(router)
            while one(router, a.port).standing is not Standing.UNREACHABLE:
                await client.ask()
            await until(lambda: one(router, a.port).is_probed)
            await a.comes_back()
            await until(lambda: not recovery._troubled and recovery._timer is None and not router.tasks)
            for each in (a, b):
                await each.dies()
            while one(router, a.port).is_usable or one(router, b.port).is_usable:
                await client.ask()
            await until(lambda: one(router, a.port).is_probed)
            router.plane.install(snapshot(shop((1,), (1,), name="other"), generation=2))
            await until(lambda: not recovery._troubled and recovery._timer is None and not router.tasks)


async def test_a_probes_connection_serves_the_next_request() -> None:
    async with backends("a") as (a,):
        async with running_plane(plain(a.port)) as router:
            await a.dies()
            await Client(router).ask()
            await until(lambda: one(router, a.port).is_probed)
            await a.comes_back()
            await until(lambda: a.connections == 1 and one(router, a.port).is_usable)
            assert (await Client(router).ask("POST", b"x")).status == 200
            assert a.connections == 1


async def crowd(router: RunningPlane, count: int) -> list[Answer]:
    clients = [Client(router) for _ in range(count)]
    answers = await asyncio.gather(*(client.ask() for client in clients))
    for client in clients:
        client.close()
    return answers


async def test_no_more_connections_are_kept_than_allowed() -> None:
    async with backends("a") as (a,):
        async with running_plane(plain(a.port, connections=ConnectionsSpec(idle_per_endpoint=3))) as router:
            may_answer = asyncio.Event()

            async def together(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                while head := await a.takes(reader):
                    await may_answer.wait()
                    writer.write(a.says(200, head))

            a.serve = together
            asking = asyncio.gather(*(Client(router).ask() for _ in range(10)))
            await until(lambda: len(a.heads) == 10)
            may_answer.set()
            assert {answer.status for answer in await asking} == {200}
            await until(lambda: len(one(router, a.port).reserve.idle) == 3)
            await until(lambda: len(a._open) == 3)
            assert {answer.status for answer in await crowd(router, 3)} == {200}


async def test_connections_end_when_they_are_old_or_idle_for_long() -> None:
    async with backends("a") as (a,):
        async with running_plane(plain(a.port, connections=ConnectionsSpec(idle=30.0, max_age=0.4))) as router:
            client = Client(router)
            born = monotonic()
            while a.connections < 3:
                assert (await client.ask()).status == 200
            assert monotonic() - born > 0.7
        async with running_plane(plain(a.port, connections=ConnectionsSpec(idle=0.2))) as router:
            await Client(router).ask()
            assert len(one(router, a.port).reserve.idle) == 1
            await until(lambda: not one(router, a.port).reserve.idle and not a._open)


async def test_an_endpoint_that_no_snapshot_names_loses_its_idle_connections_and_finishes_the_others() -> None:
    async with backends("a", "b") as (a, b):
        may_answer = asyncio.Event()

        async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := await a.takes(reader):
                if head.startswith(b"PUT"):
                    await may_answer.wait()
                writer.write(a.says(200, head))

        a.serve = late
        async with running_plane(plain(a.port)) as router:
            await Client(router).ask()
            busy = Client(router)
            await busy.send("PUT", b"x")
            await until(lambda: len(a.heads) == 2)
            await Client(router).ask()
            router.plane.install(plain(b.port))
            await until(lambda: len(a._open) == 1)
            may_answer.set()
            assert (await busy.answer("PUT")).body == b"a"
            await until(lambda: not a._open)
            assert (await busy.ask()).body == b"b"
            await settled(router)
