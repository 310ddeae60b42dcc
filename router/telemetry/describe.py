"""``python -m router.telemetry.describe``: the catalogue as docs/metrics.md; ``--check``: whether it is up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from router.telemetry.catalogue import CODES, CONFIG, PARTS, PROCESS, Metric, Values, metrics_of

PATH: Final = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"

HEAD: Final = """\
# Metrics

Made by `make docs` from [router/telemetry/catalogue.py](../router/telemetry/catalogue.py); do not edit. `/metrics` on
the admin address has all of them, as Prometheus text or, for who asks with `Accept: application/openmetrics-text` (as
Prometheus does), as OpenMetrics 1.0, packed for who takes gzip. Every name begins with `ringrouter_`, which is left out
below. [deploy/](../deploy) has a dashboard for Grafana and alerts for Prometheus.

**Exact.** A request is counted before its answer leaves the worker. What a worker has counted since its last report
lies in memory that outlives it, and control reads it there when the worker is killed: requests, their durations, bytes
and decisions, answers of the router and proofs are counted to the last one. Other counters may lack the last second of
a worker that was killed. A request that the kill cut off may be counted or not. **Never less.** No counter goes down
while the router runs, whether workers are killed or replaced, or control is. A restart of the whole router, and a
take-over by a new one, begin at 0.

**Late.** Workers report once a second. **There from the start.** Each series is there at 0 as soon as the router has a
routing table, for every ring with its version and those that its users fall back on. Versions, rings and endpoints that
the config no longer has are not shown; what they counted is kept, in case they come back.

**Bounded.** Labels are names of the config, of a rollout's plan (`guardrail`, 20 at the most), or one of the values
named here; what clients send is never a label. The column *series* says how many there are at most for one combination
of the names: with 8 rings and 3 versions, `requests_total` has at most 8 × 3 × {codes}.

**Buckets.** Durations are counted in buckets of a sixteenth of a doubling (OpenTelemetry's exponential histogram, scale
4), of whole microseconds; a quantile of those is off by at most 4.43 percent. The bounds `le` are no edges of these
buckets: one that straddles a bound counts as above it. So a share below a bound is never said too high; it lacks at
most the requests that took within 4.43 percent less than the bound.
"""

COLUMNS: Final = "| name | type | unit | labels | series | meaning | since |\n|---|---|---|---|---|---|---|\n"


def page() -> str:
    """docs/metrics.md as it has to be."""
    parts = [HEAD.format(codes=len(CODES))]
    for part in PARTS:
        parts.append(f"\n## {(part.__doc__ or '').rstrip('.')}\n\n{COLUMNS}")
        parts += [row(metric) for metric in metrics_of(part)]
    names = ", ".join(f"`{name}`" for name in PROCESS)
    parts.append(f"\n## The parent process\n\nWithout the prefix, as the client libraries name them: {names}.\n")
    return "".join(parts)


def row(metric: Metric) -> str:
    kind: str = metric.kind
    if metric.bounds:
        kind += f", le {metric.bounds[0]:g} … {metric.bounds[-1]:g}"
    labels = "; ".join(f"`{name}`{_values(values)}" for name, values in metric.labels.items())
    cells = (f"`{metric.name}`", kind, metric.unit, labels, metric.series_each, metric.meaning, metric.since)
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"


def _values(values: Values) -> str:
    if values == CONFIG:
        return ""
    if values is CODES:
        return f": the registered ones, 499, {' '.join(values[-6:])}"
    return f": {' '.join(values)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if docs/metrics.md is not up to date")
    asked = parser.parse_args()
    text = page()
    if asked.check:
        sys.exit(0 if PATH.read_text() == text else f"{PATH.name} is not up to date: make docs")
    PATH.write_text(text)


if __name__ == "__main__":
    main()
