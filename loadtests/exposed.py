"""What the router says of itself at /metrics and in its state, for load tests that hold their own count against it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from loadtests.rig import HOST, RigError, fetch

SETTLE_SECONDS: Final = 2.5
"""Workers report once a second."""


class Exposed:
    """One reading of /metrics."""

    def __init__(self, admin: int) -> None:
        self._samples = [
            sample
            for family in text_string_to_metric_families(fetch(f"http://{HOST}:{admin}/metrics"))
            for sample in family.samples
        ]

    def by(self, name: str, label: str) -> dict[str, int]:
        """A counter or gauge, added up over all labels but this one."""
        found: dict[str, int] = {}
        for sample in self._samples:
            if sample.name == f"ringrouter_{name}":
                value = sample.labels[label]
                found[value] = found.get(value, 0) + int(sample.value)
        return found

    def total(self, name: str) -> int:
        return int(sum(sample.value for sample in self._samples if sample.name == f"ringrouter_{name}"))


def settled(admin: int, patience: float = 15.0) -> Exposed:
    """A reading once nobody is connected any more and every worker has said so. RigError when that never comes."""
    await_that(lambda: Exposed(admin).total("connections") == 0, "the clients' connections are closed", patience)
    time.sleep(SETTLE_SECONDS)
    return Exposed(admin)


def await_that(is_so: Callable[[], bool], what: str, patience: float = 15.0) -> None:
    deadline = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > deadline:
            raise RigError(f"not so after {patience:g} s: {what}")
        time.sleep(0.2)


def await_ready(admin: int) -> None:
    """Every worker has its routing table."""

    def is_ready() -> bool:
        state = state_of(admin)
        return bool(state["applied_everywhere"] == state["generation"])

    await_that(is_ready, "every worker has its routing table")


def state_of(admin: int) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(fetch(f"http://{HOST}:{admin}/api/v1/state"))
    return state
