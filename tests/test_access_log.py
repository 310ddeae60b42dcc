"""The access log: lines that a program can read, whatever a client sent, and a reader that stops costs lines only."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

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


def fill(log: AccessLog, count: int, name: str) -> None:
    """So many lines, handed over as they come."""
    for number in range(count):
        log._parts.append(b'{"who":"%b","n":%d,"x":"%b"}\n' % (name.encode(), number, b"x" * 100))
        log._lines += 1
        if log._lines >= 64:
            log.flush()
    log.flush()


def test_workers_that_share_a_slow_pipe_do_not_tear_each_others_lines() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    logs = [AccessLog(writing, "json"), AccessLog(writing, "json")]
    for log, name in zip(logs, "ab", strict=True):
        fill(log, 3_000, name)
    got = bytearray()
    while got.count(b"\n") < 6_000:
        got += os.read(reading, 1_000)
    for log in logs:
        log.stop()
    os.close(reading)
    os.close(writing)
    lines = [json.loads(line) for line in got.splitlines()]
    for name in "ab":
        assert [line["n"] for line in lines if line["who"] == name] == list(range(3_000))


FULL = """
import os, resource, sys
from router.telemetry.access_log import AccessLog
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
log = AccessLog(out, "json")
def say(first, last):
    for number in range(first, last):
        log._parts.append(b'{"n":%06d}\\n' % number)
        log._lines += 1
    log.flush()
    while log._made != log._done:
        pass
say(100000, 100200)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
say(100200, 100400)
log.stop()
print(log.dropped)
"""


@pytest.mark.parametrize(("room", "cut"), [(1050, 1), (81 * 13 - 1, 0)], ids=["a part", "all but its end"])
def test_a_line_that_was_cut_by_a_full_disk_is_counted_and_spoils_no_other(tmp_path: Path, room: int, cut: int) -> None:
    path = tmp_path / "access.log"
    command = [sys.executable, "-c", FULL, path, str(room)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    lines = path.read_text().splitlines()
    whole = [line for line in lines if line.endswith("}")]
    assert len(whole) == len(lines) - cut, "what is cut stands by itself"
    assert len(whole) + int(done.stdout) == 400
    assert [json.loads(line)["n"] for line in whole[-200:]] == list(range(100_200, 100_400))
