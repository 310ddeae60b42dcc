"""A listening socket as its connections see it: which scheme, what is said on every response, where it redirects to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from router.core.spec import SocketSpec
from router.proxy.downstream import Downstream

if TYPE_CHECKING:
    from router.proxy.plane import DataPlane


class Door:
    """One listening socket. Its connections keep it, so that a changed configuration reaches them too."""

    __slots__ = ("_plane", "hsts", "is_outbound", "is_unix", "redirect_port", "scheme")

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self.scheme = b"http"
        self.is_unix = False
        self.is_outbound = False
        """Whether the application's own calls come in here: the ring that they carry is believed."""
        self.hsts = b""
        """A field line, or nothing (RFC 6797: over TLS only)."""
        self.redirect_port = 0
        """Of https, where all clients of this socket are sent to; 0: they are served."""

    def update(self, spec: SocketSpec) -> None:
        self.is_unix = spec.address.startswith("unix:")
        self.is_outbound = spec.is_outbound
        self.scheme = b"http" if spec.tls is None else b"https"
        seconds = 0 if spec.tls is None else spec.tls.hsts_seconds
        self.hsts = b"Strict-Transport-Security: max-age=%d" % seconds if seconds else b""
        self.redirect_port = spec.redirect_port

    def own(self, response: bytes) -> bytes:
        """A response that the router makes itself, with what this socket says on every one."""
        return response.replace(b"\r\n", b"\r\n%b\r\n" % self.hsts, 1) if self.hsts else response

    def accept(self) -> asyncio.BaseProtocol:
        """A new client's connection. Not a subclass of asyncio's protocols: nothing of theirs is needed."""
        return cast(asyncio.BaseProtocol, Downstream(self._plane, self, b""))

    def accept_announced(self, address: bytes) -> asyncio.BaseProtocol:
        """A connection whose client another proxy has named (PROXY protocol)."""
        return cast(asyncio.BaseProtocol, Downstream(self._plane, self, address))
