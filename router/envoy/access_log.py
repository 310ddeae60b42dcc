"""What Envoy notes of each request, as its access loggers, and how that is read again. Pure.

Envoy's own statistics of a cluster know milliseconds, mix good answers with bad ones, and count what fell outward for
the version that it fell from. So each request raises one histogram whose name says everything that is counted by: its
*lane*. A request of a watched service is told to the bridge as well, with its user's key, through a socket.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from router.core.spec import ServiceSpec
from router.envoy.messages import Json, duration, extension
from router.envoy.names import parsed_cluster

PREFIX: Final = "ring_router"
"""Of the statistics that are made here; no cluster is called so."""
DURATION: Final = f"{PREFIX}.duration.lane."
FLAGGED: Final = f"{PREFIX}.flagged.lane."
USERS_CLUSTER: Final = "ring_router_users"
USERS_SOCKET: Final = "users.sock"
USERS_TAG: Final = "users"
FLUSH_SECONDS: Final = 0.25
"""Users' lines wait for so long: they are to come in the second in which their requests ended."""
BUFFER_BYTES: Final = 64 * 1024
"""Of lines in each of Envoy's threads; what is more is thrown away while nobody reads, and counted by Envoy."""
METADATA: Final = "ring"
_SEPARATOR: Final = "//"
"""Between the words of a lane: no name of a service, ring or version has a slash in it."""
_MICROS: Final = "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"
"""From the head of the request to the end of the answer; nothing where the client did not get it whole."""
_LANE: Final = _SEPARATOR.join(
    ("%UPSTREAM_CLUSTER%", f"%UPSTREAM_METADATA({METADATA}:version)%", "%ROUTE_NAME%", "%RESPONSE_CODE%",
     "%RESPONSE_FLAGS%")
)  # fmt: skip
_LINE: Final = _SEPARATOR.join((f"%METADATA(ROUTE:{METADATA}:generation)%", _MICROS, "%DURATION%", _LANE))
_WATCHED: Final = f"xds.route_metadata.filter_metadata['{METADATA}']['watched'] == true"
_STATS: Final = ("envoy.access_loggers.stats", "extensions.access_loggers.stats.v3.Config")
_NOTHING: Final = ("", "-")


class Lane(NamedTuple):
    """By what requests are counted; ``flags`` are Envoy's, ``target`` is the version that the ring runs.

    ``ring`` and ``version`` are empty for requests that no route was for.
    """

    service: str
    ring: str
    target: str
    version: str
    reason: str
    status: int
    flags: tuple[str, ...]

    @property
    def is_outward(self) -> bool:
        """Whether the ring's own version could not have it."""
        return self.version != self.target


class Line(NamedTuple):
    """A request of a watched service. ``micros`` is until the end of the answer, or until the client left."""

    lane: Lane
    generation: int
    micros: int


def parsed_lane(text: str) -> Lane | None:
    """None for what is none."""
    words = text.split(_SEPARATOR)
    if len(words) != 5:
        return None
    cluster, version, route, status, flags = words
    name = parsed_cluster(cluster)
    reason = route.rpartition("/")[2]
    found = tuple(flags.split(",")) if flags not in _NOTHING else ()
    if name is None:
        return Lane("", "", "", "", reason, _number(status), found)
    return Lane(*name, name.version if version in _NOTHING else version, reason, _number(status), found)


def parsed_line(text: str) -> Line | None:
    """None for what is none, and for a request that no ring had."""
    generation, _, rest = text.partition(_SEPARATOR)
    micros, _, rest = rest.partition(_SEPARATOR)
    milliseconds, _, lane = rest.partition(_SEPARATOR)
    found = parsed_lane(lane)
    if found is None or not found.ring:
        return None
    took = _number(micros) if micros not in _NOTHING else 1000 * _number(milliseconds)
    return Line(found, _number(generation), took)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def loggers(services: Iterable[ServiceSpec]) -> list[Json]:
    """For every connection manager; the same whoever is watched, so that watching changes no listener."""
    tag = {"name": "lane", "value_format": _LANE}
    measured = {"stat": {"name": "duration", "tags": [tag]}, "unit": "Microseconds", "value_format": _MICROS}
    counted = {"stat": {"name": "flagged", "tags": [tag]}, "value_fixed": 1}
    scope = {"prefix": PREFIX}
    return [
        extension(*_STATS, stats_scope=scope, histograms=[measured]),
        # Whoever left before the answer was whole has no duration, but has been here.
        {"filter": {"response_flag_filter": {}}, **extension(*_STATS, stats_scope=scope, counters=[counted])},
        {"filter": _watched_only(), **_users(services)},
    ]


def _watched_only() -> Json:
    return {
        "extension_filter": extension(
            "envoy.access_loggers.extension_filters.cel",
            "extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            expression=_WATCHED,
        )
    }


def _users(services: Iterable[ServiceSpec]) -> Json:
    fields = {field: said for service in services for field, said in key_fields(service)}
    return extension(
        "envoy.access_loggers.fluentd",
        "extensions.access_loggers.fluentd.v3.FluentdAccessLogConfig",
        cluster=USERS_CLUSTER,
        tag=USERS_TAG,
        stat_prefix=USERS_TAG,
        buffer_flush_interval=duration(FLUSH_SECONDS),
        buffer_size_bytes=BUFFER_BYTES,
        record={"l": _LINE, **dict(sorted(fields.items()))},
        retry_options={
            "max_connect_attempts": 4_000_000_000,  # a bridge that is away comes back some day
            "backoff_options": {"base_interval": "0.1s", "max_interval": "1s"},
        },
    )


def key_fields(service: ServiceSpec) -> list[tuple[str, str]]:
    """Where users' keys stand in a line, and what Envoy is told to put there. Cookies go as a whole: they are many."""
    kinds = {"header": ("", "%REQ({})%"), "query": ("path", "%REQ(:path)%")}
    found = []
    for source in service.identity:
        field, said = kinds.get(source.kind, ("cookie", "%REQ(cookie)%"))
        name = source.name.lower()
        found.append((field or f"h:{name}", said.format(name)))
    return list(dict.fromkeys(found))


def users_cluster(directory: str) -> Json:
    """Where lines go: static, because Envoy takes no listener whose logger names a cluster that is still to come."""
    address = {"pipe": {"path": f"{directory}/{USERS_SOCKET}"}}
    return {
        "name": USERS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": USERS_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
