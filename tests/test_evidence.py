"""The evidence of a rollout on its way: real workers, control's side of their channel, a real Redis, and a reader."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from router.config.values import Address
from router.control.evidence import Evidence, acks_key, evidence_key, read_acks, read_tick
from router.control.gathering import Following
from router.control.hub import Hub
from router.control.keys import key_of
from router.control.link import make_client
from router.core.hashing import BUCKETS, fingerprint
from router.core.spec import ListenerSpec, ServiceSpec, SnapshotSpec, SocketSpec, TimeoutsSpec
from router.process.pulse import Pulse
from router.process.sockets import listening_sockets
from router.proxy.headcount import headcount_page
from router.telemetry.evidence import FAILED, ArmKey, TickPart, pack
from router.telemetry.messages import Users
from tests.house import read_head, shop, snapshot
from tests.redis_fixture import Diary, Server
from tests.running import ask_on, rings_of, running_router
from tests.troubles import Backend, backends
from tests.waiting import until, until_said

TICK = 1.0
MILLION = 1_000_000
EARLY, EVERYONE = ("early", "v2", "hash"), ("everyone", "v1", "hash")
SHOP = Following("v2", TICK, MILLION, 60.0)
ARRIVED = [3, 2, 1]


@dataclass
class Instance:
    """Control's part of one router in this process, and its workers, each a process of its own."""

    hub: Hub
    evidence: Evidence
    start: Callable[[int], subprocess.Popen[bytes]]
    """The worker of a slot, in a process of its own."""
    children: list[subprocess.Popen[bytes]]
    port: int
    client: Redis
    diary: Diary
    is_up: bool = True

    async def ask(self, user: str, times: int = 1, connections: int = 1) -> Counter[str]:
        """The versions that answered."""
        found: Counter[str] = Counter()
        for _ in range(connections):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for _ in range(times):
                found[(await ask_on(reader, writer, user))[1]] += 1
            writer.close()
        return found

    async def parts(self) -> dict[int, TickPart]:
        """Tick → this instance's part, of all ticks that Redis has."""
        names = [name.decode() async for name in self.client.scan_iter(match=evidence_key("shop", 0)[:-1] + "*")]
        ticks = sorted(int(name.rpartition(":")[2]) for name in names)
        read = {tick: await read_tick(self.client, "shop", tick) for tick in ticks}
        return {tick: parts["here"] for tick, parts in read.items() if "here" in parts}

    async def met(self) -> dict[tuple[ArmKey, int], Counter[int]]:
        """Arm and digest → codes, of all ticks together."""
        found: dict[tuple[ArmKey, int], Counter[int]] = {}
        for part in (await self.parts()).values():
            for arm, users in part.finished.items():
                for digest, codes in users.items():
                    found.setdefault((arm, digest), Counter()).update(codes)
        return found

    async def requests(self, arm: ArmKey, user: str) -> int:
        return requests((await self.met()).get((arm, fingerprint(user.encode())), Counter()))

    async def ack(self) -> dict[str, int]:
        """The weights that it has said all its workers have."""
        said = (await read_acks(self.client, "shop")).get("here")
        return {} if said is None else said.weights


def requests(codes: Counter[int]) -> int:
    return sum(count for code, count in codes.items() if code < FAILED)


def users_of(arm: ArmKey, count: int) -> list[str]:
    names = (f"user-{number}" for number in range(100 * count))
    return [name for name in names if (fingerprint(name.encode()) % BUCKETS < 2500) == (arm == EARLY)][:count]


def service(v1: int, v2: int, early: int = 2500) -> ServiceSpec:
    return shop((v1,), (v2,), canary=0, early=early, timeouts=TimeoutsSpec(0.5, first_byte=2.5, between_bytes=2.5))


def state(one: ServiceSpec, port: int, generation: int = 1) -> SnapshotSpec:
    return snapshot(one, generation=generation, listener=ListenerSpec(sockets=(SocketSpec(f"127.0.0.1:{port}"),)))


@asynccontextmanager
async def instance(directory: Path, url: str, one: ServiceSpec, workers: int = 2) -> AsyncIterator[Instance]:
    sockets = listening_sockets(Address("127.0.0.1", 0), 1)
    port = sockets[0].getsockname()[1]
    sockets += listening_sockets(Address("127.0.0.1", port), workers - 1, beside=True)
    page, numbers = headcount_page(workers), [one.fileno() for one in sockets]
    hub, diary = Hub(directory, workers), Diary()
    client = make_client(url)
    here: Instance
    evidence = Evidence(url, "here", hub, lambda _: ARRIVED, lambda: here.is_up, diary)
    pulses = [Pulse.create() for _ in range(workers)]

    def start(slot: int) -> subprocess.Popen[bytes]:
        others = ",".join(str(number) for number in numbers if number != numbers[slot])
        command = [sys.executable, "-P", "-m", "router.process.worker", "--parent", str(os.getpid()), "--runtime",
                   str(directory), "--slot", str(slot), "--workers", str(workers), "--headcount", str(page),
                   "--orphans", "1", "--listen", f"0:{numbers[slot]}:{others}",
                   "--pulse", str(pulses[slot].descriptor)]  # fmt: skip
        descriptors = (*numbers, page, pulses[slot].descriptor)
        return subprocess.Popen(command, pass_fds=descriptors, process_group=0)

    children: list[subprocess.Popen[bytes]] = []
    here = Instance(hub, evidence, start, children, port, client, diary)
    await hub.start()
    hub.publish(state(one, port))
    evidence.start()
    try:
        children.extend(map(start, range(workers)))
        await until(lambda: hub.applied_everywhere == 1, within=20)
        yield here
    finally:
        await evidence.stop()
        await hub.stop()
        await client.aclose()
        for child in here.children:
            child.kill()
            child.wait()
        for pulse in pulses:
            pulse.close()
        for listener in sockets:
            listener.close()
        os.close(page)


@asynccontextmanager
async def two_versions(directory: Path, url: str, workers: int = 2) -> AsyncIterator[tuple[Instance, Backend, Backend]]:
    async with backends("v1", "v2") as (v1, v2):
        async with instance(directory, url, service(v1.port, v2.port), workers) as here:
            yield here, v1, v2


async def test_users_of_all_workers_are_one_with_all_their_requests(tmp_path: Path, redis_server: Server) -> None:
    async with two_versions(tmp_path, redis_server.url) as (here, _, _):
        here.evidence.follow({"shop": SHOP})
        inner, outer = users_of(EARLY, 1)[0], users_of(EVERYONE, 1)[0]
        asked = {EARLY: 0, EVERYONE: 0}

        def have_both_answered() -> bool:
            counters = [worker.counters.rings for worker in here.hub.workers.values()]
            return len(counters) == 2 and all(("shop", "early", "v2") in rings for rings in counters)

        async def more() -> bool:
            asked[EARLY] += (await here.ask(inner, 3, connections=4))["v2"]
            asked[EVERYONE] += (await here.ask(outer, 2))["v1"]
            return have_both_answered()

        await until(more, within=20)

        async def is_told() -> bool:
            return [await here.requests(EARLY, inner), await here.requests(EVERYONE, outer)] == [*asked.values()]

        await until(is_told, within=10)
        assert set(await here.met()) == {(EARLY, fingerprint(inner.encode())), (EVERYONE, fingerprint(outer.encode()))}
        parts = await here.parts()
        assert sum(part.all_requests for part in parts.values()) == sum(asked.values())
        assert {tuple(part.arrived) for part in parts.values()} == {(3, 2, 1)}
        assert {part.open_breakers for part in parts.values()} == {0}
        last = max(parts)
        await until(lambda: is_done(here, last), within=5)
        (part,) = (await read_tick(here.client, "shop", last)).values()
        assert part.seconds == pytest.approx(TICK, abs=0.01)
        assert 7000 <= await here.client.ttl(evidence_key("shop", last)) <= 7200


async def is_done(here: Instance, tick: int) -> bool:
    parts = await read_tick(here.client, "shop", tick)
    return "here" in parts and parts["here"].is_done


async def test_what_hangs_is_in_redis_before_it_ends(tmp_path: Path, redis_server: Server) -> None:
    async with two_versions(tmp_path, redis_server.url, workers=1) as (here, _, v2):
        here.evidence.follow({"shop": SHOP})
        v2.serve = v2.hangs
        (user,) = users_of(EARLY, 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(f"POST / HTTP/1.1\r\nHost: shop\r\nX-User-Id: {user}\r\nContent-Length: 0\r\n\r\n".encode())

        async def hangs() -> bool:
            pending = [part.pending for part in (await here.parts()).values() if part.pending]
            return bool(pending) and list(pending[-1][EARLY]) == [fingerprint(user.encode())]

        await until(hangs, within=5)
        assert await here.met() == {}
        assert (await read_head(reader)).startswith(b"HTTP/1.1 504 ")
        writer.close()
        await until(lambda: here.requests(EARLY, user), within=5)
        (codes,) = (await here.met()).values()
        assert codes[FAILED] == 1
        latest = max(await here.parts())
        await until(lambda: is_done(here, latest + 1), within=5)
        assert (await here.parts())[latest + 1].pending == {}


async def test_workers_that_send_the_candidates_users_outward_are_told_of(tmp_path: Path, redis_server: Server) -> None:
    async with two_versions(tmp_path, redis_server.url) as (here, _, v2):
        here.evidence.follow({"shop": SHOP})
        (user,) = users_of(EARLY, 1)
        await v2.dies()

        async def both_do() -> bool:
            assert set(await here.ask(user, connections=4)) == {"v1"}
            return any(part.open_breakers == 2 for part in (await here.parts()).values())

        await until(both_do, within=10)
        assert await here.met() == {}  # where they came from nobody chose
        parts = (await here.parts()).values()
        assert sum(part.all_requests for part in parts) > 0


async def test_a_service_that_is_not_followed_leaves_nothing_in_redis(tmp_path: Path, redis_server: Server) -> None:
    async with running_router(tmp_path, redis=redis_server.url) as router:
        await rings_of(router, [f"user-{number}" for number in range(100)])
        pattern = r'ringrouter_requests_total\{service="shop"'
        await until_said(lambda: router.metric(pattern) >= 100, within=5)  # the report that would have brought it came
        keys = redis_server.redis_cli("KEYS", key_of("shop", "*"))
        assert "status" in keys
        assert "evidence" not in keys
        assert "acks" not in keys


async def test_an_end_of_following_is_told_to_the_workers_and_a_new_worker_is_told_to_begin(
    tmp_path: Path, redis_server: Server
) -> None:
    async with two_versions(tmp_path, redis_server.url) as (here, _, _):
        here.evidence.follow({"shop": SHOP})
        (user,) = users_of(EARLY, 1)
        here.children[0].kill()
        here.children[1].kill()
        for child in here.children:
            child.wait()
        here.children = [here.start(slot) for slot in range(2)]
        await until(lambda: here.hub.applied_everywhere == 1, within=20)
        asked = (await here.ask(user, 5))["v2"]
        await until(lambda: told(here, user, asked), within=5)
        here.evidence.follow({})
        heard: list[Users] = []
        here.hub.on_users = lambda _, users: heard.append(users)
        reported = here.hub.finished["shop"]
        await here.ask(user, 5)
        await until(lambda: here.hub.finished["shop"] == reported + 5, within=5)
        assert not any(users.finished for users in heard)
        assert await here.requests(EARLY, user) == asked


async def told(here: Instance, user: str, asked: int) -> bool:
    return await here.requests(EARLY, user) == asked


async def test_an_ack_comes_when_the_last_worker_routes_by_it_and_not_before(
    tmp_path: Path, redis_server: Server
) -> None:
    async with backends("v1", "v2") as (v1, v2):
        before = service(v1.port, v2.port)
        async with instance(tmp_path, redis_server.url, before) as here:
            here.evidence.follow({"shop": SHOP})
            await until(lambda: said(here, 2500))
            stopped = here.children[0]
            stopped.send_signal(signal.SIGSTOP)
            now = replace(service(v1.port, v2.port, early=5000), killed=("canary",))
            here.hub.publish(state(now, here.port, generation=2))
            await until(lambda: max(worker.generation for worker in here.hub.workers.values()) == 2)
            first = (await read_acks(here.client, "shop"))["here"].at
            await until(lambda: is_said_again(here, first), within=10)
            assert (await here.ack())["early"] == 2500  # one of them has not
            stopped.send_signal(signal.SIGCONT)
            await until(lambda: said(here, 5000))
            (ack,) = (await read_acks(here.client, "shop")).values()
            assert ack.weights == {"canary": 0, "early": 5000}
            assert ack.versions == {"canary": "v2", "early": "v2", "everyone": "v1"}
            assert ack.killed == ["canary"]
            assert ack.since <= ack.at <= time.time() + 0.1
            await until(lambda: is_said_again(here, ack.at), within=10)
            (again,) = (await read_acks(here.client, "shop")).values()
            assert again.since == pytest.approx(ack.since, abs=0.1)  # clocks that are compared anew differ by a little
            await here.evidence.stop()
            assert await read_acks(here.client, "shop") == {}  # nobody is to wait for one that is gone


async def test_an_ack_is_written_at_its_news_and_not_with_every_part(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    hub = Hub(tmp_path, 1)
    stands_still = 0.0  # so that it is never time to say the same again
    evidence = Evidence(redis_server.url, "here", hub, lambda _: ARRIVED, lambda: True, Diary(), lambda: stands_still)
    evidence.start()
    evidence.follow({"shop": SHOP})

    async def weights() -> list[int]:
        return [ack.weights["early"] for ack in (await read_acks(redis_client, "shop")).values()]

    async def is_now(wanted: list[int]) -> bool:
        return await weights() == wanted

    async def has_parts() -> bool:
        return bool(await redis_client.keys(evidence_key("shop", 0)[:-1] + "*"))

    hub.on_applied(state(service(1, 2), 1))
    await until(lambda: is_now([2500]))
    await redis_client.flushall()
    await until(has_parts)
    assert await weights() == []
    hub.on_applied(state(service(1, 2, early=5000), 1, generation=2))
    await until(lambda: is_now([5000]))
    await evidence.stop()


async def said(here: Instance, early: int) -> bool:
    return (await here.ack()).get("early") == early


async def is_said_again(here: Instance, before: float) -> bool:
    return (await read_acks(here.client, "shop"))["here"].at > before


async def test_instances_tell_of_the_same_tick_however_their_clocks_go(
    tmp_path: Path, redis_server: Server, redis_client: Redis
) -> None:
    evidence = []
    for name, ahead in (("a", 0.0), ("b", 12_345.6)):
        hub = Hub(tmp_path / name, 1)
        evidence.append(
            Evidence(
                redis_server.url, name, hub, lambda _: ARRIVED, lambda: True, Diary(),
                lambda ahead=ahead: time.monotonic() + ahead,
            )
        )  # fmt: skip
        evidence[-1].start()
        evidence[-1].follow({"shop": SHOP})

    async def tell_of_now() -> bool:
        seconds, _ = await redis_client.time()
        parts = await read_tick(redis_client, "shop", seconds - 1)
        return sorted(parts) == ["a", "b"] and all(part.is_done for part in parts.values())

    await until(tell_of_now, within=10)
    for one in evidence:
        await one.stop()


async def test_while_redis_is_away_nothing_waits_and_nothing_is_lost(tmp_path: Path, redis_server: Server) -> None:
    async with two_versions(tmp_path, redis_server.url, workers=1) as (here, _, _):
        here.evidence.follow({"shop": SHOP})
        (user,) = users_of(EARLY, 1)
        await here.ask(user)
        await until(lambda: told(here, user, 1), within=5)
        (begun,) = [tick for tick, part in (await here.parts()).items() if part.finished]
        await until(lambda: is_done(here, begun), within=5)
        redis_server.running.stop()
        await here.ask(user, 3)
        gathering = here.evidence._gathered["shop"]
        await until(lambda: len(gathering.waiting) >= 3, within=10)
        assert here.diary.count("could not be written") == 1
        redis_server.start()
        await until(lambda: told(here, user, 3), within=10)
        missed = sorted(await here.parts())
        assert begun not in missed  # what had been written went with the server that had it
        await until(lambda: not gathering.waiting)
        assert missed == list(range(missed[0], missed[-1] + 1))


async def test_junk_beside_the_evidence_harms_nobody(tmp_path: Path, redis_server: Server, redis_client: Redis) -> None:
    key, good = evidence_key("shop", 7), pack(TickPart(all_requests=5))
    junk = {"a": b"\xff\xfe", "b": b"", "c": b"\x90", "d": json.dumps({"all_requests": "x"}), b"\xff": good, "e": good}
    await redis_client.hset(key, mapping=junk)
    assert await read_tick(redis_client, "shop", 7) == {"e": TickPart(all_requests=5)}
    assert await read_tick(redis_client, "shop", 8) == {}
    await redis_client.set(evidence_key("shop", 9), "hello")
    assert await read_tick(redis_client, "shop", 9) == {}
    await redis_client.hset(acks_key("shop"), mapping={"a": "[" * 100_000, "b": "{}", "c": b"\xff", "d": '{"at": "x"}'})
    assert await read_acks(redis_client, "shop") == {}
    await redis_client.set(acks_key("shop"), "hello")
    assert await read_acks(redis_client, "shop") == {}

    async with two_versions(tmp_path, redis_server.url, workers=1) as (here, _, _):
        here.evidence.follow({"shop": SHOP})
        (user,) = users_of(EARLY, 1)
        await here.ask(user)
        await until(lambda: told(here, user, 1), within=5)
        await until(lambda: here.diary.has("rings:{shop}:acks is not a hash, so the rollout stands still: DEL it"))
        await redis_client.delete(acks_key("shop"))
        await until(lambda: said(here, 2500), within=5)


async def test_a_router_without_rights_says_which_it_needs(tmp_path: Path, redis_server: Server) -> None:
    redis_server.redis_cli("ACL", "SETUSER", "poor", "on", ">secret", "~rings:*", "+@read", "+@connection", "+time")
    url = redis_server.url.replace("redis://", "redis://poor:secret@")
    hub, diary = Hub(tmp_path, 1), Diary()
    evidence = Evidence(url, "here", hub, lambda _: ARRIVED, lambda: True, diary)
    evidence.start()
    evidence.follow({"shop": SHOP})
    await until(lambda: diary.has("allow it +time +hset +expire on rings:*:evidence:* and rings:*:acks"), within=5)
    await evidence.stop()
    assert diary.count("allow it") == 1
