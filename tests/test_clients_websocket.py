"""WebSocket clients through the router: the libraries ``websockets``, ``websocket-client`` and aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import aiohttp
import pytest
import websocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_and_block
from websockets.typing import Subprotocol

from tests.clients.chatroom import PUSHED, chatroom
from tests.clients.house import House, Seen, house_of, noise, sha256
from tests.waiting import until

SECONDS = 20
MEBIBYTE = 1 << 20
SPOKEN = [Subprotocol("chat.v1"), Subprotocol("chat.v2")]
TEXTS = ["", "hello", "víctor → 環", "x" * 125, "x" * 126, "x" * 65_535, "x" * 65_536]
"""Around the sizes at which a frame's head grows (RFC 6455 §5.2)."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(tmp_path_factory.mktemp("router"), chatroom) as house:
        yield house


@pytest.fixture
def house(running: House) -> House:
    running.forget()
    return running


def url(house: House, path: str) -> str:
    return f"ws://{house.host}{path}"


def closed(seen: Seen) -> str:
    """What the version noted of the end, once there is one."""
    return seen.notes[-1] if seen.notes and seen.notes[-1].startswith("closed") else ""


# -- websockets -------------------------------------------------------------------------------------------------------


async def test_websockets_hears_its_echo(house: House) -> None:
    async with connect(url(house, "/echo"), proxy=None) as chat:
        for text in TEXTS:
            await chat.send(text)
            assert await chat.recv() == text
            await chat.send(text.encode())
            assert await chat.recv() == text.encode()
    seen = house.one("/echo")
    await until(lambda: closed(seen) == "closed 1000 ")
    assert seen.notes[:-1] == [note for text in TEXTS for note in (f"str {len(text)}", f"bytes {len(text.encode())}")]
    assert seen.headers["Upgrade"].lower() == "websocket"
    assert seen.headers["Connection"].lower() == "upgrade"
    assert len(seen.headers.getall("Sec-WebSocket-Key")) == 1


def test_websockets_that_blocks_hears_its_echo(house: House) -> None:
    with connect_and_block(url(house, "/echo"), proxy=None) as chat:
        for n in range(200):
            chat.send(f"{n}")
            assert chat.recv(timeout=SECONDS) == f"{n}"
    assert house.one("/echo").notes[:200] == [f"str {len(str(n))}" for n in range(200)]


async def test_websockets_is_in_the_ring_its_headers_say(house: House) -> None:
    async with connect(url(house, "/echo"), proxy=None, additional_headers={"X-Ring": "canary"}) as chat:
        await chat.send("who?")
        assert await chat.recv() == "who?"
        assert chat.response is not None
        assert chat.response.status_code == 101
        assert chat.response.headers["X-Ring"] == "canary"
        assert chat.response.headers["X-Ring-Version"] == "v2"
    assert house.one("/echo").version == "v2"


async def test_websockets_compresses_when_both_sides_agree(house: House) -> None:
    async with connect(url(house, "/echo"), proxy=None, subprotocols=SPOKEN) as chat:
        assert chat.response is not None
        assert "permessage-deflate" in chat.response.headers["Sec-WebSocket-Extensions"]
        assert chat.subprotocol == "chat.v2"
        for text in ("round and round " * 50_000, "short", "round and round " * 50_000):
            await chat.send(text)
            assert await chat.recv() == text
    headers = house.one("/echo").headers
    assert "permessage-deflate" in headers["Sec-WebSocket-Extensions"]
    assert headers["Sec-WebSocket-Protocol"] == "chat.v1, chat.v2"
    async with connect(url(house, "/echo"), proxy=None, compression=None) as chat:
        assert chat.response is not None
        assert "Sec-WebSocket-Extensions" not in chat.response.headers
        await chat.send("plain")
        assert await chat.recv() == "plain"
    assert "Sec-WebSocket-Extensions" not in house.at("/echo")[1].headers


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_websockets_sends_a_mebibyte_in_fragments(house: House, compression: str | None) -> None:
    pieces = [noise(MEBIBYTE // 64, f"{n}") for n in range(64)]
    async with connect(url(house, "/pieces"), proxy=None, compression=compression, max_size=2 * MEBIBYTE) as chat:
        await chat.send(pieces)
        assert [piece async for piece in chat.recv_streaming() if piece] == pieces
        await chat.send(b"".join(pieces))
        assert await chat.recv() == b"".join(pieces)
    # The library ends a fragmented message with an empty fragment.
    assert house.one("/pieces").notes[:2] == [f"65 {sha256(b''.join(pieces))}", f"1 {sha256(b''.join(pieces))}"]


async def test_pings_and_pongs_cross_the_router_both_ways(house: House) -> None:
    async with connect(url(house, "/ping"), proxy=None, ping_interval=None) as chat:
        for n in range(20):
            await asyncio.wait_for(await chat.ping(f"ping {n}"), SECONDS)
            await chat.send(f"please {n}")
            assert await chat.recv() == "pong"
    assert house.one("/ping").notes[:20] == ["pong"] * 20


async def test_the_clients_close_code_reaches_the_version(house: House) -> None:
    async with connect(url(house, "/echo"), proxy=None) as chat:
        await chat.close(4001, "bored")
    seen = house.one("/echo")
    await until(lambda: closed(seen) == "closed 4001 bored")


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 4002])
async def test_the_versions_close_code_reaches_the_client(house: House, code: int) -> None:
    async with connect(url(house, "/leave"), proxy=None) as chat:
        await chat.send(f"{code} enough of you")
        with pytest.raises(ConnectionClosed) as caught:
            await chat.recv()
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, "enough of you")
    seen = house.one("/leave")
    await until(lambda: closed(seen) == f"closed {code} enough of you")


async def test_a_version_that_breaks_off_is_not_taken_for_one_that_closed(house: House) -> None:
    async with connect(url(house, "/break-off"), proxy=None) as chat:
        await chat.send("now")
        with pytest.raises(ConnectionClosed) as caught:
            await chat.recv()
    assert caught.value.rcvd is None
    assert house.one("/break-off").version == "v1"


async def test_a_client_that_breaks_off_is_missed_by_the_version(house: House) -> None:
    async with connect(url(house, "/echo"), proxy=None) as chat:
        await chat.send("hello")
        assert await chat.recv() == "hello"
        chat.transport.abort()
    seen = house.one("/echo")
    await until(lambda: closed(seen) == "closed 1006 ")


async def test_a_version_that_refuses_the_upgrade_is_heard(house: House) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(url(house, "/refuse"), proxy=None)
    response = caught.value.response
    assert (response.status_code, response.body) == (403, b"members only")
    assert response.headers["X-Ring"] == "everyone"
    assert house.one("/refuse").headers["Upgrade"].lower() == "websocket"


async def test_everything_that_a_version_pushes_arrives_in_order(house: House) -> None:
    async with connect(url(house, "/push"), proxy=None) as chat:
        assert [message async for message in chat] == [f"{n}" for n in range(PUSHED)]
        assert (chat.close_code, chat.close_reason) == (1000, "that is all")
    assert house.one("/push").version == "v1"


async def test_a_hundred_conversations_stay_apart(house: House) -> None:
    async def talk(n: int) -> None:
        async with connect(url(house, "/echo"), proxy=None) as chat:
            for m in range(20):
                await chat.send(f"{n}-{m}")
                assert await chat.recv() == f"{n}-{m}"

    await asyncio.gather(*(talk(n) for n in range(100)))
    assert len(house.at("/echo")) == 100


# -- websocket-client -------------------------------------------------------------------------------------------------


@pytest.fixture
def sockets(house: House) -> Iterator[House]:
    """Whatever waits, waits no longer than this."""
    websocket.setdefaulttimeout(SECONDS)
    yield house
    websocket.setdefaulttimeout(None)


def dial(house: House, path: str, **options: Any) -> websocket.WebSocket:
    return websocket.create_connection(url(house, path), http_no_proxy=["127.0.0.1"], **options)


def test_websocket_client_hears_its_echo(sockets: House) -> None:
    with closing(dial(sockets, "/echo", header=["X-Ring: canary"], subprotocols=["chat.v2"])) as chat:
        assert chat.getsubprotocol() == "chat.v2"
        assert (chat.getheaders() or {})["x-ring-version"] == "v2"
        for text in TEXTS:
            chat.send_text(text)
            assert chat.recv() == text
            chat.send_binary(text.encode())
            assert chat.recv() == text.encode()
    assert sockets.one("/echo").notes[:3] == ["str 0", "bytes 0", "str 5"]


def test_websocket_client_sends_a_mebibyte_in_fragments(sockets: House) -> None:
    pieces = [noise(MEBIBYTE // 16, f"{n}") for n in range(16)]
    with closing(dial(sockets, "/pieces")) as chat:
        for n, piece in enumerate(pieces):
            opcode = websocket.ABNF.OPCODE_CONT if n else websocket.ABNF.OPCODE_BINARY
            chat.send_frame(websocket.ABNF.create_frame(piece, opcode, int(n == 15)))
        assert chat.recv() == b"".join(pieces)
    assert sockets.one("/pieces").notes[0] == f"16 {sha256(b''.join(pieces))}"


def test_websocket_client_answers_and_sends_pings(sockets: House) -> None:
    with closing(dial(sockets, "/ping")) as chat:
        chat.send("please")
        assert chat.recv() == "pong"
        chat.ping("are you there?")
        opcode, frame = chat.recv_data_frame(control_frame=True)
        assert (opcode, frame.data) == (websocket.ABNF.OPCODE_PONG, b"are you there?")
    assert sockets.one("/ping").notes[0] == "pong"


async def test_websocket_client_closes_and_is_closed(sockets: House) -> None:
    chat = dial(sockets, "/echo")
    chat.close(4003, b"good night")
    seen = sockets.one("/echo")
    await until(lambda: closed(seen) == "closed 4003 good night")
    with closing(dial(sockets, "/leave")) as chat:
        chat.send("4004 good morning")
        opcode, data = chat.recv_data(control_frame=True)
    assert (opcode, data) == (websocket.ABNF.OPCODE_CLOSE, (4004).to_bytes(2, "big") + b"good morning")


# -- aiohttp ----------------------------------------------------------------------------------------------------------


async def test_aiohttp_talks_and_is_closed(house: House) -> None:
    async with aiohttp.ClientSession(house.url) as session:
        async with session.ws_connect("/echo", compress=15) as chat:
            assert chat.compress > 0  # the server has agreed
            await chat.send_str("round and round " * 10_000)
            assert await chat.receive_str(timeout=SECONDS) == "round and round " * 10_000
            await chat.send_bytes(noise(MEBIBYTE))
            assert await chat.receive_bytes(timeout=SECONDS) == noise(MEBIBYTE)
        async with session.ws_connect("/leave") as chat:
            await chat.send_str("4005 off you go")
            assert (await chat.receive(timeout=SECONDS)).data == 4005
    assert house.one("/echo").notes[:2] == ["str 160000", f"bytes {MEBIBYTE}"]
