"""What must hold after every experiment, whatever broke: I1 to I7. Each is named when it does not."""

from __future__ import annotations

import collections
import json
import re
from typing import Final

from tests.faults.client import End, Outcome
from tests.faults.findings import Findings
from tests.faults.ledger import ASKED
from tests.faults.load import P99, percentile
from tests.faults.processes import descriptors, resident
from tests.faults.rig import Experiment, Observer, Stage
from tests.waiting import until

SHOWN: Final = 3
SETTLE_SECONDS: Final = 10.0
RECOVERY_SECONDS: Final = 5.0
FLOOR_MS: Final = 2.0
"""The load's own clock is good to a millisecond: less than this is no difference."""
RESIDENT_MIB: Final = 10.0
ADMIN_MS: Final = 100.0
NAMES: Final = {
    "I1": "no answer belongs to another request",
    "I2": "no POST is delivered twice",
    "I3": "every request ends",
    "I4": "p99 is back",
    "I5": "memory and descriptors are back",
    "I6": "no unplanned exit, the admin side answers",
    "I7": "log, counters and clients agree",
}
_ID: Final = re.compile(r"/([\w-]+)")


async def check(stage: Stage, experiment: Experiment, observer: Observer, found: Findings) -> None:
    """Add to ``found`` what did not hold. The load has ended."""
    outcomes = stage.outcomes()
    held, broken = [], {
        "I1": _own(outcomes),
        "I2": _once(stage),
        "I3": [f"{one} after {one.took:.1f} s" for one in outcomes if one.end is End.HUNG],
        "I4": _recovered(stage, outcomes),
        "I5": [] if "I5" in experiment.waived else await _slim(stage),
        "I6": _alive(stage, observer),
        "I7": [] if "I7" in experiment.waived else await _agree(stage, outcomes),
    }  # fmt: skip
    for name, complaints in broken.items():
        if name in experiment.waived:
            found.note(f"{name} not asked: {experiment.waived[name]}")
        elif complaints:
            more = [f"and {len(complaints) - SHOWN} more"] if len(complaints) > SHOWN else []
            shown = "; ".join(complaints[:SHOWN] + more)
            found.breaks(f"{name} ({NAMES[name]}): {shown}")
        else:
            held.append(name)
    stalled = sum(load.has_stalled(one) for load in stage.loads for one in load.outcomes)
    if stalled:
        found.note(f"{stalled} requests met a stall of the load itself and are not timed")
    found.note(f"{len(outcomes)} requests, {' '.join(held)} held")


def _own(outcomes: list[Outcome]) -> list[str]:
    return [str(one) for one in outcomes if one.end is End.WRONG]


def _once(stage: Stage) -> list[str]:
    times = collections.Counter(one.id for one in stage.ledgers() if one.kind == ASKED and one.method == "POST")
    return [f"{name} {count} times" for name, count in times.items() if count > 1]


def _recovered(stage: Stage, outcomes: list[Outcome]) -> list[str]:
    """Of the phase ``after``, what was due more than 5 s behind its beginning; in the short form its last requests."""
    before = [one for one in outcomes if one.phase == "before"]
    after = [one for one in outcomes if one.phase == "after"]
    if not before or not after:
        return []
    if stage.is_short:
        late = sorted(after, key=lambda one: one.due)[-10:]
        return [str(one) for one in late if one.end is not End.RIGHT]

    def has_stalled(one: Outcome) -> bool:
        return any(load.has_stalled(one) for load in stage.loads)

    begin = min(one.due for one in after) + RECOVERY_SECONDS
    late = [one for one in after if one.due > begin]
    if not late:
        return [f"no load {RECOVERY_SECONDS:g} s after the fault"]
    was, now = (percentile([one for one in some if not has_stalled(one)], P99) for some in (before, late))
    return [f"p99 {was:.1f} ms before, {now:.1f} ms after"] if now > max(1.5 * was, was + FLOOR_MS) else []


async def _slim(stage: Stage) -> list[str]:
    """In the short form the descriptors alone, and only those that clients had: pools have not rested yet."""
    if stage.is_short:
        return []
    complaints = []
    workers = stage.router.workers()
    left = 0
    try:
        await until(lambda: descriptors(workers) <= stage.descriptors_before, within=SETTLE_SECONDS)
    except AssertionError:
        left = descriptors(workers) - stage.descriptors_before
    if left > 0:
        complaints.append(f"{left} descriptors more than before, {SETTLE_SECONDS:g} s on")
    grown = (resident(workers) - stage.resident_before) / 2**20
    if grown > RESIDENT_MIB:
        complaints.append(f"workers hold {grown:.1f} MiB more than before")
    return complaints


def _alive(stage: Stage, observer: Observer) -> list[str]:
    complaints = []
    gone = set(stage.workers_before) - set(stage.router.workers()) - stage.planned
    if gone:
        complaints.append(f"{len(gone)} workers ended")
    if stage.router.process.poll() is not None:
        complaints.append("the parent ended")
    if "Traceback" in stage.router.said():
        complaints.append("a traceback in its log")
    if observer.admin_failures:
        complaints.append(f"the admin side failed {observer.admin_failures} times")
    seconds = sorted(observer.admin_seconds)
    if seconds and not stage.is_short:
        worst = 1000 * seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))]
        if worst > ADMIN_MS:
            complaints.append(f"admin p99 {worst:.0f} ms")
    return complaints


async def _agree(stage: Stage, outcomes: list[Outcome]) -> list[str]:
    """One line for each status a client saw, none for others; and the counters are the lines, since the start."""
    lines: dict[str, list[int]] = {}

    def read() -> None:
        lines.clear()
        for raw in stage.access_log.read_bytes().split(b"\n")[:-1]:
            line = json.loads(raw)
            if not line["ring"]:
                continue  # answered before it had a ring
            name = _ID.match(line["target"])
            lines.setdefault(name[1] if name else line["target"], []).append(line["status"])

    complaints: list[str] = []

    async def agrees() -> bool:
        read()
        own = {name: statuses for name, statuses in lines.items() if name.startswith(stage.prefix)}
        complaints[:] = _differences(own, outcomes)
        logged = collections.Counter(str(status) for many in lines.values() for status in many)
        counted = await stage.router.by("ringrouter_requests_total", "code")
        counted = {code: count for code, count in counted.items() if count}
        if counted != dict(logged):
            complaints.append(f"counters {counted}, lines {dict(logged)}")
        return not complaints

    try:
        await until(agrees, within=SETTLE_SECONDS)
    except AssertionError:
        return complaints
    return []


def _differences(lines: dict[str, list[int]], outcomes: list[Outcome]) -> list[str]:
    """Answers the router gave before a request had a ring are not looked at: they are those without ``X-Ring``."""
    complaints = []
    for one in outcomes:
        found = lines.get(one.request.id, [])
        if one.status and (one.end is not End.MARKED or "x-ring" in one.fields):
            if found != [one.status]:
                complaints.append(f"{one.request.id} saw {one.status}, the log says {found}")
        elif len(found) > (0 if one.end is End.REFUSED else 1):
            complaints.append(f"{one.request.id} ({one.end.name}) has the lines {found}")
    asked = {one.request.id for one in outcomes}
    complaints += [f"a line of {name}, which nobody asked for" for name in lines if name not in asked]
    return complaints
