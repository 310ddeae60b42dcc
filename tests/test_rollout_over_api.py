"""A rollout from its beginning to its end over the admin API of a real router, with a real Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.admin import VIEWER, House, administered
from tests.redis_fixture import Server
from tests.rollout_house import plan
from tests.waiting import until

ROLLOUT = "/api/v1/rollouts/shop"


def body(**more: Any) -> dict[str, Any]:
    steps = [
        {"ring": "canary", "version": "v2", "weight": 5, "bake": "1h"},
        {"ring": "everyone", "version": "v2", "final_bake": "1h"},
    ]
    return {"plan": plan(steps=steps), "reason": "v2 is ready", **more}


async def phase(house: House) -> str:
    answer = await house.call("GET", ROLLOUT)
    return str(answer.data["phase"]) if answer.status == 200 else ""


async def test_a_rollout_is_started_paused_resumed_and_rolled_back(tmp_path: Path, redis_server: Server) -> None:
    async with administered(tmp_path, redis=redis_server.url) as house:
        assert (await house.call("GET", ROLLOUT)).status == 404
        refused = await house.call("POST", f"{ROLLOUT}/pause", {"reason": "why not"})
        assert refused.status == 409
        assert "has no rollout" in refused.text
        wrong = body()
        wrong["plan"]["steps"][0]["ring"] = "canery"
        answer = await house.call("POST", ROLLOUT, wrong)
        assert answer.status == 400
        assert "canary" in answer.text

        assert (await house.call("POST", ROLLOUT, body(), token=VIEWER)).status == 403
        assert (await house.call("POST", ROLLOUT, body())).status == 200
        twice = await house.call("POST", ROLLOUT, body())
        assert twice.status == 409
        assert twice.data["current"]["candidate"] == "v2"

        async def bakes() -> bool:
            return await phase(house) == "baking"

        await until(bakes, within=20)
        assert (await house.call("POST", f"{ROLLOUT}/pause", {"reason": "lunch"})).data["phase"] == "paused"
        again = await house.call("POST", f"{ROLLOUT}/pause", {"reason": "lunch"})
        assert again.status == 409
        assert "paused already" in again.text
        assert (await house.call("POST", f"{ROLLOUT}/resume", {"reason": "back"})).data["phase"] == "baking"
        assert (await house.call("POST", f"{ROLLOUT}/rollback", {})).status == 200

        async def is_back() -> bool:
            return await phase(house) == "rolled_back"

        await until(is_back, within=20)
        report = await house.call("GET", f"{ROLLOUT}/report?format=markdown")
        assert "lunch" in report.text
        state = house.router.state()["services"]["shop"]["rings"]
        assert [(ring["ring"], ring["version"]) for ring in state] == [
            ("canary", "v1"), ("early", "v2"), ("everyone", "v1"),
        ]  # fmt: skip
