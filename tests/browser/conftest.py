"""One browser for all stories of a file, and one router (``shared_house``); each story has a tab of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.browser.tab import WHY, running_browser

if TYPE_CHECKING:
    from playwright.async_api import Browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    if WHY:
        pytest.skip(WHY)
    async with running_browser() as found:
        yield found
