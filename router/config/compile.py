"""Settings and what operators changed live → the snapshot, as plain data.

Pure: the same settings and the same live values give the same snapshot. It never invents: where the live values and the
config do not fit together it raises, and the caller keeps the snapshot it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router.config.edge import Listener
from router.config.endpoints import NONE_DOWN, NONE_RESOLVED, Down, Resolved, version_spec
from router.config.files import Files
from router.config.settings import Entry, Ring, Service, Settings
from router.core.hashing import BUCKETS
from router.core.live import Live
from router.core.spec import (
    CertificateSpec,
    ConditionSpec,
    ErrorPageSpec,
    IdentitySpec,
    LimitsSpec,
    ListenerSpec,
    RingSpec,
    ServerTlsSpec,
    ServiceSpec,
    SnapshotSpec,
    SocketSpec,
    TimeoutsSpec,
)

_AS_CONFIGURED = Live()
_NO_FILES = Files()


class LiveConflict(ValueError):
    """Live values that do not fit this config: weights over 100 percent together, or a version that is not in it."""


def service_names(settings: Settings) -> tuple[str, ...]:
    """The names of all services, in the order of the file."""
    return tuple(settings.services)


def snapshot_spec(
    settings: Settings,
    live: Mapping[str, Live],
    generation: int,
    addresses: Sequence[str] = (),
    before: Sequence[SocketSpec] = (),
    *,
    resolved: Resolved = NONE_RESOLVED,
    down: Down = NONE_DOWN,
) -> SnapshotSpec:
    """The whole routing state. ``live`` is per service; an absent one means "as the config says".

    ``resolved`` is host name → addresses: an endpoint with such a name becomes one per address, others stay as they
    are. ``down`` is (service, version) → addresses that checks found down.

    ``addresses`` are those that are open, in their order, where these may be others than the settings say: what the
    settings no longer tell of one of them is taken from ``before``.

    Live values for rings that the config does not have are left out: a ring may leave the config before its weight
    leaves Redis. Raises ``LiveConflict`` when weights add up to more than 100 percent or a live version does not exist.
    """
    return SnapshotSpec(
        generation=generation,
        services=tuple(
            service_spec(name, service, live.get(name, _AS_CONFIGURED), settings.files, resolved, down)
            for name, service in settings.services.items()
        ),
        listener=listener_spec(settings, addresses or [str(one.address) for one in settings.listen], before),
        access_log=settings.access_log.format,
    )


def listener_spec(settings: Settings, addresses: Sequence[str], before: Sequence[SocketSpec]) -> ListenerSpec:
    """What workers need to know about clients."""
    sockets = {one.address: one for one in before}
    sockets |= {str(one.address): _socket(one, settings.files) for one in settings.listen}
    timeouts, protocol, limits = settings.timeouts, settings.protocol, settings.limits
    return ListenerSpec(
        trusted_proxies=settings.trusted_proxies,
        head_timeout=timeouts.head,
        idle_timeout=timeouts.idle,
        body_timeout=timeouts.body,
        send_timeout=timeouts.send,
        request_timeout=timeouts.request or 0.0,
        tunnel_timeout=timeouts.tunnel,
        drain_timeout=timeouts.drain,
        limits=LimitsSpec(**limits.model_dump()),
        via=protocol.via,
        serves_trace=protocol.trace,
        answers_expect=protocol.expect == "answer",
        sockets=tuple(sockets.get(address) or SocketSpec(address) for address in addresses),
        recycle=settings.recycle.spec(),
    )


def _socket(listener: Listener, files: Files) -> SocketSpec:
    tls = None
    if listener.tls is not None:
        ca = listener.tls.client_ca
        tls = ServerTlsSpec(
            certificates=tuple(
                CertificateSpec(
                    files.found[one.certificate],
                    files.found[one.key],
                    files.names[one.certificate],
                    files.digests[one.certificate] + files.digests[one.key],
                )
                for one in listener.tls.certificates
            ),
            client_ca=files.found[ca] if ca else "",
            client_certificate=listener.tls.client_certificate,
            client_ca_digest=files.digests[ca] if ca else "",
            min_version=listener.tls.min_version,
            hsts_seconds=listener.tls.hsts_seconds,
        )
    return SocketSpec(
        str(listener.address), tls, listener.proxy_protocol, listener.redirect_to_https or 0, listener.inbound
    )


def service_spec(
    name: str,
    service: Service,
    live: Live = _AS_CONFIGURED,
    files: Files = _NO_FILES,
    resolved: Resolved = NONE_RESOLVED,
    down: Down = NONE_DOWN,
) -> ServiceSpec:
    """One service, with its live values folded in. Raises ``LiveConflict`` as ``snapshot_spec`` does."""
    weights = {ring.name: live.weights.get(ring.name, ring.basis_points) for ring in service.rings[:-1]}
    taken = sum(weights.values())
    if taken > BUCKETS:
        raise LiveConflict(
            f"service {name}: the weights would add up to {taken / 100:g} percent "
            f"({', '.join(f'{ring} {points / 100:g}' for ring, points in weights.items())}); at most 100"
        )
    weights[service.rings[-1].name] = BUCKETS - taken
    ring_names = [ring.name for ring in service.rings]
    return ServiceSpec(
        name=name,
        versions=tuple(version_spec(name, key, service, live, files, resolved, down) for key in service.versions),
        rings=tuple(_ring(name, service, ring, live, weights[ring.name]) for ring in service.rings),
        hosts=service.hosts,
        paths=service.paths,
        salt=service.salt,
        identity=tuple(IdentitySpec(source.kind, source.name) for source in service.identity),
        killed=tuple(ring for ring in ring_names[:-1] if ring in live.killed),
        response_headers=service.response_headers,
        timeouts=TimeoutsSpec(service.timeouts.connect, service.timeouts.first_byte, service.timeouts.between_bytes),
        body_bytes=service.body_bytes,
        error_pages=tuple(
            ErrorPageSpec(status, *files.pages[path])
            for status, path in service.error_pages.items()
            if path in files.pages
        ),
        balance=service.balance.spec,
        connections=service.connections.spec,
        outliers=service.outliers.spec,
        retries=service.retries.spec,
        overload=service.overload.spec,
        breaker=service.breaker.spec,
        return_after=service.return_after,
        revoked=live.revoked,
    )


def _ring(service_name: str, service: Service, ring: Ring, live: Live, basis_points: int) -> RingSpec:
    version = live.versions.get(ring.name, ring.version)
    if version not in service.versions:
        known = ", ".join(service.versions)
        raise LiveConflict(f"service {service_name}: ring {ring.name} is to run version {version}; there is: {known}")
    return RingSpec(
        name=ring.name,
        version=version,
        basis_points=basis_points,
        rules=tuple(condition(entry) for entry in ring.audience),
        members=ring.members,
        falls_outward=ring.fallback == "outward",
        # Redis may have given the ring the version that its copies go to: they would only be the same request twice.
        mirror=None if ring.mirror is None or ring.mirror.version == version else ring.mirror.spec,
    )


def condition(entry: Entry) -> ConditionSpec:
    """An audience entry as one rule: several keys in one entry all have to hold."""
    parts = []
    if entry.header is not None:
        header = entry.header
        parts.append(ConditionSpec("header", header.name, header.compare, header.values, header.inverted))
    if entry.cookie is not None:
        cookie = entry.cookie
        parts.append(ConditionSpec("cookie", cookie.name, cookie.compare, cookie.values, cookie.inverted))
    if entry.all_of is not None:
        parts.append(ConditionSpec("all_of", children=tuple(condition(child) for child in entry.all_of)))
    if entry.any_of is not None:
        parts.append(ConditionSpec("any_of", children=tuple(condition(child) for child in entry.any_of)))
    return parts[0] if len(parts) == 1 else ConditionSpec("all_of", children=tuple(parts))
