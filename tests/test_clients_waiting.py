"""Clients that wait: server-sent events arrive one by one, long polls are answered together, who leaves is missed."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from urllib.request import ProxyHandler, Request, build_opener

import aiohttp
import httpx
import pytest

from tests.clients.house import CLEAN, House, house_of
from tests.clients.programs import needs
from tests.clients.website import website
from tests.waiting import until

SECONDS = 20
EVENTS = 30


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(tmp_path_factory.mktemp("router"), website(tmp_path_factory.mktemp("files"))) as house:
        yield house


@pytest.fixture
def house(running: House) -> House:
    running.forget()
    return running


@pytest.fixture
async def session(house: House) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=200)
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(house.url, timeout=timeout, connector=connector) as session:
        yield session


# -- server-sent events: the version sends the next only after the last was acknowledged, so none may lie in a buffer -


async def test_events_reach_aiohttp_one_by_one(house: House, session: aiohttp.ClientSession) -> None:
    got = []
    async with session.get(f"/events/aiohttp?count={EVENTS}") as stream:
        assert stream.content_type == "text/event-stream"
        async for line in stream.content:
            if line.startswith(b"data: "):
                got.append(line.decode().strip())
                async with session.post("/ack/aiohttp") as done:
                    assert done.status == 204
    assert got == [f"data: event {n}" for n in range(EVENTS)]
    assert house.one("/events/aiohttp").notes == []
    assert len(house.at("/ack/aiohttp")) == EVENTS


def test_events_reach_httpx_one_by_one(house: House) -> None:
    got = []
    with httpx.Client(base_url=house.url, trust_env=False, timeout=SECONDS) as client:
        with client.stream("GET", f"/events/httpx?count={EVENTS}", headers={"X-Ring": "canary"}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    got.append(line)
                    assert client.post("/ack/httpx", headers={"X-Ring": "canary"}).status_code == 204
    assert got == [f"data: event {n}" for n in range(EVENTS)]
    assert house.one("/events/httpx").version == "v2"


@needs("curl", "curl")
def test_events_reach_curl_one_by_one(house: House) -> None:
    acknowledge = build_opener(ProxyHandler({}))
    words = ["curl", "-q", "-sSN", "--noproxy", "*", "--max-time", str(SECONDS), f"{house.url}/events/curl?count=10"]
    got = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=CLEAN) as stream:
        assert stream.stdout is not None
        for line in stream.stdout:
            if line.startswith(b"data: "):
                got.append(line.decode().strip())
                acknowledge.open(Request(f"{house.url}/ack/curl", method="POST"), timeout=SECONDS).close()
    assert got == [f"data: event {n}" for n in range(10)]
    assert stream.returncode == 0
    assert len(house.at("/ack/curl")) == 10


async def test_a_hundred_streams_of_events_stay_apart(house: House, session: aiohttp.ClientSession) -> None:
    async def follow(name: str) -> list[bytes]:
        got = []
        async with session.get(f"/events/{name}?count=5") as stream:
            async for line in stream.content:
                if line.startswith(b"id: "):
                    got.append(line.strip())
                    async with session.post(f"/ack/{name}") as done:
                        assert done.status == 204
        return got

    everybody = await asyncio.gather(*(follow(f"user-{n}") for n in range(100)))
    assert everybody == [[b"id: %d" % n for n in range(5)]] * 100
    assert sum(seen.path.startswith("/ack/") for seen in house.seen) == 500


async def test_a_version_notices_that_the_client_of_its_events_left(
    house: House, session: aiohttp.ClientSession
) -> None:
    async with session.get("/events/fickle?count=3") as stream:
        assert await stream.content.readline() == b"id: 0\n"
        seen = house.one("/events/fickle")
        assert seen.notes == []
        stream.close()
    await until(lambda: seen.notes == ["left"])


# -- long polling -----------------------------------------------------------------------------------------------------


async def test_a_long_poll_is_answered_when_there_is_news(house: House, session: aiohttp.ClientSession) -> None:
    async def ask() -> str:
        async with session.get("/poll/news") as response:
            return await response.text()

    for n in range(10):
        house.forget()
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(ask())
            await until(lambda: house.at("/poll/news"))
            assert not asked.done()
            async with session.post("/publish/news", data=f"news {n}") as told:
                assert await told.text() == "1"
        assert asked.result() == f"news {n}"


async def test_two_hundred_who_wait_hear_it_together(house: House, session: aiohttp.ClientSession) -> None:
    async def wait() -> str:
        async with session.get("/poll/all") as response:
            return await response.text()

    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(wait()) for _ in range(199)]
        await until(lambda: len(house.at("/poll/all")) == 199, within=30)
        async with session.post("/publish/all", data="now") as told:
            assert await told.text() == "199"
    assert {task.result() for task in waiting} == {"now"}
