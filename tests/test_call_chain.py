"""One ring along a call chain: what an edge decides travels with the request, through applications and sidecars."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from router.core.audience import CookieSpec, IdentitySpec, KeySpec, TrustSpec
from router.core.records import NO_LOG
from router.core.signing import CookieSigner
from router.core.spec import ListenerSpec, MirrorSpec, RingSpec, ServerTlsSpec, ServiceSpec, SnapshotSpec, SocketSpec
from router.process.listening import Listening
from router.proxy.facts import certificate_of
from router.proxy.forwarding import add_anonymous_cookie
from router.trust.passes import sign_pass
from router.trust.propagation import Claim, check_member, write_member
from tests.certificates import Authority
from tests.house import RunningPlane, Serve, fixed, header, raw_backend, read_head, running_plane, shop
from tests.test_edge_tunnel import HANDSHAKE, accept
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
KEY = KeySpec("k1", "the edge's and the sidecars' secret")
OTHER = KeySpec("k9", "a secret of somebody else's house")
USER = IdentitySpec("header", "X-User-Id")
LOCAL = ("127.0.0.0/8",)


def rings(*names: str, canary: int = 3000) -> tuple[RingSpec, ...]:
    """These rings run v2, and ``everyone`` v1."""
    inner = tuple(RingSpec(name, "v2", canary if name == "canary" else 0) for name in names)
    return (*inner, RingSpec("everyone", "v1"))


def state(
    *services: ServiceSpec, keys: tuple[KeySpec, ...] = (KEY,), generation: int = 1, **listener: Any
) -> SnapshotSpec:
    return SnapshotSpec(generation, services, ListenerSpec(**listener), access_log=NO_LOG, trust=TrustSpec(keys))


def get(fields: bytes, host: bytes = b"shop") -> bytes:
    return b"GET / HTTP/1.1\r\nHost: %b\r\n%bConnection: close\r\n\r\n" % (host, fields)


def rings_of(heads: list[bytes]) -> list[str]:
    return [header(head, "x-ring")[0] for head in heads]


def ours(head: bytes) -> tuple[bytes, bytes]:
    """Our member of a head's only baggage field, and the rest of the field."""
    (field,) = header(head, "baggage")
    first, _, rest = field.encode().partition(b",")
    return first, rest


class Chain:
    """Edge → shop → its sidecar's outbound socket → the sidecar of stock → stock; the application passes baggage on."""

    def __init__(self) -> None:
        self.shop: list[bytes] = []
        self.stock: list[bytes] = []
        self.edge: RunningPlane
        self.outbound: RunningPlane
        self.inbound: RunningPlane

    async def ask(self, user: str, fields: bytes = b"") -> tuple[str, str]:
        """The rings that shop and stock saw."""
        answer = await self.edge.ask(get(b"X-User-Id: %b\r\n%b" % (user.encode(), fields)))
        assert answer.endswith(b"\r\n\r\nok"), answer
        return rings_of(self.shop)[-1], rings_of(self.stock)[-1]

    async def serve_shop(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """An application that calls another one for its answer, with its own traffic's headers passed on."""
        while True:
            head = await read_head(reader)
            self.shop.append(head)
            passed = b"".join(
                b"%b: %b\r\n" % (name.encode(), value.encode())
                for name in ("x-user-id", "baggage")
                for value in header(head, name)
            )
            writer.write((await self.outbound.ask(get(passed, b"stock"))).replace(b"Connection: close\r\n", b""))


@asynccontextmanager
async def chain(stock_rings: tuple[RingSpec, ...]) -> AsyncIterator[Chain]:
    made = Chain()
    async with AsyncExitStack() as stack:
        stock = await stack.enter_async_context(raw_backend(fixed(OK, made.stock)))
        app = await stack.enter_async_context(raw_backend(made.serve_shop))
        first = shop((app,), (app,), hosts=("shop",), rings=rings("canary", "beta"), identity=(USER,))
        last = shop((stock,), (stock,), name="stock", hosts=("stock",), rings=stock_rings, identity=(USER,))
        made.inbound = await stack.enter_async_context(running_plane(state(last, mode="sidecar")))
        there = made.inbound.port
        # What the sidecar of shop knows of stock is where it is: it has no rings of its own for it.
        whole = shop((there,), (there,), name="stock", hosts=("stock",), rings=rings(), identity=(USER,))
        sockets = (SocketSpec("", is_outbound=True),)
        made.outbound = await stack.enter_async_context(running_plane(state(whole, mode="sidecar", sockets=sockets)))
        made.edge = await stack.enter_async_context(running_plane(state(first)))
        yield made


async def test_a_user_is_in_the_same_ring_at_both_ends_of_a_chain() -> None:
    async with chain(rings("canary")) as made:
        seen = {await made.ask(f"user-{i}") for i in range(60)}
        assert seen == {("canary", "canary"), ("everyone", "everyone")}


async def test_with_the_edges_pass_the_second_router_follows() -> None:
    async with chain(rings("canary", canary=0)) as made:
        user = "user-1"
        said = sign_pass((KEY,), "shop", "canary", user, time.time() + 60).encode()
        assert await made.ask(user, b"X-Ring-Pass: " + said + b"\r\n") == ("canary", "canary")
        assert made.inbound.plane.tally.proofs == {("stock", "baggage", "valid"): 1}


async def test_a_ring_that_the_second_router_does_not_have_is_its_default_and_the_journey_goes_on() -> None:
    async with chain(rings("canary")) as made:
        said = sign_pass((KEY,), "shop", "beta", "user-1", time.time() + 60).encode()
        assert await made.ask("user-1", b"X-Ring-Pass: " + said + b"\r\nbaggage: tenant=7;p=1\r\n") == (
            "beta",
            "everyone",
        )
        member, others = ours(made.shop[0])
        assert ours(made.stock[0]) == (member, others)
        assert member.startswith(b"ring=beta;kid=k1;exp=")
        assert others == b"tenant=7;p=1"


async def test_two_routers_that_only_share_the_hash_agree() -> None:
    async with raw_backend(fixed(OK)) as port:
        one = shop((port,), (port,), identity=(USER,))
        async with running_plane(state(one, keys=())) as edge, running_plane(state(one, keys=())) as inner:
            for i in range(40):
                fields = b"X-User-Id: user-%d\r\n" % i
                assert header(await edge.ask(get(fields)), "x-ring") == header(await inner.ask(get(fields)), "x-ring")


@asynccontextmanager
async def house(serve: Serve | None = None, **listener: Any) -> AsyncIterator[tuple[RunningPlane, list[bytes]]]:
    """One router, and the heads that come out of it. Nobody is in canary without saying so."""
    seen: list[bytes] = []
    keys = listener.pop("keys", (KEY,))
    async with raw_backend(serve or fixed(OK, seen)) as port:
        one = shop((port,), (port,), rings=rings("canary", canary=0), identity=(USER,))
        async with running_plane(state(one, keys=keys, **listener)) as router:
            yield router, seen


@pytest.mark.parametrize("mode", ["edge", "sidecar"])
async def test_what_others_say_in_baggage_stays_and_what_a_stranger_says_in_our_name_goes(mode: str) -> None:
    async with house(mode=mode, keys=()) as (router, seen):
        fields = (
            b"Baggage: a=1;p;q=2 , ring=canary,  b = x%20y\r\nbaggage: c=3\r\nX-Ring-Foo: 1\r\nX-Ring-Version: v9\r\n"
        )
        await router.ask(get(fields))
        assert header(seen[0], "baggage") == ["ring=everyone,a=1;p;q=2,b = x%20y,c=3"]
        assert header(seen[0], "x-ring") == ["everyone"]
        assert header(seen[0], "x-ring-version") == ["v1"]
        assert not header(seen[0], "x-ring-foo")


async def test_a_request_without_baggage_carries_the_ring_and_its_signature() -> None:
    async with house() as (router, seen):
        await router.ask(get(b""))
        member, others = ours(seen[0])
        assert check_member((KEY,), member, time.time()) is Claim.VALID
        assert not others


async def test_where_baggage_is_switched_off_only_that_of_others_is_sent() -> None:
    async with house(sends_baggage=False) as (router, seen):
        await router.ask(get(b""))
        await router.ask(get(b"baggage: ring=canary\r\n"))
        await router.ask(get(b"baggage: a=1,ring=canary\r\n"))
        assert [header(head, "baggage") for head in seen] == [[], [], ["a=1"]]
        assert rings_of(seen) == ["everyone"] * 3


async def test_http10_carries_it_too() -> None:
    async with house(keys=()) as (router, seen):
        await router.ask(b"GET / HTTP/1.0\r\n\r\n")
        await router.ask(b"GET / HTTP/1.0\r\nbaggage: a=1\r\n\r\n")
        assert [header(head, "baggage") for head in seen] == [["ring=everyone"], ["ring=everyone,a=1"]]
        assert [header(head, "via") for head in seen] == [["1.0 ring-router"]] * 2


async def test_signatures_are_renewed_before_they_end_without_a_request_looking_at_the_clock() -> None:
    async with house() as (router, seen):
        verifier = router.plane.verifier
        old = write_member((KEY,), "everyone", 0)
        for lane in router.plane.all_lanes():
            lane.carry(old)
        await router.ask(get(b""))
        assert ours(seen[0])[0] == old
        assert 0 < verifier.deadline - router.plane.now() <= 450
        verifier.deadline = router.plane.now()
        router.plane.wheel.sooner(verifier)
        await until(lambda: all(lane.member != old for lane in router.plane.all_lanes()))
        await router.ask(get(b""))
        assert check_member((KEY,), ours(seen[1])[0], time.time()) is Claim.VALID
        assert verifier.deadline > router.plane.now() + 400


async def test_an_edge_takes_a_ring_off_that_even_a_trusted_peer_sends() -> None:
    async with house(trusted_proxies=LOCAL) as (router, seen):
        await router.ask(get(b"X-Ring: canary\r\nbaggage: ring=canary\r\n"))
        assert rings_of(seen) == ["everyone"]


@pytest.mark.parametrize("fields", [b"X-Ring: canary\r\n", b"baggage: ring=canary\r\n"])
async def test_the_application_behind_an_outbound_socket_is_believed_and_nobody_else(fields: bytes) -> None:
    sockets = (SocketSpec(""), SocketSpec("", is_outbound=True))
    async with house(mode="sidecar", sockets=sockets) as (router, seen):
        server = await asyncio.get_running_loop().create_server(router.plane.door(1).accept, "127.0.0.1", 0)
        application = RunningPlane(router.plane, server.sockets[0].getsockname()[1])
        await application.ask(get(fields))
        await router.ask(get(fields))
        assert rings_of(seen) == ["canary", "everyone"]
        server.close()


@pytest.mark.parametrize("fields", [b"X-Ring: beta\r\n", b"X-Ring: everyone\r\nbaggage: ring=beta\r\n"])
async def test_baggage_comes_before_the_field_and_an_unknown_ring_is_named_anew_where_only_the_field_did(
    fields: bytes,
) -> None:
    async with house(mode="sidecar", trusted_proxies=LOCAL, keys=()) as (router, seen):
        await router.ask(get(fields))
        assert rings_of(seen) == ["everyone"]
        assert header(seen[0], "baggage") == ["ring=beta"]


async def test_websocket_handshakes_carry_it() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_head(reader))
        writer.write(accept(seen[0]))
        await reader.read()

    async with house(serve, keys=()) as (router, _):
        _, writer = await router.connect()
        writer.write(HANDSHAKE)
        await until(lambda: seen)
        assert header(seen[0], "baggage") == ["ring=everyone"]
        assert rings_of(seen) == ["everyone"]
        writer.transport.abort()


async def test_a_mirror_gets_the_same_baggage() -> None:
    seen: list[bytes] = []
    copied: list[bytes] = []
    async with raw_backend(fixed(OK, seen)) as v1, raw_backend(fixed(OK, copied)) as v2:
        everyone = RingSpec("everyone", "v1", mirror=MirrorSpec("v2"))
        async with running_plane(state(shop((v1,), (v2,), rings=(everyone,), identity=(USER,)))) as router:
            for fields in (b"", b"baggage: a=1\r\n"):
                await router.ask(get(fields))
        await until(lambda: len(copied) == 2)
        assert [header(head, "baggage") for head in copied] == [header(head, "baggage") for head in seen]
        assert [header(head, "x-ring-version") for head in copied] == [["v2"]] * 2
        assert ours(copied[1])[1] == b"a=1"


async def test_who_falls_outward_keeps_ring_and_baggage() -> None:
    seen: list[bytes] = []
    async with raw_backend(fixed(OK)) as closed:
        pass
    async with raw_backend(fixed(OK, seen)) as well:
        one = shop((well,), (closed,), rings=rings("canary"), identity=(USER,))
        async with running_plane(state(one, keys=(), mode="sidecar", trusted_proxies=LOCAL)) as router:
            await router.ask(get(b"baggage: ring=canary,a=1\r\n"))  # the connection fails: another lane's lines
            await router.ask(get(b"baggage: ring=canary,a=1\r\n"))
        assert rings_of(seen) == ["canary"] * 2
        assert [header(head, "x-ring-version") for head in seen] == [["v1"]] * 2
        assert [header(head, "baggage") for head in seen] == [["ring=canary,a=1"]] * 2


@pytest.mark.parametrize(
    ("kind", "ring"), [("cn", "canary"), ("dns", "canary"), ("email", "everyone"), ("subject", "everyone")]
)
async def test_a_client_certificate_says_who_somebody_is(tmp_path: Path, kind: str, ring: str) -> None:
    authority = Authority(tmp_path)
    tls = ServerTlsSpec(
        (authority.sign("127.0.0.1").spec,), client_ca=str(authority.ca), client_certificate="optional"
    )  # fmt: skip
    sockets = (SocketSpec("", tls),)
    audience = (RingSpec("canary", "v2", 0, members=("agent.example",)), RingSpec("everyone", "v1"))
    async with raw_backend(fixed(OK)) as port:
        one = shop((port,), (port,), rings=audience, identity=(IdentitySpec("certificate", kind),))
        async with running_plane(state(one, sockets=sockets)) as router:
            bound = socket.create_server(("127.0.0.1", 0))
            at = bound.getsockname()[1]
            listening = Listening(router.plane, 0, bound.detach(), router.plane.spawn)
            await listening.open(sockets[0])
            assert await tls_ring(at, authority.client(authority.sign("agent.example"))) == ring
            assert await tls_ring(at, authority.client()) == "everyone"
            await listening.close()


def test_a_subject_is_written_as_rfc_4514_says() -> None:
    subject = (
        (("countryName", "DE"),), (("organizationName", "Acme, Inc. "),),
        (("commonName", "#1 <a+b>"), ("emailAddress", "a@b")),
    )  # fmt: skip
    shown = {
        "subject": subject,
        "subjectAltName": (("URI", "spiffe://a/b"), ("email", "a@b"), ("DNS", "a"), ("DNS", "b")),
    }
    assert certificate_of(shown) == {
        "subject": (b"CN=\\#1 \\<a\\+b\\>+emailAddress=a@b,O=Acme\\, Inc.\\ ,C=DE",),
        "cn": (b"#1 <a+b>",), "uri": (b"spiffe://a/b",), "email": (b"a@b",), "dns": (b"a", b"b"),
    }  # fmt: skip
    assert certificate_of(None) == certificate_of({}) == {}


async def tls_ring(port: int, context: ssl.SSLContext) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1")
    writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
    async with asyncio.timeout(5):
        head = await read_head(reader)
    writer.transport.abort()
    return header(head, "x-ring")[0]


@pytest.mark.parametrize(
    ("spec", "forwarded", "expected"),
    [
        (None, b"", {"Path=/", "Max-Age=31536000", "HttpOnly", "SameSite=Lax"}),
        (None, b"https", {"Path=/", "Max-Age=31536000", "HttpOnly", "SameSite=Lax", "Secure"}),
        (CookieSpec(secure="never"), b"https", {"Path=/", "Max-Age=31536000", "HttpOnly", "SameSite=Lax"}),
        (
            CookieSpec(60, "always", False, "None", "example.com", "/shop", True), b"",
            {"Path=/shop", "Max-Age=60", "SameSite=None", "Secure", "Domain=example.com", "Partitioned"},
        ),
    ],
)  # fmt: skip
async def test_the_anonymous_cookie_is_set_as_the_config_says(
    spec: CookieSpec | None, forwarded: bytes, expected: set[str]
) -> None:
    async with raw_backend(fixed(OK)) as port:
        one = shop((port,), (port,), identity=(IdentitySpec("anonymous_cookie", "uid", cookie=spec),))
        async with running_plane(state(one, trusted_proxies=LOCAL)) as router:
            answer = await router.ask(get(b"X-Forwarded-Proto: %b\r\n" % forwarded if forwarded else b""))
            _, *attributes = header(answer, "set-cookie")[0].split("; ")
            assert set(attributes) == expected
            assert len(attributes) == len(expected)


async def test_a_signed_cookie_comes_back_as_the_same_user_and_outlives_its_key() -> None:
    cookie = IdentitySpec("anonymous_cookie", "uid", cookie=CookieSpec(is_signed=True))
    async with raw_backend(fixed(OK)) as port:
        one = shop((port,), (port,), rings=rings("canary", canary=5000), identity=(cookie,))
        async with running_plane(state(one)) as router:
            minted = [await router.ask(get(b"")) for _ in range(10)]
            router.plane.install(state(one, keys=(OTHER, KEY), generation=2))
            for answer in minted:
                pair = header(answer, "set-cookie")[0].partition(";")[0]
                assert CookieSigner((KEY,), b"uid").verified(pair.partition("=")[2].encode())
                again = await router.ask(get(b"Cookie: %b\r\n" % pair.encode()))
                assert header(again, "x-ring") == header(answer, "x-ring")
                assert not header(again, "set-cookie")
            assert not router.plane.tally.proofs


@pytest.mark.parametrize(
    ("fields", "is_set"),
    [
        ((), True),
        ((b"Cache-Control: private",), True),
        ((b"cache-control: max-age=3, PRIVATE",), True),
        ((b"Cache-Control: no-store",), True),
        ((b"Cache-Control: max-age=3", b"Cache-Control: private"), True),
        ((b"Cache-Control: max-age=3",), False),
        ((b"Cache-Control: public",), False),
        ((b"Cache-Control: private, s-maxage=60",), False),
        ((b"Cache-Control: private, public",), False),
        ((b'Cache-Control: private="x-name", max-age=3',), False),
        ((b"Cache-Control: x-private",), False),
        ((b"Cache-Control:",), False),
        ((b"Expires: Thu, 01 Dec 2044 16:00:00 GMT",), False),
        ((b"Cache-Control: private", b"CDN-Cache-Control: max-age=60"), False),
        ((b"Cache-Control: private", b"Surrogate-Control: max-age=60"), False),
    ],
)  # fmt: skip
def test_no_response_that_a_shared_cache_may_store_gives_somebody_a_key(
    fields: tuple[bytes, ...], is_set: bool
) -> None:
    lines = [b"HTTP/1.1 200 OK", *fields]
    add_anonymous_cookie(lines, b"Set-Cookie: uid=1")
    assert (b"Set-Cookie: uid=1" in lines) is is_set
    assert (b"Cache-Control: private" in lines[1 + len(fields) :]) is (not fields)
