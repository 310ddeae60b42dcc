"""When a version fails massively: counted where something failed, so that requests that go well cost nothing. Pure."""

from __future__ import annotations

from typing import Final

from xxhash import xxh64_intdigest

from router.core.spec import BreakerSpec

SLICES: Final = 64
SLICE_SALT: Final = b"slice:"
MAX_OPEN_SECONDS: Final = 600.0


class Breaker:
    """The failures of one version in this worker, in a window of time."""

    __slots__ = ("_failed", "_seen", "_since", "_slices", "opened", "spec", "until")

    def __init__(self, spec: BreakerSpec) -> None:
        self.spec = spec
        self.opened = 0
        """Times in a row."""
        self.until = 0.0
        """When the version is tried again, on the monotonic clock."""
        self._since = 0.0
        self._seen = 0
        """Requests the version had had when the window began."""
        self._failed = 0
        self._slices = 0

    def failed(self, key: bytes, begun: int, now: float) -> bool:
        """A request has failed; whether that makes too many. ``begun`` counts all requests of the version."""
        if now - self._since > self.spec.window:
            if now - self._since > 2 * self.spec.window:
                self._failed = self._slices = 0
                self._seen = begun - 1
            else:  # the second half of what was counted stays: a failure at the border is no beginning
                self._failed //= 2
                self._seen += (begun - self._seen) // 2
            self._since = now
        self._failed += 1
        self._slices |= 1 << (xxh64_intdigest(SLICE_SALT + key) % SLICES)
        spec = self.spec
        return (
            spec.failed_basis_points > 0
            and self._failed >= spec.minimum
            and self._failed * 10_000 >= spec.failed_basis_points * (begun - self._seen)
            and self._slices.bit_count() >= spec.slices
        )

    def share(self, begun: int, now: float) -> float:
        """The part of the requests that failed lately, 0 … 1."""
        if now - self._since > 2 * self.spec.window:
            return 0.0
        return self._failed / max(1, begun - self._seen)

    def open(self, now: float) -> None:
        """For a time that doubles each time; one that was well for long begins with a short time again."""
        if now - self.until > MAX_OPEN_SECONDS:
            self.opened = 0
        self.until = now + min(self.spec.open * 2.0 ** min(self.opened, 10), MAX_OPEN_SECONDS)
        self.opened += 1
        self._failed = self._slices = 0  # whoever gets another chance gets a fair one
        self._since = 0.0
