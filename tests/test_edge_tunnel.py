"""WebSocket tunnels on raw sockets, as stories: bytes both ways, every kind of end, nobody's memory filled."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from router.core.spec import EndpointSpec, ListenerSpec, TimeoutsSpec, VersionSpec
from tests.house import RunningPlane, Serve, fixed, header, raw_backend, read_head, running_plane, shop, snapshot
from tests.test_edge_timeouts import go_on_reading, passed_on, past, stop_reading
from tests.waiting import until

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\n\r\n" % KEY
)
KEPT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HIGH = 1_000_000
"""More than this never waits in a transport."""


def accept(head: bytes) -> bytes:
    (key,) = header(head, "sec-websocket-key")
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(digest)
    )


def tunnel_to(serve: Serve) -> Serve:
    """A backend that accepts every handshake, and then does what ``serve`` does."""

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(accept(await read_head(reader)))
        await serve(reader, writer)

    return backend


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def tunnels(serve: Serve, **listener: Any) -> AsyncIterator[RunningPlane]:
    async with raw_backend(serve) as port:
        timeouts = TimeoutsSpec(5.0, 5.0, 0.3)  # a tunnel has its own time
        spec = ListenerSpec(**listener)
        async with running_plane(snapshot(shop((port,), (port,), timeouts=timeouts), listener=spec)) as router:
            yield router
            for writer in router.plane._connections:
                writer.transport.abort()


async def shaken(router: RunningPlane, early: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await router.connect()
    writer.write(HANDSHAKE + early)
    head = await read_head(reader)
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert header(head, "upgrade") == ["websocket"]
    assert [value.lower() for value in header(head, "connection")] == ["upgrade"]
    assert header(head, "sec-websocket-accept") == ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
    return reader, writer


async def settled(router: RunningPlane, count: int = 1) -> None:
    """The tunnels are over, and counted once each."""
    meter = router.plane.tally.meter(("shop", "everyone", "v1"))
    await until(lambda: meter.in_flight == 0)
    assert meter.codes == {101: count}
    await until(lambda: router.plane.collect().connections == 0)
    assert sum(endpoint.active for endpoint in router.plane.pools.endpoints.values()) == 0
    assert meter.tunnels == 0
    (reserve,) = router.plane.pools.reserves.values()
    assert not reserve.idle


async def test_bytes_pass_both_ways_as_they_are_and_a_tunnel_is_counted_once() -> None:
    async with tunnels(tunnel_to(echo)) as router:
        reader, writer = await shaken(router)
        meter = router.plane.tally.meter(("shop", "everyone", "v1"))
        assert (meter.in_flight, meter.tunnels) == (1, 1)
        data = bytes(range(256)) * 2_000
        for piece in (b"\x00", b"GET / HTTP/1.1\r\n\r\n", b"0\r\n\r\n", data):
            writer.write(piece)
            assert await reader.readexactly(len(piece)) == piece
        writer.close()
        await settled(router)
        sent = 1 + 18 + 5 + len(data)
        assert (meter.request_bytes, meter.response_bytes) == (sent, sent)
        assert meter.client_aborts == 0


@pytest.mark.parametrize("size", [1, 1_000, 400_000])
async def test_bytes_that_come_with_the_handshake_or_before_its_answer_arrive_in_order(size: int) -> None:
    may_accept = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        await may_accept.wait()
        writer.write(accept(head) + b"hello")  # and the backend's first words come with its answer
        await echo(reader, writer)

    early = bytes(i % 251 for i in range(size))
    async with tunnels(serve) as router:
        reader, writer = await router.connect()
        writer.write(HANDSHAKE + early)
        await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 1)
        writer.write(b"more")
        may_accept.set()
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(5) == b"hello"
        assert await reader.readexactly(size + 4) == early + b"more"
        writer.close()
        await settled(router)


async def test_what_the_backend_says_last_arrives_before_its_end() -> None:
    async def farewell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(b"x" * 3_000_000)

    async with tunnels(tunnel_to(farewell)) as router:
        reader, writer = await shaken(router)
        writer.write(b"bye")
        assert len(await reader.read()) == 3_000_000
        writer.close()
        await settled(router)


@pytest.mark.parametrize("how", ["closes", "closes its half"])
async def test_what_the_client_says_last_arrives_before_its_end(how: str) -> None:
    got = bytearray()
    ended = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            got.extend(data)
        ended.set()

    async with tunnels(tunnel_to(listen)) as router:
        _, writer = await shaken(router)
        writer.write(b"x" * 3_000_000)
        if how == "closes":
            writer.close()
        else:
            writer.write_eof()
        async with asyncio.timeout(5):
            await ended.wait()
        assert len(got) == 3_000_000
        writer.close()
        await settled(router)


@pytest.mark.parametrize("who", ["client", "backend"])
async def test_a_reset_of_one_side_ends_the_other(who: str) -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if who == "backend":
            await reader.readexactly(1)
            writer.transport.abort()
        else:
            with contextlib.suppress(OSError):
                await reader.read()
            ended.set()

    async with tunnels(tunnel_to(serve)) as router:
        reader, writer = await shaken(router)
        if who == "backend":
            writer.write(b"x")
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
        else:
            writer.transport.abort()
            await ended.wait()
        writer.close()
        await settled(router)


async def fill(writer: asyncio.StreamWriter, most: int = 60_000_000) -> int:
    """Write until nobody takes more for a while; the bytes that were taken or wait in the writer."""
    sent = 0
    while sent < most:
        writer.write(b"x" * 65_536)
        sent += 65_536
        drained = asyncio.ensure_future(writer.drain())  # noqa: TID251 - awaited in the next line
        if not (await asyncio.wait([drained], timeout=0.7))[0]:
            drained.cancel()
            break
    return sent


async def test_a_backend_that_does_not_read_holds_the_client() -> None:
    may_end = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stop_reading(writer)
        await may_end.wait()

    async with tunnels(tunnel_to(deaf)) as router:
        _, writer = await shaken(router)
        assert await fill(writer) < 60_000_000
        (downstream,) = router.plane._connections
        assert downstream.is_holding
        assert downstream.exchange is not None
        assert downstream.exchange.upstream is not None
        assert downstream.exchange.upstream.transport.get_write_buffer_size() < HIGH
        may_end.set()
        writer.transport.abort()
        await settled(router)


async def test_a_backend_that_does_not_read_holds_a_client_that_spoke_early_too(tmp_path: Path) -> None:
    """A unix socket takes some 200 KiB; what came with the handshake is more, and the hold must outlast the 101."""
    path = tmp_path / "backend.sock"
    may_accept, may_end = asyncio.Event(), asyncio.Event()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        stop_reading(writer)
        await may_accept.wait()
        writer.write(accept(head))
        await may_end.wait()
        writer.close()

    server = await asyncio.start_unix_server(connection, str(path))
    endpoints = (EndpointSpec("", 0, str(path)),)
    versions = (VersionSpec("v1", endpoints), VersionSpec("v2", endpoints))
    timeouts = TimeoutsSpec(5.0, 30.0, 30.0)
    async with running_plane(snapshot(shop((), (), versions=versions, timeouts=timeouts))) as router:
        reader, writer = await router.connect()
        writer.write(HANDSHAKE + b"x" * 2_000_000)
        await until(lambda: any(len(one.partial) > 250_000 for one in router.plane._connections))
        may_accept.set()
        await read_head(reader)
        await fill(writer, 20_000_000)
        (downstream,) = router.plane._connections
        assert downstream.exchange is not None
        assert downstream.exchange.upstream is not None
        waiting = downstream.exchange.upstream.transport.get_write_buffer_size()
        may_end.set()
        writer.transport.abort()
        server.close()
        assert waiting < HIGH, f"{waiting} bytes wait for a backend that does not read"


async def test_a_client_that_does_not_read_holds_the_backend_and_is_cut_off_in_time() -> None:
    sent = [0]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent[0] < 60_000_000:
            writer.write(b"x" * 65_536)
            sent[0] += 65_536
            await writer.drain()

    async with tunnels(tunnel_to(talk), send_timeout=0.5) as router:
        reader, writer = await shaken(router)
        stop_reading(writer)
        await until(lambda: any(one.is_write_paused for one in router.plane._connections))
        (downstream,) = router.plane._connections
        assert downstream.transport.get_write_buffer_size() < HIGH
        await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 0, within=3)
        assert sent[0] < 60_000_000
        writer.transport.abort()
        await settled(router)


async def test_a_tunnel_ends_when_nobody_says_anything_and_either_side_keeps_it_open() -> None:
    async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            if data == b"!":
                for _ in range(5):
                    writer.write(b"x")
                    start = monotonic()
                    await past(start + 0.2)

    async with tunnels(tunnel_to(listens), tunnel_timeout=0.4) as router:
        reader, writer = await shaken(router)
        for _ in range(5):  # the client alone
            writer.write(b"?")
            start = monotonic()
            await past(start + 0.2)
        writer.write(b"!")  # the backend alone
        start = monotonic()
        assert await reader.read() == b"xxxxx"
        assert 0.8 + 0.35 < monotonic() - start < 10
        writer.close()
        await settled(router)


async def test_a_tunnel_whose_client_was_slow_once_has_its_whole_time_again() -> None:
    """The time for a client that does not read is not the time for a tunnel in which nobody speaks."""
    is_full = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (downstream,) = router.plane._connections
        await reader.readexactly(1)
        sent = 0
        while not downstream.is_write_paused:
            writer.write(b"x" * 60_000)
            sent += 60_000
            await passed_on(downstream, sent)
        is_full.set()
        await reader.readexactly(1)
        writer.write(b"y")
        await reader.read()

    async with tunnels(tunnel_to(talk), send_timeout=0.5) as router:
        reader, writer = await shaken(router)
        stop_reading(writer)
        writer.write(b"?")
        await is_full.wait()
        (downstream,) = router.plane._connections
        go_on_reading(writer)
        while downstream.is_write_paused or downstream.transport.get_write_buffer_size():
            await reader.read(1_000_000)
        start = monotonic()
        await past(start + 1.0)  # silent, for less than an hour
        writer.write(b"?")
        async with asyncio.timeout(3):
            rest = b""
            while not rest.endswith(b"y"):
                rest = await reader.read(1_000_000)
                assert rest, "the tunnel was closed"
        writer.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    ],
    ids=["bare", "wrong accept", "other protocol", "no Connection"],
)
async def test_a_101_that_is_not_the_answer_is_a_502(answer: bytes) -> None:
    async with tunnels(fixed(answer + b"bytes of a tunnel")) as router:
        reader, writer = await router.connect()
        writer.write(HANDSHAKE)
        refused = await read_head(reader)
        assert refused.startswith(b"HTTP/1.1 502 ")
        assert b"upstream_protocol" in await reader.readuntil(b"\n")
        writer.write(KEPT)  # and nobody may be upgraded who did not ask
        assert (await read_head(reader)).startswith(b"HTTP/1.1 502 ")
        writer.close()
        assert router.plane.tally.meter(("shop", "everyone", "v1")).codes == {502: 2}


async def test_a_backend_that_declines_answers_as_usual_and_the_connection_goes_on() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")

    async with tunnels(serve) as router:
        reader, writer = await router.connect()
        for raw in (HANDSHAKE, KEPT, HANDSHAKE):
            writer.write(raw)
            assert (await read_head(reader)).startswith(b"HTTP/1.1 403 ")
            assert await reader.readexactly(2) == b"no"
        writer.close()


async def test_a_stopping_router_lets_a_tunnel_live_until_it_ends() -> None:
    async with tunnels(tunnel_to(echo)) as router:
        reader, writer = await shaken(router)
        draining = asyncio.ensure_future(router.plane.drain())  # noqa: TID251 - awaited below
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        writer.close()
        async with asyncio.timeout(5):
            await draining
        await settled(router)
