"""Traces: what a caller says of one is passed on, spans reach a collector, and a collector that is away costs spans."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.records import TracingSpec
from router.proxy.tracing import Tracer
from router.telemetry.messages import Span, Traced
from router.telemetry.spans import QUEUE_SPANS, Spans, attributes, is_error
from router.telemetry.trace_context import Parent, read_traceparent, traceparent
from tests.collector import Collector, running_collector, said
from tests.house import RunningPlane, fixed, header, raw_backend, running_plane, shop, snapshot
from tests.running import CONFIG, exchange_raw, running_router
from tests.waiting import until, until_said

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{CALLER}-01"
NOT_SAMPLED = f"00-{TRACE}-{CALLER}-00"
BROKEN = (
    "", "hello", SAMPLED.upper(), SAMPLED + "-more", "ff" + SAMPLED[2:], SAMPLED[:-1], SAMPLED.replace(TRACE, "0" * 32),
    SAMPLED.replace(CALLER, "0" * 16), SAMPLED + ", " + SAMPLED, SAMPLED.replace("-", "_"),
)  # fmt: skip


@pytest.mark.parametrize("value", BROKEN)
def test_what_is_no_traceparent_is_none(value: str) -> None:
    assert read_traceparent(value.encode()) is None


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.integers(0, 255), st.integers(0, 254))
def test_a_traceparent_is_read_as_it_was_written(trace: bytes, span: bytes, flags: int, version: int) -> None:
    ids = trace.hex().encode(), span.hex().encode()
    found = read_traceparent(b"%02x-%b-%b-%02x" % (version, *ids, flags))
    assert found == (Parent(*ids, bool(flags & 1)) if any(trace) and any(span) else None)
    assert (read_traceparent(traceparent(*ids)) is None) == (found is None)
    assert version == 0 or read_traceparent(b"%02x-%b-%b-%02x-what-comes-later" % (version, *ids, flags)) == found


class House:
    """A router in front of a backend whose requests are kept, and what it has traced."""

    def __init__(self, router: RunningPlane, seen: list[bytes]) -> None:
        self.router = router
        self._seen = seen
        self.traced: list[Traced] = []

    async def passed(self, fields: str = "") -> tuple[list[str], list[str]]:
        """``traceparent`` and ``tracestate`` that the backend gets."""
        await self.router.ask(f"GET /p?q=1 HTTP/1.1\r\nHost: a:81\r\nConnection: close\r\n{fields}\r\n".encode())
        head = self._seen.pop()
        return header(head, "traceparent"), header(head, "tracestate")

    def spans(self) -> list[Span]:
        if self.router.plane.tracer is not None:
            self.router.plane.tracer.flush()
        spans = [span for one in self.traced for span in one.spans]
        self.traced.clear()
        return spans


@asynccontextmanager
async def house(rate: float | None) -> AsyncIterator[House]:
    seen: list[bytes] = []
    async with raw_backend(fixed(OK, seen)) as port:
        spec = replace(snapshot(shop((port,), (port,))), tracing=None if rate is None else TracingSpec(rate))
        async with running_plane(spec) as router:
            found = House(router, seen)
            if spec.tracing is not None:
                router.plane.tracer = Tracer(router.plane.loop, spec.tracing, found.traced.append)
            yield found


def fields(parent: str) -> str:
    return f"traceparent: {parent}\r\ntracestate: a=1\r\ntracestate: b=2\r\n"


@pytest.mark.parametrize("parent", [SAMPLED, NOT_SAMPLED, *BROKEN[1:]])
async def test_without_tracing_the_context_passes_as_it_came(parent: str) -> None:
    async with house(None) as it:
        assert await it.passed(fields(parent)) == ([parent], ["a=1", "b=2"])
        assert await it.passed() == ([], [])


async def test_a_sampled_caller_gets_a_child_and_the_backend_a_parent() -> None:
    async with house(0.0) as it:
        (passed,), state = await it.passed(fields(SAMPLED))
        (span,) = it.spans()
        assert passed == f"00-{TRACE}-{span.span_id}-01"
        assert state == ["a=1", "b=2"]
        assert (span.trace_id, span.parent_id) == (TRACE, CALLER)
        assert span.span_id != CALLER
        assert abs(span.at - time.time()) < 10
        assert 0 <= span.duration < 10
        assert (span.method, span.scheme, span.authority, span.path) == ("GET", "http", "a:81", "/p")
        assert (span.service, span.ring, span.version, span.reason) == ("shop", "everyone", "v1", "default")
        assert (span.status, span.flags) == (200, "")


@pytest.mark.parametrize("parent", [NOT_SAMPLED, *BROKEN[1:]])
async def test_who_is_not_sampled_passes_as_it_came(parent: str) -> None:
    async with house(0.0) as it:
        assert await it.passed(fields(parent)) == ([parent], ["a=1", "b=2"])
        assert await it.passed() == ([], [])
        assert it.spans() == []


async def test_a_caller_that_is_not_sampled_is_not_even_where_everybody_else_is() -> None:
    async with house(1.0) as it:
        assert await it.passed(fields(NOT_SAMPLED)) == ([NOT_SAMPLED], ["a=1", "b=2"])
        assert it.spans() == []


@pytest.mark.parametrize("parent", [None, *BROKEN[1:]])
async def test_where_nobody_has_begun_a_trace_that_is_valid_one_begins_here(parent: str | None) -> None:
    async with house(1.0) as it:
        (passed,), state = await it.passed("" if parent is None else fields(parent))
        (span,) = it.spans()
        assert passed == f"00-{span.trace_id}-{span.span_id}-01"
        assert read_traceparent(passed.encode()) is not None
        assert (state, span.parent_id) == ([], ""), "the state of a trace that cannot be read goes with it"
        assert span.trace_id != TRACE


async def test_a_share_of_those_without_a_trace_is_sampled_and_by_its_id() -> None:
    async with house(0.25) as it:
        counts = 0
        for _ in range(400):
            counts += bool((await it.passed())[0])
        spans = it.spans()
        assert counts == len(spans)
        assert 50 < counts < 150, "0.25 of 400; it is outside once in ten million"
        assert all(int(span.trace_id[16:], 16) < 0.25 * 2**64 for span in spans)
        assert len({span.trace_id for span in spans}) == counts


async def test_those_who_ask_to_be_sampled_too_often_are_counted_and_pass_as_they_came() -> None:
    async with house(0.0) as it:
        plane = it.router.plane
        plane.tracer = tracer = Tracer(plane.loop, TracingSpec(0.0), it.traced.append, most=0)  # one, and no more
        await it.passed(fields(SAMPLED))
        assert await it.passed(fields(SAMPLED)) == ([SAMPLED], ["a=1", "b=2"])
        tracer.flush()
        assert [(len(one.spans), one.dropped) for one in it.traced] == [(1, 1)]


async def test_a_request_that_no_backend_answers_has_its_span(tmp_path: Path) -> None:
    spec = replace(snapshot(shop((1,), (1,))), tracing=TracingSpec(1.0))
    async with running_plane(spec) as router:
        traced: list[Traced] = []
        router.plane.tracer = Tracer(router.plane.loop, TracingSpec(1.0), traced.append)
        await router.ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        router.plane.tracer.flush()
        (span,) = traced[0].spans
        assert (span.status, span.flags) == (502, "UC")
        assert is_error(span)
        assert attributes(span)["error.type"] == "UC"


def span_of(**changes: object) -> Span:
    span = Span(
        TRACE, CALLER, "", 1.0, 0.5, "GET", "https", "shop.example.com", "/", 200, "", "shop", "canary", "v2", "hash",
        "10.0.0.1:80", "id",
    )  # fmt: skip
    for name, value in changes.items():
        setattr(span, name, value)
    return span


def test_attributes_follow_the_conventions() -> None:
    assert attributes(span_of()) == {
        "http.request.method": "GET", "url.scheme": "https", "url.path": "/", "server.address": "shop.example.com",
        "server.port": 443, "http.response.status_code": 200, "feature_flag.key": "shop",
        "feature_flag.provider.name": "ring-router", "feature_flag.result.variant": "canary",
        "feature_flag.result.reason": "split", "ring_router.version": "v2", "ring_router.reason": "hash",
        "ring_router.endpoint": "10.0.0.1:80", "ring_router.request_id": "id",
    }  # fmt: skip
    odd = attributes(span_of(method="BREW", authority="[::1]:8080", scheme="http", status=499, flags="CH"))
    assert (odd["http.request.method"], odd["http.request.method_original"]) == ("_OTHER", "BREW")
    assert (odd["server.address"], odd["server.port"]) == ("::1", 8080)
    assert "http.response.status_code" not in odd, "nobody was told it"
    assert (odd["error.type"], odd["ring_router.flags"]) == ("CH", "CH")
    assert [is_error(span_of(status=status, flags=flags)) for status, flags in (
        (200, ""), (404, ""), (499, "CH"), (413, "LR"), (408, "cR"), (500, ""), (502, "UH"), (200, "UD"), (200, "KD"),
    )] == [False, False, False, False, False, True, True, True, True]  # fmt: skip
    assert {attributes(span_of(reason=reason))["feature_flag.result.reason"] for reason in ("fallback", "new")} == {
        "unknown"
    }


class Log:
    """Keeps the sentences."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warning(self, sentence: str) -> None:
        self.said.append(sentence)

    info = warning


async def test_a_collector_that_is_away_costs_spans_and_one_sentence_with_the_number() -> None:
    log = Log()
    spans = Spans(log)
    async with running_collector() as collector:
        spans.send_to((collector.url + "/v1/traces", "edge"))
        collector.status = 400
        for number in range(3):
            spans.take(Traced([span_of(path=f"/lost/{number}")], 0))
            await until(lambda wanted=number + 1: spans.dropped == wanted)
        collector.status = 200
        spans.take(Traced([span_of(path="/kept")], 7))
        await until(lambda: collector.spans)
        await until(lambda: len(log.said) == 2)
        assert list(collector.by_path()) == ["/kept"]
        assert collector.resources[0]["service.name"] == "edge"
        url = collector.url + "/v1/traces"
        assert log.said == [
            f"spans cannot be sent to {url}: they are dropped, 1 so far",
            f"spans are sent to {url} again; 10 were dropped so far",
        ]
        await asyncio.to_thread(spans.stop)


def test_more_spans_than_can_wait_are_dropped_and_counted() -> None:
    spans = Spans(Log())
    for _ in range(3):
        spans.take(Traced([span_of()] * QUEUE_SPANS, 1))
    assert spans.dropped == 2 * QUEUE_SPANS + 3


async def test_a_router_sends_the_spans_of_all_workers_to_the_collector(tmp_path: Path) -> None:
    async with running_collector() as collector:
        config = CONFIG + f"tracing: {{{{endpoint: '{collector.url}', sample: 0, service_name: edge-1}}}}\n"
        async with running_router(tmp_path, config=config) as router:
            for number in range(20):
                trace = f"{number + 1:032x}"
                head = await exchange_raw(router, f"X-Ring: canary\r\ntraceparent: 00-{trace}-{CALLER}-01\r\n")
                assert head.startswith("HTTP/1.1 200 ")
                await exchange_raw(router, "")
            await until(lambda: len(collector.spans) >= 20, within=10)
            check(collector)
            router.config.write_text(router.config.read_text().replace("sample: 0,", "sample: 1,"))
            await until_said(router.is_everywhere)

            async def is_sampled() -> bool:
                await exchange_raw(router, "")
                return len(collector.spans) > 20

            await until(is_sampled, within=10)
            assert re.fullmatch("[0-9a-f]{32}", collector.spans[-1].trace_id.hex())


def check(collector: Collector) -> None:
    assert len(collector.spans) == 20
    assert {span.trace_id.hex() for span in collector.spans} == {f"{number + 1:032x}" for number in range(20)}
    assert {span.parent_span_id.hex() for span in collector.spans} == {CALLER}
    assert {one["service.name"] for one in collector.resources} == {"edge-1"}
    for span in collector.spans:
        found = said(span.attributes)
        assert (span.name, span.kind, span.status.code) == ("GET", span.SPAN_KIND_SERVER, 0)
        assert span.start_time_unix_nano < span.end_time_unix_nano
        assert (found["feature_flag.key"], found["feature_flag.result.variant"]) == ("shop", "canary")
        assert (found["feature_flag.result.reason"], found["ring_router.version"]) == ("targeting_match", "v2")
        assert (found["http.request.method"], found["http.response.status_code"]) == ("GET", 200)
