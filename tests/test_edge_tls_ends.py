"""How TLS connections end, as stories: with an answer, with a tunnel, in the middle, and when the router stops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest

from router.core.spec import ClientTlsSpec, EndpointSpec, ListenerSpec, SocketSpec, VersionSpec
from router.process.listening import Listening
from tests.certificates import Authority
from tests.house import fixed, raw_backend, read_head, running_plane, shop, snapshot
from tests.test_edge_tls_backends import tls_backend
from tests.test_edge_tls_listener import GET, KEPT, OK, ask, talking, tls_of, tls_router
from tests.test_edge_tunnel import HANDSHAKE, echo, tunnel_to
from tests.waiting import until


async def test_names_and_clients_certificates_go_together(tmp_path: Path) -> None:
    """The certificate is chosen in the middle of the handshake; what is asked of clients stays the same."""
    authority, foreign = Authority(tmp_path), Authority(tmp_path, "foreign")
    first, second = authority.sign("127.0.0.1"), authority.sign("second.example")
    tls = tls_of(first, second, client_certificate="required", client_ca=str(authority.ca), min_version="1.3")
    good, bad = authority.client(authority.sign("good")), authority.client(foreign.sign("bad"))
    async with tls_router(tls, fixed(OK)) as (_, _, port):
        for name in ("127.0.0.1", "second.example"):
            assert (await ask(port, good, name)).endswith(b"ok")
            for context in (bad, authority.client()):
                with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
                    await ask(port, context, name)


async def test_a_refusal_reaches_a_client_that_is_still_sending_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    raw = b"POST / HTTP/1.0\r\nContent-Length: 3000000\r\nTransfer-Encoding: chunked\r\n\r\n"

    def talk(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            with authority.client().wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                data = b""
                with contextlib.suppress(OSError):
                    connection.sendall(raw)
                    for _ in range(60):
                        connection.sendall(b"x" * 50_000)
                with contextlib.suppress(OSError):
                    while piece := connection.recv(65536):
                        data += piece
        return data

    async with tls_router(tls_of(authority.sign("127.0.0.1")), fixed(OK)) as (_, _, port):
        for _ in range(5):
            answer = await asyncio.to_thread(talk, port)
            assert answer.startswith(b"HTTP/1.1 400 "), answer


async def test_a_truncated_body_does_not_end_with_a_farewell(tmp_path: Path) -> None:
    """To HTTP/1.0 a body ends with the connection: over TLS, a close_notify would make half of it look whole."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()

    authority = Authority(tmp_path)

    def talk(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            with authority.client().wrap_socket(
                plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False
            ) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return b"".join(iter(lambda: connection.recv(65536), b""))

    async with tls_router(tls_of(authority.sign("127.0.0.1")), half) as (_, _, port):
        with pytest.raises(OSError, match=r"EOF occurred|reset"):
            await asyncio.to_thread(talk, port)


async def test_a_websocket_over_tls_on_both_sides_loses_no_bytes_at_its_end(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    got = bytearray()
    ended = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            got.extend(data)
        ended.set()

    async with (
        tls_backend(authority.server(authority.sign("127.0.0.1", file="backend")), tunnel_to(echo)) as echoing,
        tls_backend(authority.server(authority.sign("127.0.0.1", file="backend")), tunnel_to(listen)) as listening,
        tls_router(tls_of(authority.sign("127.0.0.1")), fixed(OK)) as (router, _, port),
    ):
        for generation, backend in enumerate((echoing, listening), 2):
            endpoints = (EndpointSpec("127.0.0.1", backend, tls=ClientTlsSpec(ca=str(authority.ca))),)
            service = shop((), (), versions=(VersionSpec("v1", endpoints), VersionSpec("v2", endpoints)))
            router.plane.install(snapshot(service, generation=generation))
            async with talking(port, authority.client()) as (reader, writer), asyncio.timeout(5):
                writer.write(HANDSHAKE)
                assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
                writer.write(b"x" * 1_000_000)
                if backend == echoing:
                    assert len(await reader.readexactly(1_000_000)) == 1_000_000
                else:
                    await writer.drain()
                    writer.close()
                    await ended.wait()
        assert len(got) == 1_000_000
        meter = router.plane.tally.meter(("shop", "everyone", "v1"))
        await until(lambda: meter.in_flight == 0)
        assert meter.codes == {101: 2}


async def test_who_has_connected_and_says_nothing_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    """A stopping worker takes those that wait in the queue; it must not wait for their handshakes."""
    authority = Authority(tmp_path)
    async with tls_router(tls_of(authority.sign("127.0.0.1")), fixed(OK)) as (_, listening, port):
        with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
            async with asyncio.timeout(2):
                await listening.close()


async def test_who_has_connected_before_the_stop_is_still_served_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    def talk(plain: socket.socket) -> bytes:
        with authority.client().wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.sendall(KEPT)
            data = b""
            while not data.endswith(b"ok") and (piece := connection.recv(65536)):
                data += piece
        return data

    async with tls_router(tls_of(authority.sign("127.0.0.1")), fixed(OK)) as (_, listening, port):
        plain = socket.create_connection(("127.0.0.1", port), timeout=5)
        talking_on = asyncio.ensure_future(asyncio.to_thread(talk, plain))  # noqa: TID251 - awaited below
        await listening.close()
        assert (await talking_on).endswith(b"ok")


async def test_a_listener_may_turn_to_tls_and_back_while_it_is_open(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    spec = SocketSpec("", tls_of(authority.sign("127.0.0.1")))
    async with raw_backend(fixed(OK)) as backend:
        service = shop((backend,), (backend,))
        async with running_plane(snapshot(service)) as router:
            bound = socket.create_server(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            listening = Listening(router.plane, 0, bound.detach(), router.plane.spawn)
            for generation, one in enumerate((SocketSpec(""), spec, SocketSpec(""), spec), 2):
                router.plane.install(snapshot(service, generation=generation, listener=ListenerSpec(sockets=(one,))))
                await listening.open(one)
                for _ in range(3):
                    if one.tls is not None:
                        assert (await ask(port, authority.client())).endswith(b"ok")
                    else:
                        reader, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.write(GET)
                        assert (await reader.read()).endswith(b"ok")
                        writer.close()
            await listening.close()
