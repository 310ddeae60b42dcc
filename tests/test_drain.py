"""Endpoints that an operator takes out of service with one HSET: what is understood, held, kept, and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from router.control.keys import RawFault, RawService
from router.control.parse import Parsed, parse
from router.control.rules import address_of
from router.core.live import Live
from router.core.spec import EndpointSpec, RingSpec, ServiceSpec, SnapshotSpec, VersionSpec
from tests.redis_fixture import CONTROL, SHOP, STATUS, WEIGHTS, Server, Watched
from tests.waiting import until

ROUTED = SnapshotSpec(
    7,
    (ServiceSpec("shop", (VersionSpec("v1", (EndpointSpec("10.0.0.7", 9001),)),), (RingSpec("everyone", "v1"),)),),
)


def judged(control: dict[bytes, bytes] | RawFault, previous: Live | None = None, **others: Any) -> Parsed:
    return parse(RawService(control=control, **others), SHOP, previous)


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        (b"10.0.0.7:9001", ("10.0.0.7:9001",)),
        (b" 10.0.0.7:9001, b:1\n,c:2 ", ("10.0.0.7:9001", "b:1", "c:2")),
        (b"B:1 http://b:1/ b:1", ("b:1",)),
        (b"https://b [::1]:80 unix:/run/A.sock", ("b:443", "[::1]:80", "unix:/run/A.sock")),
        (b"no-such-thing \xff", ("no-such-thing", r"\xff")),
        (b"", ()),
    ],
)
def test_addresses_are_taken_as_people_write_them(value: bytes, addresses: tuple[str, ...]) -> None:
    parsed = judged({b"drain": value})
    assert parsed.live.drained == addresses
    assert not parsed.problems


def test_a_drain_stands_beside_a_kill_and_a_freeze() -> None:
    parsed = judged({b"drain": b"a:1", b"kill": b"canary", b"freeze": b"holiday"})
    assert parsed.live == Live(killed=("canary",), freeze="holiday", drained=("a:1",))


def test_a_bad_field_beside_it_refuses_the_hash_and_what_was_drained_stays() -> None:
    before = Live(drained=("a:1",))
    parsed = judged({b"drain": b"b:2", b"dran": b"c:3"}, before)
    assert [problem.reason for problem in parsed.problems] == ["unknown_field"]
    assert "kill, freeze, drain and holdback" in parsed.problems[0].message
    assert parsed.live.drained == ("a:1",)


def test_absence_lifts_nothing_until_the_weights_prove_that_nobody_flushed() -> None:
    before = Live(drained=("a:1",))
    gone = judged({}, before)
    assert gone.live.drained == ("a:1",)
    assert "drain ''" in gone.problems[0].message
    assert judged(RawFault("wrong_type", "x"), before).live.drained == ("a:1",)
    assert judged({}, before, weights={b"canary": b"1"}).live.drained == ()
    assert judged({b"drain": b""}, before).live.drained == ()


def test_a_list_that_grew_by_mistake_is_refused() -> None:
    parsed = judged({b"drain": b" ".join(b"a:%d" % n for n in range(1, 300))})
    assert [problem.reason for problem in parsed.problems] == ["out_of_range"]
    assert parsed.live.drained == ()


def test_what_has_no_port_is_left_as_it_is_rather_than_guessed() -> None:
    assert address_of("10.0.0.7") == "10.0.0.7"
    assert address_of("a:99999") == "a:99999"


async def status(client: Redis) -> dict[str, Any]:
    written: Any = await client.hget(STATUS, "test:1")
    return json.loads(written) if written else {}


async def test_what_redis_cli_drains_is_live_and_an_unknown_address_is_said(
    redis_server: Server, redis_client: Redis, state_dir: Path
) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        redis_server.redis_cli("HSET", CONTROL, "drain", "10.0.0.7:9001 10.0.0.8:9001")
        await until(lambda: shop.live.drained == ("10.0.0.7:9001", "10.0.0.8:9001"))
        assert shop.diary.has("drained none → 10.0.0.7:9001 10.0.0.8:9001")
        shop.store.note_applied(ROUTED)
        assert shop.diary.has("drain names 10.0.0.8:9001, and no endpoint of shop has that address now")
        assert shop.reasons == []

        async def is_said() -> bool:
            said = await status(redis_client)
            return bool(said.get("notes")) and said["drained"] == ["10.0.0.7:9001", "10.0.0.8:9001"]

        await until(is_said)
        (note,) = (await status(redis_client))["notes"]
        assert "10.0.0.8:9001" in note
        assert "10.0.0.7:9001" not in note
        redis_server.redis_cli("HSET", CONTROL, "drain", "")
        await until(lambda: shop.live.drained == ())
        shop.store.note_applied(ROUTED)
        assert shop.store.notes("shop") == []


async def test_a_start_without_redis_goes_on_draining(redis_server: Server, state_dir: Path) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
        redis_server.redis_cli("HSET", CONTROL, "drain", "10.0.0.7:9001")
        await until(lambda: shop.live.drained == ("10.0.0.7:9001",) and shop.weights == {"canary": 500})
    redis_server.running.stop()
    async with Watched(redis_server.url, state_dir) as again:
        assert again.store.source("shop") == "disk"
        assert again.live.drained == ("10.0.0.7:9001",)
