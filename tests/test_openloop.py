"""The open-loop generator on real sockets: every request that is due has an end, its waiting in its latency."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from loadtests.openloop import Row, read_rows
from loadtests.rig import ROOT
from tests.house import Serve, fixed, raw_backend, read_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
MS = 1_000_000

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "epoll_pwait2"), reason="the generator needs epoll_pwait2: glibc 2.35, Linux 5.11"
)


def answers(each: Callable[[int], Awaitable[bytes]]) -> Serve:
    """Asks for the answer to each request by its number, from 1 on, over all connections; without one it hangs up."""
    numbers = itertools.count(1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            answer = await each(next(numbers))
            if not answer:
                return
            writer.write(answer)

    return serve


async def generate(port: int, record: Path, *words: str) -> tuple[int, dict[str, Any], list[Row], str]:
    """Exit code, figures, rows, and what it says when it refuses them."""
    command = ["-m", "loadtests.openloop", f"http://127.0.0.1:{port}/", "--json", "--record", str(record)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--late-ms", "10000", *words,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, said = await process.communicate()
    return process.returncode or 0, json.loads(out or b"{}"), read_rows(record), said.decode()


async def test_every_request_leaves_when_it_is_due_and_is_answered(tmp_path: Path) -> None:
    seen: list[bytes] = []
    async with raw_backend(fixed(OK, seen)) as port:
        words = ("--rate", "400", "--seconds", "1", "--connections", "4", "--host", "shop.example.com")
        words += ("--waited-share", "1")
        code, found, rows, _ = await generate(port, tmp_path / "rows", *words)

    assert (code, found["errors"], found["requests"]) == (0, 0, 400)
    assert len(rows) == len(seen) == 400
    assert {row.status for row in rows} == {200}
    # Evenly spaced, whatever became of those before.
    dues = sorted(row.due for row in rows)
    assert {round((later - due) / MS, 3) for due, later in itertools.pairwise(dues)} == {2.5}
    assert all(b"Host: shop.example.com\r\n" in head for head in seen)
    assert len({head.partition(b"X-User-Id: ")[2] for head in seen}) == 400


async def test_a_backend_that_closes_after_each_answer_is_connected_to_again(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(LAST)
        await writer.drain()

    async with raw_backend(serve) as port:
        words = ("--rate", "100", "--seconds", "1", "--connections", "8", "--poisson", "--seed", "1", "--rotate")
        code, found, rows, _ = await generate(port, tmp_path / "rows", *words, "--waited-share", "1")

    assert (code, found["errors"]) == (0, 0)
    assert len(rows) == found["requests"] > 50


async def test_who_waits_for_a_stalled_backend_is_counted_with_all_the_waiting(tmp_path: Path) -> None:
    """No coordinated omission: the stall is in the latency of each request that was due in it."""

    async def each(number: int) -> bytes:
        if number == 10:
            released = asyncio.Event()
            asyncio.get_running_loop().call_later(0.5, released.set)
            await released.wait()
        return OK

    words = ("--rate", "200", "--seconds", "1", "--connections", "1")
    async with raw_backend(answers(each)) as port:
        refused, nothing, _, said = await generate(port, tmp_path / "rows", *words)
    async with raw_backend(answers(each)) as port:
        code, found, rows, _ = await generate(port, tmp_path / "rows", *words, "--waited-share", "1")

    assert (refused, nothing) == (1, {})
    assert "found every connection busy (1% may)" in said
    assert (code, found["errors"], len(rows)) == (0, 0, 200)
    rows.sort()
    stalled = rows[9]
    end = stalled.due + stalled.took
    assert stalled.took >= 500 * MS
    behind = [row for row in rows if stalled.due < row.due < end]
    assert len(behind) >= 90
    assert all(row.due + row.took >= end for row in behind)


async def test_what_has_no_answer_is_an_error_and_nobody_hangs(tmp_path: Path) -> None:
    async def each(number: int) -> bytes:
        return {0: b"", 5: BUSY}.get(number % 10, OK)

    async with raw_backend(answers(each)) as port:
        words = ("--rate", "200", "--seconds", "1", "--connections", "4", "--waited-share", "1")
        code, found, rows, _ = await generate(port, tmp_path / "rows", *words)

    assert (code, found["errors"], found["requests"]) == (0, 40, 200)
    statuses = [row.status for row in rows]
    assert (statuses.count(200), statuses.count(503), statuses.count(0)) == (160, 20, 20)
