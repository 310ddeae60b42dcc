"""The ``traceparent`` field (W3C Trace Context, https://www.w3.org/TR/trace-context/). Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_FORM: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1


class Parent(NamedTuple):
    """Who called, as it says itself; ids in hexadecimal."""

    trace_id: bytes
    span_id: bytes
    is_sampled: bool


def read_traceparent(value: bytes) -> Parent | None:
    """None for what is not valid (§3.2.2). Of a later version that is read which is known today (§4.3)."""
    match = _FORM.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def traceparent(trace_id: bytes, span_id: bytes) -> bytes:
    """The field of a request in a span that is recorded."""
    return b"00-%b-%b-01" % (trace_id, span_id)
