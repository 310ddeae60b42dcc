"""One browser and one router for all stories of a file; each has a tab of its own, and finds the router as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from router.control.redis_server import launch
from tests.admin import House, administered
from tests.browser.tab import WHY, running_browser
from tests.redis_fixture import Server
from tests.running import free_ports
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.async_api import Browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    if WHY:
        pytest.skip(WHY)
    async with running_browser() as found:
        yield found


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    (port,), directory = free_ports(1), tmp_path_factory.mktemp("redis")
    server = Server(port, directory, launch(port, directory))
    try:
        yield server
    finally:
        server.running.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def router(redis: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with administered(tmp_path_factory.mktemp("router"), redis.url) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def house(router: House) -> House:
    """With the weights of its file, nothing killed and nothing frozen."""
    for path, body in {
        "/weights": {"reset": True}, "/kill": {"rings": []}, "/freeze": {"frozen": False},
        "/versions": {"versions": {"canary": None, "early": None}},
    }.items():  # fmt: skip
        assert (await router.write(path, reason="the next story", **body)).status == 200
    await until(lambda: router.router.weights() == {"canary": 5.0, "early": 20.0, "everyone": 75.0})
    return router
