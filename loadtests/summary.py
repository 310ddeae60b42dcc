"""results/SUMMARY.md: the key figures of every result in one table, made from the JSON and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from loadtests import contestants, report

Document = dict[str, Any]
Figures = Iterator[tuple[str, str]]

OURS: Final = contestants.ROUTER


def read() -> dict[str, Document]:
    """Every known result that is there, by its name, in the order of the table."""
    paths = {name: report.RESULTS / f"{name}.json" for name in FIGURES}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}


def compare(document: Document) -> Figures:
    of = document["name"].removesuffix("s") if document["name"] == "connections" else "request"
    found = document["summary"]
    for name in (name for name in found if name in (OURS, contestants.INTERPRETED)):
        for base, ratio in found[name]["ratio_to"].items():
            yield f"{name} ÷ {base}, CPU per {of}", report.shown(ratio, 2)
    if any(one["errors"]["max"] for one in found.values()):
        yield "void", "there were errors"


def access_log(document: Document) -> Figures:
    for form, one in document["summary"].items():
        if form != "off":
            yield f"{form} ÷ off, CPU per request", report.shown(one["ratio_to_off"], 2)


def seeing(document: Document) -> Figures:
    for form, one in document["summary"].items():
        if form in ("now", "everything") and "before" in document["summary"]:
            yield f"{form} − before, CPU µs per request", report.shown(one["more_us"])


def latency(document: Document) -> Figures:
    for found in document["loads"].values():
        for percentile, added in found["summary"].get(OURS, {}).get("added_us", {}).items():
            yield f"µs added at {found['rate']:,.0f} requests/s, {percentile}", report.shown(added, 0)
        if found["refused"]:
            yield f"turns refused at {found['rate']:,.0f} requests/s", f"{sum(found['refused'].values())}"


def growth(document: Document) -> Figures:
    for name, one in document["summary"].items():
        if name != one["beside"]:
            yield f"{name} ÷ {one['beside']}, CPU per request", report.shown(one["ratio"], 2)


def returning(document: Document) -> Figures:
    for fault, one in document["summary"].items():
        yield f"{fault}, s to the verdict", report.shown(one["seconds_to_verdict"], 1)
        yield f"{fault}, users hurt", report.shown(one["users_hurt"], 0)
        yield f"{fault}, s from the verdict to the last of 6 workers", report.shown(one["seconds_to_apply"], 3)


def idle(document: Document) -> Figures:
    for name, one in document["summary"].items():
        yield f"{name}, bytes per connection", report.shown(one["bytes_each"], 0)


def bodies(document: Document) -> Figures:
    for way, one in document["summary"][OURS].items():
        if "ratio_to_nginx" in one:
            yield f"{OURS} ÷ nginx, CPU per GiB {way}", report.shown(one["ratio_to_nginx"], 2)


def propagation(document: Document) -> Figures:
    for workers, one in document["summary"].items():
        yield (
            f"ms to {workers} worker{'s' if workers != '1' else ''}",
            f"p50 {one['p50_ms']:.1f}, p99 {one['p99_ms']:.1f} ({one['min_ms']:.1f}–{one['max_ms']:.1f})",
        )
    yield "failed requests", f"{sum(one['failed_requests'] for one in document['summary'].values())}"


def members(document: Document) -> Figures:
    found = document["summary"]
    yield "bytes per member, in the table that all workers share", f"{found['table_bytes_each']:.1f}"
    yield "bytes per member, what the whole router has more", f"{found['whole_router_bytes_each']:.1f}"
    yield "s from a start with nothing", f"{found['sync_from_empty_s']:.1f}"
    for way in ("shard", "short_list"):
        one = found[f"effect_{way}_ms"]
        yield f"ms from SADD to all workers ({way.replace('_', ' ')})", f"p50 {one['p50']:.1f}, p99 {one['p99']:.1f}"
    shown = f"{found['cpu_ratio']:.3f} ({found['cpu_ratio_min']:.3f}–{found['cpu_ratio_max']:.3f})"
    yield "CPU per request, with ÷ without members", shown


def widening(document: Document) -> Figures:
    found = document["summary"]
    yield "users who moved outward", f"{found['users_who_moved_outward']} of {found['users']}"
    yield "ring_flips_total", f"{found['ring_flips_total']:.0f}"
    yield "failed requests", f"{found['failed_requests']}"


def envoy(document: Document) -> Figures:
    found = document["summary"]
    forms, changes, load = found["forms"].values(), found["changes"], found["load"].values()
    yield (
        "the same ring and version on both",
        f"{sum(one['same'] for one in forms):,} of {sum(one['users'] for one in forms):,} in {len(forms)} forms",
    )
    for side in found["load"]:
        seconds = report.spread(one["seconds"][side] for one in changes)
        yield f"{side}, s from an HSET to the last connection", report.shown(seconds, 3)
    yield "failed requests", f"{sum(one['failed'] for one in load)} of {sum(one['requests'] for one in load):,}"
    yield "users who moved outward", f"{sum(one['moved_outward'] for one in load)}"


def redis_faults(document: Document) -> Figures:
    found = document["summary"]
    for fault, one in found.items():
        yield f"{fault}: s until a change is applied again", f"{one['in_sync_s']:.2f}"
    failed, asked = (sum(one[key] for one in found.values()) for key in ("failed_requests", "requests"))
    yield "failed requests", f"{failed:.0f} of {asked:,.0f}"


def watching(document: Document) -> Figures:
    found, options = document["summary"], document["options"]
    yield "ms from an HSET to the stream of events", report.shown(found["visible_in_stream_ms"])
    yield "ms from an HSET to the page", report.shown(found["visible_on_page_ms"])
    yield f"{options['tabs']} tabs, % of a core", report.shown(found["tabs_percent"])
    yield f"{options['instances']} instances, Redis, % of a core", report.shown(found["fleet_redis_percent"])


def thousand(document: Document) -> Figures:
    for instances, one in document["summary"].items():
        cost = one["steady"]
        yield (
            f"Redis with {int(instances):,} instances",
            f"{cost['redis_cpu_percent']:.1f} % of a core, {cost['redis_memory_mib']:.0f} MiB, "
            f"{cost['out_mb_per_second']:.2f} MB/s out, {cost['in_mb_per_second']:.2f} in",
        )
        last = report.shown(one["changes"]["last_instance_seconds"], 2)
        yield f"s until the last of {int(instances):,} instances applies a weight", last
        yield f"s until they are back after an outage, {int(instances):,}", f"{one['after_outage_seconds']:.1f}"


def rollouts(document: Document) -> Figures:
    for name, one in document["summary"].items():
        wrong = f"{one['false_rollbacks']} rolled back, {one['false_pauses']} paused of {one['rollouts']:,}"
        beside = "" if "limit" in name else f"; by a z-test that is looked at {one['z_test_rollbacks']}"
        yield f"false decisions, {name}", f"{wrong}{beside}"


def outage(document: Document) -> Figures:
    for fault, seconds in document["summary"].items():
        yield f"Redis {fault}: s from its return until a new weight applies", report.shown(seconds, 2)
    yield "failed requests", f"{document['failed_requests']} of {document['requests']:,}"


def disruption(document: Document) -> Figures:
    for name, one in document["summary"].items():
        event, quiet = one["event"], one["quiet"]
        yield f"{name}: failed requests", report.shown(event["failed"], 0)
        yield f"{name}: worst ms", f"{report.shown(event['worst_ms'])}, undisturbed {report.shown(quiet['worst_ms'])}"


def failing(document: Document) -> Figures:
    for name, one in document["summary"].items():
        said = "; ".join(f"{what} {value}" for what, value in one.items() if what != "is_kept")
        yield f"{name}: {'kept' if one['is_kept'] else 'NOT KEPT'}", said


def memory(document: Document) -> Figures:
    found = document["summary"]
    for way in ("download", "upload"):
        yield f"MiB grown, {way} of {found['mib']:.0f} MiB", f"{found[f'{way}_growth_mib']:.1f}"


def slow_clients(document: Document) -> Figures:
    found, options = document["summary"], document["options"]
    beside = f"beside {options['clients']} slow clients, {options['rate']:,.0f} requests/s"
    for percentile, ratio in found["ratio"].items():
        yield f"{beside}: {percentile} ÷ without them", report.shown(ratio, 2)
    yield "failed requests", f"{found['with']['failed']} of {found['with']['requests']:,}"
    for kind, one in found["slow"].items():
        if one["attempts"]:
            ends = ", ".join(f"{count} × {status}" for status, count in one["by_status"].items())
            yield f"slow {kind}: ended with", f"{ends}; ms after the time-out {report.shown(one['late_ms'], 0)}"


def soak(document: Document) -> Figures:
    found = document["summary"]
    yield "mixed requests", f"{found['requests']:,} in {found['seconds']:,.0f} s, {found['wrong']} wrong answers"
    accounts = found["accounts"].values()
    yield "counts that differ from the clients'", f"{sum(one['clients'] != one['router'] for one in accounts)}"
    for name, one in found["memory"].items():
        if name != "parent":
            at = ", ".join(f"{one[f'mib_at_{share}']:.1f}" for share in ("10%", "50%", "100%"))
            yield f"{name}: MiB at 10, 50, 100 %", f"{at}; {one['kib_per_100000']:.0f} KiB per 100,000 once warm"
    files = found["open_files"].values()
    yield "open files left over", f"{sum(max(0, one['after'] - one['before']) for one in files)}"


def scraping(document: Document) -> Figures:
    found = document["summary"]
    yield "counts equal to the clients'", f"{found['exact']} of {found['compared']}"
    yield "requests cut off by kills", f"{found['cut_off']}"
    yield "counters that fell", f"{found['counters_that_fell']} in {found['scrapes']} scrapes"
    for name, one in found["scrape"]["formats"].items():
        shown = f"p50 {one['p50_ms']:.1f}, p99 {one['p99_ms']:.1f}"
        yield f"ms per scrape of {found['scrape']['series']:,} series ({name})", shown


FIGURES: Final[dict[str, Callable[[Document], Figures]]] = {
    "compare": compare,
    "access_log": access_log,
    "seeing": seeing,
    "connections": compare,
    "latency": latency,
    "growth": growth,
    "idle": idle,
    "bodies": bodies,
    "propagation": propagation,
    "members": members,
    "widening": widening,
    "envoy": envoy,
    "rollouts": rollouts,
    "returning": returning,
    "redis_faults": redis_faults,
    "outage": outage,
    "disruption": disruption,
    "failing": failing,
    "memory": memory,
    "slow_clients": slow_clients,
    "scraping": scraping,
    "watching": watching,
    "thousand": thousand,
    "soak": soak,
}


def origin(document: Document) -> str:
    """When, of which commit, and on what."""
    machine = document["machine"]
    cores = f"{machine['cores']} core{'s' if machine['cores'] > 1 else ''}"
    return f"{document['date'][:10]}, {document['commit']}, {machine['model']}, {cores}"


def text(documents: dict[str, Document]) -> str:
    lines = [
        "# Summary of the results",
        "",
        "Made by `python -m loadtests.plots` from the JSON files beside it; do not edit. Median (range) over rounds.",
        "",
        "| result | figures | rounds | date, commit, machine |",
        "|---|---|---|---|",
    ]
    for name, document in documents.items():
        figures = [f"{what}: {value}" for what, value in FIGURES[name](document)]
        figures += [f"{peer}: skipped: {' '.join(why.split())}" for peer, why in document.get("skipped", {}).items()]
        cell = "<br>".join(figures).replace("|", "\\|")
        lines.append(f"| {name} | {cell} | {document['options'].get('rounds', 1)} | {origin(document)} |")
    lines += [f"| {name} | not there: `python -m loadtests.{name}` | | |" for name in FIGURES if name not in documents]
    return "\n".join(lines) + "\n"


def write(documents: dict[str, Document]) -> Path:
    path = report.RESULTS / "SUMMARY.md"
    path.write_text(text(documents))
    return path
