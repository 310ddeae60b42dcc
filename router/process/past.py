"""What control itself has counted, in the runtime directory: a new control process goes on from there.

Written once a second and before each scrape, so that nobody sees a counter that could be less later.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from router.admin.app import ADMIN
from router.telemetry.counters import EndpointKey, Histogram
from router.telemetry.counts import add

if TYPE_CHECKING:
    from router.process.control import Control

PAST_FILE: Final = "control.msgpack"


class Past(msgspec.Struct):
    """Counters of control; of the life of one process, or of all of them."""

    reloads: dict[str, int] = {}
    errors: dict[str, int] = {}
    rejected: dict[tuple[str, str], int] = {}
    polls: Histogram = {}
    poll_micros: int = 0
    passed: dict[EndpointKey, int] = {}
    failed: dict[EndpointKey, int] = {}
    fetches: dict[tuple[str, str], int] = {}
    """(issuer, result) → how often."""
    flips: dict[str, int] = {}
    admin: dict[tuple[str, int], int] = {}
    """(path, status) → requests to the admin side."""
    leads_taken: dict[str, int] = {}
    transitions: dict[tuple[str, str, str], int] = {}
    """(service, phase, auto or human) → how often."""
    notices: dict[str, int] = {}
    lost: dict[str, int] = {}
    """``parts``: of evidence."""


class Memory:
    """The processes before this one, and this one."""

    def __init__(self, runtime: Path) -> None:
        self._path = runtime / PAST_FILE
        self._before = Past()
        self._written = b""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            self._before = msgspec.msgpack.decode(self._path.read_bytes(), type=Past)

    def whole(self, control: Control) -> Past:
        """All of them together, as of now; and it is written down."""
        now, before = _own(control), self._before
        for name in (
            "reloads", "errors", "rejected", "polls", "passed", "failed", "fetches", "flips", "admin", "leads_taken",
            "transitions", "notices", "lost",
        ):  # fmt: skip
            add(getattr(now, name), getattr(before, name))
        now.poll_micros += before.poll_micros
        packed = msgspec.msgpack.encode(now)
        if packed != self._written:
            new = self._path.with_suffix(".new")
            with contextlib.suppress(OSError):  # the ledger says what is wrong with the directory
                new.write_bytes(packed)
                os.replace(new, self._path)
                self._written = packed
        return now


def _own(control: Control) -> Past:
    store, checks = control.store, control.backends.figures()
    return Past(
        reloads=dict(control.config.reloads),
        errors=dict(store.errors_total),
        rejected=dict(store.rejected_total),
        polls=dict(store.poll_durations),
        poll_micros=store.poll_micros,
        passed={key: one.passed for key, one in checks.items()},
        failed={key: one.failed for key, one in checks.items()},
        fetches={
            (name, result): count
            for name, one in control.issuers.issuers.items()
            for result, count in one.results.items()
        },
        flips=dict(control.people.flips),
        admin=dict(control.admin[ADMIN].requests),
        leads_taken=dict(control.conductor.leads_taken),
        transitions=dict(control.conductor.transitions),
        notices=control.surroundings.notices,
        lost={"parts": control.evidence.lost},
    )
