"""Connections that begin with a PROXY header, which comes before TLS: it is read from the socket, and no byte more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from router.proxy.client import proxy_header
from router.proxy.failures import Failure
from router.proxy.grammar import FramingError
from router.proxy.wheel import Patience

if TYPE_CHECKING:
    from router.proxy.door import Door
    from router.proxy.plane import DataPlane

_LONGEST: Final = 16 + 65_535
_PAUSE_SECONDS: Final = 0.1
"""When there is no descriptor for another connection."""


async def serve_announced(
    plane: DataPlane,
    door: Door,
    listener: socket.socket,
    context: ssl.SSLContext | None,
    spawn: Callable[..., asyncio.Task[None]],
) -> None:
    """Accept until cancelled; each connection is read by a task of its own, for as long as a head may take."""
    loop = asyncio.get_running_loop()
    with listener:
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if plane.is_full:
                plane.tally.answered(Failure.TOO_MANY_CONNECTIONS.value.word)
                connection.close()
                continue
            spawn(greet(plane, door, connection, context), name="PROXY header")


async def greet(plane: DataPlane, door: Door, connection: socket.socket, context: ssl.SSLContext | None) -> None:
    """Read who it is, then serve it."""
    plane.greeting += 1
    try:
        async with Patience(plane.wheel, plane.listener.head_timeout):
            try:
                address = await _client_of(connection)
            finally:
                plane.greeting -= 1
            await plane.loop.connect_accepted_socket(lambda: door.accept_announced(address), connection, ssl=context)
    except (OSError, EOFError, TimeoutError, FramingError) as error:
        if isinstance(error, FramingError):
            plane.tally.answered("bad_proxy_header")
        connection.close()


async def _client_of(connection: socket.socket) -> bytes:
    """The address in the header; empty where it has none. Raises FramingError, EOFError, OSError."""
    read = b""
    while True:
        await _readable(connection)
        more = connection.recv(_LONGEST, socket.MSG_PEEK)
        if not more:
            raise EOFError
        header = proxy_header(read + more)
        if header is not None:
            length, address = header
            connection.recv(length - len(read))
            return address
        read += connection.recv(len(more))


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _wake, ready)
    try:
        await ready
    finally:
        with contextlib.suppress(OSError, ValueError):
            loop.remove_reader(connection)
