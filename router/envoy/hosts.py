"""Services by host and path as Envoy's virtual hosts, and where their routes lead. Pure.

The more specific host wins, within it the longest path that ends where a segment ends; what no service of a host has is
looked for among wider hosts. Envoy looks at one virtual host alone, so each has the routes of the wider ones behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from router.core.snapshot import outward
from router.core.spec import ListenerSpec, ServiceSpec, SnapshotSpec
from router.envoy.matches import ALWAYS, Match, both
from router.envoy.messages import Json, duration, extension, put, typed
from router.envoy.names import cluster_name, route_name
from router.envoy.options import EnvoyOptions
from router.envoy.routes import Rule, hash_policy, service_rules

ANYWHERE: Final = "*"
SAID: Final = ("X-Ring", "X-Ring-Version", "X-Ring-Reason", "X-Ring-Mirror")
"""No backend may say these to a client."""
SAFE_RETRIES: Final = "connect-failure,refused-stream,reset-before-request"
"""Nothing of the request was sent: any method may be sent once more."""
_IDEMPOTENT: Final[Match] = {
    "headers": [{"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS|TRACE|PUT|DELETE"}}}]
}
"""RFC 9110 §9.2.2."""
_UPGRADE: Final[Match] = {"headers": [{"name": "upgrade", "string_match": {"exact": "websocket", "ignore_case": True}}]}
_TRACE: Final[Match] = {"headers": [{"name": ":method", "string_match": {"exact": "TRACE"}}]}

_Table = dict[str, ServiceSpec]
"""Path without a slash at its end → its service."""


def route_configuration(name: str, spec: SnapshotSpec, options: EnvoyOptions, *, is_trusted: bool) -> Json:
    """All routes; ``is_trusted``: those for requests of trusted proxies. Raises ``CannotSayError``."""
    routes = {
        service.name: [
            route
            for rule in service_rules(service, is_trusted=is_trusted)
            for route in _routes(rule, service, spec.listener, options, sends_baggage=spec.listener.sends_baggage)
        ]
        for service in spec.services
    }
    hosts = []
    for domains, places in virtual_hosts(spec.services):
        found = [] if spec.listener.serves_trace else [_no_trace()]
        for path, service in places:
            found += [{**route, "match": _below(path, route["match"])} for route in routes[service.name]]
        hosts.append({"name": domains[0], "domains": list(domains), "routes": found})
    return typed(
        "config.route.v3.RouteConfiguration", name=name, ignore_port_in_host_matching=True, virtual_hosts=hosts
    )


def virtual_hosts(services: tuple[ServiceSpec, ...]) -> list[tuple[tuple[str, ...], list[tuple[str, ServiceSpec]]]]:
    """Hosts, and the services of their paths in the order in which they are asked. Hosts that have the same are one."""
    tables: dict[str, _Table] = {}
    for service in services:
        for host in service.hosts or (ANYWHERE,):
            table = tables.setdefault(_domain(host), {})
            for path in service.paths or ("/",):
                table.setdefault(path.rstrip("/"), service)
    found: dict[tuple[tuple[str, str], ...], tuple[list[str], list[tuple[str, ServiceSpec]]]] = {}
    for domain in tables:
        places = list(_places(domain, tables))
        same = tuple((path, service.name) for path, service in places)
        found.setdefault(same, ([], places))[0].append(domain)
    return [(tuple(domains), places) for domains, places in found.values()]


def _domain(host: str) -> str:
    bare = host.lower().strip("[]")
    return f"[{bare}]" if ":" in bare else bare


def _places(domain: str, tables: dict[str, _Table]) -> Iterator[tuple[str, ServiceSpec]]:
    """The paths of a host, the longest first, and those of wider hosts, until one has them all."""
    wider = [one for one in tables if one.startswith("*.") and domain != one and domain.endswith(one[1:])]
    for one in (domain, *sorted(wider, key=len, reverse=True), ANYWHERE):
        if one != domain or domain in tables:
            for path in sorted(tables.get(one, {}), key=len, reverse=True):
                yield path, tables[one][path]
            if "" in tables.get(one, {}) or one == ANYWHERE:
                return


def _below(path: str, match: Json) -> Json:
    return {**({"path_separated_prefix": path} if path else {"prefix": "/"}), **match}


def _no_trace() -> Json:
    return {"name": "trace", "match": {"prefix": "/", **_TRACE}, "direct_response": {"status": 405}}


def _routes(
    rule: Rule, service: ServiceSpec, listener: ListenerSpec, options: EnvoyOptions, *, sends_baggage: bool
) -> Iterator[Json]:
    """A rule as routes: for tunnels, for what may be sent twice, and for the rest."""
    retries = service.retries
    repeated = "," + "reset" + (",retriable-status-codes" if retries.statuses else "")
    kinds = [(_UPGRADE, SAFE_RETRIES, listener.tunnel_timeout)]
    longest = max(service.timeouts.first_byte, service.timeouts.between_bytes, listener.body_timeout)
    if retries.attempts:
        kinds.append((_IDEMPOTENT, SAFE_RETRIES + repeated, longest))
    kinds.append((ALWAYS, SAFE_RETRIES, longest))
    for kind, retried, idle in kinds:
        is_tunnel = kind is _UPGRADE
        yield {
            "name": route_name(service.name, rule.reason),
            "match": both(rule.match, kind),
            "metadata": {"filter_metadata": {"ring": _noted(service, options)}},
            **({} if rule.shares else _said(service, rule.place, sends_baggage=sends_baggage)),
            **({"request_body_buffer_limit": retries.replay_bytes} if retries.attempts else {}),
            "route": {
                **_target(rule, service, sends_baggage=sends_baggage),
                "timeout": duration(0 if is_tunnel else listener.request_timeout),
                "idle_timeout": duration(idle),
                "retry_policy": _retry_policy(rule, service, retried, is_tunnel=is_tunnel),
            },
        }


def _noted(service: ServiceSpec, options: EnvoyOptions) -> Json:
    is_watched = service.name in options.watched
    return {"service": service.name, **({"watched": True, "generation": options.generation} if is_watched else {})}


def _target(rule: Rule, service: ServiceSpec, *, sends_baggage: bool) -> Json:
    policies = {}
    if rule.source is not None and (rule.shares or service.balance.kind == "affinity"):
        policies = {"hash_policy": [hash_policy(rule.source, service.salt)]}
    if not rule.shares:
        return {"cluster": _cluster_of(service, rule.place), **policies}
    shares = [
        {"name": _cluster_of(service, place), "weight": weight, **_said(service, place, sends_baggage=sends_baggage)}
        for place, weight in rule.shares
    ]
    return {"weighted_clusters": {"use_hash_policy": True, "clusters": shares}, **policies}


def _cluster_of(service: ServiceSpec, place: int) -> str:
    ring = service.rings[place]
    return cluster_name(service.name, ring.name, ring.version)


def _said(service: ServiceSpec, place: int, *, sends_baggage: bool) -> Json:
    """What the backend and the client are told; the version comes from the endpoint that was chosen."""
    ring = service.rings[place]
    asked = [put("X-Ring", ring.name)]
    if sends_baggage:
        asked.append(put("baggage", f"ring={ring.name}", "APPEND_IF_EXISTS_OR_ADD"))
    answered = [
        put("X-Ring", ring.name),
        put("X-Ring-Version", "%UPSTREAM_METADATA(ring:version)%"),
        put("X-Ring-Reason", "%UPSTREAM_METADATA(ring:reason)%"),
    ]
    return {
        "request_headers_to_add": asked,
        "response_headers_to_remove": list(SAID),
        **({"response_headers_to_add": answered} if service.response_headers else {}),
    }


def _retry_policy(rule: Rule, service: ServiceSpec, retried: str, *, is_tunnel: bool) -> Json:
    """``per_try_timeout`` ends with the head of a response; Envoy does not look at it once that is on its way."""
    retries, timeouts = service.retries, service.timeouts
    per_try = min(timeouts.first_byte, retries.per_try or timeouts.first_byte)
    policy: Json = {
        "retry_on": retried,
        "num_retries": retries.attempts,
        "per_try_timeout": duration(per_try),
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.01s"},
    }
    if not is_tunnel:
        policy["per_try_idle_timeout"] = duration(max(timeouts.first_byte, timeouts.between_bytes))
    if not retries.attempts:
        return policy
    if retries.statuses:
        policy["retriable_status_codes"] = list(retries.statuses)
    policy["retry_host_predicate"] = [
        extension(
            "envoy.retry_host_predicates.previous_hosts",
            "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        )
    ]
    policy["host_selection_retry_max_attempts"] = "5"
    places = [place for place, _ in rule.shares] or [rule.place]
    if any(outward(service, service.rings[place].name) for place in places):
        # The last attempt leads outward; before, each endpoint of the ring's own version has its turn, if they are few.
        policy["retry_priority"] = extension(
            "envoy.retry_priorities.previous_priorities",
            "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            update_frequency=max(min(retries.attempts, _fewest_endpoints(service, places)), 1),
        )
    return policy


def _fewest_endpoints(service: ServiceSpec, places: list[int]) -> int:
    endpoints = {version.name: len(version.endpoints) for version in service.versions}
    return min(endpoints[service.rings[place].version] for place in places)
