"""Holdbacks: some of a ring's users keep the next version outward. Who, which one, and that nobody else is touched."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from click.testing import CliRunner
from redis.asyncio import Redis

from router.cli.main import main
from router.config.compile import snapshot_spec
from router.config.load import parse_settings
from router.control.in_force import in_force
from router.control.keys import RawService
from router.control.last_good import load, save
from router.control.parse import Parsed, fit, parse
from router.control.rules import say_changes, say_holdbacks
from router.core.audience import ConditionSpec, IdentitySpec
from router.core.decide import decide, identify
from router.core.explain import explain
from router.core.hashing import UserKey, bucket_of, holdback_salt
from router.core.live import Live
from router.core.snapshot import Decision, Reason, compile_service
from router.core.spec import MirrorSpec, RingSpec, ServiceSpec
from tests.core_services import VERSIONS, request, service
from tests.house import running_plane, shop, snapshot
from tests.redis_fixture import CONTROL, SHOP, WEIGHTS, Server, Watched
from tests.test_cli_explain import admin
from tests.waiting import until

ASKS: Final = ConditionSpec("header", "X-Beta")
USERS: Final = [UserKey(b"user-%d" % n) for n in range(20_000)]
SPEC: Final = ServiceSpec(
    "shop",
    VERSIONS,
    (
        RingSpec("canary", "v2", 1000),
        RingSpec("early", "v2", 0, (ASKS,), tuple(f"user-{n}" for n in range(1000)), holdback=5000),
        RingSpec("everyone", "v1", 9000),
    ),
    identity=(IdentitySpec("header", "X-User-Id"), IdentitySpec("anonymous_cookie", "uid")),
)


def decided(spec: ServiceSpec, key: UserKey | None, override: str = "", **headers: str) -> Decision:
    asked = request(**headers)
    asked.override = override
    return decide(compile_service(spec), asked, key)


# -- who ---------------------------------------------------------------------------------------------------------------

KNOWN: Final = [  # worked out by an XXH64 written from its specification, not by the library
    ("early", b"", b"alice", 5658),
    ("early", b"", b"bob", 4634),
    ("beta", b"", b"alice", 9532),
    ("early", b"search:", b"alice", 8471),
    ("early", b"", b"\xff\x00", 4324),
    ("early", b"", b"550e8400-e29b-41d4-a716-446655440000", 6712),
]


@pytest.mark.parametrize(("ring", "salt", "key", "bucket"), KNOWN)
def test_the_hash_is_frozen(ring: str, salt: bytes, key: bytes, bucket: int) -> None:
    assert bucket_of(key, holdback_salt(ring, salt)) == bucket


def test_half_of_those_who_chose_the_ring_keep_the_version_of_the_next_one() -> None:
    early = compile_service(SPEC)
    asked = request(x_beta="yes")
    found = [decide(early, asked, key) for key in USERS]
    assert {(one.ring, one.reason) for one in found} == {("early", Reason.MEMBER), ("early", Reason.RULE)}
    counted = Counter(one.version for one in found)
    assert abs(counted["v1"] - len(USERS) / 2) < 4 * sqrt(len(USERS) / 4)
    assert {one.index for one in found} <= {one.index for one in early.decisions}
    assert all(early.decisions[one.index] is one for one in found)


def test_who_is_held_back_has_nothing_to_do_with_where_the_hash_puts_them() -> None:
    rings = (replace(SPEC.rings[0], holdback=3000), *SPEC.rings[1:])
    canary = compile_service(replace(SPEC, rings=rings))
    inside = [key for key in USERS if bucket_of(key) < 1000 and key not in canary.members]
    held = [key for key in inside if decide(canary, request(), key).version != "v2"]
    assert held == []  # the next ring outward runs v2 as well
    rings = (rings[0], replace(SPEC.rings[1], version="v1"), SPEC.rings[2])
    canary = compile_service(replace(SPEC, rings=rings))
    held = [key for key in inside if decide(canary, request(), key).version == "v1"]
    assert {decide(canary, request(), key).reason for key in held} == {Reason.HASH}
    assert abs(len(held) - 0.3 * len(inside)) < 4 * sqrt(0.21 * len(inside))
    inner = sum(bucket_of(key) < 500 for key in held)
    assert abs(inner - len(held) / 2) < 4 * sqrt(len(held) / 4)


def test_more_holdback_takes_nobody_off_the_version_of_the_next_ring() -> None:
    held = [
        {key for key in USERS[:1000] if decided(with_holdback(points), key).version == "v1"}
        for points in (0, 1000, 5000, 10_000)
    ]
    assert held[0] == set()
    assert held[0] < held[1] < held[2] < held[3] == set(USERS[:1000])


def with_holdback(points: int, **changes: Any) -> ServiceSpec:
    return replace(SPEC, rings=(SPEC.rings[0], replace(SPEC.rings[1], holdback=points), SPEC.rings[2]), **changes)


def test_they_keep_the_version_of_the_next_ring_that_is_not_killed() -> None:
    versions = (*VERSIONS, replace(VERSIONS[0], name="v0"))
    rings = (RingSpec("early", "v2", members=("alice",), holdback=10_000), RingSpec("late", "v0"), SPEC.rings[2])
    spec = replace(SPEC, versions=versions, rings=rings)
    alice = UserKey(b"alice")
    assert decided(spec, alice).version == "v0"
    assert decided(replace(spec, killed=("late",)), alice).version == "v1"
    assert decided(replace(spec, killed=("early",)), alice).ring == "everyone"


def test_whoever_is_in_the_ring_by_an_override_or_without_a_key_is_not_held_back() -> None:
    spec = with_holdback(10_000)
    assert decided(spec, UserKey(b"user-1")).version == "v1"
    assert decided(spec, UserKey(b"user-1"), override="early").version == "v2"
    by_rule = decided(spec, None, x_beta="yes")
    assert (by_rule.ring, by_rule.version, by_rule.reason) == ("early", "v2", Reason.RULE)


def test_a_login_changes_no_version() -> None:
    spec = with_holdback(5000)
    for n in range(300):
        before = request(f"uid=a{n}", x_beta="yes")
        after = request(f"uid=a{n}", x_beta="yes", x_user_id=f"someone-{n}")
        compiled = compile_service(spec)
        first, then = (decide(compiled, one, identify(compiled, one)) for one in (before, after))
        assert (first.ring, first.version) == (then.ring, then.version) == ("early", first.version)


def test_a_service_without_one_decides_on_the_short_way() -> None:
    plain = service(1000, 2000)
    assert not plain.holdbacks
    assert not plain.is_intricate
    ring = replace(plain.spec.rings[1], holdback=100)
    held = compile_service(replace(plain.spec, rings=(plain.spec.rings[0], ring, plain.spec.rings[2])))
    assert held.is_intricate
    assert len(held.holdbacks) == 1


def test_the_way_to_a_decision_says_who_is_held_back() -> None:
    spec = with_holdback(5000)
    compiled = compile_service(spec)
    trace = explain(compiled, request(x_user_id="user-1"))
    assert trace.holdback is not None
    assert trace.holdback.bucket == bucket_of(b"user-1", holdback_salt("early"))
    assert trace.holdback.is_held == (trace.decision.version == "v1") == (trace.holdback.bucket < 5000)
    assert explain(compiled, request(x_user_id="nobody")).holdback is None


# -- the live value ----------------------------------------------------------------------------------------------------


def judged(value: bytes, previous: Live | None = None, **others: bytes) -> Parsed:
    fields = {b"holdback": value, **{name.encode(): text for name, text in others.items()}}
    return parse(RawService(control=fields), SHOP, previous)


@pytest.mark.parametrize(
    ("value", "holdbacks"),
    [
        (b"early=50 canary=10", {"canary": 1000, "early": 5000}),
        (b" early=0.25,\ncanary=0 ", {"early": 25}),
        (b"early=100", {"early": 10_000}),
        (b"", {}),
    ],
)
def test_what_people_write_is_taken(value: bytes, holdbacks: dict[str, int]) -> None:
    parsed = judged(value, kill=b"early")
    assert parsed.live == Live(killed=("early",), holdbacks=holdbacks)
    assert not parsed.problems


@pytest.mark.parametrize(
    ("value", "reason", "sentence"),
    [
        (b"everyone=5", "default_ring", "there is no ring further out whose version its users could keep"),
        (b"erly=5", "unknown_ring", "Did you mean early?"),
        (b"early", "out_of_range", "HSET rings:{shop}:control holdback 'early=10'"),
        (b"early=101", "out_of_range", "a percentage from 0 to 100"),
        (b"early=5%", "out_of_range", "at most two decimals"),
        (b"early=0.001", "out_of_range", "at most two decimals"),
        (b"early=1 early=2", "out_of_range", "holdback names early twice"),
        (b"\xff=1", "unknown_ring", "holdback names no ring of shop"),
    ],
)
def test_a_bad_one_refuses_the_hash_and_says_the_remedy(value: bytes, reason: str, sentence: str) -> None:
    before = Live(holdbacks={"early": 500})
    parsed = judged(value, before, kill=b"canary")
    assert [problem.reason for problem in parsed.problems] == [reason]
    assert sentence in parsed.problems[0].message
    assert parsed.live == before


def test_absence_lifts_nothing_until_the_weights_prove_that_nobody_flushed() -> None:
    before = Live(holdbacks={"early": 500})
    gone = parse(RawService(), SHOP, before)
    assert gone.live.holdbacks == {"early": 500}
    assert "holdback ''" in gone.problems[0].message
    assert parse(RawService(weights={b"canary": b"1"}), SHOP, before).live.holdbacks == {}
    assert fit(before, replace(SHOP, rings=("canary", "everyone"))).holdbacks == {}


def test_changes_are_said_and_others_can_read_them() -> None:
    after = Live(holdbacks={"canary": 1000, "early": 50})
    assert say_changes(SHOP, Live(holdbacks={"canary": 500}), after) == [
        "canary holds back 5 → 10 percent of its users",
        "early holds back 0 → 0.5 percent of its users",
    ]
    assert judged(say_holdbacks(after).encode()).live.holdbacks == after.holdbacks


def test_it_survives_on_disk(state_dir: Path) -> None:
    live = Live(holdbacks={"early": 250})
    save(state_dir, live, SHOP, 1_800_000_000.0)
    assert load(state_dir, SHOP) == live


def test_it_is_folded_into_the_snapshot() -> None:
    text = """
services:
  shop:
    versions: {v1: {endpoints: ["http://127.0.0.1:1"]}, v2: {endpoints: ["http://127.0.0.1:2"]}}
    rings: [{name: early, version: v2}, {name: everyone, version: v1}]
"""
    spec = snapshot_spec(parse_settings(text, "x.yaml", {}), {"shop": Live(holdbacks={"early": 50, "gone": 1})}, 1)
    assert [ring.holdback for ring in spec.services[0].rings] == [50, 0]


async def test_one_hset_holds_back_and_a_start_without_redis_goes_on_with_it(
    redis_server: Server, redis_client: Redis, state_dir: Path
) -> None:
    async with Watched(redis_server.url, state_dir) as watched:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "5")
        redis_server.redis_cli("HSET", CONTROL, "holdback", "early=50")
        await until(lambda: watched.live.holdbacks == {"early": 5000})
        assert watched.diary.has("early holds back 0 → 50 percent of its users")

        async def is_in_force() -> bool:
            said = await in_force(redis_client, SHOP)
            return said is not None and said.holdbacks == {"early": 5000}

        await until(is_in_force)
        redis_server.redis_cli("HSET", CONTROL, "holdback", "early=many")
        await until(lambda: watched.reasons == ["out_of_range"])
        assert watched.live.holdbacks == {"early": 5000}
        redis_server.redis_cli("HSET", CONTROL, "holdback", "early=40")
        await until(lambda: watched.live.holdbacks == {"early": 4000})
    redis_server.running.stop()
    async with Watched(redis_server.url, state_dir) as again:
        assert again.live.holdbacks == {"early": 4000}


# -- the proxy, and words ----------------------------------------------------------------------------------------------


async def test_who_is_held_back_falls_outward_beyond_the_version_they_keep_and_is_not_copied_to_it() -> None:
    spec = shop((1,), (2,))
    rings = (
        replace(spec.rings[0], version="v2", holdback=5000, mirror=MirrorSpec("v1")),
        replace(spec.rings[1], version="v1"),
        spec.rings[2],
    )
    async with running_plane(snapshot(replace(spec, rings=rings))) as router:
        lanes = [lane for lane in router.plane.all_lanes() if lane.ring == "canary" and lane.reason != "override"]
        found = {(lane.version, lane.outer, lane.mirror is not None) for lane in lanes if lane.reason != "propagated"}
        assert found == {("v2", ("v1",), True), ("v1", (), False)}


def test_explain_says_it_in_words(tmp_path: Path) -> None:
    snapshot_of = with_holdback(5000)
    held = next(n for n in range(1000) if bucket_of(b"user-%d" % n, holdback_salt("early")) < 5000)
    free = next(n for n in range(1000) if bucket_of(b"user-%d" % n, holdback_salt("early")) >= 5000)
    assert decided(snapshot_of, UserKey(b"user-%d" % held)).version == "v1"
    for number, words in ((held, "held back: keeps v1"), (free, "not held back")):
        done = said_by_explain(snapshot_of, f"user-{number}", "text")
        assert "holdback: 50.00 % of early keep v1; the user is at" in done
        assert words in done
    assert done.count("keeps v1") == 0
    found = json.loads(said_by_explain(snapshot_of, f"user-{held}", "json"))
    assert found["holdback"]["held"] is True
    assert found["holdback"]["version"] == found["decision"]["version"] == "v1"
    assert found["holdback"]["percent"] == 50.0


def said_by_explain(spec: ServiceSpec, user: str, output: str) -> str:
    with admin({"snapshot": msgspec.to_builtins(snapshot(spec))}) as url:
        done = CliRunner().invoke(main, ["explain", "--live", "--admin", url, "--user", user, "-o", output])
    assert done.exit_code == 0, done.output
    return done.stdout
