"""The parent: binds the listening sockets, starts control and the workers, restarts what dies, forwards signals.

It has no network code of its own. The sockets are its own, one SO_REUSEPORT socket per worker, so that a dead worker's
accept queue survives it. It waits for signals with them blocked, which leaves no race between a signal and a look.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from router.config.values import Address
from router.process.listening import BACKLOG

WATCHED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
RESTART_SECONDS: Final = (0.0, 5.0)
"""A child that dies is started again at once; one that keeps dying, ever later, up to this."""
STABLE_SECONDS: Final = 10.0
CONTROL_STOP_SECONDS: Final = 5.0
KILL_MARGIN_SECONDS: Final = 2.0
PROBE_SECONDS: Final = 1.0
"""For a unix socket to say that somebody is there; one whose queue is full says nothing, and is somebody."""


class ListenError(Exception):
    """The address cannot be bound; the message says which, why and what to do."""


@dataclass(slots=True)
class Child:
    """A process that the parent keeps alive."""

    name: str
    command: list[str]
    descriptors: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    start_at: float = 0.0

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, pass_fds=self.descriptors, stdin=subprocess.DEVNULL, process_group=0
        )
        self.started_at = time.monotonic()

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.is_alive:
            self.process.send_signal(number)


@dataclass(slots=True)
class Parent:
    """One running router."""

    config: Path
    addresses: list[Address]
    workers: int
    drain_seconds: float
    restarts: int = 0
    children: list[Child] = field(default_factory=list)
    _sockets: list[list[socket.socket]] = field(default_factory=list)
    """Per address one for each worker, or one that all share."""
    _log: structlog.stdlib.BoundLogger = field(default_factory=structlog.get_logger)

    def run(self, announce: Callable[[], None] | None = None) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code. Raises ListenError before anything is started."""
        # Blocked before the first child: a signal that comes early waits instead of killing.
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        raise_open_files()
        try:
            for address in self.addresses:
                self._sockets.append(listening_sockets(address, self.workers))
        except ListenError:
            self._remove_files()
            raise
        runtime = Path(tempfile.mkdtemp(prefix="ring-router-"))
        try:
            self._create_children(runtime)
            for child in self.children:
                child.start()
            if announce is not None:
                announce()
            return self._watch()
        finally:
            for child in self.children:
                child.signal(signal.SIGKILL)
            shutil.rmtree(runtime, ignore_errors=True)
            self._remove_files()

    def _remove_files(self) -> None:
        """The unix sockets that are ours."""
        for address, _ in zip(self.addresses, self._sockets, strict=False):
            if address.path:
                Path(address.path).unlink(missing_ok=True)

    def _create_children(self, runtime: Path) -> None:
        common = ["--parent", str(os.getpid()), "--runtime", str(runtime)]
        # -P: a folder called `router` where the operator happens to stand is none of ours.
        python = [sys.executable, "-P", "-m"]
        self.children.append(
            Child(
                "control",
                [*python, "router.process.control", *common, "--config", str(self.config), "--workers",
                 str(self.workers), "--listen", *map(str, self.addresses)],
            )
        )  # fmt: skip
        for slot in range(self.workers):
            descriptors = tuple(sockets[slot % len(sockets)].fileno() for sockets in self._sockets)
            self.children.append(
                Child(
                    f"worker {slot}",
                    [*python, "router.process.worker", *common, "--slot", str(slot), "--workers", str(self.workers),
                     "--fd", *map(str, descriptors)],
                    descriptors,
                )
            )  # fmt: skip

    def _watch(self) -> int:
        while True:
            wake_at = min((c.start_at for c in self.children if not c.is_alive), default=time.monotonic() + 3600)
            received = signal.sigtimedwait(WATCHED, max(0.0, wake_at - time.monotonic()))
            if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                return self._stop()
            if received is not None and received.si_signo == signal.SIGHUP:
                self.children[0].signal(signal.SIGHUP)
            self._restart_dead()

    def _restart_dead(self) -> None:
        now = time.monotonic()
        for child in self.children:
            process = child.process
            if process is not None and process.poll() is not None:
                lived = now - child.started_at
                child.deaths = 0 if lived > STABLE_SECONDS else child.deaths + 1
                first, longest = RESTART_SECONDS
                wait = first if child.deaths <= 1 else min(longest, 0.1 * 2.0 ** min(child.deaths, 10))
                child.process, child.start_at = None, now + wait
                self.restarts += 1
                self._log.error(
                    f"{child.name} (pid {process.pid}) {_how_it_ended(process.returncode)} after {lived:.1f} s; "
                    f"starting it again {'at once' if not wait else f'in {wait:.1f} s'}"
                )
            if child.process is None and child.start_at <= now:
                child.start()

    def _stop(self) -> int:
        """Drain the workers, then control. A second signal, or time running out, ends everything now."""
        control, *workers = self.children
        self._log.info(
            f"stopping: requests in flight have {self.drain_seconds:g} s to finish; signal again to stop now"
        )
        for child in workers:
            child.signal(signal.SIGTERM)
        for sockets in self._sockets:
            for listener in sockets:
                listener.close()
        clean = self._await_end(workers, self.drain_seconds + KILL_MARGIN_SECONDS)
        control.signal(signal.SIGTERM)
        clean = self._await_end([control], CONTROL_STOP_SECONDS) and clean
        self._log.info("stopped" if clean else "stopped; requests in flight were cut off")
        return 0 if clean else 1

    def _await_end(self, children: list[Child], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while any(child.process is not None and child.process.poll() is None for child in children):
            left = deadline - time.monotonic()
            received = signal.sigtimedwait(WATCHED, max(0.0, min(left, 0.5)))
            if left <= 0 or (received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT)):
                for child in children:
                    child.signal(signal.SIGKILL)
                for child in children:
                    if child.process is not None:
                        child.process.wait()
                return False
        return all(child.process is None or child.process.returncode == 0 for child in children)


def raise_open_files() -> None:
    """As many open files as allowed, as HAProxy and nginx do it; the children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listening_sockets(address: Address, count: int) -> list[socket.socket]:
    """One listening socket per worker, all on one address; a unix socket is one for all. Raises ListenError."""
    return [_unix_socket(address.path)] if address.path else _tcp_sockets(address.host, address.port, count)


def _unix_socket(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                raise FileExistsError(errno.EEXIST, "there is something else than a socket")
            probe.settimeout(PROBE_SECONDS)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)  # left behind by somebody who died
            except (TimeoutError, BlockingIOError):
                raise OSError(errno.EADDRINUSE, "somebody listens there") from None
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(
            f"cannot listen on unix:{path}: {error.strerror or error}. "
            "Stop what uses the socket, see to its directory, or set another one with `listen:` in the config."
        ) from None
    return listener


def _tcp_sockets(host: str, port: int, count: int) -> list[socket.socket]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # SO_REUSEPORT would share a port with a stranger of the same user in silence: ask without it first.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        sockets = []
        for _ in range(count):
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            sockets.append(listener)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {host}:{port}: {error.strerror or error}. "
            "Stop what uses the port, or set another one with `listen:` in the config."
        ) from None
    return sockets


def _how_it_ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
