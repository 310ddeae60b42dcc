"""Audience rules: comparisons of headers and cookies, compiled into closures when the snapshot changes.

A rule sees a ``Request`` and nothing else. Comparisons are of bytes and exact in case; only header *names* are
case-insensitive (RFC 9110 §5.1). An absent header or cookie fails every comparison; ``inverted`` then holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, assert_never

from router.core.spec import ConditionSpec

_OPTIONAL_WHITESPACE: Final = b" \t"


class Request:
    """What the decision may look at.

    ``host`` is lower-case and without a port, ``path`` is without a query. ``headers`` maps lower-case names to values
    (repeated fields joined with ``, ``, RFC 9110 §5.3) and may leave out names no rule or identity of the snapshot
    asks for. ``cookie`` is the Cookie field (several joined with ``; ``), empty if absent.
    """

    __slots__ = ("cookie", "headers", "host", "path")

    def __init__(self, host: bytes, path: bytes, headers: Mapping[bytes, bytes], cookie: bytes = b"") -> None:
        self.host = host
        self.path = path
        self.headers = headers
        self.cookie = cookie

    def __repr__(self) -> str:
        return f"<Request {self.host!r} {self.path!r} headers={dict(self.headers)!r} cookie={self.cookie!r}>"


Matcher = Callable[[Request], bool]


def cookie_value(field: bytes, name: bytes) -> bytes | None:
    """The value of the first cookie called ``name`` in a Cookie field (RFC 6265 §4.2.1), unquoted; None if absent.

    Scans for the name instead of parsing all cookies: 0.2–3 µs where http.cookies takes 43 µs.
    """
    needle = name + b"="
    at = field.find(needle)
    while at >= 0:
        if at == 0 or field[:at].rstrip(_OPTIONAL_WHITESPACE).endswith(b";"):
            end = field.find(b";", at)
            value = field[at + len(needle) : end if end >= 0 else len(field)].strip(_OPTIONAL_WHITESPACE)
            return value[1:-1] if len(value) >= 2 and value[:1] == value[-1:] == b'"' else value
        at = field.find(needle, at + 1)
    return None


def condition_headers(spec: ConditionSpec) -> set[bytes]:
    """The lower-case header names that a rule looks at."""
    if spec.kind == "header":
        return {spec.name.lower().encode()}
    return {name for child in spec.children for name in condition_headers(child)}


def compile_condition(spec: ConditionSpec) -> Matcher:
    """A rule as one callable."""
    match spec.kind:
        case "all_of":
            parts = tuple(compile_condition(child) for child in spec.children)
            return _invert_if(spec, lambda request: all(part(request) for part in parts))
        case "any_of":
            parts = tuple(compile_condition(child) for child in spec.children)
            return _invert_if(spec, lambda request: any(part(request) for part in parts))
        case "header":
            header, compare = spec.name.lower().encode(), compile_comparison(spec)

            def header_matches(request: Request) -> bool:
                value = request.headers.get(header)
                return value is not None and compare(value)

            return _invert_if(spec, header_matches)
        case "cookie":
            cookie, compare = spec.name.encode(), compile_comparison(spec)

            def cookie_matches(request: Request) -> bool:
                value = cookie_value(request.cookie, cookie)
                return value is not None and compare(value)

            return _invert_if(spec, cookie_matches)
        case _:
            assert_never(spec.kind)


def compile_comparison(spec: ConditionSpec) -> Callable[[bytes], bool]:
    """How one present value is judged."""
    values = tuple(value.encode() for value in spec.values)
    match spec.compare:
        case "equals":
            return values[0].__eq__
        case "one_of":
            return frozenset(values).__contains__
        case "prefix":
            return lambda value: value.startswith(values)
        case "suffix":
            return lambda value: value.endswith(values)
        case "contains":
            return lambda value: any(part in value for part in values)
        case "present":
            return lambda value: True
        case _:
            assert_never(spec.compare)


def _invert_if(spec: ConditionSpec, matcher: Matcher) -> Matcher:
    return (lambda request: not matcher(request)) if spec.inverted else matcher
