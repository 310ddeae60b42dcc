"""Settings and what operators changed live → the snapshot, as plain data.

Pure: the same settings and the same live values give the same snapshot. It never invents: where the live values and the
config do not fit together it raises, and the caller keeps the snapshot it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from router.config.audiences import NO_FILES, NO_LISTS, Lists, condition
from router.config.edge import Listener
from router.config.endpoints import NONE_DOWN, NONE_RESOLVED, Down, Resolved, version_spec
from router.config.files import Files
from router.config.settings import Ring, Service, Settings
from router.config.trust import NO_KEY_SETS, KeySets, trust_spec
from router.core.hashing import BUCKETS
from router.core.live import Live
from router.core.moves import Move, moves
from router.core.snapshot import compile_service
from router.core.spec import (
    CertificateSpec,
    ErrorPageSpec,
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

Tables = Mapping[tuple[str, str], str | tuple[str, ...]]
"""(service, ring) → the file of the member table that control keeps for it; or keys, for an engine without tables."""
NO_TABLES: Final[Tables] = {}


class LiveConflict(ValueError):
    """Live values that do not fit this config: weights over 100 percent together, or a version that is not in it."""


def service_names(settings: Settings) -> tuple[str, ...]:
    """The names of all services, in the order of the file."""
    return tuple(settings.services)


def ring_names(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Service → its rings, inner to outer."""
    return {name: tuple(ring.name for ring in service.rings) for name, service in settings.services.items()}


def snapshot_spec(
    settings: Settings,
    live: Mapping[str, Live],
    generation: int,
    addresses: Sequence[str] = (),
    before: Sequence[SocketSpec] = (),
    *,
    resolved: Resolved = NONE_RESOLVED,
    down: Down = NONE_DOWN,
    tables: Tables = NO_TABLES,
    lists: Lists = NO_LISTS,
    key_sets: KeySets = NO_KEY_SETS,
) -> SnapshotSpec:
    """The whole routing state. ``live`` is per service; an absent one means "as the config says".

    ``resolved`` is host name → addresses: an endpoint with such a name becomes one per address, others stay as they
    are. ``down`` is (service, version) → addresses that checks found down.

    ``tables`` is (service, ring) → member table of the ring's members in Redis, or their keys. ``lists`` is a file of
    keys (absolute path, see ``list_files``) → the member table made of it: where one has none, its keys are compared
    with one by one if there are at most ``files.FEW_KEYS``, else nobody is in it. ``key_sets`` is issuer → what its
    ``jwks_url`` gave.

    ``addresses`` are those that are open, in their order, where these may be others than the settings say: what the
    settings no longer tell of one of them is taken from ``before``.

    Live values for rings that the config does not have are left out: a ring may leave the config before its weight
    leaves Redis. Raises ``LiveConflict`` when weights add up to more than 100 percent or a live version does not exist.
    """
    return SnapshotSpec(
        generation=generation,
        services=tuple(
            service_spec(name, service, live.get(name, _AS_CONFIGURED), settings.files, resolved, down, tables, lists)
            for name, service in settings.services.items()
        ),
        listener=listener_spec(settings, addresses or [str(one.address) for one in settings.listen], before),
        access_log=settings.access_log.spec(settings.signing_keys),
        tracing=settings.tracing.spec if settings.tracing is not None else None,
        trust=trust_spec(settings.signing_keys, settings.tokens, settings.files, key_sets),
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
        mode=settings.mode,
        sends_baggage=settings.baggage,
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
        str(listener.address),
        tls,
        listener.proxy_protocol,
        listener.redirect_to_https or 0,
        is_inbound=listener.inbound,
        is_outbound=listener.outbound,
    )


def service_spec(
    name: str,
    service: Service,
    live: Live = _AS_CONFIGURED,
    files: Files = NO_FILES,
    resolved: Resolved = NONE_RESOLVED,
    down: Down = NONE_DOWN,
    tables: Tables = NO_TABLES,
    lists: Lists = NO_LISTS,
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
    names = [ring.name for ring in service.rings]
    return ServiceSpec(
        name=name,
        versions=tuple(version_spec(name, key, service, live, files, resolved, down) for key in service.versions),
        rings=tuple(
            _ring(name, service, ring, live, weights[ring.name], files, tables, lists) for ring in service.rings
        ),
        hosts=service.hosts,
        paths=service.paths,
        salt=service.salt,
        identity=tuple(source.spec for source in service.identity),
        killed=tuple(ring for ring in names[:-1] if ring in live.killed),
        response_headers=service.response_headers,
        server_timing=service.server_timing,
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
        login=service.login,
        override=service.override,
        revoked=live.revoked,
        guard=service.guard.spec,
    )


def _ring(
    service_name: str,
    service: Service,
    ring: Ring,
    live: Live,
    basis_points: int,
    files: Files,
    tables: Tables,
    lists: Lists,
) -> RingSpec:
    version = live.versions.get(ring.name, ring.version)
    if version not in service.versions:
        known = ", ".join(service.versions)
        raise LiveConflict(f"service {service_name}: ring {ring.name} is to run version {version}; there is: {known}")
    in_redis = tables.get((service_name, ring.name), ())
    return RingSpec(
        name=ring.name,
        version=version,
        basis_points=basis_points,
        rules=tuple(condition(entry, files, lists) for entry in ring.audience),
        members=ring.members if isinstance(in_redis, str) else tuple(dict.fromkeys((*ring.members, *in_redis))),
        falls_outward=ring.fallback == "outward",
        # Redis may have given the ring the version that its copies go to: they would only be the same request twice.
        mirror=None if ring.mirror is None or ring.mirror.version == version else ring.mirror.spec,
        denied=tuple(condition(entry, files, lists) for entry in ring.deny),
        tables=(in_redis,) if isinstance(in_redis, str) else (),
        on_change=ring.on_change[0],
        change_drain=ring.on_change[1],
        floor=ring.floor,
        ceiling=ring.ceiling,
        holdback=live.holdbacks.get(ring.name, 0),
    )


def moves_between(name: str, service: Service, before: Live, after: Live) -> list[Move]:
    """Whom the hash gives another ring when these live values take the place of those, most first.

    Raises ``LiveConflict`` where either does not fit the config.
    """
    old, new = (compile_service(service_spec(name, service, live)) for live in (before, after))
    return moves(old, new)
