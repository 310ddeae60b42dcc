"""The picture of the rings: what they experience, in figures, verdicts and sentences."""

from __future__ import annotations

import time
from math import isinf
from typing import TYPE_CHECKING, Any, Final

from router.control.fleet import Fleet as Peers
from router.core.snapshot import default_basis_points
from router.core.spec import RingSpec, ServiceSpec
from router.process.experience import Experience
from router.rollout import view
from router.rollout.statistics.sequences import Interval, rate_sequence
from router.rollout.view import Counts, Epoch, RingCounts, Row
from router.telemetry.buckets import Piece, Pieces
from router.telemetry.history import MINUTES, SECONDS
from router.telemetry.picture import (
    POINTS,
    UNITS,
    Difference,
    Estimate,
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
    Verdict,
    VersionFigures,
)
from router.telemetry.quantiles import quantile_seconds

if TYPE_CHECKING:
    from router.process.control import Control

FRESH_SECONDS: Final = 60.0
"""An instance writes its status every ten seconds."""
ENOUGH_USERS: Final = 1000
"""Before the shares of users are called right: of fewer, only what is far off would have been seen."""
MISMATCH: Final = 0.001
_VERDICTS: Final[dict[view.Verdict | None, Verdict]] = {
    None: "within",
    view.Verdict.WITHIN: "within",
    view.Verdict.BREACHED: "breached",
    view.Verdict.COLLECTING: "collecting",
    view.Verdict.NO_DATA: "no_data",
    view.Verdict.NO_TRAFFIC: "no_data",
}
_WORST: Final[tuple[Verdict, ...]] = ("breached", "collecting", "within", "no_data")


class Rings:
    """Looks when it is asked, and keeps nothing."""

    def __init__(self, control: Control, experience: Experience, peers: Peers) -> None:
        self._control = control
        self._experience = experience
        self._peers = peers

    # -- the picture ---------------------------------------------------------------------------------------------------

    def picture(self, scope: Scope = "fleet", points: int = POINTS) -> Picture:
        """``points`` of each sparkline, the newest last."""
        control = self._control
        spec = control.board.spec
        if scope == "fleet":
            self._peers.look()
        everybody = scope == "fleet" and self._peers.is_there
        services, instances, seconds = {}, 1, 0.0
        for service in spec.services if spec is not None else ():
            pieces, seconds, count = self._experience.window(service.name, everybody=everybody)
            instances = max(instances, count)
            services[service.name] = self._service(service, pieces, seconds, points)
        return Picture(
            at=time.time(), scope="fleet" if everybody else "instance", window_seconds=round(seconds),
            instances=instances, generation=spec.generation if spec is not None else 0,
            applied_everywhere=control.hub.applied_everywhere, store=control.store.state, services=services,
        )  # fmt: skip

    def _service(self, service: ServiceSpec, pieces: Pieces, seconds: float, points: int) -> ServiceFigures:
        store, experience = self._control.store, self._experience
        live = store.live.get(service.name)
        counts = {place: Counts(piece.requests, piece.errors, piece.histogram) for place, piece in pieces.items()}
        rings = experience.rings(service.name, counts)
        epoch = experience.epoch(service.name) or view.begin(rings)
        rows = view.table(epoch, (), rings, seconds) if rings else ()
        total = sum(piece.requests for piece in pieces.values())
        hashed = sum(piece.reasons.get("hash", 0) + piece.reasons.get("default", 0) for piece in pieces.values())
        figures = [
            self._ring(service, ring, [row for row in rows if row.ring == ring.name], pieces, total, hashed, points)
            for ring in service.rings
        ]
        return ServiceFigures(
            service=service.name, rev=store.rev(service.name), source=store.source(service.name),
            freeze=live.freeze if live is not None else "", rps=_rounded(total / seconds),
            verdict=_worst([one.verdict for one in figures[:-1]]), split=_split(epoch, rings), rings=figures,
            weights_rev=live.revision if live is not None else "",
        )  # fmt: skip

    def _ring(
        self,
        service: ServiceSpec,
        ring: RingSpec,
        rows: list[Row],
        pieces: Pieces,
        total: int,
        hashed: int,
        points: int,
    ) -> RingFigures:
        is_default = ring is service.rings[-1]
        mine = [piece for (name, _), piece in pieces.items() if name == ring.name]
        requests = sum(piece.requests for piece in mine)
        by_hash = sum(piece.reasons.get("hash", 0) + piece.reasons.get("default", 0) for piece in mine)
        basis_points = default_basis_points(service) if is_default else ring.basis_points
        versions = [self._version(service, row, rows[0], pieces, requests, points) for row in rows]
        # Those of its table; where the engine has none, they are among the keys.
        listed = self._control.members.counts(service.name).get(ring.name, 0) if ring.tables else 0
        return RingFigures(
            ring=ring.name, version=ring.version, is_default=is_default, is_killed=ring.name in service.killed,
            target=basis_points / 100, actual=_share(requests, total),
            by_hash=round(100 * by_hash / hashed, 3) if hashed else None, members=len(ring.members) + listed,
            rps=round(sum(one.rps for one in versions), 3), versions=versions,
            verdict=versions[0].verdict if versions else "no_data",
        )  # fmt: skip

    def _version(
        self, service: ServiceSpec, row: Row, first: Row, pieces: Pieces, of_ring: int, points: int
    ) -> VersionFigures:
        piece = pieces.get((row.ring, row.version), Piece({}, {}, {}))
        outer = row.outer
        epoch = self._experience.epoch(service.name)
        compared = epoch.comparisons.get((row.ring, row.version)) if epoch is not None else None
        key = (service.name, row.ring, row.version)
        return VersionFigures(
            version=row.version, is_target=row is first, requests=piece.requests,
            rps=_rounded(row.requests_per_second or 0.0),
            share=round(100 * piece.requests / of_ring, 2) if of_ring else None,
            codes={str(code): count for code, count in sorted(piece.codes.items())}, reasons=dict(piece.reasons),
            success=None if row.success is None else _estimate(row.success, 100),
            p50=_milliseconds(row.p50), p95=_milliseconds(row.p95), p99=_milliseconds(row.p99),
            in_flight=self._control.hub.in_flight(key), compared_with=None if outer is None else "/".join(outer),
            differences=[] if compared is None else _differences(row, compared.ring_counts, compared.outer_counts),
            verdict=_VERDICTS[row.verdict], spark=self._spark(key, points),
        )  # fmt: skip

    def _spark(self, key: tuple[str, str, str], points: int) -> Spark:
        history = self._experience.history
        begin = int(time.time()) - 1 - points  # the last whole second may not have been collected yet
        return Spark(
            [value or 0.0 for value in history.points(key, "rps", begin, points, 1)],
            history.points(key, "success", begin, points, 1),
            history.points(key, "p95", begin, points, 1),
        )

    # -- over time -----------------------------------------------------------------------------------------------------

    def series(self, service: str, ring: str, version: str | None, metric: Metric, begin: float, step: int) -> Series:
        """Of this instance. Raises KeyError where there is no such service, ring or version."""
        spec = self._control.board.spec
        known = next((one for one in (spec.services if spec is not None else ()) if one.name == service), None)
        if known is None:
            raise KeyError(f"service {service}")
        if ring not in {one.name for one in known.rings}:
            raise KeyError(f"ring {ring} in {service}")
        if version is not None and version not in {one.name for one in known.versions}:
            raise KeyError(f"version {version} in {service}")
        last = (int(time.time()) - 1) // step if step == 1 else int(time.time()) // step
        first = max(last - (SECONDS if step == 1 else MINUTES), int(begin) // step)
        points = self._experience.history.points(
            (service, ring, version or ""), metric, first, max(0, last - first), step
        )
        return Series(service, ring, version or "", metric, UNITS[metric], float(first * step), step, points)

    # -- the fleet -----------------------------------------------------------------------------------------------------

    async def looked(self) -> None:
        """Wait a moment for what others say, where they are so many that they are read only while somebody looks."""
        await self._peers.looked()

    def fleet(self) -> Fleet:
        """All instances, as they said last of themselves; where Redis is away, this one alone."""
        self._peers.look()
        control, store, now = self._control, self._control.store, time.time()
        spec = control.board.spec
        names = [service.name for service in spec.services] if spec is not None else []
        own = store.reports()
        said: dict[str, dict[str, dict[str, Any]]] = {}
        for name in names if self._peers.is_there else ():
            for instance, status in self._peers.statuses(name).items():
                said.setdefault(instance, {})[name] = status
        said[control.instance] = {name: {**own[name], "at": now} for name in names if name in own}
        wanted = {name: _routing(own[name]) for name in names if name in own}
        instances = [
            _instance(instance, statuses, wanted, is_self=instance == control.instance, now=now)
            for instance, statuses in sorted(said.items())
        ]
        fresh = [one for one in instances if one.is_fresh]
        current = sum(one.is_current for one in fresh)
        if not self._peers.is_there and store.is_up():
            sentence = f"only {control.instance} is known here yet: the others are being read"
        elif not self._peers.is_there:
            sentence = f"only {control.instance} is known here: Redis is {store.state}"
        elif len(fresh) == 1:
            sentence = f"{control.instance} is the only instance"
        else:
            sentence = f"{current} of {len(fresh)} instances route by what Redis holds now"
        return Fleet(self._peers.is_there, instances, current, len(fresh), sentence)


def _instance(
    name: str, said: dict[str, dict[str, Any]], wanted: dict[str, Any], *, is_self: bool, now: float
) -> Instance:
    at = max((float(one.get("at", 0.0)) for one in said.values()), default=0.0)
    return Instance(
        instance=name, is_self=is_self, is_fresh=is_self or now - at < FRESH_SECONDS, at=at,
        generation=max((int(one.get("generation", 0)) for one in said.values()), default=0),
        rev={service: str(one.get("rev", "")) for service, one in said.items()},
        source={service: str(one.get("source", "")) for service, one in said.items()},
        refused=[str(why) for one in said.values() for why in one.get("refused", ())],
        warnings=[str(why) for one in said.values() for why in one.get("warnings", ())],
        is_current=all(service in said and _routing(said[service]) == how for service, how in wanted.items()),
    )  # fmt: skip


def _routing(status: dict[str, Any]) -> tuple[Any, ...]:
    """What two instances that route alike say alike."""
    return tuple(status.get(name) for name in ("weights", "versions", "killed", "drained"))


def _worst(verdicts: list[Verdict]) -> Verdict:
    return next((one for one in _WORST if one in verdicts), "no_data")


def _rounded(rate: float) -> float:
    return round(rate, 3)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)


def _estimate(interval: Interval, factor: float) -> Estimate:
    return Estimate(*(round(factor * value, 4) for value in (interval.estimate, interval.low, interval.high)))


def _share(requests: int, total: int) -> Estimate | None:
    return _estimate(rate_sequence(requests, total), 100) if total else None


def _split(epoch: Epoch, rings: list[RingCounts]) -> Split:
    """Users, not requests; of this instance, since the weights changed."""
    current = [ring for ring in rings if ring.is_current]
    users = [(ring.users or 0) - epoch.users_at_start.get(ring.ring, 0) for ring in current]
    total = sum(users)
    if epoch.split is None or total <= 0 or len(current) < 2:
        return Split("no_data", None, "no users have come since the weights changed")
    p_value = epoch.split.p_value
    if p_value < MISMATCH:
        worst = min(range(len(current)), key=lambda place: epoch.split.p_values[place])  # type: ignore[union-attr]
        ring = current[worst]
        return Split(
            "breached", p_value,
            f"users do not come in the shares that were asked for: {ring.ring} has {100 * users[worst] / total:.2f} % "
            f"of {total:,} instead of {ring.target / 100:g} % (p = {p_value:.1g}), so comparisons mean nothing",
        )  # fmt: skip
    if total < ENOUGH_USERS:
        return Split("collecting", p_value, f"{total:,} users so far; their shares are called right from 1,000 on")
    return Split("within", p_value, f"{total:,} users came in the shares that were asked for (p = {p_value:.2g})")


def _differences(row: Row, here: Counts, there: Counts) -> list[Difference]:
    """Errors in percentage points, p95 in milliseconds; what is tolerated stands beside the errors. All of it since the
    last change of versions or weights.
    """
    outer = "/".join(row.outer or ())
    found = []
    for metric, interval in (("errors", row.error_difference), ("p95", row.p95_difference)):
        verdict: Verdict = "no_data" if interval is None else _VERDICTS[row.verdict]
        if verdict == "breached" and metric not in row.breached:
            verdict = "collecting"
        factor, unit = (100.0, "points") if metric == "errors" else (1000.0, "ms")
        if interval is None:
            sentence = f"{metric}: nobody has asked {row.ring}, or {outer}, since the last change"
            found.append(Difference(metric, verdict, sentence))  # type: ignore[arg-type]
            continue
        sentence = f"{metric} {_rate(metric, here)} against {_rate(metric, there)} of {outer}: "
        sentence += _between(interval, factor, unit)
        is_known = not isinf(interval.low) and not isinf(interval.high)
        limit = 100 * _tolerated(there) if metric == "errors" else None
        estimate = _estimate(interval, factor) if is_known else None
        found.append(Difference(metric, verdict, sentence, estimate, limit))  # type: ignore[arg-type]
    return found


def _tolerated(there: Counts) -> float:
    """The greatest difference of error rates that is put up with, at the outer ring's rate."""
    rate = there.errors / there.requests if there.requests else 0.0
    return round((view.ERRORS.ratio - 1) * rate + view.ERRORS.absolute, 6)


def _rate(metric: str, one: Counts) -> str:
    if not one.requests:
        return "no traffic"
    if metric == "errors":
        return f"{100 * one.errors / one.requests:.2f} %"
    seconds = quantile_seconds(one.histogram, view.SLOW)
    return "no traffic" if seconds is None else f"{1000 * seconds:.3g} ms"


def _between(interval: Interval, factor: float, unit: str) -> str:
    """``between 0.02 points fewer and 0.30 points more``"""
    fewer, more = ("fewer", "more") if unit == "points" else ("less", "more")
    ends = [
        f"{abs(factor * value):.3g} {unit} {fewer if value < 0 else more}"
        for value in (interval.low, interval.high)
        if not isinf(value)
    ]
    if len(ends) == 2:
        return f"between {ends[0]} and {ends[1]}"
    return f"at {'most' if isinf(interval.low) else 'least'} {ends[0]}" if ends else "too few requests to say more"
