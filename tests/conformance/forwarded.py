"""What the router says in requests, and what nobody may say in its place: RFC 9110 §7.6, and the router's fields."""

from __future__ import annotations

from tests.conformance.case import RequestCase, Seen, allowed, passed, refused, request

_REPLACED = [
    passed(f"forged-{name}", "9110 §7.6.3", request(*lines), Seen(has=has, lacks=lacks))
    for name, lines, has, lacks in (
        ("x-forwarded-for", (b"X-Forwarded-For: 9.9.9.9",), (b"X-Forwarded-For: 127.0.0.1",), ()),
        ("x-forwarded-for-twice", (b"X-Forwarded-For: 9.9.9.9", b"x-forwarded-for: 8.8.8.8"),
         (b"X-Forwarded-For: 127.0.0.1",), ()),
        ("x-forwarded-for-empty", (b"X-Forwarded-For:",), (b"X-Forwarded-For: 127.0.0.1",), ()),
        ("x-forwarded-proto", (b"X-Forwarded-Proto: https",), (b"X-Forwarded-Proto: http",), ()),
        ("x-forwarded-host", (b"X-Forwarded-Host: evil",), (b"X-Forwarded-Host: a",), ()),
        ("x-forwarded-port", (b"X-Forwarded-Port: 1",), (), (b"x-forwarded-port",)),
        ("x-forwarded-prefix", (b"X-Forwarded-Prefix: /admin",), (), (b"x-forwarded-prefix",)),
        ("x-forwarded-server", (b"X-Forwarded-Server: evil",), (), (b"x-forwarded-server",)),
        ("x-forwarded-anything", (b"X-Forwarded-Anything: 1",), (), (b"x-forwarded-anything",)),
        ("x-real-ip", (b"X-Real-IP: 9.9.9.9",), (), (b"x-real-ip",)),
        ("x-ring", (b"X-Ring: early",), (b"X-Ring: everyone",), ()),
        ("x-ring-twice", (b"X-Ring: early", b"x-ring: early"), (b"X-Ring: everyone",), ()),
        ("x-ring-version", (b"X-Ring-Version: v2",), (b"X-Ring-Version: v1",), ()),
        ("x-forwarded-for-with-underscores", (b"X_Forwarded_For: 9.9.9.9",), (), (b"x_forwarded_for",)),
        ("x-forwarded-for-with-one-underscore", (b"X-Forwarded_For: 9.9.9.9",), (), (b"x-forwarded_for",)),
        ("x-forwarded-proto-with-underscores", (b"X_FORWARDED_PROTO: https",), (), (b"x_forwarded_proto",)),
        ("x-ring-with-underscore", (b"X_Ring: early",), (), (b"x_ring",)),
        ("x-ring-version-with-underscores", (b"X_Ring_Version: v2",), (), (b"x_ring_version",)),
        ("x-request-id-with-underscores", (b"X_Request_Id: 1",), (), (b"x_request_id",)),
        ("x-real-ip-with-underscores", (b"X_Real_IP: 9.9.9.9",), (), (b"x_real_ip",)),
        ("proxy-authorization-with-underscore", (b"Proxy_Authorization: x",), (), (b"proxy_authorization",)),
    )
]  # fmt: skip

_IDS = [
    passed(f"request-id-{name}", "9110 §5.5", request(b"X-Request-Id:" + value), Seen(has=has))
    for name, value, has in (
        ("kept", b" mine-1", (b"X-Request-Id: mine-1",)),
        ("kept-of-128-bytes", b" " + b"i" * 128, (b"X-Request-Id: " + b"i" * 128,)),
        ("kept-of-one-byte", b" i", (b"X-Request-Id: i",)),
        ("kept-with-visible-characters", b" a/b:c;d=e{}", (b"X-Request-Id: a/b:c;d=e{}",)),
    )
]


def _hops(name: str, raw: bytes, *seen: Seen) -> RequestCase:
    return passed(f"max-forwards-{name}", "9110 §7.6.2", raw, *seen)


def _options(value: bytes, target: bytes = b"*") -> bytes:
    return request(b"Max-Forwards:" + value, line=b"OPTIONS " + target + b" HTTP/1.1")


REQUESTS: list[RequestCase] = [
    *_REPLACED,
    *_IDS,
    passed("request-id-of-129-bytes-is-replaced", "9110 §5.5", request(b"X-Request-Id: " + b"i" * 129), Seen()),
    passed("request-id-with-space-is-replaced", "9110 §5.5", request(b"X-Request-Id: a b"), Seen()),
    passed("request-id-with-obs-text-is-replaced", "9110 §5.5", request(b"X-Request-Id: \xe4"), Seen()),
    passed("request-id-empty-is-replaced", "9110 §5.5", request(b"X-Request-Id:"), Seen()),
    passed("via-is-added", "9110 §7.6.3", request(), Seen(has=(b"Via: 1.1 ring-router",))),
    passed("via-of-http10", "9110 §7.6.3", request(line=b"GET / HTTP/1.0"), Seen(has=(b"Via: 1.0 ring-router",)),
           closed=True),
    passed("via-is-appended", "9110 §7.6.3", request(b"Via: 1.0 fred"), Seen(has=(b"Via: 1.0 fred, 1.1 ring-router",))),
    passed("via-is-appended-to-two-lines", "9110 §7.6.3", request(b"Via: 1.0 fred", b"via: 1.1 p.example (x)"),
           Seen(has=(b"Via: 1.0 fred, 1.1 p.example (x), 1.1 ring-router",))),
    passed("via-of-post", "9110 §7.6.3", request(b"Content-Length: 2", line=b"POST / HTTP/1.1", body=b"ab"),
           Seen(b"POST", body=b"ab", has=(b"Via: 1.1 ring-router",))),
    passed("via-not-in-responses", "9110 §7.6.3", request(), Seen(), lacks=(b"via",)),
    passed("rings-in-responses", "9110 §16.3", request(), Seen(), has=(b"X-Ring: everyone", b"X-Ring-Version: v1")),
    passed("forged-forwarded", "7239 §8.1", request(b"Forwarded: for=9.9.9.9;proto=https"),
           Seen(has=(b"Forwarded: for=127.0.0.1;proto=http",))),
    *(
        refused(f"max-forwards-0-of-{name}", "9110 §7.6.2", raw, 200, closed=False, present=(b"Allow",))
        for name, raw in (
            ("options-asterisk", _options(b" 0")),
            ("options-path", _options(b" 0", b"/a")),
            ("options-asterisk-without-space", _options(b"0")),
            ("options-asterisk-of-zeros", _options(b" 00")),
            ("options-absolute-form", _options(b" 0", b"http://a")),
        )
    ),
    _hops("1-of-options", _options(b" 1"), Seen(b"OPTIONS", b"*", has=(b"Max-Forwards: 0",))),
    _hops("5-of-options-path", _options(b" 5", b"/a"), Seen(b"OPTIONS", b"/a", has=(b"Max-Forwards: 4",))),
    _hops("10-of-options", _options(b" 10"), Seen(b"OPTIONS", b"*", has=(b"Max-Forwards: 9",))),
    _hops("05-of-options", _options(b" 05"), Seen(b"OPTIONS", b"*", has=(b"Max-Forwards: 4",))),
    _hops("none-of-options", request(line=b"OPTIONS * HTTP/1.1"), Seen(b"OPTIONS", b"*", lacks=(b"max-forwards",))),
    _hops("0-of-get-is-untouched", request(b"Max-Forwards: 0"), Seen(has=(b"Max-Forwards: 0",))),
    _hops("5-of-post-is-untouched", request(b"Max-Forwards: 5", b"Content-Length: 0", line=b"POST / HTTP/1.1"),
          Seen(b"POST", has=(b"Max-Forwards: 5",))),
    _hops("malformed-of-get-is-untouched", request(b"Max-Forwards: x"), Seen(has=(b"Max-Forwards: x",))),
    *(
        refused(f"max-forwards-{name}", "9110 §7.6.2", _options(value), closed=None)
        for name, value in (
            ("negative", b" -1"),
            ("signed", b" +1"),
            ("of-a-word", b" x"),
            ("with-fraction", b" 1.5"),
            ("in-hex", b" 0x1"),
            ("empty", b""),
            ("list", b" 1, 2"),
            ("with-space", b" 1 2"),
        )
    ),
    refused("max-forwards-twice", "9110 §7.6.2",
            request(b"Max-Forwards: 1", b"Max-Forwards: 1", line=b"OPTIONS * HTTP/1.1"), closed=None),
    refused("max-forwards-0-with-body", "9110 §7.6.2",
            request(b"Max-Forwards: 0", b"Content-Length: 2", line=b"OPTIONS * HTTP/1.1", body=b"ab"), 200, closed=None,
            present=(b"Allow",)),
    RequestCase("max-forwards-0-and-request-behind", "9110 §7.6.2",
                _options(b" 0") + request(line=b"GET /2 HTTP/1.1"), allowed(200, 200), (Seen(target=b"/2"),)),
]  # fmt: skip
