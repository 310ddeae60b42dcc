"""Endpoints that fail a request, and what the others do about it: stories on real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from router.core.spec import OutlierSpec, RetrySpec, ServiceSpec, TimeoutsSpec
from router.core.standing import Standing
from tests.house import read_head, running_plane, shop, snapshot
from tests.troubles import Answer, Backend, Client, backends, black_hole, reset, settled
from tests.waiting import until

NEVER_EJECTED = OutlierSpec(consecutive_errors=0, success_rate=False)


def service(*members: Backend | int, **changes: object) -> ServiceSpec:
    """Version 1 runs on all of these."""
    ports = tuple(member if isinstance(member, int) else member.port for member in members)
    return shop(ports, ports, canary=0, early=0, **changes)


async def test_one_of_three_killed_under_load_fails_nobody_who_may_ask_again_and_no_post_twice() -> None:
    async with backends("a", "b", "c") as (a, b, c), running_plane(snapshot(service(a, b, c))) as router:
        answers: list[tuple[str, Answer]] = []
        is_over = False

        async def client(number: int) -> None:
            chance, me = Random(number), Client(router, f"user-{number}")
            while not is_over:
                method = chance.choice(["GET", "HEAD", "PUT", "DELETE", "POST"])
                answers.append((method, await me.ask(method, b"x" * 100 if method in ("PUT", "POST") else b"")))
            me.close()

        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(client(number))
            await until(lambda: len(answers) > 300)
            await a.dies()
            killed_at = len(answers)
            await until(lambda: len(answers) > killed_at + 500)
            is_over = True
        failed = [(method, answer) for method, answer in answers if answer.status != 200]
        assert {method for method, _ in failed} <= {"POST"}
        assert len(failed) <= 12, "those that were in flight at the kill"
        assert all(b"upstream_reset" in answer.body for _, answer in failed), "what was not sent goes elsewhere"
        delivered = a.delivered + b.delivered + c.delivered
        assert all(delivered[a.request_id] == 1 for method, a in answers if method == "POST" and a.status == 200)
        assert all(delivered[a.request_id] <= 1 for method, a in answers if method == "POST")
        await settled(router)


async def test_what_was_not_sent_goes_elsewhere_whatever_the_method() -> None:
    async with backends("dead", "good") as (dead, good):
        await dead.dies()
        async with running_plane(snapshot(service(dead, good))) as router:
            posts = await asyncio.gather(*(Client(router).ask("POST", b"x" * 100_000) for _ in range(20)))
            assert {(answer.status, answer.body) for answer in posts} == {(200, b"good")}
            assert set(good.delivered.values()) == {1}
            assert router.plane.collect().versions[("shop", "v1")].retries["connect"] > 0
            await settled(router)


async def test_a_backend_that_closes_kept_connections_at_any_time_fails_no_get_and_gets_no_post_twice() -> None:
    chance = Random(3)

    async def closes_now_and_then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(chance.randrange(1, 6)):
            writer.write(a.says(200, await a.takes(reader)))
        if chance.random() < 0.5:  # as the next one comes, or before
            await read_head(reader)
        (reset if chance.random() < 0.5 else asyncio.StreamWriter.close)(writer)

    async with backends("a") as (a,):
        a.serve = closes_now_and_then
        async with running_plane(snapshot(service(a, outliers=NEVER_EJECTED))) as router:

            async def client(number: int) -> list[tuple[str, Answer]]:
                me, found = Client(router), []
                for i in range(250):
                    method = "POST" if i % 5 == 4 else "GET"
                    found.append((method, await me.ask(method)))
                me.close()
                return found

            found = [one for some in await asyncio.gather(*(client(n) for n in range(8))) for one in some]
            assert {answer.status for method, answer in found if method == "GET"} == {200}
            assert max(a.delivered[answer.request_id] for method, answer in found if method == "POST") == 1
            assert {answer.status for method, answer in found if method == "POST"} <= {200, 502}
            await settled(router)


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("PUT", 200), ("POST", 502), ("PATCH", 502)])
async def test_a_reset_on_a_fresh_connection_is_tried_elsewhere_if_it_may_be(method: str, status: int) -> None:
    async with backends("bad", "good") as (bad, good):
        bad.serve = bad.resets
        async with running_plane(snapshot(service(bad, good))) as router:
            seen: Counter[int] = Counter()
            for number in range(100):  # which of the two is asked is chance
                if number >= 5 and seen[status]:
                    break
                before = sum(bad.delivered.values())
                answer = await Client(router).ask(method, b"body")
                asked_bad = sum(bad.delivered.values()) - before
                seen[answer.status] += asked_bad
                assert answer.status == (status if asked_bad else 200)
                assert (bad.delivered + good.delivered)[answer.request_id] == (2 if asked_bad and status == 200 else 1)
            assert seen[status] > 0
            await settled(router)


async def test_an_endpoint_answers_for_what_its_siblings_had_to_save() -> None:
    async with backends("bad", "good") as (bad, good):
        bad.serve = bad.resets
        async with running_plane(snapshot(service(bad, good))) as router:
            endpoint = next(e for e in router.plane.pools.endpoints.values() if e.spec.port == bad.port)
            client = Client(router)
            while endpoint.standing is not Standing.EJECTED:
                assert (await client.ask()).status == 200
                assert sum(bad.delivered.values()) <= 5
            assert endpoint.counters.failures["reset"] == 5


async def test_nothing_is_sent_again_once_a_byte_of_an_answer_has_come() -> None:
    for words in (b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"):

        async def begins(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes = words) -> None:
            await a.takes(reader)
            writer.write(words)
            await writer.drain()
            writer.close()

        async with backends("a") as (a,), running_plane(snapshot(service(a))) as router:
            a.serve = begins
            whole = await router.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: x\r\nConnection: close\r\n\r\n")
            assert a.delivered["x"] == 1
            assert b" 502 " in whole or whole.endswith(b"\r\n\r\nx")
            await settled(router)


async def test_configured_statuses_are_tried_elsewhere_and_only_where_that_is_safe() -> None:
    async with backends("bad", "good") as (bad, good):
        bad.status = 503
        retries = RetrySpec(statuses=(503,), budget_basis_points=10_000)
        async with running_plane(snapshot(service(bad, good, retries=retries, outliers=NEVER_EJECTED))) as router:
            client = Client(router)
            assert [(await client.ask()).body for _ in range(30)] == [b"good"] * 30
            assert bad.delivered
            posts = [await client.ask("POST", b"x") for _ in range(30)]
            assert {answer.status for answer in posts} == {200, 503}
            delivered = bad.delivered + good.delivered
            assert all(delivered[answer.request_id] == 1 for answer in posts)
            assert router.plane.collect().versions[("shop", "v1")].retries["status"] > 0
            await settled(router)


async def test_statuses_that_nobody_configured_pass_as_they_are() -> None:
    async with backends("bad") as (bad,):
        bad.status = 503
        async with running_plane(snapshot(service(bad))) as router:
            answers = [await Client(router).ask() for _ in range(20)]
            assert {(answer.status, answer.body) for answer in answers} == {(503, b"bad")}
            assert sum(bad.delivered.values()) == 20


async def test_the_last_answer_is_passed_on_when_all_attempts_are_used_up() -> None:
    async with backends("a", "b", "c") as three:
        for one in three:
            one.status = 503
        retries = RetrySpec(attempts=1, statuses=(503,))
        async with running_plane(snapshot(service(*three, retries=retries))) as router:
            answer = await Client(router).ask()
            assert (answer.status, answer.body in (b"a", b"b", b"c")) == (503, True)
            assert [one.delivered[answer.request_id] for one in three].count(1) == 2
            await settled(router)


@pytest.mark.parametrize("how", ["answers 503", "resets"])
async def test_retries_of_a_version_that_is_all_broken_stay_within_the_budget(how: str) -> None:
    async with backends("a", "b", "c") as three:
        for one in three:
            one.status = 503
            if how == "resets":
                one.serve = one.resets
        retries = RetrySpec(attempts=5, statuses=(503,), budget_basis_points=2000)
        async with running_plane(snapshot(service(*three, retries=retries, outliers=NEVER_EJECTED))) as router:

            async def client() -> None:
                me = Client(router)
                for _ in range(50):
                    await me.ask()
                me.close()

            await asyncio.gather(*(client() for _ in range(8)))
            assert sum(sum(one.delivered.values()) for one in three) <= 400 * 1.2
            assert router.plane.collect().versions[("shop", "v1")].retries["no_budget"] > 0
            await settled(router)


async def test_a_try_that_takes_too_long_is_left_for_another_endpoint_and_counts_against_the_first() -> None:
    async with backends("slow", "good") as (slow, good):
        slow.serve = slow.hangs
        changes = {"retries": RetrySpec(per_try=0.2), "timeouts": TimeoutsSpec(1.0, 30.0, 30.0)}
        async with running_plane(snapshot(service(slow, good, **changes))) as router:
            endpoint = next(e for e in router.plane.pools.endpoints.values() if e.spec.port == slow.port)
            client = Client(router)
            while endpoint.standing is not Standing.EJECTED:
                assert (await client.ask(within=15)).body == b"good"
                assert sum(slow.delivered.values()) <= 5
            assert endpoint.counters.failures["timeout"] == 5
            await settled(router)


async def test_a_try_has_the_whole_time_when_there_is_nobody_else_to_ask() -> None:
    async with backends("slow") as (slow,):

        async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head = await slow.takes(reader)
                await asyncio.wait({asyncio.current_task()}, timeout=0.5)  # type: ignore[type-var]
                writer.write(slow.says(200, head))

        slow.serve = late
        async with running_plane(snapshot(service(slow, retries=RetrySpec(per_try=0.1)))) as router:
            assert (await Client(router).ask()).body == b"slow"
            assert sum(slow.delivered.values()) == 1
            slow.serve = slow.hangs
            for pool in router.plane.pools.versions.values():
                for one in pool.endpoints:
                    one.reserve.close()
            assert (await Client(router).ask()).status == 504
            await settled(router)


async def test_a_connection_that_takes_longer_than_a_try_does_not_send_the_request_a_second_time() -> None:
    with black_hole() as hole:
        async with backends("good") as (good,):
            changes = {"retries": RetrySpec(per_try=0.2), "timeouts": TimeoutsSpec(0.6, 5.0, 5.0)}
            async with running_plane(snapshot(service(hole, good, **changes))) as router:
                endpoint = next(e for e in router.plane.pools.endpoints.values() if e.spec.port == hole)

                async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    while True:
                        head = await good.takes(reader)
                        await until(lambda: endpoint.active == 0)  # the connection into the hole has given up
                        writer.write(good.says(200, head))

                good.serve = patient
                client = Client(router)
                while not endpoint.counters.failures:
                    answer = await client.ask()
                    assert answer.body == b"good"
                    assert good.delivered[answer.request_id] == 1
                await settled(router)


async def test_an_endpoint_that_accepts_and_closes_at_once_costs_no_request_and_leaves_nothing_behind() -> None:
    async def slams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset(writer)

    async with backends("rude", "good") as (rude, good):
        rude.serve = slams
        async with running_plane(snapshot(service(rude, good))) as router:
            answers = await asyncio.gather(*(Client(router).ask() for _ in range(40)))
            assert {answer.status for answer in answers} == {200}
            assert rude.connections
            posts = await asyncio.gather(*(Client(router).ask("POST", b"x") for _ in range(40)))
            assert {answer.status for answer in posts} <= {200, 502}
            assert all(good.delivered[answer.request_id] == 1 for answer in posts if answer.status == 200)
            await settled(router)


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (100_000, 502)])
async def test_a_short_body_is_kept_to_be_sent_again_and_a_long_one_is_not(size: int, status: int) -> None:
    body = bytes(i % 251 for i in range(size))
    async with backends("bad", "good") as (bad, good):
        bad.serve = bad.resets
        async with running_plane(snapshot(service(bad, good))) as router:
            while not bad.delivered:
                reader, writer = await router.connect()
                head = f"PUT / HTTP/1.1\r\nHost: a\r\nX-Request-Id: put\r\nContent-Length: {size}\r\n\r\n"
                writer.write(head.encode() + body[:500])
                await until(lambda: sum(e.active for e in router.plane.pools.endpoints.values()) > 0)
                writer.write(body[500:])
                head_of_answer = await read_head(reader)
                writer.close()
            assert head_of_answer.split(b" ")[1] == b"%d" % status
            if status == 200:
                assert good.bodies[-1] == body
            await settled(router)


async def test_an_upload_that_meets_a_stale_connection_is_sent_whole_on_a_fresh_one() -> None:
    async with backends("a") as (a,):

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(a.says(200, await a.takes(reader)))
            await read_head(reader)
            reset(writer)

        a.serve = once
        async with running_plane(snapshot(service(a))) as router:
            client = Client(router)
            await client.ask()
            assert client.reader is not None
            assert client.writer is not None
            head = b"PUT / HTTP/1.1\r\nHost: a\r\nX-Request-Id: put\r\nTransfer-Encoding: chunked\r\n\r\n"
            client.writer.write(head + b"4\r\nabcd\r\n")
            await until(lambda: a.connections == 2)
            client.writer.write(b"3\r\nefg\r\n0\r\n\r\n")
            assert (await client.answer("PUT")).status == 200
            assert a.bodies[-1] == b"abcdefg"
            await settled(router)
