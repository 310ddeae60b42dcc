"""A worker's listening sockets: opened with the first snapshot, opened anew when their TLS changes, closed to drain.

The descriptors belong to the parent. A server here listens on a copy, so that closing it loses nobody: who waits in the
accept queue is taken by the next server on the same socket.

With SO_REUSEPORT the kernel spreads connections over the workers' sockets by hash, whoever is able to accept. So a
worker also holds its siblings' sockets and looks after them now and then (``look_around``): nobody waits for a worker
that is gone, stopped or busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from router.core.spec import SocketSpec
from router.proxy.announced import greet, serve_announced
from router.proxy.plane import DataPlane
from router.proxy.tls import server_context

BACKLOG: Final = 4096
TAKEN_AT_ONCE: Final = 64
"""From the siblings' queues in one look: some milliseconds of work."""
HANDSHAKE_SECONDS: Final = 1.0
"""asyncio does not say who is in the middle of a TLS handshake; this long, a server that closes waits for them."""


class Listening:
    """One of the sockets that this worker was given."""

    def __init__(
        self,
        plane: DataPlane,
        number: int,
        descriptor: int,
        spawn: Callable[..., asyncio.Task[None]],
        siblings: Sequence[int] = (),
    ) -> None:
        self._plane = plane
        self.number = number
        """Of the listener, in the order of the configuration."""
        self._door = plane.door(number)
        self._spawn = spawn
        self._listener = socket.socket(fileno=descriptor)
        self._listener.setblocking(False)
        self._siblings = {descriptor: socket.socket(fileno=descriptor) for descriptor in siblings}
        self._queues = select.poll()
        for sibling in self._siblings.values():
            sibling.setblocking(False)
            self._queues.register(sibling, select.POLLIN)
        self._spec: SocketSpec | None = None
        self._server: asyncio.Server | None = None
        self._announced: asyncio.Task[None] | None = None
        self._context: ssl.SSLContext | None = None
        self._coming: set[asyncio.Task[None]] = set()
        """Those who were accepted, and whom the data plane does not know yet."""

    def _receive(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        task = self._spawn(work, name=name)
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)
        return task

    async def open(self, spec: SocketSpec) -> None:
        """Serve as ``spec`` says. Raises OSError for unusable certificates; what was served so far goes on."""
        before = self._spec
        if before is not None and (spec.tls, spec.proxy_protocol) == (before.tls, before.proxy_protocol):
            return  # the door knows the rest
        context = server_context(spec.tls) if spec.tls is not None else None
        server, announced = self._server, self._announced
        self._server = self._announced = None
        copy = socket.socket(fileno=os.dup(self._listener.fileno()))
        copy.setblocking(False)
        if spec.proxy_protocol:
            work = serve_announced(self._plane, self._door, copy, context, self._receive)
            self._announced = self._spawn(work, name="PROXY protocol")
        else:
            self._server = await self._plane.loop.create_server(
                self._door.accept, sock=copy, backlog=BACKLOG, **self._tls(context)
            )
        self._spec, self._context = spec, context
        if server is not None:
            server.close()
        if announced is not None:
            announced.cancel()

    def _tls(self, context: ssl.SSLContext | None) -> dict[str, Any]:
        if context is None:
            return {}
        return {"ssl": context, "ssl_handshake_timeout": self._plane.listener.head_timeout}

    @property
    def is_inbound(self) -> bool:
        return self._spec is not None and self._spec.is_inbound

    def look_around(self) -> bool:
        """Take some of those who wait at the siblings' sockets, if there is room; whether there may be more.

        One system call when nobody waits, whatever the number of siblings.
        """
        spec, left = self._spec, TAKEN_AT_ONCE
        if spec is None or not self._siblings:
            return False
        for descriptor, _ in self._queues.poll(0):
            sibling = self._siblings[descriptor]
            while left and not self._plane.is_full:
                try:
                    connection, _ = sibling.accept()
                except OSError:
                    break
                left -= 1
                connection.setblocking(False)
                self._receive(self._take(connection, spec), name="waited")
        return not left

    async def close(self) -> list[asyncio.Task[None]]:
        """Take those who were told that they are connected, and nobody after them; the tasks that do.

        They end when the data plane knows everybody: before that it may look as if nobody were connected.
        """
        if self._announced is not None:
            self._announced.cancel()
        # The siblings' too: the last one to close a socket is the last one who can serve its queue.
        for listener in (self._listener, *self._siblings.values()):
            for _ in range(BACKLOG if self._spec is not None else 0):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    break
                connection.setblocking(False)
                self._receive(self._take(connection, self._spec), name="waited")
            listener.close()
        if self._server is not None:
            self._server.close()
            # Whom the loop has accepted it tells the data plane of a turn later.
            self._receive(asyncio.sleep(HANDSHAKE_SECONDS if self._context is not None else 0), name="accepted")
        self._siblings.clear()
        self._spec = None
        return list(self._coming)

    async def _take(self, connection: socket.socket, spec: SocketSpec | None) -> None:
        if spec is not None and spec.proxy_protocol:
            await greet(self._plane, self._door, connection, self._context)
            return
        with contextlib.suppress(OSError):
            options = self._tls(self._context)
            await self._plane.loop.connect_accepted_socket(self._door.accept, connection, **options)
