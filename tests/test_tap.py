"""``ring-router tap`` beside a real router: what it shows, what it hides, and every way in which it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from router.control.taps import MOST_LISTENERS, Taps, TooManyListeners
from router.telemetry.messages import Sample, Tap, Tapped
from router.telemetry.sampling import Allowance
from tests.house import read_head
from tests.running import Router, running_router
from tests.waiting import until

SECRET = "wanda@example.com"


@asynccontextmanager
async def asking(router: Router, *users: str) -> AsyncIterator[None]:
    """These users ask again and again, in turn."""

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        try:
            while True:
                for user in users:
                    field = f"X-User-Id: {user}\r\n" if user else ""
                    writer.write(f"GET /cart?card=4711 HTTP/1.1\r\nHost: shop\r\n{field}\r\n".encode())
                    await read_head(reader)
                    await reader.readexactly(2)
        except (EOFError, OSError):
            pass  # the router stops
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(ask())
        try:
            yield
        finally:
            task.cancel()


@asynccontextmanager
async def tapping(
    router: Router, *words: str, stdout: int = asyncio.subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "router.cli", "tap", "--admin", f"http://127.0.0.1:{router.admin}", *words,
        stdout=stdout, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().rstrip("\n").split("\t")


async def test_a_tap_shows_requests_and_ends_cleanly_in_every_way(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router:
        async with asking(router, SECRET, "user-7", ""):
            async with tapping(router, "--rate", "50") as process:
                lines = [await line(process) for _ in range(30)]
                process.send_signal(signal.SIGINT)
                out, err = await process.communicate()
                assert (process.returncode, err) == (0, b"")
            shown = {tuple(one[1:2] + one[3:]) for one in lines}
            assert all(one[1] == "200" and one[8] == "GET /cart" for one in lines)
            assert {one[3] for one in lines} == {"shop"}
            people = {one[7] for one in lines}
            assert len(people) == 3  # two users and nobody, in whichever of the workers
            assert "-" in people
            assert {one[6] for one in lines if one[7] == "-"} == {"default"}
            assert len(shown) == 3
            assert SECRET.encode() not in out + "".join(map(str, lines)).encode()
            assert "4711" not in str(lines)

            async with tapping(router) as process:  # head: enough seen
                await line(process)
                process.stdout._transport.close()  # type: ignore[union-attr]
                assert process.stderr is not None
                async with asyncio.timeout(20):
                    assert await process.stderr.read() == b""
                    assert await process.wait() == 0

            async with tapping(router, "-o", "json", "--ring", "everyone") as process:
                assert process.stdout is not None
                async with asyncio.timeout(20):
                    found = json.loads(await process.stdout.readline())
                assert (found["ring"], found["path"], found["method"]) == ("everyone", "/cart", "GET")
                assert 0 <= found["duration"] < 60
                router.process.send_signal(signal.SIGTERM)
                _, err = await process.communicate()
                assert (process.returncode, err) == (0, b"the router stopped\n")


async def test_on_a_terminal_each_request_is_an_aligned_line(tmp_path: Path) -> None:
    async with running_router(tmp_path, workers=1) as router:
        async with asking(router, "alice"):
            ours, theirs = os.openpty()
            async with tapping(router, stdout=theirs) as process:
                os.close(theirs)
                seen = b""
                while seen.count(b"\n") < 4:
                    seen += await asyncio.to_thread(os.read, ours, 4096)
                process.send_signal(signal.SIGINT)
                await process.communicate()
            os.close(ours)
    head, *rows = [one.replace("\x1b[2m", "").replace("\x1b[0m", "") for one in seen.decode().splitlines()[:3]]
    assert head.split() == ["time", "status", "ms", "service", "ring", "version", "reason", "user", "request"]
    for row in rows:
        assert row.index("GET /cart") == head.index("request")
        assert row.index("shop") == head.index("service")


async def test_what_nobody_can_listen_to_is_refused_with_what_there_is(tmp_path: Path) -> None:
    async with running_router(tmp_path, workers=1) as router:
        for words, said in (
            (("--service", "shopp"), "There is no service 'shopp'; there is: shop."),
            (("--ring", "cannary"), "There is no ring 'cannary'; there is: canary, early, everyone."),
        ):
            async with tapping(router, *words) as process:
                _, err = await process.communicate()
                assert process.returncode == 1
                assert said in err.decode()
        async with tapping(router, "--rate", "0") as process:
            await process.communicate()
            assert process.returncode == 2


async def test_two_listen_each_to_what_they_want_and_one_who_leaves_is_forgotten(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{router.admin}/api/v1/tap"
        async with asking(router, "user-1", "user-2", "user-3", "user-4", "user-5", "user-6", "user-7", "user-8"):
            async with session.get(url, params={"rate": "5"}) as all_of_them:
                async with session.get(url, params={"ring": "early", "rate": "100"}) as early:
                    assert await anything(early, "ring") == {"early"}
                    found = await anything(all_of_them, "dropped", 3)
                    assert max(found) > 0  # they ask more often than five times a second

            async def is_served() -> bool:
                async with session.get(url) as one:
                    return one.status == 200

            for _ in range(MOST_LISTENERS + 4):  # each has left at once, which is noticed at the next sign of life
                await until(is_served, within=20)


async def anything(response: aiohttp.ClientResponse, field: str, count: int = 5) -> set[object]:
    """The values of a field in this many events that have it."""
    found: list[object] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            said = await response.content.readline()
            if said.startswith(b"data: ") and field in (event := json.loads(said[6:])):
                found.append(event[field])
    return set(found)


def sample(ring: str = "canary") -> Sample:
    return Sample(0.0, "shop", "GET", "/", ring, "v2", "hash", 200, 0.001, "")


async def test_a_slow_reader_misses_requests_and_is_told_how_many() -> None:
    told: list[Tap] = []
    taps = Taps(told.append)
    slow, other = taps.open(rate=1000), taps.open(ring="canary", rate=1000)
    assert [len(one.wanted) for one in told] == [1, 2]
    for _ in range(3_000):
        taps.taken(Tapped([(sample(), (slow.wanted.number, 99))], {slow.wanted.number: 2}))
    batch, dropped = await anext(slow.batches())
    assert 0 < len(batch) <= 1_000
    assert len(batch) + dropped == 9_000
    assert await anext(other.batches()) == ([], 0)
    slow.close()
    slow.close()
    other.close()
    assert [len(one.wanted) for one in told] == [1, 2, 1, 0]


async def test_those_who_listen_hear_the_end() -> None:
    taps = Taps(lambda _: None)
    listener = taps.open()
    taps.end()
    assert [one async for one in listener.batches()] == []


def test_there_are_no_more_listeners_than_can_be_served() -> None:
    taps = Taps(lambda _: None)
    for _ in range(MOST_LISTENERS):
        taps.open()
    with pytest.raises(TooManyListeners, match="16 listen already"):
        taps.open()


def test_an_allowance_is_a_rate_and_no_more_than_a_quarter_of_a_second_at_once() -> None:
    allowance, now, taken = Allowance(8, 100.0), 100.0, 0
    assert [allowance.take(now) for _ in range(3)] == [True, True, False]
    for _ in range(1000):
        now += 0.01
        taken += allowance.take(now)
    assert 79 <= taken <= 81
