"""Upgrade: RFC 9110 §7.8; the one that is carried through is WebSocket, RFC 6455 §4."""

from __future__ import annotations

from tests.conformance.case import RequestCase, Seen, allowed, passed, refused, request

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = b"Upgrade: websocket"
CONNECTION = b"Connection: Upgrade"
VERSION = b"Sec-WebSocket-Version: 13"
HANDSHAKE = (UPGRADE, CONNECTION, KEY, VERSION)
_HAS = (b"Upgrade: websocket", b"Connection: upgrade", KEY, VERSION)


def _shaken(name: str, raw: bytes, *has: bytes, section: str = "6455 §4.1") -> RequestCase:
    """A handshake that the backend accepts; then the connection is a tunnel."""
    seen = Seen(has=(KEY, VERSION, *has))
    return RequestCase(
        f"websocket-{name}", section, raw, allowed(101), (seen,), is_tunnel=True,
        present=(b"Upgrade", b"Connection", b"Sec-WebSocket-Accept"),
    )  # fmt: skip


def _with(*changed: bytes) -> tuple[bytes, ...]:
    """The fields of a handshake, but for those of the same name as these."""
    names = {line.partition(b":")[0] for line in changed}
    return (*(line for line in HANDSHAKE if line.partition(b":")[0] not in names), *changed)


def _without(field: bytes) -> tuple[bytes, ...]:
    return tuple(line for line in HANDSHAKE if line != field)


_BAD = [
    refused(f"websocket-{name}", "6455 §4.2.1", raw, closed=None)
    for name, raw in (
        ("without-key", request(*_without(KEY))),
        ("with-two-keys", request(*HANDSHAKE, KEY)),
        ("with-empty-key", request(*_with(b"Sec-WebSocket-Key:"))),
        ("with-short-key", request(*_with(b"Sec-WebSocket-Key: YWJj"))),
        ("with-long-key", request(*_with(b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZjAxMjM="))),
        ("with-key-of-17-bytes", request(*_with(b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZjA="))),
        ("with-key-not-in-base64", request(*_with(b"Sec-WebSocket-Key: ????????????????????????"))),
        ("with-key-without-padding", request(*_with(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"))),
        ("by-post", request(*HANDSHAKE, line=b"POST / HTTP/1.1")),
        ("by-put", request(*HANDSHAKE, b"Content-Length: 0", line=b"PUT / HTTP/1.1")),
        ("with-body", request(*HANDSHAKE, b"Content-Length: 5", body=b"abcde")),
        ("with-chunks", request(*HANDSHAKE, b"Transfer-Encoding: chunked", body=b"5\r\nabcde\r\n0\r\n\r\n")),
    )
]

_SERVED = [
    passed(f"upgrade-{name}", "9110 §7.8", request(*lines, line=line),
           Seen(line.partition(b" ")[0], lacks=(b"upgrade", b"http2-settings")), closed=line.endswith(b"1.0"))
    for name, lines, line in (
        ("to-h2c",
         (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
         b"GET / HTTP/1.1"),
        ("to-h2c-without-settings", (CONNECTION, b"Upgrade: h2c"), b"GET / HTTP/1.1"),
        ("to-h2", (CONNECTION, b"Upgrade: h2"), b"GET / HTTP/1.1"),
        ("to-tls", (CONNECTION, b"Upgrade: TLS/1.2"), b"GET / HTTP/1.1"),
        ("to-several", (CONNECTION, b"Upgrade: HTTP/3.0, IRC/6.9"), b"GET / HTTP/1.1"),
        ("to-nothing", (CONNECTION, b"Upgrade:"), b"GET / HTTP/1.1"),
        ("to-unknown", (CONNECTION, b"Upgrade: foo/1"), b"GET / HTTP/1.1"),
        ("to-almost-websocket", (CONNECTION, b"Upgrade: websockets"), b"GET / HTTP/1.1"),
        ("nominated-without-field", (CONNECTION,), b"GET / HTTP/1.1"),
        ("without-connection", (b"Upgrade: h2c",), b"GET / HTTP/1.1"),
        ("to-h2c-by-options", (CONNECTION, b"Upgrade: h2c"), b"OPTIONS / HTTP/1.1"),
        ("to-h2c-in-http10", (CONNECTION, b"Upgrade: h2c"), b"GET / HTTP/1.0"),
        ("to-websocket-in-http10", HANDSHAKE, b"GET / HTTP/1.0"),
    )
]  # fmt: skip

REQUESTS: list[RequestCase] = [
    *_BAD,
    *_SERVED,
    _shaken("handshake", request(*HANDSHAKE), b"Upgrade: websocket"),
    _shaken("with-names-in-lower-case", request(*(line.lower() if line != KEY else line for line in HANDSHAKE)),
            b"Upgrade: websocket"),
    _shaken("with-upgrade-in-mixed-case", request(*_with(b"Upgrade: WebSocket")), b"Upgrade: websocket"),
    _shaken("with-connection-list", request(*_with(b"Connection: keep-alive, Upgrade")), b"Upgrade: websocket"),
    _shaken("with-connection-in-two-lines", request(*_with(b"Connection: keep-alive", b"Connection: upgrade")),
            b"Upgrade: websocket"),
    _shaken("with-fields-in-any-order", request(*reversed(HANDSHAKE)), b"Upgrade: websocket"),
    _shaken("with-protocols-and-extensions",
            request(*HANDSHAKE, b"Sec-WebSocket-Protocol: chat, superchat",
                    b"Sec-WebSocket-Extensions: permessage-deflate", b"Origin: http://a"),
            b"Upgrade: websocket", b"Sec-WebSocket-Protocol: chat, superchat",
            b"Sec-WebSocket-Extensions: permessage-deflate", b"Origin: http://a"),
    _shaken("with-a-length-of-zero", request(*HANDSHAKE, b"Content-Length: 0"), b"Upgrade: websocket"),
    _shaken("by-absolute-form", request(*HANDSHAKE, line=b"GET http://a/ HTTP/1.1"), b"Upgrade: websocket"),
    _shaken("nominates-fields", request(*_with(b"Connection: Upgrade, X-A"), b"X-A: 1"), b"Upgrade: websocket"),
    RequestCase("websocket-and-frames-at-once", "6455 §4.1", request(*HANDSHAKE, body=b"\x81\x00"),
                allowed(101), (Seen(has=(b"Upgrade: websocket", KEY, VERSION)),), is_tunnel=True),
    refused("websocket-version-8", "6455 §4.4", request(*_with(b"Sec-WebSocket-Version: 8")), 426, closed=None,
            has=(b"Sec-WebSocket-Version: 13",), present=(b"Upgrade",)),
    refused("websocket-version-0", "6455 §4.4", request(*_with(b"Sec-WebSocket-Version: 0")), 426, closed=None,
            has=(b"Sec-WebSocket-Version: 13",)),
    refused("websocket-version-unknown", "6455 §4.4", request(*_with(b"Sec-WebSocket-Version: 130")), 426, closed=None,
            has=(b"Sec-WebSocket-Version: 13",)),
    refused("websocket-version-missing", "6455 §4.2.1", request(*_without(VERSION)), 426, 400, closed=None),
    RequestCase("websocket-without-connection", "9110 §7.8", request(*_without(CONNECTION)), allowed((200, 400)), None,
                closed=None),
]  # fmt: skip
