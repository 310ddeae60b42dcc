"""What a few requests ask for beside an answer: to be counted on their way, or to be somebody else's (RFC 9110 §7.6.2).

Everything here is off the warm path: a head that has none of it never comes here. Pure.
"""

from __future__ import annotations

from email.utils import formatdate
from typing import Final

from router.proxy.failures import ALLOW
from router.proxy.grammar import FramingError
from router.proxy.heads import RequestHead, replace_field
from router.proxy.lines import field_name

_SECRET: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization"})


def count_hop(head: RequestHead) -> bool:
    """Whether this proxy is the last hop of an OPTIONS or TRACE; if not, the count goes down (RFC 9110 §7.6.2).

    Raises FramingError when the count is none.
    """
    field = head.max_forwards
    if field is None or head.start.method not in (b"OPTIONS", b"TRACE"):
        return False
    if field.number < 0:
        raise FramingError("Max-Forwards is not a number")
    if field.number > 0:
        replace_field(head.lines, b"max-forwards", b"Max-Forwards: %d" % (field.number - 1))
    return field.number == 0


def last_hop(head: RequestHead, request_id: bytes, close: bool) -> bytes:
    """The answer to an OPTIONS or TRACE that goes no further (RFC 9110 §9.3.7, §9.3.8)."""
    body = b""
    lines = [b"HTTP/1.1 200 OK", b"Date: " + formatdate(usegmt=True).encode(), b"X-Request-Id: " + request_id]
    if head.start.method == b"TRACE":
        # What was sent is sent back, but for what a script must not learn this way.
        body = b"\r\n".join([*(line for line in head.lines if field_name(line) not in _SECRET), b"", b""])
        lines.append(b"Content-Type: message/http")
    else:
        lines.append(ALLOW)
    lines.append(b"Content-Length: %d" % len(body))
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", body])


def see_other(target: bytes, cookie: bytes, request_id: bytes, close: bool) -> bytes:
    """To the same place without the pass that was in the link, which goes into a cookie (RFC 9110 §15.4.4)."""
    # Two slashes in front would be another host (RFC 3986 §4.2), and browsers take a backslash for a slash.
    place = b"/." + target if target[1:2] in (b"/", b"\\") else target
    lines = [
        b"HTTP/1.1 303 See Other", b"Date: " + formatdate(usegmt=True).encode(), b"Location: " + place, cookie,
        b"Cache-Control: no-store", b"Content-Length: 0", b"X-Request-Id: " + request_id,
    ]  # fmt: skip
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", b""])


def redirect(head: RequestHead, port: int, request_id: bytes, close: bool) -> bytes:
    """To the same target over https; 308 keeps method and body (RFC 9110 §15.4.9)."""
    host = b"[%b]" % head.host if b":" in head.host else head.host
    target = b"" if head.start.target == b"*" else head.start.target
    place = b"https://%b%b%b" % (host, b"" if port == 443 else b":%d" % port, target)
    lines = [
        b"HTTP/1.1 308 Permanent Redirect", b"Date: " + formatdate(usegmt=True).encode(), b"Location: " + place,
        b"Content-Length: 0", b"X-Request-Id: " + request_id,
    ]  # fmt: skip
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", b""])
