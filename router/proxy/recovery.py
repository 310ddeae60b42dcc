"""Versions and endpoints that are not well: lets time pass for them, and finds out when the unreachable are back.

A user is never the one who finds out: a background connection is, at most twice a second for each endpoint.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from router.core.standing import Standing
from router.proxy.connect import connect
from router.proxy.endpoint import Endpoint
from router.proxy.pool import VersionPool
from router.proxy.upstream import Upstream

if TYPE_CHECKING:
    from router.proxy.plane import DataPlane

TEND_SECONDS: Final = 0.1
PROBE_SECONDS: Final = 0.5
"""Between two attempts, at the least."""
PROBE_SPREAD_SECONDS: Final = 0.3
"""And up to this much more, by chance, so that workers keep no step."""


class Recovery:
    """The troubled of one worker."""

    __slots__ = ("_is_stopped", "_plane", "_timer", "_troubled")

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._troubled: dict[VersionPool, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopped = False

    def watch(self, pool: VersionPool) -> None:
        """Something may have changed there."""
        self._troubled[pool] = None
        if self._timer is None and not self._is_stopped:
            self._timer = self._plane.loop.call_later(TEND_SECONDS, self._tend)

    def stop(self) -> None:
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tend(self) -> None:
        self._timer = None
        now = self._plane.now()
        for pool in tuple(self._troubled):
            if not pool.tend(now):
                del self._troubled[pool]
            for endpoint in pool.endpoints:
                if endpoint.standing is Standing.UNREACHABLE and not endpoint.is_probed:
                    endpoint.is_probed = True
                    self._plane.spawn(self._probe(endpoint), name=f"probe {endpoint.spec.address}")
        if self._troubled and self._timer is None and not self._is_stopped:
            self._timer = self._plane.loop.call_later(TEND_SECONDS, self._tend)

    async def _probe(self, endpoint: Endpoint) -> None:
        try:
            while endpoint.standing is Standing.UNREACHABLE and not endpoint.is_retired:
                await asyncio.sleep(PROBE_SECONDS + PROBE_SPREAD_SECONDS * self._plane.choose(1000) / 1000)
                made = await connect(self._plane, endpoint, endpoint.pool.connect_timeout)
                if isinstance(made, Upstream):
                    made.uses = 1  # nobody has used it, but it will have waited
                    made.rest_in_pool()
        finally:
            endpoint.is_probed = False
