"""What Envoy says of each endpoint (``/clusters?format=json``), put together over the rings that have it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from router.core.standing import Standing
from router.envoy.names import parsed_cluster
from router.telemetry.counters import EndpointKey
from router.telemetry.counts import add, minus

FAILURES: Final = {"cx_connect_fail": "connect", "rq_timeout": "timeout"}
"""Envoy's counters of a host → the words of ``ring-router backends``."""


@dataclass(slots=True)
class Upstream:
    """One endpoint in one Envoy. ``failures`` are since that Envoy's start."""

    active: int = 0
    idle: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    standing: Standing = Standing.WELL


def tried_version(name: str) -> tuple[str, str, str] | None:
    """Service, ring and the version whose endpoints a cluster has; None for a cluster that is none of a ring's."""
    cluster, _, tried = name.partition("@")
    found = parsed_cluster(cluster)
    return None if found is None else (found.service, found.ring, tried or found.version)


def read_upstreams(data: bytes) -> dict[EndpointKey, Upstream]:
    """Raises ``ValueError`` for what is none of Envoy's answers."""
    found: dict[EndpointKey, Upstream] = {}
    try:
        for cluster in msgspec.json.decode(data).get("cluster_statuses", ()):
            place = tried_version(cluster["name"])
            if place is None:
                continue
            service, _, version = place
            for host in cluster.get("host_statuses", ()):
                _add(found.setdefault((service, version, _address(host["address"])), Upstream()), host)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not what Envoy says of its clusters: {error!r}") from error
    return found


def _add(upstream: Upstream, host: dict[str, Any]) -> None:
    numbers = {one["name"]: int(one.get("value", 0)) for one in host.get("stats", ())}
    active = numbers.get("rq_active", 0)
    upstream.active += active
    upstream.idle += max(0, numbers.get("cx_active", 0) - active)
    add(upstream.failures, {word: count for name, word in FAILURES.items() if (count := numbers.get(name, 0))})
    if host.get("health_status", {}).get("failed_outlier_check"):
        upstream.standing = Standing.EJECTED


def _address(address: dict[str, Any]) -> str:
    """As ``EndpointSpec.address`` has it."""
    if "pipe" in address:
        return f"unix:{address['pipe']['path']}"
    place = address["socket_address"]
    host, port = place["address"], place["port_value"]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def new_failures(
    now: Mapping[EndpointKey, Upstream], before: Mapping[EndpointKey, Upstream]
) -> dict[EndpointKey, dict[str, int]]:
    """What came since the look before; all after a restart (``before`` is empty then)."""
    found = {}
    for key, upstream in now.items():
        known = before.get(key, Upstream()).failures
        # A ring that has another version now takes what it has counted for its endpoints with it.
        more = {word: count for word, count in minus(upstream.failures, known).items() if count > 0}
        if more:
            found[key] = more
    return found
