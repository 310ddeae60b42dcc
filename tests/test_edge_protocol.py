"""Expectations, Via, TRACE, early responses and clients that leave: what of HTTP happens besides the answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from router.core.spec import ListenerSpec, SnapshotSpec, TimeoutsSpec
from tests.house import fixed, header, raw_backend, read_head, running_plane, shop, snapshot
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
EXPECTS = b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"


def with_listener(port: int, **listener: Any) -> SnapshotSpec:
    return snapshot(shop((port,), (port,)), listener=ListenerSpec(**listener))


# -- Expect ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [False, True], ids=["forward", "answer"])
async def test_an_expectation_is_answered_before_the_body_is_sent(answers: bool) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_head(reader))
        if header(seen[-1], "expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        seen.append(await reader.readexactly(5))
        writer.write(OK)

    async with raw_backend(serve) as port, running_plane(with_listener(port, answers_expect=answers)) as router:
        reader, writer = await router.connect()
        writer.write(EXPECTS)
        async with asyncio.timeout(5):
            assert await read_head(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        rest = await reader.read()
        assert rest.startswith(b"HTTP/1.1 200 ")
        assert rest.count(b"HTTP/1.1 ") == 1
        writer.close()
        assert header(seen[0], "expect") == ([] if answers else ["100-continue"])
        assert seen[1] == b"hello"
        # The body came along: nobody waits, and an interim answer is only the backend's to give.
        answer = await router.ask(EXPECTS + b"hello")
        assert answer.count(b"100 Continue") == (0 if answers else 1)
        assert answer.endswith(b"ok")


async def test_an_expectation_without_a_body_an_old_one_and_an_unknown_one() -> None:
    seen: list[bytes] = []
    async with raw_backend(fixed(OK, seen)) as port, running_plane(with_listener(port, answers_expect=True)) as router:
        assert (await router.ask(GET.replace(b"Host", b"Expect: 100-continue\r\nHost"))).startswith(b"HTTP/1.1 200 ")
        old = EXPECTS.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Content-Length: 5", b"Content-Length: 0")
        assert (await router.ask(old)).startswith(b"HTTP/1.1 200 ")
        refused = await router.ask(EXPECTS.replace(b"100-continue", b"200-maybe"))
        assert refused.startswith(b"HTTP/1.1 417 ")
        assert b"417 expectation_failed" in refused
    assert [header(head, "expect") for head in seen] == [[], []]


async def test_a_backend_that_declines_an_expectation_gets_no_body() -> None:
    async with raw_backend(fixed(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")) as port:
        async with running_plane(with_listener(port)) as router:
            answer = await router.ask(EXPECTS.replace(b"Connection: close\r\n", b""))
            assert answer.startswith(b"HTTP/1.1 417 Expectation Failed\r\n")
            assert header(answer, "connection") == ["close"]


# -- Via, TRACE, Max-Forwards ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("via", "to_backend", "to_client"),
    [("request", ["1.1 ring-router"], []), ("both", ["1.1 ring-router"], ["1.1 ring-router"]), ("off", [], [])],
)
async def test_via_is_said_as_configured(via: str, to_backend: list[str], to_client: list[str]) -> None:
    seen: list[bytes] = []
    async with raw_backend(fixed(OK, seen)) as port, running_plane(with_listener(port, via=via)) as router:
        answer = await router.ask(GET)
        old = await router.ask(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        chain = await router.ask(GET.replace(b"Host", b"Via: 1.0 fred\r\nHost"))
    assert header(seen[0], "via") == to_backend
    assert header(seen[1], "via") == [value.replace("1.1", "1.0") for value in to_backend]
    assert header(seen[2], "via") == ["1.0 fred", *to_backend]
    assert [header(one, "via") for one in (answer, old, chain)] == [to_client] * 3
    assert [header(one, "x-ring") for one in (answer, old)] == [["everyone"]] * 2


TRACE = (
    b"TRACE /x?y HTTP/1.1\r\nHost: a\r\nCookie: secret=1\r\nAuthorization: Basic eA==\r\nProxy-Authorization: z\r\n"
    b"X-Kept: 1\r\nMax-Forwards: %d\r\nConnection: close\r\n\r\n"
)


async def test_a_trace_at_its_last_hop_shows_what_came_without_its_secrets() -> None:
    seen: list[bytes] = []
    async with raw_backend(fixed(OK, seen)) as port:
        async with running_plane(with_listener(port, serves_trace=True)) as router:
            answer = await router.ask(TRACE % 0)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert header(answer, "content-type") == ["message/http"]
            reflected = answer.partition(b"\r\n\r\n")[2]
            assert len(reflected) == int(header(answer, "content-length")[0])
            assert reflected.startswith(b"TRACE /x?y HTTP/1.1\r\nHost: a\r\n")
            assert reflected.endswith(b"\r\n\r\n")
            assert header(reflected, "x-kept") == ["1"]
            for name in ("cookie", "authorization", "proxy-authorization"):
                assert not header(reflected, name)
            assert seen == []
            assert router.plane.collect().router_answers == {"last_hop": 1}
            assert (await router.ask(TRACE % 3)).endswith(b"ok")
            assert header(seen[0], "max-forwards") == ["2"]
        async with running_plane(with_listener(port)) as router:
            assert (await router.ask(TRACE % 0)).startswith(b"HTTP/1.1 405 ")
        assert len(seen) == 1


async def test_a_trace_shows_the_count_that_it_came_with() -> None:
    """RFC 9110 §9.3.8: the final recipient reflects the message received."""
    async with raw_backend(fixed(OK)) as port, running_plane(with_listener(port, serves_trace=True)) as router:
        reflected = (await router.ask(TRACE % 0)).partition(b"\r\n\r\n")[2]
        assert header(reflected, "max-forwards") == ["0"]


async def test_hops_are_counted_for_options_and_trace_alone() -> None:
    seen: list[bytes] = []
    async with raw_backend(fixed(OK, seen)) as port, running_plane(with_listener(port)) as router:
        options = b"OPTIONS %b HTTP/1.1\r\nHost: a\r\nMax-Forwards: %b\r\nConnection: close\r\n\r\n"
        for target in (b"/", b"*"):
            last = await router.ask(options % (target, b"0"))
            assert last.startswith(b"HTTP/1.1 200 ")
            assert "GET" in header(last, "allow")[0]
            assert last.endswith(b"\r\n\r\n")
        assert seen == []
        assert (await router.ask(options % (b"*", b"10"))).endswith(b"ok")
        assert header(seen[0], "max-forwards") == ["9"]
        for wrong in (b"-1", b"x", b"1.0", b"", b"9999999999"):
            assert (await router.ask(options % (b"/", wrong))).startswith(b"HTTP/1.1 400 "), wrong
        assert (await router.ask(GET.replace(b"Host", b"Max-Forwards: 0\r\nHost"))).endswith(b"ok")
        assert header(seen[-1], "max-forwards") == ["0"]
        kept = await router.ask(options.replace(b"Connection: close\r\n", b"") % (b"/", b"0") + GET)
        assert kept.count(b"HTTP/1.1 200 ") == 2


# -- early responses, and clients that leave ---------------------------------------------------------------------------


@pytest.mark.parametrize("closes", [False, True], ids=["reads on", "closes"])
@pytest.mark.parametrize("framing", [b"Content-Length: 4000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
async def test_an_early_refusal_reaches_the_client_and_ends_its_connection(closes: bool, framing: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await reader.readexactly(10)
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        if not closes:
            await reader.read()

    piece = b"x" * 50_000
    framed = piece if b"Length" in framing else b"%x\r\n%b\r\n" % (len(piece), piece)
    async with raw_backend(serve) as port, running_plane(with_listener(port)) as router:
        for _ in range(5):
            reader, writer = await router.connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
            for _ in range(80):
                if writer.transport.is_closing():
                    break
                writer.write(framed)
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 413 Content Too Large\r\n"), answer
            assert answer.endswith(b"\r\n\r\nbig")
            assert header(answer, "connection") == ["close"]
            writer.close()
        await until(lambda: router.plane.collect().connections == 0)
        assert router.plane.tally.meter(("shop", "everyone", "v1")).codes == {413: 5}
        (reserve,) = router.plane.pools.reserves.values()
        assert not reserve.idle


async def test_an_early_response_that_goes_on_is_passed_on_while_the_upload_does() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            writer.write(await reader.readexactly(1))

    async with raw_backend(echo) as port, running_plane(with_listener(port)) as router:
        reader, writer = await router.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        assert header(await read_head(reader), "connection") == ["close"]
        for i in range(10):
            writer.write(b"%d" % i)
            assert await reader.readexactly(1) == b"%d" % i
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("when", ["upload", "waiting", "download"])
@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_a_client_that_leaves_takes_its_request_along(when: str, how: str) -> None:
    began, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        try:
            if when == "upload":
                await reader.readexactly(5)
            if when == "download":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            began.set()
            await reader.read()
        finally:
            gone.set()

    timeouts = TimeoutsSpec(5.0, 30.0, 30.0)
    async with raw_backend(serve) as port:
        async with running_plane(snapshot(shop((port,), (port,), timeouts=timeouts))) as router:
            reader, writer = await router.connect()
            length = b"Content-Length: 100\r\n" if when == "upload" else b""
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n" + length + b"\r\n" + (b"hello" if length else b""))
            await began.wait()
            if when == "download":
                await reader.readuntil(b"half")
            if how == "closes":
                writer.close()
            else:
                writer.transport.abort()
            async with asyncio.timeout(3):
                await gone.wait()
            meter = router.plane.tally.meter(("shop", "everyone", "v1"))
            await until(lambda: meter.in_flight == 0)
            assert meter.codes == {200 if when == "download" else 499: 1}
            assert meter.client_aborts == 1
            assert sum(endpoint.active for endpoint in router.plane.pools.endpoints.values()) == 0
