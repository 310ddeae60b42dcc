"""An independent reader beside ours: whatever the router passes on means to h11 what the original meant to it.

Messages are valid ones and nearly valid ones (a byte more, a byte less, a line twice). The router may refuse what h11
takes, which is the lenient one of the two; it may never pass on something that h11 would have read differently.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h11
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadtests.replay import SERVICE
from router.core.records import NO_LOG
from router.core.spec import SnapshotSpec
from router.proxy.plane import DataPlane
from router.proxy.upstream import Upstream
from tests.native import examples

LONGEST = 1 << 20


@dataclass
class Sink:
    """A transport that keeps what is written, and tells nobody."""

    data: bytearray = field(default_factory=bytearray)
    is_closed: bool = False
    is_ended: bool = False

    def write(self, data: bytes) -> None:
        if not self.is_closed and not self.is_ended:
            self.data += data

    def write_eof(self) -> None:
        self.is_ended = True

    def abort(self) -> None:
        self.is_closed = True

    close = abort

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else self

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def setsockopt(self, *_: object) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Scene:
    """One client and one warm connection to each version, on wires that only keep what was sent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spawn: Callable[..., Any] | None = None) -> None:
        self.plane = DataPlane(loop, spawn or (lambda work, name: loop.create_task(work, name=name)))
        self.plane.install(SnapshotSpec(1, (SERVICE,), access_log=NO_LOG))
        self.client = Sink()
        self.downstream: Any = self.plane.accept()
        self.downstream.connection_made(self.client)
        self.backends: list[tuple[Upstream, Sink]] = []
        for endpoint in self.plane.pools.endpoints.values():
            upstream, sink = Upstream(endpoint, self.plane.wheel), Sink()
            upstream.connection_made(sink)  # type: ignore[arg-type]
            upstream.rest_in_pool()
            self.backends.append((upstream, sink))

    @property
    def passed_on(self) -> bytes:
        return b"".join(bytes(sink.data) for _, sink in self.backends)

    def answer(self, data: bytes, *, ends: bool) -> None:
        for upstream, sink in self.backends:
            if upstream.exchange is not None:
                upstream.data_received(data)
                if ends and not sink.is_closed:
                    upstream.eof_received()
                    upstream.connection_lost(None)
                return

    def end(self) -> None:
        self.downstream.connection_lost(None)
        self.plane.close()


@dataclass
class Meaning:
    """What h11 makes of a message; ``is_whole`` without an error and to its end."""

    first: object = None
    body: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    is_whole: bool = False


def meaning(data: bytes, ask: bytes = b"", *, ends: bool = False) -> Meaning:
    """h11's reading of the first message: of a request, or, given the method that was asked, of a response."""
    reader = h11.Connection(h11.CLIENT if ask else h11.SERVER, max_incomplete_event_size=LONGEST)
    if ask:
        reader.send(h11.Request(method=ask, target=b"/", headers=[(b"Host", b"a")]))
        reader.send(h11.EndOfMessage())
    found = Meaning()
    try:
        reader.receive_data(data)
        if ends:
            reader.receive_data(b"")
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Request):
                found.first, found.fields = (event.method, event.target), list(event.headers)
            elif isinstance(event, h11.Response):
                found.first, found.fields = event.status_code, list(event.headers)
            elif isinstance(event, h11.Data):
                found.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.trailers, found.is_whole = list(event.headers), True
                return found
            elif not isinstance(event, h11.InformationalResponse):
                return found
    except h11.RemoteProtocolError:
        return found


token = st.text("ABCabc-!#$%&'*+.^_`|~019", min_size=1, max_size=8).map(str.encode)
value = (
    st.binary(max_size=12).map(lambda raw: bytes(b for b in raw if b in b"\t " or 0x21 <= b != 0x7F)).map(bytes.strip)
)
fields = st.lists(st.tuples(token.map(lambda name: b"X-" + name), value), max_size=4)
payload = st.binary(max_size=40)


@st.composite
def bodies(draw: st.DrawFn, can_end_it: bool) -> tuple[list[bytes], bytes]:
    """Field lines that frame a body, and its bytes."""
    body = draw(payload)
    kind = draw(st.sampled_from(["none", "length", "chunked", *(["end"] if can_end_it else [])]))
    if kind == "none":
        return [], b""
    if kind == "end":
        return [], body
    if kind == "length":
        return [b"Content-Length: %d" % len(body)], body
    at, framed = 0, b""
    while at < len(body):
        size = draw(st.integers(1, len(body) - at))
        extension = draw(st.sampled_from([b"", b"", b";a", b";a=b", b';a="b;c"', b";a;b=c"]))
        framed += (
            draw(st.sampled_from([b"%x", b"%X", b"0%x"])) % size + extension + b"\r\n" + body[at : at + size] + b"\r\n"
        )
        at += size
    trailers = b"".join(
        b"%b: %b\r\n" % pair for pair in draw(st.lists(st.tuples(st.just(b"X-Sum"), value), max_size=2))
    )
    return [b"Transfer-Encoding: chunked"], framed + b"0\r\n" + trailers + b"\r\n"


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    lines, body = draw(bodies(False))
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"QUERY"]))
    target = draw(st.sampled_from([b"/", b"/a/b?c=d%20e", b"/?x", b"/|{}", b"http://a.example/x?y", b"http://b"]))
    lines += [b"%b: %b" % pair for pair in draw(fields)] + [b"Host: a.example"]
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", *draw(st.permutations(lines)), b"", body])


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    lines, body = draw(bodies(True))
    lines += [b"%b: %b" % pair for pair in draw(fields)]
    status = draw(st.sampled_from([b"200 OK", b"404 Not Found", b"500 ", b"201 Made", b"302 Found"]))
    return b"\r\n".join([b"HTTP/1.1 " + status, *draw(st.permutations(lines)), b"", body])


@st.composite
def nearly(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """A valid message with up to three slips."""
    message = draw(valid)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(message)))
        slip = draw(st.sampled_from(["cut", "put", "swap", "line"]))
        if slip == "cut":
            message = message[:at] + message[at + draw(st.integers(1, 3)) :]
        elif slip == "line":
            lines = message.split(b"\r\n")
            lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from([*lines, *LINES])))
            message = b"\r\n".join(lines)
        else:
            put = draw(
                st.sampled_from([b" ", b"\t", b"\r", b"\n", b"\r\n", b"\0", b":", b",", b";", b"0", b"a", b"\xff"])
            )
            message = message[:at] + put + message[at + (slip == "swap") :]
    return message


LINES = [
    b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: +5", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"Connection: Content-Length",
    b"Connection: close", b"Host: b.example", b" folded", b"Content_Length: 5", b"0", b"5", b"",
]  # fmt: skip
slowly = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=examples(int(os.environ.get("RING_ROUTER_EXAMPLES", "400"))),
)


def run(message: bytes, cut: int) -> tuple[bytes, bytes]:
    """What the backends and the client get of it."""

    async def play() -> tuple[bytes, bytes]:
        scene = Scene(asyncio.get_running_loop())
        for piece in (message[:cut], message[cut:]):
            if piece and not scene.client.is_ended:
                scene.downstream.data_received(piece)
        passed_on, answered = scene.passed_on, bytes(scene.client.data)
        scene.end()
        return passed_on, answered

    return asyncio.run(play())


def respond(message: bytes, cut: int, *, ends: bool) -> tuple[bytes, bool]:
    """What the client gets when this is a backend's answer, and whether its connection was broken off."""

    async def play() -> tuple[bytes, bool]:
        scene = Scene(asyncio.get_running_loop())
        scene.downstream.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        scene.answer(message[:cut], ends=False)
        scene.answer(message[cut:], ends=ends)
        found = bytes(scene.client.data), scene.client.is_closed
        scene.end()
        return found

    return asyncio.run(play())


KNOWN = (b"content-length", b"transfer-encoding", b"host")


def for_h11(message: bytes) -> bytes:
    """Where h11 is the stricter one: whitespace before a response's colon or an extension, and known trailers."""
    head, separator, rest = message.partition(b"\r\n\r\n")
    head = re.sub(rb"(?m)^([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]+:", rb"\1:", head)
    rest = re.sub(rb"(?m)^([0-9A-Fa-f]+)[ \t]+;", rb"\1;", rest)
    before, last, after = rest.rpartition(b"0\r\n")
    if last and b"transfer-encoding" in head.lower():
        lines = after.split(b"\r\n")
        end = lines.index(b"") if b"" in lines else len(lines)
        trailers = [line for line in lines[:end] if not line.lower().startswith(KNOWN)]
        rest = before + last + b"\r\n".join([*trailers, *lines[end:]])
    return head + separator + rest


def own(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields that are the user's, as far as they may pass."""
    return [
        (name, said) for name, said in pairs if name.startswith(b"x-") and not name.startswith((b"x-ring", b"x-forw"))
    ]


def in_origin_form(first: Any) -> Any:
    method, target = first
    if target[:1] == b"/":
        return method, target
    after = target.partition(b"://")[2]
    at = min((i for i in (after.find(b"/"), after.find(b"?")) if i >= 0), default=len(after))
    return method, after[at:] if after[at : at + 1] == b"/" else b"/" + after[at:]


@slowly
@given(requests(), st.integers(0, 400))
def test_a_valid_request_reaches_the_backend_as_it_was_meant(message: bytes, cut: int) -> None:
    passed_on, answered = run(message, cut)
    theirs, ours = meaning(message), meaning(passed_on)
    assert theirs.is_whole
    assert answered == b""
    assert ours.is_whole
    assert ours.first == in_origin_form(theirs.first)
    assert (ours.body, ours.trailers) == (theirs.body, theirs.trailers)
    assert [pair for pair in own(ours.fields) if pair[0] != b"x-request-id"] == own(theirs.fields)


@slowly
@given(nearly(requests()), st.integers(0, 400))
def test_a_nearly_valid_request_is_refused_or_means_the_same_to_the_backend(message: bytes, cut: int) -> None:
    passed_on, _ = run(message, cut)
    if not passed_on:
        return
    theirs, ours = meaning(for_h11(message.removeprefix(b"\r\n"))), meaning(passed_on)
    assert ours.first is not None, passed_on
    assert ours.first == in_origin_form(theirs.first)
    assert theirs.body.startswith(ours.body)
    if ours.is_whole:
        assert theirs.is_whole
        assert ours.body == theirs.body


@slowly
@given(responses(), st.integers(0, 400))
def test_a_valid_response_reaches_the_client_as_it_was_meant(message: bytes, cut: int) -> None:
    got, _ = respond(message, cut, ends=True)
    theirs, ours = meaning(message, b"GET", ends=True), meaning(got, b"GET")
    assert theirs.is_whole
    assert ours.is_whole
    assert (ours.first, ours.body, ours.trailers) == (theirs.first, theirs.body, theirs.trailers)
    assert own(ours.fields)[: len(own(theirs.fields))] == own(theirs.fields)


@slowly
@given(nearly(responses()), st.integers(0, 400))
def test_a_nearly_valid_response_is_a_502_or_means_the_same_to_the_client(message: bytes, cut: int) -> None:
    got, is_broken_off = respond(message, cut, ends=True)
    theirs, ours = meaning(for_h11(message), b"GET", ends=True), meaning(got, b"GET", ends=is_broken_off)
    if ours.first == 502 and theirs.first != 502:
        return
    assert ours.first == theirs.first
    assert theirs.body.startswith(ours.body)
    if ours.is_whole:
        assert theirs.is_whole
        assert ours.body == theirs.body
