"""Time-outs, as stories: who is slow is cut off with the right word, who is only steady is not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, cast

import pytest

from router.core.spec import ListenerSpec, TimeoutsSpec
from router.proxy.downstream import Downstream
from router.proxy.wheel import LONGEST_RESTS_SECONDS, Patience, Wheel
from tests.house import RunningPlane, Serve, fixed, raw_backend, read_head, running_plane, shop, snapshot
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
KEPT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
LONG = 30.0


@asynccontextmanager
async def plane_in(serve: Serve, version: TimeoutsSpec | None = None, **listener: Any) -> AsyncIterator[RunningPlane]:
    timeouts = version or TimeoutsSpec(LONG, LONG, LONG)
    async with raw_backend(serve) as port:
        service = shop((port,), (port,), timeouts=timeouts)
        async with running_plane(snapshot(service, listener=ListenerSpec(**listener))) as router:
            yield router


def stop_reading(writer: asyncio.StreamWriter) -> None:
    cast(asyncio.Transport, writer.transport).pause_reading()


def go_on_reading(writer: asyncio.StreamWriter) -> None:
    cast(asyncio.Transport, writer.transport).resume_reading()


async def past(when: float) -> None:
    """Wait for a moment of the monotonic clock."""
    await until(lambda: monotonic() >= when, within=30)


async def passed_on(downstream: Downstream, count: int) -> None:
    """Wait until so many bytes of a response have gone to the client's side."""
    await until(lambda: downstream.exchange is not None and downstream.exchange.sent == count)


async def received_from(downstream: Downstream, count: int) -> None:
    """Wait until so many bytes of a request have come, or no more are taken."""
    await until(
        lambda: downstream.is_holding or (downstream.exchange is not None and downstream.exchange.received == count)
    )


def codes(router: RunningPlane) -> dict[int, int]:
    meter = router.plane.tally.meter(("shop", "everyone", "v1"))
    assert meter.in_flight == 0
    return meter.codes


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def slowly(writer: asyncio.StreamWriter, pieces: list[bytes], every: float = 0.15) -> None:
    """Write the pieces at a steady pace."""
    start = monotonic()
    for i, piece in enumerate(pieces):
        if writer.transport.is_closing():
            return
        writer.write(piece)
        await past(start + (i + 1) * every)


async def reading_backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await read_head(reader)
    size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    await reader.readexactly(size)
    writer.write(OK)


async def test_a_head_that_is_not_whole_in_time_and_a_connection_that_says_nothing() -> None:
    async with plane_in(fixed(OK), head_timeout=0.3) as router:
        answer = await router.ask(KEPT[:-2])
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"408 request_timeout" in answer
        assert await router.ask(b"") == b""
        assert router.plane.collect().router_answers == {"request_timeout": 1}


async def test_idle_time_counts_from_the_last_response_and_not_from_the_connection() -> None:
    async with plane_in(fixed(OK), idle_timeout=0.4, head_timeout=LONG) as router:
        reader, writer = await router.connect()
        for _ in range(3):
            before = monotonic()
            await past(before + 0.25)
            writer.write(KEPT)
            await read_head(reader)
            await reader.readexactly(2)
        before = monotonic()
        assert await reader.read() == b""
        assert 0.35 < monotonic() - before < 10
        writer.close()


async def test_an_upload_that_stops_is_a_408_and_one_that_trickles_is_not() -> None:
    async with plane_in(reading_backend, body_timeout=0.4) as router:
        answer = await router.ask(POST % 10 + b"12345")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"408 request_timeout" in answer
        reader, writer = await router.connect()
        writer.write(POST % 6)
        await slowly(writer, [b"x"] * 6, every=0.2)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()
        assert codes(router) == {200: 1, 408: 1}


async def test_a_pause_that_the_backend_made_is_not_held_against_the_client() -> None:
    """The backend does not read for most of the time that a client has between two bytes; the client is not late."""
    may_read = asyncio.Event()
    size = 60_000_000

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        stop_reading(writer)
        await may_read.wait()
        go_on_reading(writer)
        await reader.readexactly(size)
        writer.write(OK)

    async with plane_in(deaf, body_timeout=0.8) as router:
        reader, writer = await router.connect()
        writer.write(POST % size)
        await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 1)
        (downstream,) = router.plane._connections
        sent = 0
        while not downstream.is_holding:  # and when it is held, everything that it has sent has been taken
            writer.write(b"x" * 60_000)
            sent += 60_000
            await received_from(downstream, sent)
        await past(downstream.deadline - 0.25)
        may_read.set()
        await until(lambda: not downstream.is_holding)
        await past(monotonic() + 0.4)  # half of what it has
        writer.write(b"x" * (size - sent))
        answer = await read_head(reader)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 "), answer


async def test_a_whole_request_may_take_so_long_and_no_longer() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if b"/silent" in head:
            await reader.read()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        await slowly(writer, [b"x"] * 100, every=0.1)

    async with plane_in(trickle, request_timeout=0.5) as router:
        before = monotonic()
        answer = await router.ask(GET.replace(b"/ ", b"/silent "))
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"504 deadline" in answer
        assert 0.5 <= monotonic() - before < 10
        cut = await router.ask(GET)
        assert cut.startswith(b"HTTP/1.1 200 ")
        assert cut.count(b"x") < 100
        reader, writer = await router.connect()
        writer.write(POST % 100)
        trickling = asyncio.ensure_future(slowly(writer, [b"x"] * 8, every=0.1))  # noqa: TID251 - awaited below
        answer = await reader.read()
        assert answer[:13] in (b"HTTP/1.1 504 ", b"HTTP/1.1 408 ", b"HTTP/1.1 200 ")
        writer.close()
        await trickling
    async with plane_in(fixed(OK), request_timeout=0.3) as router:  # of one request, not of its connection
        reader, writer = await router.connect()
        for _ in range(3):
            writer.write(KEPT)
            assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
            await reader.readexactly(2)
            await past(monotonic() + 0.15)
        writer.close()


async def test_a_backend_that_is_late_is_a_504_and_one_that_stops_is_cut_off() -> None:
    async def stops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if b"/stops" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        if b"/trickles" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
            await slowly(writer, [b"x"] * 6, every=0.2)
        await reader.read()

    async with plane_in(stops, TimeoutsSpec(1.0, 0.4, 0.4)) as router:
        assert b"504 upstream_timeout" in await router.ask(GET)
        assert (await router.ask(GET.replace(b"/ ", b"/stops "))).endswith(b"\r\n\r\n12345")
        assert (await router.ask(GET.replace(b"/ ", b"/trickles "))).endswith(b"\r\n\r\nxxxxxx")
        (counters,) = {id(c): c for c in router.plane.collect(whole=True).endpoints.values() if c.failures}.values()
        assert counters.failures == {"timeout": 2}


async def test_a_backend_that_does_not_take_connections_is_a_504() -> None:
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (one, two):  # the queue is full; further SYNs are dropped
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        service = shop((port,), (port,), timeouts=TimeoutsSpec(0.3, LONG, LONG))
        async with running_plane(snapshot(service)) as router:
            answer = await router.ask(GET)
            assert b"504 connect_timeout" in answer
            assert codes(router) == {504: 1}


LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 12000000\r\n\r\n"


async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_head(reader)
    writer.write(LARGE)
    for _ in range(12):
        writer.write(b"x" * 1_000_000)
        await writer.drain()
    await reader.read()


async def narrow_client(port: int) -> socket.socket:
    """A client with a small receive buffer, as a slow network has it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    return client


@pytest.mark.parametrize("raw", [GET, KEPT], ids=["close", "keep-alive"])
async def test_a_client_that_reads_nothing_is_cut_off(raw: bytes) -> None:
    async with plane_in(large, send_timeout=0.3) as router:
        with await narrow_client(router.port) as client:
            await asyncio.get_running_loop().sock_sendall(client, raw)
            await until(lambda: router.plane.collect().connections == 1)
            await until(lambda: router.plane.collect().connections == 0, within=10)


async def test_a_client_that_reads_slowly_but_steadily_is_not_cut_off() -> None:
    """It takes bytes all the time; that the kernel asks for more only now and then is not its fault."""
    pace = 500_000
    async with plane_in(large, send_timeout=0.3) as router:
        loop = asyncio.get_running_loop()
        with await narrow_client(router.port) as client:
            await loop.sock_sendall(client, KEPT)
            start, got = monotonic(), 0
            while monotonic() < start + 1.5:
                got += len(await loop.sock_recv(client, pace // 50))
                await past(start + got / pace)
                assert router.plane.collect().connections == 1, f"cut off after {monotonic() - start:.2f} s"


async def test_a_client_that_was_slow_for_a_moment_does_not_shorten_the_time_of_the_backend() -> None:
    """What was waiting was sent and read; now the backend is silent, for less long than it may be."""
    is_full, may_go_on = asyncio.Event(), asyncio.Event()

    async def pauses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(LARGE)
        (downstream,) = router.plane._connections
        sent = 0
        while not downstream.is_write_paused:
            writer.write(b"x" * 60_000)
            sent += 60_000
            await passed_on(downstream, sent)
        is_full.set()
        await may_go_on.wait()
        writer.write(b"y" * (12_000_000 - sent))

    async with plane_in(pauses, send_timeout=0.5) as router:
        reader, writer = await router.connect()
        stop_reading(writer)
        writer.write(KEPT)
        await is_full.wait()
        (downstream,) = router.plane._connections
        go_on_reading(writer)
        await read_head(reader)
        got = len(await reader.readuntil(b"x"))
        while downstream.is_write_paused or downstream.transport.get_write_buffer_size():
            got += len(await reader.read(1_000_000))
        start = monotonic()
        await past(start + 1.0)  # the backend has 30 s
        may_go_on.set()
        async with asyncio.timeout(5):
            while got < 12_000_000:
                piece = await reader.read(1_000_000)
                assert piece, "cut off"
                got += len(piece)
        writer.close()


async def stand_still(times: int = 1, seconds: float = 0.8, turns: int = 10) -> None:
    """Hold up the loop, and with it everybody in this process; then as often again, some turns later."""
    for _ in range(times):
        goes_on = monotonic() + seconds
        while monotonic() < goes_on:
            pass
        for _ in range(turns):
            await asyncio.sleep(0)  # turns of the loop: it takes a moment to answer


@pytest.mark.parametrize("times", [1, 3])
async def test_a_backend_is_not_late_because_the_whole_machine_stood_still(times: int) -> None:
    """A paused machine, a blocked loop: backend and router go on at the same time, when the deadline has passed."""

    async def stands_still(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await stand_still(times)
        writer.write(OK)

    async with plane_in(stands_still, TimeoutsSpec(LONG, 0.3, LONG)) as router:
        assert (await router.ask(GET)).startswith(b"HTTP/1.1 200 ")


async def test_nor_is_a_connection_late_that_was_being_made_meanwhile() -> None:
    wheel = Wheel(asyncio.get_running_loop())
    wheel.start()
    try:
        async with Patience(wheel, 0.3):
            await stand_still(3)
        with pytest.raises(TimeoutError):
            async with Patience(wheel, 0.3):
                await asyncio.get_running_loop().create_future()
    finally:
        wheel.stop()


async def test_a_loop_that_is_late_for_good_still_has_deadlines() -> None:
    wheel, is_over = Wheel(asyncio.get_running_loop()), False

    async def hold_up() -> None:
        while not is_over:
            await stand_still(seconds=0.3, turns=1)

    async def waits() -> float:
        try:
            async with Patience(wheel, 0.3):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return monotonic()
        return 0.0

    wheel.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(hold_up())
        ends = await asyncio.gather(*(waits() for _ in range(4)))
        is_over = True
    wheel.stop()
    assert max(ends) - min(ends) < LONGEST_RESTS_SECONDS, "once it is said, they come one by one and at once"
