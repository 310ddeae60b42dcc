"""A ring whose version is sick: its users fall outward, to the more proven version, and come back. On real sockets."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from router.core.audience import ConditionSpec
from router.core.records import AccessLogSpec
from router.core.spec import BalanceSpec, EndpointSpec, RingSpec, ServiceSpec, SnapshotSpec, TimeoutsSpec, VersionSpec
from router.telemetry.access_log import AccessLog
from router.telemetry.log_sink import Sink
from tests.house import RunningPlane, endpoint, header, read_head, running_plane, shop, snapshot
from tests.test_edge_tunnel import HANDSHAKE, accept
from tests.troubles import CANARY, Answer, Backend, Client, backends, black_hole, reasons, settled
from tests.waiting import until


def chain(*ports: tuple[int, ...], **changes: object) -> ServiceSpec:
    """Rings canary, early and everyone, on v3, v2 and v1; a header says who is in which."""
    names = ("canary", "early", "everyone")
    rings = tuple(
        RingSpec(name, f"v{3 - i}", 0, (ConditionSpec("header", "X-Ring", "equals", (name,)),))
        for i, name in enumerate(names)
    )
    versions = tuple(VersionSpec(f"v{3 - i}", tuple(endpoint(port) for port in of)) for i, of in enumerate(ports))
    fields = {"balance": BalanceSpec(slow_start=0), "return_after": 0.5, **changes}
    return shop((1,), (1,), rings=rings, versions=versions, **fields)


def of(*three: Backend | int, **changes: object) -> ServiceSpec:
    return chain(*((one if isinstance(one, int) else one.port,) for one in three), **changes)


def versions_of(answers: list[Answer]) -> list[str]:
    """Each once, as long as it stays the same."""
    return [version for version, _ in groupby(answer.version for answer in answers)]


async def test_users_of_a_ring_whose_endpoints_are_all_killed_fall_outward_and_come_back_once(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY)
    async with backends("canary", "canary too", "early", "everyone") as (inner, inner_too, middle, outer):
        spec = chain((inner.port, inner_too.port), (middle.port,), (outer.port,))
        async with running_plane(snapshot(spec)) as router:
            router.plane.access_log = AccessLog(AccessLogSpec(), Sink(descriptor))
            seen: dict[int, list[Answer]] = {number: [] for number in range(6)}
            others: list[Answer] = []
            is_over = False

            async def user(number: int) -> None:
                me = Client(router, f"user-{number}", CANARY)
                while not is_over:
                    seen[number].append(await me.ask("PUT" if number % 2 else "GET", b"xyz" if number % 2 else b""))
                me.close()

            async def stranger() -> None:
                me = Client(router, "stranger")
                while not is_over:
                    others.append(await me.ask())
                me.close()

            def all_last(version: str) -> bool:
                return all(answers and answers[-1].version == version for answers in seen.values())

            async with asyncio.TaskGroup() as group:
                for number in seen:
                    group.create_task(user(number))
                group.create_task(stranger())
                await until(lambda: all_last("v3"))
                await inner.dies()
                await inner_too.dies()
                await until(lambda: all_last("v2"), within=2)
                assert reasons(router, "canary", "v2").keys() == {"fallback"}
                assert router.plane.collect().versions[("shop", "v3")].sick == 1
                await inner.comes_back()
                await until(lambda: all_last("v3"))
                await until(lambda: sum(len(answers) for answers in seen.values()) > 2000, within=20)
                is_over = True
            for answers in seen.values():
                assert {answer.status for answer in answers} == {200}
                assert versions_of(answers) == ["v3", "v2", "v3"]
                for answer in answers:
                    assert answer.one("x-ring") == "canary"
                    assert answer.reason == ("fallback" if answer.version == "v2" else "")
                    assert answer.body.startswith(b"early" if answer.version == "v2" else b"canary")
            assert {(answer.status, answer.version) for answer in others} == {(200, "v1")}
            fallen = [head for head in middle.heads if header(head, "x-ring") == ["canary"]]
            assert fallen == middle.heads
            assert all(header(head, "x-ring-version") == ["v2"] for head in fallen)
            assert all(header(head, "x-ring-reason") == ["fallback"] for head in fallen)
            await settled(router)
            router.plane.access_log.stop()
            os.close(descriptor)
            lines = [json.loads(line) for line in log.read_bytes().splitlines()]
            logged = [line for line in lines if line["reason"] == "fallback"]
            assert len(logged) == reasons(router, "canary", "v2")["fallback"] == len(fallen)
            assert {(line["ring"], line["version"], line["endpoint"]) for line in logged} == {
                ("canary", "v2", f"127.0.0.1:{middle.port}")
            }


@pytest.mark.parametrize("dead", [1, 2])
async def test_rings_fall_as_far_outward_as_they_have_to(dead: int) -> None:
    async with backends("canary", "early", "everyone") as three, running_plane(snapshot(of(*three))) as router:
        for one in three[:dead]:
            await one.dies()
        client = Client(router, lines=CANARY)
        answers = [await client.ask("POST", b"x" * 1000) for _ in range(5)]
        assert {(answer.status, answer.version) for answer in answers} == {(200, f"v{3 - dead}")}
        assert {answer.reason for answer in answers} == {"fallback"}
        early = await Client(router, lines="X-Ring: early\r\n").ask()
        assert (early.version, early.reason) == (("v2", "") if dead == 1 else ("v1", "fallback"))
        await settled(router)
        assert reasons(router, "canary", "v3") == {}


async def test_a_version_further_out_that_dies_while_it_is_a_refuge_passes_its_guests_on() -> None:
    async with backends("canary", "early", "everyone") as three, running_plane(snapshot(of(*three))) as router:
        client = Client(router, lines=CANARY)
        answers = []
        for one in three:
            answers += [await client.ask() for _ in range(3)]
            await one.dies()
        assert {answer.status for answer in answers} == {200}
        assert versions_of(answers) == ["v3", "v2", "v1"]
        nowhere = await client.ask()
        assert nowhere.status in (502, 503)
        await settled(router)


@pytest.mark.parametrize("how", ["just back", "down by checks"])
async def test_when_no_version_is_well_one_that_can_answer_is_a_refuge_all_the_same(how: str) -> None:
    async with backends("canary", "early", "everyone") as three:
        well = of(*three, return_after=60.0)
        outer = well.versions[-1]
        out = replace(outer, down=tuple(one.address for one in outer.endpoints))
        sick = replace(well, versions=(*well.versions[:-1], out))
        async with running_plane(snapshot(sick)) as router:
            for one in three[:2]:
                await one.dies()
            if how == "just back":
                router.plane.install(snapshot(well, generation=2))
            client = Client(router, lines=CANARY)
            answers = [await client.ask("POST", b"x") for _ in range(5)]
            assert {(answer.status, answer.version, answer.reason) for answer in answers} == {(200, "v1", "fallback")}
            own = await Client(router).ask()
            assert (own.status, own.version, own.reason) == (200, "v1", "")
            await settled(router)


async def test_a_killed_ring_is_no_refuge() -> None:
    async with backends("canary", "early", "everyone") as three:
        async with running_plane(snapshot(of(*three, killed=("early",)))) as router:
            await three[0].dies()
            client = Client(router, lines=CANARY)
            assert versions_of([await client.ask() for _ in range(5)]) == ["v1"]
            assert not three[1].delivered


async def test_a_ring_that_does_not_fall_outward_gets_503_and_is_served_again_when_it_is_back() -> None:
    async with backends("canary", "early", "everyone") as three:
        spec = of(*three)
        closed = replace(spec, rings=(replace(spec.rings[0], falls_outward=False), *spec.rings[1:]))
        async with running_plane(snapshot(closed)) as router:
            await three[0].dies()
            client = Client(router, lines=CANARY)
            first = await client.ask()
            assert first.status == 502
            answers = [await client.ask("POST", b"x") for _ in range(5)]
            assert {(answer.status, answer.version) for answer in answers} == {(503, "v3")}
            assert all(b"no_endpoint" in answer.body and answer.one("retry-after") for answer in answers)
            assert not three[1].delivered
            assert not three[2].delivered
            await three[0].comes_back()

            async def is_served() -> bool:
                return (await client.ask()).status == 200

            await until(is_served)
            await settled(router)


@pytest.mark.parametrize("how", ["down", "drained"])
async def test_what_a_snapshot_says_counts_at_once_and_its_end_only_after_a_while(how: str) -> None:
    async with backends("canary", "early", "everyone") as three:
        well = of(*three, return_after=0.6)
        out = {how: (f"127.0.0.1:{three[0].port}",)}
        sick = replace(well, versions=(replace(well.versions[0], **out), *well.versions[1:]))  # type: ignore[arg-type]
        async with running_plane(snapshot(sick)) as router:
            client = Client(router, lines=CANARY)
            answers = [await client.ask()]
            assert answers[0].version == "v2"
            router.plane.install(snapshot(well, generation=2))
            assert (await client.ask()).version == "v2"
            while answers[-1].version == "v2":
                answers.append(await client.ask())
            router.plane.install(snapshot(sick, generation=3))
            answers.append(await client.ask())
            assert versions_of(answers) == ["v2", "v3", "v2"]
            assert three[0].delivered.total() == 1
            await settled(router)


async def test_a_default_ring_without_a_well_version_answers_and_does_not_hang() -> None:
    async with backends("canary", "early", "everyone") as three, running_plane(snapshot(of(*three))) as router:
        for one in three:
            await one.dies()
        for lines in (CANARY, ""):
            answers = [await Client(router, lines=lines).ask() for _ in range(5)]
            assert {answer.status for answer in answers} <= {502, 503}
        await three[2].comes_back()
        client = Client(router)

        async def is_served() -> bool:
            return (await client.ask()).status == 200

        await until(is_served)
        await settled(router)


async def test_an_old_client_falls_outward_as_others_do() -> None:
    async with backends("canary", "early", "everyone") as three, running_plane(snapshot(of(*three))) as router:
        await three[0].dies()
        for _ in range(2):
            answer = await router.ask(b"GET / HTTP/1.0\r\nX-Request-Id: old\r\nX-Ring: canary\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert header(answer, "x-ring-version") == ["v2"]
            assert header(three[1].heads[-1], "via") == ["1.0 ring-router"]
            assert header(three[1].heads[-1], "x-ring-version") == ["v2"]


async def test_requests_in_a_row_keep_their_order_while_they_fall_outward() -> None:
    async with backends("canary", "early", "everyone") as three, running_plane(snapshot(of(*three))) as router:
        client = Client(router, lines=CANARY)
        await client.ask()
        await three[0].dies()
        for _ in range(20):
            await client.send()
        answers = [await client.answer() for _ in range(20)]
        assert {answer.version for answer in answers} == {"v2"}
        targets = [head.split(b" ")[1] for head in three[1].heads]
        assert targets == sorted(targets, key=lambda target: int(target.rpartition(b"-")[2]))
        await settled(router)


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upload_in_progress_falls_outward_whole(chunked: bool) -> None:
    body = os.urandom(300_000)
    with black_hole() as hole:
        async with backends("early", "everyone") as (middle, outer):
            spec = of(hole, middle, outer, timeouts=TimeoutsSpec(0.4, 5.0, 5.0))
            async with running_plane(snapshot(spec)) as router:
                reader, writer = await router.connect()
                length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
                writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nX-Request-Id: up\r\nX-Ring: canary\r\n%b\r\n\r\n" % length)
                for start in range(0, len(body), 30_000):
                    piece = body[start : start + 30_000]
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    await asyncio.sleep(0)
                if chunked:
                    writer.write(b"0\r\n\r\n")
                head = await read_head(reader)
                assert header(head, "x-ring-version") == ["v2"]
                assert middle.delivered["up"] == 1
                assert middle.bodies == [body]
                writer.close()
                await settled(router)


async def test_a_websocket_falls_outward_too() -> None:
    async with backends("canary", "early", "everyone") as three:
        middle = three[1]

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(accept(await middle.takes(reader)))
            writer.write(await reader.readexactly(4))

        middle.serve = tunnel
        async with running_plane(snapshot(of(*three))) as router:
            await three[0].dies()
            reader, writer = await router.connect()
            writer.write(HANDSHAKE.replace(b"Host: a\r\n", b"Host: a\r\nX-Ring: canary\r\n") + b"ping")
            head = await read_head(reader)
            assert head.startswith(b"HTTP/1.1 101 ")
            assert header(head, "x-ring-version") == ["v2"]
            assert await reader.readexactly(4) == b"ping"
            writer.close()
            await settled(router)


# -- snapshots in the middle -------------------------------------------------------------------------------------------


@asynccontextmanager
async def one_is_connecting(
    answers: list[Answer], **changes: object
) -> AsyncIterator[tuple[RunningPlane, ServiceSpec, list[Backend]]]:
    """A canary's request has asked for a connection that nobody will make; after the block it has an answer."""
    with black_hole() as hole:
        async with backends("early", "everyone") as outer:
            spec = of(hole, *outer, timeouts=TimeoutsSpec(0.4, 5.0, 5.0), **changes)
            async with running_plane(snapshot(spec)) as router:
                client = Client(router, lines=CANARY)
                await client.send()
                await until(lambda: sum(e.active for e in router.plane.pools.endpoints.values()) == 1)
                yield router, spec, outer
                async with asyncio.timeout(5):
                    answers.append(await client.answer())
                client.close()
                await until(lambda: all(m.in_flight == 0 for m in router.plane.tally.meters.values()))


async def test_counters_that_are_read_in_the_middle_never_count_down() -> None:
    answers: list[Answer] = []
    seen: list[dict[str, int]] = []
    async with one_is_connecting(answers) as (router, _, _):

        def read() -> None:
            rings = router.plane.collect(whole=True).rings
            seen.append({"/".join(key) + word: n for key, ring in rings.items() for word, n in ring.reasons.items()})

        read()
        assert seen[0] == {"shop/canary/v3rule": 1}
        await until(lambda: router.plane.tally.meter(("shop", "canary", "v2")).codes)
        read()
        client = Client(router, lines=CANARY)
        for _ in range(3):
            await client.ask()
            read()
        for earlier, later in pairwise(seen):
            assert all(later[word] >= count for word, count in earlier.items())
    assert answers[0].version == "v2"


def without_service(spec: ServiceSpec) -> SnapshotSpec:
    return snapshot(replace(spec, name="other"), generation=2)


def without_ring(spec: ServiceSpec) -> SnapshotSpec:
    return snapshot(replace(spec, rings=spec.rings[1:], versions=spec.versions[1:]), generation=2)


def without_outer_versions(spec: ServiceSpec) -> SnapshotSpec:
    rings = tuple(replace(ring, version="v3") for ring in spec.rings)
    return snapshot(replace(spec, rings=rings, versions=spec.versions[:1]), generation=2)


def closed(spec: ServiceSpec) -> SnapshotSpec:
    rings = (replace(spec.rings[0], falls_outward=False), *spec.rings[1:])
    return snapshot(replace(spec, rings=rings), generation=2)


@pytest.mark.parametrize("change", [without_service, without_ring, without_outer_versions, closed])
async def test_a_request_that_is_older_than_the_snapshot_is_answered_whatever_has_gone(
    change: Callable[[ServiceSpec], SnapshotSpec],
) -> None:
    answers: list[Answer] = []
    async with one_is_connecting(answers) as (router, spec, _):
        router.plane.install(change(spec))
    assert answers[0].status == 504
    assert b"connect_timeout" in answers[0].body


async def test_a_ring_that_is_killed_meanwhile_is_no_refuge_either() -> None:
    answers: list[Answer] = []
    async with one_is_connecting(answers) as (router, spec, _):
        router.plane.install(snapshot(replace(spec, killed=("early",)), generation=2))
    assert (answers[0].status, answers[0].version) == (200, "v1")


async def test_an_endpoint_that_goes_while_it_is_connected_to_leaves_the_request_to_its_successor() -> None:
    answers: list[Answer] = []
    async with one_is_connecting(answers) as (router, spec, outer):
        versions = (replace(spec.versions[0], endpoints=(endpoint(outer[0].port),)), *spec.versions[1:])
        router.plane.install(snapshot(replace(spec, versions=versions), generation=2))
    assert (answers[0].status, answers[0].version, answers[0].reason) == (200, "v3", "")


async def test_a_weight_that_changes_keeps_what_is_in_flight_and_takes_effect() -> None:
    async with backends("a", "b", "everyone") as (a, b, outer):
        a.serve = a.hangs
        spec = chain((a.port, b.port), (outer.port,), (outer.port,))

        def weighted(weight: int) -> SnapshotSpec:
            first = EndpointSpec("127.0.0.1", a.port, weight=weight)
            versions = (VersionSpec("v3", (first, endpoint(b.port))), *spec.versions[1:])
            return snapshot(replace(spec, versions=versions), generation=2)

        async with running_plane(snapshot(spec)) as router:
            known = {e.spec.port: e for e in router.plane.pools.endpoints.values()}
            clients: list[Client] = []
            while not known[a.port].active:
                clients.append(Client(router, lines=CANARY))
                await clients[-1].send()
                await until(lambda: len(a.heads) + len(b.heads) == len(clients))
            router.plane.install(weighted(0))
            assert {e.spec.port: e for e in router.plane.pools.endpoints.values()} == known
            assert known[a.port].active == 1
            taken = a.delivered.total()
            client = Client(router, lines=CANARY)
            assert {(await client.ask()).body for _ in range(20)} == {b"b"}
            assert a.delivered.total() == taken
            router.plane.install(weighted(5))
            assert known[a.port].active == 1
            for one in clients:
                one.close()
            await settled(router)
