"""The name of a running router: one abstract unix socket for each address it listens on.

A name can be bound once (per network namespace), so it is the lock that keeps two parents from one address; and whoever
starts with ``--take-over`` asks through it for the listening sockets (SCM_RIGHTS). Both sides are parents: they look
now and then and wait for nobody for long. Only the same user or root is talked to (SO_PEERCRED).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from router.config.values import Address
from router.process.sockets import ListenError

ADMIN: Final = "admin"
"""Under this name the admin listener is handed over."""
ANSWER_SECONDS: Final = 10.0
"""For the other parent, which looks four times a second."""
_BYTES: Final = 65_536
_DESCRIPTORS: Final = 200
"""In one message; the kernel takes 253 (SCM_MAX_FD)."""
_CREDENTIALS: Final = struct.Struct("3i")
_LONGEST_NAME: Final = 107


class Offer(NamedTuple):
    """Listening sockets of one address."""

    address: str
    sockets: Sequence[socket.socket]
    is_ours: bool = True
    """Whether the file of a unix socket is the router's to remove."""


def name_of(address: str) -> str:
    """The abstract name of whoever listens on this address."""
    name = f"\0ring-router {address}"
    return name if len(name.encode()) <= _LONGEST_NAME else f"\0ring-router {hashlib.sha256(name.encode()).hexdigest()}"


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(raw)
    return pid, user


def _is_friend(connection: socket.socket) -> bool:
    return peer_of(connection)[1] in (os.geteuid(), 0)


def claim(addresses: Iterable[Address]) -> list[socket.socket]:
    """Bind the names of these addresses. Raises ListenError if a router of ours, or of root's, has one of them.

    A stranger who squats a name keeps nobody from starting: he only makes a take-over impossible.
    """
    claims: list[socket.socket] = []
    for address in addresses:
        if sys.platform != "linux" or not (address.port or address.path):
            continue
        one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            one.bind(name_of(str(address)))
            one.listen(8)
            one.setblocking(False)
        except OSError as error:
            one.close()
            owner = _running_at(str(address)) if error.errno == errno.EADDRINUSE else None
            if owner is None:
                continue
            with owner:
                pid = peer_of(owner)[0]
            for other in claims:
                other.close()
            raise ListenError(
                f"cannot listen on {address}: a ring-router (pid {pid}) serves it. Stop that one first, or replace it "
                "without a gap: `ring-router run --take-over`."
            ) from None
        claims.append(one)
    return claims


def _running_at(address: str) -> socket.socket | None:
    """A connection to the router of this user that listens there, if there is one."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(ANSWER_SECONDS)
    try:
        connection.connect(name_of(address))
        if _is_friend(connection):
            return connection
    except OSError:
        pass
    connection.close()
    return None


def _say(connection: socket.socket, word: str, descriptors: Sequence[int] = (), **more: Any) -> None:
    data = json.dumps({"word": word, **more}).encode()
    if descriptors:
        socket.send_fds(connection, [data], descriptors)
    else:
        connection.send(data)


def _hear(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A message and its descriptors. Raises OSError, also for an end and for what is no message."""
    data, descriptors, _, _ = socket.recv_fds(connection, _BYTES, _DESCRIPTORS)
    try:
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "it is gone")
        message = json.loads(data)
        if not isinstance(message, dict):
            raise OSError(errno.EPROTO, "it says nonsense")
    except (OSError, ValueError) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise error if isinstance(error, OSError) else OSError(errno.EPROTO, "it says nonsense") from None
    return message, descriptors


class Predecessor:
    """The new one's side: the running router, whose sockets are taken."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid = peer_of(connection)[0]
        self.offers: dict[str, Offer] = {}

    @classmethod
    def find(cls, addresses: Iterable[Address]) -> Predecessor | None:
        """The router that listens on one of the addresses, with its sockets. Raises ListenError if it will not."""
        connections = (_running_at(str(address)) for address in addresses)
        connection = next((one for one in connections if one is not None), None)
        if connection is None:
            return None
        found = cls(connection)
        try:
            found._take()
        except OSError as error:
            connection.close()
            raise ListenError(
                f"cannot take over from the ring-router with pid {found.pid}: {error.strerror or error}. It serves on."
            ) from None
        return found

    def _take(self) -> None:
        _say(self._connection, "give")
        while True:
            message, descriptors = _hear(self._connection)
            if message["word"] != "sockets":
                for descriptor in descriptors:
                    os.close(descriptor)
                if message["word"] == "all":
                    return
                raise OSError(errno.EBUSY, str(message.get("why", "it refuses")))
            address = str(message["address"])
            before = self.offers.get(address, Offer(address, ()))
            sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
            self.offers[address] = Offer(address, [*before.sockets, *sockets], bool(message["is_ours"]))

    def relieve(self) -> bool:
        """Tell it that the new workers serve; whether it has let go of its names and is ending."""
        with self._connection:
            try:
                _say(self._connection, "serving")
                return bool(_hear(self._connection)[0]["word"] == "yours")
            except OSError:
                return False  # it is gone: then nobody is in the way

    def close(self) -> None:
        """Give up: to the other one this is a sign to serve on."""
        self._connection.close()
        for offer in self.offers.values():
            for one in offer.sockets:
                one.close()
        self.offers.clear()


class Successor:
    """The running one's side: somebody who wants to take over, if there is one."""

    def __init__(self, claims: list[socket.socket]) -> None:
        self._claims = claims
        self._connection: socket.socket | None = None
        self._has_sockets = False
        self.pid = 0
        self.said = ""
        """What there is to log since the last look."""

    @property
    def is_there(self) -> bool:
        return self._connection is not None

    def look(self, offers: Sequence[Offer]) -> bool:
        """Answer what was asked meanwhile; whether the new one serves."""
        self.said = ""
        for one in self._claims:
            with contextlib.suppress(OSError):
                self._greet(one.accept()[0])
        if self._connection is None:
            return False
        try:
            word = _hear(self._connection)[0].get("word")
            if word == "give" and not self._has_sockets:
                self._give(self._connection, offers)
                self.said = f"pid {self.pid} wants to take over, and has the listening sockets"
            return bool(word == "serving" and self._has_sockets)
        except BlockingIOError:
            return False
        except OSError:
            if self._has_sockets:
                self.said = f"pid {self.pid}, which wanted to take over, is gone; this router serves on"
            self._connection.close()
            self._connection, self._has_sockets = None, False
            return False

    def _greet(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        if not _is_friend(connection):
            connection.close()
        elif self._connection is not None:
            with connection, contextlib.suppress(OSError):
                _say(connection, "no", why=f"pid {self.pid} is taking over already")
        else:
            self._connection, self.pid = connection, peer_of(connection)[0]

    def _give(self, connection: socket.socket, offers: Sequence[Offer]) -> None:
        for offer in offers:
            for start in range(0, len(offer.sockets), _DESCRIPTORS):
                descriptors = [one.fileno() for one in offer.sockets[start : start + _DESCRIPTORS]]
                _say(connection, "sockets", descriptors, address=offer.address, is_ours=offer.is_ours)
        _say(connection, "all")
        self._has_sockets = True

    def yield_to(self) -> None:
        """Let go of the names, then tell the new one that they are its own."""
        self.close()
        if self._connection is not None:
            with self._connection, contextlib.suppress(OSError):
                _say(self._connection, "yours")

    def close(self) -> None:
        for one in self._claims:
            one.close()
        self._claims = []
