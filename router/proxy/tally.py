"""What a worker counts, in one place: kept for the next report, and written where it outlives the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.telemetry.counters import ProofKey, RingKey
from router.telemetry.journal import SEPARATOR, Journal
from router.telemetry.meters import RingMeter, histogram_index, micros_of

if TYPE_CHECKING:
    from router.proxy.exchange import Exchange
    from router.proxy.lane import Lane

OVERHEAD_MASK: Final = 15
"""What the router itself takes is measured on the first request of a version and on every sixteenth after it."""


class Tally:
    """Of one plane; cumulative since the worker started."""

    __slots__ = (
        "answers", "failures", "journal", "lag", "lag_micros", "meters", "overhead", "overhead_micros", "proofs",
    )  # fmt: skip

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.meters: dict[RingKey, RingMeter] = {}
        self.answers: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.proofs: dict[ProofKey, int] = {}
        self.overhead: dict[int, int] = {}
        self.overhead_micros = 0
        self.lag: dict[int, int] = {}
        self.lag_micros = 0

    def meter(self, key: RingKey) -> RingMeter:
        return self.meters.setdefault(key, RingMeter())

    def finished(self, exchange: Exchange, status: int, seconds: float, is_error: bool, is_aborted: bool) -> None:
        """A request that had a lane is over."""
        lane = exchange.lane
        received, sent, micros = exchange.received, exchange.sent, int(seconds * 1e6 + 0.5)
        waited = int(exchange.waited * 1e6 + 0.5)  # -1 is below 0 enough to be so still
        lane.meter.finished(status, micros, received, sent, is_error, waited)
        number = lane.number
        if not number:
            number = self._number(lane)
        self.journal.finished(number, status, is_error, is_aborted, micros, waited, received, sent, lane.decided)
        if lane.users is not None:
            lane.users.finished(exchange, status, micros, is_error, is_aborted)

    def settle(self, lane: Lane) -> None:
        """Take a lane's decisions to its meter."""
        if lane.decided:
            lane.meter.decided(lane.reason, lane.decided)
            self.journal.settle(self._number(lane), lane.decided)
            lane.decided = 0

    def went_elsewhere(self, lane: Lane) -> None:
        """A request that the lane had goes another way."""
        lane.meter.decided(lane.reason, -1)
        lane.meter.left()
        self.journal.settle(self._number(lane), -1)

    def _number(self, lane: Lane) -> int:
        words = ("lane", lane.service, lane.ring, lane.version, lane.reason)
        lane.number = self.journal.number(SEPARATOR.join(words))
        return lane.number

    def answered(self, word: str) -> None:
        """The router answered a request itself, before it had a ring."""
        self.answers[word] = self.answers.get(word, 0) + 1
        self.journal.count(f"answer{SEPARATOR}{word}")

    def failed(self, word: str) -> None:
        """The router answered for a backend, or broke its answer off."""
        self.failures[word] = self.failures.get(word, 0) + 1
        self.journal.count(f"failure{SEPARATOR}{word}")

    def proved(self, service: str, kind: str, word: str) -> None:
        """Somebody claimed something with a proof of this kind, and this is what it was worth."""
        key = (service, kind, word)
        self.proofs[key] = self.proofs.get(key, 0) + 1
        self.journal.count(SEPARATOR.join(("proof", service, kind, word)))

    def worked(self, seconds: float) -> None:
        """This is what the router itself took of a request's time."""
        micros = micros_of(seconds)
        index = histogram_index(micros)
        self.overhead[index] = self.overhead.get(index, 0) + 1
        self.overhead_micros += micros

    def lagged(self, seconds: float) -> None:
        """A timer was so late."""
        micros = micros_of(seconds)
        index = histogram_index(micros)
        self.lag[index] = self.lag.get(index, 0) + 1
        self.lag_micros += micros
