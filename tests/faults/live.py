"""What operators do to the weights of a running router, and what its users have of it: for the rows about Redis."""

from __future__ import annotations

import collections
import json
import time
import weakref
from collections.abc import Iterable
from typing import Final

from tests.faults.client import Outcome, Request
from tests.faults.findings import Findings
from tests.faults.load import P99, Load, Shape
from tests.faults.restart import restarted
from tests.faults.rig import Setup, Stage
from tests.faults.sentinels import command
from tests.faults.shim import Shim
from tests.waiting import until

WEIGHTS, VERSIONS, CONTROL = (f"rings:{{shop}}:{name}" for name in ("weights", "versions", "control"))
ERRORS: Final = "ringrouter_store_errors_total"
STALENESS: Final = "ringrouter_store_staleness_seconds"
USERS: Final = 200
LIVE: Final = Setup(redis=True)


def users(name: str, number: int) -> Request:
    """Two hundred people, whose rings are a matter of their hash."""
    return Request(name, fields=(f"X-User-Id: user-{number % USERS}",))


BY_USER: Final = Shape(make=users)


def moved(outcomes: Iterable[Outcome]) -> int:
    """People who were in more than one ring."""
    seen: dict[str, set[str]] = collections.defaultdict(set)
    for one in outcomes:
        if "x-ring" in one.fields and one.request.fields:
            seen[one.request.fields[0]].add(one.fields["x-ring"])
    return sum(len(rings) > 1 for rings in seen.values())


async def ask(stage: Stage, *words: str | bytes) -> object:
    assert stage.redis is not None
    return await command(stage.redis.port, *words)


async def weight(stage: Stage) -> float:
    """Of the canary, percent, as control says."""
    rings = (await stage.router.look())["services"]["shop"]["rings"]
    return float(next(ring["weight"] for ring in rings if ring["ring"] == "canary"))


async def refused(stage: Stage) -> list[str]:
    return list((await stage.router.look())["services"]["shop"]["refused"])


async def store_state(stage: Stage) -> str:
    return str((await stage.router.look())["store"]["state"])


async def is_applied(stage: Stage, percent: float, within: float = 10.0) -> float:
    """Seconds until every worker routes by this weight of the canary."""
    began = time.monotonic()

    async def is_so() -> bool:
        state = await stage.router.look()
        return bool(await weight(stage) == percent and state["applied_everywhere"] == state["generation"])

    await until(is_so, within=within)
    return time.monotonic() - began


async def change(stage: Stage, percent: int) -> float:
    """An operator sets the canary's weight; the seconds until all workers follow."""
    await ask(stage, "HSET", WEIGHTS, "canary", str(percent))
    return await is_applied(stage, percent)


_SHIMS: Final[weakref.WeakKeyDictionary[Stage, Shim]] = weakref.WeakKeyDictionary()


async def behind_a_shim(stage: Stage) -> Shim:
    """The router's way to Redis leads through it from now on; a stage has one, whatever its rows did to it before."""
    assert stage.redis is not None
    shim = _SHIMS.get(stage)
    if shim is None:
        shim = _SHIMS[stage] = Shim(stage.redis.port)
        await shim.start()
        stage.later(shim.stop)
    if json.loads(stage.config.read_text())["redis"] != shim.url:
        await restarted(stage, config={"redis": shim.url})
    return shim


def judge(load: Load, found: Findings, times: float) -> None:
    was, now = load.p(P99, load.of("before")), load.p(P99, load.of("fault"))
    found.none("errors", load.bad())
    found.timed("p99 before", was)
    found.timed("during", now, most=max(times * was, was + 2))
