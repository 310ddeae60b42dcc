"""Who gets into a ring by saying so: those with a proof, and nobody else, whatever they send. Each claim is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from router.core.audience import ConditionSpec, CookieSpec, IdentitySpec, IssuerSpec, KeySpec, TrustSpec
from router.core.records import NO_LOG
from router.core.signing import CookieSigner
from router.core.spec import ListenerSpec, RingSpec, ServiceSpec, SnapshotSpec
from router.telemetry.counters import PROOFS, WorkerCounters, fold
from router.telemetry.exposition import ConfigFigures, Figures, ProcessFigures, StoreFigures, render
from router.telemetry.messages import pack_counters, unpack_counters
from router.trust.passes import sign_pass
from router.trust.propagation import LIFETIME, write_member
from tests.house import RunningPlane, fixed, header, raw_backend, read_head, running_plane, shop
from tests.test_edge_tunnel import HANDSHAKE, accept
from tests.tokens import OTHER_RSA, RSA, by_hand, jwk_set, pem, public_jwk, token
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NOW = int(time.time())
KEYS = (KeySpec("k2", "the second secret, long enough"), KeySpec("k1", "the first secret, long enough"))
GONE = (KeySpec("k0", "a secret that was rotated out"),)
ID = IssuerSpec(
    "id", ("RS256",), keys=jwk_set(public_jwk(RSA, kid="rsa")), issuer="https://id", audience="shop", cookie="session"
)
BETA: dict[str, Any] = {"iss": "https://id", "aud": "shop", "exp": NOW + 7200, "groups": ["staff", "beta"]}
EDGE = ListenerSpec()
BEHIND = ListenerSpec(("127.0.0.0/8",))
SIDECAR = ListenerSpec(mode="sidecar")
MESH = ListenerSpec(("127.0.0.0/8",), mode="sidecar")
RINGS = (
    RingSpec(
        "canary",
        "v2",
        0,
        (
            ConditionSpec("claim", "groups", "equals", ("beta",)),
            ConditionSpec("client", "", "within", ("10.0.0.0/8",)),
        ),
        members=("friend",),
    ),
    RingSpec("everyone", "v1"),
)
IDENTITY = (
    IdentitySpec("header", "X-User-Id", is_trusted_only=True),
    IdentitySpec("anonymous_cookie", "ring_uid", cookie=CookieSpec(is_signed=True)),
)


def service(port: int, **changes: Any) -> ServiceSpec:
    return shop((port,), (port,), **{"rings": RINGS, "identity": IDENTITY, **changes})


def state(
    one: ServiceSpec, listener: ListenerSpec, generation: int = 1, keys: tuple[KeySpec, ...] = KEYS
) -> SnapshotSpec:
    return SnapshotSpec(generation, (one,), listener, access_log=NO_LOG, trust=TrustSpec(keys, (ID,)))


EDGE = ListenerSpec()


@asynccontextmanager
async def house(
    listener: ListenerSpec = EDGE, **changes: Any
) -> AsyncIterator[tuple[RunningPlane, list[bytes], ServiceSpec]]:
    """A proxy, the heads that its backend sees, and the service."""
    seen: list[bytes] = []
    async with raw_backend(fixed(OK, seen)) as port:
        one = service(port, **changes)
        async with running_plane(state(one, listener)) as router:
            yield router, seen, one


def get(fields: bytes = b"", target: bytes = b"/x?q=1", method: bytes = b"GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: shop\r\n%bConnection: close\r\n\r\n" % (method, target, fields)


def held(**changes: Any) -> bytes:
    said = {"service": "shop", "ring": "canary", "user": "", "expires_at": int(time.time()) + 3600, "pass_id": "p-1"}
    keys = changes.pop("keys", KEYS)
    return sign_pass(keys, **{**said, **changes}).encode()


def bearer(said: bytes) -> bytes:
    return b"Authorization: Bearer " + said + b"\r\n"


def carried(said: bytes) -> bytes:
    return b"X-Ring-Pass: " + said + b"\r\n"


SIGNED = write_member(KEYS, "canary", NOW)

GOOD: dict[str, tuple[ListenerSpec, bytes, tuple[str, str] | None]] = {
    "a pass in the field": (EDGE, carried(held()), ("pass", "valid")),
    "a pass in the cookie": (EDGE, b"Cookie: a=1; ring_pass=" + held() + b"\r\n", ("pass", "valid")),
    "a pass that an older key has signed": (EDGE, carried(held(keys=KEYS[1:])), ("pass", "valid")),
    "a token": (EDGE, bearer(token(BETA, RSA, "RS256", kid="rsa")), ("token", "valid")),
    "a token in the cookie": (EDGE, b"Cookie: session=" + token(BETA, RSA, "RS256") + b"\r\n", ("token", "valid")),
    "an address that a trusted proxy names": (BEHIND, b"X-Forwarded-For: 10.1.2.3\r\n", None),
    "a user whom a trusted proxy names": (BEHIND, b"X-User-Id: friend\r\n", None),
    "a cookie that was minted here": (
        EDGE, b"Cookie: ring_uid=" + CookieSigner(KEYS, b"ring_uid").sign(b"friend") + b"\r\n", None,
    ),
    "a signed member of baggage": (SIDECAR, b"baggage: " + SIGNED + b"\r\n", ("baggage", "valid")),
    "a ring that a trusted peer names": (MESH, b"X-Ring: canary\r\n", ("baggage", "valid")),
    "a member that a trusted peer sends": (MESH, b"Baggage: a=1, ring=canary\r\n", ("baggage", "valid")),
}  # fmt: skip

CUT, ONE_TOKEN = held()[:-4], token(BETA, RSA, "RS256", kid="rsa")
BAD: dict[str, tuple[ListenerSpec, bytes, tuple[str, str] | None]] = {
    "an unsigned override": (EDGE, b"X-Ring-Override: canary\r\n", ("override", "untrusted")),
    "an unsigned override of a trusted peer": (MESH, b"X-Ring-Override: canary\r\n", ("override", "untrusted")),
    "an unsigned ring": (EDGE, b"X-Ring: canary\r\n", ("baggage", "untrusted")),
    "an unsigned ring at a sidecar": (SIDECAR, b"X-Ring: canary\r\n", ("baggage", "untrusted")),
    "a ring with underscores": (SIDECAR, b"X_Ring: canary\r\nX_Ring_Pass: " + held() + b"\r\n", None),
    "unsigned baggage": (EDGE, b"baggage: ring=canary\r\n", ("baggage", "untrusted")),
    "unsigned baggage at a sidecar": (SIDECAR, b"baggage: ring=canary\r\n", ("baggage", "untrusted")),
    "signed baggage at the edge": (EDGE, b"baggage: " + SIGNED + b"\r\n", ("baggage", "untrusted")),
    "signed baggage of yesterday": (
        SIDECAR, b"baggage: " + write_member(KEYS, "canary", NOW - LIFETIME - 60) + b"\r\n", ("baggage", "expired"),
    ),
    "signed baggage of an unknown key": (
        SIDECAR, b"baggage: " + write_member(GONE, "canary", NOW) + b"\r\n", ("baggage", "forged"),
    ),
    "signed baggage for another ring": (
        SIDECAR, b"baggage: " + write_member(KEYS, "everyone", NOW).replace(b"everyone", b"canary") + b"\r\n",
        ("baggage", "forged"),
    ),
    "a pass as baggage": (SIDECAR, b"baggage: ring=canary;kid=k2;exp=9999999999;sig=" + held() + b"\r\n",
                          ("baggage", "forged")),
    "a nominated ring": (SIDECAR, b"X-Ring: canary\r\nConnection: x-ring, baggage\r\n", ("baggage", "untrusted")),
    "an unsigned cookie": (EDGE, b"Cookie: ring_pass=canary\r\n", ("pass", "malformed")),
    "an expired pass": (EDGE, carried(held(expires_at=NOW - 1)), ("pass", "expired")),
    "a pass of a key that was rotated out": (EDGE, carried(held(keys=GONE)), ("pass", "forged")),
    "a pass that was cut short": (EDGE, carried(CUT), ("pass", "forged")),
    "a pass without its signature": (EDGE, carried(held().rpartition(b".")[0]), ("pass", "malformed")),
    "two passes in one": (EDGE, carried(held()) * 2, ("pass", "malformed")),
    "a pass for another service": (EDGE, carried(held(service="search")), ("pass", "foreign")),
    "a pass for a ring that there is not": (EDGE, carried(held(ring="beta")), ("pass", "foreign")),
    "another user's pass": (EDGE, carried(held(user="friend")) + b"X-User-Id: friend\r\n", ("pass", "foreign")),
    "another user's pass in a trusted request": (
        BEHIND, carried(held(user="alice")) + b"X-User-Id: mallory\r\n", ("pass", "foreign"),
    ),
    "a nominated pass that has expired": (
        EDGE, carried(held(expires_at=NOW - 1)) + b"Connection: x-ring-pass\r\n", ("pass", "expired"),
    ),
    "a huge pass": (EDGE, carried(b"k2." + b"a" * 9000 + b".b"), ("pass", "malformed")),
    "a cookie that nobody minted": (EDGE, b"Cookie: ring_uid=friend\r\n", ("cookie", "forged")),
    "a cookie with another's signature": (
        EDGE, b"Cookie: ring_uid=friend" + CookieSigner(KEYS, b"ring_uid").sign(b"me")[2:] + b"\r\n",
        ("cookie", "forged"),
    ),
    "a stranger's address of his own choice": (EDGE, b"X-Forwarded-For: 10.1.2.3\r\nX-Real-IP: 10.1.2.3\r\n", None),
    "an address in front of the real one": (BEHIND, b"X-Forwarded-For: 10.1.2.3, 9.9.9.9\r\n", None),
    "a stranger's user": (EDGE, b"X-User-Id: friend\r\n", None),
    "a nominated user": (EDGE, b"X-User-Id: friend\r\nConnection: x-user-id\r\n", None),
    "a token without a signature": (EDGE, bearer(by_hand({"alg": "none"}, BETA)), ("token", "forged")),
    "a token signed with the public key": (
        EDGE, bearer(by_hand({"alg": "HS256", "kid": "rsa"}, BETA, pem(RSA))), ("token", "forged"),
    ),
    "a token of another key": (EDGE, bearer(token(BETA, OTHER_RSA, "RS256", kid="rsa")), ("token", "forged")),
    "a token of another issuer": (
        EDGE, bearer(token({**BETA, "iss": "https://evil"}, RSA, "RS256")), ("token", "foreign"),
    ),
    "a token for another audience": (EDGE, bearer(token({**BETA, "aud": "pay"}, RSA, "RS256")), ("token", "foreign")),
    "an expired token": (EDGE, bearer(token({**BETA, "exp": NOW - 60}, RSA, "RS256")), ("token", "expired")),
    "a token of tomorrow": (EDGE, bearer(token({**BETA, "nbf": NOW + 3600}, RSA, "RS256")), ("token", "expired")),
    "two tokens": (EDGE, bearer(ONE_TOKEN) * 2, ("token", "malformed")),
    "no token": (EDGE, bearer(b"opaque"), ("token", "malformed")),
    "another scheme": (EDGE, b"Authorization: Basic " + ONE_TOKEN + b"\r\n", None),
}  # fmt: skip


@pytest.mark.parametrize(("listener", "fields", "counted"), GOOD.values(), ids=GOOD)
async def test_who_has_a_proof_is_in_the_ring(
    listener: ListenerSpec, fields: bytes, counted: tuple[str, str] | None
) -> None:
    async with house(listener) as (router, seen, _):
        answer = await router.ask(get(fields))
        assert header(answer, "x-ring") == header(seen[0], "x-ring") == ["canary"]
        assert router.plane.tally.proofs == ({("shop", *counted): 1} if counted else {})


@pytest.mark.parametrize(("listener", "fields", "counted"), BAD.values(), ids=BAD)
async def test_what_proves_nothing_gets_nobody_into_a_ring_and_is_counted(
    listener: ListenerSpec, fields: bytes, counted: tuple[str, str] | None
) -> None:
    async with house(listener) as (router, seen, _):
        for _ in range(2):  # known or not
            answer = await router.ask(get(fields))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert header(answer, "x-ring") == ["everyone"]
        for head in seen:
            assert header(head, "x-ring") == ["everyone"]
            assert [one.partition(";")[0] for one in header(head, "baggage")] == ["ring=everyone"]
            assert not any(header(head, name) for name in ("x-ring-pass", "x-ring-override", "x_ring", "x_ring_pass"))
        assert router.plane.tally.proofs == ({("shop", *counted): 2} if counted else {})
        for _, kind, word in router.plane.tally.proofs:
            assert word in PROOFS[kind]


@pytest.mark.parametrize(
    ("override", "listener", "counted", "ring"),
    [
        ("passes", BEHIND, "untrusted", "everyone"),
        ("trusted", EDGE, "untrusted", "everyone"),
        ("trusted", BEHIND, "valid", "canary"),
        ("insecure", EDGE, "valid", "canary"),
        ("off", BEHIND, "off", "everyone"),
    ],
)
async def test_who_may_name_a_ring_is_said_in_words(
    override: str, listener: ListenerSpec, counted: str, ring: str
) -> None:
    async with house(listener, override=override) as (router, _, _):
        assert header(await router.ask(get(b"X-Ring-Override: canary\r\n")), "x-ring") == [ring]
        assert router.plane.tally.proofs == {("shop", "override", counted): 1}
        assert header(await router.ask(get(b"X-Ring-Override: nowhere\r\n")), "x-ring") == ["everyone"]


async def test_where_overrides_are_off_a_pass_is_nothing_either() -> None:
    async with house(override="off") as (router, _, _):
        assert header(await router.ask(get(carried(held()))), "x-ring") == ["everyone"]
        assert router.plane.tally.proofs == {("shop", "pass", "off"): 1}


async def test_a_pass_of_a_user_holds_for_that_user() -> None:
    async with house(BEHIND) as (router, _, _):
        fields = carried(held(user="alice")) + b"X-User-Id: alice\r\n"
        assert header(await router.ask(get(fields)), "x-ring") == ["canary"]


@pytest.mark.parametrize("revoked", ["pass:p-1", "key:k2"])
async def test_a_pass_that_is_taken_back_counts_no_more(revoked: str) -> None:
    async with house() as (router, _, one):
        assert header(await router.ask(get(carried(held()))), "x-ring") == ["canary"]
        router.plane.install(state(replace(one, revoked=(revoked,)), EDGE, 2))
        assert header(await router.ask(get(carried(held()))), "x-ring") == ["everyone"]
        assert router.plane.tally.proofs == {("shop", "pass", "valid"): 1, ("shop", "pass", "revoked"): 1}


async def test_a_websocket_that_a_pass_has_opened_ends_with_it() -> None:
    rings = (replace(RINGS[0], on_change="close"), RINGS[1])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(accept(await read_head(reader)))
        await reader.read()

    async with raw_backend(serve) as port:
        one = service(port, rings=rings)
        async with running_plane(state(one, EDGE)) as router:
            reader, writer = await router.connect()
            writer.write(HANDSHAKE.replace(b"Host: a\r\n", b"Host: a\r\n" + carried(held())))
            assert header(await read_head(reader), "x-ring") == ["canary"]
            router.plane.install(state(one, EDGE, 2))
            await until(lambda: all(lasting.generation == 2 for lasting in router.plane.changes._open))
            assert not reader.at_eof()
            router.plane.install(state(replace(one, revoked=("pass:p-1",)), EDGE, 3))
            async with asyncio.timeout(5):
                assert await reader.read() == b"\x88\x02" + (1012).to_bytes(2, "big")
            writer.close()


async def test_a_pass_that_was_known_is_verified_anew_when_its_key_is_taken_out() -> None:
    async with house() as (router, _, one):
        assert header(await router.ask(get(carried(held()))), "x-ring") == ["canary"]
        router.plane.install(state(replace(one, identity=()), EDGE, 2, GONE))
        assert header(await router.ask(get(carried(held()))), "x-ring") == ["everyone"]
        assert router.plane.tally.proofs[("shop", "pass", "forged")] == 1


async def test_a_nominated_identity_goes_on_to_the_next_router_and_so_does_baggage() -> None:
    async with house(BEHIND) as (router, seen, _):
        fields = b"X-User-Id: friend\r\nbaggage: a=1\r\nX-Other: 1\r\nConnection: x-user-id, baggage, x-other\r\n"
        assert header(await router.ask(get(fields)), "x-ring") == ["canary"]
        assert header(seen[0], "x-user-id") == ["friend"]
        assert header(seen[0], "baggage")[0].endswith(",a=1")
        assert not header(seen[0], "x-other")


async def test_of_several_passes_the_first_that_holds_counts() -> None:
    async with house() as (router, _, _):
        fields = carried(held(expires_at=NOW - 1)) + b"Cookie: ring_pass=" + held() + b"\r\n"
        assert header(await router.ask(get(fields)), "x-ring") == ["canary"]
        assert router.plane.tally.proofs == {("shop", "pass", "expired"): 1, ("shop", "pass", "valid"): 1}


async def test_a_link_becomes_a_cookie_and_a_clean_url() -> None:
    async with house() as (router, seen, _):
        said = held()
        answer = await router.ask(get(target=b"/cart?a=1&ring_pass=" + said + b"&b=2"))
        assert answer.startswith(b"HTTP/1.1 303 See Other\r\n")
        assert header(answer, "location") == ["/cart?a=1&b=2"]
        assert header(answer, "cache-control") == ["no-store"]
        (cookie,) = header(answer, "set-cookie")
        pair, *attributes = cookie.split("; ")
        assert pair.encode() == b"ring_pass=" + said
        age = next(one for one in attributes if one.startswith("Max-Age="))
        assert 3000 < int(age.partition("=")[2]) <= 3600
        assert set(attributes) - {age} == {"Path=/", "HttpOnly", "SameSite=Lax"}
        assert not seen
        again = await router.ask(get(b"Cookie: %b\r\n" % pair.encode(), target=b"/cart?a=1&b=2"))
        assert header(again, "x-ring") == ["canary"]


async def test_a_link_that_was_opened_over_tls_in_front_gives_a_secure_cookie() -> None:
    async with house(BEHIND) as (router, _, _):
        answer = await router.ask(get(b"X-Forwarded-Proto: https\r\n", target=b"/?ring_pass=" + held()))
        assert "Secure" in header(answer, "set-cookie")[0].split("; ")
        assert header(answer, "location") == ["/"]


@pytest.mark.parametrize("path", [b"//evil.example/", b"/\\evil.example/"])
async def test_a_link_leads_to_no_other_host(path: bytes) -> None:
    async with house() as (router, _, _):
        answer = await router.ask(get(target=path + b"?ring_pass=" + held()))
        assert header(answer, "location") == ["/." + path.decode()]


@pytest.mark.parametrize(
    ("said", "word"),
    [(held(expires_at=NOW - 1), "expired"), (held(service="search"), "foreign"), (b"canary", "malformed")],
    ids=["expired", "foreign", "malformed"],  # a pass is signed anew each time, and names of tests stay the same
)
async def test_a_link_that_does_not_hold_is_taken_off_and_the_request_goes_on(said: bytes, word: str) -> None:
    async with house() as (router, seen, _):
        answer = await router.ask(get(target=b"/x?a=1&ring_pass=" + said))
        assert header(answer, "x-ring") == ["everyone"]
        assert not [one for one in header(answer, "set-cookie") if one.startswith("ring_pass")]
        assert seen[0].startswith(b"GET /x?a=1 HTTP/1.1\r\n")
        assert router.plane.tally.proofs == {("shop", "pass", word): 1}


async def test_a_post_with_a_link_is_served_without_going_elsewhere_and_the_backend_sees_no_pass() -> None:
    async with house() as (router, seen, _):
        answer = await router.ask(get(target=b"/x?ring_pass=" + held(), method=b"DELETE"))
        assert header(answer, "x-ring") == ["canary"]
        assert seen[0].startswith(b"DELETE /x HTTP/1.1\r\n")


async def test_a_parameter_that_only_looks_like_a_pass_stays() -> None:
    async with house() as (router, seen, _):
        await router.ask(get(target=b"/x?my_ring_pass=1&next=ring_pass=2"))
        assert seen[0].startswith(b"GET /x?my_ring_pass=1&next=ring_pass=2 HTTP/1.1\r\n")
        assert not router.plane.tally.proofs


async def test_a_pipelined_request_behind_a_link_is_answered_as_well() -> None:
    async with house() as (router, _, _):
        link = b"GET /?ring_pass=%b HTTP/1.1\r\nHost: shop\r\n\r\n" % held()
        answer = await router.ask(link + get())
        assert answer.count(b"HTTP/1.1 303 ") == answer.count(b"HTTP/1.1 200 ") == 1


async def test_a_flood_of_forged_passes_takes_no_more_room() -> None:
    async with house() as (router, _, _):
        reader, writer = await router.connect()
        for i in range(1500):
            writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\nX-Ring-Pass: k2.e%d.x\r\n\r\n" % i)
        for _ in range(1500):
            await reader.readuntil(b"\r\n\r\nok")
        writer.close()
        assert len(router.plane.verifier._refused) <= 1024
        assert router.plane.tally.proofs[("shop", "pass", "forged")] == 1500


async def test_every_kind_of_proof_is_a_series_from_the_beginning_and_workers_add_up() -> None:
    async with house() as (router, _, one):
        await router.ask(get(carried(held()) + b"X-Ring-Override: canary\r\n"))
        total = WorkerCounters()
        for _ in range(2):
            fold(total, unpack_counters(pack_counters(router.plane.collect(whole=True))), gauges=False)
        figures = Figures(total, state(one, EDGE), StoreFigures(), ConfigFigures(), ProcessFigures(), 0.0, {})
        lines = [line for line in render(figures).decode().splitlines() if line.startswith("ringrouter_proofs_total")]
        assert len(lines) == sum(len(words) for words in PROOFS.values())
        assert 'ringrouter_proofs_total{service="shop",kind="pass",result="valid"} 2' in lines
        assert 'ringrouter_proofs_total{service="shop",kind="override",result="untrusted"} 2' in lines
        assert sum(line.endswith(" 0") for line in lines) == len(lines) - 2
