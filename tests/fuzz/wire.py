"""Any bytes, in any pieces, from clients and from backends: nothing raises, and what is passed on is strict HTTP.

``python -m tests.fuzz.wire -max_total_time=60`` (atheris, a front of libFuzzer; its options are libFuzzer's). The first
bytes of an input say who speaks and where it is cut. Whatever the router writes has to be taken by its own readers
again, message by message, with nothing left over: an output that its own grammar refuses is a finding.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["router"]):
    from router.proxy.framing import ChunkedBody, LengthBody
    from router.proxy.grammar import FramingError
    from router.proxy.heads import RequestReader, read_response
    from tests.test_oracle import Scene

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SEEDS = [
    GET, GET + GET, b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"GET http://a/b HTTP/1.0\r\nConnection: keep-alive, X\r\nX: y\r\nCookie: ring=canary\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nMax-Forwards: 0\r\nExpect: 100-continue\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.0 200 OK\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: X\r\nX : y\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n",
]  # fmt: skip
WORDS = [
    b"Content-Length: ", b"Transfer-Encoding: chunked", b"Connection: ", b"close", b"Host: ", b" HTTP/1.1\r\n",
    b"\r\n\r\n", b"0\r\n\r\n", b"\r\n ", b"Expect: 100-continue", b"Upgrade: websocket", b"HTTP/1.1 ", b"HEAD ",
    b"ffffffffffffffff",
]  # fmt: skip


class Finding(Exception):
    """The router wrote what its own readers refuse."""


def check_requests(data: bytes) -> None:
    """Whole requests, and perhaps a beginning of one."""
    reader = RequestReader()
    while (end := data.find(b"\r\n\r\n")) >= 0:
        head = reader.read(data[:end])
        data = data[end + 4 :]
        body = ChunkedBody() if head.chunked else LengthBody(max(0, head.length))
        if not body.done:
            body.feed(data)
            if not body.done:
                return
            data = body.rest
    if data:
        raise Finding(f"half a head: {data!r}")


def check_response(data: bytes, method: bytes) -> None:
    """One response and its interim ones, or as much as there is of them."""
    while (end := data.find(b"\r\n\r\n")) >= 0:
        head = read_response(data[:end])
        data = data[end + 4 :]
        if head.status >= 200:
            break
    else:
        return
    if method == b"HEAD" or head.status in (204, 304) or (head.length < 0 and not head.chunked):
        return
    body = ChunkedBody() if head.chunked else LengthBody(head.length)
    if not body.done:
        body.feed(data)


def one_input(data: bytes) -> None:
    loop = asyncio.new_event_loop()
    raised: list[Any] = []
    loop.set_exception_handler(lambda _, context: raised.append(context))
    scene = Scene(loop, lambda work, name: work.close())
    try:
        if len(data) < 2:
            return
        cut, is_answer, message = data[0] * 4, data[1] & 1, data[2:]
        if is_answer:
            scene.downstream.data_received(GET)
            scene.answer(message[:cut], ends=False)
            scene.answer(message[cut:], ends=bool(data[1] & 2))
            check_response(bytes(scene.client.data), b"GET")
        else:
            for piece in (message[:cut], message[cut:]):
                if piece and not scene.client.is_ended:
                    scene.downstream.data_received(piece)
            scene.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ends=False)
            loop.call_soon(loop.stop)
            loop.run_forever()
            for _, sink in scene.backends:
                check_requests(bytes(sink.data))
    except FramingError as error:
        raise Finding(f"its own readers refuse it: {error}") from error
    finally:
        scene.end()
        loop.close()
    if raised:
        raise Finding(raised[0])


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ring-router-fuzz-") as directory:
        corpus = Path(directory) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(SEEDS):
            (corpus / str(number)).write_bytes(bytes([200, seed.startswith(b"HTTP/")]) + seed)
        words = Path(directory) / "words"
        words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in WORDS))
        atheris.Setup([*sys.argv, str(corpus), f"-dict={words}", "-max_len=600"], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
