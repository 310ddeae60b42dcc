"""One active check of one endpoint: ``check`` says what is wrong, in words, or nothing.

Each check is a connection of its own: what is asked is whether somebody new would be served, and a kept connection
answers long after a listener has died. Redirects are not followed: where they lead is not this endpoint. It must never
take longer than its timeout, and never read more than the first 64 KiB of an answer.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from yarl import URL

from router.core.spec import EndpointSpec, HealthCheckSpec

USER_AGENT: Final = "ring-router-health"
BODY_BYTES: Final = 64 * 1024
"""Of an answer that are looked at. HAProxy looks at one buffer (16 KiB), nginx at 256 KiB."""
_FIELDS: Final = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)
"""``check`` has a limit around everything; aiohttp's own would round it up to whole seconds."""


async def check(endpoint: EndpointSpec, spec: HealthCheckSpec, context: ssl.SSLContext | None) -> str:
    """Why the endpoint has failed this check; empty when it has passed. ``context`` for those that speak TLS."""
    try:
        async with asyncio.timeout(spec.timeout):
            if spec.kind == "tcp":
                return await _connect(endpoint, context)
            return await _ask(endpoint, spec, context)
    except TimeoutError:
        return f"no answer within {spec.timeout:g} s"
    except (OSError, aiohttp.ClientError, ValueError) as error:  # ValueError: a name that no certificate can have
        return words(error)


def server_name(endpoint: EndpointSpec) -> str:
    """What the endpoint's certificate has to name. Raises ``UnicodeError`` for what none can be for."""
    name = (endpoint.tls.name if endpoint.tls else "") or endpoint.name or endpoint.host
    name.encode("idna")
    return name


async def _connect(endpoint: EndpointSpec, context: ssl.SSLContext | None) -> str:
    loop = asyncio.get_running_loop()
    tls: dict[str, Any] = {} if context is None else {"ssl": context, "server_hostname": server_name(endpoint)}
    if endpoint.path:
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, endpoint.path, **tls)
    else:
        transport, _ = await loop.create_connection(asyncio.Protocol, endpoint.host, endpoint.port, **tls)
    transport.abort()
    return ""


async def _ask(endpoint: EndpointSpec, spec: HealthCheckSpec, context: ssl.SSLContext | None) -> str:
    connector: aiohttp.BaseConnector
    if endpoint.path:
        connector = aiohttp.UnixConnector(endpoint.path, force_close=True)
    else:
        connector = aiohttp.TCPConnector(force_close=True, resolver=aiohttp.ThreadedResolver(), use_dns_cache=False)
    tls: dict[str, Any] = {} if context is None else {"ssl": context, "server_hostname": server_name(endpoint)}
    async with (
        aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, timeout=_NO_TIMEOUT
        ) as session,
        session.get(
            _url(endpoint, spec), headers={**_FIELDS, "Host": _host(endpoint, spec)}, allow_redirects=False, **tls
        ) as answer,
    ):
        if not any(low <= answer.status <= high for low, high in spec.statuses):
            return _status(answer.status)
        if spec.body and not await _has(answer.content, spec.body.encode()):
            return f"{_status(answer.status)}, but the answer does not contain {spec.body!r}"
        # What has not been read is not waited for.
        answer.close()
    return ""


async def _has(content: aiohttp.StreamReader, wanted: bytes) -> bool:
    seen = bytearray()
    while len(seen) < BODY_BYTES:
        piece = await content.read(BODY_BYTES - len(seen))
        if not piece:
            break
        seen += piece
        if wanted in seen:
            return True
    return False


def _url(endpoint: EndpointSpec, spec: HealthCheckSpec) -> URL:
    scheme = "http" if endpoint.tls is None else "https"
    authority = "localhost" if endpoint.path else endpoint.address
    return URL(f"{scheme}://{authority}{spec.path}", encoded=True)


def _host(endpoint: EndpointSpec, spec: HealthCheckSpec) -> str:
    if spec.host or endpoint.path:
        return spec.host or "localhost"
    return f"{endpoint.name}:{endpoint.port}" if endpoint.name else endpoint.address


def _status(status: int) -> str:
    # The endpoint's own reason phrase would stand in the log as it is.
    known = {one.value: one.phrase for one in HTTPStatus}
    return f"{status} {known[status]}" if status in known else str(status)


async def read_whole(content: aiohttp.StreamReader, most: int) -> bytes | None:
    """All of an answer; None if it is longer than ``most`` bytes."""
    found = bytearray()
    async for piece in content.iter_any():
        found += piece
        if len(found) > most:
            return None
    return bytes(found)


def words(error: BaseException) -> str:
    """An error of a connection, as one short phrase."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return words(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return words(error.os_error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"the TLS handshake failed: {(error.reason or 'it broke off').replace('_', ' ').lower()}"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError | ConnectionAbortedError):
        return "the connection was closed before the answer"
    if isinstance(error, aiohttp.InvalidURL):  # whose own words repeat it, with whatever secret is in it
        return "the URL is not one"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer broke off"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is not HTTP"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(str(said).split())[:200] or type(error).__name__
