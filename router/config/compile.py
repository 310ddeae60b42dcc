"""Settings and what operators changed live → the snapshot, as plain data.

Pure: the same settings and the same live values give the same snapshot. It never invents: where the live values and the
config do not fit together it raises, and the caller keeps the snapshot it has.
"""

from __future__ import annotations

from collections.abc import Mapping

from router.config.settings import Entry, Ring, Service, Settings
from router.core.hashing import BUCKETS
from router.core.live import Live
from router.core.spec import (
    ConditionSpec,
    IdentitySpec,
    ListenerSpec,
    RingSpec,
    ServiceSpec,
    SnapshotSpec,
    TimeoutsSpec,
    VersionSpec,
)

_AS_CONFIGURED = Live()


class LiveConflict(ValueError):
    """Live values that do not fit this config: weights over 100 percent together, or a version that is not in it."""


def service_names(settings: Settings) -> tuple[str, ...]:
    """The names of all services, in the order of the file."""
    return tuple(settings.services)


def snapshot_spec(settings: Settings, live: Mapping[str, Live], generation: int) -> SnapshotSpec:
    """The whole routing state. ``live`` is per service; an absent one means "as the config says".

    Live values for rings that the config does not have are left out: a ring may leave the config before its weight
    leaves Redis. Raises ``LiveConflict`` when weights add up to more than 100 percent or a live version does not exist.
    """
    return SnapshotSpec(
        generation=generation,
        services=tuple(
            service_spec(name, service, live.get(name, _AS_CONFIGURED)) for name, service in settings.services.items()
        ),
        listener=ListenerSpec(
            trusted_proxies=settings.trusted_proxies,
            head_timeout=settings.timeouts.head,
            idle_timeout=settings.timeouts.idle,
            body_timeout=settings.timeouts.body,
            drain_timeout=settings.timeouts.drain,
        ),
        access_log=settings.access_log.format,
    )


def service_spec(name: str, service: Service, live: Live = _AS_CONFIGURED) -> ServiceSpec:
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
        versions=tuple(VersionSpec(key, version.endpoints) for key, version in service.versions.items()),
        rings=tuple(_ring(name, service, ring, live, weights[ring.name]) for ring in service.rings),
        hosts=service.hosts,
        paths=service.paths,
        salt=service.salt,
        identity=tuple(IdentitySpec(source.kind, source.name) for source in service.identity),
        killed=tuple(ring for ring in ring_names[:-1] if ring in live.killed),
        response_headers=service.response_headers,
        timeouts=TimeoutsSpec(service.timeouts.connect, service.timeouts.first_byte, service.timeouts.between_bytes),
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
