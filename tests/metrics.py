"""Reading /metrics in tests: samples by series, and who only ever grows."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, tuple[tuple[str, str], ...]]
"""Name of the sample, labels in order."""


def samples(text: str, kinds: Iterable[str] = ("counter", "gauge", "histogram")) -> dict[Series, float]:
    """Every series of these kinds."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        if family.type in kinds
        for sample in family.samples
    }


def total(found: dict[Series, float], name: str) -> float:
    """Of all series with this name."""
    return sum(value for (sample, _), value in found.items() if sample == name)


def fallen(before: dict[Series, float], after: dict[Series, float]) -> dict[Series, tuple[float, float]]:
    """Series that are less than they were, or gone."""
    return {
        series: (value, after.get(series, -1.0)) for series, value in before.items() if after.get(series, -1.0) < value
    }
