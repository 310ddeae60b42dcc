"""A tab of a real browser (Debian's chromium) with the dashboard in it, and a cable that can be pulled out.

Whatever a page may not do fails the test at its end: an error in the console, a violation of its policy, a request to
somewhere else.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from router.telemetry.tasks import end, spawn

try:
    from playwright.async_api import Browser, Locator, Page, async_playwright
except ImportError:
    WHY = "playwright is not installed: pip install playwright (no browser of its own is needed)"
else:
    WHY = "" if shutil.which("chromium") else "chromium is not installed: apt-get install chromium"

needs_browser = pytest.mark.skipif(bool(WHY), reason=WHY)
# Where the stories put what the screens looked like.
SHOTS = Path(os.environ.get("RING_ROUTER_SHOTS", "build/screenshots"))
WAIT_MS = 30_000


@dataclass
class Tab:
    """One page, and everything that it should not have said or done."""

    page: Page
    base: str
    faults: list[str] = field(default_factory=list)
    excused: tuple[str, ...] = ()
    """Parts of what a story brings about on purpose, such as a lost connection."""

    async def open(self, path: str = "/ui/") -> None:
        await self.page.goto(self.base + path)

    async def log_in(self, token: str) -> None:
        await self.open()
        await self.page.get_by_label("Token").fill(token)
        await self.page.get_by_role("button", name="Log in").click()
        await self.sees("LIVE")

    async def go(self, screen: str) -> None:
        """By its link in the bar."""
        await self.page.get_by_role("link", name=screen, exact=True).click()

    def text(self, words: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_text(words).first

    async def sees(self, words: str | re.Pattern[str]) -> None:
        await self.text(words).wait_for(timeout=WAIT_MS)

    async def misses(self, words: str) -> None:
        await self.text(words).wait_for(state="hidden", timeout=WAIT_MS)

    async def shows(self, selector: str) -> Locator:
        found = self.page.locator(selector).first
        await found.wait_for(timeout=WAIT_MS)
        return found

    async def until(self, expression: str) -> None:
        """Until this is true in the page."""
        # By frames, not by a timer; and as a function: a string would be evaluated, which the page's policy forbids.
        await self.page.wait_for_function(f"() => {expression}", timeout=WAIT_MS)

    async def shot(self, name: str, *, whole: bool = False, place: Path = SHOTS) -> Path:
        """A picture for people; the directory is made."""
        path = place / f"{name}.png"
        await self.page.screenshot(path=path, full_page=whole, animations="disabled")
        return path

    def watch(self) -> None:
        page = self.page
        page.on(
            "console", lambda said: self.note(f"console {said.type}: {said.text}", said.type in ("error", "warning"))
        )
        page.on("pageerror", lambda error: self.note(f"error: {error}"))
        page.on("request", lambda asked: self.note(f"off origin: {asked.url}", self._is_elsewhere(asked.url)))

    def _is_elsewhere(self, url: str) -> bool:
        return urlsplit(url).scheme != "data" and not url.startswith(self.base + "/")

    def note(self, fault: str, is_one: bool = True) -> None:
        if is_one and not any(part in fault for part in self.excused):
            self.faults.append(fault)


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--no-proxy-server", "--disable-lcd-text"]
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def tab(browser: Browser, base: str, *, excused: tuple[str, ...] = (), **context: Any) -> AsyncIterator[Tab]:
    """A tab of nobody: no cookie, nothing stored. ``context`` is what Playwright takes: viewport, color_scheme …"""
    context = {"viewport": {"width": 1400, "height": 900}, "reduced_motion": "reduce", **context}
    room = await browser.new_context(**context)
    room.set_default_timeout(WAIT_MS)
    page = await room.new_page()
    opened = Tab(page, base, excused=excused)
    # Violations are events of the page too: what it tried in a worker or a frame is in no console of its own.
    await page.add_init_script(
        "document.addEventListener('securitypolicyviolation', e => console.error('policy', e.violatedDirective))"
    )
    opened.watch()
    try:
        yield opened
    finally:
        await room.close()
    assert not opened.faults, opened.faults


class Cable:
    """A piece of network between the browser and the admin side, which can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self.base = ""

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, there_writer}
        back = spawn(_pump(there_reader, writer), name="back")
        await _pump(reader, there_writer)
        await end(back)
        self._writers -= {writer, there_writer}

    def cut(self) -> None:
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._is_cut = False

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[Cable]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()
