"""What only several values together can get wrong: names that refer, sums, and claims that collide.

It walks the plain data, not the models, and steps over whatever is malformed (the models complain about that): so one
wrong value never hides another problem. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from router.config.document import Document, Path
from router.config.problems import did_you_mean
from router.config.values import check_host, check_path, parse_endpoint, parse_percent, parse_socket
from router.core.hashing import BUCKETS

_NOT_OF_THE_DEFAULT_RING: Final = (
    ("weight", "a weight"), ("audience", "an audience"), ("members", "members"), ("deny", "a deny list"),
    ("floor", "a floor"), ("ceiling", "a ceiling"),
)  # fmt: skip


def check_semantics(document: Document) -> None:
    """Note every problem between values in the document."""
    _check_listen(document)
    services = _mapping(_mapping(document.data).get("services"))
    claims: dict[tuple[str, str], str] = {}
    for name, service in services.items():
        if not isinstance(service, dict):
            continue
        path: Path = ("services", name)
        _check_claims(document, path, name, service, claims)
        _check_identity(document, path, service)
        _check_endpoints(document, path, service)
        _check_rings(document, path, service)


def _check_listen(document: Document) -> None:
    seen: set[str] = set()
    for i, one in enumerate(_sequence(_mapping(document.data).get("listen"))):
        try:
            address = str(parse_socket(_mapping(one).get("address") if isinstance(one, dict) else one))
        except ValueError:
            continue
        if address in seen:
            document.add_at(("listen", i), f"{address} is listened on already: remove one of the two")
        seen.add(address)


def _check_claims(
    document: Document, path: Path, name: str, service: dict[str, Any], claims: dict[tuple[str, str], str]
) -> None:
    """Two services may not answer for the same host and path: which one would win is nobody's guess."""
    own: set[tuple[str, str]] = set()
    for host, host_path in _places(service, "hosts", path, "*", check_host):
        for prefix, prefix_path in _places(service, "paths", path, "/", check_path):
            claim = (host, prefix.rstrip("/"))
            place = prefix_path if len(prefix_path) > len(path) else host_path
            shown = f"host {host} and path {prefix}" if host != "*" else f"any host and path {prefix}"
            if claim in own:
                document.add_at(place, f"service {name!r} claims {shown} twice: remove one of them")
            elif claim in claims:
                why = f"services {claims[claim]!r} and {name!r} both claim {shown}"
                document.add_at(place, f"{why}: give one of them other hosts or paths", at_key=len(place) == len(path))
            else:
                claims[claim] = name
            own.add(claim)


def _places(service: dict[str, Any], key: str, path: Path, absent: str, check: Any) -> Iterator[tuple[str, Path]]:
    given = _sequence(service.get(key))
    if not given:
        yield absent, path
    for i, value in enumerate(given):
        try:
            yield check(value), (*path, key, i)
        except (ValueError, AttributeError, TypeError):
            continue


def _check_identity(document: Document, path: Path, service: dict[str, Any]) -> None:
    anonymous = 0
    for i, source in enumerate(_sequence(service.get("identity"))):
        if "anonymous_cookie" in _mapping(source):
            anonymous += 1
            if anonymous > 1:
                document.add_at(
                    (*path, "identity", i), "only one anonymous_cookie can be set on a user: remove this one"
                )


def _check_endpoints(document: Document, path: Path, service: dict[str, Any]) -> None:
    for name, version in _mapping(service.get("versions")).items():
        at: Path = (*path, "versions", name, "endpoints")
        endpoints = _sequence(_mapping(version).get("endpoints"))
        seen: set[str] = set()
        for i, one in enumerate(endpoints):
            try:
                address = parse_endpoint(one.get("url") if isinstance(one, dict) else one).address
            except ValueError:
                continue
            if address in seen:
                why = f"version {name!r} has {address} already: remove one of the two, or give one a larger `weight`"
                document.add_at((*at, i), why)
            seen.add(address)
        if endpoints and all(isinstance(one, dict) and one.get("weight") == 0 for one in endpoints):
            why = f"all endpoints of version {name!r} have the weight 0, so nobody could be served"
            document.add_at(at, f"{why}: give one of them a weight, or give its rings another version", at_key=True)


def _check_mirror(document: Document, at: Path, ring: dict[str, Any], versions: dict[str, Any]) -> None:
    target = _mapping(ring.get("mirror")).get("version")
    if not isinstance(target, str):
        return
    place: Path = (*at, "mirror", "version")
    if versions and target not in versions:
        why = f"the copies of ring {ring.get('name')!r} go to version {target!r}, which is not under `versions`"
        document.add_at(place, why, did_you_mean(target, versions) or f"there is: {', '.join(versions)}")
    elif target == ring.get("version"):
        why = f"ring {ring.get('name')!r} runs version {target!r} itself: its copies go to another version"
        document.add_at(place, f"{why}, or remove `mirror`")


def _check_rings(document: Document, path: Path, service: dict[str, Any]) -> None:
    versions = _mapping(service.get("versions"))
    rings = _sequence(service.get("rings"))
    first: dict[str, int] = {}
    total = 0
    for i, ring in enumerate(rings):
        at: Path = (*path, "rings", i)
        if not isinstance(ring, dict):
            continue
        name, version = ring.get("name"), ring.get("version")
        if isinstance(name, str) and first.setdefault(name, i) != i:
            document.add_at((*at, "name"), f"there is a ring {name!r} already: give this one another name")
        if isinstance(version, str) and versions and version not in versions:
            why = f"ring {name!r} runs version {version!r}, which is not under `versions`"
            document.add_at(
                (*at, "version"), why, did_you_mean(version, versions) or f"there is: {', '.join(versions)}"
            )
        _check_mirror(document, at, ring, versions)
        if i == len(rings) - 1:
            _check_default_ring(document, at, ring)
        else:
            total += _points(ring)
            _check_range(document, at, ring)
    if total > BUCKETS:
        why = f"the weights of the rings add up to {total / 100:g} percent: at most 100"
        document.add_at((*path, "rings"), f"{why}, the default ring takes what is left", at_key=True)


def _check_default_ring(document: Document, at: Path, ring: dict[str, Any]) -> None:
    for key, what in _NOT_OF_THE_DEFAULT_RING:
        if key in ring:
            why = f"the last ring is the default ring: it takes the rest and cannot have {what}"
            document.add_at((*at, key), f"{why}; remove it, or add a default ring below", at_key=True)
    if ring.get("fallback") == "outward":
        why = "the last ring is the default ring: there is none further out to fall back to"
        document.add_at((*at, "fallback"), f"{why}; remove `fallback`", at_key=True)


def _check_range(document: Document, at: Path, ring: dict[str, Any]) -> None:
    floor, ceiling, weight = _points(ring, "floor"), _points(ring, "ceiling", BUCKETS), _points(ring)
    if floor > ceiling:
        why = f"the floor ({floor / 100:g}) is above the ceiling ({ceiling / 100:g}), so no weight would do"
        document.add_at((*at, "floor"), f"{why}: change one of them")
    elif weight > ceiling:
        why = f"the weight ({weight / 100:g}) is above the ring's ceiling ({ceiling / 100:g})"
        document.add_at((*at, "weight"), f"{why}: lower it, or raise the ceiling")


def _points(ring: dict[str, Any], key: str = "weight", absent: int = 0) -> int:
    try:
        return parse_percent(ring[key]) if key in ring else absent
    except ValueError:
        return absent


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
