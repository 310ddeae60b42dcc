"""What users notice when backends fail and the router's processes come and go: every request of a crowd counts.

One scenario each: one of three endpoints killed; all endpoints of canary killed, and back; a backend that closes kept
connections after random counts; a version that fails every request, with retries; reloads, killed workers, killed
control processes and take-overs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvloop

from loadtests import contestants, report
from loadtests.crowd import Crowd
from loadtests.disruption import clients
from loadtests.rig import HOST, LOAD_CORE, PROXY_CORE, Child, Rig, RigError, fetch, free_ports, python_module, say_cores
from router.telemetry.tasks import spawn

LEAD_SECONDS: Final = 2.0
EFFECT_SECONDS: Final = 20.0
CANARY: Final = "X-Ring: canary\r\n"

Found = dict[str, Any]


def backend(rig: Rig, port: int, *options: str | int) -> Child:
    return rig.start(
        f"backend-{port}-{time.monotonic_ns()}",
        python_module("loadtests.peers.fragile", "--port", port, *options),
        LOAD_CORE,
        f"http://{HOST}:{port}/-/count",
    )


def count(port: int) -> int:
    return int(fetch(f"http://{HOST}:{port}/-/count"))


def kill(child: Child) -> None:
    """SIGKILL, and gone."""
    child.process.kill()
    child.process.wait()


def state(router: contestants.Contestant) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fetch(f"http://{HOST}:{router.admin}/api/v1/state"))
    return found


async def until(is_there: Callable[[], bool], what: str) -> None:
    """Wait for an effect; asked in a thread, because the crowd goes on."""
    deadline = time.monotonic() + EFFECT_SECONDS
    while True:
        try:
            if await asyncio.to_thread(is_there):
                return
        except OSError:  # control is being restarted
            pass
        if time.monotonic() > deadline:
            raise RigError(f"{what}: no effect within {EFFECT_SECONDS:g} s")
        await asyncio.sleep(0.05)


# -- the scenarios -----------------------------------------------------------------------------------------------------


async def one_of_three(rig: Rig, asked: argparse.Namespace) -> Found:
    """One of three endpoints is killed under load, and comes back."""
    ports = free_ports(3)
    children = [backend(rig, port) for port in ports]
    router = contestants.start_router(rig, {"shop": contestants.service(ports, ports)}, "one-of-three")
    crowd = Crowd(router.port, puts=5)
    running = spawn(crowd.run(), name="crowd")
    await asyncio.sleep(LEAD_SECONDS)
    killed = time.monotonic()
    await asyncio.to_thread(kill, children[0])
    await asyncio.sleep(LEAD_SECONDS)
    await asyncio.to_thread(backend, rig, ports[0])
    await until(lambda: count(ports[0]) > 0, "the endpoint that came back gets requests")
    crowd.is_over = True
    await running
    return {
        "requests": len(crowd.outcomes),
        "failed": crowd.failed(),
        "worst ms after the kill": round(max(one.took for one in crowd.outcomes if one.at >= killed - 0.1) * 1000),
        "is_kept": crowd.failed() == 0,
    }


async def canary_gone(rig: Rig, asked: argparse.Namespace) -> Found:
    """All endpoints of canary's version are killed: its users get the outer version, and come back without flapping."""
    v1, *v2 = free_ports(3)
    backend(rig, v1, "--says", "v1")
    children = [backend(rig, port, "--says", "v2") for port in v2]
    service = contestants.service([v1], v2, return_after="3s")
    router = contestants.start_router(rig, {"shop": service}, "canary-gone")
    crowd = Crowd(router.port, headers=CANARY, pause=0.005, puts=5)
    running = spawn(crowd.run(), name="crowd")
    await asyncio.sleep(LEAD_SECONDS)
    killed = time.monotonic()
    for child in children:
        child.process.kill()
    await asyncio.sleep(4)
    started = time.monotonic()
    for port in v2:
        await asyncio.to_thread(backend, rig, port, "--says", "v2")
    await until(lambda: crowd.outcomes[-1].body == b"v2", "canary comes back")
    await asyncio.sleep(LEAD_SECONDS)
    crowd.is_over = True
    await running
    settled = [one for one in crowd.outcomes if one.at >= killed + 1]
    outer = next(one for one in crowd.outcomes if one.at >= killed and one.body == b"v1")
    back = next(one for one in settled if one.body == b"v2")
    return {
        "requests": len(crowd.outcomes),
        "failed": crowd.failed(),
        "failed after 1 s": crowd.failed(killed + 1),
        "first answer of the outer version after ms": round((outer.at + outer.took - killed) * 1000),
        "back after s": round(back.at - started, 1),
        "outer again after that": sum(one.body == b"v1" for one in settled if one.at > back.at + 0.1),
        "is_kept": crowd.failed(killed + 1) == 0
        and outer.at + outer.took - killed < 1
        and all(one.body == b"v2" for one in settled if one.at > back.at + 0.1),
    }


async def close_race(rig: Rig, asked: argparse.Namespace) -> Found:
    """The backend closes kept connections after 1 to 20 answers, without a word."""
    (port,) = free_ports(1)
    backend(rig, port, "--closes-after", 20)
    router = contestants.start_router(rig, {"shop": contestants.service([port], [port])}, "close-race")
    crowd = Crowd(router.port, wanted=asked.races, puts=10)
    await crowd.run()
    return {
        "requests": len(crowd.outcomes),
        "failed": crowd.failed(),
        "sent once more": retries(router, "stale"),
        "is_kept": crowd.failed() == 0,
    }


def retries(router: contestants.Contestant, reason: str) -> int:
    """What the router counted, when its workers have reported."""
    time.sleep(1.5)
    lines = fetch(f"http://{HOST}:{router.admin}/metrics").splitlines()
    mine = [line for line in lines if line.startswith("ringrouter_retries_total") and f'reason="{reason}"' in line]
    return round(sum(float(line.rpartition(" ")[2]) for line in mine))


async def storm(rig: Rig, asked: argparse.Namespace, fails: str) -> Found:
    """A version that fails every request, with retries for that: what its endpoints get beyond the users' requests."""
    ports = free_ports(2)
    for port in ports:
        backend(rig, port, "--fails", fails)
    service = contestants.service(ports, ports, retries={"statuses": [503]}, hosts=["a"])
    router = contestants.start_router(rig, {"shop": service}, f"storm-{fails}")
    crowd = Crowd(router.port, wanted=asked.storm)
    await crowd.run()
    came = await asyncio.to_thread(lambda: sum(map(count, ports)))
    return {
        "requests": len(crowd.outcomes),
        "came to the endpoints": came,
        "more than asked": f"{came / len(crowd.outcomes) - 1:.2%}",
        "is_kept": came <= 1.2 * len(crowd.outcomes),
    }


async def restarts(rig: Rig, asked: argparse.Namespace) -> Found:
    """Reloads, killed workers, killed control processes and take-overs, one after the other, under load."""
    ports = free_ports(2)
    for port in ports:
        backend(rig, port)
    router = contestants.start_router(rig, {"shop": contestants.service(ports, ports)}, "restarts", workers=2)
    crowd = Crowd(router.port, fresh=0.5)
    running = spawn(crowd.run(), name="crowd")
    await asyncio.sleep(LEAD_SECONDS)
    found: Found = {}
    is_kept = True
    events = (("reload", reload, 50), ("worker killed", kill_worker, 10), ("control killed", kill_control, 10),
              ("take-over", take_over, 10))  # fmt: skip
    for name, event, times in events:
        begun, allowed = time.monotonic(), 0
        for _ in range(times):
            allowed += await event(rig, router)
        await asyncio.sleep(0.5)
        failed = crowd.failed(begun, time.monotonic())
        asked_for = sum(crowd.statuses(begun).values())
        found[f"{name} x {times}"] = f"{failed} of {asked_for:,} failed" + (f", {allowed} allowed" if allowed else "")
        is_kept = is_kept and failed <= allowed
    crowd.is_over = True
    await running
    return {"requests": len(crowd.outcomes), **found, "is_kept": is_kept}


async def reload(rig: Rig, router: contestants.Contestant) -> int:
    """Another weight in the file."""
    assert router.config is not None
    settings = json.loads(router.config.read_text())
    ring = settings["services"]["shop"]["rings"][1]
    ring["weight"] = weight = 41 - ring["weight"]
    beside = router.config.with_suffix(".new")
    beside.write_text(json.dumps(settings))
    beside.rename(router.config)
    router.child.process.send_signal(signal.SIGHUP)

    def is_there() -> bool:
        now = state(router)
        rings = {one["ring"]: one["weight"] for one in now["services"]["shop"]["rings"]}
        return bool(rings["early"] == weight and now["applied_everywhere"] == now["generation"])

    await until(is_there, "reload")
    return 0


async def kill_worker(rig: Rig, router: contestants.Contestant) -> int:
    """The one with most clients; what it had in flight may fail."""

    workers = {one["pid"] for one in (await asyncio.to_thread(state, router))["workers"] if one["connected"]}
    held = {pid: clients(pid, router.port) for pid in workers}
    killed = max(held, key=lambda pid: held[pid])
    os.kill(killed, signal.SIGSTOP)  # so that what it holds can be counted
    await asyncio.sleep(0.01)
    in_flight = clients(killed, router.port)
    os.kill(killed, signal.SIGKILL)

    def is_there() -> bool:
        now = [one["pid"] for one in state(router)["workers"] if one["connected"]]
        return len(now) == len(workers) and killed not in now

    await until(is_there, "a new worker")
    return in_flight


async def kill_control(rig: Rig, router: contestants.Contestant) -> int:
    """Control is the child of the parent that is no worker."""
    workers = {one["pid"] for one in (await asyncio.to_thread(state, router))["workers"]}
    router.child.settle()
    (control,) = [pid for pid in router.child.pids if pid not in workers and is_control(pid)]
    os.kill(control, signal.SIGKILL)
    await until(lambda: len([one for one in state(router)["workers"] if one["connected"]]) == len(workers), "control")
    return 0


def is_control(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ring-router: control")


async def take_over(rig: Rig, router: contestants.Contestant) -> int:
    """Another router takes its place."""
    command = [str(Path(sys.executable).with_name("ring-router")), "run", "--take-over", "-c", str(router.config)]
    before = router.child
    url = f"http://{HOST}:{router.admin}/live"
    router.child = await asyncio.to_thread(rig.start, f"next-{time.monotonic_ns()}", command, PROXY_CORE, url)
    await until(lambda: before.process.poll() is not None, "the old router ends")
    if before.process.returncode:
        raise RigError(f"the old router ended with {before.process.returncode}:\n{before.tail()}")
    return 0


SCENARIOS: Final[dict[str, Callable[[Rig, argparse.Namespace], Any]]] = {
    "one of three endpoints killed": one_of_three,
    "all endpoints of canary killed": canary_gone,
    "kept connections closed after random counts": close_race,
    "storm of 503": lambda rig, asked: storm(rig, asked, "status"),
    "storm of resets": lambda rig, asked: storm(rig, asked, "reset"),
    "reloads, kills, take-overs": restarts,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--races", type=int, default=100_000, help="requests to the backend that closes")
    parser.add_argument("--storm", type=int, default=20_000, help="requests to the version that fails")
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--dry", action="store_true", help="write no result")
    asked = parser.parse_args()
    say_cores()
    os.sched_setaffinity(0, {LOAD_CORE})
    found: dict[str, Found] = {}
    for name, scenario in SCENARIOS.items():
        if asked.only not in name:
            continue
        with Rig() as rig:
            try:
                found[name] = uvloop.run(scenario(rig, asked))
            except RigError as error:
                found[name] = {"stopped": str(error), "is_kept": False}
        print(f"\n{name}: {'kept' if found[name]['is_kept'] else 'NOT KEPT'}", flush=True)
        for what, value in found[name].items():
            if what != "is_kept":
                print(f"  {what}: {value:,}" if isinstance(value, int) else f"  {what}: {value}", flush=True)
    if not asked.dry and not asked.only:
        report.save("failing", asked, {"summary": found})
    if not all(one["is_kept"] for one in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    report.run(main)
