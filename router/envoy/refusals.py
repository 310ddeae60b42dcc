"""What Envoy cannot do as the router does: said before anything is written, never left out in silence. Pure.

Whatever a config asks for is translated faithfully or refused here. What nobody asked for, because it is a default, and
is otherwise in Envoy stands in docs/envoy.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from router.core.spec import (
    BalanceSpec,
    BreakerSpec,
    ConnectionsSpec,
    LimitsSpec,
    ListenerSpec,
    RingSpec,
    ServiceSpec,
    SnapshotSpec,
)
from router.envoy.matches import matches
from router.envoy.refused import CannotSayError, Refusal
from router.envoy.routes import MOST_DENYING

_LISTENER: Final = ListenerSpec()
_LIMITS: Final = LimitsSpec()
_BALANCE: Final = BalanceSpec()
_CONNECTIONS: Final = ConnectionsSpec()
_RETURN_AFTER: Final = ServiceSpec("", (), ()).return_after
_IDENTITY: Final = {
    "claim": ("claims need Envoy's JWT filter, which is not set up here", "let what verifies the token set a header"),
    "certificate": ("Envoy hashes no part of a certificate", "let what verifies the certificate set a header"),
    "client": ("Envoy hashes an address with neither its prefix nor its usual form", "use a header or a cookie"),
    "anonymous_cookie": (
        "Envoy makes no cookie that shared caches leave alone",
        "let the application set one, and name it as `cookie`",
    ),
}


def refusals(spec: SnapshotSpec) -> tuple[Refusal, ...]:
    """Everything that stands against it, in the order of the config; none: Envoy can have it."""
    found = [*_of_edge(spec), *_of_listener(spec.listener)]
    for service in spec.services:
        found += _of_service(service, spec)
    return tuple(found)


def _of_edge(spec: SnapshotSpec) -> Iterator[Refusal]:
    if spec.tracing is not None:
        yield Refusal("tracing", "spans are the router's own", "leave `tracing` out, and set up Envoy's")
    log = spec.access_log
    if log.format not in ("json", "off"):
        yield Refusal("access_log.format", f"Envoy's log is not written as {log.format}", "use `json` or `off`")
    if any(rate < 1 for rate in log.rates):
        yield Refusal("access_log", "Envoy writes all lines or none", "leave the shares of lines out")
    if log.identity_key and log.format != "off":
        yield Refusal("access_log.identity", "Envoy's log cannot hash users' keys", "leave it out")
    if spec.listener.sends_baggage and spec.trust.keys:
        yield Refusal("baggage", "Envoy cannot sign the ring that goes on", "say `baggage: false`; X-Ring goes on")


def _of_listener(listener: ListenerSpec) -> Iterator[Refusal]:
    limits = listener.limits
    if listener.send_timeout != _LISTENER.send_timeout:
        reason = "Envoy has one time-out for a request in which nothing moves, either way"
        yield Refusal(
            "timeouts.send", reason, "leave it out; the longest of `first_byte`, `between_bytes` and `body` counts"
        )
    if listener.mode == "sidecar":
        yield Refusal("mode", "Envoy cannot prove the ring that a request carries", "use `edge`")
    for socket in listener.sockets:
        if socket.is_outbound:
            yield Refusal("listen.outbound", "Envoy cannot take over the ring of a call chain", "leave it out")
    if limits.body_bytes:
        yield Refusal("limits.body_bytes", "Envoy would hold whole bodies to measure them", "limit them behind it")
    if limits.connections:
        yield Refusal("limits.connections", "that is a matter of Envoy's bootstrap", "set its overload manager up")
    if limits.connections_per_client:
        yield Refusal("limits.connections_per_client", "Envoy does not count by client", "leave it out")
    if limits.uri_bytes != _LIMITS.uri_bytes:
        yield Refusal("limits.uri_bytes", "Envoy limits heads as a whole", "leave it out, and set `head_bytes`")
    if limits.body_rate not in (0, _LIMITS.body_rate):
        yield Refusal("limits.body_rate", "Envoy measures no rate", "leave it out; `timeouts.body` counts")


def _of_service(service: ServiceSpec, spec: SnapshotSpec) -> Iterator[Refusal]:
    place = f"services.{service.name}"
    for source in service.identity:
        if source.kind in _IDENTITY:
            yield Refusal(f"{place}.identity.{source.kind}", *_IDENTITY[source.kind])
        elif service.salt and source.kind != "header":
            reason = f"Envoy puts a salt in front of headers alone, not of a {source.kind}"
            yield Refusal(f"{place}.salt", reason, "leave `salt` out, or identify users by a header")
    if spec.trust.keys and service.override != "off":
        yield Refusal(f"{place}.override", "Envoy cannot verify passes", "say `override: off`, or no `signing_keys`")
    yield from _of_settings(place, service)
    if sum(bool(ring.denied) for ring in service.rings) > MOST_DENYING:
        yield Refusal(f"{place}.rings", f"more than {MOST_DENYING} rings deny somebody", "deny in fewer of them")
    for ring in service.rings:
        yield from _of_ring(f"{place}.rings.{ring.name}", ring, service)


def _of_settings(place: str, service: ServiceSpec) -> Iterator[Refusal]:
    if service.server_timing:
        yield Refusal(f"{place}.server_timing", "Envoy does not say how long it took", "leave it out")
    if service.body_bytes:
        yield Refusal(f"{place}.body_bytes", "Envoy would hold whole bodies to measure them", "limit them behind it")
    if service.error_pages:
        yield Refusal(f"{place}.error_pages", "Envoy's own answers are the same for all services", "leave them out")
    if service.overload.in_flight or service.overload.endpoint_in_flight:
        reason = "Envoy refuses at once what the router lets wait, and counts each ring alone"
        yield Refusal(f"{place}.overload", reason, "leave the limits out")
    if service.breaker.failed_basis_points and service.breaker != BreakerSpec():
        yield Refusal(f"{place}.breaker", "Envoy compares no version with the next one", "leave it out, or `failed: 0`")
    if service.balance.kind == "affinity" and service.balance.slow_start not in (0, _BALANCE.slow_start):
        reason = "with affinity Envoy gives an endpoint that comes back its full share at once"
        yield Refusal(f"{place}.balance.slow_start", reason, "leave it out, or say 0")
    if service.connections.idle_per_endpoint != _CONNECTIONS.idle_per_endpoint:
        reason = "Envoy keeps as many connections as there were requests at a time"
        yield Refusal(f"{place}.connections.idle_per_endpoint", reason, "leave it out; `idle` closes them")
    if service.return_after not in (0, _RETURN_AFTER):
        yield Refusal(f"{place}.return_after", "in Envoy users come back at once", "leave it out, or raise `passes`")


def of_live(place: str, ring: RingSpec) -> Iterator[Refusal]:
    """Against what is said in Redis and not in the config: see ``held``."""
    if ring.tables:
        reason = "more than 4,096 members in Redis, or not all of them text, are a table that no route can ask"
        yield Refusal(f"{place}.members", reason, "keep a short list, or let what knows them set a header")
    if ring.holdback:
        yield Refusal(f"{place}.holdback", "Envoy hashes a request once", "lift it: HSET …:control holdback ''")


def _of_ring(place: str, ring: RingSpec, service: ServiceSpec) -> Iterator[Refusal]:
    yield from of_live(place, ring)
    if ring.mirror is not None:
        yield Refusal(f"{place}.mirror", "Envoy copies a whole route, not a ring that the hash chose", "leave it out")
    if ring.on_change != "keep":
        yield Refusal(f"{place}.on_change", "Envoy closes no connection because a user moved", "use `keep`")
    for key, rules in (("audience", ring.rules), ("deny", ring.denied)):
        for number, rule in enumerate(rules):
            try:
                for source in (*service.identity, None):
                    matches(rule, source)
            except CannotSayError as error:
                yield Refusal(f"{place}.{key}[{number}]", error.reason, error.remedy)
