"""The data plane on real sockets: what goes in, what comes out, and what happens when a backend fails."""

from __future__ import annotations

import asyncio
import os
import re
from time import monotonic

import pytest

from router.core.audience import IdentitySpec
from router.core.spec import ListenerSpec, TimeoutsSpec
from tests.house import fixed, header, raw_backend, read_head, running_plane, shop, snapshot
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"
GET = b"GET /x?q=1 HTTP/1.1\r\nHost: shop.example.com\r\n%bConnection: close\r\n\r\n"


async def test_a_request_goes_to_the_version_of_its_ring_and_says_so() -> None:
    seen1: list[bytes] = []
    seen2: list[bytes] = []
    async with raw_backend(fixed(OK, seen1)) as v1, raw_backend(fixed(OK, seen2)) as v2:
        async with running_plane(snapshot(shop((v1,), (v2,)))) as router:
            answer = await router.ask(GET % b"X-Ring: canary\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\nok")
            assert header(answer, "x-ring") == ["canary"]
            assert header(answer, "x-ring-version") == ["v2"]
            assert len(seen2) == 1
            assert not seen1
            assert seen2[0].startswith(b"GET /x?q=1 HTTP/1.1\r\n")
            assert header(seen2[0], "x-ring") == ["canary"]
            assert header(seen2[0], "x-ring-version") == ["v2"]
            assert header(seen2[0], "x-forwarded-for") == ["127.0.0.1"]
            assert header(seen2[0], "x-forwarded-proto") == ["http"]
            assert header(seen2[0], "x-forwarded-host") == ["shop.example.com"]
            assert header(seen2[0], "host") == ["shop.example.com"]
            assert not header(seen2[0], "connection")

            forged = await router.ask(GET % b"X-Ring: early\r\nX-Ring-Version: v9\r\n")
            assert header(forged, "x-ring") == ["everyone"]
            assert header(seen1[0], "x-ring") == ["everyone"]
            assert header(seen1[0], "x-ring-version") == ["v1"]


async def test_hop_by_hop_fields_end_here_and_the_rest_keeps_order_case_and_repetition() -> None:
    response = (
        b"HTTP/1.1 200 Fine\r\nSet-Cookie: a=1\r\nX-B: 1\r\nset-cookie: b=2\r\nConnection: X-Secret, close\r\n"
        b"X-Secret: 1\r\nKeep-Alive: timeout=5\r\nX-Ring: forged\r\nContent-Length: 0\r\n\r\n"
    )
    seen: list[bytes] = []
    async with raw_backend(fixed(response, seen)) as port:
        async with running_plane(snapshot(shop((port,), (port,)))) as router:
            answer = await router.ask(
                b"GET / HTTP/1.1\r\nhost: a\r\nX-One: 1\r\nx-two: 2\r\nX-One: 3\r\nTE: trailers\r\nUpgrade: h2c\r\n"
                b"Proxy-Connection: x\r\nConnection: close, X-Two, Host, X-Forwarded-For\r\n\r\n"
            )
            assert answer.startswith(b"HTTP/1.1 200 Fine\r\nSet-Cookie: a=1\r\nX-B: 1\r\nset-cookie: b=2\r\n")
            assert not header(answer, "x-secret")
            assert not header(answer, "keep-alive")
            assert header(answer, "x-ring") == ["everyone"]
            head = seen[0]
            assert head.startswith(b"GET / HTTP/1.1\r\nhost: a\r\nX-One: 1\r\nX-One: 3\r\n")
            for name in ("x-two", "te", "upgrade", "proxy-connection", "connection"):
                assert not header(head, name)
            assert header(head, "x-forwarded-for") == ["127.0.0.1"]


async def test_a_trusted_proxy_is_believed_and_a_stranger_is_not() -> None:
    seen: list[bytes] = []
    forwarded = b"X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: real\r\n"
    async with raw_backend(fixed(OK, seen)) as port:
        service = shop((port,), (port,))
        async with running_plane(snapshot(service)) as router:
            await router.ask(GET % forwarded)
        async with running_plane(snapshot(service, listener=ListenerSpec(("127.0.0.0/8",)))) as router:
            await router.ask(GET % forwarded)
    assert header(seen[0], "x-forwarded-for") == ["127.0.0.1"]
    assert header(seen[0], "x-forwarded-proto") == ["http"]
    assert header(seen[1], "x-forwarded-for") == ["9.9.9.9, 127.0.0.1"]
    assert header(seen[1], "x-forwarded-proto") == ["https"]
    assert header(seen[1], "x-forwarded-host") == ["real"]


@pytest.mark.parametrize(
    ("method", "response", "expected_body"),
    [
        (
            b"GET",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            b"abcde",
        ),
        (b"GET", b"HTTP/1.1 200 OK\r\n\r\nuntil close", b"until close"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x"),
    ],
)
async def test_every_kind_of_body_arrives_whole(method: bytes, response: bytes, expected_body: bytes) -> None:
    closes = b"until close" in response

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            for i in range(len(response)):  # byte by byte: a boundary may fall anywhere
                writer.write(response[i : i + 1])
                await asyncio.sleep(0)
            if closes:
                return

    async with raw_backend(serve) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        for _ in range(2):
            answer = await router.ask(method + b" / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            if b"103" in response:
                assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
                answer = answer.partition(b"\r\n\r\n")[2]
            head, _, body = answer.partition(b"\r\n\r\n")
            if header(answer, "transfer-encoding"):
                body = unchunk(body)
            assert body == expected_body, head


def unchunk(data: bytes) -> bytes:
    out = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        n = int(size, 16)
        if n == 0:
            assert data == b"\r\n"
            return out
        out, data = out + data[:n], data[n + 2 :]


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upload_arrives_whole_however_it_is_cut(chunked: bool) -> None:
    body = os.urandom(50_000)
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            if header(head, "transfer-encoding"):
                raw = await reader.readuntil(b"\r\n0\r\n\r\n")
                got.append(unchunk(raw))
            else:
                got.append(await reader.readexactly(int(header(head, "content-length")[0])))
            writer.write(OK)

    async with raw_backend(serve) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        reader, writer = await router.connect()
        for step in (1, 777, 50_000):
            if chunked:
                writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
                framed = b"".join(
                    b"%x\r\n%b\r\n" % (len(body[i : i + 999]), body[i : i + 999]) for i in range(0, 50_000, 999)
                )
                framed += b"0\r\n\r\n"
            else:
                writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n")
                framed = body
            for i in range(0, len(framed), step):
                writer.write(framed[i : i + step])
                if i % 500 == 0:
                    await writer.drain()
            head = await read_head(reader)
            assert b" 200 " in head
            assert await reader.readexactly(2) == b"ok"
        writer.close()
    assert got == [body] * 3


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            path = head.split(b" ")[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    async with raw_backend(serve) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        paths = [b"/%d" % i for i in range(200)]
        last = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        answer = await router.ask(b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % p for p in paths) + last)
        bodies = [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK\r\n")[1:]]
        assert bodies == [*paths, b"/last"]


async def test_a_backend_that_fails_is_answered_for_with_a_word_and_the_request_id() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def slams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)

    async with raw_backend(silent) as quiet, raw_backend(slams) as rude, raw_backend(fixed(b"junk\r\n\r\n")) as junk:
        service = shop((quiet,), (rude,), timeouts=TimeoutsSpec(0.5, 0.3, 0.3))
        async with running_plane(snapshot(service)) as router:
            late = await router.ask(GET % b"X-Request-Id: id-1\r\n")
            assert late.startswith(b"HTTP/1.1 504 ")
            assert b"upstream_timeout" in late
            assert b"id-1" in late.partition(b"\r\n\r\n")[2]
            reset = await router.ask(GET % b"X-Ring: canary\r\n")
            assert reset.startswith(b"HTTP/1.1 502 ")
            assert b"upstream_reset" in reset
            assert header(reset, "x-ring") == ["canary"]
            assert str(rude).encode() not in reset
        async with running_plane(snapshot(shop((junk,), (junk,)))) as router:
            assert b"upstream_protocol" in await router.ask(GET % b"")
    async with running_plane(snapshot(shop((quiet,), (quiet,)))) as router:  # closed by now
        refused = await router.ask(GET % b"")
        assert b"502 connect_failed" in refused
    async with running_plane(snapshot(shop((quiet,), (quiet,), hosts=("other",)))) as router:
        assert b"404 no_service" in await router.ask(GET % b"")


async def test_a_refused_endpoint_costs_nothing_when_its_version_has_another() -> None:
    async with raw_backend(fixed(OK)) as gone:
        pass
    async with raw_backend(fixed(OK)) as port, running_plane(snapshot(shop((gone, port), (port,)))) as router:
        for _ in range(20):
            assert (await router.ask(GET % b"")).startswith(b"HTTP/1.1 200 ")


async def test_a_kept_connection_that_died_is_replaced_for_get_and_never_for_post() -> None:
    heads: list[bytes] = []

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        writer.write(OK)
        heads.append(await read_head(reader))  # the second request gets a reset instead of an answer
        writer.transport.abort()

    async with raw_backend(once) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        ask = GET.replace(b"Connection: close\r\n", b"") % b""
        reader, writer = await router.connect()
        for _ in range(3):
            writer.write(ask)
            assert b" 200 " in await read_head(reader)
            await reader.readexactly(2)
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        posts_before = sum(h.startswith(b"POST") for h in heads)
        writer.write(post)
        assert b" 502 " in await read_head(reader)
        assert sum(h.startswith(b"POST") for h in heads) == posts_before + 1
        writer.close()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
    ],
)
async def test_what_cannot_be_framed_is_refused_and_the_connection_closed(raw: bytes, status: int) -> None:
    async with raw_backend(fixed(OK)) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        answer = await router.ask(raw)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "framing", [b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"Content-Length: 9\r\n\r\nabc"]
)
async def test_a_truncated_response_is_visibly_truncated(framing: bytes) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing)
        await writer.drain()

    async with raw_backend(half) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        answer = await router.ask(GET % b"")
        assert b"abc" in answer
        assert not answer.endswith(b"0\r\n\r\n")
        assert answer.count(b"HTTP/1.1") == 1
        if b"chunked" in framing:  # to HTTP/1.0 it becomes a body that ends with the connection: only a reset shows it
            with pytest.raises(ConnectionResetError):
                await router.ask(b"GET / HTTP/1.0\r\n\r\n")


async def test_an_anonymous_user_gets_a_key_but_never_through_a_shared_cache() -> None:
    identity = (IdentitySpec("header", "X-User-Id"), IdentitySpec("anonymous_cookie", "ring_uid"))
    public = OK.replace(b"Content-Type", b"Cache-Control: public, max-age=60\r\nContent-Type")
    async with raw_backend(fixed(OK)) as plain, raw_backend(fixed(public)) as cached:
        async with running_plane(snapshot(shop((plain,), (plain,), identity=identity))) as router:
            answer = await router.ask(GET % b"")
            (cookie,) = header(answer, "set-cookie")
            assert cookie.startswith("ring_uid=")
            assert header(answer, "cache-control") == ["private"]
            ring = header(answer, "x-ring")
            back = cookie.partition(";")[0].encode()
            for _ in range(5):
                again = await router.ask(GET % (b"Cookie: x=1; %b\r\n" % back))
                assert header(again, "x-ring") == ring
                assert not header(again, "set-cookie")
            assert not header(await router.ask(GET % b"X-User-Id: alice\r\n"), "set-cookie")
        async with running_plane(snapshot(shop((cached,), (cached,), identity=identity))) as router:
            assert not header(await router.ask(GET % b""), "set-cookie")


async def test_a_client_that_leaves_cancels_the_request_at_the_backend() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        assert await reader.read() == b""
        gone.set()

    async with raw_backend(serve) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        reader, writer = await router.connect()
        writer.write(GET % b"")
        while not router.plane.tally.meter(("shop", "everyone", "v1")).in_flight:
            await asyncio.sleep(0.01)
        writer.transport.abort()
        async with asyncio.timeout(5):
            await gone.wait()
        assert router.plane.tally.meter(("shop", "everyone", "v1")).codes == {499: 1}


async def test_a_slow_head_and_an_idle_connection_end_at_their_limits() -> None:
    listener = ListenerSpec(head_timeout=0.3, idle_timeout=0.3)
    async with raw_backend(fixed(OK)) as port:
        async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
            assert b"408 request_timeout" in await router.ask(b"GET / HTTP/1.1\r\nHos")
            assert await router.ask(b"") == b""
            kept = await router.ask(GET.replace(b"Connection: close\r\n", b"") % b"")
            assert kept.endswith(b"ok")


async def test_a_head_answer_without_a_length_does_not_poison_the_connection_for_the_next_user() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            if head.startswith(b"HEAD"):
                writer.write(b"HTTP/1.1 200 OK\r\nX-Kind: head\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nX-Kind: get\r\n\r\nabc")

    async with raw_backend(serve) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        for _ in range(3):
            assert header(await router.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), "x-kind") == [
                "head"
            ]
            answer = await router.ask(GET % b"")
            assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
            assert answer.endswith(b"\r\n\r\nabc")


async def test_a_refusal_that_keeps_the_connection_keeps_the_next_request_too() -> None:
    async with raw_backend(fixed(OK)) as port, running_plane(snapshot(shop((port,), (port,), hosts=("a",)))) as router:
        reader, writer = await router.connect()
        writer.write(b"GET /1 HTTP/1.1\r\nHost: unknown\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nX-Sma")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 404 ")
        body = await reader.readuntil(b"\n")
        assert b"no_service" in body
        writer.write(b"ll: GET /3 HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        rest = await reader.read()
        assert rest.startswith(b"HTTP/1.1 200 ")
        assert rest.count(b"HTTP/1.1") == 1
        writer.close()


async def test_a_byte_now_and_then_does_not_buy_more_time_for_a_head() -> None:
    listener = ListenerSpec(head_timeout=0.4)
    async with raw_backend(fixed(OK)) as port:
        async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
            reader, writer = await router.connect()
            answer = asyncio.ensure_future(reader.read())  # noqa: TID251 - awaited below
            async with asyncio.timeout(5):
                while not answer.done():
                    writer.write(b"G")
                    await asyncio.wait([answer], timeout=0.1)
            assert b"408 request_timeout" in answer.result()
            writer.close()


async def test_a_client_that_never_reads_does_not_keep_its_connection() -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000
    timeouts = TimeoutsSpec(0.5, 0.5, 0.5)
    listener = ListenerSpec(idle_timeout=0.3, send_timeout=0.3)
    async with raw_backend(fixed(large)) as port:
        service = shop((port,), (port,), timeouts=timeouts)
        async with running_plane(snapshot(service, listener=listener)) as router:
            for head in (GET, GET.replace(b"Connection: close\r\n", b"")):
                _, writer = await router.connect()
                writer.transport.pause_reading()
                writer.write(head % b"")
                await until(lambda: router.plane.collect().connections == 1)
                await until(lambda: router.plane.collect().connections == 0, within=10)
                writer.close()


async def test_an_old_client_without_a_host_reaches_the_backend_with_one() -> None:
    seen: list[bytes] = []
    async with raw_backend(fixed(OK, seen)) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        answer = await router.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nok")
        assert header(seen[0], "host") == [f"127.0.0.1:{port}"]


@pytest.mark.parametrize("line", [b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET / RTSP/1.0", b"GET / ICE/1.0"])
async def test_another_protocol_is_refused(line: bytes) -> None:
    async with raw_backend(fixed(OK)) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        answer = await router.ask(line + b"\r\nHost: a\r\n\r\n")
        assert answer.split(b" ")[1] in (b"400", b"405", b"505"), answer


async def test_white_space_behind_a_value_changes_no_ring() -> None:
    async with raw_backend(fixed(OK)) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        for user in (b"alice", b"bob", b"carol", b"dave", b"erin", b"frank"):
            plain = header(await router.ask(GET % (b"X-User-Id: " + user + b"\r\n")), "x-ring")
            padded = header(await router.ask(GET % (b"X-User-Id: " + user + b" \t\r\n")), "x-ring")
            assert plain == padded


async def test_a_flood_of_empty_lines_is_not_a_request() -> None:
    async with raw_backend(fixed(OK)) as port, running_plane(snapshot(shop((port,), (port,)))) as router:
        assert (await router.ask(b"\r\n" + GET % b"")).startswith(b"HTTP/1.1 200 ")
        assert (await router.ask(b"\r\n" * 50_000)).startswith(b"HTTP/1.1 400 ")


async def test_an_upload_to_a_backend_that_does_not_read_is_held_at_the_client() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await asyncio.Event().wait()

    async with raw_backend(deaf) as port:
        service = shop((port,), (port,), timeouts=TimeoutsSpec(1.0, 30.0, 30.0))
        async with running_plane(snapshot(service)) as router:
            _, writer = await router.connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000000\r\n\r\n")
            sent, is_taken = 0, True
            while is_taken:
                writer.write(b"x" * 65_536)
                sent += 65_536
                drained = asyncio.ensure_future(writer.drain())  # noqa: TID251 - awaited in the next line
                is_taken = bool((await asyncio.wait([drained], timeout=1))[0])
            drained.cancel()
            (downstream,) = router.plane._connections
            assert downstream.exchange is not None
            assert downstream.exchange.upstream is not None
            assert downstream.exchange.upstream.transport.get_write_buffer_size() < 1_000_000
            assert sent < 30_000_000
            writer.transport.abort()


@pytest.mark.parametrize("host", [b"Host: ignored\r\n", b""])
async def test_the_authority_of_an_absolute_target_wins_over_host(host: bytes) -> None:
    seen: list[bytes] = []
    async with raw_backend(fixed(OK, seen)) as port:
        async with running_plane(snapshot(shop((port,), (port,), hosts=("real.example",)))) as router:
            version = b"1.1" if host else b"1.0"
            answer = await router.ask(
                b"GET http://real.example:80?q HTTP/" + version + b"\r\n" + host + b"Connection: close\r\n\r\n"
            )
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert seen[0].startswith(b"GET /?q HTTP/1.1\r\n")
            assert header(seen[0], "host") == ["real.example:80"]


async def test_server_timing_says_what_the_router_and_what_the_backend_took_where_it_is_asked_for() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            await asyncio.sleep(0.05)  # what is measured
            writer.write(OK.replace(b"\r\n\r\n", b"\r\nServer-Timing: db;dur=1\r\n\r\n"))

    async with raw_backend(slow) as port:
        for says, more in ((True, 1), (False, 0)):
            async with running_plane(snapshot(shop((port,), (port,), server_timing=says))) as router:
                before = monotonic()  # the loop's own time has whole milliseconds, of when its turn began
                answer = await router.ask(GET % b"")
                took = 1000 * (monotonic() - before)
                first, *own = header(answer, "server-timing")
                assert first == "db;dur=1", "the backend's own stays, and ours is behind it"
                assert len(own) == more
                for one in own:
                    found = re.fullmatch(r"router;dur=(\d+\.\d{3}), upstream;dur=(\d+\.\d{3})", one)
                    assert found is not None
                    router_ms, upstream_ms = float(found[1]), float(found[2])
                    assert 45 < upstream_ms <= took
                    assert 0 <= router_ms <= took - upstream_ms
