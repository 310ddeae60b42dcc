"""Listening sockets, as stories: several at once, IPv6, unix sockets, what stands in the way, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from router.config.values import Address
from router.core.spec import EndpointSpec, ListenerSpec, SocketSpec, VersionSpec
from router.process.listening import Listening
from router.process.sockets import ListenError, listening_sockets
from tests.house import Serve, fixed, header, raw_backend, read_head, running_plane, shop, snapshot
from tests.running import Router, free_ports, start_router, stop_router
from tests.waiting import until, until_said

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

CONFIG = """\
listen: {listen}
admin: {{listen: 127.0.0.1:{admin}}}
workers: {workers}
state_dir: {state}
access_log: {{format: "off"}}
{more}
services:
  shop:
    versions: {{v1: {{endpoints: ["{endpoint}"]}}}}
    rings: [{{name: everyone, version: v1}}]
"""


@asynccontextmanager
async def edge_router(
    directory: Path, listen: str, serve: Serve, *, more: str = "", workers: int = 1, port: int = 0
) -> AsyncIterator[Router]:
    """A whole router with these listeners (YAML) before one backend."""
    async with raw_backend(serve) as backend:
        (admin,) = free_ports(1)
        config = directory / "router.yaml"
        (directory / "state").mkdir(exist_ok=True)
        config.write_text(
            CONFIG.format(
                listen=listen, admin=admin, workers=workers, state=directory / "state", more=more,
                endpoint=f"http://127.0.0.1:{backend}",
            )
        )  # fmt: skip
        router = start_router(config, port, admin, directory / "router.log")
        try:
            await until_said(router.is_ready, within=60)
            yield router
        finally:
            await stop_router(router)


async def ask_at(place: int | Path, raw: bytes = GET, host: str = "127.0.0.1") -> bytes:
    """Send to a port or a unix socket, and read to the end."""
    async with asyncio.timeout(10):
        if isinstance(place, int):
            reader, writer = await asyncio.open_connection(host, place)
        else:
            reader, writer = await asyncio.open_unix_connection(str(place))
        writer.write(raw)
        data = await reader.read()
    writer.close()
    return data


async def test_several_listeners_at_once_serve_over_ipv4_ipv6_and_unix_sockets(tmp_path: Path) -> None:
    seen: list[bytes] = []
    first, second = free_ports(2)
    path, link = tmp_path / "http.sock", tmp_path / "other.sock"
    listen = f'["127.0.0.1:{first}", "[::1]:{second}", "unix:{path}", {{address: "unix:{link}"}}]'
    async with edge_router(tmp_path, listen, fixed(OK, seen), workers=2, more='trusted_proxies: ["unix:"]') as router:
        said = GET.replace(b"Host", b"X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nHost")
        for place, host, chain, proto in (
            (first, "127.0.0.1", "127.0.0.1", "http"),
            (second, "::1", "::1", "http"),
            (path, "", "9.9.9.9, unix:", "https"),
            (link, "", "9.9.9.9, unix:", "https"),
        ):
            for _ in range(4):  # both workers
                assert (await ask_at(place, said, host)).endswith(b"ok")
                assert header(seen[-1], "x-forwarded-for") == [chain]
                assert header(seen[-1], "x-forwarded-proto") == [proto]
        assert header(seen[4], "forwarded") == ['for="[::1]";proto=http']
        assert [stat.S_ISSOCK(os.stat(one).st_mode) for one in (path, link)] == [True, True]
        with pytest.raises(OSError, match="refused"):  # [::1] is not ::, and not 127.0.0.1
            await ask_at(second)
        assert await stop_router(router) == 0
        assert [path.exists(), link.exists()] == [False, False]


async def test_a_socket_file_that_nobody_serves_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with edge_router(tmp_path, f"unix:{path}", fixed(OK)):
        assert (await ask_at(path)).endswith(b"ok")
    assert not path.exists()


async def test_somebody_elses_socket_is_left_alone_and_said_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    async with edge_router(tmp_path, f"unix:{path}", fixed(OK)) as router:
        second = start_router(router.config, 0, router.admin, tmp_path / "second.log")
        await until(lambda: second.process.poll() is not None, within=20)
        assert second.process.returncode == 1
        message = (tmp_path / "second.log").read_text()
        assert f"cannot listen on unix:{path}" in message
        assert "Traceback" not in message
        assert (await ask_at(path)).endswith(b"ok")


def test_what_is_no_socket_is_never_overwritten(tmp_path: Path) -> None:
    kept = tmp_path / "precious"
    kept.write_text("data")
    no_directory = tmp_path / "no" / "s"
    for path, why in ((kept, "something else than a socket"), (tmp_path, "something else"), (no_directory, "")):
        with pytest.raises(ListenError, match=f"cannot listen on unix:{path}: .*{why}"):
            listening_sockets(Address("", 0, str(path)), 1)
    assert kept.read_text() == "data"


def test_a_socket_whose_owner_accepts_nobody_does_not_hold_up_the_start(tmp_path: Path) -> None:
    path = tmp_path / "busy.sock"
    refused: list[ListenError] = []

    def start() -> None:
        try:
            listening_sockets(Address("", 0, str(path)), 1)
        except ListenError as error:
            refused.append(error)

    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as one:
        busy.bind(str(path))
        busy.listen(0)
        one.connect(str(path))  # the queue is full: a second one waits, and would wait for ever
        starting = threading.Thread(target=start, daemon=True)
        starting.start()
        starting.join(3)
        is_stuck = starting.is_alive()
    starting.join(3)
    assert not is_stuck
    assert refused
    assert path.exists()


async def test_a_start_that_fails_leaves_no_socket_file_behind(tmp_path: Path) -> None:
    path, config, state = tmp_path / "http.sock", tmp_path / "router.yaml", tmp_path / "state"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = f'["unix:{path}", "127.0.0.1:{port}"]'
        config.write_text(
            CONFIG.format(listen=listen, admin=1, workers=1, state=state, more="", endpoint="http://127.0.0.1:1")
        )
        router = start_router(config, port, 1, tmp_path / "router.log")
        await until(lambda: router.process.poll() is not None, within=20)
    assert router.process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in router.log.read_text()
    assert not path.exists()


async def test_while_the_last_requests_end_nobody_new_is_let_in(tmp_path: Path) -> None:
    """SIGTERM: no new connections. One that were accepted by the kernel and served by nobody would be worse."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await answer.wait()
        writer.write(OK)

    (port,) = free_ports(1)
    path = tmp_path / "http.sock"
    listen = f'["127.0.0.1:{port}", "unix:{path}"]'
    async with edge_router(tmp_path, listen, slow, workers=2, more="timeouts: {drain: 6s}") as router:
        first = asyncio.ensure_future(ask_at(port))  # noqa: TID251 - awaited below
        await asked.wait()
        router.process.send_signal(signal.SIGTERM)
        await until(lambda: b"stopping" in router.log.read_bytes(), within=5)

        async def are_refused() -> bool:
            writers = []
            for connect in (
                asyncio.open_connection("127.0.0.1", port),
                asyncio.open_connection("127.0.0.1", port),
                asyncio.open_unix_connection(str(path)),
            ):
                with contextlib.suppress(OSError):
                    writers.append((await connect)[1])
            for writer in writers:
                writer.close()
            return not writers

        try:
            await until(are_refused, within=3)
        finally:
            answer.set()
        assert (await first).endswith(b"ok")
        await until(lambda: router.process.poll() is not None, within=10)  # a second signal would end it at once
        assert router.process.returncode == 0


async def test_an_endpoint_may_be_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "backend.sock"
    seen: list[bytes] = []

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            await fixed(OK, seen)(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(connection, str(path))
    endpoints = (EndpointSpec("", 0, str(path)),)
    versions = (VersionSpec("v1", endpoints), VersionSpec("v2", endpoints))
    async with running_plane(snapshot(shop((), (), versions=versions))) as router:
        for _ in range(3):
            assert (await router.ask(GET)).endswith(b"ok")
        (reserve,) = router.plane.pools.reserves.values()
        assert len(reserve.idle) == 1
        assert (await router.ask(b"GET / HTTP/1.0\r\n\r\n")).endswith(b"ok")
        assert header(seen[-1], "host") == ["localhost"]
        server.close()
        path.unlink()
        for upstream in tuple(reserve.idle):
            upstream.close()
        reserve.idle.clear()
        answer = await router.ask(GET)
        assert b"502 connect_failed" in answer
        assert str(path).encode() not in answer
        (counters,) = {id(c): c for c in router.plane.collect(whole=True).endpoints.values() if c.failures}.values()
        assert counters.failures == {"connect": 1}


async def test_a_stranger_who_resets_at_once_is_not_taken_for_a_trusted_neighbour(tmp_path: Path) -> None:
    """The peer of a connection that is reset already has no name any more; a unix socket's peer never had one."""
    seen: list[bytes] = []
    listener = ListenerSpec(trusted_proxies=("unix:",))
    async with raw_backend(fixed(OK, seen)) as port:
        async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
            assert (await router.ask(GET)).endswith(b"ok")  # now there is a warm connection to the backend
            with socket.create_connection(("127.0.0.1", router.port)) as client:
                client.sendall(GET.replace(b"Host", b"X-Forwarded-For: 6.6.6.6\r\nHost"))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            # Reset before the loop has had a turn to accept it.
            assert (await router.ask(GET)).endswith(b"ok")
            await until(lambda: router.plane.collect().connections == 0)
    assert not [head for head in seen if b"6.6.6.6" in head]


async def test_a_unix_listener_in_the_loop_tells_its_clients_apart_from_tcp(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    seen: list[bytes] = []
    async with raw_backend(fixed(OK, seen)) as port:
        listener = ListenerSpec(sockets=(SocketSpec(f"unix:{path}"),))
        async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
            (bound,) = listening_sockets(Address("", 0, str(path)), 3)
            listening = Listening(router.plane, 0, bound.detach(), router.plane.spawn)
            await listening.open(listener.sockets[0])
            said = GET.replace(b"Host", b"X-Forwarded-For: 9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\nHost")
            assert (await ask_at(path, said)).endswith(b"ok")
            await listening.close()
    assert header(seen[0], "x-forwarded-for") == ["unix:"]
    assert header(seen[0], "forwarded") == ["for=unknown;proto=http"]
    assert not header(seen[0], "x-real-ip")


async def test_whoever_was_just_taken_from_a_siblings_queue_is_waited_for_at_the_end() -> None:
    """A worker that ends sees whether somebody is connected: whoever it has accepted counts before the plane knows."""
    async with raw_backend(fixed(OK)) as port:
        listener = ListenerSpec(sockets=(SocketSpec(""),))
        async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
            own, siblings = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
            where = siblings.getsockname()
            listening = Listening(router.plane, 0, own.detach(), router.plane.spawn, (siblings.detach(),))
            await listening.open(listener.sockets[0])
            client = socket.create_connection(where)
            listening.look_around()
            coming = await listening.close()
            assert not router.plane.collect().connections
            await asyncio.wait(coming, timeout=5)
            assert router.plane.collect().connections == 1
            ends = router.plane.spawn(router.plane.drain(5.0), name="drain")
            reader, writer = await asyncio.open_connection(sock=client)
            writer.write(GET)
            assert (await reader.read()).endswith(b"ok")
            writer.close()
            await ends


async def test_whoever_the_loop_accepted_in_the_turn_of_the_stop_is_waited_for() -> None:
    """The loop accepts while it polls, and tells the data plane a turn later: the stop may come between the two."""
    async with raw_backend(fixed(OK)) as port:
        listener = ListenerSpec(sockets=(SocketSpec(""),))
        async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
            own = socket.create_server(("127.0.0.1", 0))
            where = own.getsockname()
            listening = Listening(router.plane, 0, own.detach(), router.plane.spawn)
            await listening.open(listener.sockets[0])
            client = socket.create_connection(where)
            await asyncio.sleep(0)  # the loop polls once
            assert not router.plane.collect().connections
            for coming in await listening.close():
                await coming
            assert router.plane.collect().connections == 1
            ends = router.plane.spawn(router.plane.drain(5.0), name="drain")
            reader, writer = await asyncio.open_connection(sock=client)
            writer.write(GET)
            assert (await reader.read()).endswith(b"ok")
            writer.close()
            await ends


async def test_requests_that_are_cut_off_at_the_stop_are_said_and_exit_with_1(tmp_path: Path) -> None:
    asked, may_end = asyncio.Event(), asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await may_end.wait()

    (port,) = free_ports(1)
    async with edge_router(tmp_path, f"127.0.0.1:{port}", never, more="timeouts: {drain: 500ms}") as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await asked.wait()
        code = await stop_router(router)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        may_end.set()
        assert (code, "cut off" in router.log.read_text()) == (1, True)


async def test_a_unix_socket_may_want_proxy_headers(tmp_path: Path) -> None:
    seen: list[bytes] = []
    path = tmp_path / "announced.sock"
    async with raw_backend(fixed(OK, seen)) as port:
        listener = ListenerSpec(sockets=(SocketSpec(f"unix:{path}", proxy_protocol=True),), trusted_proxies=("unix:",))
        async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
            (bound,) = listening_sockets(Address("", 0, str(path)), 1)
            listening = Listening(router.plane, 0, bound.detach(), router.plane.spawn)
            await listening.open(listener.sockets[0])
            said = GET.replace(b"Host", b"X-Forwarded-For: 9.9.9.9\r\nHost")
            assert (await ask_at(path, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + said)).endswith(b"ok")
            assert (await ask_at(path, b"PROXY UNKNOWN\r\n" + said)).endswith(b"ok")
            await listening.close()
    assert header(seen[0], "x-forwarded-for") == ["1.2.3.4"]
    assert header(seen[1], "x-forwarded-for") == ["9.9.9.9, unix:"]
