"""What checks make of an endpoint: a table of states, and a count of equal results in a row.

Absence of data never changes routing: an endpoint that nobody has checked yet counts as up. Pure: no clock, no I/O;
when to check, and how, is ``control.prober``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from router.core.spec import HealthCheckSpec, VersionSpec


class HealthState(StrEnum):
    """Where an endpoint stands."""

    UNKNOWN = "unknown"
    """Not checked yet."""
    UP = "up"
    FAILING = "failing"
    """Checks fail, but not enough of them in a row: it still counts as up."""
    DOWN = "down"
    RECOVERING = "recovering"
    """Checks pass, but not enough of them in a row: it still counts as down."""


class HealthEvent(StrEnum):
    """What one more check says, together with those before it."""

    PASSED = "passed"
    PASSED_ENOUGH = "passed enough"
    """The check that makes as many passes in a row as are asked for, or more."""
    FAILED = "failed"
    FAILED_ENOUGH = "failed enough"


_S, _E = HealthState, HealthEvent
TRANSITIONS: Final[Mapping[tuple[HealthState, HealthEvent], HealthState]] = {
    # It counted as up already, so the first pass is enough.
    (_S.UNKNOWN, _E.PASSED): _S.UP,
    (_S.UNKNOWN, _E.PASSED_ENOUGH): _S.UP,
    (_S.UNKNOWN, _E.FAILED): _S.FAILING,
    (_S.UNKNOWN, _E.FAILED_ENOUGH): _S.DOWN,
    (_S.UP, _E.PASSED): _S.UP,
    (_S.UP, _E.PASSED_ENOUGH): _S.UP,
    (_S.UP, _E.FAILED): _S.FAILING,
    (_S.UP, _E.FAILED_ENOUGH): _S.DOWN,
    (_S.FAILING, _E.PASSED): _S.UP,
    (_S.FAILING, _E.PASSED_ENOUGH): _S.UP,
    (_S.FAILING, _E.FAILED): _S.FAILING,
    (_S.FAILING, _E.FAILED_ENOUGH): _S.DOWN,
    (_S.DOWN, _E.PASSED): _S.RECOVERING,
    (_S.DOWN, _E.PASSED_ENOUGH): _S.UP,
    (_S.DOWN, _E.FAILED): _S.DOWN,
    (_S.DOWN, _E.FAILED_ENOUGH): _S.DOWN,
    (_S.RECOVERING, _E.PASSED): _S.RECOVERING,
    (_S.RECOVERING, _E.PASSED_ENOUGH): _S.UP,
    # One failure, and the passes begin anew: an endpoint that answers every other check stays down.
    (_S.RECOVERING, _E.FAILED): _S.DOWN,
    (_S.RECOVERING, _E.FAILED_ENOUGH): _S.DOWN,
}
_DOWN: Final = frozenset({HealthState.DOWN, HealthState.RECOVERING})
_UNDECIDED: Final = frozenset({HealthState.FAILING, HealthState.RECOVERING})


@dataclass(frozen=True, slots=True)
class Health:
    """A state, and how many checks in a row said the same (``has_passed``)."""

    state: HealthState = HealthState.UNKNOWN
    has_passed: bool = True
    in_a_row: int = 0

    @property
    def is_down(self) -> bool:
        """Whether routing leaves it out."""
        return self.state in _DOWN

    @property
    def is_undecided(self) -> bool:
        """Whether the next checks may change that."""
        return self.state in _UNDECIDED

    def after(self, has_passed: bool, spec: HealthCheckSpec) -> Health:
        """Where one more check leaves it."""
        in_a_row = self.in_a_row + 1 if has_passed == self.has_passed else 1
        if has_passed:
            event = HealthEvent.PASSED_ENOUGH if in_a_row >= spec.passes else HealthEvent.PASSED
        else:
            event = HealthEvent.FAILED_ENOUGH if in_a_row >= spec.failures else HealthEvent.FAILED
        return Health(TRANSITIONS[self.state, event], has_passed, in_a_row)


KNOWN_DOWN: Final = Health(HealthState.DOWN, has_passed=False)
"""Of an endpoint that was down when this process began: it has to pass as any other that is down."""


def is_version_up(version: VersionSpec) -> bool:
    """Whether an endpoint is left that may have requests: neither down, nor drained, nor without weight."""
    out = {*version.down, *version.drained}
    return any(one.weight and one.address not in out for one in version.endpoints)
