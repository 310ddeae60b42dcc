"""The flags of the access log: who ended a request and at which phase, each one made to happen on real sockets."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from router.core.records import JSON_LOG
from router.core.spec import LimitsSpec, ListenerSpec, OverloadSpec, RingSpec, TimeoutsSpec, VersionSpec
from router.proxy.ends import CAUSES, PHASES
from router.proxy.failures import Failure
from router.telemetry.access_log import AccessLog
from router.telemetry.log_sink import Sink
from tests.house import RunningPlane, Serve, endpoint, raw_backend, read_head, running_plane, shop, snapshot
from tests.test_edge_tunnel import echo, shaken, tunnel_to
from tests.waiting import until

ALL = (Path(__file__).parent.parent / "docs" / "access-log.md").read_text("utf-8")
GET = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
SHORT = TimeoutsSpec(connect=0.3, first_byte=0.3, between_bytes=0.3)
LONG = TimeoutsSpec(connect=9.0, first_byte=9.0, between_bytes=9.0)

Line = dict[str, Any]


def rows(heading: str) -> dict[str, str]:
    """Of the table under a heading: letter → what it means."""
    table = ALL.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w)` \| (.+) \|$", table, re.MULTILINE))


def test_the_tables_are_those_of_the_code() -> None:
    assert rows("Who ended it") == CAUSES
    assert rows("What was going on") == PHASES
    assert {failure.value.cause for failure in Failure} <= set(CAUSES)


class House:
    """A router whose log can be read line by line."""

    def __init__(self, router: RunningPlane, path: Path) -> None:
        self.router = router
        self._path = path

    async def line(self) -> Line:
        """The one line there is; it goes when it was read."""
        log = self.router.plane.access_log
        assert log is not None
        lines: list[Line] = []

        def is_there() -> bool:
            log.flush()
            lines[:] = (
                [json.loads(line) for line in self._path.read_bytes().splitlines()] if self._path.exists() else []
            )
            return bool(lines)

        await until(is_there)
        assert len(lines) == 1, lines
        self._path.write_bytes(b"")
        return lines[0]

    async def flags_of(self, raw: bytes, gone: Callable[[], bool] | None = None) -> str:
        """Of a request whose client stays until the router closes, or leaves as soon as ``gone`` is true."""
        reader, writer = await self.router.connect()
        writer.write(raw)
        if gone is None:
            await reader.read()
        else:
            await until(gone)
            writer.transport.abort()
        line = await self.line()
        writer.close()
        return str(line["flags"])


@asynccontextmanager
async def house(
    tmp_path: Path, serve: Serve | None, timeouts: TimeoutsSpec = LONG, listener: ListenerSpec | None = None,
    **service: Any,
) -> AsyncIterator[House]:  # fmt: skip
    path = tmp_path / "access.log"

    @asynccontextmanager
    async def around(port: int) -> AsyncIterator[House]:
        one = shop((port,), (port,), timeouts=timeouts, **service)
        async with running_plane(snapshot(one, listener=listener)) as router:
            router.plane.access_log = AccessLog(JSON_LOG, Sink(path=str(path)))
            yield House(router, path)
            router.plane.access_log.stop()

    if serve is None:
        async with around(1) as found:  # nobody listens there
            yield found
        return
    async with raw_backend(serve) as port, around(port) as found:
        yield found


class Backend:
    """Does what the path asks for; ``seen`` are the heads that have arrived."""

    def __init__(self) -> None:
        self.seen = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        self.seen += 1
        if b"/half" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        if b"/reset" in head:
            writer.transport.abort()
        elif b"/garbage" in head:
            writer.write(b"what?\r\n\r\n")
        elif b"/ok" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()


async def test_a_request_that_ends_as_it_should_has_none(tmp_path: Path) -> None:
    async with house(tmp_path, Backend()) as it:
        assert await it.flags_of(GET % b"/ok") == "-"


async def test_a_client_that_leaves(tmp_path: Path) -> None:
    backend = Backend()
    async with house(tmp_path, backend) as it:
        assert await it.flags_of(GET % b"/", lambda: backend.seen == 1) == "CH"
        assert await it.flags_of(GET % b"/half", lambda: backend.seen == 2) in ("CD", "CH")
        assert await it.flags_of(POST + b"abc", lambda: backend.seen == 3) == "CR"


async def test_a_client_that_is_slow(tmp_path: Path) -> None:
    listener = ListenerSpec(head_timeout=0.3, body_timeout=0.3)
    async with house(tmp_path, Backend(), listener=listener) as it:
        assert await it.flags_of(POST + b"abc") == "cR"
        assert await it.flags_of(b"GET / HT") == "cR"


async def test_a_backend_that_breaks_off_or_is_late(tmp_path: Path) -> None:
    async with house(tmp_path, Backend(), SHORT) as it:
        assert await it.flags_of(GET % b"/reset") == "UH"
        assert await it.flags_of(GET % b"/garbage") == "UH"
        assert await it.flags_of(GET % b"/") == "uH"
        assert await it.flags_of(GET % b"/half/reset") in ("UD", "UH")
        assert await it.flags_of(GET % b"/half") == "uD"
    async with house(tmp_path, None) as it:
        assert await it.flags_of(GET % b"/") == "UC"


async def test_a_version_without_endpoints_has_nobody_to_ask(tmp_path: Path) -> None:
    nobody = (VersionSpec("v1", (endpoint(1),), drained=("127.0.0.1:1",)), VersionSpec("v2", (endpoint(1),)))
    rings = (RingSpec("everyone", "v1", 10_000),)
    async with house(tmp_path, None, versions=nobody, rings=rings) as it:
        assert await it.flags_of(GET % b"/") == "NC"


async def test_what_the_router_refuses_or_limits_has_a_line_too(tmp_path: Path) -> None:
    listener = ListenerSpec(limits=LimitsSpec(body_bytes=5, uri_bytes=256))
    async with house(tmp_path, Backend(), listener=listener, hosts=("a",)) as it:
        for raw, status, flags, method in (
            (b"what?\r\n\r\n", 400, "RR", "-"),
            (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 300), 414, "LR", "-"),
            (POST, 413, "LR", "POST"),
            (GET.replace(b"Host: a", b"Host: b") % b"/no", 404, "RR", "GET"),
            (GET.replace(b"GET", b"OPTIONS").replace(b"Host", b"Max-Forwards: 0\r\nHost") % b"*", 200, "-", "OPTIONS"),
        ):
            answer = await it.router.ask(raw)
            line = await it.line()
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert (line["status"], line["flags"], line["method"]) == (status, flags, method)
            assert (line["ring"], line["client"], line["endpoint"]) == ("", "127.0.0.1", "")
            assert line["bytes"] == len(answer.partition(b"\r\n\r\n")[2])
            assert f"X-Request-Id: {line['request_id']}".encode() in answer


async def test_a_version_that_has_too_much_to_do(tmp_path: Path) -> None:
    backend = Backend()
    overload = OverloadSpec(in_flight=1, queue=1, queue_seconds=0.4)
    async with house(tmp_path, backend, overload=overload) as it:
        _, first = await it.router.connect()
        first.write(GET % b"/")
        await until(lambda: backend.seen == 1)
        reader, second = await it.router.connect()
        second.write(GET % b"/")
        pool = it.router.plane.pools.versions["shop", "v1"]
        await until(lambda: len(pool.waiting) == 1)
        assert await it.flags_of(GET % b"/") == "LC"
        await reader.read()
        assert (await it.line())["flags"] == "LQ"
        first.close()
        second.close()


async def test_the_deadline_of_a_whole_request(tmp_path: Path) -> None:
    async with house(tmp_path, Backend(), listener=ListenerSpec(request_timeout=0.3)) as it:
        assert await it.flags_of(GET % b"/") == "DH"
        assert await it.flags_of(GET % b"/half") == "DD"


async def test_the_ends_of_a_websocket(tmp_path: Path) -> None:
    async with house(tmp_path, tunnel_to(echo), listener=ListenerSpec(tunnel_timeout=0.3)) as it:
        reader, writer = await shaken(it.router)
        writer.close()
        assert (await it.line())["flags"] == "-"
        reader, writer = await shaken(it.router)
        await reader.read()
        assert (await it.line())["flags"] == "IT"
        writer.close()
        reader, writer = await shaken(it.router)
        assert it.router.plane.restart_tunnels()
        assert (await it.line())["flags"] == "KT"
        writer.close()


async def test_a_worker_that_stops(tmp_path: Path) -> None:
    backend = Backend()
    async with house(tmp_path, backend) as it:
        reader, writer = await it.router.connect()
        writer.write(GET % b"/")
        await until(lambda: backend.seen == 1)
        it.router.plane.close()
        assert await reader.read() == b""
        assert (await it.line())["flags"] == "KH"
        writer.close()


async def test_a_user_who_gets_another_ring(tmp_path: Path) -> None:
    async with house(tmp_path, tunnel_to(echo)) as it:
        reader, writer = await shaken(it.router)
        spec = it.router.plane.snapshot.spec  # type: ignore[union-attr]
        (service,) = spec.services
        rings = tuple(RingSpec(ring.name, ring.version, ring.basis_points, on_change="close") for ring in service.rings)
        moved = (*rings[:-1], RingSpec("others", "v1"))
        it.router.plane.install(snapshot(shop((1,), (1,), rings=moved), generation=2))
        await reader.read()
        assert (await it.line())["flags"] == "MT"
        writer.close()
