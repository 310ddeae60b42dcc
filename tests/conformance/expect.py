"""Expect: RFC 9110 §10.1.1. The backend of the suite sends 100 to every request that expects it."""

from __future__ import annotations

from tests.conformance.case import RequestCase, Seen, allowed, chunked, passed, post, refused, request

_POSTED = Seen(b"POST", body=b"abcde", has=(b"Expect: 100-continue",))


def _expecting(value: bytes) -> bytes:
    return post(b"Expect:" + value, b"Content-Length: 5", body=b"abcde")


def _continued(name: str, raw: bytes, *seen: Seen, later: bytes = b"") -> RequestCase:
    """The client sees the interim response and the final one."""
    return RequestCase(f"expect-{name}", "9110 §10.1.1", raw, allowed(100, 200), seen or (_POSTED,), later=later)


REQUESTS: list[RequestCase] = [
    _continued("continue-with-the-body-at-once", _expecting(b" 100-continue")),
    _continued("continue-in-upper-case", _expecting(b" 100-CONTINUE"),
               Seen(b"POST", body=b"abcde")),
    _continued("continue-in-mixed-case", _expecting(b" 100-Continue"),
               Seen(b"POST", body=b"abcde")),
    _continued("continue-with-white-space", _expecting(b" \t 100-continue \t")),
    _continued("continue-and-wait", post(b"Expect: 100-continue", b"Content-Length: 5"), later=b"abcde"),
    _continued("continue-and-wait-with-chunks", chunked(b"", b"Expect: 100-continue"),
               later=b"5\r\nabcde\r\n0\r\n\r\n"),
    _continued("continue-and-wait-with-half-a-body", post(b"Expect: 100-continue", b"Content-Length: 5", body=b"ab"),
               later=b"cde"),
    _continued("continue-with-chunks", chunked(b"5\r\nabcde\r\n0\r\n\r\n", b"Expect: 100-continue")),
    _continued("continue-of-put",
               request(b"Expect: 100-continue", b"Content-Length: 5", line=b"PUT / HTTP/1.1", body=b"abcde"),
               Seen(b"PUT", body=b"abcde", has=(b"Expect: 100-continue",))),
    RequestCase("expect-continue-and-request-behind", "9110 §10.1.1",
                _expecting(b" 100-continue") + request(line=b"GET /2 HTTP/1.1"), allowed(100, 200, 200),
                (_POSTED, Seen(target=b"/2"))),
    RequestCase("expect-continue-and-bad-chunks", "9112 §7.1", chunked(b"", b"Expect: 100-continue"),
                allowed(100, 400), closed=True, later=b"x\r\n"),
    passed("expect-continue-in-http10", "9110 §10.1.1",
           post(b"Expect: 100-continue", b"Content-Length: 5", line=b"POST / HTTP/1.0", body=b"abcde"),
           Seen(b"POST", body=b"abcde"), closed=True),
    passed("expect-unknown-in-http10", "9110 §10.1.1",
           post(b"Expect: foo", b"Content-Length: 5", line=b"POST / HTTP/1.0", body=b"abcde"),
           Seen(b"POST", body=b"abcde"), closed=True),
    *(
        refused(f"expect-{name}", "9110 §10.1.1", _expecting(value), 417, closed=None)
        for name, value in (
            ("unknown", b" foo"),
            ("unknown-with-value", b" foo=bar"),
            ("unknown-without-space", b"foo"),
            ("200-ok", b" 200-ok"),
            ("continue-and-unknown", b" 100-continue, foo"),
            ("unknown-and-continue", b" foo, 100-continue"),
            ("continue-with-parameter", b" 100-continue;q=1"),
            ("continue-with-value", b" 100-continue=yes"),
            ("continue-in-quotes", b' "100-continue"'),
            ("continue-with-space", b" 100 continue"),
            ("continue-with-letter-behind", b" 100-continued"),
            ("continue-with-digit-before", b" 1100-continue"),
            ("number", b" 100"),
        )
    ),
    refused("expect-unknown-of-get", "9110 §10.1.1", request(b"Expect: foo"), 417, closed=None),
    refused("expect-unknown-of-head", "9110 §10.1.1", request(b"Expect: foo", line=b"HEAD / HTTP/1.1"), 417,
            closed=None),
    refused("expect-unknown-and-the-body-missing", "9110 §10.1.1", post(b"Expect: foo", b"Content-Length: 5"), 417),
    refused("expect-unknown-in-a-second-line", "9110 §10.1.1",
            post(b"Expect: 100-continue", b"Expect: foo", b"Content-Length: 5", body=b"abcde"), 417, closed=None),
    refused("expect-unknown-and-malformed-length", "9110 §10.1.1",
            post(b"Expect: foo", b"Content-Length: x"), 400, 417),
    refused("expect-continue-and-malformed-length", "9110 §10.1.1",
            post(b"Expect: 100-continue", b"Content-Length: x")),
    refused("expect-continue-to-an-unknown-host", "9110 §10.1.1", post(b"Expect: 100-continue", b"Content-Length: 5"),
            404, 421, hosts=("known.example",)),
]  # fmt: skip
