"""Where listening sockets come from: bound here, or handed over by systemd. The parent owns them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, MutableMapping
from typing import Final

from router.config.values import Address
from router.process.listening import BACKLOG

PROBE_SECONDS: Final = 1.0
"""For a unix socket to say that somebody is there; one whose queue is full says nothing, and is somebody."""
FIRST_PASSED: Final = 3
"""systemd's descriptors begin here (sd_listen_fds(3))."""


class ListenError(Exception):
    """The address cannot be bound; the message says which, why and what to do."""


def listening_sockets(address: Address, count: int, *, beside: bool = False) -> list[socket.socket]:
    """One listening socket per worker, all on one address; a unix socket is one for all. Raises ListenError.

    ``beside``: others of ours, whose parent is dead, listen there still.
    """
    if address.path:
        return [_unix_socket(address.path, beside=beside)]
    return _tcp_sockets(address.host, address.port, count, beside=beside)


def _unix_socket(path: str, *, beside: bool) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                raise FileExistsError(errno.EEXIST, "there is something else than a socket")
            probe.settimeout(PROBE_SECONDS)
            try:
                if not beside:
                    probe.connect(path)
                else:
                    os.unlink(path)
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


def _tcp_sockets(host: str, port: int, count: int, *, beside: bool) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        family, address = resolved(host, port)
        # SO_REUSEPORT would share a port with a stranger of the same user in silence: ask without it first.
        if not beside:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        for _ in range(count):
            listener = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
            listener.bind(address)
            listener.listen(BACKLOG)
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise ListenError(
            f"cannot listen on {host}:{port}: {error.strerror or error}. "
            "Stop what uses the port, or set another one with `listen:` in the config."
        ) from None
    return sockets


def resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Family and address to bind. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return found[0], (str(found[4][0]), int(found[4][1]))


def sockets_of_systemd(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that systemd has passed to this process, if any; takes out the variables (sd_listen_fds(3))."""
    count, owner = environment.pop("LISTEN_FDS", ""), environment.pop("LISTEN_PID", "")
    environment.pop("LISTEN_FDNAMES", None)
    if not count.isdigit() or owner != str(os.getpid()):
        return []
    passed = range(FIRST_PASSED, FIRST_PASSED + int(count))
    for descriptor in passed:
        os.set_inheritable(descriptor, False)
    return [socket.socket(fileno=descriptor) for descriptor in passed]


def is_at(listener: socket.socket, address: Address) -> bool:
    """Whether a socket listens on this address."""
    name = listener.getsockname()
    if address.path or not isinstance(name, tuple):
        return bool(address.path) and name == address.path
    family, (host, port) = resolved(address.host, address.port)
    return listener.family == family and tuple(name[:2]) == (host, port)


def chosen(passed: Iterable[socket.socket], address: Address) -> list[socket.socket]:
    """Those of the passed sockets that listen on this address. Raises ListenError if there are none."""
    sockets = list(passed)
    found = [one for one in sockets if is_at(one, address)]
    if not found:
        there = ", ".join(shown(one) for one in sockets)
        raise ListenError(
            f"systemd passed no socket for {address}; it passed {there}. "
            "Give its socket unit a ListenStream= for each address of `listen:`."
        )
    return found


def shown(listener: socket.socket) -> str:
    """A socket's address as the config writes it."""
    name = listener.getsockname()
    return str(Address(name[0], name[1])) if isinstance(name, tuple) else f"unix:{name}"
