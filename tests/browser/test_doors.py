"""The way in where no token is configured: everybody may look, and one comes by the link."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.admin import House, administered
from tests.browser.tab import needs_browser, tab
from tests.browser.test_onlooker import nothing_acts

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [needs_browser, pytest.mark.asyncio(loop_scope="module")]


async def test_who_comes_by_the_link_is_an_operator_and_everybody_else_may_look(
    browser: Browser, tmp_path: Path
) -> None:
    async with administered(tmp_path, tokens="") as house:
        async with tab(browser, house.base) as reader:
            await reader.open()
            await reader.sees("LIVE")
            await reader.sees("The config file alone decides")
            await nothing_acts(reader)
            await reader.open(link_of(house))
            await reader.sees("operator")
            assert await reader.page.locator("[data-act], [role=slider]").count() == 0
            await reader.go("Config")
            await reader.page.get_by_role("button", name="Read the file now…").click()
            await reader.sees("Nothing would change: it is so already.")


def link_of(house: House) -> str:
    """The path of the one-time link, from the log."""
    return "/ui/login?once=" + house.router.log.read_text().partition("/ui/login?once=")[2].split()[0]
