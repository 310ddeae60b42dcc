"""Figures of others, from real HTTP servers: what is evidence, and that no error ever is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest
from aiohttp import web

from router.control.sources import MOST_BYTES, Sources, Unasked
from router.rollout.plan import Guardrail, Plan, Source, Step
from router.rollout.statistics.two_ring import Tick
from tests.troubles import black_hole

PLAN: Final = Plan("shop", "v1", "v2", (Step("canary", True, 100),), (Guardrail("errors", "errors"),))
NOTHING: Final = Tick(0, 0.0, 0, 0.0)


@dataclass
class Kpis:
    """A server whose answers are changed in the middle of a story."""

    port: int = 0
    answer: Any = None
    """What is sent as JSON; a ``web.Response``, or something that makes one, is sent as it is."""
    asked: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append({"path": request.path, **request.query})
        self.headers.append(dict(request.headers))
        if callable(self.answer):
            made: web.StreamResponse = await self.answer(request)
            return made
        return web.json_response(self.answer)


@asynccontextmanager
async def kpis(answer: Any = None) -> AsyncIterator[Kpis]:
    server = Kpis(answer=answer)
    app = web.Application()
    app.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asking(*sources: Source) -> AsyncIterator[Sources]:
    guardrails = tuple(Guardrail(f"g{number}", source=source) for number, source in enumerate(sources))
    sources_of = Sources(replace(PLAN, guardrails=(*PLAN.guardrails, *guardrails)), clock=lambda: 1_764_061_200.0)
    try:
        yield sources_of
    finally:
        await sources_of.stop()


async def one(sources: Sources, ring: str = "canary") -> Tick | Unasked:
    (found,) = (await sources.ask(ring)).values()
    return found


async def why(sources: Sources) -> str:
    found = await one(sources)
    assert isinstance(found, Unasked), found
    return found.reason


async def test_what_came_between_two_asks_is_evidence() -> None:
    async with kpis([100, 3, 9000, 70]) as server:
        source = Source("webhook", server.url + "/orders?team=a", headers=(("Authorization", "Bearer t"),))
        async with asking(source) as sources:
            assert await one(sources) == NOTHING
            server.answer = [150, 3.5, 9900, 78]
            assert await one(sources) == Tick(50, 0.5, 900, 8.0)
            assert await one(sources) == NOTHING
        about = {"service": "shop", "candidate": "v2", "stable": "v1", "ring": "canary"}
        assert server.asked[0] == {"path": "/orders", "team": "a", **about}
        assert server.headers[0]["Authorization"] == "Bearer t"


async def test_a_total_that_went_down_is_an_error_once_and_counting_begins_anew() -> None:
    async with kpis([100, 3, 9000, 70]) as server, asking(Source("webhook", server.url)) as sources:
        await one(sources)
        server.answer = [5, 0, 9100, 71]
        assert await why(sources) == "n_r and x_r went down: totals only grow, counting begins anew"
        server.answer = [7, 1, 9200, 72]
        assert await one(sources) == Tick(2, 1.0, 100, 1.0)


async def test_after_an_outage_all_that_came_meanwhile_is_one_tick() -> None:
    async with kpis([10, 0, 10, 0]) as server, asking(Source("webhook", server.url)) as sources:
        await one(sources)
        server.answer = {"error": "database"}
        assert await why(sources) == "the answer is not [n_r, x_r, n_b, x_b]"
        server.answer = [20, 1, 30, 2]
        assert await one(sources) == Tick(10, 1.0, 20, 2.0)


async def test_another_ring_is_another_story() -> None:
    async with kpis([10, 0, 10, 0]) as server, asking(Source("webhook", server.url)) as sources:
        await one(sources, "canary")
        server.answer = [500, 5, 500, 5]
        assert await one(sources, "early") == NOTHING
        server.answer = [501, 6, 502, 5]
        assert await one(sources, "early") == Tick(1, 1.0, 2, 0.0)
        assert await one(sources, "canary") == NOTHING


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([1, 2, 3], "the answer is not [n_r, x_r, n_b, x_b]"),
        ([1, 0, "3", 0], "n_b is not a count"),
        ([1, 0, True, 0], "n_b is not a count"),
        ([1, 0, None, 0], "n_b is not a count"),
        ([-1, 0, 3, 0], "n_r is not a count"),
        ([1.5, 0, 3, 0], "n_r counts units, and is not a whole number"),
        ([1, 0, 2**60, 0], "n_b is not a count"),
        ([10**400, 0, 1, 0], "n_r is not a count"),
        ([1, float("nan"), 1, 0], "x_r is not a count"),
        ([1, 0, 1, float("inf")], "x_b is not a count"),
    ],
)
async def test_what_is_no_count_is_no_evidence(answer: Any, reason: str) -> None:
    async with kpis(answer) as server, asking(Source("webhook", server.url)) as sources:
        assert await why(sources) == reason


async def test_outcomes_that_are_counted_before_their_units_are_waited_for() -> None:
    async with kpis([1, 0, 1, 0]) as server, asking(Source("webhook", server.url)) as sources:
        await one(sources)
        server.answer = [2, 3, 2, 0]
        assert await why(sources) == "there are more outcomes than units so far: each unit has 1 at the most"
        server.answer = [5, 3, 9, 0]
        assert await one(sources) == Tick(4, 3.0, 8, 0.0)


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def breaks_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def says(**fields: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(**fields)

    return handle


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (hangs, "no answer within 0.2 s"),
        (breaks_off, "the connection was closed before the answer"),
        (says(status=503), "it answers 503"),
        (says(status=302, headers={"Location": "/"}), "it answers 302, and redirects are not followed"),
        (says(status=204), "it answers 204"),
        (says(text="[1, 2"), "the answer is not JSON"),
        (says(text="[" * 50_000), "the answer is not JSON"),
        (says(body=b"\xff\xfe["), "the answer is not JSON"),
        (says(text=" " * MOST_BYTES + "[1,0,1,0]"), "the answer is longer than 64 KiB"),
    ],
)
async def test_whatever_goes_wrong_is_a_reason(answer: Any, reason: str) -> None:
    async with kpis(answer) as server, asking(Source("webhook", server.url, timeout=0.2)) as sources:
        assert await why(sources) == reason


async def test_nobody_there_is_a_reason_without_the_secrets_of_the_url() -> None:
    with black_hole() as port:
        async with asking(Source("webhook", f"http://127.0.0.1:{port}/hunter2", timeout=0.1)) as sources:
            assert await why(sources) == "no answer within 0.1 s"
    for url in ("http://127.0.0.1:1/hunter2", "http://a:99999999/hunter2"):
        async with asking(Source("webhook", url)) as sources:
            assert "hunter2" not in await why(sources)


async def test_one_that_fails_takes_no_other_along() -> None:
    async with kpis([1, 0, 1, 0]) as good, kpis(hangs) as bad:
        async with asking(Source("webhook", good.url), Source("webhook", bad.url, timeout=0.1)) as sources:
            await sources.ask("canary")
            good.answer = [2, 0, 3, 1]
            found = await sources.ask("canary")
            assert found == {"g0": Tick(1, 0.0, 2, 1.0), "g1": Unasked("no answer within 0.1 s")}


# -- PromQL ------------------------------------------------------------------------------------------------------------


def vector(*values: str) -> dict[str, Any]:
    return {
        "status": "success",
        "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1.5, value]} for value in values]},
    }


def by_query(**answers: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response(answers[request.query["query"]])

    return handle


PROMQL: Final = ("nr", "xr", "nb", "xb")
GOOD: Final = {"nr": vector("10"), "xr": vector("0"), "nb": vector("900"), "xb": vector("9")}


async def test_four_queries_of_one_moment_are_one_tick() -> None:
    async with kpis(by_query(**GOOD)) as server, asking(Source("promql", server.url + "/prom/", PROMQL)) as sources:
        assert await one(sources) == NOTHING
        scalar = {"status": "success", "data": {"resultType": "scalar", "result": [1.5, "12"]}}
        server.answer = by_query(**GOOD | {"nr": scalar, "nb": vector("905"), "xb": vector("9.5")})
        assert await one(sources) == Tick(2, 0.0, 5, 0.5)
        assert {(one["path"], one["time"]) for one in server.asked} == {("/prom/api/v1/query", "1764061200.000")}
        assert sorted(one["query"] for one in server.asked[:4]) == sorted(PROMQL)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (vector(), "query x_b: there is no value: end the query with `or vector(0)`, if that means none"),
        (vector("1", "2"), "query x_b: there are 2 values: put sum(…) around the query"),
        (vector("NaN"), "x_b is not a count"),
        (vector("+Inf"), "x_b is not a count"),
        (vector("many"), "query x_b: the value is not a number"),
        ({"status": "error", "error": "parse error"}, "query x_b: the answer is not one of Prometheus"),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, "query x_b: the answer has to be one"),
        ({"status": "success", "data": {"resultType": "vector", "result": [7]}}, "query x_b: the answer is not one of"),
        ([], "query x_b: the answer is not one of Prometheus"),
    ],
)
async def test_an_answer_of_prometheus_that_is_no_value_says_the_remedy(answer: Any, reason: str) -> None:
    async with kpis(by_query(**GOOD | {"xb": answer})) as server:
        async with asking(Source("promql", server.url, PROMQL)) as sources:
            assert (await why(sources)).startswith(reason)
