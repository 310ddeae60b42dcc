"""Active checks against real backends on real sockets; only the pauses between them are the tests' own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from router.config.endpoints import Down
from router.control.check import check
from router.control.prober import AT_A_TIME, Prober, Target
from router.core.health import HealthState
from router.core.spec import ClientTlsSpec, EndpointSpec, HealthCheckSpec
from router.proxy.tls import client_context
from tests.certificates import Authority
from tests.house import Serve, fixed, header, raw_backend, read_head
from tests.running import free_ports
from tests.waiting import until

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 503 Whatever\r\nContent-Length: 0\r\n\r\n"
SPEC = HealthCheckSpec(path="/healthz?full=1")


@dataclass
class Pauses:
    """Stands for sleep: notes how long, and goes on when it is told to."""

    asked: list[float] = field(default_factory=list)
    waiting: list[asyncio.Event] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        event = asyncio.Event()
        self.waiting.append(event)
        await event.wait()

    def go_on(self) -> None:
        for event in self.waiting:
            event.set()
        self.waiting.clear()


@dataclass
class Heard:
    """A log that keeps its sentences."""

    lines: list[str] = field(default_factory=list)

    def info(self, line: str, **_: object) -> None:
        self.lines.append(line)

    warning = error = info


@dataclass
class House:
    """A prober whose pauses end when ``round`` is called; ``down`` is noted at each change."""

    prober: Prober
    pauses: Pauses
    log: Heard
    seen: list[Down]

    async def round(self, count: int = 1) -> None:
        """That many further checks of everything there is."""
        for _ in range(count):
            await until(lambda: len(self.pauses.waiting) == len(list(self.prober)))
            self.pauses.go_on()
        await until(lambda: len(self.pauses.waiting) == len(list(self.prober)))


@asynccontextmanager
async def proving(chance: Callable[[], float] = lambda: 0.5, at_a_time: int = AT_A_TIME) -> AsyncIterator[House]:
    pauses, log, seen = Pauses(), Heard(), []
    prober = Prober(
        lambda: seen.append(prober.all_down()),
        client_context,
        chance=chance,
        sleep=pauses.sleep,
        clock=lambda: 1000.0 + len(pauses.asked),
        at_a_time=at_a_time,
        log=log,
    )
    try:
        yield House(prober, pauses, log, seen)
    finally:
        await prober.stop()


def target(endpoint: EndpointSpec, spec: HealthCheckSpec = SPEC, version: str = "v2") -> Target:
    return Target("shop", version, endpoint, spec)


@dataclass
class Backend:
    """Answers what ``says`` holds, and notes the heads it saw."""

    says: bytes = GOOD
    heads: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.heads.append(await read_head(reader))
            writer.write(self.says)


async def test_it_goes_down_after_three_failures_and_comes_back_after_two_passes_and_says_each_once() -> None:
    backend = Backend()
    async with raw_backend(backend.serve) as port, proving() as house:
        house.prober.update([target(EndpointSpec("127.0.0.1", port))])
        await house.round()
        assert (house.seen, house.log.lines) == ([], [])
        backend.says = BAD
        await house.round(2)
        assert house.prober.down("shop", "v2") == ()
        await house.round()
        assert house.prober.down("shop", "v2") == (f"127.0.0.1:{port}",)
        await house.round(3)
        backend.says = GOOD
        await house.round()
        assert house.prober.down("shop", "v2") == (f"127.0.0.1:{port}",)
        await house.round(3)
        assert house.prober.down("shop", "v2") == ()
        assert house.seen == [{("shop", "v2"): (f"127.0.0.1:{port}",)}, {}]
        assert house.log.lines == [
            f"shop v2 127.0.0.1:{port} is down: 3 checks in a row failed, the last with: 503 Service Unavailable",
            f"shop v2 127.0.0.1:{port} is up again: 2 checks in a row passed",
        ]
        (known,) = house.prober
        assert known.health.state is HealthState.UP
        assert (known.checks, known.failures, known.last_error) == (12, 6, "503 Service Unavailable")
        assert known.since > 1000.0


async def test_each_check_is_a_connection_of_its_own_and_says_who_asks() -> None:
    backend, connections = Backend(), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await backend.serve(reader, writer)

    async with raw_backend(serve) as port, proving() as house:
        house.prober.update([target(EndpointSpec("127.0.0.1", port, name="shop.internal"))])
        await house.round(2)
        assert len(connections) == len(backend.heads) == 3
        assert backend.heads[0].startswith(b"GET /healthz?full=1 HTTP/1.1\r\n")
        assert header(backend.heads[0], "User-Agent") == ["ring-router-health"]
        assert header(backend.heads[0], "Host") == [f"shop.internal:{port}"]
        house.prober.update([target(EndpointSpec("127.0.0.1", port), replace(SPEC, host="shop.example.com"))])
        await until(lambda: len(backend.heads) > 3)
        assert header(backend.heads[-1], "Host") == ["shop.example.com"]


async def test_the_next_check_comes_sooner_while_a_change_may_be_on_its_way() -> None:
    backend = Backend()
    async with raw_backend(backend.serve) as port, proving(chance=lambda: 0.75) as house:
        house.prober.update([target(EndpointSpec("127.0.0.1", port))])
        await house.round()
        assert house.pauses.asked == pytest.approx([5 * 0.75, 5 * 1.05])  # a random phase, then ±10 percent
        backend.says = BAD
        await house.round(4)
        backend.says = GOOD
        await house.round(2)
        # up: failing, failing, down, down: recovering, up
        assert house.pauses.asked[2:] == pytest.approx([1.05, 1.05, 5.25, 5.25, 1.05, 5.25])


@pytest.mark.parametrize(("interval", "sooner"), [(0.5, 0.2), (0.1, 0.1)])
async def test_sooner_is_never_sooner_than_200_ms_nor_later_than_the_interval(interval: float, sooner: float) -> None:
    async with proving() as house:
        house.prober.update([target(EndpointSpec("127.0.0.1", free_ports(1)[0]), replace(SPEC, interval=interval))])
        await house.round()
        assert house.pauses.asked == pytest.approx([sooner, sooner])


async def test_an_update_keeps_what_is_known_and_forgets_who_is_gone() -> None:
    one, other = (EndpointSpec("127.0.0.1", port) for port in free_ports(2))
    async with proving() as house:
        house.prober.update([target(one), target(other)])
        await house.round(2)
        assert house.prober.all_down() == {("shop", "v2"): tuple(sorted((one.address, other.address)))}
        house.prober.update([target(one, replace(SPEC, passes=5)), target(other, version="v3")])
        assert house.prober.all_down() == {("shop", "v2"): (one.address,)}
        assert {(known.target.version, known.health.state) for known in house.prober} == {
            ("v2", HealthState.DOWN), ("v3", HealthState.UNKNOWN),
        }  # fmt: skip
        house.prober.update([])
        assert (house.prober.all_down(), list(house.prober)) == ({}, [])


async def test_who_takes_over_begins_with_what_was_known_and_still_wants_passes() -> None:
    backend = Backend()
    async with raw_backend(backend.serve) as port, proving() as house:
        endpoint = EndpointSpec("127.0.0.1", port)
        left_behind = {("shop", "v2"): (endpoint.address, "127.0.0.1:1"), ("shop", "v9"): ("127.0.0.1:2",)}
        house.prober.update([target(endpoint), target(endpoint, version="v1")], left_behind)
        assert house.prober.all_down() == {("shop", "v2"): (endpoint.address,)}
        await house.round()
        assert house.prober.all_down() == {}
        assert house.log.lines == [f"shop v2 {endpoint.address} is up again: 2 checks in a row passed"]


async def test_no_more_checks_than_allowed_are_on_their_way() -> None:
    present, most = 0, 0
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal present, most
        present += 1
        most = max(most, present)
        await read_head(reader)
        await release.wait()
        present -= 1
        writer.write(GOOD)

    async with raw_backend(serve) as port, proving(at_a_time=3) as house:
        slow = replace(SPEC, timeout=30.0)
        house.prober.update([target(EndpointSpec("127.0.0.1", port), slow, f"v{i}") for i in range(10)])
        await until(lambda: present == 3)
        release.set()
        await until(lambda: len(house.pauses.waiting) == 10)
        assert most == 3


# -- one check ---------------------------------------------------------------------------------------------------------


async def result(serve: Serve, spec: HealthCheckSpec) -> str:
    async with raw_backend(serve) as port:
        return await check(EndpointSpec("127.0.0.1", port), spec, None)


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def slow_drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte now and then, for ever: no single wait is long."""
    await read_head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.01)


async def closes(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await read_head(reader)


def says(body: bytes, status: str = "200 OK") -> Serve:
    return fixed(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


@pytest.mark.parametrize(
    ("serve", "changes", "expected"),
    [
        (says(b""), {}, ""),
        (says(b"", "204 No Content"), {}, ""),
        (says(b"", "301 Moved Permanently\r\nLocation: /elsewhere"), {}, "301 Moved Permanently"),
        (says(b"", "301 Moved Permanently\r\nLocation: /elsewhere"), {"statuses": ((200, 299), (301, 301))}, ""),
        (says(b"", "500 \x1b[31mred"), {}, "500 Internal Server Error"),
        (says(b"", "599 Own"), {}, "599"),
        (says(b"status: ready"), {"body": "ready"}, ""),
        (says(b"status: broken"), {"body": "ready"}, "200 OK, but the answer does not contain 'ready'"),
        (says(b"x" * (64 * 1024 - 5) + b"ready"), {"body": "ready"}, ""),
        (
            says(b"x" * (64 * 1024 - 4) + b"ready"),
            {"body": "ready"},
            "200 OK, but the answer does not contain 'ready'",
        ),
        (silent, {"timeout": 0.2}, "no answer within 0.2 s"),
        (slow_drip, {"timeout": 0.2, "body": "ready"}, "no answer within 0.2 s"),
        (closes, {}, "the connection was closed before the answer"),
        (fixed(b"220 mail.example.com ESMTP\r\n\r\n"), {}, "the answer is not HTTP"),
        (silent, {"kind": "tcp"}, ""),
    ],
)  # fmt: skip
async def test_a_check_says_in_words_what_is_wrong(serve: Serve, changes: dict[str, object], expected: str) -> None:
    assert await result(serve, replace(SPEC, **changes)) == expected  # type: ignore[arg-type]


async def test_an_endpoint_that_is_not_there_is_said_for_both_kinds(tmp_path: Path) -> None:
    nobody = EndpointSpec("127.0.0.1", free_ports(1)[0])
    no_socket = EndpointSpec("", 0, str(tmp_path / "none.sock"))
    for kind in ("http", "tcp"):
        spec = replace(SPEC, kind=kind)  # type: ignore[arg-type]
        assert await check(nobody, spec, None) == "connection refused"
        assert await check(no_socket, spec, None) == "no such file or directory"
        unknown = EndpointSpec("nobody.invalid", 80)
        assert "not known" in await check(unknown, replace(spec, timeout=20.0), None)


async def test_a_unix_socket_is_checked_too(tmp_path: Path) -> None:
    backend = Backend()
    server = await asyncio.start_unix_server(backend.serve, tmp_path / "app.sock")
    endpoint = EndpointSpec("", 0, str(tmp_path / "app.sock"))
    assert await check(endpoint, SPEC, None) == ""
    assert header(backend.heads[0], "Host") == ["localhost"]
    assert await check(endpoint, replace(SPEC, kind="tcp"), None) == ""
    server.close()


@asynccontextmanager
async def tls_backend(context: ssl.SSLContext) -> AsyncIterator[int]:
    backend = Backend()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await backend.serve(reader, writer)
        except (OSError, EOFError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_tls_endpoints_have_to_show_a_certificate_for_their_name(tmp_path: Path, kind: str) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    spec = replace(SPEC, kind=kind, timeout=10.0)  # type: ignore[arg-type]
    async with tls_backend(authority.server(authority.sign("shop.internal"))) as port:

        async def checked(ca: Path, tls_name: str = "", name: str = "") -> str:
            tls = ClientTlsSpec(ca=str(ca), name=tls_name)
            return await check(EndpointSpec("127.0.0.1", port, tls=tls, name=name), spec, client_context(tls))

        assert await checked(authority.ca, name="shop.internal") == ""
        assert await checked(authority.ca, tls_name="shop.internal", name="other.internal") == ""
        assert "certificate is not accepted" in await checked(authority.ca)
        assert "certificate is not accepted" in await checked(authority.ca, name="other.internal")
        assert "certificate is not accepted" in await checked(stranger.ca, name="shop.internal")
    async with raw_backend(fixed(GOOD)) as port:
        tls = ClientTlsSpec(ca=str(authority.ca), name="shop.internal")
        plain = EndpointSpec("127.0.0.1", port, tls=tls)
        assert await check(plain, replace(spec, timeout=0.5), client_context(tls)) != ""


async def test_an_authority_that_cannot_be_read_is_a_failure_with_words(tmp_path: Path) -> None:
    async with raw_backend(fixed(GOOD)) as port, proving() as house:
        tls = ClientTlsSpec(ca=str(tmp_path / "gone.pem"))
        house.prober.update([target(EndpointSpec("127.0.0.1", port, tls=tls), replace(SPEC, failures=1))])
        await until(lambda: house.seen)
        assert house.log.lines == [
            f"shop v2 127.0.0.1:{port} is down: a check failed with: "
            f"its authorities or our certificate cannot be used: no such file or directory"
        ]
