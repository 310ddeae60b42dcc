"""Live values that Envoy cannot do: each stays as it is in force, and everything else of its snapshot goes on. Pure.

A kill, a weight of 0 or an endpoint that is down never waits for them: narrowing always works. What the config asks for
is another matter (``refusals``): nobody is served by half of a config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from router.core.spec import RingSpec, ServiceSpec, SnapshotSpec
from router.envoy.refusals import of_live
from router.envoy.refused import Refusal


def held(spec: SnapshotSpec, before: SnapshotSpec | None) -> tuple[SnapshotSpec, tuple[Refusal, ...]]:
    """The snapshot without what no route can ask for, and what stands against that.

    ``before`` is what this gave for the snapshot that was delivered last, None for none. A holdback was never in force;
    members stay those of ``before``, or are those of the config where nobody knows others.
    """
    refused = tuple(_refused(spec))
    if not refused:
        return spec, ()
    known = {
        (service.name, ring.name): ring for service in (before.services if before else ()) for ring in service.rings
    }
    return replace(spec, services=tuple(_able(service, known) for service in spec.services)), refused


def _refused(spec: SnapshotSpec) -> Iterator[Refusal]:
    for service in spec.services:
        for ring in service.rings:
            yield from of_live(f"services.{service.name}.rings.{ring.name}", ring)


def _able(service: ServiceSpec, known: Mapping[tuple[str, str], RingSpec]) -> ServiceSpec:
    rings = []
    for ring in service.rings:
        members = known.get((service.name, ring.name), ring).members if ring.tables else ring.members
        rings.append(replace(ring, holdback=0, tables=(), members=members))
    return replace(service, rings=tuple(rings))
