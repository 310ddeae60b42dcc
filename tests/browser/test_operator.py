"""What an operator does in the dashboard reaches Redis, and says who did it and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis import Redis

from tests.admin import OPERATOR, House
from tests.browser.tab import Tab, needs_browser, tab
from tests.redis_fixture import CONTROL, WEIGHTS, Server
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [needs_browser, pytest.mark.asyncio(loop_scope="module")]


async def apply(operator: Tab, reason: str) -> None:
    """Say why, and do it."""
    dialog = operator.page.get_by_role("dialog")
    await dialog.get_by_label("Reason").fill(reason)
    await dialog.get_by_role("button", name="Apply").click()
    await dialog.wait_for(state="hidden")


def fields(redis: Server, key: str) -> dict[str, str]:
    """What a hash in Redis holds."""
    with Redis.from_url(redis.url, decode_responses=True) as client:
        return client.hgetall(key)


async def test_a_border_is_moved_by_keys(browser: Browser, house: House, redis: Server) -> None:
    async with tab(browser, house.base) as operator:
        await operator.log_in(OPERATOR)
        border = operator.page.get_by_role("slider", name="Border between canary and early")
        await border.focus()
        for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight"):
            await border.press(key)
        assert await border.get_attribute("aria-valuetext") == "canary 7.1 %, early 17.9 %"
        await operator.sees("2.1 % of users move inward, from early to canary")
        await operator.page.keyboard.press("Enter")
        await operator.sees("canary 5 → 7.1 percent")
        await operator.sees("HSET 'rings:{shop}:weights' canary 7.1 early 17.9")
        await apply(operator, "v2 is fine")
        await operator.sees("· rev ")
        held = fields(redis, WEIGHTS)
        assert (held["canary"], held["early"]) == ("7.1", "17.9")
        await until(lambda: house.router.weights()["canary"] == 7.1)
        (newest, *_) = (await house.get("/audit"))["entries"]
        assert (newest["actor"], newest["source"], newest["reason"]) == ("ada", "api", "v2 is fine")


async def test_a_border_is_moved_by_mouse_and_dropped_before_it_is_meant(
    browser: Browser, house: House, redis: Server
) -> None:
    async with tab(browser, house.base) as operator:
        await operator.log_in(OPERATOR)
        before = fields(redis, WEIGHTS)
        bar = await (await operator.shows(".buckets")).bounding_box()
        knob = await operator.page.locator('[data-key="border early"] .knob').bounding_box()
        assert bar is not None
        assert knob is not None
        mouse = operator.page.mouse
        await mouse.move(knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2)
        await mouse.down()
        await mouse.move(bar["x"] + 0.4 * bar["width"], bar["y"] + 10, steps=5)
        await operator.sees("15 % of users move inward, from everyone to early")
        await mouse.up()
        assert fields(redis, WEIGHTS) == before
        await operator.page.get_by_role("button", name="Review change").click()
        await operator.sees("early 20 → 35 percent")
        await operator.page.get_by_role("button", name="Cancel").click()
        assert fields(redis, WEIGHTS) == before
        await operator.page.get_by_role("button", name="Review change").click()
        await apply(operator, "wider")
        assert fields(redis, WEIGHTS)["early"] == "35"
        await operator.page.locator(".draft button").first.wait_for(state="hidden")


async def test_a_reason_is_asked_for(browser: Browser, house: House, redis: Server) -> None:
    async with tab(browser, house.base) as operator:
        await operator.log_in(OPERATOR)
        await operator.page.get_by_role("button", name="Freeze…").click()
        await operator.sees("freeze off → …")
        await operator.page.get_by_role("button", name="Apply").click()
        await operator.until("document.querySelector('dialog textarea').validity.valid === false")
        assert fields(redis, CONTROL).get("freeze", "") == ""


async def test_a_change_over_somebody_elses_is_shown_and_reviewed_again(
    browser: Browser, house: House, redis: Server
) -> None:
    async with tab(browser, house.base, excused=("409",)) as operator:
        await operator.log_in(OPERATOR)
        await operator.page.get_by_label("Weight of early in percent").fill("30")
        await operator.page.keyboard.press("Tab")
        await operator.page.get_by_role("button", name="Review change").click()
        await operator.sees("early 20 → 30 percent")
        redis.redis_cli("HSET", WEIGHTS, "canary", "12")
        await until(lambda: house.router.weights()["canary"] == 12.0)
        await operator.page.get_by_label("Reason").fill("more of it")
        await operator.page.get_by_role("button", name="Apply").click()
        await operator.sees("It was changed meanwhile")
        await operator.sees("canary 5 % → 12 %")
        assert fields(redis, WEIGHTS)["early"] == "20"
        await operator.page.get_by_role("button", name="Review again").click()
        await operator.sees("early 20 → 30 percent")
        await apply(operator, "more of it")
        assert fields(redis, WEIGHTS)["early"] == "30"


async def test_what_the_rules_refuse_is_refused_with_their_words(browser: Browser, house: House) -> None:
    await house.write("/freeze", frozen=True, reason="the holidays")
    async with tab(browser, house.base, excused=("400",)) as operator:
        await operator.log_in(OPERATOR)
        await operator.sees("the holidays: widening is refused.")
        border = operator.page.get_by_role("slider", name="Border between early and everyone")
        await border.press("PageUp")
        await operator.sees("frozen (the holidays)")


async def test_a_button_is_never_turned_into_another(browser: Browser, house: House) -> None:
    """Buttons come and go with every picture: what one is about to press stays what it is, or is gone."""
    async with tab(browser, house.base) as operator:
        await operator.log_in(OPERATOR)
        freeze = await operator.page.get_by_role("button", name="Freeze…", exact=True).element_handle()
        await freeze.focus()
        for rings in (["canary"], ["canary", "early"], ["early"], []):
            await house.write("/kill", rings=rings, reason="a test")
            await operator.page.wait_for_function(
                "wanted => document.querySelectorAll('.hash [data-act=lift]').length === wanted", arg=len(rings)
            )
            assert await freeze.evaluate("one => [one.textContent, one === document.activeElement]") == [
                "Freeze…",
                True,
            ]


async def test_every_lever_has_its_button(browser: Browser, house: House, redis: Server) -> None:
    async with tab(browser, house.base) as operator:
        await operator.log_in(OPERATOR)

        async def press(button: str, said: str) -> None:
            await operator.page.get_by_role("button", name=button, exact=True).first.click()
            await operator.page.get_by_role("dialog").get_by_text(said).first.wait_for()
            await apply(operator, "a test")

        await press("Kill…", "killed none → canary")
        await press("Lift kill…", "killed canary → none")
        await press("Freeze…", "freeze off → …")
        await press("Unfreeze…", "freeze a test → off")
        await press("Version…", "canary runs v2 → v1")
        await press("All to default…", "killed none → canary early")
        await operator.go("Backends")
        await press("Drain…", "drained none")
        await press("Lift drain…", "→ none")
        await operator.go("Config")
        await operator.sees("The file is the config in force.")
        await house.write("/weights", weights={"canary": 2}, reason="<b>a reason</b>")
        await operator.go("Rings")
        await operator.sees("2 % target")
        await operator.go("Audit")
        await operator.sees("<b>a reason</b>")
        await press("Undo…", "canary 2 → 5 percent")
        assert fields(redis, CONTROL) == {"kill": "canary early", "freeze": "", "drain": ""}
