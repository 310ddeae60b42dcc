"""``python -m tests.browser.pictures``: the pictures of the docs, taken anew, in docs/screenshots.

Of the stage, so that they show every verdict and are the same each time but for the clock.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.browser.stage import Stage, on_stage
from tests.browser.tab import WHY, Tab, running_browser, tab

PLACE = Path("docs/screenshots")


async def draft(page: Tab) -> None:
    """A border that is being moved."""
    border = page.page.get_by_role("slider", name="Border between early and everyone")
    await border.press("PageUp")
    await page.sees("5 % of users move inward")


async def explain(page: Tab) -> None:
    await page.page.get_by_label("User").fill("alice")
    await page.page.keyboard.press("Enter")
    await page.sees("12.87 points to go")
    await page.shows("code.path")


async def main() -> None:
    async with running_browser() as browser:
        for theme in ("light", "dark"):
            async with on_stage(Stage()) as (base, link):
                async with tab(browser, base, color_scheme=theme, viewport={"width": 1400, "height": 1010}) as page:
                    await page.open(link)
                    await page.sees("LIVE")
                    await page.shows("svg.rings")
                    await draft(page)
                    await page.shot(f"rings-{theme}", place=PLACE)
                    await page.page.keyboard.press("Enter")
                    await page.sees("The same by hand")
                    await page.shot(f"review-{theme}", place=PLACE)
                    await page.page.keyboard.press("Escape")
                    await page.go("Explain & Tap")
                    await explain(page)
                    await page.shot(f"explain-{theme}", place=PLACE)


if __name__ == "__main__":
    if WHY:
        raise SystemExit(WHY)
    asyncio.run(main())
