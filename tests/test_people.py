"""People: who is seen further out than before, and about how many would move, with a real Redis and a real router."""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from router.cli.main import main
from router.control.crowd import Crowd
from router.control.keys import key_of
from router.control.people import KEPT_SECONDS, RANGE, People, about, day_of, estimate, sketch_key
from router.core.hashing import BUCKETS, UserKey, bucket_of, fingerprint
from router.core.moves import moves
from router.core.snapshot import compile_service
from router.core.spec import RingSpec, ServiceSpec
from router.telemetry.messages import Seen
from tests.house import fixed, header, raw_backend, read_head, running_plane, shop, snapshot
from tests.redis_fixture import Diary, Server
from tests.running import BODY, rings_of, running_router, some_more, steady_load
from tests.waiting import until, until_said

NOW = 1_800_000_000.0


def service(canary: int = 500, early: int = 2000, **changes: object) -> ServiceSpec:
    return shop((1,), (2,), canary=canary, early=early, **changes)


def seen(generation: int, **users: int) -> Seen:
    return Seen(generation, {"shop": {fingerprint(name.encode()): place for name, place in users.items()}})


def crowd(most: int = 100) -> Crowd:
    made = Crowd(most)
    made.installed(snapshot(service(), generation=1))
    return made


# -- flips -------------------------------------------------------------------------------------------------------------


def test_who_moves_inward_is_no_flip_and_who_moves_outward_is_one() -> None:
    people = crowd()
    people.saw(seen(1, ann=2, bob=1, eve=0), 0)
    people.saw(seen(2, ann=0, bob=1, eve=0), 0)
    assert people.flips["shop"] == 0
    people.saw(seen(3, ann=2, bob=0, eve=1), 0)
    assert people.flips["shop"] == 2
    people.saw(seen(3, ann=2, eve=1), 0)
    assert people.flips["shop"] == 2


def test_what_an_older_generation_says_after_a_newer_one_counts_for_nothing() -> None:
    people = crowd()
    people.saw(seen(2, ann=0), 0)
    people.saw(seen(1, ann=2), 0)  # a worker that has not widened yet
    people.saw(seen(2, ann=0), 0)
    people.saw(seen(3, ann=0), 0)
    assert people.flips["shop"] == 0


def test_places_among_other_rings_are_not_compared() -> None:
    people = crowd()
    people.saw(seen(1, ann=0, bob=0), 0)
    rings = (RingSpec("staff", "v2", 100), RingSpec("canary", "v2", 500), RingSpec("everyone", "v1"))
    people.installed(snapshot(service(rings=rings), generation=2))
    people.saw(seen(1, bob=2), 0)
    people.saw(seen(2, ann=1, bob=1), 0)
    assert people.flips["shop"] == 0
    people.installed(snapshot(service(200, rings=rings), generation=3))
    people.saw(seen(3, ann=2), 0)
    assert people.flips["shop"] == 1


def test_the_crowd_is_bounded_and_forgets_whom_it_has_not_seen_for_long() -> None:
    people = crowd(most=3)
    people.saw(seen(1, a=0, b=0, c=0), 0)
    people.saw(seen(1, a=0), 0)
    for number in range(4):
        people.saw(seen(1, a=0, **{f"d{number}": 0}), 0)
    assert len(people) <= 6
    people.saw(seen(2, a=1, b=1), 0)
    assert people.flips["shop"] == 1  # a's: of b nothing is known any more


sightings = st.dictionaries(st.integers(0, 9), st.integers(0, 2), max_size=6)


@given(
    most=st.integers(1, 8),
    said=st.lists(
        st.tuples(
            st.integers(1, 4), st.dictionaries(st.integers(0, 9), st.integers(0, 2), max_size=6), st.integers(0, 1)
        ),
        max_size=30,
    ),
)
def test_the_last_ones_are_remembered_whatever_was_said(most: int, said: list[tuple[int, dict[int, int], int]]) -> None:
    """Against a table that remembers everybody: as long as no more users than that were seen, they say the same."""
    small, large = crowd(most), crowd(1000)
    met: set[int] = set()
    for generation, users, mark in said:
        met |= users.keys()
        found, wanted = (one.saw(Seen(generation, {"shop": dict(users)}), mark) for one in (small, large))
        assert len(small) <= 2 * (most + 6)
        if len(met) <= most:
            assert (found, small.flips, small.arrived("shop")) == (wanted, large.flips, large.arrived("shop"))
    assert len(large) == len(met)
    assert sum(small.arrived("shop")) <= len(met)  # nobody twice


def test_a_user_is_handed_on_once_for_each_mark() -> None:
    people = crowd()
    assert sorted(people.saw(seen(1, a=0, b=0), 7)["shop"]) == sorted(map(fingerprint, (b"a", b"b")))
    assert people.saw(seen(1, a=0, c=0), 7) == {"shop": [fingerprint(b"c")]}
    assert people.saw(seen(1, a=0, b=0, c=0), 7) == {}
    assert len(people.saw(seen(1, a=0, b=0, c=0), 8)["shop"]) == 3
    assert people.saw(Seen(1, {"unknown": {1: 0}}), 8) == {}


async def test_a_worker_notes_whom_the_hash_sorted_and_nobody_else_by_generation() -> None:
    async with raw_backend(fixed(BODY % b"ok")) as port:
        spec = shop((port,), (port,), canary=500, early=2000)
        async with running_plane(snapshot(spec, generation=1)) as router:
            reader, writer = await router.connect()

            async def ask(fields: str) -> str:
                writer.write(f"GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode())
                head = await read_head(reader)
                await reader.readexactly(2)
                return header(head, "x-ring")[0]

            places = {"canary": 0, "early": 1, "everyone": 2}
            wanted = {}
            for name in (f"user-{number}" for number in range(50)):
                wanted[fingerprint(name.encode())] = places[await ask(f"X-User-Id: {name}\r\n")]
            await ask("")  # nobody
            assert await ask("X-User-Id: ruled\r\nX-Ring: canary\r\n") == "canary"
            router.plane.install(snapshot(shop((port,), (port,), canary=10_000, early=0), generation=2))
            await ask("X-User-Id: user-1\r\n")
            assert router.plane.sightings.take() == [
                Seen(1, {"shop": wanted}), Seen(2, {"shop": {fingerprint(b"user-1"): 0}}),
            ]  # fmt: skip
            assert router.plane.sightings.take() == []
            for generation in range(3, 13):
                router.plane.install(snapshot(spec, generation=generation))
                await ask("X-User-Id: user-1\r\n")
            assert [one.generation for one in router.plane.sightings.take()] == [9, 10, 11, 12]
            writer.close()


# -- who moves ---------------------------------------------------------------------------------------------------------

weights = st.lists(st.integers(0, 3333), min_size=3, max_size=3)


@given(weights, weights, st.sets(st.sampled_from(["r0", "r1", "r2"])), st.integers(0, BUCKETS - 1))
def test_moves_say_of_every_bucket_where_it_goes(
    before: list[int], after: list[int], killed: set[str], at: int
) -> None:
    def made(points: list[int], dead: Iterable[str]) -> ServiceSpec:
        rings = [RingSpec(f"r{number}", "v2", weight) for number, weight in enumerate(points)]
        return service(rings=(*rings, RingSpec("everyone", "v1")), killed=tuple(dead))

    old, new = compile_service(made(before, ())), compile_service(made(after, killed))

    def ring(bucket: int, compiled: object) -> str:
        return compiled.by_hash[bisect_right(compiled.bounds, bucket)].ring  # type: ignore[attr-defined]

    found = moves(old, new)
    whose = [(one.before, one.after) for one in found for first, last in one.spans if first <= at < last]
    was, is_now = ring(at, old), ring(at, new)
    assert whose == ([] if was == is_now else [(was, is_now)])
    assert sum(one.buckets for one in found) <= BUCKETS


# -- sketches ----------------------------------------------------------------------------------------------------------


async def sketched(client: Redis, names: Iterable[str]) -> People:
    """What these users leave in Redis."""
    names = list(names)
    url = f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0"
    parts = len({bucket_of(name.encode()) // RANGE for name in names})
    before = await sketches_written(client)

    async def is_written() -> bool:
        return await sketches_written(client) >= before + parts

    people = People(url, lambda: True, Diary(), lambda: NOW, 0.01)
    people.installed(snapshot(service(), generation=1))
    people.saw(seen(1, **dict.fromkeys(names, 2)))
    people.start()
    await until(is_written, within=20)  # what is on its way when it stops is not
    await people.stop()
    return people


async def sketches_written(client: Redis) -> int:
    found = (await client.info("commandstats")).get("cmdstat_pfadd", {})
    return int(found.get("calls", 0))


async def test_people_are_counted_by_parts_of_the_hash_space(redis_client: Redis) -> None:
    names = [f"user-{number}" for number in range(5000)]
    people = await sketched(redis_client, names)
    await sketched(redis_client, names[:2000])  # another instance sees the same users

    async def both_there() -> bool:
        return 4800 <= await about(redis_client, "shop", [(0, BUCKETS)], NOW) <= 5200

    await until(both_there, within=20)
    for first, last in ((0, 500), (500, 2500), (2500, 10_000), (150, 175)):
        real = sum(first <= bucket_of(name.encode()) < last for name in names)
        counted = await about(redis_client, "shop", [(first, last)], NOW)
        assert abs(counted - real) <= max(8, real // 20), (first, last)
    assert 4800 <= await about(redis_client, "shop", [(0, BUCKETS)], NOW + 86_400) <= 5200
    assert await about(redis_client, "shop", [(0, BUCKETS)], NOW + 2 * 86_400) == 0
    key = sketch_key("shop", 7, day_of(NOW))
    assert key == f"rings:{{shop}}:seen:07:{int(NOW // 86_400)}"
    assert 0 < await redis_client.ttl(key) <= KEPT_SECONDS
    assert people.flips == {}


async def test_nobody_is_counted_where_there_are_no_sketches(redis_client: Redis) -> None:
    assert await estimate(redis_client, "shop", [[(0, 500)]], NOW) is None


async def test_who_was_written_is_not_written_again_and_after_a_failure_is(redis_server: Server) -> None:
    diary, is_up = Diary(), [False]
    people = People(redis_server.url, lambda: is_up[0], diary, lambda: NOW, 0.01)
    people.installed(snapshot(service(), generation=1))
    people.start()
    people.saw(seen(1, ann=0))
    await until(lambda: people._failures == 1)
    assert not people._due  # thrown away: Redis is down
    is_up[0] = True
    people.saw(seen(1, ann=0))
    assert people._due
    await until(lambda: not people._due)
    people.saw(seen(1, ann=0))
    assert not people._due
    await people.stop()


async def test_a_redis_that_refuses_is_said_once(redis_server: Server, redis_client: Redis) -> None:
    await redis_client.acl_setuser("default", commands=["-pfadd"], enabled=True, nopass=True, keys=["*"])
    diary = Diary()
    people = People(redis_server.url, lambda: True, diary, lambda: NOW, 0.01)
    people.installed(snapshot(service(), generation=1))
    people.start()
    for failures in range(1, 4):
        people.saw(seen(1, ann=0))
        await until(lambda: people._failures == failures)  # noqa: B023 - it has ended before the next one
    await people.stop()
    assert diary.count("does not let this router keep count of people") == 1
    assert diary.has("+pfadd")


# -- a whole router ----------------------------------------------------------------------------------------------------


def run(*words: str) -> str:
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


async def test_a_widening_flips_nobody_and_a_narrowing_is_counted(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    async with running_router(tmp_path, redis=redis_server.url) as router:
        users = [f"user-{number}" for number in range(200)]
        asked = 0

        async def everybody_asks() -> None:
            """And control has heard of it."""
            nonlocal asked
            await rings_of(router, users)
            asked += len(users)
            await until_said(lambda: router.metric("ringrouter_requests_total") == asked)

        async def widths(canary: int, early: int) -> None:
            await redis_client.hset(key_of("shop", "weights"), mapping={"canary": canary, "early": early})
            await until_said(lambda: router.weights()["canary"] == canary and router.is_everywhere())

        def flips() -> float:
            return router.metric(r'ringrouter_ring_flips_total\{service="shop"\}')

        assert b'ringrouter_ring_flips_total{service="shop"} 0\n' in router.get("/metrics")
        await everybody_asks()
        for canary in (20, 40):
            await widths(canary, 20)
            await everybody_asks()
        assert flips() == 0
        await widths(5, 0)
        await everybody_asks()
        assert flips() == sum(500 <= bucket_of(UserKey(name.encode())) < 6000 for name in users)


async def test_the_commands_say_about_how_many_people_would_move(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    async with running_router(tmp_path, redis=redis_server.url) as router:
        config = str(router.config)
        words = ("weights", "set", "-c", config, "canary=50", "--dry-run")
        said = await asyncio.to_thread(run, *words)
        assert "early → canary (inward): 20 % of the hash space\n" in said
        assert "Redis has no sketches of who was seen in the last two days" in said
        async with steady_load(router, users=400) as tally:
            await some_more(tally, 800)

            async def are_counted() -> bool:
                return "people" in (await asyncio.to_thread(run, *words)).split("dry run")[0].split("\n", 2)[1]

            await until(are_counted, within=30)
        said = await asyncio.to_thread(run, *words)
        (line,) = [one for one in said.splitlines() if "early → canary" in one]
        people, everybody = (int(word) for word in line.replace(",", "").split() if word.isdigit() and word != "20")
        names = [f"user-{number}" for number in range(400)]
        moving = sum(500 <= bucket_of(name.encode()) < 2500 for name in names)
        assert abs(people - moving) <= 8
        assert abs(everybody - 400) <= 12
        assert "dry run: nothing was written" in said
        assert await redis_client.exists(key_of("shop", "weights")) == 0
        shown = await asyncio.to_thread(run, "simulate", "-c", config, "--set", "canary=25", "-o", "json")
        (inward,) = [one for one in json.loads(shown)["people"] if one["from"] == "early"]
        assert abs(inward["people"] - moving) <= 8
        shown = await asyncio.to_thread(run, "simulate", "-c", config, "--set", "canary=25")
        assert f"About {inward['people']} of " in shown


def test_without_redis_it_is_said_that_nobody_knows(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    config.write_text(
        "services: {shop: {versions: {v1: {endpoints: ['http://127.0.0.1:9']}}, "
        "rings: [{name: canary, version: v1, weight: 1}, {name: everyone, version: v1}]}}\n"
    )
    assert "cannot be said without Redis" in run("simulate", "-c", str(config), "--set", "canary=5")


@pytest.mark.parametrize("output", ["text", "json"])
def test_when_nobody_moves_nobody_is_counted(tmp_path: Path, output: str) -> None:
    config = tmp_path / "router.yaml"
    config.write_text(
        "services: {shop: {versions: {v1: {endpoints: ['http://127.0.0.1:9']}}, "
        "rings: [{name: canary, version: v1, weight: 1}, {name: everyone, version: v1}]}}\n"
    )
    assert "cannot be said" not in run("simulate", "-c", str(config), "--set", "canary=1", "-o", output)
