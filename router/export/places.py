"""Which service a request is for: hosts and paths in the order in which the first that fits is the one. Pure."""

from __future__ import annotations

from typing import NamedTuple

from router.core.spec import ServiceSpec


class Place(NamedTuple):
    """``host`` is lower-case: a name, an address in brackets, ``.suffix``, or empty for any. ``path`` has no ``/`` at
    its end, so that empty is any."""

    host: str
    path: str
    service: str


def places(services: tuple[ServiceSpec, ...]) -> list[Place]:
    """The more specific host first (exact, then the longest suffix, then any), within it the longest path."""
    found: dict[tuple[str, str], Place] = {}
    for service in services:
        for host in service.hosts or ("*",):
            for path in service.paths or ("/",):
                place = Place(_host(host), path.rstrip("/"), service.name)
                found.setdefault((place.host, place.path), place)
    return sorted(found.values(), key=_order)


def _host(host: str) -> str:
    bare = host.lower().strip("[]").removeprefix("*")
    return f"[{bare}]" if ":" in bare else bare


def _order(place: Place) -> tuple[int, int, int]:
    kind = 2 if not place.host else 1 if place.host.startswith(".") else 0
    return kind, -len(place.host) if kind == 1 else 0, -len(place.path)
