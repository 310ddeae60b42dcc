"""What the users of services under a rollout met, counted by user until the next report to control.

A lane whose users count has an *arm*; without a rollout none has, and a request costs one look at that. An arm belongs
to ring, version and what brought the users there, so that it outlives snapshots, and so do the lanes of requests in
flight. Users without a key are nobody, and forced requests (overrides, propagated rings, those who fell outward) say
nothing about whoever sent them: both are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from xxhash import xxh64_intdigest

from router.core.request import UNKNOWN
from router.core.snapshot import Service
from router.telemetry.evidence import CLIENT_ERROR, FAILED, LEFT, ArmKey, Finished, Pending
from router.telemetry.messages import Users, Watched
from router.telemetry.meters import histogram_index, micros_of

if TYPE_CHECKING:
    from router.proxy.downstream import Downstream
    from router.proxy.exchange import Exchange
    from router.proxy.lane import Lane

MOST_USERS: Final = 50_000
"""In one report, of all services: about a megabyte."""
PENDING_SECONDS: Final = 0.5
"""What is under way for longer is told before it ends: a version that hangs would else never look slow."""
MILLION: Final = 1_000_000
PAST_SLICES: Final = 640_000
"""Sampling looks at what neither the bucket (mod 10,000) nor the slice (the next factor of 64) is taken from."""
KINDS: Final = {"hash": "hash", "default": "hash", "member": "chosen", "rule": "chosen"}
"""What brought a user there, by the reason of a decision; other reasons count for nobody."""
_BACKEND: Final = b"UuD"
"""Causes of an end (``ends``) that the backend answers for, where its head had gone out already."""
_SLOW_CLIENT: Final = b"c"
_KILLED: Final = b"K"


class Arm:
    """The users of one ring × version × kind."""

    __slots__ = ("_witness", "keep_ppm", "salt", "service", "users")

    def __init__(self, witness: Witness, service: str) -> None:
        self._witness = witness
        self.service = service
        self.keep_ppm = 0
        """Of its users, those who are counted."""
        self.salt = b""
        self.users: dict[int, dict[int, int]] = {}
        """Digest → code → requests."""

    def finished(self, exchange: Exchange, status: int, micros: int, is_error: bool, is_aborted: bool) -> None:
        """A request is over; one that had become a tunnel was counted when it did."""
        cause = exchange.flags[:1]
        if exchange.tunnel is not None or cause == _KILLED:
            return
        codes = self._codes(exchange)
        if codes is None:
            return
        index = histogram_index(micros)
        codes[index] = codes.get(index, 0) + 1
        if status >= 500 or (is_error and cause and cause in _BACKEND):
            codes[FAILED] = codes.get(FAILED, 0) + 1
        elif 400 <= status < 499:
            codes[CLIENT_ERROR] = codes.get(CLIENT_ERROR, 0) + 1
        if is_aborted or (is_error and cause == _SLOW_CLIENT and status < 400):
            codes[LEFT] = codes.get(LEFT, 0) + 1

    def opened(self, exchange: Exchange, now: float) -> None:
        """A request has become a tunnel, which may last for days: this was its answer."""
        codes = self._codes(exchange)
        if codes is not None:
            index = histogram_index(micros_of(now - exchange.started))
            codes[index] = codes.get(index, 0) + 1

    def _codes(self, exchange: Exchange) -> dict[int, int] | None:
        """Where the user's requests are counted, if they are."""
        digest = self.digest(exchange)
        codes = self.users.get(digest)
        if codes is None and digest != UNKNOWN:
            if self._witness.left <= 0:
                self._witness.dropped[self.service] = self._witness.dropped.get(self.service, 0) + 1
                return None
            self._witness.left -= 1
            codes = self.users[digest] = {}
        return codes

    def digest(self, exchange: Exchange) -> int:
        """The user's: what the bucket was taken from, where the hash decided. UNKNOWN for who is not counted."""
        digest = exchange.digest
        if digest == UNKNOWN:
            key = exchange.key
            if key is None:
                return UNKNOWN
            digest = xxh64_intdigest(self.salt + key)
        if self.keep_ppm < MILLION and digest // PAST_SLICES % MILLION >= self.keep_ppm:
            return UNKNOWN
        return digest


class Witness:
    """Of one plane: which services are watched, and the arms of their lanes."""

    __slots__ = ("_arms", "_watched", "dropped", "left")

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}
        self._arms: dict[str, dict[ArmKey, Arm]] = {}
        """By service."""
        self.left = MOST_USERS
        """So many more may come until the next report."""
        self.dropped: dict[str, int] = {}
        """Service → requests of users who would have been too many."""

    def watch(self, watched: Iterable[Watched]) -> None:
        """These services and no others. ``attach`` the lanes after it."""
        self._watched = {one.service: one for one in watched}
        self._arms = {service: arms for service, arms in self._arms.items() if service in self._watched}
        for service, arms in self._arms.items():
            for key, arm in arms.items():
                arm.keep_ppm = self._keep_ppm(service, key)

    def attach(self, services: Iterable[Service], lanes: Iterable[Iterable[Lane]]) -> None:
        """Give every lane its arm, or none."""
        for service, some in zip(services, lanes, strict=True):
            for lane in some:
                lane.users = self._arm(service, lane)

    def _arm(self, service: Service, lane: Lane) -> Arm | None:
        kind = KINDS.get(lane.reason)
        if kind is None or lane.service not in self._watched:
            return None
        arms = self._arms.setdefault(lane.service, {})
        key = (lane.ring, lane.version, kind)
        arm = arms.get(key)
        if arm is None:
            arm = arms[key] = Arm(self, lane.service)
            arm.keep_ppm = self._keep_ppm(lane.service, key)
        arm.salt = service.salt
        return arm

    def _keep_ppm(self, service: str, key: ArmKey) -> int:
        """Of the candidate's users all."""
        watched = self._watched[service]
        return MILLION if key[1] == watched.candidate else watched.keep_ppm

    def take(self, connections: Collection[Downstream], now: float) -> Users | None:
        """What came since the last time, and what is under way for long; None while nothing is watched."""
        if not self._watched:
            return None
        finished: dict[str, Finished] = {}
        for service, arms in self._arms.items():
            for key, arm in arms.items():
                if arm.users:
                    finished.setdefault(service, {})[key] = arm.users
                    arm.users = {}
        dropped, self.dropped = self.dropped, {}
        self.left = MOST_USERS
        return Users(finished, self._sweep(connections, now, dropped), dropped)

    def _sweep(self, connections: Collection[Downstream], now: float, dropped: dict[str, int]) -> dict[str, Pending]:
        names = {arm: (service, key) for service, arms in self._arms.items() for key, arm in arms.items()}
        found: dict[str, Pending] = {}
        left = MOST_USERS
        for downstream in connections:
            exchange = downstream.exchange
            if exchange is None or exchange.is_finished or exchange.tunnel is not None:
                continue
            arm, age = exchange.lane.users, now - exchange.started
            if arm is None or age <= PENDING_SECONDS:
                continue
            digest = arm.digest(exchange)
            place = names.get(arm)
            if digest == UNKNOWN or place is None:
                continue
            if left <= 0:
                dropped[place[0]] = dropped.get(place[0], 0) + 1
                continue
            left -= 1
            users = found.setdefault(place[0], {}).setdefault(place[1], {})
            users.setdefault(digest, []).append(histogram_index(micros_of(age)))
        return found
