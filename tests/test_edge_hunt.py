"""What a third pair of eyes found at the edge, as stories: floods, forged addresses, the last bytes of slow clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from time import perf_counter
from typing import cast

import pytest

from router.core.spec import LimitsSpec, ListenerSpec, ServerTlsSpec, TimeoutsSpec
from router.proxy.client import client_behind, proxy_header
from router.proxy.grammar import FramingError
from router.proxy.tls import server_context
from tests.certificates import Authority
from tests.house import fixed, raw_backend, read_head, running_plane, shop, snapshot
from tests.test_edge_tunnel import HANDSHAKE, accept
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_a_flood_of_requests_that_are_answered_here_is_read_in_turns() -> None:
    """Nobody may make a worker read faster than it answers, however cheap the answers are."""
    async with raw_backend(fixed(OK)) as port:
        service = shop((port,), (port,), hosts=("shop.example.com",))
        async with running_plane(snapshot(service)) as router:
            reader, writer = await router.connect()
            writer.write(b"GET / HTTP/1.1\r\nHost: other\r\n\r\n" * 20_000)
            (downstream,) = router.plane._connections
            most, answers = 0, 0
            while answers < 20_000:
                answers += (await reader.read(1 << 20)).count(b"HTTP/1.1 404 ")
                most = max(most, len(downstream.partial))
            assert most <= 512 * 1024
            writer.close()


async def test_a_host_of_ten_thousand_labels_is_refused_before_anybody_looks_for_it() -> None:
    async with raw_backend(fixed(OK)) as port:
        service = shop((port,), (port,), hosts=("*.example.com",))
        async with running_plane(snapshot(service)) as router:
            answer = await router.ask(b"GET / HTTP/1.1\r\nHost: " + b"a." * 10_000 + b"com\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP6 ::1%\nX-Evil:1 ::2 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
        b"PUT TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    ],
)
def test_a_proxy_header_says_addresses_and_nothing_else(header: bytes) -> None:
    with pytest.raises(FramingError):
        proxy_header(header)


def test_an_address_with_a_scope_is_nobodys() -> None:
    chain = b'1.2.3.4, fe80::1%"}x\\'
    assert client_behind(chain, b"10.0.0.1", lambda _: True) == b"10.0.0.1"


async def test_the_last_response_reaches_a_slow_client_over_tls(tmp_path: Path) -> None:
    size = 3_000_000
    large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    authority = Authority(tmp_path)
    tls = ServerTlsSpec((authority.sign("127.0.0.1").spec,))
    async with raw_backend(fixed(large)) as port:
        service = shop((port,), (port,), timeouts=TimeoutsSpec(1.0, 5.0, 5.0))
        async with running_plane(snapshot(service)) as router:
            server = await asyncio.get_running_loop().create_server(
                router.plane.accept, "127.0.0.1", 0, ssl=server_context(tls)
            )
            slow = socket.socket()
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            slow.connect(server.sockets[0].getsockname())

            def read_slowly() -> int:
                """In a thread: some kilobytes, a breath, and again; the reading takes some four seconds."""
                got, begun = 0, perf_counter()
                with authority.client().wrap_socket(slow, server_hostname="127.0.0.1") as client:
                    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    while piece := client.recv(16_384):
                        got += len(piece)
                        while perf_counter() - begun < 4 * got / size:
                            pass
                return got

            got = await asyncio.get_running_loop().run_in_executor(None, read_slowly)
            assert got > size
            server.close()


async def test_a_101_says_no_length() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        writer.write(accept(head).replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"))
        await reader.read()

    async with raw_backend(serve) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        reader, writer = await router.connect()
        writer.write(HANDSHAKE)
        head = await read_head(reader)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"content-length" not in head.lower()
        writer.close()


async def test_turned_away_clients_that_stay_are_not_waited_for_without_bound() -> None:
    listener = ListenerSpec(limits=LimitsSpec(connections=3))
    async with raw_backend(fixed(OK)) as port:
        async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
            served = [await router.connect() for _ in range(3)]
            await until(lambda: router.plane.collect().connections == 3)
            others = [await router.connect() for _ in range(20)]
            await until(lambda: len(router.plane._refused) <= 4)
            for _, writer in (*served, *others):
                cast(asyncio.Transport, writer.transport).abort()


def test_clients_of_tls_are_not_asked_at_a_terminal_for_a_passphrase(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    signed = Authority(tmp_path).sign("a")
    key = serialization.load_pem_private_key(signed.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    signed.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    with pytest.raises((ssl.SSLError, OSError)):
        server_context(ServerTlsSpec((signed.spec,)))


async def test_a_backend_that_answers_an_upload_and_slams_the_door_is_heard() -> None:
    """Closing with unread bytes resets the connection: the answer and the reset are a race at the router's end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def slam() -> None:
        for _ in range(20):
            connection, _ = listener.accept()
            connection.recv(10)
            connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
            connection.close()

    def upload(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
            with contextlib.suppress(OSError):
                for _ in range(400):
                    client.sendall(b"x" * 50_000)
            answer = b""
            with contextlib.suppress(OSError):
                while piece := client.recv(65_536):
                    answer += piece
            return answer

    loop = asyncio.get_running_loop()
    port = listener.getsockname()[1]
    async with running_plane(snapshot(shop((port,), (port,)))) as router:
        slamming = loop.run_in_executor(None, slam)
        answers = [await loop.run_in_executor(None, upload, router.port) for _ in range(20)]
        await slamming
    listener.close()
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 413"] * 20
