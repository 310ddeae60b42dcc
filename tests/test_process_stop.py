"""How a router ends, as stories: readiness first, a sidecar after its application; what systemd passes and hears."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import fixed, raw_backend, read_head
from tests.running import Router, free_ports, stop_router
from tests.test_edge_sockets import CONFIG, OK, ask_at, edge_router
from tests.waiting import until

KEPT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PASS_ON = """
import fcntl, os, sys
passed, *command = sys.argv[1:]
copies = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 100) for one in passed.split(",")]
for number, copy in enumerate(copies):
    os.dup2(copy, 3 + number, inheritable=True)
    os.close(copy)
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), str(len(copies))
os.execv(command[0], command)
"""
"""What systemd does: the sockets become descriptors 3 and up, and the variables name the process that gets them."""


def readiness(router: Router) -> tuple[int, bytes]:
    try:
        return 200, router.get("/ready")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


async def is_refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.close()
    return False


async def test_before_a_router_stops_it_says_that_it_is_not_ready_and_serves_on(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with edge_router(tmp_path, f"127.0.0.1:{port}", fixed(OK), workers=2, more="shutdown: {delay: 3s}") as router:
        router.process.send_signal(signal.SIGTERM)
        await until(lambda: readiness(router) == (503, b"stopping\n"), within=3)
        for _ in range(10):
            assert (await ask_at(port)).endswith(b"ok")
        assert router.process.poll() is None
        await until(lambda: router.process.poll() is not None, within=20)
        assert router.process.returncode == 0


async def test_a_second_signal_during_the_delay_ends_at_once(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with edge_router(tmp_path, f"127.0.0.1:{port}", fixed(OK), more="shutdown: {delay: 1h}") as router:
        router.process.send_signal(signal.SIGTERM)
        await until(lambda: readiness(router)[0] == 503, within=3)
        router.process.send_signal(signal.SIGTERM)
        await until(lambda: router.process.poll() is not None, within=10)
        assert router.process.returncode == 1


async def test_an_idle_connection_may_ask_once_more_while_the_router_drains(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with edge_router(tmp_path, f"127.0.0.1:{port}", fixed(OK)) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(KEPT)
        await read_head(reader)
        await reader.readexactly(2)
        router.process.send_signal(signal.SIGTERM)
        await until(lambda: is_refused(port), within=5)
        writer.write(KEPT)
        head = await read_head(reader)
        assert b"200 OK" in head
        assert b"Connection: close" in head
        writer.close()


async def test_a_sidecar_closes_the_way_in_and_serves_the_way_out_until_its_application_ends(tmp_path: Path) -> None:
    inbound, outbound, app = free_ports(3)
    listen = f'[{{address: "127.0.0.1:{inbound}", inbound: true}}, "127.0.0.1:{outbound}"]'
    application = socket.create_server(("127.0.0.1", app))
    async with edge_router(tmp_path, listen, fixed(OK), workers=2, more=f"sidecar: {{app: 127.0.0.1:{app}}}") as router:
        with application:
            reader, idle = await asyncio.open_connection("127.0.0.1", inbound)
            idle.write(KEPT)
            await read_head(reader)
            await reader.readexactly(2)
            router.process.send_signal(signal.SIGTERM)
            await until(lambda: is_refused(inbound), within=5)
            async with asyncio.timeout(10):
                assert await reader.read() == b""  # the idle one is closed
            idle.close()
            for _ in range(10):
                assert (await ask_at(outbound)).endswith(b"ok")
            assert router.process.poll() is None
        await until(lambda: router.process.poll() is not None, within=20)
        assert router.process.returncode == 0


async def test_a_sidecar_does_not_wait_for_ever(tmp_path: Path) -> None:
    inbound, app = free_ports(2)
    more = f"sidecar: {{app: 127.0.0.1:{app}}}\nshutdown: {{deadline: 1s}}"
    with socket.create_server(("127.0.0.1", app)):
        async with edge_router(
            tmp_path, f'[{{address: "127.0.0.1:{inbound}", inbound: true}}]', fixed(OK), more=more
        ) as router:
            assert await stop_router(router) == 0


@contextlib.contextmanager
def told(path: Path) -> Iterator[socket.socket]:
    """What systemd hears at $NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hearing:
        hearing.bind(str(path))
        hearing.setblocking(False)
        yield hearing


def heard(hearing: socket.socket) -> str:
    with contextlib.suppress(BlockingIOError):
        return hearing.recv(1000).decode()
    return ""


def started(config: Path, admin: int, log: Path, *before: str, sockets: list[socket.socket], words: str = "") -> Router:
    descriptors = [one.fileno() for one in sockets]
    command = [*before, sys.executable, "-m", "router.cli", "run", "-c", str(config), *words.split()]
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, pass_fds=descriptors)
    return Router(process, config, 0, admin, log)


def started_by_systemd(config: Path, admin: int, log: Path, sockets: list[socket.socket]) -> Router:
    passed = ",".join(str(one.fileno()) for one in sockets)
    return started(config, admin, log, sys.executable, "-c", PASS_ON, passed, sockets=sockets)


async def test_systemd_holds_the_sockets_and_hears_when_the_router_is_ready_replaced_and_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    path = tmp_path / "http.sock"
    admin, config = free_ports(1)[0], tmp_path / "router.yaml"
    with (
        told(tmp_path / "notify") as hearing,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as local,
    ):
        port = tcp.getsockname()[1]
        local.bind(str(path))
        local.listen()
        async with raw_backend(fixed(OK)) as backend:
            listen = f'["unix:{path}", "127.0.0.1:{port}"]'
            config.write_text(
                CONFIG.format(
                    listen=listen, admin=admin, workers=2, state=tmp_path / "state", more="",
                    endpoint=f"http://127.0.0.1:{backend}",
                )
            )  # fmt: skip
            router = started_by_systemd(config, admin, tmp_path / "router.log", [tcp, local])
            try:
                await until(lambda: heard(hearing) == "READY=1", within=20)
                for place in (port, path):
                    for _ in range(4):
                        assert (await ask_at(place)).endswith(b"ok")
                before = router
                router = started(config, admin, tmp_path / "next.log", sockets=[], words="--take-over")
                main = f"MAINPID={router.process.pid}\nREADY=1"
                await until(lambda: heard(hearing) == main, within=30)
                await until(lambda: before.process.poll() is not None, within=20)
                for place in (port, path):
                    assert (await ask_at(place)).endswith(b"ok")
            finally:
                await stop_router(router)
            assert heard(hearing) == "STOPPING=1"
            assert path.exists(), "the file is systemd's"


async def test_a_socket_that_systemd_does_not_pass_is_named(tmp_path: Path) -> None:
    missing, admin = free_ports(2)
    config = tmp_path / "router.yaml"
    config.write_text(
        CONFIG.format(
            listen=f"127.0.0.1:{missing}", admin=admin, workers=1, state=tmp_path / "state", more="",
            endpoint="http://127.0.0.1:1",
        )
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as other:
        router = started_by_systemd(config, admin, tmp_path / "router.log", [other])
        await until(lambda: router.process.poll() is not None, within=20)
        assert router.process.returncode == 1
        message, there = router.log.read_text(), other.getsockname()[1]
        assert f"systemd passed no socket for 127.0.0.1:{missing}; it passed 127.0.0.1:{there}" in message
        assert "Traceback" not in message
