"""Every asynchronous test runs on uvloop, as the router does; Redis and the state directory are real."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from tests.redis_fixture import redis_client, redis_server, state_dir

__all__ = ["redis_client", "redis_server", "state_dir"]


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()
