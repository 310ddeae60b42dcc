"""Copies of requests: what they look like, and that the original never knows, whatever the mirror does."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from router.core.spec import MirrorSpec, OverloadSpec, RetrySpec, ServiceSpec, TimeoutsSpec
from router.proxy.mirror import Copy
from tests.house import RunningPlane, Serve, header, read_head, running_plane, snapshot
from tests.test_edge_tunnel import HANDSHAKE, accept
from tests.test_falling_outward import of
from tests.troubles import Answer, Backend, Client, backends, black_hole, reset, settled
from tests.waiting import until


@asynccontextmanager
async def mirrored(
    serve: Serve | None = None, port: int = 0, **spec: object
) -> AsyncIterator[tuple[RunningPlane, Backend, Backend]]:
    """Everyone's requests are copied to v3; the router, the original's backend and the mirror."""
    async with backends("mirror", "early", "everyone") as (mirror, early, outer):
        mirror.serve = serve or mirror.answers
        service = of(port or mirror.port, early, outer, timeouts=TimeoutsSpec(0.5, 1.0, 1.0))
        async with running_plane(snapshot(with_mirror(service, **spec))) as router:
            yield router, outer, mirror
            await settled(router)
            assert copies(router) == 0


def with_mirror(service: ServiceSpec, **spec: object) -> ServiceSpec:
    last = replace(service.rings[-1], mirror=MirrorSpec("v3", **spec))  # type: ignore[arg-type]
    return replace(service, rings=(*service.rings[:-1], last))


def copies(router: RunningPlane) -> int:
    return router.plane.pools.versions["shop", "v3"].copies


def counts(router: RunningPlane) -> dict[str, int]:
    found = router.plane.collect().versions.get(("shop", "v3"))
    return found.mirrored if found is not None else {}


async def ask(router: RunningPlane, times: int, method: str = "GET", body: bytes = b"") -> list[Answer]:
    client = Client(router, "user-1")
    answers = [await client.ask(method, body) for _ in range(times)]
    client.close()
    return answers


async def test_a_copy_is_the_request_with_the_mirrors_version_and_a_mark() -> None:
    async with mirrored(methods=("GET", "PUT")) as (router, outer, mirror):
        answers = await ask(router, 5) + await ask(router, 5, "PUT", b"body")
        assert {(answer.status, answer.body, answer.version) for answer in answers} == {(200, b"everyone", "v1")}
        assert {answer.one("x-ring-mirror") for answer in answers} == {""}
        await until(lambda: counts(router) == {"answered": 10})
        assert mirror.delivered == outer.delivered
        assert sorted(mirror.bodies) == [b""] * 5 + [b"body"] * 5
        for head in mirror.heads:
            assert header(head, "x-ring") == ["everyone"]
            assert header(head, "x-ring-version") == ["v3"]
            assert header(head, "x-ring-mirror") == ["1"]
            assert header(head, "x-user-id") == ["user-1"]
            assert header(head, "host") == ["shop"]
        assert all(not header(head, "x-ring-mirror") for head in outer.heads)


async def test_only_the_methods_the_share_and_the_bodies_that_were_asked_for_are_copied() -> None:
    async with mirrored(basis_points=5000, methods=("GET", "PUT"), body_bytes=100) as (router, _, mirror):
        await ask(router, 20, "POST", b"x")
        assert counts(router) == {}
        await ask(router, 200)
        await until(lambda: 60 < sum(counts(router).values()) < 140)
        await until(lambda: copies(router) == 0)
        before = counts(router)["answered"]
        await ask(router, 20, "PUT", b"x" * 101)
        await ask(router, 5, "PUT", b"x" * 100_000)
        assert counts(router)["answered"] == before
        assert counts(router)["dropped"] > 0
        assert max(map(len, mirror.bodies)) <= 100


@pytest.mark.parametrize("chunked", [False, True])
async def test_what_is_kept_for_a_copy_is_the_mirrors_affair_and_not_that_of_retries(chunked: bool) -> None:
    async with mirrored(methods=("PUT",), body_bytes=1_000_000) as (router, outer, mirror):
        spec = router.plane.snapshot.spec.services[0] if router.plane.snapshot is not None else None
        assert spec is not None
        router.plane.install(snapshot(replace(spec, retries=RetrySpec(replay_bytes=0)), generation=2))
        body = bytes(range(256)) * 3000
        reader, writer = await router.connect()
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        writer.write(f"PUT / HTTP/1.1\r\nHost: shop\r\n{framing}\r\n\r\n".encode())
        for start in range(0, len(body), 50_000):
            piece = body[start : start + 50_000]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
        await until(lambda: counts(router) == {"answered": 1})
        assert mirror.bodies == outer.bodies == [body]
        await ask(router, 1, "PUT", b"x" * 1_000_001)
        assert counts(router) == {"answered": 1, "dropped": 1}
        writer.close()


async def test_an_old_clients_copy_says_so_too() -> None:
    async with mirrored() as (router, outer, mirror):
        answer = await router.ask(b"GET / HTTP/1.0\r\nX-Request-Id: old\r\n\r\n")
        assert header(answer, "x-ring-version") == ["v1"]
        await until(lambda: mirror.delivered["old"] == 1)
        assert header(mirror.heads[0], "x-ring-version") == ["v3"]
        assert header(mirror.heads[0], "via") == ["1.0 ring-router"] == header(outer.heads[0], "via")


async def slams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()


async def talks_rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"rubbish\r\n\r\n")


async def fails(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        for piece in (b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"):
            if writer.is_closing():
                return
            writer.write(piece)
            await writer.drain()


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def never_ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 10_000)
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("serve", [slams, breaks_off, talks_rubbish, fails, hangs, never_ends])
async def test_whatever_the_mirror_does_the_original_is_answered_and_the_copy_ends(serve: Serve) -> None:
    async with mirrored(serve) as (router, _, _mirror):
        async with asyncio.timeout(5):
            answers = await ask(router, 20)
        assert {(answer.status, answer.body) for answer in answers} == {(200, b"everyone")}
        await until(lambda: copies(router) == 0)
        assert counts(router).keys() <= {"failed", "dropped"}
        assert counts(router)["failed"] > 0
        failures = [ring.codes for ring in router.plane.collect(whole=True).rings.values() if ring.codes]
        assert failures == [{200: 20}]


async def test_a_mirror_that_hangs_makes_nobody_wait() -> None:
    async with mirrored(hangs) as (router, _, _mirror):
        answers = await ask(router, 20)
        assert {answer.status for answer in answers} == {200}
        assert copies(router) == 20, "all were answered while no copy was"


async def test_a_mirror_that_cannot_be_reached_makes_nobody_wait_and_is_left_alone() -> None:
    with black_hole() as hole:
        async with mirrored(port=hole) as (router, _, _mirror):
            answers = await ask(router, 50)
            assert {answer.status for answer in answers} == {200}
            assert copies(router) == 50
            await until(lambda: copies(router) == 0)
            await ask(router, 5)
            assert counts(router) == {"failed": 50, "dropped": 5}


async def test_no_more_copies_are_on_their_way_than_allowed_whatever_snapshots_come() -> None:
    async with mirrored(hangs, in_flight=3) as (router, _, mirror):
        spec = router.plane.snapshot
        assert spec is not None
        for generation in range(5):
            await ask(router, 4)
            assert copies(router) == 3
            router.plane.install(replace(spec.spec, generation=generation + 2))
        assert mirror.connections <= 3
        assert counts(router) == {"dropped": 17}


async def test_a_version_that_is_full_gets_no_copies() -> None:
    async with backends("mirror", "early", "everyone") as (mirror, early, outer):
        mirror.serve = mirror.hangs
        spec = with_mirror(of(mirror, early, outer, overload=OverloadSpec(in_flight=2)))
        async with running_plane(snapshot(spec)) as router:
            guests = [Client(router, lines="X-Ring: canary\r\n") for _ in range(2)]
            for guest in guests:
                await guest.send()
            await until(lambda: len(mirror.heads) == 2)
            await ask(router, 3)
            assert counts(router) == {"dropped": 3}
            for guest in guests:
                guest.close()
            await settled(router)


async def test_a_websocket_is_never_copied() -> None:
    async with mirrored() as (router, outer, mirror):

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(accept(await outer.takes(reader)))
            writer.write(await reader.readexactly(4))

        outer.serve = tunnel
        reader, writer = await router.connect()
        writer.write(HANDSHAKE + b"ping")
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(4) == b"ping"
        writer.close()
        assert mirror.connections == 0
        assert counts(router) == {}


async def test_nothing_is_kept_of_a_copy_that_has_ended() -> None:
    async with mirrored() as (router, _, _mirror):
        await ask(router, 50)
        await until(lambda: counts(router) == {"answered": 50})
        gc.collect()
        assert not [one for one in gc.get_objects() if isinstance(one, Copy)]


async def test_those_who_fall_outward_are_not_copied_and_those_who_do_not_are() -> None:
    async with backends("mirror", "early", "everyone") as (mirror, early, outer):
        spec = of(mirror, early, outer)
        rings = (spec.rings[0], replace(spec.rings[1], mirror=MirrorSpec("v3")), spec.rings[2])
        async with running_plane(snapshot(replace(spec, rings=rings))) as router:
            client = Client(router, lines="X-Ring: early\r\n")
            assert (await client.ask()).version == "v2"
            await until(lambda: counts(router) == {"answered": 1})
            await early.dies()
            assert {(await client.ask()).version for _ in range(5)} == {"v1"}
            await settled(router)
            assert mirror.delivered.total() <= 2
