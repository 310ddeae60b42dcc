"""Who asks: each place where a key may stand, as one callable that finds it in a request.

Keys are bytes as they stood on the wire; an empty one is none. A client's address is the exception: it is written anew,
so that one address has one key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, assert_never

from router.core.addresses import prefix_text
from router.core.audience import IdentitySpec
from router.core.hashing import UserKey
from router.core.request import Request, cookie_value, query_value
from router.core.signing import CookieSigner

Finder = Callable[[Request], bytes | None]
"""What a request has in one place; None or empty: nothing that counts."""


class IdentitySource(NamedTuple):
    """A header or a cookie that counts as it is. ``name`` is a lower-case header name, or a cookie's name."""

    is_header: bool
    name: bytes


def plain_source(spec: IdentitySpec, signer: CookieSigner | None) -> IdentitySource | None:
    """The source, if it is a header or a cookie that anybody may send."""
    if spec.is_trusted_only:
        return None
    if spec.kind == "header":
        return IdentitySource(True, spec.name.lower().encode())
    if spec.kind == "cookie" or (spec.kind == "anonymous_cookie" and signer is None):
        return IdentitySource(False, spec.name.encode())
    return None


def finder_of(spec: IdentitySpec, signer: CookieSigner | None) -> Finder:
    """What asks a request for this source's key. ``signer`` is the anonymous cookie's, if it is signed."""
    find = _finder(spec, signer)
    if not spec.is_trusted_only:
        return find
    return lambda request: find(request) if request.is_trusted else None


def raw_finder(spec: IdentitySpec) -> Finder:
    """What asks a request for what stands there, whether it counts or not."""
    return _finder(spec, None)


def _finder(spec: IdentitySpec, signer: CookieSigner | None) -> Finder:
    name = spec.name
    raw = name.encode()
    match spec.kind:
        case "header":
            lower = name.lower().encode()
            return lambda request: request.headers.get(lower)
        case "cookie":
            return lambda request: cookie_value(request.cookie, raw)
        case "query":
            return lambda request: query_value(request.query, raw)
        case "claim":
            return lambda request: _first(request.claims.get(name))
        case "certificate":
            return lambda request: _first(request.certificate.get(name))
        case "client":
            prefix4, prefix6 = spec.prefix4, spec.prefix6
            return lambda request: prefix_text(request.client, prefix4, prefix6)
        case "anonymous_cookie":
            if signer is None:
                return lambda request: cookie_value(request.cookie, raw)
            ours = signer

            def minted_here(request: Request) -> UserKey | None:
                value = cookie_value(request.cookie, raw)
                return ours.verified(value) if value else None

            return minted_here
        case _:
            assert_never(spec.kind)


def _first(values: tuple[bytes, ...] | None) -> bytes | None:
    """The first of several values that is not empty."""
    for value in values or ():
        if value:
            return value
    return None


def described(host: bytes, target: bytes, fields: Iterable[tuple[bytes, bytes]], method: bytes = b"GET") -> Request:
    """The request that this would be on the wire: repeated fields joined, cookies apart, host without its port.

    ``host`` wins over a field of that name. For questions, not for traffic.
    """
    headers: dict[bytes, bytes] = {}
    crumbs = []
    for name, value in fields:
        field, text = name.strip().lower(), value.strip()
        if field == b"cookie":
            crumbs.append(text)
        else:
            headers[field] = headers[field] + b", " + text if field in headers else text
    where = (host or headers.get(b"host", b"")).lower()
    bare, colon, port = where.rpartition(b":")
    if colon and port.isdigit():
        where = bare
    path, _, query = target.partition(b"?")
    request = Request(where.strip(b"[]"), path or b"/", headers, b"; ".join(crumbs), method)
    request.query = query
    return request


def put_key(spec: IdentitySpec, request: Request, key: bytes) -> None:
    """Make a request that has this key in this place: for questions, not for traffic."""
    name = spec.name.encode()
    request.is_trusted = request.is_trusted or spec.is_trusted_only
    match spec.kind:
        case "header":
            request.headers = {**request.headers, name.lower(): key}
        case "cookie" | "anonymous_cookie":
            crumb = name + b"=" + key
            request.cookie = crumb + b"; " + request.cookie if request.cookie else crumb
        case "query":
            pair = name + b"=" + key
            request.query = pair + b"&" + request.query if request.query else pair
        case "claim":
            request.claims = {**request.claims, spec.name: (key,)}
        case "certificate":
            request.certificate = {**request.certificate, spec.name: (key,)}
        case "client":
            request.client = key
        case _:
            assert_never(spec.kind)
