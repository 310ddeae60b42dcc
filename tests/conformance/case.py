"""What a case is: a name, the section of the RFC it comes from, raw bytes, and what must be seen of them.

The tables are data; `runner` plays them. A field line is written ``b"Name: value"``: all lines of that name must be
seen, in this order, and no others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Ending = Literal["whole", "truncated", "broken"]
"""How a response ends. ``broken``: 502, or, where the head had gone out already, truncated where the client sees it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One message as the backend must have read it. ``trailers`` are complete; ``has`` and ``lacks`` name fields."""

    method: bytes = b"GET"
    target: bytes = b"/"
    body: bytes = b""
    has: tuple[bytes, ...] = ()
    lacks: tuple[bytes, ...] = ()
    trailers: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestCase:
    """Bytes of a client, and what client and backend must see.

    ``statuses``: the responses in order, each with the statuses that will do, interim ones included. ``closed``: the
    router ends the connection; None if it may do either. ``later`` is sent when the first response is there.
    """

    name: str
    section: str
    raw: bytes
    statuses: tuple[frozenset[int], ...]
    seen: tuple[Seen, ...] | None = ()
    """None where the router may have asked the backend, or not."""
    closed: bool | None = False
    has: tuple[bytes, ...] = ()
    """Of the last response."""
    present: tuple[bytes, ...] = ()
    """Names of fields of the last response, whatever their values."""
    lacks: tuple[bytes, ...] = ()
    later: bytes = b""
    is_half_closed: bool = False
    """The client ends its half behind the bytes."""
    is_tunnel: bool = False
    """Behind the last response the connection carries anything, both ways."""
    hosts: tuple[str, ...] = ()
    """Hosts of the only service; empty for any."""
    methods: tuple[bytes, ...] = ()
    """Of the requests, where a response to HEAD is not the first."""


@dataclass(frozen=True, slots=True)
class ResponseCase:
    """Bytes of a backend in answer to ``ask``, and what the client must see. ``reused``: the backend's connection."""

    name: str
    section: str
    raw: bytes
    status: int = 200
    body: bytes = b""
    ending: Ending = "whole"
    closes: Literal["", "eof", "reset"] = ""
    """What the backend does behind its bytes."""
    ask: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    is_early: bool = False
    """The backend answers when it has the head of the request."""
    interim: tuple[int, ...] = ()
    has: tuple[bytes, ...] = ()
    present: tuple[bytes, ...] = ()
    lacks: tuple[bytes, ...] = ()
    trailers: tuple[bytes, ...] = ()
    framing: Literal["", "none", "length", "chunked", "close"] = ""
    """How the client is told where the body ends; empty for any way."""
    reason: bytes | None = None
    reused: bool | None = None
    stays: bool | None = None
    """Whether the client's connection stays open."""


def request(
    *fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes | None = b"Host: a", body: bytes = b""
) -> bytes:
    """A request with these field lines behind Host; None for no Host line."""
    lines = [line, *fields] if host is None else [line, host, *fields]
    return b"\r\n".join([*lines, b"", body])


def post(*fields: bytes, body: bytes = b"", line: bytes = b"POST / HTTP/1.1") -> bytes:
    return request(*fields, line=line, body=body)


def chunked(body: bytes, *fields: bytes) -> bytes:
    """A POST whose body is framed by chunks, as given."""
    return post(b"Transfer-Encoding: chunked", *fields, body=body)


def response(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    return b"\r\n".join([line, *fields, b"", body])


def ok(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A response with the body ``ok`` and its length."""
    return response(*fields, b"Content-Length: 2", line=line, body=b"ok")


def allowed(*statuses: int | Iterable[int]) -> tuple[frozenset[int], ...]:
    return tuple(frozenset((one,) if isinstance(one, int) else one) for one in statuses)


def refused(
    name: str,
    section: str,
    raw: bytes,
    *statuses: int,
    closed: bool | None = True,
    present: tuple[bytes, ...] = (),
    has: tuple[bytes, ...] = (),
    hosts: tuple[str, ...] = (),
) -> RequestCase:
    """The router answers with one of these statuses (400 if none is named), and no backend sees a whole message."""
    wanted = (frozenset(statuses or (400,)),)
    return RequestCase(name, section, raw, wanted, closed=closed, present=present, has=has, hosts=hosts)


def passed(
    name: str,
    section: str,
    raw: bytes,
    *seen: Seen,
    closed: bool | None = False,
    has: tuple[bytes, ...] = (),
    present: tuple[bytes, ...] = (),
    lacks: tuple[bytes, ...] = (),
    hosts: tuple[str, ...] = (),
    methods: tuple[bytes, ...] = (),
) -> RequestCase:
    """The backend sees these messages (a GET of / if none is named), and each is answered with 200."""
    messages = seen or (Seen(),)
    return RequestCase(
        name, section, raw, allowed(200) * len(messages), messages, closed, has, present, lacks, hosts=hosts,
        methods=methods,
    )  # fmt: skip


def bad(name: str, section: str, raw: bytes, closes: Literal["", "eof", "reset"] = "") -> ResponseCase:
    """A response that nobody may see: 502 instead, and the backend's connection is not used again."""
    return ResponseCase(name, section, raw, 502, closes=closes, ending="whole", reused=False)


def broken(name: str, section: str, raw: bytes, closes: Literal["", "eof", "reset"] = "") -> ResponseCase:
    """A response that goes wrong in its body."""
    return ResponseCase(name, section, raw, closes=closes, ending="broken", reused=False)
