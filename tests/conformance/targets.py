"""The request target: RFC 9112 §3.2, RFC 9110 §4 and §7.1."""

from __future__ import annotations

from tests.conformance.case import RequestCase, Seen, passed, refused, request
from tests.conformance.names import CONTROLS, named


def _line(target: bytes, method: bytes = b"GET") -> bytes:
    return method + b" " + target + b" HTTP/1.1"


_AS_IT_CAME = [
    passed(f"target-{name}", "9112 §3.2.1", request(line=_line(target)), Seen(target=target))
    for name, target in (
        ("root", b"/"),
        ("path", b"/a/b/c"),
        ("with-query", b"/a?b=c&d=e"),
        ("with-empty-query", b"/a?"),
        ("with-two-question-marks", b"/a?b?c"),
        ("with-slash-in-query", b"/a?b/c"),
        ("root-with-query", b"/?a"),
        ("two-slashes", b"//"),
        ("two-slashes-in-front", b"//a/b"),
        ("two-slashes-and-at", b"//user@a/b"),
        ("two-slashes-within", b"/a//b"),
        ("slash-at-the-end", b"/a/"),
        ("dot-segments", b"/a/../b/./c"),
        ("dot-segments-over-the-root", b"/../../a"),
        ("percent-encoded", b"/%41%2f%2F%20"),
        ("percent-encoded-dots", b"/%2e%2E/a"),
        ("percent-encoded-nul", b"/a%00b"),
        ("percent-encoded-line-end", b"/a%0d%0aX:%20b"),
        ("percent-encoded-hash", b"/a%23b"),
        ("percent-encoded-utf-8", b"/%c3%a4"),
        ("bare-percent", b"/a%"),
        ("half-a-percent-encoding", b"/a%2"),
        ("bad-percent-encoding", b"/a%zz"),
        ("unreserved", b"/-._~"),
        ("sub-delims", b"/!$&'()*+,;="),
        ("colon-and-at", b"/a:b@c"),
        ("parameters", b"/a;b=c;d/e,f"),
        ("uri-in-path", b"/http://a/b"),
        ("uri-in-query", b"/a?u=http://b/c"),
        ("asterisk-in-path", b"/*"),
        ("brackets", b"/a[0]?b[]=c"),
        ("bar", b"/a|b"),
        ("braces", b"/{a}"),
        ("quote", b'/"a"'),
        ("angle-brackets", b"/<a>"),
        ("caret", b"/a^b"),
        ("backtick", b"/a`b"),
        ("backslash", b"/a\\b"),
        ("version-in-path", b"/HTTP/1.1"),
        ("upper-case", b"/A/B?C=D"),
        ("of-4000-bytes", b"/" + b"abc/" * 1000),
    )
]

_BAD = [
    refused(f"target-{name}", "9112 §3.2", request(line=_line(target)))
    for name, target in (
        ("with-fragment", b"/a#b"),
        ("with-empty-fragment", b"/a#"),
        ("with-fragment-behind-query", b"/a?b#c"),
        ("of-fragment", b"#"),
        ("without-slash", b"a"),
        ("without-slash-with-path", b"a/b"),
        ("of-query", b"?a"),
        ("of-dot", b"."),
        ("of-percent-slash", b"%2f"),
        ("authority-form", b"a:80"),
        ("authority-form-without-port", b"a.example"),
        ("authority-form-ipv6", b"[::1]:80"),
        ("asterisk-with-get", b"*"),
        ("two-asterisks", b"**"),
        ("asterisk-with-path", b"*/a"),
        ("asterisk-with-query", b"*?a"),
        ("backslash-in-front", b"\\a"),
        ("absolute-without-slashes", b"http:a"),
        ("absolute-with-one-slash", b"http:/a"),
        ("absolute-without-authority", b"http://"),
        ("absolute-with-empty-host", b"http:///a"),
        ("absolute-with-empty-host-and-port", b"http://:80/a"),
        ("absolute-with-empty-host-and-query", b"http://?a"),
        ("absolute-with-userinfo", b"http://user@a/"),
        ("absolute-with-password", b"http://user:secret@a/"),
        ("absolute-with-empty-userinfo", b"http://@a/"),
        ("absolute-with-letters-as-port", b"http://a:x/"),
        ("absolute-with-port-65536", b"http://a:65536/"),
        ("absolute-with-negative-port", b"http://a:-80/"),
        ("absolute-with-two-ports", b"http://a:80:80/"),
        ("absolute-with-bad-ipv6", b"http://[::1/"),
        ("absolute-with-bad-ipv6-address", b"http://[1::2::3]/"),
        ("absolute-with-fragment", b"http://a/#b"),
        ("absolute-with-backslash-host", b"http://a\\b/"),
        ("absolute-with-bad-percent-host", b"http://a%zz/"),
        ("absolute-with-other-scheme", b"ftp://a/"),
        ("absolute-with-websocket-scheme", b"ws://a/"),
        ("absolute-with-file-scheme", b"file:///etc/passwd"),
        ("absolute-with-empty-scheme", b"://a/"),
        ("absolute-with-longer-scheme", b"xhttp://a/"),
        ("absolute-of-urn", b"urn:a:b"),
        ("absolute-of-javascript", b"javascript:alert(1)"),
        ("in-utf-8", b"/\xc3\xa4"),
        ("in-latin-1", b"/\xe4"),
        ("with-utf-8-in-query", b"/?a=\xe2\x82\xac"),
        ("with-byte-255", b"/\xff"),
        ("absolute-in-utf-8", b"http://\xc3\xa4/"),
    )
]

_CONTROL_BYTES = [
    refused(f"target-with-{named(byte)}", "9112 §3.2", request(line=_line(b"/a" + byte + b"b")))
    for byte in (*CONTROLS, b"\x7f")
]


def _absolute(name: str, target: bytes, host: bytes, origin: bytes, section: str = "9112 §3.2.2") -> RequestCase:
    seen = Seen(target=origin, has=(b"Host: " + host, b"X-Forwarded-Host: " + host))
    return passed(f"target-absolute-{name}", section, request(line=_line(target)), seen)


REQUESTS: list[RequestCase] = [
    *_AS_IT_CAME,
    *_BAD,
    *_CONTROL_BYTES,
    _absolute("of-the-same-host", b"http://a/b?c", b"a", b"/b?c"),
    _absolute("of-another-host", b"http://other.example/b", b"other.example", b"/b"),
    _absolute("with-port", b"http://b:8080/c", b"b:8080", b"/c"),
    _absolute("with-default-port", b"http://b:80/", b"b:80", b"/"),
    _absolute("without-path", b"http://b", b"b", b"/"),
    _absolute("without-path-with-query", b"http://b?c", b"b", b"/?c"),
    _absolute("without-path-with-query-and-slash", b"http://b?c/d", b"b", b"/?c/d"),
    _absolute("with-scheme-in-upper-case", b"HTTP://b/", b"b", b"/", "9110 §4.2.3"),
    _absolute("with-https", b"https://b/c", b"b", b"/c", "9110 §4.2.2"),
    _absolute("of-ipv6", b"http://[::1]:80/c", b"[::1]:80", b"/c"),
    _absolute("of-ipv4", b"http://127.0.0.1/c", b"127.0.0.1", b"/c"),
    _absolute("with-two-slashes", b"http://b//c", b"b", b"//c"),
    _absolute("with-at-in-path", b"http://b/c@d", b"b", b"/c@d"),
    _absolute("with-at-in-query", b"http://b?c@d", b"b", b"/?c@d"),
    _absolute("with-uri-in-path", b"http://b/http://c/d", b"b", b"/http://c/d"),
    passed("target-absolute-with-http10", "9112 §3.2.2", request(line=b"GET http://b/c HTTP/1.0", host=None),
           Seen(target=b"/c", has=(b"Host: b",)), closed=True),
    passed("target-absolute-with-post", "9112 §3.2.2",
           request(b"Content-Length: 3", line=b"POST http://b/c HTTP/1.1", body=b"abc"),
           Seen(b"POST", b"/c", b"abc", has=(b"Host: b",))),
    passed("target-asterisk", "9112 §3.2.4", request(line=_line(b"*", b"OPTIONS")), Seen(b"OPTIONS", b"*")),
    passed("target-asterisk-by-absolute-form", "9112 §3.2.4", request(line=_line(b"http://b", b"OPTIONS")),
           Seen(b"OPTIONS", b"*", has=(b"Host: b",))),
    passed("target-asterisk-by-absolute-form-with-port", "9112 §3.2.4",
           request(line=_line(b"http://b:8001", b"OPTIONS")), Seen(b"OPTIONS", b"*", has=(b"Host: b:8001",))),
    passed("target-no-asterisk-by-absolute-form-with-slash", "9112 §3.2.4",
           request(line=_line(b"http://b/", b"OPTIONS")), Seen(b"OPTIONS", b"/", has=(b"Host: b",))),
    passed("target-no-asterisk-by-absolute-form-with-query", "9112 §3.2.4",
           request(line=_line(b"http://b?c", b"OPTIONS")), Seen(b"OPTIONS", b"/?c", has=(b"Host: b",))),
    passed("target-options-of-a-path", "9110 §9.3.7", request(line=_line(b"/a", b"OPTIONS")), Seen(b"OPTIONS", b"/a")),
    refused("target-asterisk-with-post", "9112 §3.2.4",
            request(b"Content-Length: 0", line=_line(b"*", b"POST"))),
    refused("target-asterisk-with-head", "9112 §3.2.4", request(line=_line(b"*", b"HEAD")), closed=None),
    refused("target-asterisk-with-options-in-lower-case", "9112 §3.2.4", request(line=_line(b"*", b"options"))),
    refused("target-options-with-fragment", "9112 §3.2.4", request(line=_line(b"*#", b"OPTIONS"))),
]  # fmt: skip
