"""Quantiles of latencies, read from the histograms of ``meters``."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from router.telemetry.meters import upper_edge_seconds


def quantile_bucket(histogram: Mapping[int, int], quantile: float) -> int | None:
    """The bucket of the least value that at least ``quantile`` of all do not exceed; None if there are none."""
    if not 0 < quantile < 1:
        raise ValueError(f"a quantile is between 0 and 1, not {quantile}")
    total = sum(histogram.values())
    if total == 0:
        return None
    wanted, seen = max(1, ceil(quantile * total - 1e-9)), 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= wanted:
            return bucket
    raise AssertionError("a histogram's counts are not below 0")


def quantile_seconds(histogram: Mapping[int, int], quantile: float) -> float | None:
    """The quantile as it is shown: the middle of its bucket, off by 2.2 % at most; None without requests."""
    bucket = quantile_bucket(histogram, quantile)
    return None if bucket is None else upper_edge_seconds(bucket) / 2 ** (1 / 32)
