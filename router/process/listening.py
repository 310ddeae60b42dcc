"""A worker's listening sockets: opened with the first snapshot, opened anew when their TLS changes, closed to drain.

The descriptors belong to the parent. A server here listens on a copy, so that closing it loses nobody: who waits in the
accept queue is taken by the next server on the same socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from router.core.spec import SocketSpec
from router.proxy.announced import serve_announced
from router.proxy.plane import DataPlane
from router.proxy.tls import server_context

BACKLOG: Final = 4096


class Listening:
    """One of the sockets that this worker was given."""

    def __init__(
        self, plane: DataPlane, number: int, descriptor: int, spawn: Callable[..., asyncio.Task[None]]
    ) -> None:
        self._plane = plane
        self._door = plane.door(number)
        self._spawn = spawn
        self._listener = socket.socket(fileno=descriptor)
        self._listener.setblocking(False)
        self._spec: SocketSpec | None = None
        self._server: asyncio.Server | None = None
        self._announced: asyncio.Task[None] | None = None

    async def open(self, spec: SocketSpec) -> None:
        """Serve as ``spec`` says. Raises OSError for unusable certificates; what was served so far goes on."""
        if spec == self._spec:
            return
        is_open = self._spec is not None
        if is_open and self._spec is not None and spec.tls == self._spec.tls:
            self._spec = spec  # the door knows the rest
            return
        context = server_context(spec.tls) if spec.tls is not None else None
        before, announced = self._server, self._announced
        copy = socket.socket(fileno=os.dup(self._listener.fileno()))
        copy.setblocking(False)
        if spec.proxy_protocol:
            self._announced = self._spawn(
                serve_announced(self._plane, self._door, copy, context), name="PROXY protocol"
            )
        else:
            options: dict[str, Any] = {"ssl": context, "ssl_handshake_timeout": self._plane.listener.head_timeout}
            self._server = await self._plane.loop.create_server(
                self._door.accept, sock=copy, backlog=BACKLOG, **(options if context is not None else {})
            )
        self._spec = spec
        if before is not None:
            before.close()
        if announced is not None:
            announced.cancel()

    async def close(self) -> None:
        """Take those who were told that they are connected, and nobody after them."""
        if self._spec is None:
            return
        if self._announced is not None:
            self._announced.cancel()
        await self._take_waiting()
        if self._server is not None:
            self._server.close()

    async def _take_waiting(self) -> None:
        spec = self._spec
        if spec is None or spec.proxy_protocol:
            return
        context: ssl.SSLContext | None = None
        if spec.tls is not None:
            with contextlib.suppress(OSError):
                context = server_context(spec.tls)
        for _ in range(BACKLOG):
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                await self._plane.loop.connect_accepted_socket(self._door.accept, connection, ssl=context)
