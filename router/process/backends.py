"""The rings, the endpoints and what is live of a service, as ``/api/v1/state`` shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from router.control.store import Store
from router.core.live import Live
from router.core.snapshot import default_basis_points
from router.core.spec import ServiceSpec
from router.telemetry.backends import backends
from router.telemetry.counters import EndpointCounters, EndpointKey


def backends_state(
    service: ServiceSpec,
    counters: Mapping[EndpointKey, EndpointCounters],
    health: Callable[[EndpointKey], dict[str, Any] | None],
) -> list[dict[str, Any]]:
    """One mapping per endpoint; ``workers`` is what workers say of it → how many, ``failures`` kind → how many.

    ``health`` is what active checks know of it; None where it has none.
    """
    return [
        {
            "version": one.version,
            "endpoint": one.endpoint.address,
            "name": one.endpoint.name,
            "weight": one.endpoint.weight,
            "state": one.state,
            "workers": one.states,
            "active": one.counters.active,
            "idle": one.counters.idle,
            "failures": one.counters.failures,
            "health": health((service.name, one.version, one.endpoint.address)),
        }
        for one in backends(service, counters)
    ]


def live_state(service: str, store: Store, warnings: Sequence[str]) -> dict[str, Any]:
    """What operators change, where it comes from, and what of it is refused."""
    live = store.live.get(service, Live())
    return {
        "source": store.source(service),
        "freeze": live.freeze,
        "drained": list(live.drained),
        "revoked": len(live.revoked),
        "notes": store.notes(service),
        "refused": [str(refusal) for refusal in store.refusals.get(service, ())],
        "warnings": [*warnings, *store.outside_rails(service)],
    }


def rings_state(service: ServiceSpec, requests: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    """One mapping per ring, inner to outer; ``weight`` in percent. ``requests``: (service, ring) → finished ones."""
    default = service.rings[-1]
    return [
        {
            "ring": ring.name,
            "version": ring.version,
            "weight": (default_basis_points(service) if ring is default else ring.basis_points) / 100,
            "killed": ring.name in service.killed,
            "requests": requests[service.name, ring.name],
        }
        for ring in service.rings
    ]
