"""Rings and their versions as Envoy's clusters. Pure.

A ring that may fall outward is an aggregate of clusters, one for each version it may get, the nearest first; its
requests are counted under the aggregate's name. Each of these has its endpoints, and control says which are down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from router.core.snapshot import outward
from router.core.spec import ClientTlsSpec, EndpointSpec, RingSpec, ServiceSpec, VersionSpec
from router.envoy.messages import UNLIMITED, Json, duration, extension, put, socket_address, typed
from router.envoy.names import cluster_name, tried_name

ANY_IS_ENOUGH: Final = 10_000
"""Overprovisioning: a version takes all of its requests as long as one of its endpoints in a hundred is well."""
NOBODY_IS_WELL: Final = {"healthy_panic_threshold": {"value": 1}}
"""Percent; below it, where nobody outward is well either, those that are accused wrongly may answer."""
_PLAIN: Final = extension("envoy.transport_sockets.raw_buffer", "extensions.transport_sockets.raw_buffer.v3.RawBuffer")
_HTTP: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def service_clusters(service: ServiceSpec) -> Iterator[Json]:
    """The clusters of all rings; those that nobody is routed to now are there as well."""
    versions = {version.name: version for version in service.versions}
    for ring in service.rings:
        name = cluster_name(service.name, ring.name, ring.version)
        tried = [ring.version, *outward(service, ring.name)]
        if len(tried) == 1:
            yield _cluster(name, service, versions[ring.version], ring)
            continue
        members = [tried_name(service.name, ring.name, ring.version, one) for one in tried]
        for member, version in zip(members, tried, strict=True):
            yield _cluster(member, service, versions[version], ring)
        yield {
            "name": name,
            "connect_timeout": duration(service.timeouts.connect),
            "lb_policy": "CLUSTER_PROVIDED",
            "cluster_type": extension(
                "envoy.clusters.aggregate", "extensions.clusters.aggregate.v3.ClusterConfig", clusters=members
            ),
            "common_lb_config": NOBODY_IS_WELL,
            "circuit_breakers": _no_limits(service),
            "typed_extension_protocol_options": _protocol(service),
        }


def _cluster(name: str, service: ServiceSpec, version: VersionSpec, ring: RingSpec) -> Json:
    endpoints = version.endpoints
    ways = tuple(dict.fromkeys(_way(one) for one in endpoints))
    return {
        "name": name,
        "connect_timeout": duration(service.timeouts.connect),
        "type": "STRICT_DNS" if any(_is_name(one) for one in endpoints) else "STATIC",
        **_balance(service),
        "common_lb_config": NOBODY_IS_WELL,
        "circuit_breakers": _no_limits(service),
        "outlier_detection": _outliers(service),
        "typed_extension_protocol_options": _protocol(service),
        "load_assignment": {
            "cluster_name": name,
            "policy": {"overprovisioning_factor": ANY_IS_ENOUGH},
            "endpoints": [
                {"lb_endpoints": [_endpoint(one, version, ring, ways.index(_way(one))) for one in endpoints]}
            ],
        },
        **_sockets(ways),
    }


def _endpoint(endpoint: EndpointSpec, version: VersionSpec, ring: RingSpec, way: int) -> Json:
    address = f"unix:{endpoint.path}" if endpoint.path else endpoint.address
    said = {"version": version.name} | ({"reason": "fallback"} if version.name != ring.version else {})
    one: Json = {
        "endpoint": {"address": socket_address(address)},
        "load_balancing_weight": max(endpoint.weight, 1),
        "metadata": {"filter_metadata": {"ring": said, "envoy.transport_socket_match": {"way": way}}},
    }
    if endpoint.weight == 0 or endpoint.address in version.drained:
        one["health_status"] = "DRAINING"
    elif endpoint.address in version.down:
        one["health_status"] = "UNHEALTHY"
    return one


def _is_name(endpoint: EndpointSpec) -> bool:
    if endpoint.path:
        return False
    try:
        ip_address(endpoint.host)
    except ValueError:
        return True
    return False


def _balance(service: ServiceSpec) -> Json:
    balance = service.balance
    if balance.kind == "affinity":
        return {"lb_policy": "MAGLEV"}
    slow = {"slow_start_config": {"slow_start_window": duration(balance.slow_start)}} if balance.slow_start else {}
    if balance.kind == "round_robin":
        return {"lb_policy": "ROUND_ROBIN", "round_robin_lb_config": slow}
    return {"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 2, **slow}}


def _no_limits(service: ServiceSpec) -> Json:
    """Envoy's own limits are low, and its limit of retries is one of those at a time."""
    threshold: Json = {
        "max_connections": UNLIMITED,
        "max_pending_requests": UNLIMITED,
        "max_requests": UNLIMITED,
        "retry_budget": {
            "budget_percent": {"value": service.retries.budget_basis_points / 100},
            "min_retry_concurrency": 10,
        },
    }
    return {"thresholds": [threshold]}


def _outliers(service: ServiceSpec) -> Json:
    outliers = service.outliers
    return {
        "consecutive_5xx": max(outliers.consecutive_errors, 1),
        "enforcing_consecutive_5xx": 100 if outliers.consecutive_errors else 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 100 if outliers.success_rate else 0,
        "interval": "1s",
        "base_ejection_time": duration(outliers.ejection),
        "max_ejection_time": duration(max(outliers.max_ejection, outliers.ejection)),
        "max_ejection_percent": outliers.max_ejected_basis_points // 100,
    }


def _protocol(service: ServiceSpec) -> Json:
    """HTTP/1.1, how long connections are kept, and what is known only when an endpoint has been chosen."""
    connections = service.connections
    common: Json = {"idle_timeout": duration(connections.idle), "max_headers_count": 200}
    if connections.max_age:
        common["max_connection_duration"] = duration(connections.max_age)
    said = [put("X-Ring-Version", "%UPSTREAM_METADATA(ring:version)%")]
    said.append(put("X-Ring-Reason", "%UPSTREAM_METADATA(ring:reason)%"))
    filters = [
        extension(
            "envoy.filters.http.header_mutation",
            "extensions.filters.http.header_mutation.v3.HeaderMutation",
            mutations={"request_mutations": [{"append": one} for one in said]},
        ),
        extension("envoy.filters.http.upstream_codec", "extensions.filters.http.upstream_codec.v3.UpstreamCodec"),
    ]
    return {
        _HTTP: typed(
            _HTTP.removeprefix("envoy."),
            common_http_protocol_options=common,
            explicit_http_config={"http_protocol_options": {}},
            http_filters=filters,
        )
    }


def _way(endpoint: EndpointSpec) -> ClientTlsSpec | None:
    """How an endpoint is spoken to: by which name, if over TLS."""
    tls = endpoint.tls
    return None if tls is None else replace(tls, name=tls.name or endpoint.name or endpoint.host)


def _sockets(ways: tuple[ClientTlsSpec | None, ...]) -> Json:
    """Each endpoint says which of these is its own. The digests are there so that other files are another cluster:
    Envoy reads them when it makes one."""
    if ways in ((), (None,)):
        return {}
    digests = [tls.digest if tls is not None else "" for tls in ways]
    return {
        "metadata": {"filter_metadata": {"ring": {"digests": digests}}},
        "transport_socket_matches": [
            {"name": str(way), "match": {"way": way}, "transport_socket": _PLAIN if tls is None else _tls(tls)}
            for way, tls in enumerate(ways)
        ],
    }


def _tls(tls: ClientTlsSpec) -> Json:
    is_name = _is_name(EndpointSpec(tls.name, 0))
    common: Json = {"alpn_protocols": ["http/1.1"]}
    if tls.certificate:
        common["tls_certificates"] = [
            {"certificate_chain": {"filename": tls.certificate}, "private_key": {"filename": tls.key}}
        ]
    if tls.verify:
        san_type = "DNS" if is_name else "IP_ADDRESS"
        trusted: Json = {"trusted_ca": {"filename": tls.ca}} if tls.ca else {"system_root_certs": {}}
        common["validation_context"] = {
            **trusted,
            "match_typed_subject_alt_names": [{"san_type": san_type, "matcher": {"exact": tls.name}}],
        }
    sni = {"sni": tls.name} if is_name else {}
    return extension(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        common_tls_context=common,
        **sni,
    )
