"""A new connection to an endpoint: over TCP or a unix socket, plain or TLS. Of a request's way only this awaits."""

from __future__ import annotations

import asyncio
import errno
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from router.core.standing import Event, Standing
from router.proxy.endpoint import Endpoint
from router.proxy.failures import Failure
from router.proxy.upstream import Upstream
from router.proxy.wheel import Patience

if TYPE_CHECKING:
    from router.proxy.plane import DataPlane

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
"""Of this machine, and no fault of the endpoint: descriptors, ports, memory."""


async def connect(plane: DataPlane, endpoint: Endpoint, seconds: float) -> Upstream | Failure:
    """A connection, or why there is none; the endpoint's pool gets to know of both."""
    spec, pool = endpoint.spec, endpoint.pool

    def upstream() -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, Upstream(endpoint, plane.wheel))

    try:
        options: dict[str, Any] = {}
        if spec.tls is not None:
            name = spec.tls.name or spec.name or spec.host
            name.encode("idna")  # raises UnicodeError, where uvloop would fall silent
            options = {"ssl": plane.client_context(spec.tls), "server_hostname": name}
        async with Patience(plane.wheel, seconds):
            if spec.path:
                _, protocol = await plane.loop.create_unix_connection(upstream, spec.path, **options)
            else:
                _, protocol = await plane.loop.create_connection(upstream, spec.host, spec.port, **options)
    except TimeoutError:
        endpoint.failed("timeout")
        pool.connect_failed(endpoint, monotonic(), is_timeout=True)
        return Failure.CONNECT_TIMEOUT
    except (ssl.SSLError, ValueError):  # the other one: a name that no certificate can have
        endpoint.failed("tls")
        pool.connect_failed(endpoint, monotonic(), is_timeout=False)
        return Failure.TLS_FAILED
    except OSError as error:
        if error.errno in _EXHAUSTED:
            return Failure.NO_DESCRIPTORS
        endpoint.failed("connect")
        pool.connect_failed(endpoint, monotonic(), is_timeout=False)
        return Failure.CONNECT_FAILED
    made = cast(Upstream, protocol)
    if made.is_closed:
        # It was accepted and is gone again. Lent now, it would never say so: nobody would learn that it is lost.
        endpoint.failed("reset")
        pool.strike(endpoint, monotonic())
        return Failure.UPSTREAM_RESET
    endpoint.connect_timeouts = 0
    if endpoint.standing is Standing.UNREACHABLE:
        pool.happened(endpoint, Event.CONNECTED, monotonic())
    return made
