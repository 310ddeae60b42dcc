"""The request line: RFC 9112 §3, and what comes before it (§2.2)."""

from __future__ import annotations

from tests.conformance.case import RequestCase, Seen, passed, refused, request
from tests.conformance.names import CONTROLS, DELIMITERS, named

_LONG_TARGET = b"/" + b"a" * (16 * 1024 - 1)

_METHODS = [
    passed(f"method-{method.decode().lower()}", "9110 §9.1", request(line=method + b" / HTTP/1.1"), Seen(method))
    for method in (
        b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PURGE", b"PROPFIND", b"MKCOL", b"QUERY", b"M-SEARCH"
    )
]  # fmt: skip

_NOT_A_TOKEN = [
    refused(f"method-with-{named(byte)}", "9110 §9.1", request(line=b"GE" + byte + b"T / HTTP/1.1"))
    for byte in (*DELIMITERS, *CONTROLS, b"\x7f", b"\x80", b"\xff")
]

_VERSIONS_REFUSED = [
    refused(f"version-{version.decode('latin-1')}", "9112 §2.3", request(line=b"GET / " + version))
    for version in (
        b"http/1.1", b"Http/1.1", b"hTTP/1.1", b"HTTP/1.10", b"HTTP/11.1", b"HTTP/01.1", b"HTTP/1.01", b"HTTP/1",
        b"HTTP/1.", b"HTTP/.1", b"HTTP/", b"HTTP", b"HTTP/1,1", b"HTTP/1.1.1", b"HTTP/a.b", b"HTTP/1.x", b"HTTP/x.1",
        b"HTTP/+1.1", b"HTTP/-1.1", b"HTTP-1.1", b"HTTP1.1", b"HTTP//1.1", b"HTP/1.1", b"HTTPS/1.1", b"RTSP/1.0",
        b"ICE/1.0", b"SIP/2.0", b"HTTP/1.1;", b"HTTP/\xb9.1", b"1.1", b"HTTP\\1.1", b"XHTTP/1.1",
    )
]  # fmt: skip

_OTHER_MAJORS = [
    refused(f"version-{version.decode()}", "9110 §2.5", request(line=b"GET / HTTP/" + version), 505)
    for version in (b"0.0", b"0.9", b"2.0", b"2.1", b"3.0", b"9.9")
]

_LATER_MINORS = [
    passed(f"version-1.{minor}", "9110 §2.5", request(line=b"GET / HTTP/1.%d" % minor)) for minor in range(2, 10)
]

_MALFORMED = [
    refused(name, "9112 §3", line + b"\r\nHost: a\r\n\r\n")
    for name, line in (
        ("line-with-two-spaces-before-target", b"GET  / HTTP/1.1"),
        ("line-with-two-spaces-before-version", b"GET /  HTTP/1.1"),
        ("line-with-tab-before-target", b"GET\t/ HTTP/1.1"),
        ("line-with-tab-before-version", b"GET /\tHTTP/1.1"),
        ("line-with-tabs-and-spaces", b"GET \t/ \tHTTP/1.1"),
        ("line-with-form-feed-as-space", b"GET\x0c/\x0cHTTP/1.1"),
        ("line-with-vertical-tab-as-space", b"GET\x0b/ HTTP/1.1"),
        ("line-with-nbsp-as-space", b"GET\xa0/ HTTP/1.1"),
        ("line-with-space-at-the-end", b"GET / HTTP/1.1 "),
        ("line-with-tab-at-the-end", b"GET / HTTP/1.1\t"),
        ("line-with-space-in-front", b" GET / HTTP/1.1"),
        ("line-with-tab-in-front", b"\tGET / HTTP/1.1"),
        ("line-without-version", b"GET /"),
        ("line-without-version-but-its-space", b"GET / "),
        ("line-without-target", b"GET HTTP/1.1"),
        ("line-with-empty-target", b"GET  HTTP/1.1"),
        ("line-without-method", b"/ HTTP/1.1"),
        ("line-with-empty-method", b" / HTTP/1.1"),
        ("line-of-a-method", b"GET"),
        ("line-of-one-space", b" "),
        ("line-with-words-behind", b"GET / HTTP/1.1 x"),
        ("line-with-version-twice", b"GET / HTTP/1.1 HTTP/1.1"),
        ("line-with-versions-joined", b"GET / HTTP/1.1HTTP/1.1"),
        ("line-with-space-in-version", b"GET / HTTP /1.1"),
        ("line-with-space-behind-slash", b"GET / HTTP/ 1.1"),
        ("line-with-space-in-target", b"GET /a b HTTP/1.1"),
        ("line-with-colon-method", b"GET: / HTTP/1.1"),
        ("line-that-is-a-field", b"Host: a"),
        ("line-that-is-a-status-line", b"HTTP/1.1 200 OK"),
        ("line-with-cr-in-target", b"GET /\r HTTP/1.1"),
        ("line-with-cr-in-front", b"\rGET / HTTP/1.1"),
        ("line-with-cr-twice-at-the-end", b"GET / HTTP/1.1\r"),
        ("line-with-cr-for-space", b"GET\r/ HTTP/1.1"),
        ("line-with-nul-at-the-end", b"GET / HTTP/1.1\x00"),
        ("line-with-byte-order-mark", b"\xef\xbb\xbfGET / HTTP/1.1"),
        ("line-of-binary", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    )
]

REQUESTS: list[RequestCase] = [
    *_METHODS,
    passed("method-in-lower-case-is-another", "9110 §9.1", request(line=b"get / HTTP/1.1"), Seen(b"get")),
    passed(
        "method-of-every-token-character",
        "9110 §5.6.2",
        request(line=b"!#$%&'*+-.^_`|~09AZaz / HTTP/1.1"),
        Seen(b"!#$%&'*+-.^_`|~09AZaz"),
    ),
    passed("method-of-one-letter", "9110 §9.1", request(line=b"A / HTTP/1.1"), Seen(b"A")),
    passed("method-of-64-letters", "9110 §9.1", request(line=b"M" * 64 + b" / HTTP/1.1"), Seen(b"M" * 64)),
    passed("method-head", "9110 §9.3.2", request(line=b"HEAD / HTTP/1.1"), Seen(b"HEAD")),
    *_NOT_A_TOKEN,
    refused("method-connect", "9110 §9.3.6", request(line=b"CONNECT a:80 HTTP/1.1", host=b"Host: a:80"), 405,
            present=(b"Allow",)),
    refused("method-connect-ipv6", "9110 §9.3.6", request(line=b"CONNECT [::1]:80 HTTP/1.1", host=b"Host: [::1]:80"),
            405, present=(b"Allow",)),
    refused("method-connect-without-port", "9112 §3.2.3", request(line=b"CONNECT a HTTP/1.1"), 400, 405),
    refused("method-connect-origin-form", "9112 §3.2.3", request(line=b"CONNECT / HTTP/1.1"), 400, 405),
    refused("method-connect-absolute-form", "9112 §3.2.3", request(line=b"CONNECT http://a/ HTTP/1.1"), 400, 405),
    refused("method-connect-with-bytes-behind", "9110 §9.3.6",
            request(line=b"CONNECT a:80 HTTP/1.1", body=b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"), 405),
    refused("method-connect-http10", "9110 §9.3.6", request(line=b"CONNECT a:80 HTTP/1.0", host=None), 400, 405),
    refused("method-trace", "9110 §9.3.8", request(line=b"TRACE / HTTP/1.1"), 405, closed=None, present=(b"Allow",)),
    refused("method-trace-max-forwards-0", "9110 §9.3.8", request(b"Max-Forwards: 0", line=b"TRACE / HTTP/1.1"), 405,
            closed=None),
    refused("method-trace-with-body", "9110 §9.3.8",
            request(b"Content-Length: 5", line=b"TRACE / HTTP/1.1", body=b"abcde"), 405, closed=None),
    *_VERSIONS_REFUSED,
    *_OTHER_MAJORS,
    *_LATER_MINORS,
    refused("version-2.0-without-host", "9110 §2.5", request(line=b"GET / HTTP/2.0", host=None), 505, 400),
    refused("http2-preface", "9113 §3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, 400),
    refused("http2-preface-with-a-frame", "9113 §3.4",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 505, 400),
    *_MALFORMED,
    passed("empty-line-in-front", "9112 §2.2", b"\r\n" + request()),
    refused("two-empty-lines-in-front", "9112 §2.2", b"\r\n\r\n" + request()),
    refused("three-empty-lines-in-front", "9112 §2.2", b"\r\n\r\n\r\n" + request()),
    refused("bare-lf-in-front", "9112 §2.2", b"\n" + request()),
    refused("bare-lf-twice-in-front", "9112 §2.2", b"\n\n" + request()),
    refused("empty-line-and-bare-lf-in-front", "9112 §2.2", b"\r\n\n" + request()),
    refused("empty-line-and-space-in-front", "9112 §2.2", b"\r\n " + request()),
    refused("space-line-in-front", "9112 §2.2", b" \r\n" + request()),
    refused("nul-in-front", "9112 §2.2", b"\x00" + request()),
    refused("bare-lf-behind-request-line", "9112 §2.2", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    refused("bare-cr-behind-request-line", "9112 §2.2", b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
    refused("cr-cr-lf-behind-request-line", "9112 §2.2", b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    refused("lf-cr-behind-request-line", "9112 §2.2", b"GET / HTTP/1.1\n\rHost: a\r\n\r\n"),
    refused("all-lines-end-with-lf", "9112 §2.2", b"GET / HTTP/1.1\nHost: a\n\n"),
    refused("bare-lf-as-empty-line", "9112 §2.2", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    refused("space-before-first-field", "9112 §2.2", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    refused("tab-before-first-field", "9112 §2.2", b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n"),
    refused("space-line-before-first-field", "9112 §2.2", b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n"),
    refused("simple-request-of-http09", "9112 §2.3", b"GET /\r\n\r\n", 400, 505),
    passed("target-of-16-kib", "9112 §3", request(line=b"GET " + _LONG_TARGET + b" HTTP/1.1"),
           Seen(target=_LONG_TARGET)),
    passed("target-of-8000-bytes", "9112 §3", request(line=b"GET /" + b"b" * 7999 + b" HTTP/1.1"),
           Seen(target=b"/" + b"b" * 7999)),
    refused("target-over-16-kib", "9110 §15.5.15", request(line=b"GET " + _LONG_TARGET + b"a HTTP/1.1"), 414),
    refused("target-of-40-kib", "9110 §15.5.15", request(line=b"GET /" + b"a" * 40_000 + b" HTTP/1.1"), 414),
    refused("query-over-16-kib", "9110 §15.5.15", request(line=b"GET /?" + b"a" * 17_000 + b" HTTP/1.1"), 414),
    refused("request-line-without-end", "9110 §15.5.15", b"GET /" + b"a" * 70_000, 414),
]  # fmt: skip
