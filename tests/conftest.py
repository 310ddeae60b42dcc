"""Every asynchronous test runs on uvloop, as the router does; Redis and the state directory are real."""

from __future__ import annotations

import asyncio
import os

import pytest
import uvloop
from hypothesis import settings

from router.proxy import heads
from tests.redis_fixture import redis_client, redis_server, state_dir
from tests.shared_house import client, house, redis, router

__all__ = ["client", "house", "redis", "redis_client", "redis_server", "router", "state_dir"]


# `make test` says the same of the same code, however busy the machine is; `make test-slow` hunts, with other examples
# each time.
settings.register_profile("steady", derandomize=True, deadline=None)
if "RING_ROUTER_EXAMPLES" not in os.environ:
    settings.load_profile("steady")

if os.environ.get("RING_ROUTER_TESTS") == "compiled":
    assert not heads.__file__.endswith(".py"), f"this is not the native code: {heads.__file__}"


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()
