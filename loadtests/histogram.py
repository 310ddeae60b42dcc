"""A histogram of latencies with logarithmic buckets: any percentile within 1 %, from nanoseconds to hours."""

from __future__ import annotations

from typing import Final

SUB_BITS: Final = 7
"""Each power of two has 128 buckets, so a bucket is at most 1/128 of its value wide."""
_BUCKETS: Final = (64 - SUB_BITS) << SUB_BITS


class Histogram:
    """Counts of whole nanoseconds."""

    __slots__ = ("counts", "longest", "total")

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.total = 0
        self.longest = 0

    def add(self, nanoseconds: int) -> None:
        value = max(0, nanoseconds)
        shift = max(0, value.bit_length() - SUB_BITS - 1)
        self.counts[(shift << SUB_BITS) + (value >> shift)] += 1
        self.total += 1
        if value > self.longest:
            self.longest = value

    def percentile(self, percent: float) -> float:
        """The middle of the bucket where this share of the values is reached; nanoseconds."""
        wanted = self.total * percent / 100
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                shift = max(0, (index >> SUB_BITS) - 1)
                low = (index - (shift << SUB_BITS)) << shift
                return min(low + (1 << shift) / 2, self.longest)
        return 0.0
