"""Files that change under a running router, as stories: certificates renewed, broken and mended; nobody is cut off."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.certificates import Authority, Signed, serial_of
from tests.house import fixed, header, read_head
from tests.running import Router, free_ports
from tests.test_edge_sockets import GET, OK, ask_at, edge_router
from tests.waiting import until

KEPT = GET.replace(b"Connection: close\r\n", b"")


async def opened(port: int, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1")


async def ask_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(KEPT)
    async with asyncio.timeout(5):
        return await read_head(reader) + await reader.readexactly(2)


def shows(port: int, context: ssl.SSLContext, signed: Signed) -> Callable[[], Awaitable[bool]]:
    """A condition: a new connection is shown this certificate, and served."""

    async def is_shown() -> bool:
        reader, writer = await opened(port, context)
        serial = serial_of(writer.get_extra_info("ssl_object"))
        assert (await ask_on(reader, writer)).endswith(b"ok")
        writer.transport.abort()
        return serial == signed.serial

    return is_shown


def tls_listener(port: int, signed: Signed) -> str:
    pair = f"{{certificate: {signed.certificate}, key: {signed.key}}}"
    return f'{{address: "127.0.0.1:{port}", tls: {{certificates: [{pair}]}}}}'


def is_refused(router: Router) -> bool:
    return bool(router.state()["config"]["error"]) and router.metric("ringrouter_config_last_reload_successful") == 0


async def test_certificates_are_renewed_broken_and_mended_under_traffic(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    signed = authority.sign("127.0.0.1")
    may_end = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if b"/download" in await read_head(reader):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 100_000)
                await may_end.wait()
                writer.write(b"y" * 200_000)
            else:
                writer.write(OK)

    (port,) = free_ports(1)
    client = authority.client()
    async with edge_router(tmp_path, f"[{tls_listener(port, signed)}]", serve) as router:
        assert await shows(port, client, signed)()
        kept, download = await opened(port, client), await opened(port, client)
        download[1].write(KEPT.replace(b"/ ", b"/download "))
        assert (await read_head(download[0])).startswith(b"HTTP/1.1 200 ")

        renewed = authority.sign("127.0.0.1", file="renewed")
        signed.replace(renewed)
        await until(shows(port, client, renewed), within=5)
        assert (await ask_on(*kept)).endswith(b"ok")

        good_key = signed.key.read_bytes()
        signed.key.write_text("this is no key")
        await until(lambda: is_refused(router), within=5)
        assert str(signed.key) in router.state()["config"]["error"]
        assert "config refused" in router.log.read_text()
        assert await shows(port, client, renewed)()
        assert (await ask_on(*kept)).endswith(b"ok")

        signed.key.write_bytes(good_key)
        await until(lambda: router.state()["config"]["error"] == "", within=5)
        again = authority.sign("127.0.0.1", file="again")
        signed.replace(again)
        await until(shows(port, client, again), within=5)
        assert (await ask_on(*kept)).endswith(b"ok")

        may_end.set()
        assert (await download[0].readexactly(300_000)).count(b"y") == 200_000
        for _, writer in (kept, download):
            writer.transport.abort()
        assert "Traceback" not in router.log.read_text()


async def test_a_file_that_comes_after_the_config_that_names_it_mends_the_config(tmp_path: Path) -> None:
    async def slams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)

    (port,) = free_ports(1)
    page = tmp_path / "sorry.html"

    async def says(word: bytes) -> bool:
        return (await ask_at(port)).endswith(b"\r\n\r\n" + word)

    async with edge_router(tmp_path, f"127.0.0.1:{port}", slams) as router:
        router.config.write_text(router.config.read_text() + "    error_pages: {502: sorry.html}\n")
        await until(lambda: is_refused(router), within=5)
        assert str(page) in router.state()["config"]["error"]
        page.write_text("first")
        await until(lambda: says(b"first"), within=4)
        assert router.state()["config"]["error"] == ""
        page.write_text("second")
        await until(lambda: says(b"second"), within=4)
        assert header(await ask_at(port), "content-type") == ["text/html; charset=utf-8"]


async def test_a_listener_that_waits_for_a_restart_does_not_keep_old_certificates_alive(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    signed = authority.sign("127.0.0.1")
    port, more = free_ports(2)
    async with edge_router(tmp_path, f"[{tls_listener(port, signed)}]", fixed(OK)) as router:
        text = router.config.read_text()
        router.config.write_text(text.replace("listen: [", f'listen: ["127.0.0.1:{more}", '))
        await until(lambda: "listen" in router.state()["config"]["needs_restart"], within=5)
        renewed = authority.sign("127.0.0.1", file="renewed")
        signed.replace(renewed)
        await until(shows(port, authority.client(), renewed), within=5)


async def test_a_control_that_comes_back_leaves_the_listeners_as_they_are(tmp_path: Path) -> None:
    """The file has other listeners by now, which need a restart; who listens is still as it was."""
    authority = Authority(tmp_path)
    signed = authority.sign("127.0.0.1")
    port, more = free_ports(2)
    async with edge_router(tmp_path, f'["127.0.0.1:{port}"]', fixed(OK)) as router:
        text = router.config.read_text()
        router.config.write_text(text.replace("listen: [", f"listen: [{tls_listener(more, signed)}, "))
        await until(lambda: "listen" in router.state()["config"]["needs_restart"], within=5)
        assert (await ask_at(port)).endswith(b"ok")
        control = router.control_pid()
        os.kill(control, signal.SIGKILL)
        await until(lambda: router.is_ready() and router.control_pid() != control, within=10)
        await until(router.is_everywhere, within=5)
        assert (await ask_at(port)).endswith(b"ok")


def seconds_of(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_worker_without_descriptors_neither_dies_nor_spins_and_answers_again(tmp_path: Path) -> None:
    first, second = free_ports(2)
    listen = f'["127.0.0.1:{first}", {{address: "127.0.0.1:{second}", proxy_protocol: true}}]'
    async with edge_router(tmp_path, listen, fixed(OK)) as router:
        (pid,) = router.worker_pids()
        await ask_at(first)
        await until(lambda: router.metric("ringrouter_connections") == 0)
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 8, before[1]))
        clients = [socket.create_connection(("127.0.0.1", port)) for port in (first, second) for _ in range(30)]
        try:
            loop = asyncio.get_running_loop()
            for client in clients:
                client.setblocking(False)
                try:
                    client.sendall(KEPT)
                except OSError:
                    continue
            spent, start = seconds_of(pid), loop.time()
            await until(lambda: loop.time() > start + 1.0)
            assert seconds_of(pid) - spent < 0.5, "it spins"
            assert router.worker_pids() == [pid]
            assert router.is_ready()
        finally:
            for client in clients:
                client.close()

        async def answers() -> bool:
            try:
                plain = await ask_at(first)
                announced = await ask_at(second, b"PROXY UNKNOWN\r\n" + GET)
            except OSError:
                return False
            return plain.endswith(b"ok") and announced.endswith(b"ok")

        await until(answers, within=5)  # before there are more: those who left made room
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        await until(answers, within=5)
        assert router.worker_pids() == [pid]
        assert "Traceback" not in router.log.read_text()
