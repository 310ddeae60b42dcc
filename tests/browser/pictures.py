"""``python -m tests.browser.pictures``: the pictures of the docs, taken anew, in docs/screenshots.

Of the stage, so that they show every verdict and are the same each time but for the clock. Pillow, which the extra
``bench`` brings, makes them a third of the size: a repository keeps every one for ever.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from PIL import Image

from tests.browser.stage import Stage, on_stage
from tests.browser.tab import WHY, Tab, running_browser, tab
from tests.rollout_progress import under_way

PLACE = Path("docs/screenshots")


async def take(page: Tab, name: str) -> None:
    path = await page.shot(name, place=PLACE)
    Image.open(path).quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)


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
            async with on_stage(Stage(rollout=under_way())) as (base, link):
                async with tab(browser, base, color_scheme=theme, viewport={"width": 1400, "height": 1010}) as page:
                    await page.open(link)
                    await page.sees("LIVE")
                    await page.shows("svg.rings")
                    await draft(page)
                    await take(page, f"rings-{theme}")
                    await page.page.keyboard.press("Enter")
                    await page.sees("The same by hand")
                    await take(page, f"review-{theme}")
                    await page.page.keyboard.press("Escape")
                    await page.go("Explain & Tap")
                    await explain(page)
                    await take(page, f"explain-{theme}")
                    await page.go("Rollout")
                    await page.shows(".gauge .curve")
                    await take(page, f"rollout-{theme}")


if __name__ == "__main__":
    if WHY:
        raise SystemExit(WHY)
    asyncio.run(main())
