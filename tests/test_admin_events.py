"""What happens is on every screen within a second: one feed, everything first; who does not read holds up nobody."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import msgspec

from router.admin import events, shapes
from router.telemetry import picture
from router.telemetry.tasks import spawn
from tests.admin import OPERATOR, VIEWER, House, administered
from tests.redis_fixture import CONTROL, WEIGHTS, Server
from tests.shared_house import ONE_LOOP
from tests.waiting import until


class Listener:
    """A tab: reads its stream as a browser does, and keeps what came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.events: list[tuple[str, Any]] = []
        self.raw = b""
        self.is_over = False

    async def read(self) -> None:
        """Until the other side ends it. Chunks are of the transfer, not of the events."""
        rest = b""
        try:
            while True:
                size = int(await self._reader.readline(), 16)
                if size == 0:
                    break
                rest += await self._reader.readexactly(size)
                await self._reader.readexactly(2)
                *whole, rest = rest.split(b"\n\n")
                for one in whole:
                    self.raw += one + b"\n\n"
                    fields = dict(line.split(": ", 1) for line in one.decode().split("\n"))
                    if "data" in fields:
                        self.events.append((fields.get("event", "message"), json.loads(fields["data"])))
        except (ValueError, asyncio.IncompleteReadError, ConnectionError):
            pass
        self.is_over = True

    def of(self, name: str) -> list[Any]:
        return [data for event, data in self.events if event == name]


@asynccontextmanager
async def listening(house: House, path: str = "/api/v1/events", **headers: str) -> AsyncIterator[Listener]:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.router.admin, limit=1 << 22)
    headers = {"Authorization": f"Bearer {VIEWER}", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{house.router.admin}\r\n{lines}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 200"), head
    assert "Content-Type: text/event-stream" in head
    assert "Cache-Control: no-store" in head
    assert "X-Accel-Buffering: no" in head
    listener = Listener(reader, writer)
    task = spawn(listener.read(), name="a tab")
    try:
        yield listener
    finally:
        writer.close()
        await task


@ONE_LOOP
async def test_a_stream_begins_with_everything_and_ticks(house: House) -> None:
    async with listening(house) as tab:
        await until(lambda: len(tab.of("tick")) >= 2)
        assert tab.events[0][0] == "snapshot"
        first = msgspec.convert(tab.of("snapshot")[0], shapes.Snapshot)
        assert first.state["services"]["shop"]["rings"][0]["ring"] == "canary"
        assert "snapshot" not in first.state
        shown = msgspec.convert(first.picture, picture.Picture)
        tick = msgspec.convert(tab.of("tick")[-1], picture.Picture)
        assert shown.services["shop"].rev == tick.services["shop"].rev
        sparks = [version.spark for ring in tick.services["shop"].rings for version in ring.versions]
        assert all(len(spark.rps) <= 1 for spark in sparks)


async def test_what_somebody_types_into_redis_is_told_and_what_the_api_writes_is_told_with_its_author(
    redis_server: Server, tmp_path: Path
) -> None:
    async with administered(tmp_path, redis_server.url) as house, listening(house) as tab:
        await until(lambda: tab.of("tick"))
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "33")
        await until(lambda: any(one["kind"] == "routing" for one in tab.of("change")))
        news = next(one for one in tab.of("change") if one["kind"] == "routing")
        assert (news["service"], news["sentences"]) == ("shop", ["canary 5 → 33 percent"])
        redis_server.redis_cli("HSET", CONTROL, "freeze", "holiday")
        await until(lambda: ["freeze off → holiday"] in [one["sentences"] for one in tab.of("change")])
        await house.write("/weights", weights={"canary": 3}, reason="too many errors")
        await until(lambda: tab.of("audit"))
        (entry,) = tab.of("audit")
        assert (entry["actor"], entry["source"], entry["reason"]) == ("ada", "api", "too many errors")
        await until(lambda: tab.of("tick")[-1]["services"]["shop"]["rings"][0]["target"] == 3.0)

        house.router.config.write_text(house.router.config.read_text().replace("weight: 20", "weight: 2000"))
        await until(lambda: any(one["kind"] == "config" for one in tab.of("change")))
        assert "refused" in next(one for one in tab.of("change") if one["kind"] == "config")["sentences"][0]
        redis_server.running.stop()
        await until(lambda: ["Redis is down"] in [one["sentences"] for one in tab.of("change")], within=10)
        ticks = len(tab.of("tick"))
        await until(lambda: len(tab.of("tick")) > ticks + 1)
        redis_server.start()


@ONE_LOOP
async def test_a_tab_that_was_cut_off_comes_back_to_everything_there_is_now(house: House) -> None:
    async with listening(house) as tab:
        await until(lambda: tab.of("tick"))
    await house.write("/weights", weights={"canary": 3})
    await until(lambda: house.router.weights()["canary"] == 3.0)
    async with listening(house) as tab:
        await until(lambda: tab.of("snapshot"))
        assert tab.of("snapshot")[0]["state"]["services"]["shop"]["rings"][0]["weight"] == 3.0
    await until(lambda: _metric_of(house) == 0)


def _metric_of(house: House) -> int:
    """Streams that control believes to be open, by the descriptors of its admin port."""
    pid = house.router.control_pid()
    mine = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    port = f"{house.router.admin:04X}"
    return sum(line[1].endswith(f":{port}") and line[3] == "01" for line in mine)


@ONE_LOOP
async def test_all_tabs_get_the_same_bytes(house: House) -> None:
    async with listening(house) as one, listening(house) as other:
        await until(lambda: len(one.of("tick")) >= 3 and len(other.of("tick")) >= 3)
        ticks = [tab.raw.split(b"event: tick\n")[1:3] for tab in (one, other)]
        assert set(ticks[0]) & set(ticks[1])


@ONE_LOOP
async def test_nobody_without_a_token_listens_and_nobody_is_sent_elsewhere(house: House) -> None:
    for path in ("/events", "/tap"):
        answer = await house.call("GET", path, token=None)
        assert (answer.status, answer.data["code"]) == (401, "no_token")
        assert "Location" not in answer.headers


@ONE_LOOP
async def test_the_sixty_fifth_tab_is_told_to_wait(house: House) -> None:
    tabs = [asyncio.open_connection("127.0.0.1", house.router.admin) for _ in range(events.MOST_STREAMS)]
    streams = await asyncio.gather(*tabs)
    for reader, writer in streams:
        writer.write(
            f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {VIEWER}\r\n\r\n".encode()
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    answer = await house.call("GET", "/events")
    assert (answer.status, answer.data["code"], answer.headers["Retry-After"]) == (503, "busy", "5")
    for _, writer in streams:
        writer.close()

    async def is_free() -> bool:
        headers = {"Authorization": f"Bearer {VIEWER}"}
        async with house.client.get(f"{house.base}/api/v1/events", headers=headers) as response:
            return response.status == 200

    await until(is_free)


@ONE_LOOP
async def test_a_stream_ends_with_the_session_that_opened_it(house: House) -> None:
    login = await house.call("POST", "/login", {"token": OPERATOR}, token=None)
    jar: SimpleCookie = SimpleCookie()
    for line in login.headers.getall("Set-Cookie"):  # type: ignore[attr-defined]
        jar.load(line)
    cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in jar.items())
    async with listening(house, Authorization="", Cookie=cookie) as tab:
        await until(lambda: tab.of("tick"))
        headers = {"Cookie": cookie, "Origin": house.base, "X-CSRF-Token": jar["ring_csrf"].value}
        assert (await house.call("POST", "/logout", token=None, headers=headers)).status == 204
        await until(lambda: tab.is_over)


async def test_a_tab_that_does_not_read_is_dropped_and_nobody_else_notices() -> None:
    stream = events.Stream(lambda: True)
    tick = b"x" * (events.QUEUE_BYTES // 4)
    for _ in range(4):
        stream.offer(tick)
    assert not stream.is_over
    stream.offer(tick)
    assert stream.is_over
    assert await stream.next() == b""
    stream.offer(tick)
    assert await stream.next() == b""


@ONE_LOOP
async def test_a_tab_that_stopped_reading_holds_up_nobody(house: House) -> None:
    deaf = socket.create_connection(("127.0.0.1", house.router.admin))
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    ask = f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {VIEWER}\r\n\r\n"
    deaf.sendall(ask.encode())
    async with listening(house) as tab:
        await until(lambda: len(tab.of("tick")) >= 3)
    deaf.close()


async def test_control_stops_at_once_with_tabs_open(tmp_path: Path) -> None:
    async with administered(tmp_path) as house:
        async with listening(house) as tab:
            await until(lambda: tab.of("tick"))
            house.router.process.terminate()
            await until(lambda: tab.is_over, within=20)
        await until(lambda: house.router.process.poll() is not None, within=20)
        assert house.router.process.returncode == 0
