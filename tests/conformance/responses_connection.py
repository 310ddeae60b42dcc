"""What a response means for the two connections: RFC 9112 §9; and switching protocols: RFC 9110 §7.8, RFC 6455 §4."""

from __future__ import annotations

from tests.conformance.case import ResponseCase, bad, ok, post, request, response
from tests.conformance.upgrade import HANDSHAKE
from tests.conformance.wire import ACCEPT, SWITCHING

CLOSING = request(b"Connection: close")
CHUNKS = b"2\r\nok\r\n0\r\n\r\n"
_EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
_101 = b"HTTP/1.1 101 Switching Protocols"
_ACCEPT = b"Sec-WebSocket-Accept: " + ACCEPT
_SHAKING = request(*HANDSHAKE)

_REUSE = [
    ResponseCase(f"backend-{name}", "9112 §9.3", ok(*fields, line=line), body=b"ok", reused=reused, stays=True,
                 lacks=(b"connection", b"keep-alive"))
    for name, fields, line, reused in (
        ("says-nothing", (), b"HTTP/1.1 200 OK", True),
        ("keeps-alive", (b"Connection: keep-alive",), b"HTTP/1.1 200 OK", True),
        ("keeps-alive-in-mixed-case", (b"Connection: Keep-Alive",), b"HTTP/1.1 200 OK", True),
        ("closes", (b"Connection: close",), b"HTTP/1.1 200 OK", False),
        ("closes-in-upper-case", (b"Connection: CLOSE",), b"HTTP/1.1 200 OK", False),
        ("closes-in-a-list", (b"Connection: x, close",), b"HTTP/1.1 200 OK", False),
        ("closes-in-a-list-first", (b"Connection: Close ,x",), b"HTTP/1.1 200 OK", False),
        ("closes-in-a-second-line", (b"Connection: x", b"Connection: close"), b"HTTP/1.1 200 OK", False),
        ("closes-and-keeps-alive", (b"Connection: keep-alive, close",), b"HTTP/1.1 200 OK", False),
        ("says-closed", (b"Connection: closed",), b"HTTP/1.1 200 OK", True),
        ("of-http10-closes", (), b"HTTP/1.0 200 OK", False),
        ("of-http10-keeps-alive", (b"Connection: keep-alive",), b"HTTP/1.0 200 OK", True),
        ("of-http10-keeps-alive-in-a-list", (b"Connection: x, Keep-Alive",), b"HTTP/1.0 200 OK", True),
        ("of-http10-keeps-alive-and-closes", (b"Connection: keep-alive, close",), b"HTTP/1.0 200 OK", False),
        ("of-http10-with-keep-alive-field", (b"Keep-Alive: timeout=5",), b"HTTP/1.0 200 OK", False),
    )
]  # fmt: skip

_BEHIND = [
    ResponseCase(f"bytes-behind-{name}", "9112 §6.3", raw, body=b"ok", reused=False)
    for name, raw in (
        ("a-length", ok() + b"x"),
        ("a-length-an-empty-line", ok() + b"\r\n"),
        ("a-length-a-bare-lf", ok() + b"\n"),
        ("a-length-a-response", ok() + _EVIL),
        ("a-length-two-responses", ok() + _EVIL + _EVIL),
        ("a-length-half-a-response", ok() + b"HTTP/1.1 200 OK\r\nContent-"),
        ("a-length-an-interim-response", ok() + b"HTTP/1.1 103 Early\r\n\r\n"),
        ("chunks", response(b"Transfer-Encoding: chunked", body=CHUNKS) + b"x"),
        ("chunks-an-empty-line", response(b"Transfer-Encoding: chunked", body=CHUNKS) + b"\r\n"),
        ("chunks-a-response", response(b"Transfer-Encoding: chunked", body=CHUNKS) + _EVIL),
        ("chunks-a-chunk", response(b"Transfer-Encoding: chunked", body=CHUNKS) + CHUNKS),
    )
]

_CLIENTS = [
    ResponseCase("client-closes", "9112 §9.6", ok(), body=b"ok", ask=CLOSING, has=(b"Connection: close",), reused=True,
                 stays=False),
    ResponseCase("client-closes-and-backend-too", "9112 §9.6", ok(b"Connection: close"), body=b"ok", ask=CLOSING,
                 has=(b"Connection: close",), reused=False, stays=False),
    ResponseCase("client-closes-with-chunks", "9112 §9.6", response(b"Transfer-Encoding: chunked", body=CHUNKS),
                 body=b"ok", ask=CLOSING, has=(b"Connection: close",), framing="chunked", reused=True, stays=False),
    ResponseCase("client-of-http10", "9112 §9.3", ok(), body=b"ok", ask=request(line=b"GET / HTTP/1.0"),
                 framing="length", reused=True, stays=False),
    ResponseCase("client-of-http10-kept-alive", "9112 §9.3", ok(), body=b"ok", has=(b"Connection: keep-alive",),
                 ask=request(b"Connection: keep-alive", line=b"GET / HTTP/1.0"), framing="length", reused=True,
                 stays=True),
    ResponseCase("client-of-http10-kept-alive-backend-closes", "9112 §9.3", ok(b"Connection: close"), body=b"ok",
                 ask=request(b"Connection: keep-alive", line=b"GET / HTTP/1.0"), has=(b"Connection: keep-alive",),
                 reused=False, stays=True),
    ResponseCase("client-of-http12", "9110 §2.5", response(b"Transfer-Encoding: chunked", body=CHUNKS), body=b"ok",
                 ask=request(line=b"GET / HTTP/1.2"), framing="chunked", reused=True, stays=True),
    *(
        ResponseCase(f"response-to-{method.decode().lower()}", "9110 §9", ok(), body=b"ok", reused=True, stays=True,
                     ask=post(b"Content-Length: 3", body=b"abc", line=method + b" / HTTP/1.1"))
        for method in (b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"GET", b"FOO", b"head")
    ),
    ResponseCase("response-to-chunks", "9112 §7.1", ok(), body=b"ok", reused=True, stays=True,
                 ask=post(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n")),
    ResponseCase("response-201-to-put", "9110 §9.3.4", response(b"Content-Length: 0", line=b"HTTP/1.1 201 Created"),
                 201,
                 ask=post(b"Content-Length: 3", body=b"abc", line=b"PUT / HTTP/1.1"), reused=True, stays=True),
    ResponseCase("backend-closes-behind-its-response", "9112 §9.6", ok(), body=b"ok", closes="eof", reused=False,
                 stays=True),
]  # fmt: skip


def _switching(name: str, *fields: bytes, section: str = "6455 §4.1") -> ResponseCase:
    """A switch that may not be passed on."""
    return ResponseCase(f"switching-{name}", section, response(*fields, line=_101), 502, ask=_SHAKING, reused=False)


_UPGRADE, _CONNECTION = b"Upgrade: websocket", b"Connection: Upgrade"

_SWITCHING = [
    ResponseCase("switching", "6455 §4.1", SWITCHING, 101, ask=_SHAKING, reused=False, has=(_ACCEPT, _UPGRADE),
                 present=(b"Connection",)),
    ResponseCase("switching-with-frames-at-once", "6455 §4.1", SWITCHING + b"\x81\x02hi", 101, b"\x81\x02hi",
                 ask=_SHAKING, reused=False),
    ResponseCase("switching-and-close", "6455 §4.1", SWITCHING + b"\x88\x00", 101, b"\x88\x00", ask=_SHAKING,
                 closes="eof", reused=False, stays=False),
    ResponseCase("switching-behind-an-interim-response", "9110 §15.2", b"HTTP/1.1 103 Early\r\n\r\n" + SWITCHING, 101,
                 ask=_SHAKING, interim=(103,), reused=False),
    ResponseCase("switching-in-other-case", "6455 §4.1",
                 response(b"upgrade: WebSocket", b"connection: keep-alive, UPGRADE", _ACCEPT, line=_101), 101,
                 ask=_SHAKING, reused=False),
    ResponseCase("switching-with-a-protocol", "6455 §4.1",
                 response(_UPGRADE, _CONNECTION, _ACCEPT, b"Sec-WebSocket-Protocol: chat", line=_101), 101,
                 ask=_SHAKING,
                 has=(b"Sec-WebSocket-Protocol: chat",), reused=False),
    _switching("without-accept", _UPGRADE, _CONNECTION),
    _switching("with-wrong-accept", _UPGRADE, _CONNECTION, b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    _switching("with-accept-in-lower-case", _UPGRADE, _CONNECTION, b"Sec-WebSocket-Accept: " + ACCEPT.lower()),
    _switching("with-empty-accept", _UPGRADE, _CONNECTION, b"Sec-WebSocket-Accept:"),
    _switching("without-upgrade", _CONNECTION, _ACCEPT),
    _switching("to-something-else", b"Upgrade: h2c", _CONNECTION, _ACCEPT, section="9110 §7.8"),
    _switching("without-connection", _UPGRADE, _ACCEPT),
    _switching("with-another-connection", _UPGRADE, b"Connection: keep-alive", _ACCEPT),
    bad("switching-nobody-asked-for", "9110 §7.8", SWITCHING),
    bad("switching-to-h2c-nobody-asked-for", "9110 §7.8",
        response(b"Upgrade: h2c", _CONNECTION, line=_101)),
    bad("switching-without-fields-nobody-asked-for", "9110 §7.8", response(line=_101)),
    ResponseCase("switching-to-h2c-that-was-asked-for", "9110 §7.8", response(b"Upgrade: h2c", _CONNECTION, line=_101),
                 502, ask=request(_CONNECTION, b"Upgrade: h2c"), reused=False),
    ResponseCase("switching-to-http10", "9110 §7.8", SWITCHING, 502, reused=False,
                 ask=request(*HANDSHAKE, line=b"GET / HTTP/1.0")),
    *(
        ResponseCase(f"handshake-answered-by-{status}", "6455 §4.1", ok(b"X-A: 1", line=b"HTTP/1.1 %d No" % status),
                     status, b"ok", ask=_SHAKING, has=(b"X-A: 1",))
        for status in (200, 302, 400, 401, 403, 404, 426, 500, 503)
    ),
    ResponseCase("handshake-answered-by-chunks", "6455 §4.1", response(b"Transfer-Encoding: chunked", body=CHUNKS),
                 body=b"ok", ask=_SHAKING),
    ResponseCase("handshake-answered-by-rubbish", "6455 §4.1", b"rubbish\r\n\r\n", 502, ask=_SHAKING, reused=False),
    ResponseCase("handshake-answered-by-close", "6455 §4.1", b"", 502, ask=_SHAKING, closes="eof", reused=False),
    ResponseCase("handshake-refused-for-its-version", "6455 §4.4",
                 ok(b"Sec-WebSocket-Version: 13, 8", line=b"HTTP/1.1 426 Upgrade Required"), 426, b"ok", ask=_SHAKING,
                 has=(b"Sec-WebSocket-Version: 13, 8",)),
]  # fmt: skip

RESPONSES: list[ResponseCase] = [*_REUSE, *_BEHIND, *_CLIENTS, *_SWITCHING]
