"""Users of watched services, as Envoy's lines tell of them: what ``proxy.witness`` counts, by the same rules.

Lines come when a request is over. What hangs is therefore seen when its time-out ends it, and not while it waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xxhash import xxh64_intdigest

from router.core.audience import IdentitySpec
from router.core.request import cookie_value, query_value
from router.core.snapshot import identity_order
from router.core.spec import ServiceSpec, SnapshotSpec
from router.envoy.access_log import Line, parsed_line
from router.envoy.books import failure_of
from router.proxy.witness import KINDS, MILLION, MOST_USERS, PAST_SLICES
from router.telemetry.evidence import CLIENT_ERROR, FAILED, LEFT, Codes, Finished
from router.telemetry.messages import Seen, Users, Watched
from router.telemetry.meters import histogram_index

_LEAVING = ("DC", "DR")
Record = Mapping[str, object]
"""A line as Envoy sends it: ``l`` is the lane with what belongs to it, the other fields are where keys stand."""


class Sorter:
    """``watch`` and ``installed`` say for whom; ``took`` each record; ``take`` what came."""

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}
        self._services: dict[str, ServiceSpec] = {}
        self._finished: dict[str, Finished] = {}
        self._seen: dict[int, dict[str, dict[int, int]]] = {}
        self._dropped: dict[str, int] = {}
        self._left = MOST_USERS

    def installed(self, spec: SnapshotSpec) -> None:
        self._services = {service.name: service for service in spec.services}

    def watch(self, watched: Iterable[Watched]) -> None:
        """These services and no others."""
        self._watched = {one.service: one for one in watched}
        self._finished = {name: one for name, one in self._finished.items() if name in self._watched}

    def took(self, record: Record) -> None:
        """One request that is over."""
        text = record.get("l")
        line = parsed_line(text) if isinstance(text, str) else None
        if line is None:
            return
        watched, service = self._watched.get(line.lane.service), self._services.get(line.lane.service)
        if watched is None or service is None or line.lane.is_outward:
            return
        kind = KINDS.get(line.lane.reason)
        key = key_of(record, service) if kind is not None else b""
        if kind is None or not key:
            return
        digest = xxh64_intdigest(service.salt.encode() + key)
        if kind == "hash":
            self._saw(line, service, digest)
        lane = line.lane
        keep_ppm = MILLION if lane.version == watched.candidate else watched.keep_ppm
        if digest // PAST_SLICES % MILLION < keep_ppm:
            self._count(line, self._finished.setdefault(lane.service, {}), (lane.ring, lane.version, kind), digest)

    def _saw(self, line: Line, service: ServiceSpec, digest: int) -> None:
        place = next((i for i, ring in enumerate(service.rings) if ring.name == line.lane.ring), None)
        if place is not None:
            self._seen.setdefault(line.generation, {}).setdefault(service.name, {})[digest] = place

    def _count(self, line: Line, finished: Finished, arm: tuple[str, str, str], digest: int) -> None:
        users = finished.setdefault(arm, {})
        codes = users.get(digest)
        if codes is None:
            if self._left <= 0:
                self._dropped[line.lane.service] = self._dropped.get(line.lane.service, 0) + 1
                return
            self._left -= 1
            codes = users[digest] = {}
        for code in codes_of(line):
            codes[code] = codes.get(code, 0) + 1

    def take(self) -> tuple[list[Seen], Users | None]:
        """What came since the last time; no users while nothing is watched."""
        seen = [Seen(generation, users) for generation, users in sorted(self._seen.items())]
        users = Users(self._finished, {}, self._dropped) if self._watched else None
        self._seen, self._finished, self._dropped, self._left = {}, {}, {}, MOST_USERS
        return seen, users


def codes_of(line: Line) -> Codes:
    """What became of a request: the bucket of its duration, and how it failed, if it did."""
    lane = line.lane
    codes = {histogram_index(line.micros): 1}
    if lane.status >= 500 or failure_of(lane.flags):
        codes[FAILED] = 1
    elif 400 <= lane.status < 499:
        codes[CLIENT_ERROR] = 1
    if any(flag in lane.flags for flag in _LEAVING):
        codes[LEFT] = 1
    return codes


def key_of(record: Record, service: ServiceSpec) -> bytes:
    """The key of the user: the first source that has one; empty for nobody."""
    for source in identity_order(service):
        found = _found(record, source)
        if found:
            return found
    return b""


def _found(record: Record, source: IdentitySpec) -> bytes | None:
    if source.kind == "header":
        return _bytes(record.get(f"h:{source.name.lower()}"))
    if source.kind == "query":
        return query_value(_bytes(record.get("path")).partition(b"?")[2], source.name.encode())
    return cookie_value(_bytes(record.get("cookie")), source.name.encode())


def _bytes(value: object) -> bytes:
    return value.encode() if isinstance(value, str) else b""
