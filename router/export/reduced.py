"""What nginx and HAProxy cannot do as the router does: taken away, and said. Pure.

What takes somebody into another ring than the config says is wrong; all else is lost. What is taken away never lets
anybody further in: a ring whose deny list cannot be asked for has nobody, and a listener or an endpoint that cannot be
had is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, Literal

from router.core.audience import ConditionSpec
from router.core.snapshot import outward
from router.core.spec import (
    ListenerSpec,
    OverloadSpec,
    RingSpec,
    ServiceSpec,
    SnapshotSpec,
    SocketSpec,
    VersionSpec,
)
from router.export.conditions import PLAIN_NAME, Alternative, alternatives
from router.export.lost import CannotSayError, Loss

Engine = Literal["nginx", "haproxy"]
_NO_KEY: Final = "who is known by it alone has no key: rules, then the default ring"
_IDENTITY: Final = {
    "claim": "tokens are not verified there",
    "certificate": "certificates are not asked for there",
    "client": "an address is not hashed there in its usual form",
    "anonymous_cookie": "no cookie is minted there that shared caches leave alone",
}
_HEADERS: Final = ("header", "cookie", "query")


def reduced(spec: SnapshotSpec, engine: Engine) -> tuple[SnapshotSpec, tuple[Loss, ...]]:
    """What the engine can have of a snapshot, and what it cannot: what holds of the file as a whole comes last."""
    found: list[Loss] = []
    listener = _listener(spec.listener, found)
    services = tuple(_service(service, engine, found) for service in spec.services)
    found += _everywhere(spec, engine)
    return replace(spec, listener=listener, services=services), tuple(found)


def rule_alternatives(rules: Iterable[ConditionSpec]) -> list[Alternative]:
    """Of rules of which one has to hold, in their order. Not to be asked of a snapshot that is not reduced."""
    return [one for rule in rules for one in alternatives(rule)]


def _everywhere(spec: SnapshotSpec, engine: Engine) -> list[Loss]:
    found = [
        Loss("redis", "this file stands still", "weights, kills, versions and members are those of its writing"),
        Loss("rollouts", "nobody gathers evidence there", "steps and roll-backs stop: widen by hand, and export again"),
        Loss("services", "fields and cookies that come twice are not joined", f"{_SEVERAL[engine]} counts"),
    ]
    if engine == "nginx":
        found.append(
            Loss(
                "weights",
                "nginx sorts users by MurmurHash2 and not by xxh64",
                "the shares are right, but the users are others; rules and members are the same",
            )
        )
        reason = "nginx knows its answer too late"
        found.append(Loss("X-Ring-Version", reason, "who falls outward comes to a backend with the ring's own version"))
        found.append(Loss("health", "nginx asks no endpoint", "an endpoint is left alone after requests failed there"))
    else:
        found.append(Loss("identity.cookie", "a value in quotes keeps them", "it is another key, or another value"))
    found.append(
        Loss("protocol", "Via, Forwarded and X-Request-Id are not written", "X-Forwarded-For, -Proto and -Host are")
    )
    found.append(Loss("limits", "those of heads, rates, connections and retries are the proxy's own", "as it has them"))
    found.append(Loss("access_log", "it is not written", "set the proxy's own up"))
    if spec.listener.sends_baggage:
        found.append(
            Loss("baggage", "the ring goes on in X-Ring alone", "a member `ring` of a client's is not removed")
        )
    if len({one.timeouts for one in spec.services}) > 1:
        found.append(Loss("timeouts", "they are the same for all services there", "the longest ones count"))
    if spec.tracing is not None:
        found.append(Loss("tracing", "no spans are sent", "set the proxy's own up"))
    return found


_SEVERAL: Final = {"nginx": "the first field or cookie", "haproxy": "the last field or cookie"}


def _listener(listener: ListenerSpec, found: list[Loss]) -> ListenerSpec:
    sockets = []
    for socket in listener.sockets:
        why = _why_not(socket)
        if why:
            found.append(Loss(f"listen.{socket.address}", why, "the listener is left out", is_wrong=True))
        else:
            sockets.append(socket)
    if listener.mode == "sidecar":
        found.append(Loss("mode", "the ring that a request carries is not believed", "it is taken off, as at the edge"))
    return replace(listener, sockets=tuple(sockets))


def _why_not(socket: SocketSpec) -> str:
    if socket.tls is not None:
        return "certificates are not translated"
    if socket.redirect_port:
        return "redirects to https are not translated"
    if socket.is_outbound:
        return "the ring of a call chain cannot be believed"
    return ""


def _service(service: ServiceSpec, engine: Engine, found: list[Loss]) -> ServiceSpec:
    place = f"services.{service.name}"
    identity = []
    for source in service.identity:
        why = _IDENTITY.get(source.kind, "")
        if source.is_trusted_only:
            why = "who is trusted is not asked there"
        elif source.kind in _HEADERS and not PLAIN_NAME.fullmatch(source.name):
            why = f"the name of a {source.kind} has other signs than letters, digits and ._-"
        elif source.kind == "header" and ("_" in source.name or "." in source.name):
            why = "nginx has no such header: its name has an underscore or a dot"
        if why:
            found.append(Loss(f"{place}.identity.{source.kind}", why, _NO_KEY, is_wrong=True))
        else:
            identity.append(source)
    salt = service.salt
    if salt and not PLAIN_NAME.fullmatch(salt):
        found.append(
            Loss(
                f"{place}.salt",
                "it has other signs than letters, digits and ._-",
                "users are sorted without",
                is_wrong=True,
            )
        )
        salt = ""
    killed = list(service.killed)
    rings = tuple(_ring(f"{place}.rings.{ring.name}", ring, killed, found) for ring in service.rings)
    versions = tuple(_version(f"{place}.versions.{one.name}", one, found) for one in service.versions)
    if engine == "nginx" and any(len(outward(service, ring.name)) > 1 for ring in service.rings):
        reason = "a server of nginx's has one kind of backup"
        found.append(Loss(f"{place}.rings", reason, "users fall to the next version outward, and no further"))
    found += _settings(place, service)
    return replace(service, identity=tuple(identity), salt=salt, rings=rings, killed=tuple(killed), versions=versions)


def _settings(place: str, service: ServiceSpec) -> list[Loss]:
    found = []
    if service.override != "off":
        found.append(
            Loss(f"{place}.override", "passes and overrides are not believed", "who has one gets their ring without it")
        )
    if service.breaker.failed_basis_points:
        found.append(Loss(f"{place}.breaker", "versions are not compared", "only endpoints are taken out"))
    if service.overload != OverloadSpec():
        found.append(Loss(f"{place}.overload", "the limits are not translated", "nobody waits, nobody is refused"))
    if service.balance.kind == "affinity":
        found.append(Loss(f"{place}.balance", "a user keeps no endpoint", "the least busy one is taken"))
    if service.error_pages:
        found.append(Loss(f"{place}.error_pages", "they are not translated", "the proxy's own words are shown"))
    if service.server_timing:
        found.append(Loss(f"{place}.server_timing", "it is not said there", "nothing is said"))
    return found


def _version(place: str, version: VersionSpec, found: list[Loss]) -> VersionSpec:
    kept = tuple(one for one in version.endpoints if one.tls is None)
    if kept != version.endpoints:
        why = "TLS towards endpoints is not translated"
        found.append(Loss(f"{place}.endpoints", why, "those endpoints are left out", is_wrong=True))
    return replace(version, endpoints=kept)


def _ring(place: str, ring: RingSpec, killed: list[str], found: list[Loss]) -> RingSpec:
    rules = []
    for number, rule in enumerate(ring.rules):
        try:
            alternatives(rule)
            rules.append(rule)
        except CannotSayError as error:
            found.append(Loss(f"{place}.audience[{number}]", str(error), "the rule lets nobody in", is_wrong=True))
    denied = ring.denied
    for number, rule in enumerate(ring.denied):
        try:
            alternatives(rule)
        except CannotSayError as error:
            found.append(Loss(f"{place}.deny[{number}]", str(error), "nobody is in this ring", is_wrong=True))
            killed.append(ring.name)
            denied = ()
            break
    if ring.tables:
        reason = "members in Redis are a table of hashes"
        found.append(Loss(f"{place}.members", reason, "those users go by rules and hash"))
    if ring.holdback:
        reason = "a holdback takes a second hash"
        found.append(Loss(f"{place}.holdback", reason, "its users get the ring's version too", is_wrong=True))
    if ring.mirror is not None:
        found.append(Loss(f"{place}.mirror", "requests of one ring cannot be copied", "nothing is copied"))
    if ring.on_change != "keep":
        found.append(Loss(f"{place}.on_change", "no connection is closed when a user moves", "it stays open"))
    return replace(ring, rules=tuple(rules), denied=denied)
