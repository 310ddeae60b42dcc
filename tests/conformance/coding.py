"""Transfer-Encoding of requests: RFC 9112 §6.1, §6.3 and §7."""

from __future__ import annotations

from tests.conformance.case import RequestCase, Seen, allowed, chunked, passed, post, refused, request

BODY = b"5\r\nabcde\r\n0\r\n\r\n"


def _coded(value: bytes) -> bytes:
    return post(b"Transfer-Encoding:" + value, body=BODY)


GOOD_VALUES = (
    ("chunked", b" chunked"),
    ("chunked-without-space", b"chunked"),
    ("chunked-with-white-space-around", b" \t chunked \t "),
    ("chunked-behind-tab", b"\tchunked"),
    ("chunked-in-upper-case", b" CHUNKED"),
    ("chunked-in-mixed-case", b" ChUnKeD"),
)
"""Ways to say chunked."""

_CHUNKED = [
    passed(f"coding-{name}", "9112 §6.1", _coded(value),
           Seen(b"POST", body=b"abcde", has=(b"Transfer-Encoding: chunked",), lacks=(b"content-length",)))
    for name, value in GOOD_VALUES
]  # fmt: skip

BAD_VALUES: tuple[tuple[str, bytes, *tuple[int, ...]], ...] = (
    ("empty", b""),
    ("of-white-space", b" \t "),
    ("identity", b" identity"),
    ("gzip", b" gzip"),
    ("deflate", b" deflate"),
    ("compress", b" compress"),
    ("unknown", b" foo"),
    ("trailers", b" trailers"),
    ("chunked-then-gzip", b" chunked, gzip"),
    ("chunked-then-identity", b" chunked, identity"),
    ("chunked-twice", b" chunked, chunked"),
    ("chunked-twice-without-space", b" chunked,chunked"),
    ("chunked-three-times", b" chunked, chunked, chunked"),
    ("chunked-gzip-chunked", b" chunked, gzip, chunked", 400, 501),
    ("chunked-with-parameter", b" chunked;q=1"),
    ("chunked-with-parameter-and-space", b" chunked; a=b"),
    ("chunked-with-semicolon", b" chunked;"),
    ("chunked-in-quotes", b' "chunked"'),
    ("chunked-in-single-quotes", b" 'chunked'"),
    ("chunked-with-empty-first", b" ,chunked"),
    ("chunked-with-empty-first-and-space", b" , chunked"),
    ("chunked-with-empty-last", b" chunked,"),
    ("chunked-with-empty-last-and-space", b" chunked, "),
    ("of-commas", b" ,,"),
    ("of-a-comma", b" ,"),
    ("chunked-with-letter-before", b" xchunked"),
    ("chunked-with-letter-behind", b" chunkedx"),
    ("chunked-with-hyphen", b" x-chunked"),
    ("chunked-without-end", b" chunke"),
    ("chunked-with-space-within", b" chun ked"),
    ("chunked-with-word-behind", b" chunked foo"),
    ("chunked-with-word-before", b" foo chunked"),
    ("chunked-with-full-stop", b" chunked."),
    ("chunked-with-colon", b" : chunked"),
    ("chunked-with-nul", b" chunked\x00"),
    ("chunked-with-vertical-tab-before", b" \x0bchunked"),
    ("chunked-with-vertical-tab-behind", b" chunked\x0b"),
    ("chunked-with-form-feed", b" \x0cchunked"),
    ("chunked-with-nbsp", b" \xa0chunked"),
    ("chunked-with-nel", b" chunked\x85"),
    ("chunked-with-byte-255", b" \xffchunked"),
    ("chunked-with-bare-cr", b" chunked\r"),
    ("chunked-with-bare-cr-before", b" \rchunked"),
    ("chunked-folded", b" chunked\r\n "),
    ("chunked-folded-before", b"\r\n chunked"),
    ("chunked-folded-to-list", b" gzip,\r\n chunked"),
    ("chunked-with-long-s", b" chun\xc5\xbfed"),
    ("chunked-with-kelvin", b" chun\xe2\x84\xaaed"),
)
"""What does not end in exactly chunked; with statuses where they are not 400."""

_BAD = [refused(f"coding-{name}", "9112 §6.1", _coded(value), *statuses) for name, value, *statuses in BAD_VALUES]

UNKNOWN_CODINGS: tuple[tuple[str, bytes, *tuple[int, ...]], ...] = (
    ("gzip-then-chunked", b" gzip, chunked", 501),
    ("gzip-then-chunked-without-space", b" gzip,chunked", 501),
    ("unknown-then-chunked", b" foo, chunked", 501),
    ("unknown-then-chunked-in-upper-case", b" FOO, CHUNKED", 501),
    ("two-then-chunked", b" gzip, deflate, chunked", 501),
    ("identity-then-chunked", b" identity, chunked", 400, 501),
    ("gzip-with-parameter-then-chunked", b" gzip;level=9, chunked", 400, 501),
    ("quoted-parameter-then-chunked", b' foo;a="b, c", chunked', 400, 501),
)
"""Codings before a final chunked."""

_UNKNOWN = [
    refused(f"coding-{name}", "9112 §6.1", _coded(value), *statuses) for name, value, *statuses in UNKNOWN_CODINGS
]

REQUESTS: list[RequestCase] = [
    *_CHUNKED,
    *_BAD,
    *_UNKNOWN,
    refused("coding-twice-chunked", "9112 §6.1",
            post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=BODY)),
    refused("coding-twice-chunked-and-identity", "9112 §6.1",
            post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=BODY)),
    refused("coding-twice-chunked-and-unknown", "9112 §6.1",
            post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: foo", body=BODY)),
    refused("coding-twice-chunked-and-empty", "9112 §6.1",
            post(b"Transfer-Encoding: chunked", b"Transfer-Encoding:", body=BODY)),
    refused("coding-twice-empty-and-chunked", "9112 §6.1",
            post(b"Transfer-Encoding:", b"Transfer-Encoding: chunked", body=BODY), 400, 501),
    refused("coding-twice-unknown-and-chunked", "9112 §6.1",
            post(b"Transfer-Encoding: foo", b"Transfer-Encoding: chunked", body=BODY), 400, 501),
    refused("coding-twice-identity-and-chunked", "9112 §6.1",
            post(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked", body=BODY), 400, 501),
    refused("coding-twice-in-other-case", "9112 §6.1",
            post(b"Transfer-Encoding: chunked", b"tRANSFER-eNCODING: chunked", body=BODY)),
    refused("coding-and-length", "9112 §6.3", post(b"Transfer-Encoding: chunked", b"Content-Length: 15", body=BODY)),
    refused("length-and-coding", "9112 §6.3", post(b"Content-Length: 15", b"Transfer-Encoding: chunked", body=BODY)),
    refused("coding-and-length-zero", "9112 §6.3",
            post(b"Transfer-Encoding: chunked", b"Content-Length: 0", body=BODY)),
    refused("coding-and-length-apart", "9112 §6.3",
            post(b"Content-Length: 15", b"X: 1", b"Y: 2", b"transfer-encoding: CHUNKED", body=BODY)),
    refused("coding-identity-and-length", "9112 §6.3",
            post(b"Transfer-Encoding: identity", b"Content-Length: 5", body=b"abcde")),
    refused("coding-empty-and-length", "9112 §6.3", post(b"Transfer-Encoding:", b"Content-Length: 5", body=b"abcde")),
    refused("coding-unknown-and-length", "9112 §6.3",
            post(b"Transfer-Encoding: foo, chunked", b"Content-Length: 5", body=b"abcde"), 400, 501),
    refused("coding-and-malformed-length", "9112 §6.3",
            post(b"Transfer-Encoding: chunked", b"Content-Length: x", body=BODY)),
    refused("coding-and-length-of-get", "9112 §6.3",
            request(b"Transfer-Encoding: chunked", b"Content-Length: 0", body=b"0\r\n\r\n")),
    refused("coding-and-smuggled-request-clte", "9112 §11.2",
            post(b"Content-Length: 40", b"Transfer-Encoding: chunked",
                 body=b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")),
    refused("coding-and-smuggled-request-tecl", "9112 §11.2",
            post(b"Transfer-Encoding: chunked", b"Content-Length: 4",
                 body=b"23\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n")),
    refused("coding-in-http10", "9112 §6.1",
            request(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0", body=BODY)),
    refused("coding-in-http10-with-length", "9112 §6.1",
            request(b"Transfer-Encoding: chunked", b"Content-Length: 5", line=b"POST / HTTP/1.0", body=b"abcde")),
    refused("coding-in-http10-kept-alive", "9112 §6.1",
            request(b"Connection: keep-alive", b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0", body=BODY)),
    refused("coding-identity-in-http10", "9112 §6.1",
            request(b"Transfer-Encoding: identity", line=b"POST / HTTP/1.0", body=b"")),
    refused("coding-with-space-before-colon", "9112 §5.1", post(b"Transfer-Encoding : chunked", body=BODY)),
    refused("coding-with-tab-before-colon", "9112 §5.1", post(b"Transfer-Encoding\t: chunked", body=BODY)),
    refused("coding-with-space-before-colon-and-length", "9112 §5.1",
            post(b"Transfer-Encoding : chunked", b"Content-Length: 5", body=b"abcde")),
    refused("coding-with-leading-space", "9112 §5.2", post(b" Transfer-Encoding: chunked", body=BODY)),
    refused("coding-with-nul-in-name", "9110 §5.1", post(b"Transfer-Encoding\x00: chunked", body=BODY)),
    refused("coding-with-nbsp-in-name", "9110 §5.1", post(b"Transfer-Encoding\xa0: chunked", body=BODY)),
    refused("coding-behind-bare-lf", "9112 §2.2", post(b"X: 1\nTransfer-Encoding: chunked", body=BODY)),
    refused("coding-behind-bare-cr", "9112 §2.2", post(b"X: 1\rTransfer-Encoding: chunked", body=BODY)),
    refused("coding-folded-into-another-field", "9112 §5.2", post(b"X: 1\r\n Transfer-Encoding: chunked", body=BODY)),
    passed("coding-with-underscore-is-none", "9110 §5.1", post(b"Transfer_Encoding: chunked"),
           Seen(b"POST", lacks=(b"transfer_encoding",))),
    passed("coding-with-underscore-beside-length", "9110 §5.1",
           post(b"Transfer_Encoding: chunked", b"Content-Length: 5", body=b"abcde"),
           Seen(b"POST", body=b"abcde", lacks=(b"transfer_encoding",))),
    passed("coding-in-name-of-another-field", "9110 §5.1", post(b"X-Transfer-Encoding: chunked"),
           Seen(b"POST", has=(b"X-Transfer-Encoding: chunked",))),
    passed("coding-of-content-is-another-thing", "9110 §8.4",
           post(b"Content-Encoding: gzip", b"Content-Length: 5", body=b"abcde"),
           Seen(b"POST", body=b"abcde", has=(b"Content-Encoding: gzip",))),
    passed("coding-chunked-of-get", "9112 §6.1", request(b"Transfer-Encoding: chunked", body=BODY),
           Seen(body=b"abcde")),
    passed("coding-chunked-of-get-empty", "9112 §6.1", request(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
           Seen()),
    passed("coding-chunked-of-head", "9112 §6.1",
           request(b"Transfer-Encoding: chunked", line=b"HEAD / HTTP/1.1", body=BODY), Seen(b"HEAD", body=b"abcde")),
    passed("coding-chunked-of-delete", "9112 §6.1",
           request(b"Transfer-Encoding: chunked", line=b"DELETE / HTTP/1.1", body=BODY), Seen(b"DELETE",
                                                                                              body=b"abcde")),
    passed("coding-chunked-of-unknown-method", "9112 §6.1",
           request(b"Transfer-Encoding: chunked", line=b"FOO / HTTP/1.1", body=BODY), Seen(b"FOO", body=b"abcde")),
    passed("coding-chunked-with-version-1.2", "9110 §2.5",
           request(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.2", body=BODY), Seen(b"POST", body=b"abcde")),
    passed("coding-chunked-and-request-behind", "9112 §7.1", chunked(BODY + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
           Seen(b"POST", body=b"abcde"), Seen(target=b"/2")),
    RequestCase("coding-chunked-and-rubbish-behind", "9112 §7.1", chunked(BODY + b"abc\r\n\r\n"), allowed(200, 400),
                (Seen(b"POST", body=b"abcde"),), closed=True),
]  # fmt: skip
