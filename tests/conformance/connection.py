"""Persistence and hop-by-hop fields of requests: RFC 9112 §9, RFC 9110 §7.6.1."""

from __future__ import annotations

from tests.conformance.case import RequestCase, Seen, passed, post, request

_CLOSES = [
    passed(f"connection-{name}", "9112 §9.6", request(*lines), Seen(lacks=(b"connection",)), closed=True,
           has=(b"Connection: close",))
    for name, lines in (
        ("close", (b"Connection: close",)),
        ("close-in-upper-case", (b"Connection: CLOSE",)),
        ("close-in-mixed-case", (b"Connection: Close",)),
        ("close-without-space", (b"Connection:close",)),
        ("close-with-white-space-around", (b"Connection: \t close \t",)),
        ("close-then-another", (b"Connection: close, x",)),
        ("close-behind-another", (b"Connection: x, close",)),
        ("close-behind-another-without-space", (b"Connection: x,close",)),
        ("close-with-tabs-in-list", (b"Connection: x\t,\tclose",)),
        ("close-with-empty-elements", (b"Connection: ,, close,",)),
        ("close-and-keep-alive", (b"Connection: close, keep-alive",)),
        ("keep-alive-and-close", (b"Connection: keep-alive, close",)),
        ("close-in-a-second-line", (b"Connection: x", b"Connection: close")),
        ("close-in-a-first-line", (b"Connection: close", b"Connection: keep-alive")),
        ("close-and-keep-alive-field", (b"Connection: close", b"Keep-Alive: timeout=5, max=100")),
    )
]  # fmt: skip

_STAYS = [
    passed(f"connection-{name}", "9112 §9.3", request(*lines), Seen(lacks=(b"connection", b"keep-alive")))
    for name, lines in (
        ("none", ()),
        ("keep-alive", (b"Connection: keep-alive",)),
        ("keep-alive-in-mixed-case", (b"Connection: Keep-Alive",)),
        ("keep-alive-with-its-field", (b"Connection: keep-alive", b"Keep-Alive: timeout=5, max=100")),
        ("keep-alive-field-alone", (b"Keep-Alive: timeout=5",)),
        ("empty", (b"Connection:",)),
        ("of-commas", (b"Connection: , ,,",)),
        ("of-an-unknown-option", (b"Connection: x",)),
        ("of-closed", (b"Connection: closed",)),
        ("of-clos", (b"Connection: clos",)),
        ("of-x-close", (b"Connection: x-close",)),
        ("of-close-with-space-within", (b"Connection: clo se",)),
        ("proxy-connection-close", (b"Proxy-Connection: close",)),
        ("close-in-another-field", (b"X-Connection: close",)),
    )
]

_HTTP10 = [
    passed(f"http10-{name}", "9112 §9.3", request(*lines, line=b"GET / HTTP/1.0"), Seen(lacks=(b"connection",)),
           closed=closed, has=has, lacks=(b"transfer-encoding",))
    for name, lines, closed, has in (
        ("closes", (), True, ()),
        ("with-keep-alive", (b"Connection: keep-alive",), False, (b"Connection: keep-alive",)),
        ("with-keep-alive-in-mixed-case", (b"Connection: Keep-Alive",), False, (b"Connection: keep-alive",)),
        ("with-keep-alive-in-a-list", (b"Connection: x, keep-alive",), False, (b"Connection: keep-alive",)),
        ("with-keep-alive-and-close", (b"Connection: keep-alive, close",), True, ()),
        ("with-close", (b"Connection: close",), True, ()),
        ("with-keep-alive-field-alone", (b"Keep-Alive: timeout=5",), True, ()),
        ("with-proxy-connection", (b"Proxy-Connection: keep-alive",), True, ()),
        ("with-unknown-option", (b"Connection: x",), True, ()),
    )
]  # fmt: skip

_ALWAYS_REMOVED = [
    passed(f"hop-by-hop-{name.decode().lower()}", "9110 §7.6.1", request(name + b": " + value, b"X-A: b"),
           Seen(has=(b"X-A: b",), lacks=(name.lower(),)))
    for name, value in (
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Connection", b"keep-alive"),
        (b"Proxy-Authorization", b"Basic YTpi"),
        (b"Proxy-Authenticate", b"Basic"),
        (b"TE", b"trailers"),
        (b"Upgrade", b"foo"),
    )
]  # fmt: skip

_PROTECTED = [
    passed(f"nominated-{name.decode().lower()}-stays", "9110 §7.6.1",
           request(b"Connection: " + name, name + b": " + value), Seen(has=(name + b": " + value,)))
    for name, value in (
        (b"Cookie", b"a=b"),
        (b"Authorization", b"Basic YTpi"),
        (b"X-Request-Id", b"mine"),
    )
]  # fmt: skip

REQUESTS: list[RequestCase] = [
    *_CLOSES,
    *_STAYS,
    *_HTTP10,
    *_ALWAYS_REMOVED,
    *_PROTECTED,
    passed("nominated-field", "9110 §7.6.1", request(b"Connection: X-A", b"X-A: 1", b"X-B: 2"),
           Seen(has=(b"X-B: 2",), lacks=(b"x-a",))),
    passed("nominated-before-the-connection-field", "9110 §7.6.1", request(b"X-A: 1", b"Connection: x-a"),
           Seen(lacks=(b"x-a",))),
    passed("nominated-in-other-case", "9110 §7.6.1", request(b"Connection: x-A", b"X-a: 1"), Seen(lacks=(b"x-a",))),
    passed("nominated-several", "9110 §7.6.1", request(b"Connection: X-A,X-B , X-C", b"X-A: 1", b"X-B: 2", b"X-C: 3"),
           Seen(lacks=(b"x-a", b"x-b", b"x-c"))),
    passed("nominated-in-two-lines", "9110 §7.6.1",
           request(b"Connection: X-A", b"X-A: 1", b"X-B: 2", b"Connection: X-B"), Seen(lacks=(b"x-a", b"x-b"))),
    passed("nominated-repeated-field", "9110 §7.6.1", request(b"Connection: X-A", b"X-A: 1", b"X-A: 2"),
           Seen(lacks=(b"x-a",))),
    passed("nominated-with-close", "9110 §7.6.1", request(b"Connection: close, X-A", b"X-A: 1"), Seen(lacks=(b"x-a",)),
           closed=True),
    passed("nominated-with-keep-alive", "9110 §7.6.1", request(b"Connection: keep-alive, X-A", b"X-A: 1"),
           Seen(lacks=(b"x-a",))),
    passed("nominated-and-missing", "9110 §7.6.1", request(b"Connection: X-A"), Seen(lacks=(b"x-a",))),
    passed("nominated-with-empty-elements", "9110 §7.6.1", request(b"Connection: ,X-A,,", b"X-A: 1"),
           Seen(lacks=(b"x-a",))),
    passed("nominated-field-without-space", "9110 §7.6.1", request(b"Connection: X-A", b"X-A:1"),
           Seen(lacks=(b"x-a",))),
    passed("nominated-in-http10", "9110 §7.6.1", request(b"Connection: X-A", b"X-A: 1", line=b"GET / HTTP/1.0"),
           Seen(lacks=(b"x-a",)), closed=True),
    passed("nominated-te", "9110 §10.1.4", request(b"Connection: TE", b"TE: trailers, gzip;q=0.5"),
           Seen(lacks=(b"te",))),
    passed("nominated-http2-settings", "9110 §7.6.1",
           request(b"Connection: HTTP2-Settings", b"HTTP2-Settings: AAMAAABk"),
           Seen(lacks=(b"http2-settings",))),
    passed("nominated-via-is-added-anyway", "9110 §7.6.1", request(b"Connection: Via", b"X-A: 1"),
           Seen(has=(b"Via: 1.1 ring-router",))),
    passed("nominated-host-stays", "9110 §7.6.1", request(b"Connection: Host"), Seen(has=(b"Host: a",))),
    passed("nominated-content-length-stays", "9110 §7.6.1",
           post(b"Connection: Content-Length", b"Content-Length: 5", body=b"abcde"),
           Seen(b"POST", body=b"abcde", has=(b"Content-Length: 5",))),
    passed("nominated-transfer-encoding-stays", "9110 §7.6.1",
           post(b"Connection: Transfer-Encoding", b"Transfer-Encoding: chunked", body=b"5\r\nabcde\r\n0\r\n\r\n"),
           Seen(b"POST", body=b"abcde", has=(b"Transfer-Encoding: chunked",))),
    passed("nominated-ring-stays", "9110 §7.6.1", request(b"Connection: X-Ring, X-Ring-Version"),
           Seen(has=(b"X-Ring: everyone", b"X-Ring-Version: v1"))),
    passed("nominated-forwarded-stays", "9110 §7.6.1",
           request(b"Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Forwarded"),
           Seen(has=(b"X-Forwarded-For: 127.0.0.1", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: a"))),
    passed("nominated-cookie-among-others", "9110 §7.6.1",
           request(b"Connection: X-A, Cookie, close", b"X-A: 1", b"Cookie: a=b"),
           Seen(has=(b"Cookie: a=b",), lacks=(b"x-a",)), closed=True),
    passed("close-ends-a-pipeline", "9112 §9.6",
           request(b"Connection: close", line=b"GET /1 HTTP/1.1") + request(line=b"GET /2 HTTP/1.1"),
           Seen(target=b"/1"), closed=True),
    passed("close-behind-a-body-ends-a-pipeline", "9112 §9.6",
           post(b"Connection: close", b"Content-Length: 2", body=b"ab" + request(line=b"GET /2 HTTP/1.1")),
           Seen(b"POST", body=b"ab"), closed=True),
    passed("http10-ends-a-pipeline", "9112 §9.3",
           request(line=b"GET /1 HTTP/1.0") + request(line=b"GET /2 HTTP/1.0"), Seen(target=b"/1"), closed=True),
    passed("http10-kept-alive-twice", "9112 §9.3",
           request(b"Connection: keep-alive", line=b"GET /1 HTTP/1.0")
           + request(b"Connection: keep-alive", line=b"GET /2 HTTP/1.0"), Seen(target=b"/1"), Seen(target=b"/2")),
    passed("http10-kept-alive-with-body", "9112 §9.3",
           post(b"Connection: keep-alive", b"Content-Length: 5", line=b"POST / HTTP/1.0", body=b"abcde"),
           Seen(b"POST", body=b"abcde")),
    passed("http10-kept-alive-head", "9112 §9.3", request(b"Connection: keep-alive", line=b"HEAD / HTTP/1.0"),
           Seen(b"HEAD")),
]  # fmt: skip
