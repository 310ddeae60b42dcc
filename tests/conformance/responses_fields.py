"""Field lines of responses: RFC 9112 §5, RFC 9110 §5, §7.6.1 and what the router adds."""

from __future__ import annotations

from tests.conformance.case import ResponseCase, bad, ok, response
from tests.conformance.fields import GOOD_VALUES, MALFORMED, NOT_IN_NAMES
from tests.conformance.names import CONTROLS, named

_DATE = b"Date: Mon, 23 Nov 2026 11:34:13 GMT"


def _good(name: str, section: str, *fields: bytes, has: tuple[bytes, ...] = (), lacks: tuple[bytes, ...] = ()
          ) -> ResponseCase:  # fmt: skip
    """A response with these fields and the body ``ok``."""
    return ResponseCase(f"response-{name}", section, ok(*fields), body=b"ok", has=has, lacks=lacks, stays=True)


_VALUES = [_good(f"value-{name}", "9110 §5.5", b"X-A:" + value, has=(b"X-A: " + value,)) for name, value in GOOD_VALUES]

_BYTES_IN_VALUE = [
    bad(f"response-value-with-{named(byte)}", "9110 §5.5", ok(b"X-A: a" + byte + b"b")) for byte in (*CONTROLS, b"\x7f")
]
_BYTES_IN_NAME = [
    bad(f"response-name-with-{named(byte)}", "9110 §5.1", ok(b"X" + byte + b"A: b")) for byte in NOT_IN_NAMES
]
_MALFORMED = [
    bad(f"response-field-{name}", section, ok(line))
    for name, section, line in MALFORMED
    if "before-colon" not in name or "cr" in name
]

_SPACE_BEFORE_COLON = [
    ResponseCase(f"response-{name}", "9112 §5.1", raw, body=b"ok", has=has, reused=True, stays=True)
    for name, raw, has in (
        ("space-before-colon", ok(b"X-A : b"), (b"X-A: b",)),
        ("spaces-before-colon", ok(b"X-A   : b"), (b"X-A: b",)),
        ("tab-before-colon", ok(b"X-A\t: b"), (b"X-A: b",)),
        ("white-space-before-colon", ok(b"X-A \t : b"), (b"X-A: b",)),
        ("space-before-colon-without-value", ok(b"X-A :"), (b"X-A:",)),
        ("space-before-colon-of-content-length", response(b"Content-Length : 2", body=b"ok"), (b"Content-Length: 2",)),
        ("tab-before-colon-of-content-length", response(b"Content-Length\t: 2", body=b"ok"), (b"Content-Length: 2",)),
        ("space-before-colon-of-transfer-encoding",
         response(b"Transfer-Encoding : chunked", body=b"2\r\nok\r\n0\r\n\r\n"), ()),
        ("space-before-colon-of-set-cookie", ok(b"Set-Cookie : a=b"), (b"Set-Cookie: a=b",)),
    )
]  # fmt: skip

_HOP_BY_HOP = [
    _good(f"hop-by-hop-{name}", "9110 §7.6.1", *fields, b"X-B: 2", has=(b"X-B: 2", *has), lacks=lacks)
    for name, fields, has, lacks in (
        ("keep-alive", (b"Keep-Alive: timeout=5",), (), (b"keep-alive",)),
        ("proxy-connection", (b"Proxy-Connection: keep-alive",), (), (b"proxy-connection",)),
        ("proxy-authenticate", (b"Proxy-Authenticate: Basic",), (), (b"proxy-authenticate",)),
        ("te", (b"TE: trailers",), (), (b"te",)),
        ("upgrade", (b"Upgrade: h2c",), (), (b"upgrade",)),
        ("upgrade-nominated", (b"Connection: Upgrade", b"Upgrade: h2,h2c"), (), (b"upgrade", b"connection")),
        ("nominated", (b"Connection: X-A", b"X-A: 1"), (), (b"x-a", b"connection")),
        ("nominated-before", (b"X-A: 1", b"Connection: x-a"), (), (b"x-a", b"connection")),
        ("nominated-in-list", (b"Connection: close,X-A , x-c", b"X-A: 1", b"X-C: 3"), (), (b"x-a", b"x-c")),
        (
            "nominated-in-two-lines",
            (b"Connection: X-A", b"X-A: 1", b"Connection: X-C", b"X-C: 3"),
            (),
            (b"x-a", b"x-c"),
        ),
        ("nominated-repeated", (b"Connection: X-A", b"X-A: 1", b"X-A: 2"), (), (b"x-a",)),
        ("nominated-and-missing", (b"Connection: X-A",), (), (b"connection",)),
        ("nominated-with-empty-elements", (b"Connection: ,, X-A,", b"X-A: 1"), (), (b"x-a",)),
        ("nominated-set-cookie-stays", (b"Connection: Set-Cookie", b"Set-Cookie: a=b"), (b"Set-Cookie: a=b",), ()),
        ("nominated-content-length-stays", (b"Connection: Content-Length",), (b"Content-Length: 2",), ()),
        ("nominated-ring-stays", (b"Connection: X-Ring, X-Ring-Version",), (b"X-Ring: everyone",), ()),
        ("empty-connection", (b"Connection:",), (), (b"connection",)),
        ("close", (b"Connection: close",), (), (b"connection",)),
    )
]

_PASSING = [
    _good(f"field-passes-{line.partition(b':')[0].decode().lower()}", "9110 §7.7", line, has=(line,))
    for line in (
        b"Server: nginx/1.0 (x)", b"Content-Type: text/html; charset=utf-8", b"Content-Encoding: gzip",
        b"Content-Language: en, de", b"Content-Location: /a", b'ETag: W/"a"', b"Vary: Accept-Encoding, Cookie",
        b"Location: http://a/b#c", b"Cache-Control: no-store", b"Expires: 0", b"Age: 5", b"Allow: GET, HEAD",
        b"Accept-Ranges: bytes", b"Last-Modified: Mon, 23 Nov 2026 11:34:13 GMT", b"Retry-After: 120",
        b'WWW-Authenticate: Basic realm="a, b", Digest realm="c"', b"Strict-Transport-Security: max-age=1",
        b"Alt-Svc: h3=\":443\"", b"Via: 1.1 backend", b"Warning: 199 - x", b"X-Anything: 1", b"X_Under_Score: 1",
        b"Content-Range: bytes 0-1/2", b"Link: </a>; rel=preload", b"Access-Control-Allow-Origin: *",
    )
]  # fmt: skip


def _many(count: int) -> bytes:
    return ok(*(b"X-%d: %d" % (i, i) for i in range(count - 1)))


RESPONSES: list[ResponseCase] = [
    *_VALUES,
    *_BYTES_IN_VALUE,
    *_BYTES_IN_NAME,
    *_MALFORMED,
    *_SPACE_BEFORE_COLON,
    *_HOP_BY_HOP,
    *_PASSING,
    bad("response-space-before-first-field", "9112 §2.2",
        b"HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 2\r\n\r\nok"),
    bad("response-space-before-colon-and-in-name", "9110 §5.1", ok(b"X A : b")),
    bad("response-space-before-colon-of-a-second-length", "9112 §6.3", ok(b"Content-Length : 2")),
    bad("response-space-before-colon-of-length-with-coding", "9112 §6.3",
        response(b"Transfer-Encoding : chunked", b"Content-Length: 2", body=b"2\r\nok\r\n0\r\n\r\n")),
    _good("name-of-every-token-character", "9110 §5.6.2", b"!#$%&'*+-.^_`|~09AZaz: b",
          has=(b"!#$%&'*+-.^_`|~09AZaz: b",)),
    _good("set-cookies-stay-apart", "9110 §5.3", b"Set-Cookie: a=1; Path=/", b"set-cookie: b=2, c", b"Set-Cookie: a=3",
          has=(b"Set-Cookie: a=1; Path=/", b"Set-Cookie: b=2, c", b"Set-Cookie: a=3")),
    _good("repeated-field-keeps-its-order", "9110 §5.3", b"X-A: 1", b"X-B: 2", b"x-a: 3",
          has=(b"X-A: 1", b"X-A: 3", b"X-B: 2")),
    _good("date-passes", "9110 §6.6.1", _DATE, has=(_DATE,)),
    _good("via-is-not-added", "9110 §7.6.3", lacks=(b"via",)),
    _good("forged-ring-is-replaced", "9110 §16.3", b"X-Ring: canary", b"X-Ring-Version: v9",
          has=(b"X-Ring: everyone", b"X-Ring-Version: v1")),
    _good("ring-is-added", "9110 §16.3", has=(b"X-Ring: everyone", b"X-Ring-Version: v1")),
    ResponseCase("response-date-is-added", "9110 §6.6.1", ok(), body=b"ok", present=(b"Date",)),
    ResponseCase("response-date-is-added-to-an-error", "9110 §6.6.1", ok(line=b"HTTP/1.1 404 Not Found"), 404, b"ok",
                 present=(b"Date",)),
    ResponseCase("response-date-is-added-to-chunks", "9110 §6.6.1",
                 response(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), present=(b"Date",)),
    ResponseCase("response-date-is-added-to-304", "9110 §6.6.1", response(line=b"HTTP/1.1 304 Not Modified"), 304,
                 present=(b"Date",)),
    _good("fields-200", "9110 §5.4", *(b"X-%d: %d" % (i, i) for i in range(199)), has=(b"X-198: 198",)),
    bad("response-fields-201", "9110 §5.4", _many(201)),
    bad("response-fields-5000", "9110 §5.4", _many(5_000)),
    bad("response-field-over-64-kib", "9110 §5.4", ok(b"X-A: " + b"v" * 70_000)),
    bad("response-fields-over-64-kib", "9110 §5.4", ok(*(b"X-%d: " % i + b"v" * 1000 for i in range(70)))),
]  # fmt: skip
