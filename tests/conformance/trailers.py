"""Trailer fields of requests: RFC 9112 §7.1.2, RFC 9110 §6.5."""

from __future__ import annotations

from tests.conformance.case import RequestCase, Seen, chunked, passed, refused

FORBIDDEN = (
    b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: evil", b"Connection: close", b"Keep-Alive: timeout=5",
    b"Content-Type: text/html", b"Content-Encoding: gzip", b"Content-Range: bytes 0-4/5", b"Trailer: X",
    b"Authorization: Basic YTpi", b"Proxy-Authorization: Basic YTpi", b"Cookie: a=b", b"Set-Cookie: a=b",
    b"Cache-Control: no-store", b"Expect: 100-continue", b"Max-Forwards: 0", b"TE: trailers", b"Range: bytes=0-1",
    b"If-Match: *", b"If-None-Match: *", b"If-Modified-Since: Mon, 23 Nov 2026 11:34:13 GMT",
    b"If-Unmodified-Since: Mon, 23 Nov 2026 11:34:13 GMT", b'If-Range: "a"', b"Upgrade: websocket",
    b"X-Ring: canary", b"X-Ring-Version: v2", b"X-Forwarded-For: 9.9.9.9", b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: evil", b"Forwarded: for=9.9.9.9", b"content-LENGTH: 5", b"HOST: evil",
)  # fmt: skip


def _trailed(section: bytes, *fields: bytes) -> bytes:
    return chunked(b"5\r\nabcde\r\n0\r\n" + section + b"\r\n", *fields)


GOOD_SECTIONS = (
    ("one", b"X-Sum: 1\r\n", (b"X-Sum: 1",)),
    ("two", b"X-Sum: 1\r\nX-Other: 2\r\n", (b"X-Sum: 1", b"X-Other: 2")),
    ("repeated", b"X-Sum: 1\r\nX-Sum: 2\r\n", (b"X-Sum: 1", b"X-Sum: 2")),
    ("with-white-space", b"X-Sum: \t 1 \t \r\n", (b"X-Sum: 1",)),
    ("without-space", b"X-Sum:1\r\n", (b"X-Sum: 1",)),
    ("with-empty-value", b"X-Sum:\r\n", (b"X-Sum:",)),
    ("with-obs-text", b"X-Sum: \xe4\xff\r\n", (b"X-Sum: \xe4\xff",)),
    ("with-colons", b"X-Sum: a:b:c\r\n", (b"X-Sum: a:b:c",)),
    ("that-look-like-a-chunk", b"0: 0\r\n", (b"0: 0",)),
    ("of-10000-bytes", b"X-Sum: " + b"s" * 10_000 + b"\r\n", (b"X-Sum: " + b"s" * 10_000,)),
    ("etag", b'ETag: "a"\r\n', (b'ETag: "a"',)),
)
"""Name, trailer section, what arrives of it."""

_GOOD = [
    passed(f"trailers-{name}", "9110 §6.5", _trailed(section), Seen(b"POST", body=b"abcde", trailers=trailers))
    for name, section, trailers in GOOD_SECTIONS
]

_DROPPED = [
    passed(
        f"trailers-drop-{line.partition(b':')[0].decode()}",
        "9110 §6.5.1",
        _trailed(b"X-Sum: 1\r\n" + line + b"\r\nX-Other: 2\r\n"),
        Seen(b"POST", body=b"abcde", trailers=(b"X-Sum: 1", b"X-Other: 2")),
    )
    for line in FORBIDDEN
]

BAD_SECTIONS: tuple[tuple[str, bytes, *tuple[int, ...]], ...] = (
    ("without-colon", b"X-Sum\r\n"),
    ("with-space-before-colon", b"X-Sum : 1\r\n"),
    ("with-tab-before-colon", b"X-Sum\t: 1\r\n"),
    ("with-empty-name", b": 1\r\n"),
    ("of-colon", b":\r\n"),
    ("with-space-in-name", b"X Sum: 1\r\n"),
    ("with-bracket-in-name", b"X[Sum]: 1\r\n"),
    ("with-obs-text-in-name", b"X\xe4: 1\r\n"),
    ("with-nul-in-name", b"X\x00: 1\r\n"),
    ("with-leading-space", b" X-Sum: 1\r\n"),
    ("with-leading-tab", b"\tX-Sum: 1\r\n"),
    ("folded", b"X-Sum: 1\r\n 2\r\n"),
    ("folded-by-tab", b"X-Sum: 1\r\n\t2\r\n"),
    ("with-nul", b"X-Sum: \x00\r\n"),
    ("with-control", b"X-Sum: a\x01b\r\n"),
    ("with-vertical-tab", b"X-Sum: a\x0bb\r\n"),
    ("with-del", b"X-Sum: \x7f\r\n"),
    ("with-bare-cr", b"X-Sum: a\rb\r\n"),
    ("with-bare-cr-at-the-end", b"X-Sum: a\r\r\n"),
    ("with-bare-lf", b"X-Sum: a\nX-Other: b\r\n"),
    ("with-bare-lf-at-the-end", b"X-Sum: a\n"),
    ("malformed-and-forbidden", b"Content-Length : 5\r\n"),
    ("over-16-kib", b"X-Sum: " + b"s" * 17_000 + b"\r\n", 400, 431),
    ("many-over-16-kib", b"X-Sum: sssssssssssssssssss\r\n" * 700, 400, 431),
    ("over-70000-bytes", b"X-Sum: " + b"s" * 70_000 + b"\r\n", 400, 431),
)
"""Malformed trailer sections; with statuses where they are not 400."""

_BAD = [
    refused(f"trailers-{name}", "9112 §7.1.2", _trailed(section), *statuses)
    for name, section, *statuses in BAD_SECTIONS
]

REQUESTS: list[RequestCase] = [
    *_GOOD,
    *_DROPPED,
    *_BAD,
    passed("trailers-announced", "9110 §6.6.2", _trailed(b"X-Sum: 1\r\n", b"Trailer: X-Sum"),
           Seen(b"POST", body=b"abcde", has=(b"Trailer: X-Sum",), trailers=(b"X-Sum: 1",))),
    passed("trailers-announced-and-missing", "9110 §6.6.2", _trailed(b"", b"Trailer: X-Sum"),
           Seen(b"POST", body=b"abcde", has=(b"Trailer: X-Sum",))),
    passed("trailers-of-an-empty-body", "9110 §6.5", chunked(b"0\r\nX-Sum: 1\r\n\r\n"),
           Seen(b"POST", trailers=(b"X-Sum: 1",))),
    passed("trailers-behind-an-extension", "9110 §6.5", chunked(b"5\r\nabcde\r\n0;a=b\r\nX-Sum: 1\r\n\r\n"),
           Seen(b"POST", body=b"abcde", trailers=(b"X-Sum: 1",))),
    passed("trailers-only-forbidden", "9110 §6.5.1", _trailed(b"Content-Length: 99\r\n"), Seen(b"POST", body=b"abcde")),
    passed("trailers-do-not-reach-the-head", "9110 §6.5.1", _trailed(b"X-Sum: 2\r\n", b"X-Sum: 1"),
           Seen(b"POST", body=b"abcde", has=(b"X-Sum: 1",), trailers=(b"X-Sum: 2",))),
    passed("trailers-and-request-behind", "9112 §7.1.2",
           _trailed(b"X-Sum: 1\r\n") + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
           Seen(b"POST", body=b"abcde", trailers=(b"X-Sum: 1",)), Seen(target=b"/2")),
    passed("trailers-accepted-by-te", "9110 §10.1.4", _trailed(b"X-Sum: 1\r\n", b"TE: trailers", b"Connection: TE"),
           Seen(b"POST", body=b"abcde", lacks=(b"te",), trailers=(b"X-Sum: 1",))),
]  # fmt: skip
