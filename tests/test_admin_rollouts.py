"""Rollouts over the admin API: who may look looks, who may act acts once, and everybody else changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from router.admin.shapes import Rollouts
from router.rollout.observation import VERBS
from router.rollout.progress import Progress
from router.rollout.report import Report
from tests.admin import OPERATOR, VIEWER, Answer, administered
from tests.browser.stage import Stage, on_stage
from tests.rollout_progress import rolled_back, under_way

TOKENS = [
    {"name": name, "role": role, "sha256": hashlib.sha256(token.encode()).hexdigest()}
    for name, role, token in (("ada", "operator", OPERATOR), ("wall", "viewer", VIEWER))
]
PLAN: dict[str, Any] = {
    "stable": "v2", "candidate": "v3", "steps": [{"ring": "canary", "version": "v3", "weight": 1, "bake": "30m"}],
    "windows": [{"deny": {"days": ["fri", "sat"], "from": "16:00"}, "tz": "Europe/Berlin"}],
}  # fmt: skip


@dataclass
class Side:
    """An admin side on a stage, and a client of it."""

    stage: Stage
    base: str
    client: aiohttp.ClientSession

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = OPERATOR, **headers: str
    ) -> Answer:
        """``body`` is sent as it is where it is text, else as JSON."""
        sent = {"Content-Type": "application/json"} if body is not None else {}
        sent |= {"Authorization": f"Bearer {token}"} if token else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        async with self.client.request(method, f"{self.base}/api/v1{path}", data=data, headers=sent) as response:
            text = await response.text()
            is_json = "json" in response.headers.get("Content-Type", "")
            return Answer(response.status, json.loads(text) if is_json else None, response.headers, text)


@asynccontextmanager
async def admin_side(rollout: Progress | None) -> AsyncIterator[Side]:
    stage = Stage(tokens=TOKENS, rollout=rollout)
    async with on_stage(stage) as (base, _), aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        yield Side(stage, base, client)


async def test_a_viewer_sees_what_the_leader_has_stored() -> None:
    stored = under_way()
    async with admin_side(stored) as side:
        listed = msgspec.json.decode((await side.call("GET", "/rollouts", token=VIEWER)).text, type=Rollouts)
        (one,) = listed.rollouts
        assert (one.service, one.phase, one.step, one.steps) == ("shop", "proving", 2, 5)
        assert one.headline == stored.headline
        shown = await side.call("GET", "/rollouts/shop", token=VIEWER)
        assert msgspec.json.decode(shown.text, type=Progress) == stored
        told = await side.call("GET", "/rollouts/shop/report", token=VIEWER)
        report = msgspec.json.decode(told.text, type=Report)
        assert report == Report(f"Under way: {stored.headline}", "", stored)
        text = await side.call("GET", "/rollouts/shop/report?format=markdown", token=VIEWER)
        assert text.headers["Content-Type"] == "text/markdown; charset=utf-8"
        assert text.text.startswith("# shop: v2 → v3\n")


async def test_where_there_was_none_it_says_how_to_start_one() -> None:
    async with admin_side(None) as side:
        assert (await side.call("GET", "/rollouts")).data == {"rollouts": []}
        for path in ("/rollouts/shop", "/rollouts/shop/report"):
            answer = await side.call("GET", path)
            assert (answer.status, answer.data["code"]) == (404, "not_found")
            assert "ring-router rollout start plan.yaml" in answer.data["detail"]


@pytest.mark.parametrize("verb", VERBS)
async def test_each_order_reaches_the_lever_with_who_and_why(verb: str) -> None:
    async with admin_side(under_way()) as side:
        answer = await side.call("POST", f"/rollouts/shop/{verb}", {"reason": "ticket 4711"})
        assert answer.status == 200, answer
        assert answer.data["id"] == msgspec.to_builtins(side.stage.rollout)["id"]
        assert side.stage.orders == [(verb, "ada", "ticket 4711", "")]


async def test_only_going_back_needs_no_reason_and_only_resume_has_a_how() -> None:
    async with admin_side(under_way()) as side:
        for verb in VERBS:
            answer = await side.call("POST", f"/rollouts/shop/{verb}", {})
            assert (answer.status == 200) is (verb == "rollback"), (verb, answer)
        await side.call("POST", "/rollouts/shop/resume", {"reason": "mine", "how": "adopt"})
        assert side.stage.orders == [("rollback", "ada", "", ""), ("resume", "ada", "mine", "adopt")]
        for verb, body in (("resume", {"reason": "x", "how": "force"}), ("pause", {"reason": "x", "how": "adopt"})):
            assert (await side.call("POST", f"/rollouts/shop/{verb}", body)).data["code"] == "malformed"


async def test_a_plan_arrives_as_it_was_written() -> None:
    async with admin_side(under_way()) as side:
        body = {"plan": PLAN, "reason": "release 2026.11", "supersedes": True}
        assert (await side.call("POST", "/rollouts/shop", body)).status == 200
        (wanted,) = side.stage.plans
        assert (wanted.plan, wanted.reason, wanted.supersedes) == (PLAN, "release 2026.11", True)


async def test_what_cannot_be_done_now_is_409_and_shows_how_it_stands() -> None:
    ended = rolled_back()
    async with admin_side(ended) as side:
        side.stage.refusal = "It has ended: start another one."
        answer = await side.call("POST", "/rollouts/shop/pause", {"reason": "x"})
        assert (answer.status, answer.data["code"], answer.data["detail"]) == (409, "not_now", side.stage.refusal)
        assert msgspec.convert(answer.data["current"], Progress, strict=False) == ended


async def test_whoever_may_not_moves_nothing() -> None:
    async with admin_side(under_way()) as side:
        good: dict[str, Any] = {"reason": "a test"}
        paths = {
            **{f"/rollouts/shop/{verb}": good for verb in VERBS},
            "/rollouts/shop": {"plan": PLAN, "reason": "a test"},
        }
        for path, body in paths.items():
            text = json.dumps(body)
            blank, second, long = ({**body, "reason": reason} for reason in (" ", "a\nb", "x" * 501))
            table: dict[str, tuple[Answer, int, str]] = {
                "no token": (await side.call("POST", path, body, token=None), 401, "no_token"),
                "a viewer": (await side.call("POST", path, body, token=VIEWER), 403, "wrong_role"),
                "another site": (await side.call("POST", path, body, Origin="https://evil.example"), 403, "origin"),
                "rebinding": (await side.call("POST", path, body, Host="evil.example"), 421, "wrong_host"),
                "a form": (
                    await side.call("POST", path, text, Content_Type="application/x-www-form-urlencoded"), 415,
                    "not_json",
                ),
                "nothing": (await side.call("POST", path, ""), 400, "malformed"),
                "a list": (await side.call("POST", path, "[]"), 400, "malformed"),
                "an unknown key": (await side.call("POST", path, {**body, "force": True}), 400, "malformed"),
                "a key twice": (
                    await side.call("POST", path, text.replace('"reason"', '"reason": "x", "reason"')), 400,
                    "malformed",
                ),
                "a reason with a second line": (await side.call("POST", path, second), 400, "malformed"),
                "a long reason": (await side.call("POST", path, long), 400, "malformed"),
                "large": (await side.call("POST", path, {"reason": "x" * 70_000}), 413, "too_large"),
                "PUT": (await side.call("PUT", path, body), 405, "method"),
                "a service with a brace": (
                    await side.call("POST", path.replace("shop", "shop%7D:x"), body), 404, "not_found",
                ),
                "a service that is none": (
                    await side.call("POST", path.replace("shop", "other"), body), 404, "not_found",
                ),
            }  # fmt: skip
            if not path.endswith("rollback"):
                table["a blank reason"] = await side.call("POST", path, blank), 400, "malformed"
            wrong = {
                name: (answer.status, answer.text)
                for name, (answer, status, code) in table.items()
                if answer.status != status or (answer.data or {}).get("code") != code
            }
            assert wrong == {}, path
        deep: Any = {"reason": "x", "plan": {"a": [[[[[[[[1]]]]]]]]}}
        assert (await side.call("POST", "/rollouts/shop", deep)).data["code"] == "malformed"
        assert (await side.call("POST", "/rollouts/shop", {"reason": "x", "plan": {}})).data["code"] == "malformed"
        assert (await side.call("GET", "/rollouts", token=None)).status == 401
        assert (await side.call("GET", "/rollouts/shop?at=1")).data["code"] == "malformed"
        assert (await side.call("GET", "/rollouts/shop/report?format=pdf")).data["code"] == "malformed"
        assert side.stage.orders == side.stage.plans == []


async def test_a_router_without_redis_says_that_a_rollout_needs_one(tmp_path: Path) -> None:
    async with administered(tmp_path) as house:
        assert await house.get("/rollouts", token=VIEWER) == {"rollouts": []}
        for path, body in {"/rollouts/shop": {"plan": PLAN, "reason": "x"}, "/rollouts/shop/rollback": {}}.items():
            answer = await house.call("POST", path, body)
            assert (answer.status, answer.data["code"]) == (503, "not_available")
        assert (await house.call("POST", "/rollouts/other/rollback", {})).data["code"] == "not_found"


async def test_a_session_needs_its_csrf_token_for_an_order() -> None:
    async with admin_side(under_way()) as side:
        login = await side.call("POST", "/login", {"token": OPERATOR}, token=None)
        cookies = [line.partition(";")[0] for line in login.headers.getall("Set-Cookie")]  # type: ignore[attr-defined]
        page = {"Cookie": "; ".join(cookies), "Origin": side.base, "Sec_Fetch_Site": "same-origin"}
        refused = await side.call("POST", "/rollouts/shop/rollback", {}, token=None, **page)
        assert (refused.status, refused.data["code"]) == (403, "csrf")
        assert side.stage.orders == []
        page["X_CSRF_Token"] = login.data["csrf"]
        assert (await side.call("POST", "/rollouts/shop/rollback", {}, token=None, **page)).status == 200
        assert side.stage.orders == [("rollback", "ada", "", "")]


async def test_news_of_a_rollout_is_on_the_stream() -> None:
    async with admin_side(None) as side:
        headers = {"Authorization": f"Bearer {VIEWER}"}
        async with side.client.get(f"{side.base}/api/v1/events", headers=headers) as stream:
            assert (await stream.content.readuntil(b"\n\n")).startswith(b"event: snapshot")
            side.stage.becomes(replace(under_way(), headline="canary runs v3"), "canary runs v3 at 1 %")
            event = b""
            while not event.startswith(b"event: change"):
                event = await stream.content.readuntil(b"\n\n")
            said = json.loads(event.partition(b"data: ")[2])
            assert (said["kind"], said["service"], said["sentences"]) == ("rollout", "shop", ["canary runs v3 at 1 %"])
