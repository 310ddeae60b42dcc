"""What a second pair of eyes found in the data plane, as stories: messages that meet at the wrong moment."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from router.core.snapshot import Snapshot
from router.core.spec import ListenerSpec, TimeoutsSpec
from router.proxy.grammar import FramingError, TooManyFieldsError
from router.proxy.heads import RequestReader
from tests.house import fixed, header, raw_backend, read_head, running_plane, shop, snapshot
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_an_upload_that_was_pipelined_goes_on_when_its_turn_comes() -> None:
    bodies: list[bytes] = []
    may_answer = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            if head.startswith(b"POST"):
                bodies.append(await reader.readexactly(10))
            else:
                await may_answer.wait()
            writer.write(OK)

    async with raw_backend(serve) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        reader, writer = await router.connect()
        writer.write(GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234")
        await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 1)
        may_answer.set()
        assert b" 200 " in await read_head(reader)
        assert await reader.readexactly(2) == b"ok"
        await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 1)
        writer.write(b"56789")
        assert b" 200 " in await read_head(reader)
        assert bodies == [b"0123456789"]
        writer.close()


async def test_a_pipelined_upload_to_a_backend_that_does_not_read_is_held_too() -> None:
    may_answer = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await may_answer.wait()
        writer.write(OK)
        writer.transport.pause_reading()
        await asyncio.Event().wait()

    timeouts = TimeoutsSpec(1.0, 30.0, 30.0)
    async with raw_backend(serve) as port:
        async with running_plane(snapshot(shop((port,), (port,), timeouts=timeouts))) as router:
            _, writer = await router.connect()
            writer.write(GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000000\r\n\r\n" + b"x" * 262_144)
            await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 1)
            may_answer.set()
            is_taken = True
            while is_taken:
                writer.write(b"x" * 65_536)
                drained = asyncio.ensure_future(writer.drain())  # noqa: TID251 - awaited in the next line
                is_taken = bool((await asyncio.wait([drained], timeout=1))[0])
            drained.cancel()
            (downstream,) = router.plane._connections
            assert downstream.is_holding
            assert downstream.exchange is not None
            assert downstream.exchange.upstream is not None
            assert downstream.exchange.upstream.transport.get_write_buffer_size() < 1_000_000
            writer.transport.abort()


async def test_a_refused_head_request_has_no_body_that_the_next_answer_could_hide_behind() -> None:
    async with raw_backend(fixed(OK)) as port, running_plane(snapshot(shop((port,), (port,), hosts=("a",)))) as router:
        reader, writer = await router.connect()
        writer.write(b"HEAD / HTTP/1.1\r\nHost: unknown\r\n\r\n")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 404 ")
        writer.write(GET)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize("fields", [b"a:b\r\n" * 13_000, b"a: b\r\n" * 5_000 + b"te:\r\n" * 6_000])
def test_a_flood_of_fields_is_refused_at_once(fields: bytes) -> None:
    with pytest.raises(TooManyFieldsError):
        RequestReader().read(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields[:-2])


def test_a_path_of_slashes_and_a_cookie_of_equals_cost_what_they_weigh() -> None:
    from router.core.rules import cookie_value

    one = Snapshot(snapshot(shop((1,), (2,), paths=("/api/v1", "/api"))))
    before = time.process_time()
    assert one.find(b"a", b"/" * 65_000) is None
    service = one.find(b"a", b"/api/v1" + b"/x" * 30_000)
    assert service is not None
    assert cookie_value(b"ba=" + b"a=" * 32_000, b"a") is None
    assert time.process_time() - before < 1  # it was several seconds: a square, not a machine's mood


async def test_a_body_behind_a_204_never_reaches_the_next_request() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n")
        await read_head(reader)
        writer.write(b"0\r\n\r\n")

    async with raw_backend(serve) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        for _ in range(3):
            answer = await router.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 204 ")


async def test_requests_that_hang_are_reported_while_they_hang() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    timeouts = TimeoutsSpec(1.0, 30.0, 30.0)
    async with raw_backend(silent) as port:
        async with running_plane(snapshot(shop((port,), (port,), timeouts=timeouts))) as router:
            writers = [(await router.connect())[1] for _ in range(5)]
            router.plane.collect()
            for writer in writers:
                writer.write(GET)
            await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 5)
            report = router.plane.collect().rings["shop", "everyone", "v1"]
            assert (report.in_flight, report.reasons) == (5, {"default": 5})
            for writer in writers:
                writer.transport.abort()


@pytest.mark.parametrize(
    "host",
    [b"a b", b"a@b", b"a/b", b"[::1", b"[x]", b"a:b:80", b"a:80@evil", b"a%2", b'a"b', b"", b":80", b"a:65536",
     b"[1::2::3]"],
)  # fmt: skip
def test_a_host_that_is_none_is_refused(host: bytes) -> None:
    for head in (b"GET / HTTP/1.1\r\nHost: " + host, b"GET / HTTP/1.0\r\nHost: " + host):
        with pytest.raises(FramingError):
            RequestReader().read(head)


@pytest.mark.parametrize(
    ("host", "configured"), [(b"[::1]:8080", "[::1]"), (b"A.b:80", "a.b"), (b"a_b", "a_b"), (b"10.0.0.1", "10.0.0.1")]
)
def test_a_host_finds_its_service(host: bytes, configured: str) -> None:
    head = RequestReader().read(b"GET / HTTP/1.1\r\nHost: " + host)
    assert Snapshot(snapshot(shop((1,), (2,), hosts=(configured,)))).find(head.host, head.path) is not None


@pytest.mark.parametrize("last_words", [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b""])
async def test_an_idle_connection_that_its_backend_ends_is_lent_to_nobody(last_words: bytes) -> None:
    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        await ends.wait()
        writer.write(last_words)

    async with raw_backend(serve) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        assert (await router.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))).endswith(b"ok")
        (reserve,) = router.plane.pools.reserves.values()
        assert len(reserve.idle) == 1
        ends.set()
        await until(lambda: not reserve.idle)


async def test_a_backend_that_ends_its_lines_wrongly_is_told_from_one_that_is_slow() -> None:
    async with raw_backend(fixed(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok")) as port:
        timeouts = TimeoutsSpec(1.0, 30.0, 30.0)
        async with running_plane(snapshot(shop((port,), (port,), timeouts=timeouts))) as router:
            answer = await router.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert b"502 upstream_protocol" in answer


async def test_an_empty_line_behind_a_body_is_not_the_beginning_of_a_request() -> None:
    listener = ListenerSpec(head_timeout=0.2, idle_timeout=30.0)
    async with raw_backend(fixed(OK)) as port:
        async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
            reader, writer = await router.connect()
            writer.write(GET + b"\r\n")
            assert b" 200 " in await read_head(reader)
            assert await reader.readexactly(2) == b"ok"
            (downstream,) = router.plane._connections
            await until(lambda: downstream.is_idle)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await reader.read(1)
            writer.write(GET)
            assert b" 200 " in await read_head(reader)
            writer.close()


async def test_an_interim_response_has_no_length_and_a_name_with_underscores_cannot_forge_a_ring() -> None:
    seen: list[bytes] = []
    response = b"HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\nLink: </a>\r\n\r\n" + OK
    async with raw_backend(fixed(response, seen)) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        answer = await router.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX_Ring: canary\r\nX_Y: 1\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert not header(seen[0], "x_ring")
    assert header(seen[0], "x_y") == ["1"]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_a_peer_that_comes_by_way_of_ipv6_is_the_ipv4_address_it_is() -> None:
    seen: list[bytes] = []
    listener = ListenerSpec(("127.0.0.0/8",))
    async with raw_backend(fixed(OK, seen)) as port:
        async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
            both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
            server = await asyncio.get_running_loop().create_server(router.plane.accept, sock=both)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"ok")
            writer.close()
            server.close()
    assert header(seen[0], "x-forwarded-for") == ["9.9.9.9, 127.0.0.1"]


async def test_a_client_that_was_gone_before_it_was_accepted_is_not_taken_for_a_local_one() -> None:
    class Gone:
        """What uvloop hands over when the peer has reset already: a transport without a peer."""

        is_aborted = False

        def get_extra_info(self, _name: str) -> None:
            return None

        def abort(self) -> None:
            self.is_aborted = True

    listener = ListenerSpec(trusted_proxies=("unix:",))
    async with raw_backend(fixed(OK)) as port:
        async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
            transport = Gone()
            router.plane.accept().connection_made(transport)  # type: ignore[arg-type]
            assert transport.is_aborted
            assert router.plane.collect().router_answers == {"client_gone": 1}
            assert router.plane.collect().connections == 0
