"""Content-Length of requests, and which requests have a body: RFC 9112 §6, RFC 9110 §8.6."""

from __future__ import annotations

from tests.conformance.case import RequestCase, Seen, passed, post, refused, request

BAD_VALUES = (
    ("with-plus", b" +5"),
    ("with-minus", b" -5"),
    ("minus-zero", b" -0"),
    ("minus-one", b" -1"),
    ("empty", b""),
    ("of-white-space", b" \t "),
    ("in-hex", b" 0x5"),
    ("hex-digit", b" a"),
    ("in-octal", b" 0o5"),
    ("in-binary", b" 0b101"),
    ("with-exponent", b" 1e3"),
    ("with-fraction", b" 5.0"),
    ("with-comma-fraction", b" 5,0"),
    ("with-underscore", b" 1_0"),
    ("with-letter-behind", b" 5a"),
    ("with-letter-before", b" a5"),
    ("with-semicolon", b" 5;"),
    ("with-parameter", b" 5; a=b"),
    ("with-space-within", b" 5 5"),
    ("with-tab-within", b" 5\t5"),
    ("in-quotes", b' "5"'),
    ("in-single-quotes", b" '5'"),
    ("in-parentheses", b" (5)"),
    ("with-comment", b" 5 (five)"),
    ("list-of-two", b" 5, 5"),
    ("list-of-two-without-space", b" 5,5"),
    ("list-of-different", b" 5, 6"),
    ("list-with-empty-first", b" ,5"),
    ("list-with-empty-last", b" 5,"),
    ("list-of-commas", b" ,"),
    ("of-words", b" five"),
    ("of-nan", b" NaN"),
    ("of-infinity", b" Infinity"),
    ("with-nul", b" 5\x00"),
    ("with-vertical-tab", b" 5\x0b"),
    ("with-form-feed", b" \x0c5"),
    ("with-nbsp", b" \xa05"),
    ("with-nel", b" 5\x85"),
    ("in-arabic-digits", b" \xd9\xa5"),
    ("in-full-width-digits", b" \xef\xbc\x95"),
    ("with-superscript", b" \xb2"),
    ("with-bare-cr", b" 5\r"),
    ("with-bare-cr-before", b" \r5"),
    ("folded", b" 5\r\n "),
    ("folded-before-its-value", b"\r\n 5"),
    ("folded-to-more-digits", b" 5\r\n 5"),
    ("of-19-digits", b" 1000000000000000000"),
    ("of-20-digits", b" 18446744073709551621"),
    ("of-19-digits-and-zeros-in-front", b" 0000000000000000005"),
    ("of-2-to-the-63", b" 9223372036854775808"),
    ("of-100-digits", b" " + b"9" * 100),
    ("of-5000-digits", b" " + b"9" * 5000),
)
"""What is no length (RFC 9110 §8.6), or one that this router does not take; with the white space in front."""

_BAD = [
    refused(f"length-{name}", "9110 §8.6", post(b"Content-Length:" + value, body=b"abcde"))
    for name, value in BAD_VALUES
]

GOOD_VALUES = (
    ("plain", b" 5"),
    ("without-space", b"5"),
    ("with-white-space-around", b" \t 5 \t "),
    ("with-zero-in-front", b" 05"),
    ("with-many-zeros-in-front", b" 000000000000005"),
    ("of-18-digits", b" 000000000000000005"),
)
"""Ways to say 5."""

_GOOD = [
    passed(f"length-{name}", "9110 §8.6", post(b"Content-Length:" + value, body=b"abcde"), Seen(b"POST", body=b"abcde"))
    for name, value in GOOD_VALUES
]

_ANY_METHOD = [
    passed(
        f"body-of-{method.decode().lower()}",
        "9110 §9.3",
        request(b"Content-Length: 5", line=method + b" / HTTP/1.1", body=b"abcde"),
        Seen(method, body=b"abcde", has=(b"Content-Length: 5",)),
    )
    for method in (b"GET", b"HEAD", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"PROPFIND", b"FOO")
]

_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

REQUESTS: list[RequestCase] = [
    *_BAD,
    *_GOOD,
    *_ANY_METHOD,
    passed("length-zero", "9110 §8.6", post(b"Content-Length: 0"), Seen(b"POST", has=(b"Content-Length: 0",))),
    passed("length-of-zeros", "9110 §8.6", post(b"Content-Length: 000"), Seen(b"POST")),
    passed("length-zero-of-get", "9110 §8.6", request(b"Content-Length: 0"), Seen()),
    passed("length-in-lower-case", "9110 §5.1", post(b"content-length: 5", body=b"abcde"),
           Seen(b"POST", body=b"abcde")),
    passed("length-in-upper-case", "9110 §5.1", post(b"CONTENT-LENGTH: 5", body=b"abcde"),
           Seen(b"POST", body=b"abcde")),
    passed("length-before-host", "9112 §6.2", request(b"Content-Length: 5", b"Host: a", host=None, body=b"abcde",
                                                      line=b"POST / HTTP/1.1"), Seen(b"POST", body=b"abcde")),
    passed("length-of-a-body-with-every-byte", "9112 §6.2", post(b"Content-Length: 256", body=bytes(range(256))),
           Seen(b"POST", body=bytes(range(256)))),
    passed("length-of-a-body-of-line-ends", "9112 §6.2", post(b"Content-Length: 8", body=b"\r\n\r\n\r\n\r\n"),
           Seen(b"POST", body=b"\r\n\r\n\r\n\r\n")),
    passed("length-of-a-body-that-is-a-request", "9112 §6.2",
           post(b"Content-Length: %d" % len(_SMUGGLED), body=_SMUGGLED), Seen(b"POST", body=_SMUGGLED)),
    passed("length-of-a-body-that-looks-chunked", "9112 §6.2", post(b"Content-Length: 5", body=b"0\r\n\r\n"),
           Seen(b"POST", body=b"0\r\n\r\n")),
    passed("length-of-100-kb", "9112 §6.2", post(b"Content-Length: 100000", body=b"z" * 100_000),
           Seen(b"POST", body=b"z" * 100_000)),
    passed("length-shorter-than-what-comes", "9112 §6.3",
           post(b"Content-Length: 2", body=b"abGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
           Seen(b"POST", body=b"ab"), Seen(target=b"/2")),
    RequestCase("length-shorter-and-rubbish-behind", "9112 §6.3", post(b"Content-Length: 2", body=b"abcde\r\n\r\n"),
                (frozenset({200}), frozenset({400})), (Seen(b"POST", body=b"ab"),), closed=True),
    passed("length-and-one-line-end-behind", "9112 §2.2", post(b"Content-Length: 2", body=b"ab\r\n"),
           Seen(b"POST", body=b"ab")),
    RequestCase("length-longer-than-what-comes", "9112 §8", post(b"Content-Length: 6", body=b"abcde"), (), closed=True,
                is_half_closed=True),
    RequestCase("length-and-no-body", "9112 §8", post(b"Content-Length: 5"), (), closed=True, is_half_closed=True),
    RequestCase("length-of-18-nines", "9112 §8", post(b"Content-Length: " + b"9" * 18, body=b"abc"), (), closed=True,
                is_half_closed=True),
    passed("no-length-no-body-of-post", "9112 §6.3", post(), Seen(b"POST")),
    passed("no-length-no-body-of-put", "9112 §6.3", request(line=b"PUT / HTTP/1.1"), Seen(b"PUT")),
    passed("no-length-a-request-behind-post", "9112 §6.3", post(body=_SMUGGLED), Seen(b"POST"),
           Seen(target=b"/smuggled")),
    RequestCase("no-length-a-body-behind-post", "9112 §6.3", post(body=b"abcde\r\n\r\n"),
                (frozenset({200}), frozenset({400})), (Seen(b"POST"),), closed=True),
    refused("length-twice", "9112 §6.3", post(b"Content-Length: 5", b"Content-Length: 6", body=b"abcdef")),
    refused("length-twice-the-same", "9112 §6.3", post(b"Content-Length: 5", b"Content-Length: 5", body=b"abcde")),
    refused("length-twice-in-other-case", "9112 §6.3", post(b"Content-Length: 5", b"content-LENGTH: 5", body=b"abcde")),
    refused("length-twice-one-zero", "9112 §6.3", post(b"Content-Length: 0", b"Content-Length: 5", body=b"abcde")),
    refused("length-twice-apart", "9112 §6.3",
            post(b"Content-Length: 5", b"X: 1", b"Content-Length: 5", body=b"abcde")),
    refused("length-twice-one-empty", "9112 §6.3", post(b"Content-Length: 5", b"Content-Length:", body=b"abcde")),
    refused("length-three-times", "9112 §6.3", post(*(b"Content-Length: 5",) * 3, body=b"abcde")),
    refused("length-with-space-before-colon", "9112 §5.1", post(b"Content-Length : 5", body=b"abcde")),
    refused("length-with-tab-before-colon", "9112 §5.1", post(b"Content-Length\t: 5", body=b"abcde")),
    refused("length-with-leading-space", "9112 §5.2", post(b" Content-Length: 5", body=b"abcde")),
    refused("length-with-nul-in-name", "9110 §5.1", post(b"Content-Length\x00: 5", body=b"abcde")),
    refused("length-with-vertical-tab-in-name", "9110 §5.1", post(b"Content-Length\x0b: 5", body=b"abcde")),
    refused("length-behind-bare-lf", "9112 §2.2", post(b"X: 1\nContent-Length: 5", body=b"abcde")),
    refused("length-behind-bare-cr", "9112 §2.2", post(b"X: 1\rContent-Length: 5", body=b"abcde")),
    passed("length-with-underscore-is-none", "9110 §5.1", post(b"Content_Length: 5"),
           Seen(b"POST", lacks=(b"content_length",))),
    passed("length-with-underscore-beside-the-real", "9110 §5.1",
           post(b"Content_Length: 50", b"Content-Length: 5", body=b"abcde"),
           Seen(b"POST", body=b"abcde", lacks=(b"content_length",))),
    passed("length-in-name-of-another-field", "9110 §5.1", post(b"X-Content-Length: 5"),
           Seen(b"POST", has=(b"X-Content-Length: 5",))),
    passed("length-in-http10", "9112 §6.3", post(b"Content-Length: 5", line=b"POST / HTTP/1.0", body=b"abcde"),
           Seen(b"POST", body=b"abcde"), closed=True),
    passed("no-length-in-http10", "9112 §6.3", post(line=b"POST / HTTP/1.0"), Seen(b"POST"), closed=True),
    refused("length-malformed-in-http10", "9110 §8.6", post(b"Content-Length: +5", line=b"POST / HTTP/1.0",
                                                            body=b"abcde")),
    refused("length-twice-in-http10", "9112 §6.3",
            post(b"Content-Length: 5", b"Content-Length: 5", line=b"POST / HTTP/1.0", body=b"abcde")),
    refused("length-malformed-of-get", "9110 §8.6", request(b"Content-Length: x")),
    refused("length-malformed-of-head", "9110 §8.6", request(b"Content-Length: x", line=b"HEAD / HTTP/1.1")),
]  # fmt: skip
