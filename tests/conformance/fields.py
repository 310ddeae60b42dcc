"""Field lines of requests: RFC 9112 §5, RFC 9110 §5."""

from __future__ import annotations

from tests.conformance.case import RequestCase, Seen, passed, refused, request
from tests.conformance.names import CONTROLS, DELIMITERS, named

GOOD_VALUES = (
    ("plain", b" b"),
    ("without-space", b"b"),
    ("with-spaces-around", b"   b   "),
    ("with-tabs-around", b"\tb\t"),
    ("with-tabs-and-spaces-around", b" \t b\t \t"),
    ("empty", b""),
    ("of-a-space", b" "),
    ("of-white-space", b" \t \t"),
    ("with-spaces-within", b" a  b   c"),
    ("with-tab-within", b" a\tb"),
    ("with-colons", b" a:b:c"),
    ("that-begins-with-colon", b" :a"),
    ("of-colon-at-once", b":"),
    ("that-is-a-field", b" Content-Length: 5"),
    ("with-every-visible-character", b" " + bytes(range(0x21, 0x7F))),
    ("with-every-obs-text-byte", b" " + bytes(range(0x80, 0x100))),
    ("in-utf-8", " grüße, мир, 世界".encode()),
    ("with-nel-and-nbsp-around", b" \x85\xa0b\xa0\x85"),
    ("with-open-quote", b' "abc'),
    ("with-quoted-string", b' "a\\"b, c"; d="e"'),
    ("with-comment", b" a (b (c) d"),
    ("of-commas", b" , ,a,,b, "),
    ("of-4000-bytes", b" " + b"v" * 4000),
    ("of-20000-bytes", b" " + b"w" * 20_000),
    ("with-backslash", b" a\\b\\"),
    ("with-percent-encoded-line-end", b" a%0d%0ab"),
)
"""Values that arrive as they are, without the white space around them."""

_VALUES = [
    passed(f"value-{name}", "9110 §5.5", request(b"X-A:" + value), Seen(has=(b"X-A: " + value,)))
    for name, value in GOOD_VALUES
]

_BYTES_IN_VALUE = [
    refused(f"value-with-{named(byte)}", "9110 §5.5", request(b"X-A: a" + byte + b"b")) for byte in (*CONTROLS, b"\x7f")
]
_BYTES_AT_ENDS = [
    refused(f"value-{place}-{named(byte)}", "9110 §5.5", request(line))
    for byte in (b"\x00", b"\x0b", b"\x0c", b"\x1f", b"\x7f")
    for place, line in (("begins-with", b"X-A: " + byte + b"b"), ("ends-with", b"X-A: b" + byte))
]
NOT_IN_NAMES = (
    *(d for d in DELIMITERS if d != b":"), b" ", b"\t", b"\x00", b"\x01", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\x80",
    b"\xa0", b"\xe4", b"\xff",
)  # fmt: skip

_BYTES_IN_NAME = [
    refused(f"name-with-{named(byte)}", "9110 §5.1", request(b"X" + byte + b"A: b"))
    for byte in NOT_IN_NAMES
]  # fmt: skip

MALFORMED = (
    ("with-space-before-colon", "9112 §5.1", b"X-A : b"),
    ("with-spaces-before-colon", "9112 §5.1", b"X-A   : b"),
    ("with-tab-before-colon", "9112 §5.1", b"X-A\t: b"),
    ("without-colon", "9112 §5", b"X-A"),
    ("without-colon-with-value", "9112 §5", b"X-A b"),
    ("without-colon-with-equals", "9112 §5", b"X-A=b"),
    ("of-colon", "9110 §5.1", b":"),
    ("with-empty-name", "9110 §5.1", b": b"),
    ("with-name-of-a-space", "9110 §5.1", b" : b"),
    ("with-leading-space", "9112 §5.2", b" X-A: b"),
    ("with-leading-tab", "9112 §5.2", b"\tX-A: b"),
    ("folded-by-space", "9112 §5.2", b"X-A: b\r\n c"),
    ("folded-by-tab", "9112 §5.2", b"X-A: b\r\n\tc"),
    ("folded-by-many-spaces", "9112 §5.2", b"X-A: b\r\n      c"),
    ("folded-twice", "9112 §5.2", b"X-A: b\r\n c\r\n d"),
    ("folded-to-a-field", "9112 §5.2", b"X-A: b\r\n Content-Length: 5"),
    ("folded-to-nothing", "9112 §5.2", b"X-A: b\r\n "),
    ("folded-to-a-tab", "9112 §5.2", b"X-A: b\r\n\t"),
    ("folded-empty", "9112 §5.2", b"X-A:\r\n b"),
    ("folded-in-the-middle", "9112 §5.2", b"X-A: b\r\n c\r\nX-B: d"),
    ("with-bare-cr", "9112 §2.2", b"X-A: b\rc"),
    ("with-bare-cr-and-field", "9112 §2.2", b"X-A: b\rContent-Length: 5"),
    ("with-bare-cr-at-the-end", "9112 §2.2", b"X-A: b\r"),
    ("with-bare-cr-at-the-beginning", "9112 §2.2", b"X-A: \rb"),
    ("with-bare-cr-in-name", "9112 §2.2", b"X\rA: b"),
    ("with-bare-cr-before-colon", "9112 §2.2", b"X-A\r: b"),
    ("with-bare-cr-in-front", "9112 §2.2", b"\rX-A: b"),
    ("with-bare-lf", "9112 §2.2", b"X-A: b\nX-B: c"),
    ("with-bare-lf-in-value", "9112 §2.2", b"X-A: b\nc"),
    ("with-bare-lf-in-name", "9112 §2.2", b"X\nA: b"),
    ("with-bare-lf-in-front", "9112 §2.2", b"\nX-A: b"),
    ("with-bare-lf-twice", "9112 §2.2", b"X-A: b\n\nGET /smuggled HTTP/1.1\r\nHost: a"),
    ("with-lf-cr", "9112 §2.2", b"X-A: b\n\rX-B: c"),
    ("of-a-request-line", "9112 §5", b"GET /x HTTP/1.1"),
    ("of-a-byte", "9112 §5", b"x"),
    ("of-a-pseudo-header", "9110 §5.1", b":path: /b"),
    ("of-a-status-line", "9112 §5", b"HTTP/1.1 200 OK"),
    ("with-two-colons-in-front", "9110 §5.1", b":: b"),
    ("of-control-bytes", "9112 §5", b"\x01\x02\x03"),
    ("of-nul", "9112 §5", b"\x00"),
    ("with-byte-order-mark", "9110 §5.1", b"\xef\xbb\xbfX-A: b"),
)
"""Name, section, lines; what a response may do as little as a request, but for white space before the colon."""

_MALFORMED = [refused(f"field-{name}", section, request(line)) for name, section, line in MALFORMED]


def _many(count: int) -> bytes:
    """A request with ``count`` fields, Host among them."""
    return request(*(b"X-%d: %d" % (i, i) for i in range(count - 1)))


REQUESTS: list[RequestCase] = [
    *_VALUES,
    *_BYTES_IN_VALUE,
    *_BYTES_AT_ENDS,
    *_BYTES_IN_NAME,
    *_MALFORMED,
    passed("name-of-every-token-character", "9110 §5.6.2", request(b"!#$%&'*+-.^`|~09AZaz: b"),
           Seen(has=(b"!#$%&'*+-.^`|~09AZaz: b",))),
    passed("name-of-one-letter", "9110 §5.1", request(b"x: b"), Seen(has=(b"x: b",))),
    passed("name-of-a-digit", "9110 §5.1", request(b"1: b"), Seen(has=(b"1: b",))),
    passed("name-of-a-hyphen", "9110 §5.1", request(b"-: b"), Seen(has=(b"-: b",))),
    passed("name-with-underscore", "9110 §5.1", request(b"X_A: b"), Seen(has=(b"X_A: b",))),
    passed("name-of-1000-letters", "9110 §5.1", request(b"n" * 1000 + b": b"), Seen(has=(b"n" * 1000 + b": b",))),
    passed("name-unknown", "9110 §16.3", request(b"X-Never-Heard-Of: b"), Seen(has=(b"X-Never-Heard-Of: b",))),
    passed("field-repeated-keeps-its-order", "9110 §5.3", request(b"X-A: 1", b"X-B: 2", b"x-a: 3", b"X-A: 4"),
           Seen(has=(b"X-A: 1", b"X-A: 3", b"X-A: 4", b"X-B: 2"))),
    passed("field-repeated-the-same", "9110 §5.3", request(b"X-A: 1", b"X-A: 1"), Seen(has=(b"X-A: 1", b"X-A: 1"))),
    passed("field-repeated-with-an-empty-one", "9110 §5.3", request(b"X-A:", b"X-A: 1"),
           Seen(has=(b"X-A:", b"X-A: 1"))),
    passed("field-cookie-twice", "9110 §5.3", request(b"Cookie: a=1", b"Cookie: b=2"), Seen()),
    passed("field-authorization-passes", "9110 §11.6.2", request(b"Authorization: Basic YTpi"),
           Seen(has=(b"Authorization: Basic YTpi",))),
    passed("field-accept-encoding-passes", "9110 §7.7", request(b"Accept-Encoding: gzip, br;q=0.5"),
           Seen(has=(b"Accept-Encoding: gzip, br;q=0.5",))),
    passed("field-range-passes", "9110 §14.2", request(b"Range: bytes=0-4"), Seen(has=(b"Range: bytes=0-4",))),
    passed("fields-of-conditions-pass", "9110 §13.1",
           request(b'If-None-Match: "a", W/"b"', b"If-Modified-Since: Mon, 23 Nov 2026 11:34:13 GMT"),
           Seen(has=(b'If-None-Match: "a", W/"b"', b"If-Modified-Since: Mon, 23 Nov 2026 11:34:13 GMT"))),
    passed("field-pragma-and-cache-control-pass", "9111 §5.2", request(b"Pragma: no-cache", b"Cache-Control: no-cache"),
           Seen(has=(b"Pragma: no-cache", b"Cache-Control: no-cache"))),
    passed("fields-200", "9110 §5.4", _many(200), Seen(has=(b"X-198: 198",))),
    passed("fields-100", "9110 §5.4", _many(100), Seen(has=(b"X-98: 98",))),
    refused("fields-201", "9110 §5.4", _many(201), 431),
    refused("fields-5000", "9110 §5.4", _many(5_000), 431),
    passed("fields-of-60-kib", "9110 §5.4", request(*(b"X-%d: " % i + b"v" * 1000 for i in range(59))), Seen()),
    refused("fields-over-64-kib", "9110 §5.4", request(*(b"X-%d: " % i + b"v" * 1000 for i in range(70))), 431),
    refused("field-over-64-kib", "9110 §5.4", request(b"X-A: " + b"v" * 66_000), 431),
    refused("field-over-64-kib-without-end", "9110 §5.4", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"v" * 70_000, 431),
    refused("field-name-over-64-kib", "9110 §5.4", request(b"n" * 66_000 + b": v"), 431),
    refused("fields-without-end", "9110 §5.4", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 12_000, 431),
    RequestCase("head-without-end", "9112 §8", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n", (), closed=True,
                is_half_closed=True),
    RequestCase("head-without-last-lf", "9112 §8", b"GET / HTTP/1.1\r\nHost: a\r\n\r", (), closed=True,
                is_half_closed=True),
    RequestCase("nothing-at-all", "9112 §9.5", b"\r\n", (), closed=True, is_half_closed=True),
    RequestCase("half-a-request-line", "9112 §8", b"GET / HT", (), closed=True, is_half_closed=True),
]  # fmt: skip
