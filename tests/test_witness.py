"""What a worker counts of a service under a rollout, by user: real connections through a data plane that is watched."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from router.core.audience import IdentitySpec, KeySpec, TrustSpec
from router.core.hashing import BUCKETS, fingerprint
from router.core.request import UNKNOWN
from router.core.spec import BalanceSpec, ListenerSpec, ServiceSpec
from router.proxy.witness import MILLION
from router.telemetry.evidence import CLIENT_ERROR, FAILED, LEFT, SLICES, ArmKey, Pending, slice_of
from router.telemetry.messages import Users, Watched
from router.telemetry.meters import histogram_index
from router.trust.passes import sign_pass
from tests.house import RunningPlane, read_head, running_plane, shop, snapshot
from tests.test_edge_tunnel import HANDSHAKE, accept
from tests.troubles import CANARY, Backend, Client, backends, reset
from tests.waiting import until

EARLY, EVERYONE, CHOSEN = ("early", "v2", "hash"), ("everyone", "v1", "hash"), ("canary", "v2", "chosen")
KEYS = (KeySpec("k1", "a secret of at least thirty-two bytes"),)
ALL = Watched("shop", "v2", MILLION)


@dataclass
class House:
    """A plane that is watched; ``met`` is what it has told so far."""

    router: RunningPlane
    spec: ServiceSpec
    v1: Backend
    v2: Backend

    how: str = "answers"
    """What v2 does with its next request: answers, hangs, resets."""

    def __post_init__(self) -> None:
        self.v2.serve = self._obeys
        self.met: dict[tuple[ArmKey, int], Counter[int]] = {}
        self.dropped = 0

    async def _obeys(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await self.v2.takes(reader)
            if self.how == "hangs":
                await reader.read()
                return
            if self.how == "resets":
                reset(writer)
                return
            writer.write(self.v2.says(self.v2.status, head))

    def told(self) -> Users:
        users = self.router.plane.collect_users()
        assert users is not None
        for arm, some in users.finished.get("shop", {}).items():
            for digest, codes in some.items():
                self.met.setdefault((arm, digest), Counter()).update(codes)
        self.dropped += users.dropped.get("shop", 0)
        return users

    def of(self, arm: ArmKey, user: str) -> dict[str, int]:
        """A user's requests, and those that went wrong, by how."""
        self.told()
        codes = self.met.get((arm, fingerprint(user.encode())), Counter())
        wrong = {"failed": codes[FAILED], "refused": codes[CLIENT_ERROR], "left": codes[LEFT]}
        requests = sum(count for code, count in codes.items() if code < FAILED)
        return {"requests": requests, **{word: count for word, count in wrong.items() if count}}

    def pending(self) -> Pending:
        return self.told().pending.get("shop", {})

    def client(self, user: str, lines: str = "") -> Client:
        return Client(self.router, user, lines)


@asynccontextmanager
async def house(
    watched: Watched = ALL, listener: ListenerSpec | None = None, **changes: object
) -> AsyncIterator[House]:
    """Rings canary (nobody by hash) and early, on v2, a third of all; everyone on v1. Keys sign passes."""
    async with backends("v1", "v2") as (v1, v2):
        spec = shop((v1.port,), (v2.port,), canary=0, early=3300, **{"balance": BalanceSpec(slow_start=0), **changes})
        async with running_plane(replace(snapshot(spec, listener=listener), trust=TrustSpec(KEYS))) as router:
            router.plane.watch((watched,))
            yield House(router, spec, v1, v2)


def users_of(arm: ArmKey, count: int) -> list[str]:
    """Users whom the hash puts there."""
    is_inner = arm == EARLY
    names = (f"user-{number}" for number in range(100 * count))
    return [name for name in names if (fingerprint(name.encode()) % BUCKETS < 3300) == is_inner][:count]


async def test_each_request_counts_once_for_its_user_in_the_arm_that_answered() -> None:
    async with house() as here:
        inner, outer = users_of(EARLY, 3), users_of(EVERYONE, 5)
        for round_ in range(4):
            for user in (*inner, *outer[round_:]):
                assert (await here.client(user).ask()).status == 200
            here.told()
        assert [here.of(EARLY, user) for user in inner] == [{"requests": 4}] * 3
        assert [here.of(EVERYONE, user)["requests"] for user in outer] == [1, 2, 3, 4, 4]
        assert len(here.met) == 8  # nobody anywhere else
        assert all(0 <= slice_of(digest) < SLICES for _, digest in here.met)


async def test_how_requests_end_is_told_apart() -> None:
    async with house() as here:
        (user,) = users_of(EARLY, 1)
        here.v2.status = 503
        assert (await here.client(user).ask()).status == 503
        assert here.of(EARLY, user) == {"requests": 1, "failed": 1}
        here.v2.status = 404
        await here.client(user).ask()
        assert here.of(EARLY, user) == {"requests": 2, "failed": 1, "refused": 1}
        here.how = "resets"
        assert (await here.client(user).ask("POST", b"x")).status == 502
        assert here.of(EARLY, user) == {"requests": 3, "failed": 2, "refused": 1}
        here.how = "hangs"
        client = here.client(user)
        await client.send()
        await until(lambda: len(here.v2.heads) == 4)
        client.close()  # the client's own wish is no failure of the version
        await until(lambda: here.of(EARLY, user) == {"requests": 4, "failed": 2, "refused": 1, "left": 1})


async def test_an_answer_that_breaks_off_has_failed_though_its_status_was_good() -> None:
    async with house() as here:
        (user,) = users_of(EARLY, 1)

        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            await writer.drain()
            reset(writer)

        here.v2.serve = half
        with pytest.raises(EOFError):
            await here.client(user).ask()
        await until(lambda: here.of(EARLY, user) == {"requests": 1, "failed": 1})


async def test_a_client_that_stops_reading_has_left_and_nobody_failed() -> None:
    async with house(listener=ListenerSpec(send_timeout=0.2)) as here:
        (user,) = users_of(EARLY, 1)

        async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + bytes(50_000_000))
            await reader.read()

        here.v2.serve = floods
        client = here.client(user)
        await client.send()
        await until(lambda: here.of(EARLY, user) == {"requests": 1, "left": 1})
        client.close()


async def test_what_the_router_breaks_off_itself_says_nothing_of_a_version() -> None:
    async with house() as here:
        here.how = "hangs"
        client = here.client(users_of(EARLY, 1)[0])
        await client.send()
        await until(lambda: len(here.v2.heads) == 1)
        here.router.plane.close()
        await until(lambda: not here.router.plane._connections)
        assert here.told() == Users({}, {}, {})


async def test_a_request_that_hangs_is_told_while_it_does_and_fails_at_last() -> None:
    async with house() as here:
        (user,) = users_of(EARLY, 1)
        here.how = "hangs"
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(here.client(user).ask("POST", b"x")) for _ in range(2)]
            await until(lambda: len(here.pending().get(EARLY, {}).get(fingerprint(user.encode()), ())) == 2)
            (ages,) = here.pending()[EARLY].values()
            longest = histogram_index(int((time.monotonic() - began) * 1e6))
            assert all(histogram_index(500_000) <= age <= longest for age in ages)
            assert here.met == {}  # none has ended yet
        assert {task.result().status for task in answers} == {504}
        assert here.of(EARLY, user) == {"requests": 2, "failed": 2}
        assert here.pending() == {}


async def test_forced_requests_and_those_of_nobody_are_no_evidence() -> None:
    async with house() as here:
        (user,) = users_of(EVERYONE, 1)
        expires = int(time.time()) + 3600
        held = sign_pass(KEYS, service="shop", ring="early", user="", expires_at=expires, pass_id="p-1")
        answer = await here.client(user, f"X-Ring-Pass: {held}\r\n").ask()
        assert answer.version == "v2"
        assert (await here.client("").ask()).version == "v1"
        (inner,) = users_of(EARLY, 1)
        await here.v2.dies()
        assert (await here.client(inner).ask()).reason == "fallback"
        here.told()
        assert here.met == {}
        await here.client(user).ask()
        assert here.of(EVERYONE, user) == {"requests": 1}


async def test_members_and_those_of_a_rule_are_an_arm_of_their_own() -> None:
    async with house() as here:
        (user,) = users_of(EVERYONE, 1)
        await here.client(user, CANARY).ask()
        await here.client("", CANARY).ask()  # nobody knows who
        assert here.of(CHOSEN, user) == {"requests": 1}
        assert len(here.met) == 1


async def test_of_those_without_the_candidate_a_sample_counts_always_the_same_and_of_its_users_all() -> None:
    share = 250_000
    async with house(Watched("shop", "v2", share)) as here:
        inner, outer = users_of(EARLY, 20), users_of(EVERYONE, 400)
        kept = [user for user in outer if fingerprint(user.encode()) // 640_000 % MILLION < share]
        assert 60 <= len(kept) <= 140  # 100, and four sigma
        client, lines = here.client(""), "X-User-Id: {}\r\n"
        for _ in range(2):
            for user in (*inner, *outer):
                client.lines = lines.format(user)
                await client.ask()
        here.told()
        assert {digest for arm, digest in here.met if arm == EARLY} == {fingerprint(user.encode()) for user in inner}
        counted = {digest: sum(codes.values()) for (arm, digest), codes in here.met.items() if arm == EVERYONE}
        assert counted == {fingerprint(user.encode()): 2 for user in kept}
        assert here.dropped == 0


async def test_new_snapshots_lose_nobody_and_nobody_counts_when_the_watch_is_over() -> None:
    async with house() as here:
        inner, outer = users_of(EARLY, 1)[0], users_of(EVERYONE, 1)[0]
        here.how = "hangs"
        client = here.client(inner)
        await client.send("POST", b"x")
        await until(lambda: len(here.v2.heads) == 1)
        await here.client(outer).ask()
        plane = here.router.plane
        wider = shop((here.v1.port,), (here.v2.port,), canary=0, early=10_000)
        plane.install(replace(snapshot(wider, generation=2), trust=TrustSpec(KEYS)))
        here.how = "answers"
        assert (await here.client(outer).ask()).version == "v2"
        assert here.of(EVERYONE, outer) == {"requests": 1}
        assert here.of(EARLY, outer) == {"requests": 1}
        assert (await client.answer()).status == 504  # of the snapshot before
        assert here.of(EARLY, inner) == {"requests": 1, "failed": 1}
        here.how = "hangs"
        await client.send("POST", b"x")
        await until(lambda: len(here.v2.heads) == 3)
        plane.watch(())
        assert plane.collect_users() is None
        assert (await client.answer()).status == 504
        await here.client(outer).ask("POST", b"x")
        plane.watch((ALL,))
        assert here.told() == Users({}, {}, {})


async def test_a_websocket_counts_when_it_opens_and_not_again_when_it_ends() -> None:
    async with house() as here:
        (user,) = users_of(EARLY, 1)

        async def opens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(accept(await read_head(reader)))
            await reader.read()

        here.v2.serve = opens
        reader, writer = await here.router.connect()
        writer.write(HANDSHAKE.replace(b"Host: a", b"Host: shop\r\nX-User-Id: " + user.encode()))
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
        assert here.of(EARLY, user) == {"requests": 1}
        here.v1.serve = here.v1.hangs
        later = here.client(users_of(EVERYONE, 1)[0])
        await later.send()
        await until(here.pending)
        assert list(here.pending()) == [EVERYONE]  # though the other is open for longer
        later.close()
        writer.close()
        await until(lambda: not here.router.plane._connections)
        assert here.of(EARLY, user) == {"requests": 1}


async def test_a_cookie_that_the_hash_goes_by_is_the_user() -> None:
    """The bucket is the anonymous cookie's where somebody logs in later, and so is the unit that rings differ by."""
    identity = (IdentitySpec("header", "X-User-Id"), IdentitySpec("anonymous_cookie", "ring_uid"))
    async with house(identity=identity) as here:
        inner, outer = users_of(EARLY, 1)[0], users_of(EVERYONE, 1)[0]
        assert (await here.client(outer, f"Cookie: ring_uid={inner}\r\n").ask()).version == "v2"
        assert here.of(EARLY, inner) == {"requests": 1}
        assert here.of(EARLY, outer) == {"requests": 0}


async def test_more_users_than_a_report_may_have_are_counted_as_missing() -> None:
    async with house() as here:
        users = users_of(EVERYONE, 6)
        here.router.plane.witness.left = 4
        for _ in range(2):
            for user in users:
                await here.client(user).ask()
        here.told()
        assert [sum(here.of(EVERYONE, user).values()) for user in users] == [2, 2, 2, 2, 0, 0]
        assert here.dropped == 4
        await here.client(users[5]).ask()
        assert here.of(EVERYONE, users[5]) == {"requests": 1}


async def test_a_service_that_is_not_watched_counts_nobody() -> None:
    async with house(Watched("another", "v2", MILLION)) as here:
        await here.client(users_of(EARLY, 1)[0]).ask()
        assert here.told() == Users({}, {}, {})
        lanes = here.router.plane.all_lanes()
        assert lanes
        assert all(lane.users is None for lane in lanes)


async def test_sampling_looks_at_what_neither_bucket_nor_slice_is_taken_from() -> None:
    """Users who are kept are spread over all buckets and slices as everybody is."""
    digests = [fingerprint(b"user-%d" % number) for number in range(20_000)]
    kept = [digest for digest in digests if digest // 640_000 % MILLION < 100_000]
    assert 1_800 <= len(kept) <= 2_200
    slices = Counter(slice_of(digest) for digest in kept)
    assert len(slices) == SLICES
    assert max(slices.values()) < 3 * len(kept) / SLICES
    assert 0.2 <= sum(digest % BUCKETS < 2_500 for digest in kept) / len(kept) <= 0.3
    assert UNKNOWN not in digests
