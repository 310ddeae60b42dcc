"""What ``/metrics`` and the state show of the parts of control, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from router.control.hub import Hub
from router.control.jwks import Issuers
from router.control.store import Store
from router.telemetry.exposition import IssuerFigures, StoreFigures


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


def issuer_figures(issuers: Issuers) -> dict[str, IssuerFigures]:
    """Of those whose keys are fetched."""
    return {name: IssuerFigures(bool(one.keys), one.fetched_at, one.results) for name, one in issuers.issuers.items()}


def workers_state(hub: Hub) -> list[dict[str, Any]]:
    """The workers there are, by slot."""
    return [
        {
            "slot": worker.slot,
            "pid": worker.pid,
            "generation": worker.generation,
            "applied_at": worker.applied_at,
            "connected": worker.is_connected,
            "resident_bytes": worker.counters.resident_bytes,
        }
        for worker in sorted(hub.workers.values(), key=lambda worker: worker.slot)
    ]
