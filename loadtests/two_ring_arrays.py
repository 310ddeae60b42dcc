"""The two-ring test of ``router.rollout.statistics``, for thousands of rollouts at once.

The same line as ``TwoRing.after``, on arrays; ``check`` holds it against the product's own code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.rollout.statistics.two_ring import Evidence, Tick, TwoRing

Floats = NDArray[np.float64]


class Many:
    """The evidence of many runs of one test: ``peak`` is the greatest ln E of each so far, and 0 before."""

    def __init__(self, test: TwoRing, shape: tuple[int, ...]) -> None:
        if test.copies != 1:
            raise ValueError("copies with delayed starts are runs of their own here")
        self.test = test
        self.multiples = np.array(test.multiples)
        self.logs = np.zeros((*shape, len(test.multiples)))
        self.peak = np.zeros(shape)

    def after(self, ring: Floats, ring_failed: Floats, control: Floats, control_failed: Floats) -> Floats:
        """One more tick for each (or for the first ones along each axis, where the others have not begun): ln E."""
        begun = tuple(slice(length) for length in ring.shape)
        ratio, absolute = self.test.margin.ratio, self.test.margin.absolute
        is_tick = ((ring > 0) & (control > 0))[..., None]
        n_r, x_r, n_b, x_b = (one[..., None] for one in (ring, ring_failed, control, control_failed))
        both = np.maximum(ratio * n_r + n_b, 1e-300)
        beyond = ratio * (self.multiples - 1)
        log_b = -np.log1p(n_r * beyond / both)
        a_less_one = n_b * beyond / (ratio * (both + n_r * beyond))
        gain = x_r * (np.log(self.multiples) + log_b) + x_b * log_b - absolute * n_r * a_less_one
        logs, peak = self.logs[begun], self.peak[begun]
        logs += np.where(is_tick, gain, 0.0)
        top = logs.max(axis=-1)
        now: Floats = top + np.log(np.exp(logs - top[..., None]).mean(axis=-1))
        np.maximum(peak, now, out=peak)
        return now


def check(many: Many, run: tuple[int, ...], ticks: Sequence[Floats]) -> None:
    """Whether the product's code says the same of one run's ticks (n_r, x_r, n_b, x_b). Raises AssertionError."""
    evidence: Evidence = many.test.begin()
    for ring, ring_failed, control, control_failed in ticks:
        evidence = many.test.after(evidence, Tick(int(ring), float(ring_failed), int(control), float(control_failed)))
    theirs, ours = float(many.peak[run]), evidence.peak
    assert abs(theirs - ours) <= 1e-6 * max(1.0, abs(ours)), (many.test, run, theirs, ours)
