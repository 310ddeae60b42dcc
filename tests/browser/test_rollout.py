"""The screens Rollout and Report, from what a leader has stored: everything is said, and what is ordered arrives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from router.rollout.progress import Progress
from tests.browser.stage import Stage, on_stage
from tests.browser.tab import Tab, needs_browser, tab
from tests.rollout_progress import HOSTILE, just_entered, paused, rolled_back, under_way, waiting_for_approval

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator

pytestmark = [needs_browser, pytest.mark.asyncio(loop_scope="module")]


async def open_rollout(opened: Tab, link: str = "") -> None:
    if link:
        await opened.open(link)
        await opened.sees("LIVE")
    await opened.open("/ui/#/rollout/shop")
    await opened.shows(".rollout .headline")


def button(opened: Tab, name: str) -> Locator:
    return opened.page.get_by_role("button", name=name, exact=True)


async def test_everything_that_is_stored_is_on_the_screen(browser: Browser) -> None:
    async with on_stage(Stage(rollout=under_way())) as (base, _), tab(browser, base) as viewer:
        await open_rollout(viewer)
        for words in (
            "v2 → v3", "proving", "by ada", "“release 2026.11”", "p99 not yet proven (ln E 1.9 of 3.0",
            "Everyone gets v3 when p99 is proven", "http_4xx is uncalibrated: 3 of 64 slices",
            "all 3 instances route by it",
        ):  # fmt: skip
            await viewer.sees(words)
        stages = viewer.page.locator(".pipeline .stage")
        assert [await stages.nth(i).get_attribute("class") for i in range(5)] == [
            "stage done", "stage done", "stage current proving", "stage ahead", "stage ahead",
        ]  # fmt: skip
        here = await viewer.page.locator("[aria-current=step]").inner_text()
        for words in ("early", "gets v3 at 20 %, 50 % held back", "412 of 1,000 users", "1 of 2 approvals: grace"):
            assert words in here
        errors = viewer.page.locator("article[data-key=errors]")
        said = " ".join((await errors.inner_text()).split())
        assert "v2 0.06 % (820 k) v3 0.07 % (41 k) +0.01 pp [−0.05, +0.09]" in said
        assert "within limits" in said
        assert "ln E 3.8 of 3.0 ✓" in said
        assert await errors.locator(".curve .marker").count() == 3
        assert "did not answer within 2 s" in await viewer.page.locator("article[data-key=orders]").inner_text()
        assert await viewer.page.locator("[data-act]").count() == 0


async def test_a_band_as_wide_as_the_world_runs_out_of_the_picture_and_the_limit_stays(browser: Browser) -> None:
    async with on_stage(Stage(rollout=just_entered())) as (base, _), tab(browser, base) as viewer:
        await open_rollout(viewer)
        errors = viewer.page.locator("article[data-key=errors]")
        assert await errors.locator(".axis.limit").text_content() == "+0.11"
        limit = float(await errors.locator(".plot .limit").get_attribute("y1") or "nan")
        zero = float(await errors.locator(".plot .zero").get_attribute("y1") or "nan")
        assert 0 < limit < zero < 100


async def test_figures_instead_of_a_curve_and_only_what_people_did(browser: Browser) -> None:
    async with on_stage(Stage(rollout=under_way())) as (base, _), tab(browser, base) as viewer:
        await open_rollout(viewer)
        p99 = viewer.page.locator("article[data-key=p99]")
        await p99.get_by_role("button", name="Table").press("Enter")
        await p99.get_by_role("table").wait_for()
        assert await p99.get_by_role("row").count() == 13
        await p99.get_by_role("button", name="Curve").press("Enter")
        await viewer.shows("article[data-key=p99] .curve")
        lines = viewer.page.locator(".timeline li")
        assert await lines.count() == 9
        await button(viewer, "By people").click()
        await viewer.until("document.querySelectorAll('.timeline li').length === 4")
        assert HOSTILE in await lines.nth(1).inner_text()
        assert await viewer.page.locator("main img").count() == 0


async def test_rolling_back_is_one_click_and_one_more(browser: Browser) -> None:
    stage = Stage(rollout=under_way())
    async with on_stage(stage) as (base, link), tab(browser, base) as operator:
        await open_rollout(operator, link)
        await button(operator, "Roll back").click()
        await operator.sees("nobody has v3 any more")
        await button(operator, "Cancel").click()
        await operator.page.get_by_role("dialog").wait_for(state="hidden")
        assert stage.orders == []
        await button(operator, "Roll back").click()
        await button(operator, "Roll back now").click()
        await operator.page.get_by_role("dialog").wait_for(state="hidden")
        assert stage.orders == [("rollback", "link", "", "")]
        # And without a mouse: the button, and the one that has the focus already.
        await button(operator, "Roll back").press("Enter")
        await operator.page.get_by_role("dialog").wait_for()
        await operator.page.keyboard.press("Enter")
        await operator.page.get_by_role("dialog").wait_for(state="hidden")
        assert stage.orders[1:] == [("rollback", "link", "", "")]


async def test_a_pause_by_override_is_resumed_in_one_of_two_ways(browser: Browser) -> None:
    stage = Stage(rollout=paused())
    async with on_stage(stage) as (base, link), tab(browser, base) as operator:
        await open_rollout(operator, link)
        await operator.sees("paused: override")
        await button(operator, "Resume").click()
        dialog = operator.page.get_by_role("dialog")
        await dialog.get_by_label("How").select_option(label="Put the plan's weights back")
        await dialog.get_by_role("button", name="Resume").click()
        await operator.until("document.querySelector('dialog textarea').validity.valid === false")
        assert stage.orders == []
        await dialog.get_by_label("Reason").fill("it was a slip")
        await dialog.get_by_role("button", name="Resume").click()
        await dialog.wait_for(state="hidden")
        assert stage.orders == [("resume", "link", "it was a slip", "restore")]


async def test_past_an_undecided_verdict_the_ring_is_typed(browser: Browser) -> None:
    stage = Stage(rollout=under_way())
    async with on_stage(stage) as (base, link), tab(browser, base) as operator:
        await open_rollout(operator, link)
        await button(operator, "Promote").click()
        dialog = operator.page.get_by_role("dialog")
        await dialog.get_by_label("Reason").fill("the data come next week")
        await dialog.get_by_label("Type early").fill("canary")
        await dialog.get_by_role("button", name="Promote").click()
        await operator.until("document.querySelector('dialog input').validity.valid === false")
        assert stage.orders == []
        await dialog.get_by_label("Type early").fill("early")
        await dialog.get_by_role("button", name="Promote").click()
        await dialog.wait_for(state="hidden")
        assert stage.orders == [("promote", "link", "the data come next week", "")]


async def test_a_yes_and_a_pause_reach_the_lever_and_a_refusal_is_said(browser: Browser) -> None:
    stage = Stage(rollout=waiting_for_approval())
    async with on_stage(stage) as (base, link), tab(browser, base, excused=("409",)) as operator:
        await open_rollout(operator, link)
        assert await button(operator, "Promote").count() == 0
        for verb in ("Approve", "Pause"):
            await button(operator, verb).click()
            dialog = operator.page.get_by_role("dialog")
            await dialog.get_by_label("Reason").fill("yes")
            await dialog.get_by_role("button", name=verb).click()
            await dialog.wait_for(state="hidden")
        assert [order[0] for order in stage.orders] == ["approve", "pause"]
        stage.refusal, stage.rollout = "It is rolling back already.", rolled_back()
        await button(operator, "Roll back").click()
        await button(operator, "Roll back now").click()
        await operator.sees("It is rolling back already.")
        await button(operator, "Cancel").click()
        await operator.sees("v3 was rolled back from early")
        assert await operator.page.locator("[data-act]").count() == 0


async def test_what_changes_is_seen_and_told_at_once(browser: Browser) -> None:
    stage = Stage()
    async with on_stage(stage) as (base, _), tab(browser, base) as viewer:
        await viewer.open("/ui/#/rollout")
        await viewer.sees("No rollout of shop yet.")
        await viewer.sees("ring-router rollout start plan.yaml")
        first = under_way()
        stage.becomes(first, "v2 → v3: canary runs v3 at 1 %")
        await viewer.sees("holding early at 20 %")
        stage.becomes(replace(first, phase="rolling_back", headline="going back to v2"))
        await viewer.sees("Rollback of shop in progress: v3 → v2")
        await viewer.until("document.getElementById('announce').textContent.includes('shop v3: rolling back')")
        stage.becomes(rolled_back(first.at))
        await viewer.misses("Rollback of shop in progress")
        await viewer.until("document.getElementById('announce').textContent.includes('errors: breached')")
        await viewer.go("Rings")
        await viewer.sees("v2 → v3: canary runs v3 at 1 %")


async def test_the_report_is_read_printed_and_kept(browser: Browser, tmp_path: Path) -> None:
    stored = rolled_back()
    async with on_stage(Stage(rollout=stored)) as (base, _), tab(browser, base) as viewer:
        await viewer.open("/ui/#/report/shop")
        await viewer.sees("v3 was rolled back: errors: worse than tolerated (ln E 9.4 of 6.2).")
        await viewer.sees("37 users met a failure, in 118 requests")
        row = viewer.page.get_by_role("table", name="Metrics").get_by_role("row").filter(has_text="errors").first
        assert "+0.55 pp" in await row.inner_text()
        await viewer.sees("ring-router rollout report shop --verify")
        assert await viewer.page.locator(".timeline li").count() == 4
        for name in ("JSON", "Markdown"):
            async with viewer.page.expect_download() as kept:
                await viewer.page.get_by_role("link", name=name).click()
            await (await kept.value).save_as(tmp_path / name)
        assert Progress(**json.loads((tmp_path / "JSON").read_text())["progress"]).id == stored.id
        assert (tmp_path / "Markdown").read_text().startswith("# shop: v2 → v3\n")
        await viewer.page.emulate_media(media="print", color_scheme="dark")
        assert not await viewer.page.locator("#top").is_visible()
        assert await viewer.page.evaluate("() => getComputedStyle(document.body).colorScheme") == "light"
        await viewer.shot("report-print", whole=True)
