"""Several requests on one connection: RFC 9112 §9.3.2; the second must begin exactly where the first ends."""

from __future__ import annotations

from tests.conformance.case import RequestCase, Seen, allowed, chunked, passed, post, request

GET1 = request(line=b"GET /1 HTTP/1.1")
GET2 = request(line=b"GET /2 HTTP/1.1")
POST5 = post(b"Content-Length: 5", body=b"abcde")
CHUNKED5 = chunked(b"5\r\nabcde\r\n0\r\n\r\n")
TWO = (Seen(target=b"/1"), Seen(target=b"/2"))
POSTED = Seen(b"POST", body=b"abcde")

_SECOND_IS_BAD = [
    RequestCase(f"pipeline-then-{name}", section, GET1 + raw, allowed(200, status), (Seen(target=b"/1"),), closed=True)
    for name, section, raw, status in (
        ("rubbish", "9112 §3", b"rubbish\r\n\r\n", 400),
        ("no-host", "9112 §3.2", b"GET /2 HTTP/1.1\r\n\r\n", 400),
        ("two-hosts", "9112 §3.2", request(b"Host: b"), 400),
        ("space", "9112 §3", b" " + GET2, 400),
        ("bare-lf", "9112 §2.2", b"\n" + GET2, 400),
        ("two-empty-lines", "9112 §2.2", b"\r\n\r\n" + GET2, 400),
        ("nul", "9112 §3", b"\x00" + GET2, 400),
        ("a-body-nobody-announced", "9112 §6.3", b"a=b&c=d" + GET2, 400),
        ("length-and-coding", "9112 §6.3",
         post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
        ("bad-chunks", "9112 §7.1", chunked(b"x\r\n"), 400),
        ("unknown-coding", "9112 §6.1", post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
        ("connect", "9110 §9.3.6", request(line=b"CONNECT a:80 HTTP/1.1"), 405),
        ("version-2.0", "9110 §2.5", request(line=b"GET / HTTP/2.0"), 505),
        ("bad-expectation", "9110 §10.1.1", post(b"Expect: x", b"Content-Length: 5"), 417),
    )
]  # fmt: skip

REQUESTS: list[RequestCase] = [
    *_SECOND_IS_BAD,
    passed("pipeline-of-two", "9112 §9.3.2", GET1 + GET2, *TWO),
    passed("pipeline-of-twenty", "9112 §9.3.2",
           b"".join(request(line=b"GET /%d HTTP/1.1" % i) for i in range(20)),
           *(Seen(target=b"/%d" % i) for i in range(20))),
    passed("pipeline-with-an-empty-line-between", "9112 §2.2", GET1 + b"\r\n" + GET2, *TWO),
    passed("pipeline-with-a-line-end-behind", "9112 §2.2", GET1 + GET2 + b"\r\n", *TWO),
    passed("pipeline-body-first", "9112 §9.3.2", POST5 + GET2, POSTED, TWO[1]),
    passed("pipeline-body-last", "9112 §9.3.2", GET1 + POST5, TWO[0], POSTED),
    passed("pipeline-bodies", "9112 §9.3.2", POST5 + POST5 + POST5, POSTED, POSTED, POSTED),
    passed("pipeline-body-and-line-end-between", "9112 §2.2", POST5 + b"\r\n" + GET2, POSTED, TWO[1]),
    passed("pipeline-chunks-first", "9112 §9.3.2", CHUNKED5 + GET2, POSTED, TWO[1]),
    passed("pipeline-chunks-and-length", "9112 §9.3.2", CHUNKED5 + POST5 + CHUNKED5, POSTED, POSTED, POSTED),
    passed("pipeline-chunks-and-line-end-between", "9112 §2.2", CHUNKED5 + b"\r\n" + GET2, POSTED, TWO[1]),
    passed("pipeline-empty-bodies", "9112 §9.3.2", post(b"Content-Length: 0") + chunked(b"0\r\n\r\n") + GET2,
           Seen(b"POST"), Seen(b"POST"), TWO[1]),
    passed("pipeline-bodies-of-get", "9110 §9.3.1",
           request(b"Content-Length: 5", line=b"GET /1 HTTP/1.1", body=b"abcde") + GET2,
           Seen(target=b"/1", body=b"abcde"), TWO[1]),
    passed("pipeline-head-first", "9110 §9.3.2", request(line=b"HEAD / HTTP/1.1") + GET2, Seen(b"HEAD"), TWO[1]),
    passed("pipeline-head-between", "9110 §9.3.2", GET1 + request(line=b"HEAD / HTTP/1.1") + GET2,
           TWO[0], Seen(b"HEAD"), TWO[1], methods=(b"GET", b"HEAD", b"GET")),
    passed("pipeline-ends-with-close", "9112 §9.6", GET1 + request(b"Connection: close", line=b"GET /2 HTTP/1.1"), *TWO,
           closed=True),
    passed("pipeline-with-close-between", "9112 §9.6",
           GET1 + request(b"Connection: close", line=b"GET /2 HTTP/1.1") + GET2, *TWO, closed=True),
    passed("pipeline-ends-with-http10", "9112 §9.3", GET1 + request(line=b"GET /2 HTTP/1.0"), *TWO, closed=True),
    passed("pipeline-of-different-hosts", "9112 §3.2", GET1 + request(line=b"GET /2 HTTP/1.1", host=b"Host: b"),
           Seen(target=b"/1", has=(b"Host: a",)), Seen(target=b"/2", has=(b"Host: b",))),
    passed("pipeline-keeps-fields-apart", "9112 §9.3.2",
           request(b"X-A: 1", b"Cookie: a=1", line=b"GET /1 HTTP/1.1") + GET2,
           Seen(target=b"/1", has=(b"X-A: 1",)), Seen(target=b"/2", lacks=(b"x-a", b"cookie"))),
    RequestCase("pipeline-refused-and-on", "9112 §9.3.2",
                request(line=b"GET /1 HTTP/1.1", host=b"Host: unknown.example")
                + request(line=b"GET /2 HTTP/1.1", host=b"Host: known.example"),
                allowed((404, 421), 200), (Seen(target=b"/2"),), hosts=("known.example",)),
    RequestCase("pipeline-half-a-second-request", "9112 §9.3.2", GET1 + b"GET /2 HTTP/1.1\r\nHos", allowed(200, 200),
                TWO, later=b"t: a\r\n\r\n"),
    RequestCase("pipeline-half-a-second-body", "9112 §9.3.2", GET1 + POST5[:-2], allowed(200, 200), (TWO[0], POSTED),
                later=b"de"),
]  # fmt: skip
