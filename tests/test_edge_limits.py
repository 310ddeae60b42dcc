"""Limits, as stories: each with its status, its word and its count; and what lies just within them passes."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from router.core.spec import LimitsSpec, ListenerSpec
from router.proxy.framing import LengthBody
from router.proxy.headcount import Headcount, headcount_page
from tests.house import RunningPlane, fixed, header, raw_backend, read_head, running_plane, shop, snapshot
from tests.test_edge_timeouts import past
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
KEPT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@asynccontextmanager
async def plane_within(
    limits: LimitsSpec, headcount: Headcount | None = None, **service: Any
) -> AsyncIterator[RunningPlane]:
    """A plane with these limits before a backend that reads whole bodies."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            for length in header(head, "content-length"):
                await reader.readexactly(int(length))
            if header(head, "transfer-encoding"):
                await reader.readuntil(b"0\r\n\r\n")
            writer.write(OK)

    async with raw_backend(serve) as port:
        listener = ListenerSpec(limits=limits)
        async with running_plane(snapshot(shop((port,), (port,), **service), listener=listener), headcount) as router:
            yield router


def refused(answer: bytes, status: int, word: str) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    return (
        head.startswith(b"HTTP/1.1 %d " % status)
        and body.startswith(f"{status} {word}: ".encode())
        and header(answer, "connection") == ["close"]
    )


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces,)) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("limits", "within", "beyond", "status", "word"),
    [
        (
            LimitsSpec(head_bytes=1024),
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: %b\r\n\r\n" % (b"x" * (1024 - 47)),
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: %b\r\n\r\n" % (b"x" * (1025 - 47)),
            431, "head_too_large",
        ),
        (
            LimitsSpec(uri_bytes=256),
            GET.replace(b"/ ", b"/" + b"x" * 255 + b" "),
            GET.replace(b"/ ", b"/" + b"x" * 256 + b" "),
            414, "uri_too_long",
        ),
        (
            LimitsSpec(fields=10),
            GET.replace(b"\r\n\r\n", b"\r\n" + b"X: y\r\n" * 8 + b"\r\n"),
            GET.replace(b"\r\n\r\n", b"\r\n" + b"X: y\r\n" * 9 + b"\r\n"),
            431, "head_too_large",
        ),
    ],
    ids=["head_bytes", "uri_bytes", "fields"],
)  # fmt: skip
async def test_a_head_within_its_limits_passes_and_one_beyond_is_refused(
    limits: LimitsSpec, within: bytes, beyond: bytes, status: int, word: str
) -> None:
    async with plane_within(limits) as router:
        assert (await router.ask(within)).endswith(b"ok")
        assert refused(await router.ask(beyond), status, word)
        for cut in (1, len(beyond) // 2, len(beyond) - 3):
            reader, writer = await router.connect()
            writer.write(beyond[:cut])
            await asyncio.sleep(0)
            writer.write(beyond[cut:])
            assert refused(await reader.read(), status, word)
            writer.close()
        assert router.plane.collect().router_answers == {word: 4}
        assert (await router.ask(within)).endswith(b"ok")


async def test_a_request_line_without_an_end_is_too_long_a_target() -> None:
    async with plane_within(LimitsSpec(head_bytes=2048, uri_bytes=256)) as router:
        assert refused(await router.ask(b"GET /" + b"x" * 3000), 414, "uri_too_long")
        assert refused(await router.ask(b"GET / HTTP/1.1\r\nX: " + b"x" * 3000), 431, "head_too_large")
        assert router.plane.collect().router_answers == {"uri_too_long": 1, "head_too_large": 1}


@pytest.mark.parametrize("listener_limit", [10, 0])
@pytest.mark.parametrize("service_limit", [None, 20, 0])
async def test_a_body_beyond_the_limit_of_its_service_is_refused(
    listener_limit: int, service_limit: int | None
) -> None:
    most = listener_limit if service_limit is None else service_limit
    async with plane_within(LimitsSpec(body_bytes=listener_limit), body_bytes=service_limit) as router:
        post = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        for size in (10, 11, 20, 21, 5_000):
            body = b"x" * size
            for raw in (
                post + b"Content-Length: %d\r\n\r\n" % size + body,
                post + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body),
                post + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*(body[i : i + 3] for i in range(0, size, 3))),
            ):
                for pieces in ((raw,), (raw[:-size], raw[-size:])):
                    reader, writer = await router.connect()
                    for piece in pieces:
                        writer.write(piece)
                        await asyncio.sleep(0)
                    answer = await reader.read()
                    writer.close()
                    if most and size > most:
                        assert refused(answer, 413, "body_too_large"), (size, answer)
                        assert answer.count(b"HTTP/1.1 ") == 1
                    else:
                        assert answer.endswith(b"ok"), (size, answer)
        counted = router.plane.collect().router_answers.get("body_too_large", 0)
        codes = router.plane.tally.meter(("shop", "everyone", "v1")).codes
        refusals = 6 * len([size for size in (10, 11, 20, 21, 5_000) if most and size > most])
        assert counted + codes.get(413, 0) == refusals
        assert codes.get(200, 0) == 30 - refusals
        assert router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 0


async def test_a_body_that_is_too_large_by_its_own_word_is_refused_before_it_is_sent() -> None:
    """RFC 9110 §10.1.1: a final status instead of 100; with ``answer`` the word is the router's."""
    async with raw_backend(fixed(OK)) as port:
        for answers in (True, False):
            listener = ListenerSpec(limits=LimitsSpec(body_bytes=10), answers_expect=answers)
            async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
                answer = await router.ask(
                    b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n"
                )
                assert refused(answer, 413, "body_too_large"), answer


async def test_a_connection_is_closed_after_its_last_request() -> None:
    async with plane_within(LimitsSpec(requests_per_connection=3)) as router:
        reader, writer = await router.connect()
        heads = []
        for _ in range(3):
            writer.write(KEPT)
            heads.append(await read_head(reader))
            await reader.readexactly(2)
        assert [header(head, "connection") for head in heads] == [[], [], ["close"]]
        assert await reader.read() == b""
        writer.close()
        piped = await router.ask(KEPT * 5)
        assert piped.count(b"HTTP/1.1 200 ") == 3
        unknown = KEPT.replace(b"Host: a", b"Host: b")
    async with plane_within(LimitsSpec(requests_per_connection=2), hosts=("a",)) as router:
        answer = await router.ask(unknown * 3)  # those that the router answers count as well
        assert answer.count(b"HTTP/1.1 404 ") == 2


async def test_connections_beyond_the_limit_are_told_so_and_those_before_go_on() -> None:
    async with plane_within(LimitsSpec(connections=2)) as router:
        one, two = await router.connect(), await router.connect()
        await until(lambda: router.plane.collect().connections == 2)
        assert refused(await router.ask(b""), 503, "too_many_connections")
        assert refused(await router.ask(GET), 503, "too_many_connections")
        assert router.plane.collect().router_answers == {"too_many_connections": 2}
        one[1].write(KEPT)
        assert (await read_head(one[0])).startswith(b"HTTP/1.1 200 ")
        one[1].close()
        await until(lambda: router.plane.collect().connections == 1)
        assert (await router.ask(GET)).endswith(b"ok")
        two[1].close()


async def test_those_who_were_turned_away_do_not_take_the_places_of_others() -> None:
    """A refused client that does not leave lingers for two seconds; whoever comes meanwhile has a place."""
    async with plane_within(LimitsSpec(connections=2)) as router:
        one, two = await router.connect(), await router.connect()
        await until(lambda: router.plane.collect().connections == 2)
        lingering = [await router.connect() for _ in range(3)]
        for reader, _ in lingering:
            assert (await read_head(reader)).startswith(b"HTTP/1.1 503 ")
        one[1].close()
        two[1].close()
        await until(lambda: router.plane.collect().connections == 0)
        answer = await router.ask(GET)
        for _, writer in lingering:
            writer.close()
        assert answer.endswith(b"ok"), answer


async def test_one_client_gets_no_more_connections_than_its_share_unless_it_is_trusted() -> None:
    limits = LimitsSpec(connections_per_client=2)
    async with plane_within(limits) as router:
        kept = [await router.connect() for _ in range(2)]
        await until(lambda: router.plane.collect().connections == 2)
        assert refused(await router.ask(GET), 429, "too_many_of_client")
        assert router.plane.collect().router_answers == {"too_many_of_client": 1}
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port, local_addr=("127.0.0.2", 0))
        writer.write(GET)
        assert (await reader.read()).endswith(b"ok")
        writer.close()
        kept[0][1].close()
        await until(lambda: router.plane.collect().connections == 1)
        assert (await router.ask(GET)).endswith(b"ok")
        spec = router.plane.snapshot
        assert spec is not None
        trusted = ListenerSpec(("127.0.0.0/8",), limits=limits)
        port = spec.services[0].spec.versions[0].endpoints[0].port
        router.plane.install(snapshot(shop((port,), (port,)), generation=2, listener=trusted))
        kept += [await router.connect() for _ in range(3)]
        assert (await router.ask(GET)).endswith(b"ok")
        for _, writer in kept:
            writer.close()
        await until(lambda: not router.plane._of_client)


async def test_a_limit_of_all_connections_is_counted_by_all_workers_together() -> None:
    """A sibling's connections count, and nobody is refused because one worker has more of them than another."""
    page = headcount_page(2)
    own, sibling = (Headcount(slot, 2, page) for slot in range(2))
    async with plane_within(LimitsSpec(connections=3), headcount=own) as router:
        sibling.note(2)
        first = await router.connect()
        await until(lambda: own.everywhere == 3)
        assert refused(await router.ask(GET), 503, "too_many_connections")
        sibling.note(0)
        more = [await router.connect() for _ in range(2)]  # more than its half
        await until(lambda: sibling.everywhere == 3)
        assert refused(await router.ask(GET), 503, "too_many_connections")
        for _, writer in (first, *more):
            writer.close()
        await until(lambda: sibling.everywhere == 0)
    os.close(page)


async def test_an_upload_below_the_rate_is_given_up() -> None:
    """Driven directly: the first 20 s of an upload are free, so that its due time is set to now."""
    async with plane_within(LimitsSpec(body_rate=1_000)) as router:
        reader, writer = await router.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 1)
        (downstream,) = router.plane._connections
        before = monotonic()
        downstream.expect_body(LengthBody(100_000), before)
        writer.write(b"x" * 500)  # buys half a second
        assert refused(await reader.read(), 408, "request_timeout")
        assert 0.45 < monotonic() - before < 3
        writer.close()
        assert router.plane.tally.meter(("shop", "everyone", "v1")).codes == {408: 1}


async def test_an_upload_that_keeps_the_rate_is_not_given_up_even_when_it_began_slowly() -> None:
    limits = LimitsSpec(body_rate=1_000)
    async with plane_within(limits) as router:
        reader, writer = await router.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n")
        await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 1)
        (downstream,) = router.plane._connections
        start = monotonic()
        downstream.expect_body(LengthBody(3000), start + 0.3)
        sent = 0
        while sent < 3000:
            writer.write(b"x" * 100)
            sent += 100
            await past(start + sent / 3000)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_short_upload_and_a_rate_of_zero_have_all_the_time_there_is() -> None:
    async with plane_within(LimitsSpec(body_rate=0)) as router:
        reader, writer = await router.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
        await until(lambda: router.plane.tally.meter(("shop", "everyone", "v1")).in_flight == 1)
        for byte in (b"a", b"b", b"c"):
            writer.write(byte)
            await asyncio.sleep(0)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_new_limits_hold_for_open_connections() -> None:
    async with plane_within(LimitsSpec()) as router:
        reader, writer = await router.connect()
        writer.write(KEPT)
        await read_head(reader)
        await reader.readexactly(2)
        spec = router.plane.snapshot
        assert spec is not None
        port = spec.services[0].spec.versions[0].endpoints[0].port
        listener = ListenerSpec(limits=LimitsSpec(uri_bytes=256))
        router.plane.install(snapshot(shop((port,), (port,)), generation=2, listener=listener))
        writer.write(KEPT.replace(b"/ ", b"/" + b"x" * 300 + b" "))
        assert refused(await reader.read(), 414, "uri_too_long")
        writer.close()


async def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    async with plane_within(LimitsSpec(body_bytes=1000)) as router:
        with socket.create_connection(("127.0.0.1", router.port)) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
            await loop.sock_sendall(client, b"x" * 3_000_000)
            data = b""
            async with asyncio.timeout(5):
                while piece := await loop.sock_recv(client, 65536):
                    data += piece
        assert refused(data, 413, "body_too_large")
