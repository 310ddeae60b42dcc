"""TLS towards backends, as stories: whom the router trusts, what it shows of itself, and that changes take effect."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router.core.spec import ClientTlsSpec, EndpointSpec, ServiceSpec, SnapshotSpec, VersionSpec
from tests.certificates import Authority
from tests.house import RunningPlane, Serve, fixed, header, raw_backend, read_head, running_plane, shop, snapshot

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
KEPT = GET.replace(b"Connection: close\r\n", b"")


@asynccontextmanager
async def tls_backend(context: ssl.SSLContext, serve: Serve, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """A backend that speaks TLS; yields its port."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connection, host, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def service(port: int, tls: ClientTlsSpec | None, host: str = "127.0.0.1", **changes: Any) -> ServiceSpec:
    endpoints = (EndpointSpec(host, port, tls=tls),)
    return shop((), (), versions=(VersionSpec("v1", endpoints), VersionSpec("v2", endpoints)), **changes)


def before(port: int, tls: ClientTlsSpec | None, host: str = "127.0.0.1", generation: int = 1) -> SnapshotSpec:
    return snapshot(service(port, tls, host), generation=generation)


def failures(router: RunningPlane) -> dict[str, int]:
    (found,) = [one for (_, version, _), one in router.plane.collect(whole=True).endpoints.items() if version == "v1"]
    return found.failures


async def test_a_backend_is_verified_by_the_given_authority_and_by_its_name(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    right, named = authority.sign("127.0.0.1"), authority.sign("shop.internal")
    ca, wrong_ca = str(authority.ca), str(other.ca)
    async with (
        tls_backend(authority.server(right), fixed(OK)) as by_address,
        tls_backend(authority.server(named), fixed(OK)) as by_name,
    ):
        for port, tls, is_trusted in (
            (by_address, ClientTlsSpec(ca=ca), True),
            (by_address, ClientTlsSpec(ca=wrong_ca), False),
            (by_address, ClientTlsSpec(), False),  # the system's authorities know nothing of it
            (by_name, ClientTlsSpec(ca=ca), False),
            (by_name, ClientTlsSpec(ca=ca, name="shop.internal"), True),
            (by_name, ClientTlsSpec(ca=ca, name="other.internal"), False),
            (by_address, ClientTlsSpec(ca=wrong_ca, verify=False), True),
            (by_name, ClientTlsSpec(verify=False), True),
        ):
            async with running_plane(before(port, tls)) as router:
                answer = await router.ask(GET)
                if is_trusted:
                    assert answer.endswith(b"ok"), tls
                    assert failures(router) == {}
                else:
                    assert answer.startswith(b"HTTP/1.1 502 "), tls
                    assert b"502 tls_failed: " in answer
                    assert str(port).encode() not in answer
                    assert header(answer, "x-ring") == ["everyone"]
                    assert failures(router) == {"tls": 1}
                    assert router.plane.tally.meter(("shop", "everyone", "v1")).codes == {502: 1}


async def test_a_backend_that_speaks_no_tls_is_not_trusted_and_files_that_are_gone_fail_no_loop(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def puzzled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async with raw_backend(puzzled) as plain:
        async with running_plane(before(plain, ClientTlsSpec(ca=str(authority.ca)))) as router:
            assert b"502 tls_failed" in await router.ask(GET)
        async with running_plane(before(plain, ClientTlsSpec(ca=str(tmp_path / "gone.pem")))) as router:
            for status in (b"502", b"503"):
                assert (await router.ask(GET)).startswith(b"HTTP/1.1 %b " % status)


@pytest.mark.parametrize("name", [".internal", "a" * 64 + ".internal"], ids=["dot", "long"])
async def test_a_server_name_that_can_be_none_is_an_answer_and_not_a_silence(tmp_path: Path, name: str) -> None:
    authority = Authority(tmp_path)
    async with tls_backend(authority.server(authority.sign("127.0.0.1")), fixed(OK)) as port:
        async with running_plane(before(port, ClientTlsSpec(ca=str(authority.ca), name=name))) as router:
            answer = await router.ask(GET)
            assert answer.startswith(b"HTTP/1.1 502 "), answer


async def test_a_backend_that_asks_is_shown_the_routers_certificate(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    router_certificate, foreign = authority.sign("router"), other.sign("stranger")
    ca = str(authority.ca)
    names: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("peercert")
        names.append(shown["subject"][0][0][1])
        await read_head(reader)
        writer.write(OK)

    async with tls_backend(authority.server(authority.sign("127.0.0.1"), asks=True), serve) as port:
        good = ClientTlsSpec(ca, str(router_certificate.certificate), str(router_certificate.key))
        async with running_plane(before(port, good)) as router:
            assert (await router.ask(GET)).endswith(b"ok")
        assert names == ["router"]
        for bad in (ClientTlsSpec(ca), ClientTlsSpec(ca, str(foreign.certificate), str(foreign.key))):
            async with running_plane(before(port, bad)) as router:
                assert (await router.ask(GET)).startswith(b"HTTP/1.1 502 ")
        assert names == ["router"]


async def test_large_bodies_go_both_ways_over_one_kept_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    connections: list[int] = []
    body = bytes(range(256)) * 2_000

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        while True:
            size = int(header(await read_head(reader), "content-length")[0])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + await reader.readexactly(size))

    async with tls_backend(authority.server(authority.sign("127.0.0.1")), echo) as port:
        async with running_plane(before(port, ClientTlsSpec(ca=str(authority.ca)))) as router:
            reader, writer = await router.connect()
            async with asyncio.timeout(10):
                for size in (0, 1, 65_536, len(body)):
                    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + body[:size])
                    assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
                    assert await reader.readexactly(size) == body[:size]
            writer.close()
    assert len(connections) == 1


async def test_what_is_new_in_a_backends_tls_takes_effect_without_a_restart(tmp_path: Path) -> None:
    """The address stays the same; authority, name and verification change with the config."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    ca, wrong = str(authority.ca), str(other.ca)
    async with tls_backend(authority.server(authority.sign("127.0.0.1")), fixed(OK)) as port:
        steps: list[tuple[ClientTlsSpec | None, bytes]] = [
            (ClientTlsSpec(ca=wrong, digest="1"), b"502"),
            (ClientTlsSpec(ca=ca, digest="2"), b"200"),
            (ClientTlsSpec(ca=ca, name="other.internal", digest="2"), b"502"),
            (ClientTlsSpec(ca=wrong, verify=False, digest="1"), b"200"),
            (ClientTlsSpec(ca=wrong, digest="1"), b"502"),
        ]
        async with running_plane(before(port, steps[0][0])) as router:
            got = []
            for generation, (tls, _) in enumerate(steps):
                router.plane.install(before(port, tls, generation=generation + 1))
                got.append((await router.ask(GET)).split(b" ")[1])
            assert got == [status for _, status in steps]


async def test_an_endpoint_that_turns_from_http_to_https_is_spoken_to_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with tls_backend(authority.server(authority.sign("127.0.0.1")), fixed(OK)) as port:
        async with running_plane(before(port, None)) as router:
            assert (await router.ask(GET)).startswith(b"HTTP/1.1 502 ")
            router.plane.install(before(port, ClientTlsSpec(ca=str(authority.ca)), generation=2))
            assert (await router.ask(GET)).endswith(b"ok")


async def test_a_renewed_authority_in_the_same_file_is_used(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    shared = tmp_path / "authorities.pem"
    shared.write_bytes(old.ca.read_bytes())
    tls = ClientTlsSpec(ca=str(shared), digest="old")
    async with tls_backend(new.server(new.sign("127.0.0.1")), fixed(OK)) as port:
        async with running_plane(before(port, tls)) as router:
            assert b"502 tls_failed" in await router.ask(GET)
            shared.write_bytes(new.ca.read_bytes())
            router.plane.install(before(port, replace(tls, digest="new"), generation=2))
            assert (await router.ask(GET)).endswith(b"ok")


async def test_a_response_that_a_tls_backend_cuts_off_is_visibly_cut_off(tmp_path: Path) -> None:
    """RFC 9112 §9.8: a body that ends with the connection is complete only after close_notify."""
    authority = Authority(tmp_path)

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await writer.drain()
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as plain:
            plain.shutdown(socket.SHUT_WR)  # the TCP connection ends, and TLS has said nothing

    async with tls_backend(authority.server(authority.sign("127.0.0.1")), cut) as port:
        async with running_plane(before(port, ClientTlsSpec(ca=str(authority.ca)))) as router:
            answer = await router.ask(GET)
            assert b"half" in answer
            assert not answer.endswith(b"0\r\n\r\n")


async def test_a_tls_backend_that_ends_its_body_with_a_farewell_is_believed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nwhole")

    async with tls_backend(authority.server(authority.sign("127.0.0.1")), ends) as port:
        async with running_plane(before(port, ClientTlsSpec(ca=str(authority.ca)))) as router:
            assert (await router.ask(GET)).endswith(b"5\r\nwhole\r\n0\r\n\r\n")


async def test_a_backend_that_never_finishes_the_handshake_runs_into_the_connect_timeout(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    authority = Authority(tmp_path)
    async with raw_backend(silent) as port:
        async with running_plane(before(port, ClientTlsSpec(ca=str(authority.ca)))) as router:
            assert b"504 connect_timeout" in await router.ask(GET)
            assert failures(router) == {"timeout": 1}
