"""A router whose admin side has an operator and a viewer; and what its Redis holds, to see that nothing moved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from tests.house import fixed, raw_backend
from tests.running import BODY, Router, free_ports, start_router, stop_router
from tests.waiting import until_said

OPERATOR, VIEWER = "ada's token, which is long enough", "the wall's token, which is long enough"
KEYS = tuple(f"rings:{{shop}}:{name}" for name in ("weights", "versions", "control", "audit"))

TOKENS = f"""\
  tokens:
    - {{name: ada, role: operator, sha256: {hashlib.sha256(OPERATOR.encode()).hexdigest()}}}
    - {{name: wall, role: viewer, sha256: {hashlib.sha256(VIEWER.encode()).hexdigest()}}}
"""
CONFIG = """\
listen: 127.0.0.1:{port}
admin:
  listen: 127.0.0.1:{admin}
  hosts: [admin.shop.example]
{tokens}workers: 1
state_dir: {state}
access_log: {{format: "off"}}
{redis}
services:
  shop:
    identity: [{{header: X-User-Id}}, {{cookie: uid}}]
    versions:
      v1: {{endpoints: ["http://127.0.0.1:{v1}"]}}
      v2: {{endpoints: ["http://127.0.0.1:{v2}"]}}
    rings:
      - {{name: canary, version: v2, weight: 5, audience: [{{header: {{name: X-Ring, equals: canary}}}}]}}
      - {{name: early, version: v2, weight: 20}}
      - {{name: everyone, version: v1}}
"""


@dataclass
class Answer:
    """What the admin side said. ``data`` is the JSON, None where it was none."""

    status: int
    data: Any
    headers: Mapping[str, str]
    text: str


@dataclass
class House:
    """A running router and a client of its admin side."""

    router: Router
    client: aiohttp.ClientSession
    v2: int

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.router.admin}"

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = OPERATOR, **more: Any
    ) -> Answer:
        """One request below /api/v1 (or elsewhere: a path of /live, /ui …). ``body`` is sent as JSON."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= more.pop("headers", {})
        where = path if path.startswith(("/live", "/ready", "/metrics", "/ui", "/api")) else f"/api/v1{path}"
        if body is not None:
            more["data"] = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        async with self.client.request(
            method, self.base + where, headers=headers, allow_redirects=False, **more
        ) as response:
            text = await response.text()
            is_json = "json" in response.headers.get("Content-Type", "")
            return Answer(response.status, json.loads(text) if is_json else None, response.headers, text)

    async def get(self, path: str, **more: Any) -> Any:
        """The JSON of a read that succeeds."""
        answer = await self.call("GET", path, **more)
        assert answer.status == 200, answer
        return answer.data

    async def write(self, path: str, *, token: str | None = OPERATOR, **body: Any) -> Answer:
        """One lever, with whatever revision there is unless it is given."""
        wanted = {"service": "shop", "expected_rev": "*", "reason": "a test", **body}
        return await self.call("POST", path, wanted, token=token)

    async def rev(self) -> str:
        rev: str = (await self.get("/state"))["services"]["shop"]["rev"]
        return rev


async def held(redis: Redis) -> dict[str, Any]:
    """Everything that a write could change."""
    found: dict[str, Any] = {}
    for key in KEYS:
        kind = await redis.type(key)
        found[key] = await (redis.xrange(key) if kind == b"stream" else redis.hgetall(key))
    return found


@asynccontextmanager
async def administered(
    directory: Path, redis: str = "", *, tokens: str = TOKENS, address: str = "127.0.0.1"
) -> AsyncIterator[House]:
    """A router with one worker; ready when the block begins, gone by pid when it ends."""
    async with AsyncExitStack() as house:
        v1 = await house.enter_async_context(raw_backend(fixed(BODY % b"v1")))
        v2 = await house.enter_async_context(raw_backend(fixed(BODY % b"v2")))
        port, admin = free_ports(2)
        config = directory / "router.yaml"
        text = CONFIG.format(
            port=port, admin=admin, state=directory / "state", v1=v1, v2=v2, tokens=tokens,
            redis=f"redis: {redis}" if redis else "",
        )  # fmt: skip
        text = text.replace(f"listen: 127.0.0.1:{admin}", f"listen: {address}:{admin}")
        (directory / "state").mkdir(exist_ok=True)
        config.write_text(text)
        router = start_router(config, port, admin, directory / "router.log")
        router.token = OPERATOR if tokens else ""
        try:
            await until_said(router.is_ready, within=60)
            # A connection each: what one hostile request has done to its own must not meet the next one.
            connector = aiohttp.TCPConnector(force_close=True)
            session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
            client = await house.enter_async_context(session)
            yield House(router, client, v2)
        finally:
            await stop_router(router)
