"""What ``/metrics`` and the state show of the parts of control, as plain data."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from prometheus_client import ProcessCollector

from router import __version__
from router.admin.app import ADMIN
from router.control.hub import Hub
from router.control.jwks import Issuers
from router.control.store import Store
from router.process.past import Past
from router.process.restarts import Restarts
from router.process.rollout_figures import rollouts_figures
from router.telemetry.exposition import (
    ConfigFigures,
    EndpointChecks,
    Figures,
    IssuerFigures,
    ProcessFigures,
    StoreFigures,
)

if TYPE_CHECKING:
    from router.process.control import Control


def figures(control: Control) -> Figures:
    """Everything that one scrape shows."""
    config = control.config
    services = config.settings.services
    past = control.memory.whole(control)
    return Figures(
        counters=control.hub.totals(),
        spec=control.board.spec,
        store=store_figures(control.store, services, past),
        config=ConfigFigures(past.reloads, not config.error, config.loaded_at, config.settings.files.expiries),
        processes=process_figures(control.hub, control.restarts),
        last_change_at=control.hub.published_at,
        build={"version": __version__, "python": platform.python_version(), "loop": "uvloop"},
        actual=control.shares.shares(control.hub.decisions()),
        checks={key: EndpointChecks(past.passed[key], past.failed[key]) for key in control.backends.figures()},
        issuers=issuer_figures(control.issuers, past),
        members={name: control.members.counts(name) for name in services},
        flips=past.flips,
        admin=past.admin,
        streams=len(control.admin[ADMIN].feed),
        rollouts=rollouts_figures(control, past),
    )


def store_figures(store: Store, services: Iterable[str], past: Past) -> StoreFigures:
    """Of Redis and what came from it."""
    return StoreFigures(
        is_up=store.state in ("live", "poll"),
        staleness_seconds=store.staleness_seconds,
        errors=past.errors,
        rejected=past.rejected,
        sources={name: store.source(name) for name in services},
        revisions={name: int(one.revision) for name, one in store.live.items() if one.revision.isdecimal()},
        poll_durations=past.polls,
        poll_micros=past.poll_micros,
    )


def issuer_figures(issuers: Issuers, past: Past) -> dict[str, IssuerFigures]:
    """Of those whose keys are fetched."""
    return {
        name: IssuerFigures(
            bool(one.keys),
            one.fetched_at,
            {result: count for (issuer, result), count in past.fetches.items() if issuer == name},
        )
        for name, one in issuers.issuers.items()
    }


def process_figures(hub: Hub, restarts: Restarts) -> ProcessFigures:
    """Of the parent and the workers."""
    resident: dict[int, int] = {}
    for worker in hub.workers.values():
        if worker.writer is not None:
            resident[worker.slot] = resident.get(worker.slot, 0) + worker.counters.resident_bytes
    parent = ProcessCollector(pid=os.getppid, registry=None).collect()
    return ProcessFigures(hub.connected, hub.expected, resident, restarts.read(), tuple(parent))


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
