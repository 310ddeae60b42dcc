"""WebSockets and event streams when rings change: who stays connected, who is told to come back, and how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect

from router.core.audience import IdentitySpec
from router.core.hashing import bucket_of
from router.core.spec import RingSpec, ServiceSpec, SnapshotSpec, TimeoutsSpec
from router.proxy.wheel import NEVER
from tests.house import RunningPlane, header, raw_backend, read_head, running_plane, shop, snapshot
from tests.test_edge_tunnel import HANDSHAKE, accept
from tests.waiting import until

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
HELLO = b"data: hello\n\n"


def users(first: int, end: int) -> Iterator[str]:
    """Users whose bucket is in [first, end)."""
    return (name for name in (f"user-{number}" for number in count()) if first <= bucket_of(name.encode()) < end)


NEAR = next(users(500, 2000))
"""In ``everyone`` until canary is widened beyond 20 percent."""
FAR = next(users(9000, 10_000))
"""In ``everyone`` all the time."""
STAFF = next(users(0, 100))
"""In canary."""


@dataclass
class House:
    """A plane with one backend for both versions."""

    router: RunningPlane
    port: int
    ended: list[str] = field(default_factory=list)
    """Users whose connection to the backend is over."""
    generation: int = 1

    def spec(self, canary: int, **changes: object) -> SnapshotSpec:
        return snapshot(service(self.port, canary, **changes), generation=self.generation)

    def install(self, canary: int, **changes: object) -> None:
        self.generation += 1
        self.router.plane.install(self.spec(canary, **changes))

    async def looked(self) -> None:
        """Everybody who is connected has been decided by the newest snapshot."""
        changes = self.router.plane.changes
        await until(lambda: not changes._is_walking)
        assert all(one.generation == self.generation for one in changes._open)

    def chat(self, user: str) -> connect:
        return connect(
            f"ws://127.0.0.1:{self.router.port}/chat", proxy=None, ping_interval=None,
            additional_headers={"X-User-Id": user},
        )  # fmt: skip

    @asynccontextmanager
    async def events(self, user: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """An event stream whose first event has come."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                f"http://127.0.0.1:{self.router.port}/events",
                headers={"X-User-Id": user, "Accept": "text/event-stream"},
            ) as response,
        ):
            assert response.content_type == "text/event-stream"
            assert await response.content.readexactly(len(HELLO)) == HELLO
            yield response


def service(port: int, canary: int, **changes: object) -> ServiceSpec:
    rings = (RingSpec("canary", "v2", canary), RingSpec("everyone", "v1"))
    policy = {name: changes.pop(name) for name in ("on_change", "change_drain") if name in changes}
    fields: dict[str, object] = {
        "rings": tuple(replace(ring, **policy) for ring in rings),  # type: ignore[arg-type]
        "timeouts": TimeoutsSpec(5.0, 5.0, 60.0),
    }
    return shop((port,), (port,), **{**fields, **changes})


@asynccontextmanager
async def house(canary: int = 100, **changes: object) -> AsyncIterator[House]:
    made: list[House] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        (user,) = header(head, "x-user-id")
        try:
            if header(head, "upgrade"):
                writer.write(accept(head))
                await say_again(reader, writer)
            else:
                writer.write(STREAM + b"%x\r\n%b\r\n" % (len(HELLO), HELLO))
                await reader.read()
        finally:
            made[0].ended.append(user)

    async with raw_backend(serve) as port:
        async with running_plane(snapshot(service(port, canary, **changes))) as router:
            made.append(House(router, port))
            yield made[0]
            for one in (*router.plane._connections,):
                one.transport.abort()


async def say_again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Short messages come back as they were, without their mask (RFC 6455 §5.1), until a farewell."""
    opcode = 0
    while opcode != 8:
        opcode, size = (byte & mask for byte, mask in zip(await reader.readexactly(2), b"\x0f\x7f", strict=True))
        mask, data = await reader.readexactly(4), await reader.readexactly(size)
        writer.write(bytes((0x80 | opcode, size)) + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))


async def answers(chat: ClientConnection) -> bool:
    await chat.send("are you there?")
    async with asyncio.timeout(10):
        return await chat.recv() == "are you there?"


async def close_code(chat: ClientConnection) -> int:
    async with asyncio.timeout(10):
        await chat.wait_closed()
    assert chat.close_code is not None
    return chat.close_code


async def ends(events: aiohttp.ClientResponse) -> bytes:
    """What still came; raises where the body is cut off rather than ended."""
    async with asyncio.timeout(10):
        return await events.content.read()


async def test_who_moves_inward_is_told_to_come_back_and_who_stays_stays_connected() -> None:
    async with house(on_change="close") as home:
        async with home.chat(NEAR) as near, home.chat(FAR) as far, home.chat(STAFF) as staff:
            async with home.events(NEAR) as near_events, home.events(FAR) as far_events:
                home.install(2000, on_change="close")
                assert await close_code(near) == 1012
                assert await ends(near_events) == b""
                await home.looked()
                assert await answers(far)
                assert await answers(staff)
                assert not far_events.content.at_eof()
                await until(lambda: home.ended == [NEAR, NEAR])
                assert len(home.router.plane.changes) == 3
                async with home.chat(NEAR) as again:
                    assert again.response is not None
                    assert again.response.headers["X-Ring"] == "canary"
                    assert await answers(again)


async def test_by_default_a_change_leaves_everybody_connected() -> None:
    async with house() as home:
        async with home.chat(NEAR) as near, home.events(NEAR) as events:
            home.install(2000)
            await home.looked()
            assert await answers(near)
            assert not events.content.at_eof()
            assert home.ended == []
            home.install(2000, on_change="close")  # the ring says otherwise now, and they are still where they were
            assert await close_code(near) == 1012
            assert await ends(events) == b""


async def test_a_drain_ends_later_and_not_at_all_for_who_comes_back_in_time() -> None:
    async with house(on_change="drain", change_drain=3600.0) as home:
        async with home.chat(NEAR) as near, home.events(NEAR) as events:
            home.install(2000, on_change="drain", change_drain=3600.0)
            await home.looked()
            due = [one.deadline for one in home.router.plane.changes._open]
            assert all(one < NEVER for one in due)
            home.install(2500, on_change="drain", change_drain=7200.0)
            await home.looked()
            assert [one.deadline for one in home.router.plane.changes._open] == due
            assert await answers(near)
            home.install(100, on_change="drain", change_drain=3600.0)
            await home.looked()
            assert [one.deadline for one in home.router.plane.changes._open] == [NEVER, NEVER]
            assert await answers(near)
            home.install(2000, on_change="drain", change_drain=0.05)
            assert await close_code(near) == 1012
            assert await ends(events) == b""
        assert len(home.router.plane.changes) == 0


@pytest.mark.parametrize("policy", ["keep", "drain"])
async def test_a_kill_closes_at_once_whatever_the_ring_says(policy: str) -> None:
    async with house(on_change=policy, change_drain=3600.0) as home:
        async with home.chat(STAFF) as staff, home.events(STAFF) as events, home.chat(FAR) as far:
            home.install(100, on_change=policy, change_drain=3600.0, killed=("canary",))
            assert await close_code(staff) == 1012
            assert await ends(events) == b""
            assert await answers(far)


async def test_a_ring_that_is_gone_closes_and_so_does_a_service() -> None:
    async with house() as home:
        async with home.chat(STAFF) as staff, home.chat(FAR) as far:
            home.install(100, rings=(RingSpec("everyone", "v1"),))
            assert await close_code(staff) == 1012
            assert await answers(far)
            home.router.plane.install(snapshot(generation=3))
            assert await close_code(far) == 1012


async def test_another_version_in_the_same_ring_is_a_change_too() -> None:
    async with house(on_change="close") as home:
        async with home.chat(STAFF) as staff, home.events(STAFF) as events, home.chat(FAR) as far:
            rings = (RingSpec("canary", "v1", 100, on_change="close"), RingSpec("everyone", "v1", on_change="close"))
            home.install(100, rings=rings)
            assert await close_code(staff) == 1012
            assert await ends(events) == b""
            assert await answers(far)


async def test_each_ring_has_its_own_policy_and_that_of_the_ring_they_are_in_counts() -> None:
    rings = (RingSpec("canary", "v2", 2000, on_change="close"), RingSpec("everyone", "v1", on_change="keep"))
    async with house(100) as home:
        async with home.chat(NEAR) as near, home.chat(STAFF) as staff:
            home.install(0, rings=rings)
            await home.looked()
            assert await answers(near)
            home.install(0, rings=(replace(rings[0], basis_points=0), rings[1]))
            assert await close_code(staff) == 1012
            assert await answers(near)


async def test_the_connection_of_an_ended_stream_serves_the_next_request() -> None:
    async with house(on_change="close") as home:
        reader, writer = await home.router.connect()
        ask = f"GET /events HTTP/1.1\r\nHost: a\r\nX-User-Id: {NEAR}\r\n\r\n".encode()
        writer.write(ask)
        assert header(await read_head(reader), "x-ring") == ["everyone"]
        assert await reader.readexactly(len(HELLO) + 5) == b"d\r\n" + HELLO + b"\r\n"
        home.install(2000, on_change="close")
        assert await reader.readexactly(5) == b"0\r\n\r\n"
        writer.write(ask)
        assert header(await read_head(reader), "x-ring") == ["canary"]
        writer.close()


async def test_a_client_of_http_1_0_sees_its_stream_end() -> None:
    async with house(on_change="close") as home:
        reader, writer = await home.router.connect()
        writer.write(f"GET /events HTTP/1.0\r\nHost: a\r\nX-User-Id: {NEAR}\r\n\r\n".encode())
        await read_head(reader)
        assert await reader.readexactly(len(HELLO)) == HELLO
        home.install(2000, on_change="close")
        assert await reader.read() == b""
        writer.close()


async def test_a_handshake_that_is_answered_after_the_change_is_looked_at_then() -> None:
    may_answer = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        await may_answer.wait()
        writer.write(accept(head))
        await say_again(reader, writer)

    async with raw_backend(serve) as port, running_plane(snapshot(service(port, 100, on_change="close"))) as router:
        reader, writer = await router.connect()
        writer.write(HANDSHAKE.replace(b"\r\n\r\n", f"\r\nX-User-Id: {NEAR}\r\n\r\n".encode()))
        await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 1)
        router.plane.install(snapshot(service(port, 2000, on_change="close"), generation=2))
        may_answer.set()
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
        assert await reader.read() == b"\x88\x02\x03\xf4"
        writer.close()


async def test_a_field_that_only_the_new_snapshot_asks_for_is_found_in_the_old_request() -> None:
    async with house(on_change="close") as home:
        async with home.chat(NEAR) as near:
            identity = (IdentitySpec("header", "Sec-WebSocket-Version"), IdentitySpec("header", "X-User-Id"))
            home.install(bucket_of(b"13"), on_change="close", identity=identity)
            await home.looked()
            assert await answers(near)
            home.install(bucket_of(b"13") + 1, on_change="close", identity=identity)
            assert await close_code(near) == 1012


async def test_a_minted_user_is_the_same_one_again() -> None:
    identity = (IdentitySpec("anonymous_cookie", "ring_uid"),)
    async with house(0, on_change="close", identity=identity) as home:
        async with home.chat("nobody") as chat:
            home.install(1, on_change="close", identity=identity)
            await home.looked()
            (exchange,) = [one.exchange for one in home.router.plane._connections if one.exchange is not None]
            assert exchange.minted
            if bucket_of(exchange.key) >= 1:
                assert await answers(chat)
            home.install(10_000, on_change="close", identity=identity)
            assert await close_code(chat) == 1012


async def test_many_tunnels_are_looked_at_in_slices_and_a_second_change_meanwhile_reaches_them_all() -> None:
    async with house(on_change="close") as home:
        names = [name for name, _ in zip(users(500, 10_000), range(100), strict=False)]
        clients: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        for name in names:
            reader, writer = clients[name] = await home.router.connect()
            writer.write(HANDSHAKE.replace(b"\r\n\r\n", f"\r\nX-User-Id: {name}\r\n\r\n".encode()))
            await read_head(reader)
        loop, changes, between = asyncio.get_running_loop(), home.router.plane.changes, 0
        changes.slice_seconds = 0.0  # one at a time

        def others() -> None:
            nonlocal between
            if changes._is_walking:
                between += 1
                if between == 30:
                    home.install(5000, on_change="close")
                loop.call_soon(others)

        home.install(2000, on_change="close")
        loop.call_soon(others)
        await home.looked()
        assert between > len(names)
        assert home.generation == 3
        leave = {name for name in names if bucket_of(name.encode()) < 5000}
        assert 0 < len(leave) < len(names)
        for name in leave:
            assert await clients[name][0].read() == b"\x88\x02\x03\xf4"
        assert {one.head.headers[b"x-user-id"].decode() for one in changes._open} == set(names) - leave
        for _, writer in clients.values():
            writer.close()
