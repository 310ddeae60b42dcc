"""What Envoy is started with: where its files are, and where its admin side listens. Pure."""

from __future__ import annotations

from typing import Final

from router.envoy.access_log import users_cluster
from router.envoy.messages import UNLIMITED, Json, socket_address, watched_file
from router.envoy.resources import CLUSTERS, LISTENERS

_RUNTIME: Final = {"re2.max_program_size.error_level": UNLIMITED, "re2.max_program_size.warn_level": UNLIMITED}
"""Envoy refuses patterns of more than a hundred instructions by itself; a list of users is one pattern."""


def bootstrap(directory: str, admin: str = "127.0.0.1:9901", node: str = "ring-router") -> Json:
    """The bootstrap; ``directory`` is absolute, ``admin`` is ``host:port``.

    Envoy reads the files again whenever something is moved into the directory.
    """
    return {
        "stats_flush_interval": "1s",  # Envoy's histograms are as old as its last flush
        "static_resources": {"clusters": [users_cluster(directory)]},
        "node": {"id": node, "cluster": "ring-router"},
        "admin": {"address": socket_address(admin)},
        "layered_runtime": {"layers": [{"name": "patterns", "static_layer": _RUNTIME}]},
        "dynamic_resources": {
            "cds_config": watched_file(directory, CLUSTERS),
            "lds_config": watched_file(directory, LISTENERS),
        },
    }
