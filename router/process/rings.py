"""The picture of the rings from what is counted since the start: what is known where nobody keeps a history.

No statistics: a success rate is what it was, its bounds are not known, and every verdict is that there is no data.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from router.core.snapshot import default_basis_points
from router.core.spec import RingSpec, ServiceSpec
from router.telemetry.counters import RingCounters, RingKey
from router.telemetry.meters import upper_edge_seconds
from router.telemetry.picture import (
    UNITS,
    Fleet,
    Instance,
    Metric,
    Picture,
    RingFigures,
    Scope,
    Series,
    ServiceFigures,
    Spark,
    Split,
    VersionFigures,
)

if TYPE_CHECKING:
    from router.process.control import Control


class PlainFigures:
    """Looks at a control's counters when it is asked, and keeps nothing."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def picture(self, _scope: Scope = "fleet") -> Picture:
        """This instance alone; the window is its life."""
        control = self._control
        spec, rings = control.board.spec, control.hub.totals().rings
        age = max(1.0, time.time() - control.started_at)
        return Picture(
            at=time.time(), scope="instance", window_seconds=int(age), instances=1,
            generation=spec.generation if spec is not None else 0, applied_everywhere=control.hub.applied_everywhere,
            store=control.store.state,
            services={one.name: self._service(one, rings, age) for one in (spec.services if spec is not None else ())},
        )  # fmt: skip

    def series(self, service: str, ring: str, version: str | None, metric: Metric, begin: float, step: int) -> Series:
        """No points: there is no history."""
        spec = self._control.board.spec
        known = next((one for one in (spec.services if spec is not None else ()) if one.name == service), None)
        if known is None:
            raise KeyError(f"service {service}")
        if ring not in {one.name for one in known.rings}:
            raise KeyError(f"ring {ring} in {service}")
        return Series(service, ring, version or "", metric, UNITS[metric], begin, step, [])

    def fleet(self) -> Fleet:
        """This instance alone."""
        control = self._control
        spec, store = control.board.spec, control.store
        services = spec.services if spec is not None else ()
        me = Instance(
            instance=control.instance, is_self=True, is_fresh=True, at=time.time(),
            generation=spec.generation if spec is not None else 0,
            rev={one.name: store.live[one.name].revision for one in services if one.name in store.live},
            source={one.name: store.source(one.name) for one in services},
            refused=[str(why) for one in services for why in store.refusals.get(one.name, ())],
            warnings=[said for one in services for said in control.warnings.get(one.name, ())], is_current=True,
        )  # fmt: skip
        return Fleet(False, [me], 1, 1, f"only {control.instance} is known here")

    def _service(self, service: ServiceSpec, counters: Mapping[RingKey, RingCounters], age: float) -> ServiceFigures:
        store = self._control.store
        live = store.live.get(service.name)
        listed = self._control.members.counts(service.name)
        total = sum(_requests(one) for key, one in counters.items() if key[0] == service.name)
        return ServiceFigures(
            service=service.name, rev=store.rev(service.name), source=store.source(service.name),
            freeze=live.freeze if live is not None else "", rps=round(total / age, 3), verdict="no_data",
            split=Split("no_data", None, "the shares are not tested here"),
            rings=[_ring(service, ring, counters, listed, age) for ring in service.rings],
            weights_rev=live.revision if live is not None else "",
        )  # fmt: skip


def _ring(
    service: ServiceSpec,
    ring: RingSpec,
    counters: Mapping[RingKey, RingCounters],
    listed: Mapping[str, int],
    age: float,
) -> RingFigures:
    mine = {key[2]: one for key, one in counters.items() if key[:2] == (service.name, ring.name)}
    requests = sum(_requests(one) for one in mine.values())
    is_default = ring is service.rings[-1]
    others = sorted(version for version, one in mine.items() if version != ring.version and _requests(one))
    points = default_basis_points(service) if is_default else ring.basis_points
    return RingFigures(
        ring=ring.name, version=ring.version, is_default=is_default, is_killed=ring.name in service.killed,
        target=points / 100, actual=None, by_hash=None, members=len(ring.members) + listed.get(ring.name, 0),
        rps=round(requests / age, 3),
        versions=[
            _version(version, version == ring.version, mine.get(version, RingCounters()), requests, age)
            for version in (ring.version, *others)
        ],
        verdict="no_data",
    )  # fmt: skip


def _version(version: str, is_target: bool, one: RingCounters, of_ring: int, age: float) -> VersionFigures:
    count = _requests(one)
    quantiles = _quantiles(one, (0.5, 0.95, 0.99))
    return VersionFigures(
        version=version, is_target=is_target, requests=count, rps=round(count / age, 3),
        share=round(100 * count / of_ring, 2) if of_ring else None,
        codes={str(code): number for code, number in sorted(one.codes.items())}, reasons=dict(one.reasons),
        success=None, p50=quantiles[0], p95=quantiles[1], p99=quantiles[2], in_flight=one.in_flight,
        compared_with=None, differences=[], verdict="no_data", spark=Spark([], [], []),
    )  # fmt: skip


def _requests(one: RingCounters) -> int:
    return sum(one.codes.values())


def _quantiles(one: RingCounters, wanted: Sequence[float]) -> list[float | None]:
    """In milliseconds: the upper edge of the bucket that they are in."""
    buckets = {index: one.duration_success.get(index, 0) + one.duration_error.get(index, 0)
               for index in one.duration_success.keys() | one.duration_error.keys()}  # fmt: skip
    total = sum(buckets.values())
    if not total:
        return [None for _ in wanted]
    found: list[float | None] = []
    for share in wanted:
        seen = 0
        for index in sorted(buckets):
            seen += buckets[index]
            if seen >= share * total:
                found.append(round(upper_edge_seconds(index) * 1000, 3))
                break
    return found
