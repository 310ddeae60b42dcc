"""TLS towards clients, as stories: which certificate, who is let in, what backends learn of it, how connections end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from router.core.spec import ListenerSpec, ServerTlsSpec, SocketSpec
from router.process.listening import Listening
from router.proxy.downstream import LINGER_SECONDS
from tests.certificates import Authority, Signed, serial_of
from tests.house import RunningPlane, Serve, fixed, header, raw_backend, read_head, running_plane, shop, snapshot
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
KEPT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@asynccontextmanager
async def tls_router(
    tls: ServerTlsSpec, serve: Serve, **listener: Any
) -> AsyncIterator[tuple[RunningPlane, Listening, int]]:
    """A plane whose first door is a TLS listener on a port of its own."""
    spec = ListenerSpec(sockets=(SocketSpec("", tls),), **listener)
    async with raw_backend(serve) as backend:
        async with running_plane(snapshot(shop((backend,), (backend,)), listener=spec)) as router:
            listener_socket = socket.create_server(("127.0.0.1", 0))
            port = listener_socket.getsockname()[1]
            listening = Listening(router.plane, 0, listener_socket.detach(), router.plane.spawn)
            await listening.open(spec.sockets[0])
            try:
                yield router, listening, port
            finally:
                await listening.close()


@asynccontextmanager
async def talking(
    port: int, context: ssl.SSLContext, name: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(port: int, context: ssl.SSLContext, name: str = "127.0.0.1", raw: bytes = KEPT) -> bytes:
    """One response with a body of two bytes."""
    async with talking(port, context, name) as (reader, writer), asyncio.timeout(5):
        writer.write(raw)
        return await read_head(reader) + await reader.readexactly(2)


async def shown(port: int, context: ssl.SSLContext, name: str) -> int:
    """The serial number of the certificate that a client who asks for ``name`` gets."""
    async with talking(port, context, name) as (_, writer):
        return serial_of(writer.get_extra_info("ssl_object"))


def unnamed(authority: Authority) -> ssl.SSLContext:
    context = authority.client()
    context.check_hostname = False
    return context


def tls_of(*signed: Signed, **changes: Any) -> ServerTlsSpec:
    return ServerTlsSpec(tuple(one.spec for one in signed), **changes)


async def test_each_name_gets_its_certificate_and_everybody_else_the_first(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first = authority.sign("shop.example.com", "127.0.0.1")
    second = authority.sign("search.example.com", "*.search.example.com")
    async with tls_router(tls_of(first, second), fixed(OK)) as (_, _, port):
        client = unnamed(authority)
        for name, wanted in (
            ("shop.example.com", first),
            ("search.example.com", second),
            ("SEARCH.example.com", second),
            ("a.search.example.com", second),
            ("a.b.search.example.com", first),  # a wildcard is one label (RFC 9525 §6.3)
            ("example.com", first),
            ("127.0.0.1", first),  # no SNI at all: an address is no name (RFC 6066 §3)
        ):
            assert await shown(port, client, name) == wanted.serial, name
        assert (await ask(port, authority.client(), "a.search.example.com")).startswith(b"HTTP/1.1 200 ")


async def test_only_http11_is_agreed_on_and_only_tls_12_and_13_are_spoken(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    signed = authority.sign("127.0.0.1")
    async with tls_router(tls_of(signed), fixed(OK)) as (router, _, port):
        client = authority.client()
        client.set_alpn_protocols(["h2", "http/1.1"])
        async with talking(port, client) as (_, writer):
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        old = authority.client()
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = ssl.TLSVersion.TLSv1_1
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(port, old)
        middle = authority.client()
        middle.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await ask(port, middle)).endswith(b"ok")
        assert router.plane.collect().connections <= 3
    async with tls_router(tls_of(signed, min_version="1.3"), fixed(OK)) as (_, _, port):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(port, middle)
        assert (await ask(port, authority.client())).endswith(b"ok")


@pytest.mark.parametrize(
    ("demand", "is_served"),
    [
        ("none", {"nothing": True, "good": True, "foreign": True}),
        ("optional", {"nothing": True, "good": True, "foreign": False}),
        ("required", {"nothing": False, "good": True, "foreign": False}),
    ],
)
async def test_clients_show_the_certificates_that_are_asked_for(
    tmp_path: Path, demand: Any, is_served: dict[str, bool]
) -> None:
    authority, foreign = Authority(tmp_path), Authority(tmp_path, "foreign")
    tls = tls_of(authority.sign("127.0.0.1"), client_certificate=demand, client_ca=str(authority.ca))
    contexts = {
        "nothing": authority.client(),
        "good": authority.client(authority.sign("good-client")),
        "foreign": authority.client(foreign.sign("foreign-client")),
    }
    async with tls_router(tls, fixed(OK)) as (router, _, port):
        for who, context in contexts.items():
            for most in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context.maximum_version = most
                try:
                    answer = await ask(port, context)
                except (ssl.SSLError, ConnectionError, EOFError):
                    answer = b""
                assert answer.endswith(b"ok") == is_served[who], (who, most)
        await until(lambda: router.plane.collect().connections == 0)


async def test_backends_learn_that_it_was_https_and_clients_that_it_stays_so(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    seen: list[bytes] = []
    own = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nstrict-transport-security: max-age=1\r\n\r\nok"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read_head(reader))
            writer.write(own if b"/own" in seen[-1] else OK)

    async with tls_router(tls_of(authority.sign("127.0.0.1"), hsts_seconds=600), serve) as (router, _, port):
        client = authority.client()
        answer = await ask(port, client)
        assert header(seen[0], "x-forwarded-proto") == ["https"]
        assert header(seen[0], "forwarded") == ["for=127.0.0.1;proto=https"]
        assert header(answer, "strict-transport-security") == ["max-age=600"]
        answer = await ask(port, client, raw=KEPT.replace(b"/ ", b"/own "))
        assert header(answer, "strict-transport-security") == ["max-age=1"]
        for proto, wanted in ((b"ftp", "https"), (b"http", "https")):  # nobody's word against the socket's
            await ask(port, client, raw=KEPT.replace(b"Host", b"X-Forwarded-Proto: " + proto + b"\r\nHost"))
            assert header(seen[-1], "x-forwarded-proto") == [wanted]
        plain = await asyncio.get_running_loop().create_server(router.plane.door(1).accept, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", plain.sockets[0].getsockname()[1])
        writer.write(GET)
        assert not header(await reader.read(), "strict-transport-security")
        assert header(seen[-1], "x-forwarded-proto") == ["http"]
        writer.close()
        plain.close()


async def test_every_response_over_tls_says_hsts_the_routers_own_too(tmp_path: Path) -> None:
    """config/router.yaml: Strict-Transport-Security on every response."""
    authority = Authority(tmp_path)

    async def slams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)

    async with tls_router(tls_of(authority.sign("127.0.0.1"), hsts_seconds=600), slams) as (_, _, port):
        for raw, status in (
            (KEPT, b"502"),
            (KEPT.replace(b"Host: a", b"Host: a b"), b"400"),
            (KEPT.replace(b"GET", b"TRACE"), b"405"),
            (b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", b"200"),
        ):
            async with talking(port, authority.client()) as (reader, writer), asyncio.timeout(5):
                writer.write(raw)
                head = await read_head(reader)
            assert head.split(b" ")[1] == status
            assert header(head, "strict-transport-security") == ["max-age=600"], head


@pytest.mark.parametrize("raw", [GET, b"GET / HTTP/1.0\r\n\r\n", KEPT.replace(b"Host: a", b"Host: a b")])
async def test_a_tls_connection_ends_at_once_and_with_a_farewell(tmp_path: Path, raw: bytes) -> None:
    """RFC 8446 §6.1: without close_notify a client cannot tell the end from a cut."""
    authority = Authority(tmp_path)
    async with tls_router(tls_of(authority.sign("127.0.0.1")), fixed(OK)) as (_, _, port):

        def talk() -> tuple[bytes, float]:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
                with authority.client().wrap_socket(
                    plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False
                ) as connection:
                    connection.sendall(raw)
                    data, before = b"", time.monotonic()
                    while piece := connection.recv(65536):
                        data += piece
                    return data, time.monotonic() - before

        data, seconds = await asyncio.to_thread(talk)
        assert data.startswith(b"HTTP/1.1 ")
        assert seconds < LINGER_SECONDS


async def test_a_body_that_ends_with_the_connection_ends_so_over_tls(tmp_path: Path) -> None:
    async def until_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000)
        await writer.drain()

    authority = Authority(tmp_path)
    async with tls_router(tls_of(authority.sign("127.0.0.1")), until_close) as (_, _, port):

        def talk() -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
                with authority.client().wrap_socket(
                    plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False
                ) as connection:
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    return b"".join(iter(lambda: connection.recv(65536), b""))

        answer = await asyncio.to_thread(talk)
        assert len(answer.partition(b"\r\n\r\n")[2]) == 200_000


async def test_new_certificates_are_for_new_connections_and_cut_nobody_off(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    signed = authority.sign("127.0.0.1")
    may_end = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            if b"/download" in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 100_000)
                await may_end.wait()
                writer.write(b"y" * 200_000)
            else:
                writer.write(OK)

    async with tls_router(tls_of(signed), serve) as (_, listening, port):
        client = authority.client()
        async with talking(port, client) as (reader, writer), talking(port, client) as (slow_reader, slow_writer):
            slow_writer.write(KEPT.replace(b"/ ", b"/download "))
            await read_head(slow_reader)
            writer.write(KEPT)
            await read_head(reader)
            await reader.readexactly(2)
            renewed = authority.sign("127.0.0.1", file="renewed")
            await listening.open(SocketSpec("", tls_of(renewed)))
            assert await shown(port, client, "127.0.0.1") == renewed.serial
            writer.write(KEPT)
            assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
            may_end.set()
            body = await slow_reader.readexactly(300_000)
            assert body.count(b"y") == 200_000
            broken = Signed(tmp_path / "gone.pem", signed.key, signed.names, 1)
            with pytest.raises(OSError, match="No such file"):
                await listening.open(SocketSpec("", tls_of(broken)))
            assert await shown(port, client, "127.0.0.1") == renewed.serial


@pytest.mark.parametrize("first_bytes", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
async def test_who_never_finishes_the_handshake_is_closed(tmp_path: Path, first_bytes: bytes) -> None:
    authority = Authority(tmp_path)
    tls = tls_of(authority.sign("127.0.0.1"))
    async with tls_router(tls, fixed(OK), head_timeout=0.3) as (router, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first_bytes)
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):
                assert not (await reader.read()).startswith(b"HTTP")
        writer.close()
        assert router.plane.collect().connections == 0


async def test_large_bodies_pass_both_ways_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    body = bytes(range(256)) * 4_000

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            size = int(header(await read_head(reader), "content-length")[0])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + await reader.readexactly(size))

    async with tls_router(tls_of(authority.sign("127.0.0.1")), echo) as (_, _, port):
        async with talking(port, authority.client()) as (reader, writer), asyncio.timeout(10):
            for _ in range(2):
                writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
                assert await reader.readexactly(len(body)) == body
