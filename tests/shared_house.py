"""One router and one Redis for all stories of a file, which leave no process changed; each finds both as they were.

A router takes two seconds of a processor to start, and a file of stories about its admin side would start it a dozen
times. Stories that share it are marked with ``ONE_LOOP``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from router.control.link import make_client
from router.control.redis_server import launch
from tests.admin import House, administered
from tests.redis_fixture import Server
from tests.running import free_ports
from tests.waiting import until

ONE_LOOP = pytest.mark.asyncio(loop_scope="module")


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
async def client(redis: Server) -> AsyncIterator[Redis]:
    found = make_client(redis.url)
    yield found
    await found.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def house(router: House) -> House:
    """With the weights of its file, nothing killed, nothing frozen, and nobody who listens."""
    for path, body in {
        "/weights": {"reset": True}, "/kill": {"rings": []}, "/freeze": {"frozen": False},
        "/versions": {"versions": {"canary": None, "early": None}},
    }.items():  # fmt: skip
        done = await router.write(path, reason="the next story", **body)
        assert done.status == 200, done

    async def is_seen() -> bool:
        is_alone = router.router.metric(r"ringrouter_sse_clients") == 0  # the last story's streams have ended
        return is_alone and await router.rev() == done.data["rev"]

    await until(is_seen)
    assert router.router.weights() == {"canary": 5.0, "early": 20.0, "everyone": 75.0}
    return router
