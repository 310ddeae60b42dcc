"""What things are called in Envoy: an Envoy cluster is one version of one ring of one service, and so are its stats."""

from __future__ import annotations

from typing import NamedTuple

FORBIDDEN = "/"
"""No service, ring or version has it in its name (``config.settings``), so names come apart again."""


class ClusterName(NamedTuple):
    """What a cluster is: the requests of a ring while it runs a version.

    Those that fall outward are among them: ``cluster.shop/canary/v2@v1.upstream_rq_total`` says how many tried ``v1``.
    """

    service: str
    ring: str
    version: str


def cluster_name(service: str, ring: str, version: str) -> str:
    """``shop/canary/v2``."""
    return FORBIDDEN.join((service, ring, version))


def parsed_cluster(name: str) -> ClusterName | None:
    """The inverse of ``cluster_name``; None for any other name, also for one of ``tried_name``."""
    parts = name.split(FORBIDDEN)
    return ClusterName(*parts) if len(parts) == 3 and all(parts) and "@" not in name else None


def tried_name(service: str, ring: str, version: str, tried: str) -> str:
    """``shop/canary/v2@v1``: where a ring that falls outward has the endpoints of one of the versions it may get."""
    return f"{cluster_name(service, ring, version)}@{tried}"


def route_name(service: str, reason: str) -> str:
    """``shop/member``: what ``%ROUTE_NAME%`` says in a log."""
    return f"{service}/{reason}"
