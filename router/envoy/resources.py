"""A snapshot as Envoy's resources: what Envoy is told instead of workers. Pure: the same in, the same out.

Whatever Envoy cannot do as the router does is in ``refusals``, and is not written here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from router.core.spec import SnapshotSpec
from router.envoy.clusters import service_clusters
from router.envoy.hosts import route_configuration
from router.envoy.listeners import STRANGERS, TRUSTED, has_trusted, listeners, routes_file
from router.envoy.messages import Json, typed
from router.envoy.options import EnvoyOptions

CLUSTERS: Final = "cds.json"
LISTENERS: Final = "lds.json"


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything, as Envoy's resources with their ``@type``."""

    clusters: tuple[Json, ...]
    routes: tuple[Json, ...]
    listeners: tuple[Json, ...]

    def by_file(self) -> dict[str, tuple[Json, ...]]:
        """File name → what is in it, in the order in which they are to be put in their places.

        A cluster has to be there before the first route to it, and until no route leads to it any more.
        """
        routes = {routes_file(one["name"]): (one,) for one in self.routes}
        return {CLUSTERS: self.clusters, **routes, LISTENERS: self.listeners}


def document(version: str, found: tuple[Json, ...]) -> bytes:
    """A DiscoveryResponse as the bytes of a file."""
    return json.dumps({"version_info": version, "resources": found}, ensure_ascii=False).encode()


def resources(spec: SnapshotSpec, options: EnvoyOptions) -> Resources:
    """The snapshot for Envoy; what ``refusals`` has something against is left out.

    Raises ``CannotSayError`` where a rule is none that Envoy's routes can ask for.
    """
    routes = [route_configuration(STRANGERS, spec, options, is_trusted=False)]
    if has_trusted(spec.listener):
        routes.append(route_configuration(TRUSTED, spec, options, is_trusted=True))
    clusters = [cluster for service in spec.services for cluster in service_clusters(service)]
    return Resources(
        tuple(typed("config.cluster.v3.Cluster", **cluster) for cluster in clusters),
        tuple(routes),
        tuple(listeners(spec, options)),
    )
