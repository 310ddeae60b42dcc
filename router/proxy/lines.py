"""The lines of an HTTP/1 head, each judged by itself: request lines, status lines, field lines (RFC 9112 §3, §4, §5).

Most lines of a connection are the ones that came before, so a line that was judged lately is looked up and not judged
again. Whatever concerns several lines together is the business of ``heads``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv6Address
from typing import Final, Generic, TypeVar

from router.proxy.forwarding import COOKIE, DROP, FORWARDED, HOST, LENGTH, MAX_FORWARDS, PASS, RING_PASS, bare_host
from router.proxy.framing import content_length
from router.proxy.grammar import (
    FIELD_LINE,
    TOKEN_FORM,
    VALUE_FORM,
    FramingError,
    RefusedMethodError,
    TargetTooLongError,
    UnknownVersionError,
)
from router.telemetry.log_forms import Asked

_REQUEST_LINE: Final = re.compile(rb"(" + TOKEN_FORM + rb") ([\x21\x22\x24-\x7e]++) HTTP/([0-9])\.([0-9])")
"""Of a target only what could end it is refused, and ``#``: browsers send ``|``, ``{`` and the like as they are."""
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: (" + VALUE_FORM + rb"))?")
_SPACED_FIELD_LINE: Final = re.compile(rb"(" + TOKEN_FORM + rb")[ \t]*+:(" + VALUE_FORM + rb")")
_HOST: Final = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]++)\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})++)(?::([0-9]{0,5}))?"
)
"""RFC 9110 §7.2, RFC 3986 §3.2.2; not empty, since an http URI needs a host (RFC 9110 §4.2.1)."""
_PASS: Final = RING_PASS + b"="
MAX_PORT: Final = 65535
LONGEST_HOST: Final = 261
"""A name of 255 bytes (RFC 1035 §2.3.4) and a port: looking for the service takes a step for each label."""

Meaning = TypeVar("Meaning")


class Known(dict[bytes, Meaning], Generic[Meaning]):
    """Lines and what they mean; one that is not there is learned."""

    def __init__(self, lines: Lines[Meaning]) -> None:
        super().__init__()
        self._lines = lines

    def __missing__(self, line: bytes) -> Meaning:
        return self._lines.learn(line)


class Lines(Generic[Meaning]):
    """Lines seen lately: look them up in ``now``, which judges the new ones. Raises FramingError where the judge does.

    Two generations, so that what recurs stays known, and bounded, since lines come from strangers: ``LIMIT`` lines of
    ``LONGEST`` bytes in each. What only the generation before them knew goes a few lines at a time: all at once they
    would stop the worker for as long as a dozen requests take, and so would the garbage collector, which comes when
    hundreds more were made than went.
    """

    __slots__ = ("_judge", "_older", "_oldest", "_room", "now")

    LIMIT: Final = 4096
    LONGEST: Final = 256
    FEW: Final = 64

    def __init__(self, judge: Callable[[bytes], Meaning]) -> None:
        self.now: Known[Meaning] = Known(self)
        """Another one from time to time; one that is older still knows what it did."""
        self._room = self.LIMIT
        """For so many more lines in ``now``."""
        self._judge = judge
        self._older: dict[bytes, Meaning] = {}
        self._oldest: dict[bytes, Meaning] = {}

    def learn(self, line: bytes) -> Meaning:
        """What a line means that ``now`` does not have."""
        older = self._older
        meaning = older[line] if line in older else self._judge(line)
        if len(line) <= self.LONGEST:
            if self._room % self.FEW == 0:
                if self._oldest:
                    self._forget()
                if not self._room:
                    self._older, self._oldest = self.now, older
                    self.now, self._room = Known(self), self.LIMIT
            self._room -= 1
            self.now[line] = meaning
        return meaning

    def _forget(self) -> None:
        oldest = self._oldest
        for _ in range(min(self.FEW, len(oldest))):
            oldest.popitem()


class RequestLine(Asked):
    """A request line. ``target`` as it came, ``path`` without its query; ``line`` is what the backend gets."""

    __slots__ = ("has_pass", "line", "path")

    def __init__(self, method: bytes, target: bytes, *, is_http10: bool) -> None:
        super().__init__(method, target, is_http10=is_http10)
        self.path = target.partition(b"?")[0]
        self.has_pass = target.find(_PASS) >= 0  # `in` first tries to read the text as a number, which takes longer
        """Whether its query may have a pass, which no backend and no log gets to see."""
        self.line = b"%b %b HTTP/1.1" % (method, target)


class StatusLine:
    """A status line; ``line`` is what the client gets."""

    __slots__ = ("is_http10", "line", "status")

    def __init__(self, status: int, reason: bytes, *, is_http10: bool) -> None:
        self.status = status
        self.is_http10 = is_http10
        self.line = b"HTTP/1.1 %d %b" % (status, reason)


class Field:
    """A field line that does more than pass. ``name`` is in lower case.

    ``line`` is how it is passed on, if it is; None for as it came. ``number`` is that of a Content-Length or of a
    Max-Forwards (-1 where that is none), and 1 for a Cookie that may have a pass. ``host`` is the bare host of a Host.
    """

    __slots__ = ("host", "is_wanted", "kind", "line", "name", "number", "value")

    def __init__(self, kind: int, name: bytes, value: bytes, line: bytes | None, is_wanted: bool) -> None:
        self.kind = kind
        self.name = name
        self.value = value
        self.line = line
        self.is_wanted = is_wanted
        self.number = -1
        if kind == LENGTH:
            self.number = content_length(value)
        elif kind == MAX_FORWARDS and value.isdigit() and len(value) <= 9:
            self.number = int(value)
        elif kind == COOKIE and value.find(_PASS) >= 0:
            self.number = 1
        self.host = checked_host(value) if kind == HOST else b""


def checked_host(value: bytes) -> bytes:
    """The bare host of a Host value or an authority. Raises FramingError when it is none (RFC 9112 §3.2)."""
    match = _HOST.fullmatch(value) if len(value) <= LONGEST_HOST else None
    if match is None or (match[2] and int(match[2]) > MAX_PORT):
        raise FramingError("malformed host")
    if match[1] is not None:
        try:
            IPv6Address(match[1].decode())
        except AddressValueError:
            raise FramingError("malformed IPv6 address") from None
    return bare_host(value)


class StartJudge:
    """Request lines: what this proxy takes. ``longest`` is that of a target in bytes."""

    __slots__ = ("_longest", "_serves_trace")

    def __init__(self, longest: int, *, serves_trace: bool) -> None:
        self._longest = longest
        self._serves_trace = serves_trace

    def __call__(self, line: bytes) -> RequestLine:
        """Raises FramingError, and of its kind UnknownVersionError, RefusedMethodError and TargetTooLongError."""
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise FramingError("malformed request line")
        method, target, major, minor = match.groups()
        if major != b"1":
            raise UnknownVersionError("a major version other than HTTP/1")
        if len(target) > self._longest:
            raise TargetTooLongError("the target is too long")
        if method == b"CONNECT":
            raise RefusedMethodError("CONNECT is for tunnels, and this is none")
        if method == b"TRACE" and not self._serves_trace:
            raise RefusedMethodError("TRACE shows a request to whoever can send it, with what was added on its way")
        # A higher minor version is served as the highest one known (RFC 9110 §2.5).
        return RequestLine(method, target, is_http10=minor == b"0")


def judge_status_line(line: bytes) -> StatusLine:
    """Raises FramingError. The space before an empty reason is often forgotten, and harmless."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise FramingError("malformed status line")
    return StatusLine(int(match[2]), match[3] or b"", is_http10=match[1] == b"0")


class FieldJudge:
    """What a field line means, by its name; None for one that is only passed on, which is nearly every one.

    ``forgives_space``: before the colon. A request with it is refused, in a response it is removed (RFC 9112 §5.1).
    """

    __slots__ = ("_form", "_kinds", "wanted")

    def __init__(
        self, kinds: dict[bytes, int], wanted: frozenset[bytes] = frozenset(), *, forgives_space: bool = False
    ) -> None:
        self._kinds = kinds
        self._form = _SPACED_FIELD_LINE if forgives_space else FIELD_LINE
        self.wanted = wanted
        """Lower-case names that rules and identities ask for."""

    def __call__(self, line: bytes) -> Field | None:
        match = self._form.fullmatch(line)
        if match is None:
            raise FramingError("malformed field line")
        name, spaced = match.groups()
        value = spaced.strip(b" \t")
        lower = name.lower()
        kind = self._kinds.get(lower, PASS)
        if kind == PASS and (lower.find(b"_") >= 0 or lower[:12] == b"x-forwarded-" or lower[:7] == b"x-ring-"):
            kind = self._lookalike(lower)
        is_wanted = lower in self.wanted
        normal = b"%b: %b" % (name, value)
        is_normal = normal == line
        if is_normal and kind == PASS and not is_wanted:
            return None
        return Field(kind, lower, value, None if is_normal else normal, is_wanted)

    def _lookalike(self, name: bytes) -> int:
        """A name that a backend may take for one of ours."""
        if b"host" not in self._kinds:
            return PASS  # a response
        if name[:12] == b"x-forwarded-":
            return FORWARDED
        dashed = name.replace(b"_", b"-")
        # Behind CGI or WSGI nobody can tell the two apart.
        is_ours = dashed in self._kinds or dashed[:12] == b"x-forwarded-" or dashed[:7] == b"x-ring-"
        return DROP if is_ours else PASS


def field_name(line: bytes) -> bytes:
    """The lower-case name of a field line."""
    return line.partition(b":")[0].lower()
