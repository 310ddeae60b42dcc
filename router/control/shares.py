"""Which share of its service's requests each ring had lately: the real weights, beside those that were asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

WINDOW_SECONDS: Final = 60.0
STEP_SECONDS: Final = 5.0
"""Between two looks at the counters, which are many."""

Place = tuple[str, str]
"""service, ring"""


class Shares:
    """Decisions as they stood now and then within the window. Pure: time is an argument."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Mapping[Place, int]]] = deque()

    def is_due(self, now: float) -> bool:
        return not self._looks or now - self._looks[-1][0] >= STEP_SECONDS

    def note(self, now: float, decisions: Mapping[Place, int]) -> None:
        """Decisions ever made, as they stand now."""
        self._looks.append((now, decisions))
        while len(self._looks) > 1 and now - self._looks[1][0] >= WINDOW_SECONDS:
            self._looks.popleft()

    def shares(self, decisions: Mapping[Place, int]) -> dict[Place, float]:
        """Of the requests since the window began: each ring's part of its service's, 0 to 1; none, none."""
        before = self._looks[0][1] if self._looks else {}
        lately = {place: count - before.get(place, 0) for place, count in decisions.items()}
        sums: dict[str, int] = {}
        for (service, _), count in lately.items():
            sums[service] = sums.get(service, 0) + count
        return {place: count / sums[place[0]] for place, count in lately.items() if sums[place[0]] > 0}
