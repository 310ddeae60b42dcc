"""The grammar of heads: what is in RFC 9112 is read as it was meant, and what is not is refused, known line or not."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.proxy.forwarding import timing_line
from router.proxy.grammar import FramingError, RefusedMethodError, UnknownCodingError, UnknownVersionError
from router.proxy.heads import RequestReader, read_response
from router.proxy.lines import Lines, RequestLine, StartJudge

GET = b"GET /a?b HTTP/1.1\r\nHost: Shop.example.com:80\r\n"


def passed(extra: bytes) -> list[bytes]:
    """The lines that are passed on, without the two that every request here has."""
    return RequestReader().read(GET + extra).lines[2:]


def test_a_head_is_sorted_into_what_passes_what_frames_and_what_decides() -> None:
    reader = RequestReader(frozenset({b"x-user"}))
    head = reader.read(
        GET + b"X-User: alice\r\nAccept:*/*\r\nx-user:\tbob \r\nCookie: a=1\r\nContent-Length: 5\r\n"
        b"Connection: keep-alive\r\nCookie: b=2\r\nX-Ring: forged\r\nX-Request-Id: id-1"
    )
    assert (head.start.method, head.start.target, head.path) == (b"GET", b"/a?b", b"/a")
    assert (head.host, head.authority) == (b"shop.example.com", b"Shop.example.com:80")
    assert head.headers == {b"x-user": b"alice, bob"}
    assert head.cookie == b"a=1; b=2"
    assert (head.length, head.chunked, head.connection, head.request_id) == (5, False, b"keep-alive", b"id-1")
    assert head.lines == [
        b"GET /a?b HTTP/1.1", b"Host: Shop.example.com:80", b"X-User: alice", b"Accept: */*", b"x-user: bob",
        b"Cookie: a=1", b"Content-Length: 5", b"Cookie: b=2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"GET /", FramingError),
        (b"GET  / HTTP/1.1\r\nHost: a", FramingError),
        (b"GET / HTTP/1.1 \r\nHost: a", FramingError),
        (b"GET /\xff HTTP/1.1\r\nHost: a", FramingError),
        (b"GET / http/1.1\r\nHost: a", FramingError),
        (b"G\x00T / HTTP/1.1\r\nHost: a", FramingError),
        (b"GET / HTTP/2.0\r\nHost: a", UnknownVersionError),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a", RefusedMethodError),
        (b"GET / HTTP/1.1", FramingError),
        (GET + b"Host: b", FramingError),
        (GET + b"X : a", FramingError),
        (GET + b"X\t: a", FramingError),
        (GET + b"X: a\r\n folded", FramingError),
        (GET + b": a", FramingError),
        (GET + b"X", FramingError),
        (GET + b"X: a\x00b", FramingError),
        (GET + b"X: a\rb", FramingError),
        (GET + b"X: a\nY: b", FramingError),
        (GET + b"X: \x7f", FramingError),
        (GET + b"Content-Length: 1\r\nContent-Length: 1", FramingError),
        (GET + b"Content-Length: +1", FramingError),
        (GET + b"Content-Length: 1, 1", FramingError),
        (GET + b"Content-Length: ", FramingError),
        (GET + b"Content-Length: 1\r\nTransfer-Encoding: chunked", FramingError),
        (GET + b"Transfer-Encoding: gzip", FramingError),
        (GET + b"Transfer-Encoding: gzip, chunked", UnknownCodingError),
        (GET + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", FramingError),
        (GET + b"Transfer-Encoding: chunked, chunked", FramingError),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked", FramingError),
    ],
)  # fmt: skip
def test_what_two_readers_could_read_differently_is_refused(head: bytes, error: type[Exception]) -> None:
    reader = RequestReader()
    for _ in range(3):  # the first time, and when its good lines are known
        with pytest.raises(error):
            reader.read(head)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/2 200 OK", b"HTTP/1.1  200 OK", b"http/1.1 200 OK",
        b"HTTP/1.1 600 OK", b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 OK\r\n X: a",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
    ],
)  # fmt: skip
def test_a_response_that_cannot_be_framed_is_refused(head: bytes) -> None:
    for _ in range(3):
        with pytest.raises(FramingError):
            read_response(head)


def test_a_response_without_a_reason_or_its_space_is_read() -> None:
    assert read_response(b"HTTP/1.1 200").lines == [b"HTTP/1.1 200 "]
    assert read_response(b"HTTP/1.0 404 Not Found\r\nX:  y ").lines == [b"HTTP/1.1 404 Not Found", b"X: y"]


def test_equal_lines_are_each_dropped_and_each_kept() -> None:
    assert passed(b"X-Ring: a\r\nX: 1\r\nX-Ring: a\r\nX: 1") == [b"X: 1", b"X: 1"]
    assert passed(b"X:1\r\nX:1\r\nX: 1") == [b"X: 1"] * 3
    assert passed(b"Connection: X, Host\r\nX: 1\r\nY: 2\r\nx:3\r\nConnection: y") == []


def test_an_id_that_is_none_is_replaced_and_the_last_good_one_counts() -> None:
    assert RequestReader().read(GET + b"X-Request-Id: has space\r\nX-Request-Id: ok").request_id == b"ok"
    assert passed(b"X-Request-Id: has space") == []


LINE = st.binary(max_size=40)


@given(st.lists(LINE, max_size=6))
def test_a_known_line_means_what_it_meant(extra: list[bytes]) -> None:
    data = b"\r\n".join([GET[:-2], *extra])
    reader = RequestReader(frozenset({b"x"}))

    def look() -> object:
        try:
            head = reader.read(data)
        except FramingError as error:
            return type(error)
        return head.lines, head.headers, head.cookie, head.length, head.chunked, head.connection, head.host

    assert look() == look() == look()


def test_the_memory_for_lines_is_bounded_and_what_recurs_stays() -> None:
    judged: list[bytes] = []

    def living() -> int:
        return sum(isinstance(one, RequestLine) for one in gc.get_objects())

    def judge(line: bytes) -> object:
        judged.append(line)
        return StartJudge(1000, serves_trace=False)(line)

    lines: Lines[object] = Lines(judge)
    before = living()
    for number in range(5 * Lines.LIMIT):
        assert lines.now[b"GET / HTTP/1.1"] is lines.now[b"GET / HTTP/1.1"]
        assert lines.now[b"GET /%d HTTP/1.1" % number]
        assert len(lines.now) <= Lines.LIMIT
    assert judged.count(b"GET / HTTP/1.1") == 1
    assert living() - before <= 3 * Lines.LIMIT
    long = b"GET /" + b"x" * Lines.LONGEST + b" HTTP/1.1"
    assert lines.now[long]
    assert long not in lines.now


@pytest.mark.parametrize(
    ("own", "waited", "said"),
    [
        (0.0000124, 0.0003457, b"router;dur=0.012, upstream;dur=0.345"),
        (0.0, 0.9999999, b"router;dur=0.000, upstream;dur=999.999"),
        (0.25, 1.0, b"router;dur=250.000, upstream;dur=1000.000"),
        (3.0625, 61.5, b"router;dur=3062.500, upstream;dur=61500.000"),
    ],
)
def test_server_timing_says_milliseconds_with_three_places(own: float, waited: float, said: bytes) -> None:
    assert timing_line(own, waited) == b"Server-Timing: " + said
