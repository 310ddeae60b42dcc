"""Which fields pass and which are ours; what Connection, Host and a target mean. Pure; bytes in, bytes out.

A head is never copied through: every line is parsed, judged and written again (docs/architecture.md). Order, case and
repetition of the fields that pass are kept, which is what keeps several Set-Cookie apart.
"""

from __future__ import annotations

from typing import Final

from router.core.audience import CookieSpec

PASS: Final = 0
"""Forwarded, and nothing more."""
HOST: Final = 1
COOKIE: Final = 2
LENGTH: Final = 3
DATE: Final = 4
MAX_FORWARDS: Final = 5
DROP: Final = 6
"""This kind and those after it are not forwarded; some are written anew."""
CONNECTION: Final = 7
CODING: Final = 8
REQUEST_ID: Final = 9
FORWARDED: Final = 10
EXPECT: Final = 11
UPGRADE: Final = 12
CARRIED: Final = 13
"""What a client says of the ring it should be in; looked at in ``proofs``."""

_WHOLE: Final = [b"%d." % number for number in range(1000)]
_THREE: Final = [b"%03d" % number for number in range(1000)]
"""Milliseconds of Server-Timing: two halves are looked up faster than a float is written."""

RING_PASS: Final = b"ring_pass"
"""The cookie and the query parameter with a pass."""

_HOP_BY_HOP: Final = {
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"te": DROP,
    b"http2-settings": DROP,
    b"proxy-authenticate": DROP,
    # Ours alone: a client must not tell the backend which ring it is in, nor a backend the client.
    b"x-ring": DROP,  # and any other X-Ring- of a request: see FieldJudge
    b"x-ring-version": DROP,
    b"x-ring-reason": DROP,
    b"x-ring-mirror": DROP,
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"upgrade": UPGRADE,
}
"""RFC 9110 §7.6.1 and the fields that frame a message."""

REQUEST_KINDS: Final = {
    **_HOP_BY_HOP,
    b"x-ring": CARRIED,
    b"x-ring-pass": CARRIED,
    b"x-ring-override": CARRIED,
    b"baggage": CARRIED,
    b"proxy-authorization": DROP,
    b"expect": EXPECT,
    b"max-forwards": MAX_FORWARDS,
    b"host": HOST,
    b"cookie": COOKIE,
    b"x-request-id": REQUEST_ID,
    # Any other X-Forwarded- as well: see FieldJudge.
    b"x-forwarded-for": FORWARDED,
    b"x-real-ip": FORWARDED,
    b"forwarded": FORWARDED,
}
RESPONSE_KINDS: Final = {**_HOP_BY_HOP, b"date": DATE}

_UNSTRIPPABLE: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"cookie", b"authorization", b"set-cookie", b"x-ring",
     b"x-ring-version", b"x-ring-reason", b"x-ring-mirror", b"x-request-id", b"forwarded", b"via", b"date",
     b"baggage"}
)  # fmt: skip


def is_strippable(name: bytes) -> bool:
    """Whether nominating this field (lower case) in Connection may remove it: never what others rely on."""
    return name not in _UNSTRIPPABLE and name[:12] != b"x-forwarded-"


def connection_options(value: bytes) -> set[bytes]:
    """The options of a Connection field, in lower case (RFC 9110 §7.6.1)."""
    return {name.strip(b" \t") for name in value.lower().split(b",")}


def keeps_alive(connection: bytes | None, *, is_http10: bool) -> bool:
    """Whether the connection persists after this message (RFC 9112 §9.3)."""
    if connection is None:
        return not is_http10
    if connection == b"keep-alive":
        return True
    options = connection_options(connection)
    return b"close" not in options and (not is_http10 or b"keep-alive" in options)


def bare_host(value: bytes) -> bytes:
    """A Host value in lower case and without its port; brackets of an IPv6 address go too."""
    value = value.lower()
    if value[:1] == b"[":
        return value[1 : value.find(b"]")]
    colon = value.find(b":")
    return value if colon < 0 else value[:colon]


def split_absolute(target: bytes) -> tuple[bytes, bytes] | None:
    """Authority and origin form of an absolute-form target (RFC 9112 §3.2.2); None if it is something else.

    The origin form is empty where there is neither path nor query.
    """
    scheme, separator, after = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return None
    slash = min((i for i in (after.find(b"/"), after.find(b"?")) if i >= 0), default=len(after))
    authority, path = after[:slash], after[slash:]
    if not authority or b"@" in authority:
        return None
    return authority, b"/" + path if path[:1] == b"?" else path


def cookie_line(name: bytes, value: bytes, spec: CookieSpec, *, is_secure: bool) -> bytes:
    """A Set-Cookie field (RFC 6265 §4.1). ``is_secure``: whether the client came over TLS."""
    line = b"Set-Cookie: %b=%b; Path=%b; Max-Age=%d" % (name, value, spec.path.encode(), spec.max_age)
    if spec.domain:
        line += b"; Domain=%b" % spec.domain.encode()
    if spec.http_only:
        line += b"; HttpOnly"
    line += b"; SameSite=%b" % spec.same_site.encode()
    if spec.secure == "always" or (spec.secure == "auto" and is_secure):
        line += b"; Secure"
    return line + b"; Partitioned" if spec.partitioned else line


def add_anonymous_cookie(lines: list[bytes], cookie: bytes) -> None:
    """Give an anonymous user a key to come back with, unless a shared cache might hand it to somebody else.

    A cache may store what says ``public`` or ``s-maxage``, whatever else it says, what names fields that are private
    (RFC 9111 §5.2.2.7), and whatever a field for caches of their own kind allows (RFC 9213).
    """
    control = b""
    has_expiry = False
    for field, _, value in [line.partition(b":") for line in lines[1:]]:
        name = field.lower()
        if name == b"cache-control":
            control += b"," + value.lower()
        elif name == b"expires":
            has_expiry = True
        elif name[-14:] == b"-cache-control" or name == b"surrogate-control":
            return
    directives = {one.strip(b" \t") for one in control.split(b",")}
    if not control and not has_expiry:
        lines.append(b"Cache-Control: private")
    elif not directives & {b"private", b"no-store"} or b"public" in directives or b"s-maxage" in control:
        return
    lines.append(cookie)


def timing_line(own: float, waited: float) -> bytes:
    """Server-Timing (W3C): seconds until a request was sent on, and from then on until the head of its response."""
    first, second = int(1e6 * own), int(1e6 * waited)
    if not (0 <= first < 1_000_000 and 0 <= second < 1_000_000):
        return b"Server-Timing: router;dur=%.3f, upstream;dur=%.3f" % (1e3 * own, 1e3 * waited)
    return b"".join((
        b"Server-Timing: router;dur=", _WHOLE[first // 1000], _THREE[first % 1000],
        b", upstream;dur=", _WHOLE[second // 1000], _THREE[second % 1000],
    ))  # fmt: skip
