"""Status lines: RFC 9112 §4, RFC 9110 §15."""

from __future__ import annotations

from tests.conformance.case import ResponseCase, bad, ok, response
from tests.conformance.names import CONTROLS, named

_STATUSES = [
    ResponseCase(f"status-{status}", "9110 §15", ok(line=b"HTTP/1.1 %d Some" % status), status, b"ok",
                 reason=b"Some", reused=True, stays=True)
    for status in (
        200, 201, 202, 203, 206, 207, 226, 299, 300, 301, 302, 303, 305, 307, 308, 399, 400, 401, 402, 403, 404, 405,
        406, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 425, 428, 429, 431, 451, 499, 500, 501,
        502, 503, 504, 505, 511, 599,
    )
]  # fmt: skip

_GOOD_LINES = [
    ResponseCase(f"status-line-{name}", "9112 §4", ok(line=line), 200, b"ok", reason=reason)
    for name, line, reason in (
        ("plain", b"HTTP/1.1 200 OK", b"OK"),
        ("without-reason", b"HTTP/1.1 200 ", b""),
        ("without-reason-and-its-space", b"HTTP/1.1 200", b""),
        ("with-another-reason", b"HTTP/1.1 200 Fine, thank you (really)!", b"Fine, thank you (really)!"),
        ("with-tab-in-reason", b"HTTP/1.1 200 O\tK", b"O\tK"),
        ("with-obs-text-in-reason", b"HTTP/1.1 200 \xe4\xff", b"\xe4\xff"),
        ("with-digits-as-reason", b"HTTP/1.1 200 404", b"404"),
        ("with-colon-in-reason", b"HTTP/1.1 200 X: y", b"X: y"),
        ("with-reason-of-1000-bytes", b"HTTP/1.1 200 " + b"r" * 1000, b"r" * 1000),
        ("of-http10", b"HTTP/1.0 200 OK", b"OK"),
        ("of-http12", b"HTTP/1.2 200 OK", b"OK"),
        ("of-http19", b"HTTP/1.9 200 OK", b"OK"),
    )
]

_BAD_LINES = [
    bad(f"status-line-{name}", section, ok(line=line))
    for name, section, line in (
        ("with-status-of-two-digits", "9112 §4", b"HTTP/1.1 20 OK"),
        ("with-status-of-four-digits", "9112 §4", b"HTTP/1.1 2000 OK"),
        ("with-status-of-one-digit", "9112 §4", b"HTTP/1.1 2 OK"),
        ("with-status-of-letters", "9112 §4", b"HTTP/1.1 abc OK"),
        ("with-letter-in-status", "9112 §4", b"HTTP/1.1 2o0 OK"),
        ("with-signed-status", "9112 §4", b"HTTP/1.1 +200 OK"),
        ("with-negative-status", "9112 §4", b"HTTP/1.1 -200 OK"),
        ("with-fraction-in-status", "9112 §4", b"HTTP/1.1 200.1 OK"),
        ("with-status-000", "9110 §15", b"HTTP/1.1 000 OK"),
        ("with-status-099", "9110 §15", b"HTTP/1.1 099 OK"),
        ("with-status-600", "9110 §15", b"HTTP/1.1 600 OK"),
        ("with-status-999", "9110 §15", b"HTTP/1.1 999 OK"),
        ("without-status", "9112 §4", b"HTTP/1.1 OK"),
        ("without-status-and-reason", "9112 §4", b"HTTP/1.1"),
        ("without-status-but-spaces", "9112 §4", b"HTTP/1.1  "),
        ("with-two-spaces-before-status", "9112 §4", b"HTTP/1.1  200 OK"),
        ("with-tab-before-status", "9112 §4", b"HTTP/1.1\t200 OK"),
        ("with-tab-behind-status", "9112 §4", b"HTTP/1.1 200\tOK"),
        ("with-reason-at-once", "9112 §4", b"HTTP/1.1 200OK"),
        ("with-comma-behind-status", "9112 §4", b"HTTP/1.1 200, OK"),
        ("without-space-behind-version", "9112 §4", b"HTTP/1.1200 OK"),
        ("with-leading-space", "9112 §4", b" HTTP/1.1 200 OK"),
        ("with-leading-tab", "9112 §4", b"\tHTTP/1.1 200 OK"),
        ("with-byte-order-mark", "9112 §4", b"\xef\xbb\xbfHTTP/1.1 200 OK"),
        ("in-lower-case", "9112 §2.3", b"http/1.1 200 OK"),
        ("in-mixed-case", "9112 §2.3", b"Http/1.1 200 OK"),
        ("of-http20", "9110 §2.5", b"HTTP/2.0 200 OK"),
        ("of-http2", "9112 §2.3", b"HTTP/2 200 OK"),
        ("of-http30", "9110 §2.5", b"HTTP/3.0 200 OK"),
        ("of-http09", "9110 §2.5", b"HTTP/0.9 200 OK"),
        ("of-http110", "9112 §2.3", b"HTTP/1.10 200 OK"),
        ("of-http-11.1", "9112 §2.3", b"HTTP/11.1 200 OK"),
        ("of-http-1", "9112 §2.3", b"HTTP/1 200 OK"),
        ("of-http-1-comma-1", "9112 §2.3", b"HTTP/1,1 200 OK"),
        ("of-http-letters", "9112 §2.3", b"HTTP/a.b 200 OK"),
        ("of-icy", "9112 §2.3", b"ICY 200 OK"),
        ("of-rtsp", "9112 §2.3", b"RTSP/1.0 200 OK"),
        ("of-shttp", "9112 §2.3", b"HTTPS/1.1 200 OK"),
        ("that-is-a-request-line", "9112 §4", b"GET / HTTP/1.1"),
        ("that-is-a-field", "9112 §4", b"Server: x"),
        ("that-is-empty", "9112 §4", b""),
        ("that-is-a-space", "9112 §4", b" "),
        ("with-bare-cr-at-the-end", "9112 §2.2", b"HTTP/1.1 200 OK\r"),
        ("with-bare-cr-in-reason", "9112 §2.2", b"HTTP/1.1 200 O\rK"),
        ("with-bare-lf-in-reason", "9112 §2.2", b"HTTP/1.1 200 O\nK"),
        ("with-bare-lf-in-front", "9112 §2.2", b"\nHTTP/1.1 200 OK"),
        ("with-bare-cr-in-front", "9112 §2.2", b"\rHTTP/1.1 200 OK"),
    )
]

_CONTROL_BYTES = [
    bad(f"reason-with-{named(byte)}", "9112 §4", ok(line=b"HTTP/1.1 200 O" + byte + b"K"))
    for byte in (*CONTROLS, b"\x7f")
]

RESPONSES: list[ResponseCase] = [
    *_STATUSES,
    *_GOOD_LINES,
    *_BAD_LINES,
    *_CONTROL_BYTES,
    bad("no-response", "9112 §8", b"", closes="eof"),
    bad("no-response-but-a-reset", "9112 §8", b"", closes="reset"),
    bad("response-of-a-body-alone", "9112 §2.3", b"<html>hello</html>", closes="eof"),
    bad("response-of-an-empty-line", "9112 §4", b"\r\n", closes="eof"),
    bad("response-behind-an-empty-line", "9112 §2.2", b"\r\n" + ok()),
    bad("half-a-status-line", "9112 §8", b"HTTP/1.1 20", closes="eof"),
    bad("half-a-head", "9112 §8", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", closes="eof"),
    bad("head-without-its-last-lf", "9112 §8", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r", closes="eof"),
    bad("response-lines-end-with-lf", "9112 §2.2", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    bad("response-status-line-ends-with-lf", "9112 §2.2", b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok"),
    bad("response-head-ends-with-lf", "9112 §2.2", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok"),
    bad("response-lines-end-with-cr", "9112 §2.2", b"HTTP/1.1 200 OK\rContent-Length: 2\r\rok", closes="eof"),
    bad("response-lines-end-with-cr-cr-lf", "9112 §2.2", b"HTTP/1.1 200 OK\r\r\nContent-Length: 2\r\r\n\r\nok"),
    bad("response-of-http2-frames", "9113 §3.4", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00d",
        closes="eof"),
    bad("response-of-tls", "9112 §4", b"\x15\x03\x01\x00\x02\x02\x46", closes="eof"),
    bad("status-line-without-end", "9112 §4", b"HTTP/1.1 200 " + b"r" * 70_000),
    ResponseCase("status-205", "9110 §15.3.6", response(b"Content-Length: 0", line=b"HTTP/1.1 205 Reset Content"), 205,
                 reused=True, stays=True),
    ResponseCase("status-of-http10-is-passed-as-http11", "9110 §2.5",
                 ok(b"Connection: keep-alive", line=b"HTTP/1.0 404 Not Found"), 404, b"ok", reason=b"Not Found",
                 reused=True, stays=True),
]  # fmt: skip
