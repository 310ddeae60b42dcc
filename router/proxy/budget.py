"""How many requests may be sent once more: a share of those that came, so that retries never make a storm. Pure.

Over any time a version's endpoints get at most ``FIRST`` or the share of its requests more, whichever is larger. What
is not used is kept, up to ``MOST``.
"""

from __future__ import annotations

from typing import Final

FIRST: Final = 10.0
"""Retries that a version may have before it has earned them (a share of its first requests is paid back)."""
MOST: Final = 100.0


class Budget:
    """Retries of one version in this worker (Finagle's retry budget, without its clock)."""

    __slots__ = ("_counted", "_left", "_owed", "share")

    def __init__(self, basis_points: int) -> None:
        self.share = basis_points / 10_000
        self._left = FIRST
        self._owed = FIRST
        self._counted = 0

    def take(self, begun: int) -> bool:
        """Whether one more retry is paid for. ``begun`` counts all requests of the version."""
        earned = (begun - self._counted) * self.share
        self._counted = begun
        paid = min(self._owed, earned)
        self._owed -= paid
        self._left = min(MOST, self._left + earned - paid)
        if self._left < 1.0 or self.share <= 0:
            return False
        self._left -= 1.0
        return True
