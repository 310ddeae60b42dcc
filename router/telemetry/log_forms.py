"""How a line of the access log looks: JSON, the Elastic Common Schema, or Apache's combined format.

A form makes the parts that many lines have in common: of a second, a status, a request line, a decision. ``access_log``
puts them together. Pure; every value that a client can write is escaped here. docs/access-log.md has all fields.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec

from router.core.records import LogFormat

ECS_VERSION: Final = "8.11.0"

_encode: Final = msgspec.json.Encoder().encode


def quoted(value: bytes) -> bytes:
    """As JSON text. What a request line may hold is ASCII without control characters, so that most need no look."""
    if value.find(b'"') < 0 and value.find(b"\\") < 0 and value.isascii():
        return b'"' + value + b'"'
    return _encode(value.decode("latin-1"))


_THOUSAND: Final = range(1000)


class Form:
    """What all forms have. ``end`` is that of a line of a request that ended as it should."""

    __slots__ = ("_second", "_stamp", "end", "is_json", "status")

    def __init__(self, is_json: bool) -> None:
        self.is_json = is_json
        """Whether a line begins with its time, and ends with a decision, an endpoint and a request id."""
        self.status: list[bytes] = []
        """Up to the bytes of the response."""
        self._second = -1
        self._stamp = b""
        self.end = self.last(b"-", 1.0, b"")

    def time(self, millis: int) -> bytes:
        """Of milliseconds of Unix time; with what stands between the time and what comes next."""
        raise NotImplementedError

    def stamp(self, millis: int) -> bytes:
        """RFC 3339."""
        second = millis // 1000
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        return b"%b%03dZ" % (self._stamp, millis % 1000)

    def request(self, method: bytes, target: bytes, is_http10: bool) -> bytes:
        """The part that is the same for every request with this request line."""
        raise NotImplementedError

    def lane(self, service: str, ring: str, version: str, reason: str) -> bytes:
        """The part that is the same for every request with this decision; names need no escaping."""
        raise NotImplementedError

    def middle(self, received: int, micros: int) -> bytes:
        """Bytes of the request's body, and microseconds; only where ``is_json``."""
        raise NotImplementedError

    def last(self, flags: bytes, rate: float, identity: bytes) -> bytes:
        """How it ended; ``rate`` where the line stands for more than itself, ``identity`` where it is known."""
        raise NotImplementedError


class JsonForm(Form):
    """One object a line: ``duration`` in seconds, ``bytes`` those of the bodies."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(True)
        self.status = [b',"status":%d,"bytes":' % number for number in _THOUSAND]

    def time(self, millis: int) -> bytes:
        return b'{"time":"%b","client":"' % self.stamp(millis)

    def request(self, method: bytes, target: bytes, is_http10: bool) -> bytes:
        return b"".join((b'","method":"', method, b'","target":', quoted(target)))

    def lane(self, service: str, ring: str, version: str, reason: str) -> bytes:
        said = f',"service":"{service}","ring":"{ring}","version":"{version}","reason":"{reason}","endpoint":"'
        return said.encode()

    def middle(self, received: int, micros: int) -> bytes:
        return b',"request_bytes":%d,"duration":%d.%06d' % (received, micros // 1_000_000, micros % 1_000_000)

    def last(self, flags: bytes, rate: float, identity: bytes) -> bytes:
        said = b'","flags":"' + flags + b'"'
        if identity:
            said += b',"identity":"' + identity + b'"'
        return said + (b',"sample":%b}\n' % _encode(rate) if rate < 1 else b"}\n")


class EcsForm(Form):
    """The Elastic Common Schema, with what it has no name for under ``ring_router``. Durations in nanoseconds."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(True)
        self.status = [
            b',"event.outcome":"%b","http.response.status_code":%d,"http.response.body.bytes":'
            % (b"failure" if number >= 400 else b"success", number)
            for number in _THOUSAND
        ]

    def time(self, millis: int) -> bytes:
        return b'{"@timestamp":"%b","client.address":"' % self.stamp(millis)

    def request(self, method: bytes, target: bytes, is_http10: bool) -> bytes:
        return b'","http.version":"%b","http.request.method":"%b","url.original":%b' % (
            b"1.0" if is_http10 else b"1.1",
            method,
            quoted(target),
        )

    def lane(self, service: str, ring: str, version: str, reason: str) -> bytes:
        return (
            f',"ecs.version":"{ECS_VERSION}","event.kind":"event","event.category":["web"],"event.type":["access"],'
            f'"event.dataset":"ring_router.access","ring_router.service":"{service}","ring_router.ring":"{ring}",'
            f'"ring_router.version":"{version}","ring_router.reason":"{reason}","destination.address":"'
        ).encode()

    def middle(self, received: int, micros: int) -> bytes:
        return b',"http.request.body.bytes":%d,"event.duration":%d' % (received, micros * 1000)

    def last(self, flags: bytes, rate: float, identity: bytes) -> bytes:
        said = b'","ring_router.flags":"' + flags + b'"'
        if identity:
            said += b',"user.hash":"' + identity + b'"'
        return said + (b',"ring_router.sample":%b}\n' % _encode(rate) if rate < 1 else b"}\n")


class CombinedForm(Form):
    """Apache's combined format (referrer and agent are not kept); ring, version, reason and flags stand behind it."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(False)
        self.status = [b"%d " % number for number in _THOUSAND]

    def time(self, millis: int) -> bytes:
        return time.strftime(' [%d/%b/%Y:%H:%M:%S +0000] "', time.gmtime(millis // 1000)).encode()

    def request(self, method: bytes, target: bytes, is_http10: bool) -> bytes:
        escaped = target.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        return b'%b %b HTTP/1.%b" ' % (method, escaped, b"0" if is_http10 else b"1")

    def lane(self, service: str, ring: str, version: str, reason: str) -> bytes:
        return f' "-" "-" {ring or "-"} {version or "-"} {reason or "-"} '.encode()

    def last(self, flags: bytes, rate: float, identity: bytes) -> bytes:
        return flags + (b" sample=%b\n" % _encode(rate) if rate < 1 else b"\n")


def form_of(name: LogFormat) -> Form:
    if name == "combined":
        return CombinedForm()
    return EcsForm() if name == "ecs" else JsonForm()


class Asked:
    """What a request asked for. Its part of a line is made once, for as long as the request line is remembered."""

    __slots__ = ("is_http10", "logged", "logged_as", "method", "target")

    def __init__(self, method: bytes, target: bytes, *, is_http10: bool) -> None:
        self.method = method
        self.target = target
        self.is_http10 = is_http10
        self.logged = b""
        self.logged_as: Form | None = None

    def render(self, form: Form) -> bytes:
        self.logged = form.request(self.method, self.target, self.is_http10)
        self.logged_as = form
        return self.logged


class Decided:
    """What was decided about a request; all empty where nothing was. Its part of a line is made once."""

    __slots__ = ("logged", "logged_as", "reason", "ring", "service", "version")

    def __init__(self, service: str, ring: str, version: str, reason: str) -> None:
        self.service = service
        self.ring = ring
        self.version = version
        self.reason = reason
        self.logged = b""
        self.logged_as: Form | None = None

    def render(self, form: Form) -> bytes:
        self.logged = form.lane(self.service, self.ring, self.version, self.reason)
        self.logged_as = form
        return self.logged
