"""When a worker is worn out, and asks to be replaced."""

from __future__ import annotations

import time
from random import Random
from typing import Final

from router.core.spec import RecycleSpec
from router.process.pulse import Wish
from router.telemetry.counters import RingKey, WorkerCounters

JITTER: Final = (0.9, 1.1)
"""So that workers that were started together are not worn out together."""
YOUNGEST_SECONDS: Final = 30.0
"""Memory alone replaces no younger worker: a limit below what it needs would otherwise replace without end."""


class Wear:
    """What a worker has done, against what it may."""

    def __init__(self, random: Random) -> None:
        self._factor = random.uniform(*JITTER)
        self._began = time.monotonic()
        self._answered: dict[RingKey, int] = {}
        self._sum = 0

    def wish(self, spec: RecycleSpec, report: WorkerCounters) -> Wish:
        """Judge by a report, which holds the rings that moved since the one before."""
        for key, ring in report.rings.items():
            count = sum(ring.codes.values())
            self._sum += count - self._answered.get(key, 0)
            self._answered[key] = count
        age = time.monotonic() - self._began
        if spec.after and age > spec.after * self._factor:
            return Wish.AGE
        if spec.requests and self._sum + sum(report.router_answers.values()) > spec.requests * self._factor:
            return Wish.REQUESTS
        if spec.resident_bytes and report.resident_bytes > spec.resident_bytes and age > YOUNGEST_SECONDS:
            return Wish.MEMORY
        return Wish.NONE
