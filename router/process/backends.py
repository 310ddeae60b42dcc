"""The endpoints of a service as ``/api/v1/state`` shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
