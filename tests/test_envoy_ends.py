"""What Envoy says to both ends of a request, and whom it believes: as the router does."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.rig import free_ports
from router.core.spec import (
    BalanceSpec,
    ClientTlsSpec,
    EndpointSpec,
    ListenerSpec,
    SnapshotSpec,
    SocketSpec,
    VersionSpec,
)
from router.envoy.access_log import parsed_line
from router.envoy.forward import Forward
from router.envoy.users import Record, key_of
from tests.certificates import Authority
from tests.envoy_house import Envoy, needs_envoy, running_envoy
from tests.house import Serve, raw_backend, shop, snapshot
from tests.test_edge_tls_backends import tls_backend
from tests.waiting import until

pytestmark = needs_envoy
FORGED = """\
X-User-Id: carol
X-Ring: canary
X-Ring-Version: v9
X_Ring_Version: v9
X-Ring-Reason: because
X-Forwarded-For: 6.6.6.6
X-Real-IP: 6.6.6.6
X-Forwarded-Host: evil
X-Envoy-Retry-On: 5xx
baggage: a=1, ring=early;p=1,b=2
baggage: ring = early,c=3
Cookie: uid=joe
"""


def telling(version: str) -> Serve:
    """A backend that answers with the head it got, and says of itself what it must not."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                body = f"{version}\n".encode() + await reader.readuntil(b"\r\n\r\n")
                said = b"X-Ring: mine\r\nX-Ring-Reason: mine\r\nX-Ring-Mirror: 1\r\n"
                writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (said, len(body), body))
        except (EOFError, OSError):
            writer.close()

    return serve


async def ask(envoy: Envoy, fields: str = "", method: str = "GET", before: str = "") -> tuple[str, str]:
    """Head and body of an answer; ``before`` is sent in front of the request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", envoy.port)
    text = f"{before}{method} / HTTP/1.1\nHost: Shop.test:81\n{fields}Content-Length: 0\n\n"
    writer.write(text.replace("\n", "\r\n").encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = re.search(r"content-length: (\d+)", head)
    body = (await reader.readexactly(int(length[1]) if length else 0)).decode()
    writer.close()
    return head, body


@pytest.mark.parametrize("is_trusted", [False, True])
async def test_forged_fields_end_at_envoy_and_true_ones_are_said_both_ways(tmp_path: Path, is_trusted: bool) -> None:
    listener = ListenerSpec(trusted_proxies=("127.0.0.0/8",) if is_trusted else ())
    records: list[Record] = []
    forward = Forward(tmp_path, records.append)
    await forward.start()
    async with raw_backend(telling("v1")) as v1, raw_backend(telling("v2")) as v2:
        spec = snapshot(shop((v1,), (v2,)), listener=listener)
        async with running_envoy(tmp_path, spec, watched=frozenset({"shop"}), is_counted=True, generation=7) as envoy:
            head, body = await ask(envoy, FORGED)
            assert re.findall(r"x-ring[-a-z]*: .*(?=\r)", head) == ["x-ring: canary", "x-ring-version: v2"]
            fields = sorted(line for line in body.lower().split("\r\n") if re.match("x[-_]|baggage|cookie", line))
            chain = "6.6.6.6,127.0.0.1" if is_trusted else "127.0.0.1"
            host = "evil" if is_trusted else "shop.test:81"
            assert [line for line in fields if not line.startswith("x-request-id")] == sorted(
                [
                    "baggage: a=1,b=2,c=3", "baggage: ring=canary", "cookie: uid=joe", "x-user-id: carol",
                    "x-ring: canary", "x-ring-version: v2", f"x-forwarded-for: {chain}", "x-forwarded-proto: http",
                    f"x-forwarded-host: {host}", *(["x-real-ip: 6.6.6.6"] if is_trusted else []),
                ]
            )  # fmt: skip
            head, _ = await ask(envoy, method="TRACE")
            assert head.startswith("HTTP/1.1 405 ")
            await until(lambda: bool(records))
    forward.stop()
    line = parsed_line(str(records[0]["l"]))
    assert line is not None
    assert (line.lane.service, line.lane.ring, line.lane.version, line.lane.status) == ("shop", "canary", "v2", 200)
    assert (line.lane.reason, line.generation) == ("rule", 7)
    assert key_of(records[0], spec.services[0]) == b"carol"


@pytest.mark.parametrize(
    ("header", "chain"),
    [
        ("PROXY TCP4 9.8.7.6 10.0.0.1 1234 80\n", "9.8.7.6"),  # a stranger, who forges what is before it
        ("PROXY TCP4 10.1.1.1 10.0.0.1 1234 80\n", "6.6.6.6,10.1.1.1"),  # a trusted proxy behind the balancer
        ("PROXY TCP6 2001:db8::1 ::1 1234 80\n", "2001:db8::1"),
        ("PROXY UNKNOWN\n", "127.0.0.1"),
    ],
)
async def test_whose_connection_it_is_comes_from_the_proxy_header(tmp_path: Path, header: str, chain: str) -> None:
    forged = "X-Forwarded-For: 6.6.6.6\nX-Ring-Client: 7.7.7.7\nX-Forwarded-Proto: https\n"
    async with raw_backend(telling("v1")) as v1, raw_backend(telling("v2")) as v2:
        listener = ListenerSpec(
            trusted_proxies=("10.0.0.0/8",), sockets=(SocketSpec("127.0.0.1:80", proxy_protocol=True),)
        )
        async with running_envoy(tmp_path, snapshot(shop((v1,), (v2,)), listener=listener)) as envoy:
            _, body = await ask(envoy, forged, before=header)
            assert re.findall(r"x-forwarded-for: (.*)(?=\r)", body) == [chain]
            assert "x-ring-client" not in body
            assert f"x-forwarded-proto: {'https' if ',' in chain else 'http'}\r" in body


async def test_a_ring_whose_version_is_gone_falls_outward_at_once_with_any_method(tmp_path: Path) -> None:
    (gone,) = free_ports(1)
    async with raw_backend(telling("v1")) as v1:
        async with running_envoy(tmp_path, snapshot(shop((v1,), (gone,)))) as envoy:
            for method in ("GET", "POST"):
                head, body = await ask(envoy, "X-Ring: canary\n", method)
                assert head.startswith("HTTP/1.1 200 ")
                assert "x-ring: canary\r\n" in head
                assert "x-ring-version: v1\r\n" in head
                assert "x-ring-reason: fallback\r\n" in head
                assert "x-ring-version: v1\r\nx-ring-reason: fallback" in body
            tried = envoy.stats("cluster.shop/canary.*upstream_rq_total")
            assert tried["cluster.shop/canary/v2@v1.upstream_rq_total"] == 2


async def test_a_version_that_control_finds_down_is_left_for_the_next_one(tmp_path: Path) -> None:
    async with raw_backend(telling("v1")) as v1, raw_backend(telling("v2")) as v2:
        service = shop((v1,), (v2,))
        stable, candidate = service.versions
        is_down = replace(candidate, down=(f"127.0.0.1:{v2}",))
        async with running_envoy(tmp_path, snapshot(service)) as envoy:
            assert "x-ring-version: v2\r\n" in (await ask(envoy, "X-Ring: canary\n"))[0]
            envoy.tell(snapshot(replace(service, versions=(stable, is_down))))
            await until(envoy.has_taken)
            assert "x-ring-version: v1\r\nx-ring-reason: fallback" in (await ask(envoy, "X-Ring: canary\n"))[0]


async def test_each_endpoint_of_a_version_is_spoken_to_by_its_own_name_or_without_tls(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    first, second, named = (authority.server(authority.sign(name)) for name in ("127.0.0.1", "127.0.0.2", "a.internal"))
    async with (
        raw_backend(telling("plain")) as plain,
        tls_backend(first, telling("first")) as at_first,
        tls_backend(second, telling("second"), "127.0.0.2") as at_second,
        tls_backend(named, telling("named")) as at_name,
    ):

        def spec(ca: Path, digest: str) -> SnapshotSpec:
            tls = ClientTlsSpec(ca=str(ca), digest=digest)
            endpoints = (
                EndpointSpec("127.0.0.1", plain),
                EndpointSpec("127.0.0.1", at_first, tls=tls),
                EndpointSpec("127.0.0.2", at_second, tls=tls),
                EndpointSpec("127.0.0.1", at_name, tls=tls, name="a.internal"),
            )
            versions = (VersionSpec("v1", endpoints), VersionSpec("v2", endpoints))
            return snapshot(shop((), (), versions=versions, balance=BalanceSpec("round_robin")))

        async with running_envoy(tmp_path, spec(authority.ca, "1")) as envoy:
            answers = [await ask(envoy) for _ in range(16)]
            assert {body.split("\n")[0] for _, body in answers} == {"plain", "first", "second", "named"}
            assert sum(envoy.stats("ssl.fail_verify").values()) == 0
            os.replace(other.ca, authority.ca)
            envoy.tell(spec(authority.ca, "2"))
            await until(envoy.has_taken)
            answers = [await ask(envoy) for _ in range(16)]
            assert {body.split("\n")[0] for head, body in answers if " 200 " in head} == {"plain"}


async def test_a_thousand_members_of_a_short_list_are_known(tmp_path: Path) -> None:
    names = tuple(f"a rather long (name) of user {i}" for i in range(1000))
    async with raw_backend(telling("v1")) as v1, raw_backend(telling("v2")) as v2:
        service = shop((v1,), (v2,), canary=0, early=0)
        early = replace(service.rings[1], members=names)
        spec = snapshot(replace(service, rings=(service.rings[0], early, *service.rings[2:])))
        async with running_envoy(tmp_path, spec) as envoy:
            for i in (0, 199, 200, 999, 1000):
                head, _ = await ask(envoy, f"X-User-Id: a rather long (name) of user {i}\n")
                assert ("x-ring: early\r\n" in head) is (i < 1000)
