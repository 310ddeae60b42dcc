"""The access log: lines that a program can read, whatever a client sent, and a reader that stops costs lines only."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from router.proxy.lines import RequestLine
from router.telemetry.access_log import QUEUE_LINES, AccessLog
from tests.house import fixed, raw_backend, running_plane, shop, snapshot
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_each_request_is_one_json_object_with_its_ring_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with path.open("wb") as out:
        log = AccessLog(out.fileno(), "json")
        async with raw_backend(fixed(OK)) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
            router.plane.access_log = log
            ask = b"GET /%b HTTP/1.1\r\nHost: a\r\nX-Ring: canary\r\nX-Request-Id: %b\r\nConnection: close\r\n\r\n"
            targets = [b"plain", b"a?q=%22", b'q"uo\\te', b"\xff\xfe", b"</script>"]
            for target in targets:
                await router.ask(ask % (target, b'id"\\1'))
            log.stop()
            lines = [json.loads(line) for line in path.read_bytes().splitlines()]
            answered = [line for line in lines if line["status"] == 200]
            assert [line["target"].encode("latin-1")[1:] for line in answered] == [
                t for t in targets if t in {line["target"].encode("latin-1")[1:] for line in answered}
            ]
            assert len(answered) >= 4
            for line in answered:
                assert (line["ring"], line["version"], line["reason"]) == ("canary", "v2", "rule")
                assert line["request_id"] == 'id"\\1'
                assert line["bytes"] == 2
                assert line["endpoint"] == f"127.0.0.1:{port}"
                assert 0 <= line["duration"] < 10
                assert line["time"].endswith("Z")


class Words:
    """What the log needs of a lane."""

    words = b' "-" "-" canary v2 rule\n'


async def test_a_reader_that_stops_costs_counted_lines_and_nothing_else(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    log = AccessLog(writing, "combined")
    start = RequestLine(b"GET", b"/", is_http10=False)
    total = QUEUE_LINES * 3
    for _ in range(total):
        log.add(
            time.monotonic(), b"127.0.0.1", start, 200, 0, 0, 0.001, Words(), b"", b"1"
        )  # never waits, though nobody reads
    log.flush()
    assert log.dropped > 0
    written = 0

    def read_some() -> bool:
        nonlocal written
        os.set_blocking(reading, False)
        with suppress(BlockingIOError):
            written += os.read(reading, 1 << 20).count(b"\n")
        return written + log.dropped == total

    await until(read_some, within=20)
    log.stop()
    os.close(reading)
    os.close(writing)
