"""nginx and HAProxy on exported files, in front of versions that say back what they were asked."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from router.core.decide import decide, identify
from router.core.identity import described
from router.core.snapshot import Snapshot
from router.core.spec import HealthCheckSpec, ListenerSpec, ServiceSpec, SnapshotSpec, SocketSpec
from router.export import haproxy, nginx
from router.export.reduced import Engine, reduced
from tests.running import free_ports
from tests.waiting import until

PROGRAMS: Final = {engine: shutil.which(engine) for engine in ("nginx", "haproxy")}
needs_nginx: Final = pytest.mark.skipif(not PROGRAMS["nginx"], reason="needs nginx (Debian package nginx-light)")
needs_haproxy: Final = pytest.mark.skipif(not PROGRAMS["haproxy"], reason="needs haproxy (Debian package haproxy)")
_CHECK: Final = HealthCheckSpec("tcp", interval=0.5, timeout=10.0, passes=1, failures=3)
"""Whoever refuses is soon gone. A machine that stands still for a moment loses nobody by it."""


class Asking(NamedTuple):
    """A request as text: ``target`` with its query, and field lines in their order."""

    target: str = "/"
    fields: tuple[tuple[str, str], ...] = ()
    host: str = "shop"
    method: str = "GET"


@dataclass(frozen=True)
class Answer:
    """``said`` are the fields of the answer by lower-case name, ``asked`` is the head that the version got."""

    status: int
    said: dict[str, str]
    asked: str

    @property
    def ring(self) -> str:
        return self.said.get("x-ring", "")


def exported(engine: Engine, spec: SnapshotSpec) -> str:
    """The file without its comment; checks are quick, and a connection has all the time that a slow machine takes."""
    patient = tuple(replace(one, timeouts=replace(one.timeouts, connect=30.0)) for one in spec.services)
    left, _ = reduced(replace(spec, services=patient), engine)
    checks = {(one.name, version.name): _CHECK for one in left.services for version in one.versions}
    return nginx.config(left) if engine == "nginx" else haproxy.config(left, checks)


def complaint(engine: Engine, text: str, directory: Path) -> str:
    """What the program itself says against a file; empty if nothing."""
    done = subprocess.run(
        [str(PROGRAMS[engine]), *_words(engine, _written(engine, text, directory), directory, is_check=True)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _written(engine: Engine, text: str, directory: Path) -> Path:
    path = directory / f"{engine}.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"  {kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    path.write_text(text.replace("http {\n", "http {\n" + places, 1) if engine == "nginx" else text)
    return path


def _words(engine: Engine, path: Path, directory: Path, *, is_check: bool) -> list[str]:
    if engine == "haproxy":
        return ["-c", "-f", str(path)] if is_check else ["-db", "-f", str(path)]
    alone = f"daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;"
    return [*(["-t"] if is_check else []), "-c", str(path), "-p", str(directory), "-g", alone]


def on_port(*services: ServiceSpec, port: int = 0, **listener: object) -> SnapshotSpec:
    """A snapshot of these services, on a port that nobody has."""
    address = f"127.0.0.1:{port or free_port()}"
    return SnapshotSpec(1, services, replace(ListenerSpec(sockets=(SocketSpec(address),)), **listener))  # type: ignore[arg-type]


def free_port() -> int:
    (port,) = free_ports(1)
    return port


@asynccontextmanager
async def running(engine: Engine, spec: SnapshotSpec, directory: Path) -> AsyncIterator[int]:
    """The program on the exported file; gives the port of the first listener."""
    port = int(spec.listener.sockets[0].address.rpartition(":")[2])
    async with running_file(engine, exported(engine, spec), port, directory):
        yield port


@asynccontextmanager
async def running_file(engine: Engine, text: str, port: int, directory: Path) -> AsyncIterator[None]:
    """The program on a file that has it listen on this port."""
    path = _written(engine, text, directory)
    with (directory / f"{engine}.out").open("wb") as out:
        words = _words(engine, path, directory, is_check=False)
        process = await asyncio.create_subprocess_exec(str(PROGRAMS[engine]), *words, stdout=out, stderr=out)
    try:
        await until(lambda: process.returncode is not None or _answers(port), within=10)
        assert process.returncode is None, (directory / f"{engine}.out").read_text()
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def version(name: str) -> AsyncIterator[int]:
    """A backend that answers with the head it was sent, and claims a ring of its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                forged = b"X-Ring: forged\r\nX-Ring-Version: forged\r\nX-Ring-Reason: forged\r\nServed-By: "
                length = b"\r\nContent-Length: %d\r\n\r\n" % len(head)
                writer.write(b"HTTP/1.1 200 OK\r\n" + forged + name.encode() + length + head)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def ask(port: int, asked: Iterable[Asking], connections: int = 8) -> list[Answer]:
    """Answers in the order of the requests, over a few connections that are kept."""
    every = list(asked)
    answers: dict[int, Answer] = {}

    async def some(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for at in range(first, len(every), connections):
            one = every[at]
            lines = "".join(f"{name}: {value}\r\n" for name, value in one.fields)
            writer.write(f"{one.method} {one.target} HTTP/1.1\r\nHost: {one.host}\r\n{lines}\r\n".encode())
            answers[at] = await _answer(reader)
            if answers[at].said.get("connection") == "close":
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    await asyncio.gather(*(some(first) for first in range(min(connections, len(every)))))
    return [answers[at] for at in range(len(every))]


async def _answer(reader: asyncio.StreamReader) -> Answer:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    said = {name.lower(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}
    if said.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(said.get("content-length", "0")))
    return Answer(int(first.split()[1]), said, body.decode(errors="replace"))


def ring_here(snapshot: Snapshot, one: Asking) -> str:
    """The ring that the router itself gives; empty where it has no service."""
    fields = [(name.encode(), value.encode()) for name, value in one.fields]
    request = described(one.host.encode(), one.target.encode(), fields, one.method.encode())
    service = snapshot.find(request.host, request.path)
    return "" if service is None else decide(service, request, identify(service, request)).ring
