"""What ``/metrics`` shows of the parts of control, as the exposition wants it."""

from __future__ import annotations

from collections.abc import Iterable

from router.control.store import Store
from router.telemetry.exposition import StoreFigures


def store_figures(store: Store, services: Iterable[str]) -> StoreFigures:
    """Of Redis and what came from it."""
    return StoreFigures(
        is_up=store.state in ("live", "poll"),
        staleness_seconds=store.staleness_seconds,
        errors=store.errors_total,
        rejected=store.rejected_total,
        sources={name: store.source(name) for name in services},
        poll_durations=store.poll_durations,
        poll_seconds_sum=store.poll_seconds_sum,
    )
