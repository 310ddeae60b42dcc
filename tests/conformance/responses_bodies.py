"""Bodies of responses and where they end: RFC 9112 §6 and §7."""

from __future__ import annotations

from tests.conformance.case import ResponseCase, bad, broken, ok, request, response
from tests.conformance.chunks import BAD_BODIES, BAD_EXTENSIONS, BAD_SIZES, GOOD_BODIES, UNFINISHED_BODIES
from tests.conformance.coding import BAD_VALUES as BAD_CODINGS
from tests.conformance.coding import GOOD_VALUES as GOOD_CODINGS
from tests.conformance.coding import UNKNOWN_CODINGS
from tests.conformance.length import BAD_VALUES as BAD_LENGTHS
from tests.conformance.length import GOOD_VALUES as GOOD_LENGTHS
from tests.conformance.trailers import BAD_SECTIONS, FORBIDDEN, GOOD_SECTIONS

CHUNKS = b"5\r\nabcde\r\n0\r\n\r\n"
OLD = request(line=b"GET / HTTP/1.0")
OLD_KEPT = request(b"Connection: keep-alive", line=b"GET / HTTP/1.0")


def _length(value: bytes, body: bytes = b"abcde") -> bytes:
    return response(b"Content-Length:" + value, body=body)


def _chunked(body: bytes, *fields: bytes) -> bytes:
    return response(b"Transfer-Encoding: chunked", *fields, body=body)


def _trailed(section: bytes) -> bytes:
    return _chunked(b"5\r\nabcde\r\n0\r\n" + section + b"\r\n")


_LENGTHS = [
    *(bad(f"response-length-{name}", "9110 §8.6", _length(value)) for name, value in BAD_LENGTHS),
    *(
        ResponseCase(f"response-length-{name}", "9110 §8.6", _length(value), body=b"abcde", framing="length",
                     reused=True)
        for name, value in GOOD_LENGTHS
    ),
    ResponseCase("response-length-zero", "9110 §8.6", _length(b" 0", b""), framing="length", reused=True, stays=True),
    ResponseCase("response-length-of-every-byte", "9112 §6.2", _length(b" 256", bytes(range(256))),
                 body=bytes(range(256)), reused=True),
    ResponseCase("response-length-of-100-kb", "9112 §6.2", _length(b" 100000", b"z" * 100_000), body=b"z" * 100_000,
                 reused=True, stays=True),
    ResponseCase("response-length-of-a-body-that-is-a-response", "9112 §6.2",
                 _length(b" 38", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
                 body=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", reused=True, stays=True),
    bad("response-length-twice", "9112 §6.3", response(b"Content-Length: 5", b"Content-Length: 6", body=b"abcdef")),
    bad("response-length-twice-the-same", "9112 §6.3",
        response(b"Content-Length: 5", b"content-length: 5", body=b"abcde")),
    bad("response-length-and-coding", "9112 §6.3",
        response(b"Content-Length: 15", b"Transfer-Encoding: chunked", body=CHUNKS)),
    bad("response-coding-and-length", "9112 §6.3",
        response(b"Transfer-Encoding: chunked", b"Content-Length: 15", body=CHUNKS)),
    bad("response-coding-and-length-zero", "9112 §6.3",
        response(b"Transfer-Encoding: chunked", b"Content-Length: 0", body=CHUNKS)),
    ResponseCase("response-shorter-than-its-length", "9112 §8", _length(b" 6"), body=b"abcde", ending="truncated",
                 closes="eof", reused=False),
    ResponseCase("response-of-no-byte-of-its-length", "9112 §8", _length(b" 6", b""), ending="truncated", closes="eof",
                 reused=False),
    ResponseCase("response-reset-before-its-length", "9112 §8", _length(b" 6"), ending="truncated", closes="reset",
                 reused=False),
    ResponseCase("response-shorter-than-its-length-to-http10", "9112 §8", _length(b" 6"), ending="truncated",
                 closes="eof", ask=OLD, reused=False),
    ResponseCase("response-of-18-nines-and-no-more", "9112 §8", _length(b" " + b"9" * 18), ending="truncated",
                 closes="eof", reused=False),
    ResponseCase("response-length-with-underscore-is-none", "9110 §5.1",
                 response(b"Content_Length: 5", body=b"abcdefg"),
                 body=b"abcdefg", closes="eof", reused=False),
]  # fmt: skip

_CODINGS = [
    *(bad(f"response-coding-{name}", "9112 §6.1", response(b"Transfer-Encoding:" + value, body=CHUNKS))
      for name, value, *_ in (*BAD_CODINGS, *UNKNOWN_CODINGS)),
    *(
        ResponseCase(f"response-coding-{name}", "9112 §6.1", response(b"Transfer-Encoding:" + value, body=CHUNKS),
                     body=b"abcde", framing="chunked", lacks=(b"content-length",), reused=True, stays=True)
        for name, value in GOOD_CODINGS
    ),
    bad("response-coding-twice", "9112 §6.1",
        response(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=CHUNKS)),
    bad("response-coding-twice-gzip-and-chunked", "9112 §6.1",
        response(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=CHUNKS)),
    bad("response-coding-twice-chunked-and-identity", "9112 §6.1",
        response(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=CHUNKS)),
    bad("response-coding-in-http10", "9112 §6.1",
        response(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK", body=CHUNKS)),
    bad("response-coding-in-http10-kept-alive", "9112 §6.1",
        response(b"Connection: keep-alive", b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK", body=CHUNKS)),
]  # fmt: skip

_CHUNKS = [
    *(ResponseCase(f"response-chunks-{name}", section, _chunked(body), body=payload, framing="chunked", reused=True,
                   stays=True) for name, section, body, payload in GOOD_BODIES),
    *(broken(f"response-chunk-size-{name}", "9112 §7.1", _chunked(line + b"\r\nabcde\r\n0\r\n\r\n"))
      for name, line in BAD_SIZES),
    *(broken(f"response-chunk-extension-{name}", "9112 §7.1.1", _chunked(b"5" + line + b"\r\nabcde\r\n0\r\n\r\n"))
      for name, line in BAD_EXTENSIONS),
    *(broken(f"response-chunks-{name}", "9112 §7.1", _chunked(body)) for name, body in BAD_BODIES),
    *(broken(f"response-chunks-unfinished-{name}", "9112 §8", _chunked(body), closes="eof")
      for name, body in UNFINISHED_BODIES),
    ResponseCase("response-chunks-unfinished-and-reset", "9112 §8", _chunked(b"5\r\nabcde\r\n"), ending="truncated",
                 closes="reset", reused=False),
    ResponseCase("response-chunks-unfinished-to-http10", "9112 §8", _chunked(b"5\r\nabcde\r\n"), ending="truncated",
                 closes="eof", ask=OLD, reused=False),
    ResponseCase("response-chunks-to-http10", "9112 §7.1", _chunked(CHUNKS), body=b"abcde", framing="close", ask=OLD,
                 lacks=(b"transfer-encoding", b"trailer"), reused=True, stays=False),
    ResponseCase("response-chunks-to-http10-kept-alive", "9112 §9.3", _chunked(CHUNKS), body=b"abcde", framing="close",
                 ask=OLD_KEPT, lacks=(b"transfer-encoding",), reused=True, stays=False),
    ResponseCase("response-chunks-and-close", "9112 §9.6", _chunked(CHUNKS, b"Connection: close"), body=b"abcde",
                 framing="chunked", reused=False, stays=True),
]  # fmt: skip

_TRAILERS = [
    *(ResponseCase(f"response-trailers-{name}", "9110 §6.5", _trailed(section), body=b"abcde", trailers=trailers,
                   reused=True, stays=True) for name, section, trailers in GOOD_SECTIONS),
    *(ResponseCase(f"response-trailers-drop-{line.partition(b':')[0].decode()}", "9110 §6.5.1",
                   _trailed(b"X-Sum: 1\r\n" + line + b"\r\n"), body=b"abcde", trailers=(b"X-Sum: 1",), reused=True)
      for line in FORBIDDEN),
    *(broken(f"response-trailers-{name}", "9112 §7.1.2", _trailed(section)) for name, section, *_ in BAD_SECTIONS
      if "before-colon" not in name and name != "malformed-and-forbidden"),
    ResponseCase("response-trailers-announced", "9110 §6.6.2",
                 _chunked(b"5\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n", b"Trailer: X-Sum"), body=b"abcde",
                 has=(b"Trailer: X-Sum",), trailers=(b"X-Sum: 1",)),
    ResponseCase("response-trailers-to-http10", "9110 §6.5", _trailed(b"X-Sum: 1\r\n"), body=b"abcde", framing="close",
                 ask=OLD, reused=True, stays=False),
]  # fmt: skip

_UNTIL_CLOSE = [
    ResponseCase("response-until-close", "9112 §6.3", response(body=b"abcde"), body=b"abcde", framing="chunked",
                 closes="eof", reused=False, stays=True),
    ResponseCase("response-until-close-empty", "9112 §6.3", response(), framing="chunked", closes="eof", reused=False),
    ResponseCase("response-until-close-of-http10", "9112 §6.3", response(line=b"HTTP/1.0 200 OK", body=b"abcde"),
                 body=b"abcde", framing="chunked", closes="eof", reused=False),
    ResponseCase("response-until-close-with-keep-alive", "9112 §6.3",
                 response(b"Connection: keep-alive", body=b"abcde"), body=b"abcde", closes="eof", reused=False),
    ResponseCase("response-until-close-that-looks-chunked", "9112 §6.3", response(body=CHUNKS), body=CHUNKS,
                 closes="eof", reused=False),
    ResponseCase("response-until-close-that-is-a-response", "9112 §6.3", response(body=ok()), body=ok(), closes="eof",
                 reused=False),
    ResponseCase("response-until-close-of-70-kb", "9112 §6.3", response(body=b"y" * 70_000), body=b"y" * 70_000,
                 closes="eof", reused=False),
    ResponseCase("response-until-close-to-http10", "9112 §6.3", response(body=b"abcde"), body=b"abcde", framing="close",
                 closes="eof", ask=OLD, reused=False, stays=False),
    ResponseCase("response-until-close-to-http10-kept-alive", "9112 §9.3", response(body=b"abcde"), body=b"abcde",
                 framing="close", closes="eof", ask=OLD_KEPT, reused=False, stays=False),
    ResponseCase("response-until-a-reset", "9112 §8", response(body=b"abcde"), ending="truncated", closes="reset",
                 reused=False),
    ResponseCase("response-until-a-reset-to-http10", "9112 §8", response(body=b"abcde"), ending="truncated",
                 closes="reset", ask=OLD, reused=False),
]  # fmt: skip

RESPONSES: list[ResponseCase] = [*_LENGTHS, *_CODINGS, *_CHUNKS, *_TRAILERS, *_UNTIL_CLOSE]
