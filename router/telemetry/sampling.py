"""How many a second: an allowance that fills up again (a token bucket). Pure; time is an argument."""

from __future__ import annotations


class Allowance:
    """``rate`` a second, and a quarter of a second's worth, but at least one, at once."""

    __slots__ = ("_at", "_credit", "_most", "rate")

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self._most = max(1.0, rate / 4)
        self._credit = self._most
        self._at = now

    def take(self, now: float) -> bool:
        """Whether there is one left; ``now`` is in seconds and does not go back."""
        self._credit = min(self._most, self._credit + (now - self._at) * self.rate)
        self._at = now
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True
