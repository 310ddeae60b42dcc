"""Who looks at the dashboard sees what happens, as text, and has nothing in their hands."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.admin import VIEWER, House
from tests.browser.tab import Cable, Tab, needs_browser, tab
from tests.redis_fixture import CONTROL, WEIGHTS, Server
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [needs_browser, pytest.mark.asyncio(loop_scope="module")]

SCREENS = ("Rings", "Rollout", "Report", "Explain & Tap", "Backends", "Config", "Audit")
HOSTILE = "/<img/src=x/onerror=alert(1)>"


async def nothing_acts(viewer: Tab) -> None:
    for screen in SCREENS:
        await viewer.go(screen)
        await viewer.shows(".card")
        assert await viewer.page.locator("[data-act], [role=slider], [data-weight]").count() == 0, screen


async def test_what_is_typed_into_redis_is_seen(browser: Browser, house: House, redis: Server) -> None:
    async with tab(browser, house.base) as viewer:
        await viewer.log_in(VIEWER)
        await viewer.sees("No traffic yet.")
        await viewer.sees(f"curl -i http://127.0.0.1:{house.router.port}/")
        redis.redis_cli("HSET", WEIGHTS, "canary", "33")
        await viewer.sees("33 % target")
        await viewer.sees("canary 5 → 33 percent")
        redis.redis_cli("HSET", CONTROL, "freeze", "the holidays", "kill", "canary")
        await viewer.sees("the holidays: widening is refused")
        await viewer.sees("killed · no data")
        await house.router.ring_of("victor")
        await viewer.misses("No traffic yet.")


async def test_a_viewer_has_nothing_that_acts(browser: Browser, house: House) -> None:
    async with tab(browser, house.base, excused=("401",)) as viewer:
        await viewer.log_in(VIEWER)
        await nothing_acts(viewer)
        await viewer.page.locator(".chip", has_text="viewer").click()
        await viewer.page.get_by_label("Token").fill("a token of nobody at all")
        await viewer.page.get_by_role("button", name="Log in").click()
        await viewer.sees("This is nobody's token.")


async def test_a_lost_stream_is_said_and_comes_back_by_itself(browser: Browser, house: House) -> None:
    async with Cable(house.router.admin).laid() as cable:
        async with tab(browser, cable.base, excused=("ERR_", "Failed to load")) as viewer:
            await viewer.log_in(VIEWER)
            cable.cut()
            await viewer.sees("The stream is lost")
            await viewer.until("document.body.classList.contains('stale')")
            await viewer.sees("STALE")
            await viewer.shot("stream-lost")
            await house.write("/weights", weights={"canary": 41})
            cable.mend()
            await viewer.sees("41 % target")
            await viewer.sees("LIVE")
            await viewer.misses("The stream is lost")


async def test_a_hostile_path_is_text_in_the_tap_and_a_request_is_explained(browser: Browser, house: House) -> None:
    async with tab(browser, house.base) as viewer:
        await viewer.log_in(VIEWER)
        await viewer.go("Explain & Tap")
        await viewer.sees("Listening.")

        async def is_seen() -> bool:
            await send(house, HOSTILE)
            return await viewer.page.locator("code.path", has_text=HOSTILE).count() > 0

        await until(is_seen)
        assert await viewer.page.locator("main img").count() == 0
        await viewer.page.locator("[data-seen]").first.click()
        await viewer.sees("nobody is known, so there is nothing to hash")
        await viewer.page.get_by_label("User").fill("alice")
        await viewer.page.get_by_label("Headers").fill("X-Ring: canary")
        await viewer.page.get_by_role("button", name="Explain").first.click()
        await viewer.sees("Something before the hash decided.")
        assert "decided" in await viewer.page.locator(".steps li", has_text="X-Ring").first.inner_text()


async def send(house: House, path: str) -> None:
    """As no client library would."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.router.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_config_file_with_errors_is_on_every_screen_and_its_errors_on_one(
    browser: Browser, house: House
) -> None:
    config = house.router.config
    whole = config.read_text()
    async with tab(browser, house.base) as viewer:
        await viewer.log_in(VIEWER)
        config.write_text(whole.replace("weight: 20", "weight: 2000"))
        try:
            await viewer.sees("The config file has errors")
            await viewer.page.get_by_role("link", name="Show them").click()
            await viewer.sees("router.yaml:")
            await viewer.sees("weight: 2000")
        finally:
            config.write_text(whole)
        await viewer.misses("The config file has errors")


async def test_the_keys(browser: Browser, house: House) -> None:
    async with tab(browser, house.base) as viewer:
        await viewer.log_in(VIEWER)
        keys = viewer.page.keyboard
        for key, title in enumerate(SCREENS, 1):
            await keys.press(str(key))
            await viewer.until(f"document.title.startsWith({title!r})")
        await keys.press("/")
        await keys.type("3p?")
        await viewer.sees("No change has that.")
        await keys.press("Escape")
        await keys.press("g")
        await keys.type("ear")
        await keys.press("Enter")
        await viewer.until("location.hash === '#/rings/shop/early'")
        await viewer.shows("tr.chosen")
        await keys.press("p")
        await viewer.sees("PAUSED")
        await keys.press("p")
        await viewer.sees("LIVE")
        await keys.press("?")
        await viewer.sees("Keys and words")
        await keys.press("Escape")
        await viewer.misses("Keys and words")


async def test_redis_away_is_said_and_how_old_everything_is(browser: Browser, house: House, redis: Server) -> None:
    async with tab(browser, house.base) as viewer:
        await viewer.log_in(VIEWER)
        redis.running.stop()
        try:
            await viewer.sees("Redis is unreachable")
            await viewer.go("Audit")
            await viewer.sees("these are the ones that this instance remembers")
        finally:
            redis.start()
        await viewer.misses("Redis is unreachable")


async def test_a_session_that_a_restart_has_ended_is_asked_for_its_token(browser: Browser, house: House) -> None:
    async with tab(browser, house.base, excused=("ERR_", "Failed to load")) as viewer:
        await viewer.log_in(VIEWER)
        os.kill(house.router.control_pid(), signal.SIGKILL)
        await viewer.page.get_by_label("Token").wait_for(timeout=20_000)
        await viewer.log_in(VIEWER)
