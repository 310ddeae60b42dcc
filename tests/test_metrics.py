"""/metrics: what is in the catalogue is there, and nothing else; nobody outside the config can make a label."""

from __future__ import annotations

import asyncio
import gzip
import random
import re
import urllib.request
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from router.control.refusal import Reason
from router.core.spec import (
    ConditionSpec,
    IdentitySpec,
    RingSpec,
    ServiceSpec,
    SnapshotSpec,
    VersionSpec,
)
from router.process import restarts
from router.process.rollout_figures import of_one
from router.proxy.failures import Failure
from router.rollout.progress import Phase, Standing
from router.rollout.state import Why
from router.telemetry import catalogue
from router.telemetry.catalogue import CONFIG, METRICS, PREFIX, Metric
from router.telemetry.counters import WorkerCounters, fold
from router.telemetry.describe import PATH, page
from router.telemetry.exposed_rollouts import RolloutsFigures
from router.telemetry.exposition import ConfigFigures, EndpointChecks, Figures, IssuerFigures, ProcessFigures, render
from router.telemetry.exposition import StoreFigures as Store
from router.telemetry.meters import ERROR, UPSTREAM
from router.telemetry.page import OPEN_METRICS, TEXT
from tests.house import RunningPlane, endpoint, raw_backend, read_head, running_plane, snapshot
from tests.metrics import samples
from tests.rollout_progress import rolled_back, under_way
from tests.running import running_router

RINGS, VERSIONS, GUARDRAILS = 8, 3, 20
NOW = 1_764_061_200.0


def wide(ports: tuple[int, ...] = (1, 2, 3)) -> ServiceSpec:
    """8 rings over 3 versions; X-Ring names one."""
    versions = tuple(VersionSpec(f"v{number}", (endpoint(port),)) for number, port in enumerate(ports))
    rings = tuple(
        RingSpec(f"r{n}", f"v{n % VERSIONS}", 500, (ConditionSpec("header", "X-Ring", "equals", (f"r{n}",)),))
        for n in range(RINGS - 1)
    )
    last = RingSpec("everyone", "v0", 10_000 - 500 * (RINGS - 1))
    identity = (IdentitySpec("header", "X-User-Id"),)
    return ServiceSpec("wide", versions, (*rings, last), hosts=("wide.example",), identity=identity)


def figures(spec: SnapshotSpec, counters: WorkerCounters | None = None) -> Figures:
    return Figures(
        counters or WorkerCounters(), spec, Store(), ConfigFigures(certificates={"a.pem": 1.0}), ProcessFigures(1, 2),
        0.0, {"version": "1", "python": "3", "loop": "uvloop"}, issuers={"id": IssuerFigures(True, 1.0, {})},
        checks={("wide", "v0", "127.0.0.1:1"): EndpointChecks(0, 0)}, members={"wide": {"r0": 0}},
        rollouts=RolloutsFigures({"wide": of_one(under_way(NOW), NOW + 12, 10)}),
    )  # fmt: skip


def shown(text: str) -> dict[str, tuple[str, str, set[frozenset[str]]]]:
    """Family → type, meaning, and the sets of labels that its samples have."""
    found = {}
    for family in parse_text(text):
        labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
        found[family.name] = (family.type, family.documentation, labels)
    return found


def test_everything_in_the_catalogue_is_shown_as_it_stands_there_and_nothing_else() -> None:
    found = shown(render(figures(snapshot(wide()))).decode())
    assert found == {metric.family: (metric.kind, metric.meaning, {frozenset(metric.labels)}) for metric in METRICS}


def test_every_counter_is_there_at_0_with_the_snapshot() -> None:
    text = render(figures(snapshot(wide()))).decode()
    counted = [line for line in text.splitlines() if re.match(rf"{PREFIX}\w+_(total|count|bucket|sum){{", line)]
    assert len(counted) > 1000
    assert {line.rpartition(" ")[2] for line in counted} <= {"0", "0.0"}
    for ring in wide().rings:
        assert (
            f'ringrouter_requests_total{{service="wide",ring="{ring.name}",version="{ring.version}",code="503"}}'
            in text
        )


def test_open_metrics_says_the_same_in_its_own_words() -> None:
    spec = snapshot(wide())
    text, opened = render(figures(spec)).decode(), render(figures(spec), is_open=True).decode()
    assert opened.endswith("# EOF\n")
    assert "_created" not in opened
    assert "# UNIT ringrouter_request_duration_seconds seconds\n" in opened
    plain, strict = (
        {(s.name, tuple(sorted(s.labels.items()))): s.value for family in parse(said) for s in family.samples}
        for parse, said in ((parse_text, text), (parse_open, opened))
    )
    assert plain == strict


async def test_a_scraper_gets_the_format_and_the_packing_it_asks_for(tmp_path: Path) -> None:
    async with running_router(tmp_path, workers=1) as router:

        def scrape(**headers: str) -> tuple[str, str | None, bytes]:
            request = urllib.request.Request(f"http://127.0.0.1:{router.admin}/metrics", headers=headers)
            with urllib.request.urlopen(request, timeout=5) as response:
                return response.headers["Content-Type"], response.headers["Content-Encoding"], response.read()

        # As Prometheus 2.53 asks.
        accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        kind, packed, body = await asyncio.to_thread(scrape, Accept=accept, **{"Accept-Encoding": "gzip"})
        assert (kind, packed) == (OPEN_METRICS, "gzip")
        assert list(parse_open(gzip.decompress(body).decode()))
        for accept in ("*/*", "text/plain", "application/openmetrics-text;q=0"):
            kind, packed, body = await asyncio.to_thread(scrape, Accept=accept)
            assert (kind, packed) == (TEXT, None)
            assert b"# EOF" not in body
        names = {family.name for family in parse_text(body.decode())}
        assert names == {metric.family for metric in METRICS} | {
            name.removesuffix("_total") for name in catalogue.PROCESS
        }


def test_the_closed_lists_are_those_of_the_parts_that_count() -> None:
    assert set(catalogue.WORDS) == {failure.value.word for failure in Failure}
    assert set(catalogue.REJECTIONS) == set(get_args(Reason))
    assert {*catalogue.RESTARTS, restarts.CONTROL} == set(restarts.REASONS)
    assert set(catalogue.PHASES) == set(get_args(Phase))
    assert {"", *catalogue.PAUSES} == set(get_args(Why))
    assert set(catalogue.STANDINGS) == set(get_args(Standing))


def test_a_rollout_is_shown_as_it_stands() -> None:
    one = figures(snapshot(wide()))
    found = samples(render(one).decode())

    def shown(name: str, **labelled: str) -> float | None:
        return found.get((PREFIX + name, tuple(sorted({"service": "wide", **labelled}.items()))))

    now = under_way(NOW)
    assert [phase for phase in catalogue.PHASES if shown("rollout_phase", phase=phase)] == ["proving"]
    assert (shown("rollout_step"), shown("rollout_steps")) == (3, 5)
    assert shown("rollout_lag_seconds") == 2
    assert (shown("rollout_leads"), shown("split_mismatch")) == (0, 1)
    for gauge in now.gauges:
        assert shown("rollout_standing", guardrail=gauge.name, standing=gauge.standing) == 1
        assert shown("rollout_log_e", guardrail=gauge.name, test="proof") == gauge.proof.peak
        assert shown("rollout_units", guardrail=gauge.name, side="candidate") == gauge.ring.units

    one.rollouts = RolloutsFigures({"wide": of_one(rolled_back(NOW), NOW + 3600, 10)}, {"wide": True})
    found = samples(render(one).decode())
    assert shown("rollout_phase", phase="rolled_back") == 1
    assert shown("rollout_lag_seconds") == 0, "what has ended is not late"
    assert shown("rollout_leads") == 1
    assert shown("rollout_rollback_seconds")

    one.rollouts = RolloutsFigures()
    found = samples(render(one).decode())
    assert {shown("rollout_phase", phase=phase) for phase in catalogue.PHASES} == {0}
    assert not any(name.startswith(f"{PREFIX}rollout_log_e") for name, _ in found)


def test_docs_say_what_there_is() -> None:
    assert PATH.read_text("utf-8") == page(), "docs/metrics.md is not up to date: make docs"


# -- who may make a label ----------------------------------------------------------------------------------------------


async def hostile(router: RunningPlane, chance: random.Random) -> None:
    """One client that says whatever comes to its mind, in a ring or in none."""
    word = "".join(chance.choice("abcXYZ09%/{}\"\\';|é") for _ in range(chance.randint(1, 30)))
    method = chance.choice(["GET", "POST", "BREW", word])
    fields = [f"Host: {chance.choice(['wide.example', 'wide.example', 'wide.example', word])}", f"X-User-Id: {word}"]
    fields.append(f"X-Ring: {chance.choice([f'r{chance.randrange(RINGS)}', word])}")
    fields += [f"X-{chance.randrange(10**9)}: {word}", f"X-Ring-Override: {word}", f"baggage: ring={word}"]
    raw = f"{method} /{word} HTTP/{chance.choice(['1.1', '1.1', '1.1', '1.0', word])}\r\n" + "\r\n".join(fields)
    reader, writer = await router.connect()
    writer.write(raw.encode() + b"\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(20):
        await reader.read()
    writer.close()


def label_values(spec: ServiceSpec) -> dict[str, set[str]]:
    """What the config allows, by label."""
    return {
        "service": {spec.name},
        "ring": {ring.name for ring in spec.rings},
        "version": {version.name for version in spec.versions},
        "endpoint": {one.address for version in spec.versions for one in version.endpoints},
    }


async def test_hostile_traffic_makes_no_label_and_no_more_series_than_the_config_allows() -> None:
    chance = random.Random(7)

    async def anything(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            statuses = [chance.randint(100, 999)]
            if statuses[0] < 200:
                statuses.append(chance.randint(200, 999))
            for status in statuses:
                head = f"HTTP/1.1 {status} {chance.random()}\r\nX-{chance.random()}: 1\r\nContent-Length: 0\r\n\r\n"
                writer.write(head.encode())

    async with raw_backend(anything) as one, raw_backend(anything) as two, raw_backend(anything) as three:
        service = wide((one, two, three))
        spec = snapshot(service)
        async with running_plane(spec) as router:
            for _ in range(60):
                async with asyncio.TaskGroup() as group:
                    for _ in range(20):
                        group.create_task(hostile(router, chance))
            counters = router.plane.collect(whole=True)
    codes = {status for ring in counters.rings.values() for status in ring.codes}
    assert len(codes) > 100  # the backends did say whatever they liked
    one_scrape = figures(spec, counters)
    one_scrape.checks = {}
    of_config = label_values(service)
    for family in parse_text(render(one_scrape).decode()):
        metric = next(one for one in METRICS if one.family == family.name)
        for sample in family.samples:
            for label, value in sample.labels.items():
                allowed = metric.labels.get(label, CONFIG)
                if allowed == CONFIG and label in of_config and "service" in metric.labels:
                    assert value in of_config[label], sample
                elif allowed != CONFIG:
                    assert value in allowed, sample
        assert len(family.samples) <= most(metric), metric.name


def most(metric: Metric) -> int:
    """Series that 8 rings × 3 versions with an endpoint each may have: the formula of docs/metrics.md."""
    names = 1
    for label, count in (("ring", RINGS), ("version", VERSIONS), ("worker", 2), ("guardrail", GUARDRAILS)):
        names *= count if label in metric.labels and metric.name != "build_info" else 1
    return names * metric.series_each


@pytest.mark.parametrize(
    ("status", "code"),
    [(200, "200"), (499, "499"), (299, "2xx"), (520, "5xx"), (600, "other"), (999, "other"), (99, "other")],
)  # fmt: skip
def test_a_status_that_nobody_registered_counts_as_its_class(status: int, code: str) -> None:
    assert catalogue.shown_code(status) == code
    assert code in catalogue.CODES


def test_each_histogram_of_a_ring_stands_under_its_own_name_and_outcome() -> None:
    spec, counters = snapshot(wide()), WorkerCounters()
    ring = counters.ring(("wide", "r0", "v0"))
    ring.durations = {100: 1, ERROR + 100: 2, UPSTREAM + 100: 3, UPSTREAM + ERROR + 100: 4}
    shown = {
        (line.partition("_seconds_count")[0].removeprefix(PREFIX), line.partition('outcome="')[2].partition('"')[0]):
        int(line.rpartition(" ")[2])
        for line in render(figures(spec, counters)).decode().splitlines()
        if 'ring="r0",version="v0"' in line and "_seconds_count{" in line
    }  # fmt: skip
    assert shown == {
        ("request_duration", "success"): 1, ("request_duration", "error"): 2,
        ("upstream_duration", "success"): 3, ("upstream_duration", "error"): 4,
    }  # fmt: skip


def test_what_a_scrape_keeps_for_the_next_one_is_shown_only_while_it_is_true() -> None:
    spec, counters, kept = snapshot(wide()), WorkerCounters(), {}
    ring = counters.ring(("wide", "r0", "v0"))
    for number in range(3):
        for bucket in (150, UPSTREAM + ERROR + 150):
            ring.durations[bucket] = ring.durations.get(bucket, 0) + number
            ring.success_micros += number
        whole = WorkerCounters()
        fold(whole, counters, gauges=True)
        assert render(figures(spec, whole), kept=kept) == render(figures(spec, whole))
        assert len(kept) == sum(1 for line in render(figures(spec)).decode().splitlines() if 'le="+Inf"' in line)
