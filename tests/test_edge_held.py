"""Clients that are held while their backend does not read, as stories: they leave, they reset, they are answered."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from time import monotonic

import pytest

from router.core.spec import ListenerSpec, TimeoutsSpec
from tests.house import header, raw_backend, read_head, running_plane, shop, snapshot
from tests.test_edge_timeouts import go_on_reading, past, stop_reading
from tests.test_edge_tunnel import HANDSHAKE, accept
from tests.waiting import until

UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000000\r\n\r\n"
TIMEOUTS = TimeoutsSpec(1.0, 30.0, 30.0)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def filled(port: int, raw: bytes, is_held: Callable[[], bool]) -> socket.socket:
    """A client that has sent this and then as much as anybody took."""
    client = socket.create_connection(("127.0.0.1", port))
    client.setblocking(False)
    client.sendall(raw)

    def push() -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                client.send(b"x" * 65_536)
        return is_held()

    await until(push)
    return client


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("leaves", ["closes", "resets", "stays"])
@pytest.mark.parametrize("answer", ["early", "tunnel"])
async def test_a_backend_that_answers_somebody_who_is_held_disturbs_nobody(leaves: str, answer: str) -> None:
    may_answer, may_end = asyncio.Event(), asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        stop_reading(writer)
        if header(head, "sec-websocket-key"):
            writer.write(accept(head))
        await may_answer.wait()
        writer.write(b"x" * 100_000 if answer == "tunnel" else OK)
        await may_end.wait()

    async with raw_backend(deaf) as port:
        async with running_plane(snapshot(shop((port,), (port,), timeouts=TIMEOUTS))) as router:
            meter = router.plane.tally.meter(("shop", "everyone", "v1"))
            raw = HANDSHAKE if answer == "tunnel" else UPLOAD
            client = await filled(router.port, raw, lambda: any(one.is_holding for one in router.plane._connections))
            if leaves == "closes":
                client.close()
            elif leaves == "resets":
                reset(client)
            may_answer.set()
            if leaves != "stays":
                if answer == "tunnel":
                    await asyncio.sleep(0)
                may_end.set()
                await until(lambda: router.plane.collect().connections == 0, within=8)
            else:
                data = b""
                async with asyncio.timeout(5):
                    while b"ok" not in data and b"xxx" not in data:
                        data += await asyncio.get_running_loop().sock_recv(client, 65_536)
                assert data.startswith(b"HTTP/1.1 101 " if answer == "tunnel" else b"HTTP/1.1 200 ")
                may_end.set()
                client.close()
            await until(lambda: meter.in_flight == 0)
            assert sum(meter.codes.values()) == 1


async def test_an_upload_to_a_backend_that_reads_slowly_but_steadily_is_not_cut_off() -> None:
    """Nobody stalls: the backend takes bytes all the time, and the client sends whenever it is let."""
    may_end = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        start, got = monotonic(), 0
        while not may_end.is_set():
            got += len(await reader.read(20_000))
            await past(start + got / 500_000)

    async with raw_backend(slow) as port:
        listener = ListenerSpec(body_timeout=1.0)
        service = shop((port,), (port,), timeouts=TIMEOUTS)
        async with running_plane(snapshot(service, listener=listener)) as router:
            reader, writer = await router.connect()
            writer.write(UPLOAD + b"x" * 30_000_000)
            start = monotonic()
            await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 1)
            await past(start + 3)
            codes = router.plane.tally.meter(("shop", "everyone", "v1")).codes
            may_end.set()
            writer.transport.abort()
            assert codes == {}


async def test_a_backend_that_stops_reading_an_upload_is_a_504_and_its_connection_is_closed() -> None:
    gone = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        stop_reading(writer)
        await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 0, within=10)
        go_on_reading(writer)
        with contextlib.suppress(OSError):
            while await reader.read(1_000_000):
                pass
        gone.set()

    async with raw_backend(deaf) as port:
        listener = ListenerSpec(body_timeout=0.4)
        service = shop((port,), (port,), timeouts=TIMEOUTS)
        async with running_plane(snapshot(service, listener=listener)) as router:
            client = await filled(router.port, UPLOAD, lambda: any(o.is_holding for o in router.plane._connections))
            async with asyncio.timeout(5):
                answer = await asyncio.get_running_loop().sock_recv(client, 65_536)
                assert answer.startswith(b"HTTP/1.1 504 ")
                await gone.wait()
            client.close()
