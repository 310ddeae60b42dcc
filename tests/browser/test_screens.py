"""Each screen in both themes, on a telephone and on a desk: nothing sticks out, nothing is missing. With pictures.

On a stage: every verdict at once, and a fleet with one that is behind. ``RING_ROUTER_SHOTS`` says where pictures go.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import pytest

from tests.browser.invented import refused, shop
from tests.browser.stage import Stage, on_stage
from tests.browser.tab import Tab, needs_browser, tab
from tests.rollout_progress import under_way

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [needs_browser, pytest.mark.asyncio(loop_scope="module")]

THEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
SCREENS: Final = {
    "rings": "Who gets what",
    "rollout": "holding early at 20 %",
    "report": "Who did what",
    "explain": "Tap",
    "backends": "10.0.4.11:8080",
    "config": "In force",
    "audit": "v3 holds in canary since noon",
}


@pytest.mark.parametrize("width", [400, 1400])
async def test_every_screen_opens_in_both_themes(browser: Browser, width: int) -> None:
    async with on_stage(Stage(rollout=under_way())) as (base, link):
        async with tab(browser, base, viewport={"width": width, "height": 900}) as operator:
            await operator.open(link)
            await operator.sees("LIVE")
            for screen, words in SCREENS.items():
                await operator.page.goto(f"{base}/ui/#/{screen}")
                await operator.sees(words)
                if screen == "explain":
                    await operator.page.get_by_label("User").fill("alice")
                    await operator.page.keyboard.press("Enter")
                    await operator.sees("12.87 points to go")
                    await operator.shows("code.path")
                assert await width_of(operator) <= width, screen
                for theme in THEMES:
                    await operator.page.emulate_media(color_scheme=theme)
                    assert (await darkness_of(operator) > 192) is (theme == "dark"), theme
                    await operator.shot(f"{screen}-{theme}-{width}", whole=width < 720)


async def darkness_of(opened: Tab) -> float:
    """Of the background: 0 white, 255 black."""
    colour = await opened.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    return 255 - max(float(one) for one in colour.partition("(")[2].rstrip(")").split(","))


async def width_of(opened: Tab) -> int:
    return int(await opened.page.evaluate("() => document.documentElement.scrollWidth"))


async def test_the_picture_says_in_words_what_it_shows(browser: Browser) -> None:
    stage = Stage()
    async with on_stage(stage) as (base, _), tab(browser, base) as viewer:
        await viewer.open()
        rings = await viewer.shows("svg.rings")
        said = await rings.locator("desc").text_content()
        assert said is not None
        assert "canary: target 5 %, 5 % of the requests, v3, within limits" in said
        assert "beta: target 2 %, 2 % of the requests, v4, breached" in said
        await viewer.sees("17 of 18 instances route by rev 42")
        await viewer.sees("edge-07:8080")
        await viewer.page.get_by_role("row").filter(has_text="beta").hover()
        await viewer.shows("g.ring.lit[data-ring=beta]")
        # A verdict that changes is told to those who listen.
        now = [msgspec.structs.replace(one, verdict="within") if one.ring == "beta" else one for one in shop().rings]
        stage.service = msgspec.structs.replace(shop(), rings=now)
        await viewer.until("document.getElementById('announce').textContent === 'shop/beta: within limits'")


async def test_no_traffic_is_not_a_rate_of_nothing(browser: Browser) -> None:
    rings = []
    for ring in shop().rings:
        quiet = msgspec.structs.replace(
            ring.versions[0], requests=0, rps=0.0, share=None, codes={}, reasons={}, success=None, p50=None, p95=None,
            p99=None, differences=[], verdict="no_data",
        )  # fmt: skip
        rings.append(msgspec.structs.replace(ring, versions=[quiet], rps=0.0, actual=None, verdict="no_data"))
    quiet_shop = msgspec.structs.replace(shop(), rings=rings, rps=0.0, verdict="no_data")
    async with on_stage(Stage(service=quiet_shop)) as (base, _), tab(browser, base) as viewer:
        await viewer.open()
        await viewer.sees("No traffic yet.")
        row = viewer.page.get_by_role("row").filter(has_text="canary")
        words = (await row.inner_text()).split("\n")
        assert "no traffic" in " ".join(words)
        assert "0 %" not in words
        await viewer.shot("no-traffic")


async def test_of_several_troubles_the_worst_is_said(browser: Browser) -> None:
    stage = Stage(store="down", configured=refused())
    async with on_stage(stage) as (base, _), tab(browser, base) as viewer:
        await viewer.open()
        await viewer.sees(re.compile(r"Redis is unreachable for (1[4-9]|[2-5]\d) s"))  # and it goes on counting
        assert await viewer.page.locator("#banner > span").count() == 1
        stage.store = "live"
        await viewer.sees("The config file has errors")
        await viewer.go("Config")
        await viewer.sees("router.yaml:31:17")
        await viewer.shot("refused")


async def test_the_theme_is_chosen_and_stays(browser: Browser) -> None:
    async with on_stage(Stage()) as (base, _), tab(browser, base, color_scheme="light") as viewer:
        await viewer.open()
        await viewer.sees("LIVE")
        for _ in range(2):
            await viewer.page.locator("[data-do=theme]").click()
        await viewer.until("document.documentElement.dataset.theme === 'dark'")
        await viewer.page.reload()
        await viewer.until("document.documentElement.dataset.theme === 'dark'")
