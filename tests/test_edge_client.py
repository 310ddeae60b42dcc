"""Who the client is, and who is sent to https instead: what strangers and trusted proxies may say of others."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from router.core.records import AccessLogSpec
from router.core.spec import ListenerSpec, SocketSpec
from router.proxy.client import client_behind
from router.telemetry.access_log import AccessLog
from router.telemetry.log_sink import Sink
from tests.house import RunningPlane, fixed, header, raw_backend, read_head, running_plane, shop, snapshot
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SAID = (
    b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n"
    b"X-Forwarded-Prefix: /x\r\nForwarded: for=6.6.6.6;proto=https\r\nX-Real-IP: 6.6.6.6\r\n"
)


def get(lines: bytes, host: bytes = b"a") -> bytes:
    return b"GET / HTTP/1.1\r\nHost: %b\r\n%bConnection: close\r\n\r\n" % (host, lines)


@asynccontextmanager
async def plane_with(
    seen: list[bytes], log: Path | None = None, trusted: tuple[str, ...] = (), door: SocketSpec | None = None
) -> AsyncIterator[RunningPlane]:
    listener = ListenerSpec(trusted, sockets=(door or SocketSpec(""),))
    async with raw_backend(fixed(OK, seen)) as port:
        async with running_plane(snapshot(shop((port,), (port,)), listener=listener)) as router:
            descriptor = os.open(log, os.O_CREAT | os.O_WRONLY) if log is not None else -1
            if log is not None:
                router.plane.access_log = AccessLog(AccessLogSpec(), Sink(descriptor))
            yield router
            if router.plane.access_log is not None:
                router.plane.access_log.stop()
                os.close(descriptor)


def logged_clients(log: Path) -> list[str]:
    return [line.partition('"client":"')[2].partition('"')[0] for line in log.read_text().splitlines()]


async def test_what_a_stranger_says_of_itself_is_not_repeated(tmp_path: Path) -> None:
    seen: list[bytes] = []
    log = tmp_path / "access.log"
    async with plane_with(seen, log) as router:
        assert (await router.ask(get(SAID))).endswith(b"ok")
        assert (await router.ask(get(SAID.replace(b"-", b"_").replace(b"X_Real_IP", b"X_Real_Ip")))).endswith(b"ok")
    for head in seen:
        assert header(head, "x-forwarded-for") == ["127.0.0.1"]
        assert header(head, "x-forwarded-proto") == ["http"]
        assert header(head, "x-forwarded-host") == ["a"]
        assert header(head, "forwarded") == ["for=127.0.0.1;proto=http"]
        assert b"6.6.6.6" not in head
        assert b"evil" not in head
        for name in ("x-forwarded-port", "x-forwarded-prefix", "x-real-ip", "x_real_ip", "x_forwarded_port"):
            assert not header(head, name), head
    assert logged_clients(log) == ["127.0.0.1", "127.0.0.1"]


async def test_what_a_trusted_proxy_says_is_kept_and_appended_to(tmp_path: Path) -> None:
    seen: list[bytes] = []
    log = tmp_path / "access.log"
    async with plane_with(seen, log, trusted=("127.0.0.0/8",)) as router:
        assert (await router.ask(get(SAID))).endswith(b"ok")
        assert (await router.ask(get(b""))).endswith(b"ok")
        twice = b"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nForwarded: for=a\r\nForwarded: for=b\r\n"
        assert (await router.ask(get(twice + b"X-Forwarded-Proto: http, https\r\n"))).endswith(b"ok")
    head = seen[0]
    assert header(head, "x-forwarded-for") == ["6.6.6.6, 127.0.0.1"]
    assert header(head, "x-forwarded-proto") == ["https"]
    assert header(head, "x-forwarded-host") == ["evil"]
    assert header(head, "forwarded") == ["for=6.6.6.6;proto=https, for=127.0.0.1;proto=http"]
    assert [header(head, name) for name in ("x-forwarded-port", "x-forwarded-prefix", "x-real-ip")] == [
        ["1"], ["/x"], ["6.6.6.6"],
    ]  # fmt: skip
    assert header(seen[1], "x-forwarded-for") == ["127.0.0.1"]
    assert header(seen[1], "forwarded") == ["for=127.0.0.1;proto=http"]
    assert header(seen[2], "x-forwarded-for") == ["1.1.1.1, 2.2.2.2, 127.0.0.1"]
    assert header(seen[2], "x-forwarded-proto") == ["https"]
    assert header(seen[2], "forwarded") == ["for=a, for=b, for=127.0.0.1;proto=http"]
    assert logged_clients(log) == ["6.6.6.6", "127.0.0.1", "2.2.2.2"]


def trusts(address: bytes) -> bool:
    return address.startswith((b"10.", b"fd00:"))


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (b"1.1.1.1", b"1.1.1.1"),
        (b"1.1.1.1, 2.2.2.2", b"2.2.2.2"),
        (b"1.1.1.1, 2.2.2.2, 10.0.0.2, 10.0.0.3", b"2.2.2.2"),
        (b"10.0.0.2", b"10.0.0.2"),
        (b"10.0.0.4,\t10.0.0.2", b"10.0.0.4"),
        (b"", b"10.0.0.1"),
        (b"unknown", b"10.0.0.1"),
        (b"1.1.1.1, unknown", b"10.0.0.1"),
        (b"1.1.1.1, unknown, 10.0.0.2", b"10.0.0.2"),
        (b"1.1.1.1, , 10.0.0.2", b"10.0.0.2"),
        (b"1.1.1.1:80, 10.0.0.2:1234", b"1.1.1.1"),
        (b"[2001:DB8::1]:80, fd00::1", b"2001:db8::1"),
        (b"2001:db8:0::1", b"2001:db8::1"),
        (b"[fd00::1]", b"fd00::1"),
        (b"1.1.1.1, [fd00::1", b"10.0.0.1"),
        (b'"1.1.1.1"', b"10.0.0.1"),
        (b"1.1.1.1;evil", b"10.0.0.1"),
        (b"999.1.1.1", b"10.0.0.1"),
        (b"01.1.1.1", b"10.0.0.1"),
        (b'1.1.1.1\\"', b"10.0.0.1"),
        (b"\xff", b"10.0.0.1"),
        (b"::ffff:1.1.1.1", b"1.1.1.1"),
        (b"1.1.1.1, ::ffff:10.0.0.2", b"1.1.1.1"),  # the same proxy, written the other way
    ],
)
def test_the_client_is_the_rightmost_who_is_no_trusted_proxy(chain: bytes, client: bytes) -> None:
    assert client_behind(chain, b"10.0.0.1", trusts) == client


async def test_trust_that_is_taken_away_is_gone_from_open_connections_too() -> None:
    seen: list[bytes] = []
    async with plane_with(seen, trusted=("127.0.0.1/32",)) as router:
        reader, writer = await router.connect()
        for generation, trusted in ((2, ("127.0.0.1/32",)), (3, ("10.0.0.0/8",)), (4, ("127.0.0.1/32",))):
            spec = router.plane.snapshot
            assert spec is not None
            port = spec.services[0].spec.versions[0].endpoints[0].port
            router.plane.install(
                snapshot(shop((port,), (port,)), generation=generation, listener=ListenerSpec(trusted))
            )
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
            await read_head(reader)
            await reader.readexactly(2)
        writer.close()
    chains = [header(head, "x-forwarded-for") for head in seen]
    assert chains == [["1.2.3.4, 127.0.0.1"], ["127.0.0.1"], ["1.2.3.4, 127.0.0.1"]]


async def test_a_client_of_http_10_without_a_host_is_forwarded_without_an_empty_one() -> None:
    seen: list[bytes] = []
    async with plane_with(seen) as router:
        assert (await router.ask(b"GET / HTTP/1.0\r\n\r\n")).endswith(b"ok")
    assert header(seen[0], "x-forwarded-host") in ([], header(seen[0], "host"))


# -- to https ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "target", "host", "location"),
    [
        (443, b"/", b"shop.example.com", "https://shop.example.com/"),
        (8443, b"/a/b?c=d&e=%20", b"shop.example.com:80", "https://shop.example.com:8443/a/b?c=d&e=%20"),
        (443, b"/", b"[2001:DB8::1]", "https://[2001:db8::1]/"),
        (8443, b"/?", b"[::1]:8080", "https://[::1]:8443/?"),
        (443, b"/%2e%2e//x", b"a", "https://a/%2e%2e//x"),
        (443, b"//evil.example/x", b"a", "https://a//evil.example/x"),
        (443, b"http://other.example:81/x?y", b"a", "https://other.example/x?y"),
        (443, b"http://other.example", b"a", "https://other.example/"),
    ],
)
async def test_all_clients_of_a_redirecting_listener_are_sent_to_https(
    port: int, target: bytes, host: bytes, location: str
) -> None:
    seen: list[bytes] = []
    async with plane_with(seen, door=SocketSpec("", redirect_port=port)) as router:
        reader, writer = await router.connect()
        for method in (b"GET", b"HEAD", b"DELETE"):
            writer.write(b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method, target, host))
            head = await read_head(reader)
            assert head.startswith(b"HTTP/1.1 308 ")
            assert header(head, "location") == [location]
            assert header(head, "content-length") == ["0"]
            assert not header(head, "connection")
        writer.close()
        assert router.plane.collect().router_answers == {"redirect": 3}
    assert seen == []


async def test_a_redirect_of_what_has_no_service_a_body_or_no_host(tmp_path: Path) -> None:
    seen: list[bytes] = []
    async with plane_with(seen, door=SocketSpec("", redirect_port=443)) as router:
        for body in (b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"):
            answer = await router.ask(b"POST / HTTP/1.1\r\nHost: a\r\n" + body + get(b""))
            assert answer.startswith(b"HTTP/1.1 308 ")
            assert header(answer, "connection") == ["close"]
            assert answer.count(b"HTTP/1.1 ") == 1
        waits = b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        answer = await router.ask(waits)
        assert answer.startswith(b"HTTP/1.1 308 ")
        assert b"100 Continue" not in answer
        assert (await router.ask(b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        old = await router.ask(b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n")
        assert header(old, "location") == ["https://a/x"]
        options = await router.ask(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert options.startswith(b"HTTP/1.1 308 ")
        piped = await router.ask(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" * 3 + get(b""))
        assert piped.count(b"HTTP/1.1 308 ") == 4
        router.plane.install(
            snapshot(
                shop((1,), (1,), hosts=("other",)),
                generation=2,
                listener=ListenerSpec(sockets=(SocketSpec("", redirect_port=444),)),
            )
        )
        answer = await router.ask(get(b"", host=b"nobody"))
        assert header(answer, "location") == ["https://nobody:444/"]
        await until(lambda: router.plane.collect().connections == 0)
    assert seen == []
