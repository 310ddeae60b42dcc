"""The PROXY protocol, as stories: whose connection it is, however the header is cut, and what becomes of garbage."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from router.core.records import AccessLogSpec
from router.core.spec import LimitsSpec, ListenerSpec, ServerTlsSpec, SocketSpec
from router.process.listening import Listening
from router.proxy.client import proxy_header
from router.proxy.grammar import FramingError
from router.telemetry.access_log import AccessLog
from router.telemetry.log_sink import Sink
from tests.certificates import Authority
from tests.house import RunningPlane, fixed, header, raw_backend, read_head, running_plane, shop, snapshot
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses)) + addresses


def v2_tcp(source: str, destination: str, extra: bytes = b"") -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    packed = b"".join(socket.inet_pton(family, one) for one in (source, destination))
    return v2(0x21, 0x21 if ":" in source else 0x11, packed + struct.pack("!HH", 1234, 80) + extra)


GOOD = [
    (b"PROXY TCP4 9.8.7.6 10.0.0.1 1234 80\r\n", "9.8.7.6"),
    (b"PROXY TCP6 2001:DB8::0:1 ::1 1234 80\r\n", "2001:db8::1"),
    (b"PROXY TCP6 ::ffff:9.8.7.6 ::1 1234 80\r\n", "9.8.7.6"),
    (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    (b"PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535\r\n", "127.0.0.1"),
    (b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n", "ffff:" * 7 + "ffff"),
    (v2_tcp("9.8.7.6", "10.0.0.1"), "9.8.7.6"),
    (v2_tcp("2001:db8::1", "::1"), "2001:db8::1"),
    (v2_tcp("::ffff:9.8.7.6", "::1"), "9.8.7.6"),
    (v2_tcp("9.8.7.6", "10.0.0.1", b"\x04\x00\x03abc" + b"\x20" + b"\x00\xff" + b"x" * 255), "9.8.7.6"),
    (v2(0x20, 0x00, b""), "127.0.0.1"),
    (v2(0x20, 0x11, b"whatever it is, LOCAL ignores it"), "127.0.0.1"),
    (v2(0x21, 0x00, b""), "127.0.0.1"),
    (v2(0x21, 0x31, b"\0" * 216), "127.0.0.1"),
]

BAD = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PROXY\r\n",
    b"PROXY TCP4 9.8.7.6 10.0.0.1 1234\r\n",
    b"PROXY TCP4 9.8.7.6 10.0.0.1 1234 80 90\r\n",
    b"PROXY TCP4 9.8.7.6 10.0.0.1 1234 65536\r\n",
    b"PROXY TCP4 9.8.7.6 10.0.0.1 -1 80\r\n",
    b"PROXY TCP4 9.8.7 10.0.0.1 1234 80\r\n",
    b"PROXY TCP4 ::1 ::1 1234 80\r\n",
    b"PROXY TCP6 9.8.7.6 10.0.0.1 1234 80\r\n",
    b"PROXY  TCP4 9.8.7.6 10.0.0.1 1234 80\r\n",
    b"PROXY UDP4 9.8.7.6 10.0.0.1 1234 80\r\n",
    b"PROXY TCP4 " + b"1" * 120,
    b"PROXY TCP4 9.8.7.6 10.0.0.1 1234 80\n" + b"x" * 107,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    SIGNATURE[:-1] + b"X",
    SIGNATURE + b"\x11\x11\x00\x0c" + b"\0" * 12,
    SIGNATURE + b"\x22\x11\x00\x0c" + b"\0" * 12,
    v2(0x21, 0x11, b"\0" * 11),
    v2(0x21, 0x21, b"\0" * 35),
]


@asynccontextmanager
async def announced_router(
    seen: list[bytes], tls: ServerTlsSpec | None = None, **listener: Any
) -> AsyncIterator[tuple[RunningPlane, Listening, int]]:
    """A plane behind a listener that wants PROXY headers."""
    spec = ListenerSpec(sockets=(SocketSpec("", tls, proxy_protocol=True),), **listener)
    async with raw_backend(fixed(OK, seen)) as backend:
        async with running_plane(snapshot(shop((backend,), (backend,)), listener=spec)) as router:
            bound = socket.create_server(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            listening = Listening(router.plane, 0, bound.detach(), router.plane.spawn)
            await listening.open(spec.sockets[0])
            try:
                yield router, listening, port
            finally:
                await listening.close()


async def ask(port: int, *pieces: bytes) -> bytes:
    """Send the pieces one by one, each in a segment of its own, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        if not writer.is_closing():
            writer.write(piece)
            await asyncio.sleep(0)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(("raw", "address"), GOOD, ids=range(len(GOOD)))
async def test_the_client_is_the_one_that_the_header_names(raw: bytes, address: str) -> None:
    seen: list[bytes] = []
    async with announced_router(seen) as (_, _, port):
        for pieces in ((raw + GET,), (raw, GET), (raw[:7], raw[7:] + GET), (raw + GET[:5], GET[5:])):
            assert (await ask(port, *pieces)).endswith(b"ok")
            assert header(seen[-1], "x-forwarded-for") == [address]
        node = f'"[{address}]"' if ":" in address else address
        assert header(seen[-1], "forwarded") == [f"for={node};proto=http"]


@pytest.mark.parametrize("raw", [GOOD[0][0], GOOD[6][0]], ids=["v1", "v2"])
async def test_a_header_is_read_wherever_it_is_cut_and_no_byte_of_the_request_is_lost(raw: bytes) -> None:
    seen: list[bytes] = []
    whole = raw + GET
    async with announced_router(seen) as (router, _, port):
        answers = await asyncio.gather(*(ask(port, whole[:cut], whole[cut:]) for cut in range(1, len(whole))))
        answers.append(await ask(port, *(whole[i : i + 1] for i in range(len(whole)))))
        assert all(answer.endswith(b"ok") for answer in answers)
        assert {value for head in seen for value in header(head, "x-forwarded-for")} == {"9.8.7.6"}
        assert router.plane.collect().router_answers == {}


def test_a_header_is_taken_whole_or_waited_for() -> None:
    for raw, _ in GOOD:
        for cut in range(len(raw)):
            assert proxy_header(raw[:cut]) is None, (raw, cut)
        taken = proxy_header(raw + GET)
        assert taken is not None
        assert taken[0] == len(raw)


@pytest.mark.parametrize("raw", BAD, ids=range(len(BAD)))
async def test_garbage_is_closed_without_a_word_and_counted(raw: bytes) -> None:
    seen: list[bytes] = []
    async with announced_router(seen) as (router, _, port):
        assert await ask(port, raw) == b""
        assert router.plane.collect().router_answers == {"bad_proxy_header": 1}
        assert await ask(port, *(raw[i : i + 1] for i in range(len(raw)))) == b""
        await until(lambda: router.plane.collect().router_answers == {"bad_proxy_header": 2})
        assert (await ask(port, GOOD[0][0] + GET)).endswith(b"ok")
    assert len(seen) == 1
    with pytest.raises(FramingError):
        proxy_header(raw)


@pytest.mark.parametrize("first", [b"", b"PROXY TCP4 9.8", SIGNATURE])
async def test_a_header_that_never_comes_ends_at_the_time_for_a_head(first: bytes) -> None:
    seen: list[bytes] = []
    async with announced_router(seen, head_timeout=0.3) as (router, _, port):
        assert await ask(port, first) == b""
        assert router.plane.collect().connections == 0
        await until(lambda: not [task for task in router.tasks if task.get_name() == "PROXY header"])


async def test_a_client_that_leaves_in_the_middle_of_its_header_leaves_nothing_behind() -> None:
    async with announced_router([]) as (router, _, port):
        for first in (b"", b"PROXY TCP4", SIGNATURE):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)
            writer.close()
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)
            await until(lambda: [task for task in router.tasks if task.get_name() == "PROXY header"])
            writer.transport.abort()
        await until(lambda: not [task for task in router.tasks if task.get_name() == "PROXY header"])
        assert router.plane.collect().router_answers == {}


async def test_the_header_comes_before_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    seen: list[bytes] = []
    tls = ServerTlsSpec((authority.sign("127.0.0.1").spec,))
    context = authority.client()

    def talk(port: int, raw: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(raw)
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                connection.sendall(GET.replace(b"Connection: close\r\n", b""))
                data = b""
                while not data.endswith(b"ok"):
                    piece = connection.recv(65536)
                    assert piece
                    data += piece
        return data

    async with announced_router(seen, tls, head_timeout=0.5) as (router, listening, port):
        for raw, address in GOOD[:8]:
            assert (await asyncio.to_thread(talk, port, raw)).startswith(b"HTTP/1.1 200 ")
            assert header(seen[-1], "x-forwarded-for") == [address]
            assert header(seen[-1], "x-forwarded-proto") == ["https"]
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.to_thread(talk, port, b"")
        assert router.plane.collect().router_answers == {"bad_proxy_header": 1}
        assert not (await ask(port, GOOD[0][0] + GET)).startswith(b"HTTP")
        assert await ask(port, GOOD[0][0]) == b""  # no handshake: out of time
        renewed = authority.sign("127.0.0.1", file="renewed")
        await listening.open(SocketSpec("", ServerTlsSpec((renewed.spec,)), proxy_protocol=True))
        assert (await asyncio.to_thread(talk, port, GOOD[0][0])).startswith(b"HTTP/1.1 200 ")
        await until(lambda: router.plane.collect().connections == 0)


async def test_trust_limits_and_the_access_log_go_by_the_announced_client(tmp_path: Path) -> None:
    seen: list[bytes] = []
    limits = LimitsSpec(connections_per_client=1)
    said = GET.replace(b"Host", b"X-Forwarded-For: 1.1.1.1\r\nHost")
    kept = GET.replace(b"Connection: close\r\n", b"")
    log = tmp_path / "access.log"
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY)
    async with announced_router(seen, trusted_proxies=("10.0.0.0/8",), limits=limits) as (router, _, port):
        router.plane.access_log = AccessLog(AccessLogSpec(), Sink(descriptor))
        assert (await ask(port, b"PROXY TCP4 9.8.7.6 10.0.0.1 1 80\r\n" + said)).endswith(b"ok")
        assert header(seen[-1], "x-forwarded-for") == ["9.8.7.6"]
        assert (await ask(port, b"PROXY TCP4 10.1.1.1 10.0.0.1 1 80\r\n" + said)).endswith(b"ok")
        assert header(seen[-1], "x-forwarded-for") == ["1.1.1.1, 10.1.1.1"]
        await until(lambda: router.plane.collect().connections == 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PROXY TCP4 7.7.7.7 10.0.0.1 1 80\r\n" + kept)
        await read_head(reader)
        refused = await ask(port, b"PROXY TCP4 7.7.7.7 10.0.0.1 1 80\r\n" + GET)
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert (await ask(port, b"PROXY TCP4 7.7.7.8 10.0.0.1 1 80\r\n" + GET)).endswith(b"ok")
        writer.close()
        router.plane.access_log.stop()
    with contextlib.suppress(OSError):
        os.close(descriptor)
    clients = [line.partition('"client":"')[2].partition('"')[0] for line in log.read_text().splitlines()]
    assert clients == ["9.8.7.6", "1.1.1.1", "7.7.7.7", "7.7.7.7", "7.7.7.8"], "who is refused has a line too"


async def test_who_has_connected_before_the_stop_is_still_served() -> None:
    """As the other listeners do it: whom the kernel has accepted was told that it is connected."""
    seen: list[bytes] = []
    async with announced_router(seen) as (_, listening, port):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(GOOD[0][0] + GET)
            await listening.close()  # before the loop has had a turn to accept
            client.setblocking(False)
            async with asyncio.timeout(3):
                assert (await asyncio.get_running_loop().sock_recv(client, 65536)).startswith(b"HTTP/1.1 200 ")
