"""WebSocket handshakes (RFC 6455 §4): the only way out of HTTP here, and only for what was asked. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from router.proxy.failures import Failure
from router.proxy.forwarding import connection_options
from router.proxy.heads import RequestHead, ResponseHead, values

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = b"13"
_KEY_BYTES: Final = 16
UPGRADE_LINES: Final = (b"Connection: Upgrade", b"Upgrade: websocket")


def wants_websocket(head: RequestHead) -> bool:
    """Whether it asks for WebSocket; any other protocol is not offered, and the request served as it is (§7.8)."""
    if head.upgrade is None or head.connection is None or head.start.is_http10:
        return False
    return b"websocket" in connection_options(head.upgrade) and b"upgrade" in connection_options(head.connection)


def check_handshake(head: RequestHead) -> Failure | None:
    """What is wrong with a client's handshake (RFC 6455 §4.2.1)."""
    keys = values(head.lines, b"sec-websocket-key")
    if head.start.method != b"GET" or head.length > 0 or head.chunked or len(keys) != 1 or not _is_key(keys[0]):
        return Failure.BAD_HANDSHAKE
    if values(head.lines, b"sec-websocket-version") != [_VERSION]:
        return Failure.UPGRADE_REQUIRED
    return None


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def is_accepted(head: ResponseHead, key: bytes) -> bool:
    """Whether a 101 is the answer to the handshake with this key (RFC 6455 §4.1); never for none."""
    digest = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    return (
        key != b""
        and head.upgrade is not None
        and head.upgrade.lower() == b"websocket"
        and head.connection is not None
        and b"upgrade" in connection_options(head.connection)
        and values(head.lines, b"sec-websocket-accept") == [digest]
    )
