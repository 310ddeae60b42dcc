"""Revoked passes: what stands in Redis counts, what is badly written revokes too much rather than too little."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from router.control.keys import RawFault, RawHash, RawService
from router.control.last_good import path_of
from router.control.parse import Parsed, fit, parse
from router.core.audience import KeySpec
from router.core.live import Live
from router.trust.passes import sign_pass
from tests.redis_fixture import SHOP, WEIGHTS, Server, Watched
from tests.running import exchange_raw, running_router
from tests.waiting import until, until_said

Client = Redis
REVOKED = "rings:{shop}:revoked"
NOW = 1_800_000_000.0


def judged(revoked: RawHash, held: tuple[str, ...] = (), weights: RawHash | None = None) -> Parsed:
    return parse(RawService(weights=weights or {}, revoked=revoked), SHOP, Live(revoked=held), NOW)


def reasons(parsed: Parsed) -> list[str]:
    return [problem.reason for problem in parsed.problems]


def test_a_revocation_counts_until_its_time_is_over_and_zero_is_for_ever() -> None:
    parsed = judged(
        {
            b"pass:gone": b"1799999999",
            b"pass:now": b"1800000000 expired this second",
            b"pass:soon": b"1800000001 lost laptop",
            b"key:2026-11": b"0 leaked",
            b"rev": b"7",
        }
    )
    assert parsed.live.revoked == ("key:2026-11", "pass:soon")
    assert not parsed.problems
    assert parsed.is_from_redis


def test_what_the_hash_does_not_say_any_more_stays_revoked_until_its_own_time_is_over() -> None:
    first = parse(RawService(revoked={b"pass:a": b"1800000100", b"pass:b": b"0"}), SHOP, None, NOW).live
    second = parse(RawService(revoked={b"pass:c": b"0"}), SHOP, first, NOW + 99)
    assert second.live.revoked == ("pass:a", "pass:b", "pass:c")
    assert reasons(second) == ["held_missing"]
    assert f"HSET {REVOKED} pass:a 1" in second.problems[0].message
    third = parse(RawService(revoked={b"pass:c": b"0", b"pass:b": b"1"}), SHOP, second.live, NOW + 100)
    assert third.live.revoked == ("pass:c",)
    assert not third.problems


@pytest.mark.parametrize("field", [b"pas:x", b"pass:", b"x", b"", b"pass:a b", b"pass:\xff", b"pass:" + b"x" * 129])
def test_a_bad_field_does_not_keep_the_others_from_counting(field: bytes) -> None:
    parsed = judged({field: b"0", b"pass:leaked": b"0", b"pass:found": b"1"}, held=("pass:found",))
    assert parsed.live.revoked == ("pass:leaked",)
    assert reasons(parsed) == ["unknown_field"]
    assert f"HDEL {REVOKED}" in parsed.problems[0].message


@pytest.mark.parametrize("value", [b"", b"leaked", b"tomorrow", b"-1", b"1800000000000", b"1e12", b"\xff", b" 5"])
def test_a_time_that_cannot_be_read_is_for_ever(value: bytes) -> None:
    parsed = judged({b"pass:leaked": value})
    assert parsed.live.revoked == ("pass:leaked",)
    assert reasons(parsed) == ["not_a_time"]
    assert f"HSET {REVOKED} pass:leaked '0 REASON'" in parsed.problems[0].message


@pytest.mark.parametrize("fault", ["wrong_type", "too_many_fields", "unreadable"])
def test_what_cannot_be_read_gives_nothing_back(fault: str) -> None:
    parsed = judged(RawFault(fault, "so many"), held=("pass:a",))
    assert parsed.live.revoked == ("pass:a",)
    assert reasons(parsed) == [fault]


def test_a_flush_gives_nothing_back_and_says_how_it_is_done() -> None:
    parsed = judged({}, held=("pass:a",), weights={b"canary": b"5"})
    assert parsed.live.revoked == ("pass:a",)
    assert reasons(parsed) == ["held_missing"]
    assert f"HSET {REVOKED} pass:a 1" in parsed.problems[0].message
    assert judged({b"pass:a": b"1"}, held=("pass:a",)).live.revoked == ()


def test_others_that_are_written_again_and_again_do_not_fill_the_disk_and_what_was_revoked_stays() -> None:
    held: tuple[str, ...] = ()
    for turn in range(4):
        before, parsed = held, judged({f"pass:{turn}-{n}".encode(): b"0" for n in range(4000)}, held)
        held = parsed.live.revoked
        assert set(before) <= set(held)
    assert len(held) == 10_000
    assert "too_many_fields" in reasons(parsed)


FIELDS = st.one_of(st.binary(max_size=8), st.sampled_from([b"pass:a", b"pass:b", b"key:k", b"rev"]))
VALUES = st.one_of(st.binary(max_size=8), st.sampled_from([b"0", b"1", b"1900000000", b"1900000000 x", b"99999999999"]))
HASHES = st.one_of(
    st.dictionaries(FIELDS, VALUES, max_size=5),
    st.builds(RawFault, st.sampled_from(["wrong_type", "too_many_fields", "unreadable"]), st.text(max_size=9)),
)
HELD = st.lists(st.sampled_from(["pass:a", "pass:b", "pass:c", "key:k"]), unique=True).map(lambda x: tuple(sorted(x)))


@given(HASHES, HELD)
def test_whatever_stands_there_only_a_time_that_is_over_gives_anything_back(
    raw: RawHash, held: tuple[str, ...]
) -> None:
    parsed = judged(raw, held)
    after = parsed.live.revoked
    assert list(after) == sorted(set(after))
    assert fit(parsed.live, SHOP) == parsed.live
    said = {} if isinstance(raw, RawFault) else raw
    for field in held:
        is_over = said.get(field.encode(), b"0").split(b" ")[0] == b"1"
        assert (field in after) is not is_over
    for field in (b"pass:a", b"pass:b", b"key:k"):
        if field in said and not said[field].startswith(b"1"):
            assert field.decode() in after
    assert parse(RawService(revoked=raw), SHOP, parsed.live, NOW).live.revoked == after


# -- with a real Redis -------------------------------------------------------------------------------------------------


async def test_revocations_are_live_outlive_a_restart_without_redis_and_a_flush(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    async with Watched(redis_server.url, state_dir) as shop:
        redis_server.redis_cli("HSET", REVOKED, "pass:abc", "0 lost laptop")
        await until(lambda: shop.live.revoked == ("pass:abc",))
        assert shop.announced[-1]["shop"].revoked == ("pass:abc",)
        assert shop.diary.has("passes and keys revoked 0 → 1")
    redis_server.running.stop()
    assert path_of(state_dir, "shop").is_file()
    async with Watched(redis_server.url, state_dir) as again:
        assert again.live.revoked == ("pass:abc",)
        redis_server.start()
        await until_said(lambda: again.store.state == "live", within=10)
        await until(lambda: again.reasons == ["held_missing"])
        assert again.live.revoked == ("pass:abc",)
        redis_server.redis_cli("HSET", REVOKED, "pass:abc", "1")
        await until(lambda: again.live.revoked == () and not again.reasons)


async def test_five_thousand_are_read_and_more_than_that_hold_what_was(
    redis_server: Server, redis_client: Client, state_dir: Path
) -> None:
    many = {f"pass:{'x' * 100}{n}": "0" for n in range(5000)}
    async with Watched(redis_server.url, state_dir) as shop:
        await redis_client.hset(REVOKED, mapping=many)
        await until(lambda: len(shop.live.revoked) == 5000)
        await redis_client.hset(REVOKED, "pass:one-more", "0")
        await until(lambda: shop.reasons == ["too_many_fields"])
        assert len(shop.live.revoked) == 5000
    async with Watched(redis_server.url, state_dir) as again:
        assert len(again.live.revoked) == 5000
        first, *_ = many
        await redis_client.hdel(REVOKED, first)
        await until(lambda: "pass:one-more" in again.live.revoked)
        assert len(again.live.revoked) == 5001
        assert again.reasons == ["held_missing"]
        assert first in str(again.store.refusals["shop"][0])


async def test_a_pass_works_in_a_running_router_until_it_or_its_key_is_revoked(
    redis_server: Server, tmp_path: Path
) -> None:
    key = KeySpec("k1", "a-secret-of-the-routers-own")

    async with running_router(tmp_path, redis=redis_server.url) as router:
        keys = f"signing_keys: [{{id: {key.id}, secret: {key.secret}}}]\n"
        router.config.write_text(keys + router.config.read_text())
        await until_said(lambda: router.state()["config"]["revision"] == 2, within=10)
        await until_said(router.is_everywhere)
        ends = time.time() + 3600
        first = sign_pass([key], "shop", "canary", "", ends, "first")
        second = sign_pass([key], "shop", "canary", "", ends, "second")

        async def ring(token: str) -> str:
            head = await exchange_raw(router, f"X-User-Id: victor\r\nX-Ring-Pass: {token}\r\n")
            return next(line[8:] for line in head.split("\r\n") if line.lower().startswith("x-ring: "))

        async def is_applied(revoked: int) -> bool:
            state = router.state()
            return state["services"]["shop"]["revoked"] == revoked and router.is_everywhere()

        assert (await ring(first), await ring(second)) == ("canary", "canary")
        redis_server.redis_cli("HSET", REVOKED, "pass:first", f"{ends:.0f} lost laptop")
        await until(lambda: is_applied(1))
        assert (await ring(first), await ring(second)) == ("everyone", "canary")
        redis_server.redis_cli("HSET", REVOKED, "key:k1", "0 leaked")
        await until(lambda: is_applied(2))
        assert (await ring(first), await ring(second)) == ("everyone", "everyone")
        redis_server.redis_cli("FLUSHALL")
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
        await until_said(lambda: any("revoked missing" in one for one in router.state()["services"]["shop"]["refused"]))
        assert await ring(second) == "everyone"
        redis_server.redis_cli("HSET", REVOKED, "pass:other", "0")
        await until(lambda: is_applied(3))
        assert (await ring(first), await ring(second)) == ("everyone", "everyone")
        redis_server.redis_cli("HSET", REVOKED, "key:k1", "1 it was not", "pass:first", "1", "pass:other", "1")
        await until(lambda: is_applied(0))
        assert await ring(second) == "canary"
        pattern = r'ringrouter_proofs_total\{.*kind="pass".*result="revoked"'
        await until_said(lambda: router.metric(pattern) == 6)
