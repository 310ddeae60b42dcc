"""Quantiles of latencies, read from the histograms of ``meters``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final

from router.telemetry.meters import upper_edge_seconds

_HALF_A_BUCKET: Final = 2 ** (1 / 32)


def quantile_buckets(histogram: Mapping[int, int], quantiles: Sequence[float]) -> list[int]:
    """For each, smallest first, the bucket of the least value that at least so many of all do not exceed."""
    if not all(0 < quantile < 1 for quantile in quantiles):
        raise ValueError(f"a quantile is between 0 and 1, not {quantiles}")
    total = sum(histogram.values())
    found: list[int] = []
    seen = 0
    if total == 0:
        return found
    wanted = [max(1, ceil(quantile * total - 1e-9)) for quantile in quantiles]
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        while seen >= wanted[len(found)]:
            found.append(bucket)
            if len(found) == len(wanted):
                return found
    raise AssertionError("a histogram's counts are not below 0")


def quantile_bucket(histogram: Mapping[int, int], quantile: float) -> int | None:
    """One of them; None if there are none."""
    found = quantile_buckets(histogram, (quantile,))
    return found[0] if found else None


def quantiles_seconds(histogram: Mapping[int, int], quantiles: Sequence[float]) -> list[float] | None:
    """The quantiles, smallest first, as they are shown: the middles of their buckets, off by 2.2 % at most; None
    without requests."""
    found = quantile_buckets(histogram, quantiles)
    return [upper_edge_seconds(bucket) / _HALF_A_BUCKET for bucket in found] if found else None


def quantile_seconds(histogram: Mapping[int, int], quantile: float) -> float | None:
    """One of them."""
    found = quantiles_seconds(histogram, (quantile,))
    return None if found is None else found[0]
