"""The access log: lines that a program can read, whatever a client sent, and a reader that stops costs lines only."""

from __future__ import annotations

import collections
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from router.core.records import JSON_LOG, AccessLogSpec
from router.telemetry.access_log import AccessLog
from router.telemetry.log_forms import Asked, Decided
from router.telemetry.log_sink import QUEUE_LINES, Sink
from tests.house import fixed, raw_backend, running_plane, shop, snapshot
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
START = Asked(b"GET", b"/", is_http10=False)
LANE = Decided("shop", "canary", "v2", "rule")


def note(
    log: AccessLog, status: int = 200, *, start: Asked = START, received: int = 0, duration: float = 0.001,
    flags: bytes = b"", key: bytes | None = None, request_id: bytes = b"1",
) -> None:  # fmt: skip
    log.add(
        time.monotonic(), b"127.0.0.1", start, status, 12_345, received, duration, LANE, b"10.0.0.1:80", request_id,
        flags, key,
    )  # fmt: skip


async def test_each_request_is_one_json_object_with_its_ring_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with path.open("wb") as out:
        log = AccessLog(JSON_LOG, Sink(out.fileno()))
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


async def test_a_reader_that_stops_costs_counted_lines_and_nothing_else(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    log = AccessLog(AccessLogSpec("combined"), Sink(writing))
    total = QUEUE_LINES * 3
    for _ in range(total):
        note(log)  # never waits, though nobody reads
    log.flush()
    assert log.sink.dropped > 0
    written = 0

    def read_some() -> bool:
        nonlocal written
        os.set_blocking(reading, False)
        with suppress(BlockingIOError):
            written += os.read(reading, 1 << 20).count(b"\n")
        return written + log.sink.dropped == total

    await until(read_some, within=20)
    log.stop()
    os.close(reading)
    os.close(writing)


def fill(sink: Sink, count: int, name: str) -> None:
    """So many lines, handed over as they come."""
    lines = [b'{"who":"%b","n":%d,"x":"%b"}\n' % (name.encode(), number, b"x" * 100) for number in range(count)]
    for start in range(0, count, 64):
        batch = lines[start : start + 64]
        sink.offer(batch, len(batch))
    sink.push()


def test_workers_that_share_a_slow_pipe_do_not_tear_each_others_lines() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    sinks = [Sink(writing), Sink(writing)]
    for sink, name in zip(sinks, "ab", strict=True):
        fill(sink, 3_000, name)
    got = bytearray()
    while got.count(b"\n") < 6_000:
        got += os.read(reading, 1_000)
    for sink in sinks:
        sink.stop()
    os.close(reading)
    os.close(writing)
    lines = [json.loads(line) for line in got.splitlines()]
    for name in "ab":
        assert [line["n"] for line in lines if line["who"] == name] == list(range(3_000))


FULL = """
import os, resource, sys
from router.telemetry.log_sink import Sink
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
sink = Sink(path=sys.argv[1])
def say(first, last):
    sink.offer([b'{"n":%06d}\\n' % number for number in range(first, last)], last - first)
    sink.push()
    while not sink.is_idle:
        pass
say(100000, 100200)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
say(100200, 100400)
sink.stop()
print(sink.dropped)
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


def written(spec: AccessLogSpec, path: Path) -> AccessLog:
    return AccessLog(spec, Sink(path=str(path)))


def lines_of(log: AccessLog, path: Path) -> list[str]:
    log.stop()
    return path.read_text().splitlines()


def test_every_form_says_who_asked_for_what_and_what_became_of_it(tmp_path: Path) -> None:
    start = Asked(b"POST", b'/a"b\\c?d=1', is_http10=True)
    said = {}
    for form in ("json", "ecs", "combined"):
        path = tmp_path / form
        log = written(AccessLogSpec(form), path)  # type: ignore[arg-type]
        note(log, 502, start=start, received=7, duration=61.000_345, flags=b"UH", request_id=b'i"d')
        note(log)
        said[form] = lines_of(log, path)
    plain = [json.loads(line) for line in said["json"]]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", plain[0].pop("time"))
    assert plain[0] == {
        "client": "127.0.0.1", "method": "POST", "target": '/a"b\\c?d=1', "status": 502, "bytes": 12_345,
        "request_bytes": 7, "duration": 61.000_345, "service": "shop", "ring": "canary", "version": "v2",
        "reason": "rule", "endpoint": "10.0.0.1:80", "request_id": 'i"d', "flags": "UH",
    }  # fmt: skip
    assert list(plain[1]) == ["time", *plain[0]], "a usual line has the same keys in the same order"
    assert (plain[1]["request_bytes"], plain[1]["duration"], plain[1]["flags"]) == (0, 0.001, "-")
    ecs = [json.loads(line) for line in said["ecs"]]
    assert re.fullmatch(r"[-0-9T:.]{23}Z", ecs[0].pop("@timestamp"))
    assert ecs[0] == {
        "client.address": "127.0.0.1", "http.version": "1.0", "http.request.method": "POST",
        "url.original": '/a"b\\c?d=1', "event.outcome": "failure", "http.response.status_code": 502,
        "http.response.body.bytes": 12_345, "http.request.body.bytes": 7, "event.duration": 61_000_345_000,
        "ecs.version": "8.11.0", "event.kind": "event", "event.category": ["web"], "event.type": ["access"],
        "event.dataset": "ring_router.access", "ring_router.service": "shop", "ring_router.ring": "canary",
        "ring_router.version": "v2", "ring_router.reason": "rule", "destination.address": "10.0.0.1:80",
        "http.request.id": 'i"d', "ring_router.flags": "UH",
    }  # fmt: skip
    assert (ecs[1]["event.outcome"], ecs[1]["event.duration"]) == ("success", 1_000_000)
    time_of = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\]"
    first, second = said["combined"]
    assert re.fullmatch(
        rf'127\.0\.0\.1 - - {time_of} "POST /a\\"b\\\\c\?d=1 HTTP/1\.0" 502 12345 "-" "-" canary v2 rule UH', first
    )
    assert second.endswith('"GET / HTTP/1.1" 200 12345 "-" "-" canary v2 rule -')


def test_a_share_of_each_status_class_is_written_and_says_that_it_is_one(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = written(AccessLogSpec("json", "", (1.0, 0.1, 0.0, 0.5, 1.0)), path)
    for _ in range(2_000):
        note(log, 200)
        note(log, 304)
    for _ in range(50):
        note(log, 101)
        note(log, 404)
        note(log, 500)
        note(log, 200, flags=b"UD")  # broken off: as bad as a 5xx
    lines = [json.loads(line) for line in lines_of(log, path)]
    counts = collections.Counter((line["status"], line["flags"]) for line in lines)
    assert 120 < counts[200, "-"] < 280, "0.1 of 2,000; it is outside once in a billion"
    assert 0 < counts[404, "-"] < 50
    assert (counts[304, "-"], counts[101, "-"], counts[500, "-"], counts[200, "UD"]) == (0, 50, 50, 50)
    assert {(line["status"], line["flags"], line.get("sample")) for line in lines} == {
        (200, "-", 0.1), (404, "-", 0.5), (101, "-", None), (500, "-", None), (200, "UD", None),
    }  # fmt: skip


@pytest.mark.parametrize("form", ["json", "ecs", "combined"])
def test_users_can_be_told_apart_but_not_named(tmp_path: Path, form: str) -> None:
    def identities(secret: bytes) -> list[str]:
        path = tmp_path / f"{form}-{secret.decode()}"
        log = written(AccessLogSpec(form, "", (), secret), path)  # type: ignore[arg-type]
        for key in (b"alice", b"bob", b"alice", None):
            note(log, key=key)
        lines = lines_of(log, path)
        assert "alice" not in path.read_text()
        if form == "combined":
            return [line.split(" ")[2] for line in lines]
        name = "identity" if form == "json" else "user.hash"
        return [json.loads(line).get(name, "-") for line in lines]

    one, other = identities(b"k" * 32), identities(b"l" * 32)
    assert one[0] == one[2] != one[1]
    assert one[3] == "-"
    assert set(one[:3]).isdisjoint(other[:3])
    assert all(re.fullmatch("[0-9a-f]{16}", found) for found in one[:3])


def test_lines_of_one_form_and_of_another_do_not_mix_when_it_is_changed(tmp_path: Path) -> None:
    logs = [written(AccessLogSpec(form), tmp_path / form) for form in ("json", "combined", "ecs")]  # type: ignore[arg-type]
    for _ in range(3):
        for log in logs:
            note(log)
    plain, combined, ecs = (lines_of(log, tmp_path / log.spec.format) for log in logs)
    assert {tuple(json.loads(line))[1] for line in plain} == {"client"}
    assert {line.partition(" ")[0] for line in combined} == {"127.0.0.1"}
    assert {tuple(json.loads(line))[1] for line in ecs} == {"client.address"}


async def test_a_file_that_was_moved_away_is_made_anew_when_asked_for(tmp_path: Path) -> None:
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    sink = Sink(path=str(path))
    sink.offer([b"one\n"], 1)
    sink.push()
    await until(lambda: path.exists() and path.read_bytes() == b"one\n")
    path.rename(moved)
    sink.offer([b"two\n"], 1)
    sink.push()
    await until(lambda: sink.is_idle)
    assert not path.exists()
    sink.reopen()
    await until(path.exists)  # at once: whoever moved it waits to pack it
    sink.offer([b"three\n"], 1)
    sink.push()
    await until(lambda: path.read_bytes() == b"three\n")
    assert moved.read_bytes() == b"one\ntwo\n"
    sink.stop()
    assert sink.dropped == 0


async def test_a_file_that_cannot_be_opened_costs_lines_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "access.log"
    sink = Sink(path=str(path))
    sink.offer([b"lost\n"], 1)
    sink.push()
    await until(lambda: sink.dropped == 1)
    path.parent.mkdir()
    sink.offer([b"kept\n"], 1)
    sink.push()
    await until(lambda: path.exists() and path.read_bytes() == b"kept\n")
    sink.stop()
    assert sink.dropped == 1


def test_huge_lines_are_bounded_by_their_bytes(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    sink = Sink(writing)
    for _ in range(400):
        sink.offer([b"x" * 100_000 + b"\n"], 1)
    assert 400 - 16 * 1024 * 1024 // 100_000 - 5 < sink.dropped < 400
    os.close(reading)
    sink.stop()
    os.close(writing)
