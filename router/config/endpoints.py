"""The endpoints of a version as they are routed to: names looked up, TLS files put in, what is down or drained.

Pure: whoever looks names up or checks endpoints (``control``) hands in what it found, and asks here what to look at.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from router.config.backends import Version
from router.config.edge import ClientTls
from router.config.files import Files
from router.config.settings import Service, Settings
from router.core.live import Live
from router.core.spec import ClientTlsSpec, EndpointSpec, HealthCheckSpec, ServiceSpec, VersionSpec

Resolved = Mapping[str, tuple[str, ...]]
"""Host name → its IP addresses."""
Down = Mapping[tuple[str, str], tuple[str, ...]]
"""(service, version) → addresses of endpoints that checks found down."""
NONE_RESOLVED: Final[Resolved] = {}
NONE_DOWN: Final[Down] = {}


@dataclass(frozen=True, slots=True)
class Checked:
    """An endpoint and how it is to be checked."""

    service: str
    version: str
    endpoint: EndpointSpec
    check: HealthCheckSpec


def names_to_resolve(settings: Settings) -> dict[str, float]:
    """Every host name that an endpoint has → seconds after which it is looked up anew, the shortest that is wanted."""
    names: dict[str, float] = {}
    for service in settings.services.values():
        for version in service.versions.values():
            for host in {one.url.host for one in version.endpoints if _is_name(one.url)}:
                names[host] = min(service.resolve, names.get(host, service.resolve))
    return names


def checked_endpoints(settings: Settings, resolved: Resolved = NONE_RESOLVED) -> tuple[Checked, ...]:
    """Every endpoint that is to be checked; those of a name once per address."""
    return tuple(
        Checked(name, key, endpoint, health.spec)
        for name, service in settings.services.items()
        for key, version in service.versions.items()
        if (health := version.health or service.health) is not None
        for endpoint in endpoint_specs(version, service.tls, settings.files, resolved)
    )


def version_spec(
    service_name: str, name: str, service: Service, live: Live, files: Files, resolved: Resolved, down: Down
) -> VersionSpec:
    """One version, with what is known of its endpoints at this moment."""
    endpoints = endpoint_specs(service.versions[name], service.tls, files, resolved)
    sick = down.get((service_name, name), ())
    return VersionSpec(
        name,
        endpoints,
        down=tuple(one.address for one in endpoints if one.address in sick),
        drained=tuple(one.address for one in endpoints if is_drained(one, live.drained)),
    )


def is_drained(endpoint: EndpointSpec, drained: tuple[str, ...]) -> bool:
    """Whether one of these means the endpoint: its address, or ``name:port``, which is every address of the name."""
    return endpoint.address in drained or (bool(endpoint.name) and f"{endpoint.name}:{endpoint.port}" in drained)


def unknown_drains(service: ServiceSpec, drained: tuple[str, ...]) -> tuple[str, ...]:
    """Those that mean no endpoint there is now."""
    endpoints = [one for version in service.versions for one in version.endpoints]
    return tuple(address for address in drained if not any(is_drained(one, (address,)) for one in endpoints))


def endpoint_specs(version: Version, tls: ClientTls, files: Files, resolved: Resolved) -> tuple[EndpointSpec, ...]:
    """In the order of the config; an address that comes twice (two names for it) is one, with both weights."""
    found: dict[str, EndpointSpec] = {}
    for entry in version.endpoints:
        for one in _at_its_addresses(entry.spec, resolved):
            before = found.get(one.address)
            found[one.address] = (
                _with_tls(one, tls, files) if before is None else replace(before, weight=before.weight + one.weight)
            )
    return tuple(found.values())


def _at_its_addresses(endpoint: EndpointSpec, resolved: Resolved) -> Iterator[EndpointSpec]:
    addresses = resolved.get(endpoint.host, ()) if _is_name(endpoint) else ()
    if not addresses:
        yield endpoint
    for address in addresses:
        yield replace(endpoint, host=address, name=endpoint.host)


def _with_tls(endpoint: EndpointSpec, tls: ClientTls, files: Files) -> EndpointSpec:
    if endpoint.tls is None:
        return endpoint
    paths = [path or "" for path in (tls.ca, tls.certificate, tls.key)]
    ca, certificate, key = (files.found.get(path, path) for path in paths)
    digest = "".join(files.digests.get(path, "") for path in paths)
    name = tls.server_name or endpoint.name
    return replace(endpoint, tls=ClientTlsSpec(ca, certificate, key, name, tls.verify, digest))


def _is_name(endpoint: EndpointSpec) -> bool:
    try:
        ipaddress.ip_address(endpoint.host)
    except ValueError:
        return not endpoint.path
    return False
