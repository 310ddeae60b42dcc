"""Envoy's admin side, asked over HTTP: what it counts, how its endpoints are, which files it has taken in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import msgspec

from router.envoy.stats import LOOKED_AT, Reading, read
from router.envoy.upstreams import Upstream, read_upstreams
from router.telemetry.counters import EndpointKey

TIMEOUT: Final = aiohttp.ClientTimeout(total=2.0)
WARMING: Final = ("cluster_manager.warming_clusters", "listener_manager.total_listeners_warming")
"""Gauges of what Envoy has taken in and does not use yet."""
IN_FORCE: Final = r"\.(version_text|update_rejected|warming_clusters|total_listeners_warming)$|^server\.uptime$"


class AwayError(Exception):
    """It does not answer, or not as Envoy does; the text says why."""


class Admin:
    """One Envoy; ``address`` is ``host:port``."""

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self.address = address
        self._session = session

    async def look(self) -> Reading:
        """All figures. Raises AwayError."""
        query = {"format": "json", "histogram_buckets": "detailed", "filter": LOOKED_AT}
        return _reading(await self._get("/stats", query))

    async def in_force(self) -> Reading:
        """Only what it routes by. Raises AwayError."""
        return _reading(await self._get("/stats", {"format": "json", "filter": IN_FORCE}))

    async def upstreams(self) -> dict[EndpointKey, Upstream]:
        """How endpoints are. Raises AwayError."""
        try:
            return read_upstreams(await self._get("/clusters", {"format": "json"}))
        except ValueError as error:
            raise AwayError(str(error)) from None

    async def reasons(self) -> list[str]:
        """Why listeners were refused: of all that Envoy refuses, the only thing that its admin side keeps."""
        data = await self._get("/config_dump", {"resource": "dynamic_listeners"})
        try:
            configs = msgspec.json.decode(data).get("configs", ())
            return [one["error_state"]["details"] for one in configs if one.get("error_state")]
        except (msgspec.DecodeError, KeyError, AttributeError):
            return []

    async def _get(self, path: str, query: Mapping[str, Any]) -> bytes:
        try:
            async with self._session.get(f"http://{self.address}{path}", params=query) as answer:
                data = await answer.read()
        except TimeoutError:
            raise AwayError(f"no answer within {TIMEOUT.total:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise AwayError(str(error) or repr(error)) from None
        if answer.status != 200:
            raise AwayError(f"{path} has status {answer.status}")
        return data


def _reading(data: bytes) -> Reading:
    try:
        return read(data, time.time())
    except msgspec.DecodeError as error:
        raise AwayError(f"not what Envoy says of itself: {error}") from None
