"""The HTTP clients of Python through the router: kept connections, streams both ways, compression, cookies, forms."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from tests.clients.house import House, house_of, noise, sha256
from tests.clients.website import TEXT, website

SECONDS = 30
PIECES = [noise(1 << 16, f"piece {n}") for n in range(128)]
BIG = b"".join(PIECES)
"""8 MiB; what /stream?pieces=128 sends."""
RECEIPT = {"sha256": sha256(BIG), "length": len(BIG), "version": "v1"}
REUSED = 10


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(tmp_path_factory.mktemp("router"), website(tmp_path_factory.mktemp("files"))) as house:
        yield house


@pytest.fixture
def house(running: House) -> House:
    running.forget()
    return running


# -- http.client, the standard library's ------------------------------------------------------------------------------


@pytest.fixture
def plain(house: House) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", house.router.port, timeout=SECONDS)
    yield connection
    connection.close()


def test_http_client_keeps_its_connection(house: House, plain: http.client.HTTPConnection) -> None:
    plain.connect()
    socket = plain.sock
    for n in range(REUSED):
        plain.request("GET", f"/hello?n={n}", headers={"X-Ring": "canary"})
        response = plain.getresponse()
        assert response.read() == f"hello from v2: {n}".encode()
        assert response.headers["X-Ring-Version"] == "v2"
        assert plain.sock is socket
    assert [seen.target for seen in house.at("/hello")] == [f"/hello?n={n}" for n in range(REUSED)]


def test_http_client_uploads_chunks(house: House, plain: http.client.HTTPConnection) -> None:
    headers = {"Transfer-Encoding": "chunked"}
    plain.request("PUT", "/upload", body=iter(PIECES), headers=headers, encode_chunked=True)
    assert json.loads(plain.getresponse().read()) == RECEIPT
    seen = house.one("/upload")
    assert seen.headers["Transfer-Encoding"] == "chunked"
    assert seen.body == BIG


def test_http_client_reads_a_body_of_unknown_length_by_small_pieces(
    house: House, plain: http.client.HTTPConnection
) -> None:
    plain.request("GET", "/stream?pieces=128")
    response = plain.getresponse()
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert b"".join(iter(lambda: response.read(1_000), b"")) == BIG
    plain.request("HEAD", "/stream?pieces=1")
    assert plain.getresponse().read() == b""
    assert [seen.method for seen in house.at("/stream")] == ["GET", "HEAD"]


def test_http_client_that_wants_to_close_is_closed(house: House, plain: http.client.HTTPConnection) -> None:
    plain.request("GET", "/hello", headers={"Connection": "close"})
    response = plain.getresponse()
    assert response.will_close
    assert response.read() == b"hello from v1: "
    assert "close" not in house.one("/hello").headers.get("Connection", "")


# -- requests and its urllib3 -----------------------------------------------------------------------------------------


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def test_requests_keeps_its_connection(house: House, session: requests.Session) -> None:
    for n in range(REUSED):
        assert session.get(f"{house.url}/hello", params={"n": n}, timeout=SECONDS).text == f"hello from v1: {n}"
        assert session.post(f"{house.url}/upload", data={"n": n}, timeout=SECONDS).json()["length"] == len(f"n={n}")
    adapter = session.get_adapter(house.url)
    assert isinstance(adapter, requests.adapters.HTTPAdapter)
    pools = adapter.poolmanager.pools
    (pool,) = (pools[key] for key in pools.keys())  # noqa: SIM118  # it is no dict
    assert (pool.num_connections, pool.num_requests) == (1, 2 * REUSED)
    assert [seen.body for seen in house.at("/upload")] == [f"n={n}".encode() for n in range(REUSED)]


def test_requests_streams_up_and_down(house: House, session: requests.Session) -> None:
    assert session.put(f"{house.url}/upload", data=iter(PIECES), timeout=SECONDS).json() == RECEIPT
    assert house.one("/upload").headers["Transfer-Encoding"] == "chunked"
    assert house.one("/upload").body == BIG
    with session.get(f"{house.url}/stream?pieces=128", stream=True, timeout=SECONDS) as response:
        assert b"".join(response.iter_content(10_000)) == BIG


def test_requests_unpacks_remembers_cookies_and_follows(house: House, session: requests.Session) -> None:
    text = session.get(f"{house.url}/text", timeout=SECONDS)
    assert text.headers["Content-Encoding"] == "gzip"
    assert text.headers["Vary"] == "Accept-Encoding"
    assert text.text == TEXT
    assert session.get(f"{house.url}/cookies/set", timeout=SECONDS).text == "baked"
    assert session.get(f"{house.url}/cookies", timeout=SECONDS).json() == {"session": "s-1", "basket": "b-2"}
    assert session.get(f"{house.url}/cookies/set", timeout=SECONDS).raw.headers.getlist("Set-Cookie") == [
        "session=s-1; HttpOnly; Path=/", "basket=b-2; Path=/cookies", "old=\"\"; Max-Age=0; Path=/",
    ]  # fmt: skip
    moved = session.post(f"{house.url}/elsewhere/upload", data=BIG, timeout=SECONDS)
    assert moved.json() == RECEIPT
    assert [response.status_code for response in moved.history] == [307]
    assert house.one("/upload").body == BIG
    assert house.one("/text").headers["Accept-Encoding"] == session.headers["Accept-Encoding"]


def test_requests_sends_a_form_and_a_password(house: House, session: requests.Session) -> None:
    film = {"film": ("film.bin", BIG)}
    done = session.post(
        f"{house.url}/form", files=film, data={"name": "víctor"}, auth=("victor", "päss"), timeout=SECONDS
    )
    assert done.json() == {"film": sha256(BIG), "name": sha256("víctor".encode())}
    assert house.one("/form").headers["Authorization"] == "Basic dmljdG9yOnDkc3M="


# -- httpx ------------------------------------------------------------------------------------------------------------


def test_httpx_streams_up_and_down(house: House) -> None:
    with httpx.Client(base_url=house.url, trust_env=False, timeout=SECONDS) as client:
        assert client.put("/upload", content=iter(PIECES)).json() == RECEIPT
        assert house.one("/upload").headers["Transfer-Encoding"] == "chunked"
        assert client.put("/upload", content=BIG).json() == RECEIPT
        assert house.at("/upload")[1].headers["Content-Length"] == str(len(BIG))
        digest = hashlib.sha256()
        with client.stream("GET", "/stream", params={"pieces": 128}) as response:
            assert response.http_version == "HTTP/1.1"
            for piece in response.iter_bytes():
                digest.update(piece)
        assert digest.hexdigest() == sha256(BIG)


def test_httpx_unpacks_remembers_cookies_and_follows(house: House) -> None:
    with httpx.Client(base_url=house.url, trust_env=False, timeout=SECONDS, follow_redirects=True) as client:
        text = client.get("/text")
        assert (text.text, text.headers["Content-Encoding"]) == (TEXT, "gzip")
        assert client.get("/cookies/set").headers.get_list("Set-Cookie")[0].startswith("session=s-1;")
        assert client.get("/cookies").json() == {"session": "s-1", "basket": "b-2"}
        moved = client.post("/elsewhere/form", files={"film": BIG}, data={"name": "victor"})
        assert moved.json() == {"film": sha256(BIG), "name": sha256(b"victor")}
    assert set(house.one("/cookies").headers["Cookie"].split("; ")) == {"session=s-1", "basket=b-2"}
    assert house.one("/form").headers["Content-Type"].startswith("multipart/form-data")


async def test_httpx_asks_three_hundred_times_at_once(house: House) -> None:
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=house.url, trust_env=False, timeout=SECONDS, limits=limits) as client:

        async def ask(n: int) -> None:
            ring, version = ("canary", "v2") if n % 2 else ("everyone", "v1")
            response = await client.post("/upload", content=noise(n * 100, f"{n}"), headers={"X-Ring": ring})
            assert response.json() == {"sha256": sha256(noise(n * 100, f"{n}")), "length": n * 100, "version": version}
            assert response.headers["X-Ring"] == ring

        await asyncio.gather(*(ask(n) for n in range(300)))
    assert sorted(len(seen.body) for seen in house.at("/upload")) == [n * 100 for n in range(300)]


# -- aiohttp ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def browser(house: House) -> AsyncIterator[aiohttp.ClientSession]:
    """A session for an IP address, whose cookies aiohttp would not keep otherwise."""
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(house.url, timeout=timeout, cookie_jar=jar) as session:
        yield session


async def test_aiohttp_keeps_its_connection(house: House) -> None:
    made: list[str] = []
    trace = aiohttp.TraceConfig()

    async def count(*_: Any) -> None:
        made.append("connection")

    trace.on_connection_create_end.append(count)
    async with aiohttp.ClientSession(house.url, trace_configs=[trace]) as session:
        for n in range(REUSED):
            async with session.get(f"/hello?n={n}") as response:
                assert await response.text() == f"hello from v1: {n}"
            async with session.post("/upload", data=PIECES[n]) as response:
                assert (await response.json())["sha256"] == sha256(PIECES[n])
    assert made == ["connection"]
    assert [seen.body for seen in house.at("/upload")] == PIECES[:REUSED]


async def test_aiohttp_waits_for_100_continue(house: House, browser: aiohttp.ClientSession) -> None:
    # aiohttp waits for as long as it takes: no body would come if nobody said 100.
    async with browser.put("/upload", data=BIG, expect100=True) as response:
        assert await response.json() == RECEIPT
    assert house.one("/upload").headers["Expect"] == "100-continue"
    async with browser.put("/guarded", data=BIG, expect100=True) as response:
        assert (response.status, await response.text()) == (413, "no, thank you")
    assert house.one("/guarded").body == b""


async def test_aiohttp_talks_and_listens_at_once(house: House, browser: aiohttp.ClientSession) -> None:
    """Each piece is sent only after the one before it came back: no side buffers, no side waits for the other's end."""
    back: asyncio.Queue[bytes] = asyncio.Queue()

    async def talk() -> AsyncIterator[bytes]:
        for n in range(50):
            yield b"piece %d" % n
            assert await back.get() == b"piece %d" % n

    async with browser.post("/echo", data=talk()) as response:
        async for piece in response.content.iter_any():
            back.put_nowait(piece)
    assert back.empty()
    assert house.one("/echo").headers["Transfer-Encoding"] == "chunked"


async def test_aiohttp_gets_back_all_that_it_streams(house: House, browser: aiohttp.ClientSession) -> None:
    async def talk() -> AsyncIterator[bytes]:
        for piece in PIECES:
            yield piece

    async with browser.post("/echo", data=talk(), headers={"X-Ring": "canary"}) as response:
        assert response.headers["X-Ring"] == "canary"
        assert sha256(await response.read()) == sha256(BIG)
    assert house.one("/echo").version == "v2"


async def test_aiohttp_compresses_unpacks_and_remembers_cookies(house: House, browser: aiohttp.ClientSession) -> None:
    async with browser.get("/text") as response:
        assert (await response.text(), response.headers["Content-Encoding"]) == (TEXT, "gzip")
    async with browser.put("/upload", data=TEXT.encode(), compress="gzip") as response:
        receipt = await response.json()
    seen = house.one("/upload")
    assert seen.headers["Content-Encoding"] == "gzip"
    assert (receipt["sha256"], receipt["length"]) == (sha256(seen.body), len(seen.body))
    assert len(seen.body) < len(TEXT) / 10
    async with browser.get("/cookies/set"):
        pass
    async with browser.get("/cookies") as response:
        assert await response.json() == {"session": "s-1", "basket": "b-2"}
    assert house.one("/cookies").headers["Cookie"].count("=") == 2
