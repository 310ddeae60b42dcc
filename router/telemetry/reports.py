"""Reports of workers as they come: what is known of a worker after one more, and what of it is news."""

from __future__ import annotations

from router.telemetry.buckets import Piece
from router.telemetry.counters import RingKey, WorkerCounters
from router.telemetry.counts import minus
from router.telemetry.meters import latencies


def apply_report(
    known: WorkerCounters, report: WorkerCounters, news: dict[RingKey, Piece] | None = None
) -> WorkerCounters:
    """What is known of a worker after one more report. Values are cumulative, so a report twice is a report once.

    ``news`` gets what came with this one. Ring by ring, both at once: a thousand services' counts are in no cache.
    """
    rings = known.rings
    for key, ring in report.rings.items():
        before = rings.get(key)
        if before is None:
            if news is not None:
                news[key] = Piece(dict(ring.codes), dict(ring.reasons), latencies(ring.durations, {}))
        else:
            moved, durations = ring.durations, before.durations
            if news is not None:
                codes, reasons = minus(ring.codes, before.codes), minus(ring.reasons, before.reasons)
                news[key] = Piece(codes, reasons, latencies(moved, durations))
            durations.update(moved)
            ring.durations = durations
        rings[key] = ring
    report.rings = rings
    if not report.has_all_endpoints:
        known.endpoints.update(report.endpoints)
        report.endpoints, report.has_all_endpoints = known.endpoints, True
    return report
