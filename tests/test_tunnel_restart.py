"""WebSockets at the end of a drain: both sides are told to come back (1012), in a place where a frame can stand."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from router.proxy.tunnel import Frames
from tests.house import read_head
from tests.running import free_ports
from tests.test_edge_sockets import edge_router
from tests.test_edge_tunnel import accept, shaken, tunnel_to, tunnels
from tests.waiting import until

CLOSE_1012 = b"\x88\x02\x03\xf4"


def frame(size: int, *, is_masked: bool, opcode: int = 2) -> bytes:
    """A frame (RFC 6455 §5.2) whose payload looks like heads of frames."""
    mask = 0x80 if is_masked else 0
    if size < 126:
        head = bytes((0x80 | opcode, mask | size))
    elif size < 1 << 16:
        head = bytes((0x80 | opcode, mask | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, mask | 127)) + size.to_bytes(8, "big")
    return head + (b"mask" if is_masked else b"") + (b"\x88\x02" * size)[:size]


frames = st.lists(
    st.builds(frame, st.sampled_from([0, 1, 2, 124, 125, 126, 127, 300, 65_535, 65_536]), is_masked=st.booleans()),
    min_size=1,
    max_size=5,
)


@settings(max_examples=300)
@given(frames, st.lists(st.integers(0, 70_000), max_size=8))
def test_frames_end_where_they_end_however_they_are_cut(sent: list[bytes], cuts: list[int]) -> None:
    data, ends, at = b"".join(sent), {0}, 0
    for one in sent:
        at += len(one)
        ends.add(at)
    seen, begin = Frames(), 0
    for cut in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        seen.feed(data[begin:cut])
        assert seen.is_between == (cut in ends)
        assert not seen.has_closed
        begin = cut


@pytest.mark.parametrize("is_masked", [False, True])
def test_frames_byte_by_byte(is_masked: bool) -> None:
    seen = Frames()
    data = b"".join(frame(size, is_masked=is_masked) for size in (0, 5, 126, 70_000)) + frame(
        2, is_masked=is_masked, opcode=8
    )
    for at in range(len(data)):
        seen.feed(data[at : at + 1])
    assert seen.is_between
    assert seen.has_closed


async def hears(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    heard.append(await reader.read(-1))


heard: list[bytes] = []


async def test_both_sides_hear_1012_between_two_frames() -> None:
    heard.clear()
    async with tunnels(tunnel_to(hears)) as router:
        reader, writer = await shaken(router)
        writer.write(frame(300, is_masked=True))
        await until(lambda: sum(one.exchange is not None for one in router.plane._connections) == 1)
        await until(lambda: all(one.exchange.received for one in router.plane._connections if one.exchange))
        assert router.plane.restart_tunnels()
        assert await reader.read(-1) == CLOSE_1012
        await until(lambda: bool(heard))
        said = heard[0].removeprefix(frame(300, is_masked=True))
        head, key, payload = said[:2], said[2:6], said[6:]
        assert head == b"\x88\x82"
        assert bytes(a ^ b for a, b in zip(payload, key, strict=False)) == b"\x03\xf4"
        writer.close()


async def test_nothing_is_said_in_the_middle_of_a_frame() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(300, is_masked=False)[:100])
        await reader.read(-1)

    async with tunnels(tunnel_to(half)) as router:
        reader, writer = await shaken(router)
        got = await reader.readexactly(100)
        router.plane.restart_tunnels()
        assert got + await reader.read(-1) == frame(300, is_masked=False)[:100]
        writer.close()


async def test_a_router_that_stops_tells_its_websockets_to_come_back_and_ends_clean(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(accept(await read_head(reader)))
        await reader.read(-1)

    (port,) = free_ports(1)
    async with edge_router(tmp_path, f"127.0.0.1:{port}", echo, more="timeouts: {drain: 1s}") as router:
        async with connect(f"ws://127.0.0.1:{port}/chat", proxy=None, ping_interval=None) as chat:
            router.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as end:
                async with asyncio.timeout(20):
                    await chat.recv()
            assert end.value.rcvd is not None
            assert end.value.rcvd.code == 1012
        await until(lambda: router.process.poll() is not None, within=20)
        assert router.process.returncode == 0
