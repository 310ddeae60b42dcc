"""How long does harm take to be found, whom does it cost, and how soon is it over? ``python -m loadtests.returning``.

Three instances of two workers share a Redis; people come, and the candidate is dialled to fail, to be slow or to hang.
From each rollout: the time from the candidate's first user to the verdict, the users and requests that were hurt until
then, and the time from the verdict until the last worker of the last instance had applied the rollback, by the workers'
own clocks (the same machine's). Every verdict is worked out again afterwards. Writes results/returning.json.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

import uvloop

from loadtests import report
from router.control.link import make_client
from router.control.recount import verify
from router.control.redis_server import free_port, launch
from tests.rollout_house import Dial, Fleet, fleet, plan, story

FAULTS: Final = ("errors 5 %", "p99 × 2", "hangs 1 %")
GUARDRAILS: Final = [
    {"name": "errors", "outcome": "errors", "on_harm": "rollback", "required": True},
    {"name": "p99", "latency": {"quantile": 0.99}, "on_harm": "rollback", "required": True},
]
NO_SECONDS: Final = 240.0


def dial(candidate: Dial, fault: str) -> None:
    candidate.errors = 0.05 if fault == "errors 5 %" else 0.0
    candidate.slower = 2.0 if fault == "p99 × 2" else 1.0
    candidate.hangs = 0.01 if fault == "hangs 1 %" else 0.0


async def one(shop: Fleet, fault: str) -> dict[str, float]:
    dial(shop.candidate, fault)
    await shop.start(plan(guardrails=GUARDRAILS))
    done = await shop.reaches("succeeded", "rolled_back", "rollback_stalled", "paused", within=NO_SECONDS)
    if done.phase != "rolled_back" or done.rollback is None:
        raise report.RigError(f"{fault}: {story(done)}")
    verdict = next(event.at for event in reversed(done.events) if event.after == "rolling_back")
    states = [await asyncio.to_thread(router.state) for router in shop.routers]
    applied = max(worker["applied_at"] for state in states for worker in state["workers"])
    different = await verify(shop.redis, shop.rules)
    return {
        "seconds_to_verdict": done.rollback.seconds_to_verdict,
        "users_hurt": float(done.rollback.users_hurt),
        "requests_hurt": float(done.rollback.requests_hurt),
        "seconds_to_apply": applied - verdict,
        "differences": float(len(different)),
    }


async def measure(rounds: int, per_second: float) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {fault: [] for fault in FAULTS}
    with tempfile.TemporaryDirectory() as name:
        server = launch(free_port(), Path(name) / "redis")
        client = make_client(server.url)
        try:
            async with fleet(Path(name), server.url, client, instances=3, workers=2, per_second=per_second) as shop:
                for number in range(rounds):
                    for fault in FAULTS:
                        found[fault].append(await one(shop, fault))
                        said = "  ".join(f"{key} {value:.3g}" for key, value in found[fault][-1].items())
                        print(f"round {number + 1}/{rounds}, {fault}:  {said}", flush=True)
        finally:
            await client.aclose()
            server.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--per-second", type=float, default=300, help="people who come")
    asked = parser.parse_args()
    rounds = uvloop.run(measure(asked.rounds, asked.per_second))
    summary: dict[str, Any] = {
        fault: {key: report.spread(each[key] for each in every) for key in every[0]} for fault, every in rounds.items()
    }
    head = [
        "fault",
        "s to the verdict",
        "users hurt",
        "requests hurt",
        "s until the last worker",
        "verdicts that differ",
    ]
    keys = ("seconds_to_verdict", "users_hurt", "requests_hurt", "seconds_to_apply", "differences")
    digits = (1, 0, 0, 3, 0)
    report.table(
        head,
        [
            [fault, *(report.shown(found[key], digit) for key, digit in zip(keys, digits, strict=True))]
            for fault, found in summary.items()
        ],
    )
    report.save("returning", asked, {"summary": summary, "rounds": rounds})


if __name__ == "__main__":
    report.run(main)
