"""Copies of requests for another version: what it answers is read and thrown away.

A copy never makes the original wait, and never fails it: it is sent after it, only when it is whole, only while there
is room, and it ends by itself.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from router.core.spec import MirrorSpec
from router.proxy.connect import connect
from router.proxy.endpoint import Endpoint
from router.proxy.exchange import Exchange
from router.proxy.heads import ResponseHead
from router.proxy.pool import VersionPool
from router.proxy.upstream import Upstream
from router.proxy.wheel import NEVER

if TYPE_CHECKING:
    from router.proxy.lane import Lane
    from router.proxy.plane import DataPlane

_BASIS_POINTS: Final = 10_000
_OFF_THE_WHEEL: Final = -2
"""Not -1: the wheel puts back whom it has just looked at and finds without a slot."""


class Mirror:
    """Where the requests of a ring are copied to."""

    __slots__ = ("_lane", "_methods", "_plane", "_spec")

    def __init__(self, plane: DataPlane, spec: MirrorSpec, lane: Lane) -> None:
        self._plane = plane
        self._spec = spec
        self._lane = lane
        self._methods = frozenset(method.encode() for method in spec.methods)

    @property
    def version(self) -> str:
        return self._lane.version

    def wants(self, original: Exchange) -> bool:
        """Whether a request that is still coming in may be one to be copied."""
        return original.start.method in self._methods and original.received <= self._spec.body_bytes

    def copy(self, original: Exchange, data: bytes | None) -> None:
        """Send a copy of a request whose bytes are ``data``, if it is one to be copied; None if they were not kept."""
        spec, plane, lane = self._spec, self._plane, self._lane
        if original.start.method not in self._methods or original.websocket_key:
            return
        if spec.basis_points < _BASIS_POINTS and plane.choose(_BASIS_POINTS) >= spec.basis_points:
            return
        pool = lane.pool
        endpoint = None
        if original.received <= spec.body_bytes and pool.copies < spec.in_flight and not pool.is_full:
            endpoint = pool.pick(plane.choose, original.key) if pool.usable else None
        if endpoint is None or data is None:
            _count(pool, "dropped")
            return
        said = original.lane.old_request_lines if original.start.is_http10 else original.lane.request_lines
        says = lane.old_request_lines if original.start.is_http10 else lane.request_lines
        copied = Copy(plane, pool, original, data.replace(said, says, 1))
        upstream = endpoint.reserve.borrow()
        if upstream is None:
            plane.spawn(copied.connect(endpoint), name=f"mirror to {endpoint.spec.address}")
        else:
            copied.go(upstream, endpoint)


def _count(pool: VersionPool, word: str) -> None:
    pool.counters.mirrored[word] = pool.counters.mirrored.get(word, 0) + 1


class Copy(Exchange):
    """A request that no client waits for. Of an exchange it has what a connection to an endpoint asks for."""

    __slots__ = ("_answer", "_data", "_plane", "_pool", "deadline", "looked_at", "slot")

    def __init__(self, plane: DataPlane, pool: VersionPool, original: Exchange, data: bytes) -> None:
        self._plane = plane
        self._pool = pool
        self._data = data
        self._answer = 0
        pool.copies += 1
        self.start = original.start
        self.websocket_key = b""
        self.is_request_complete = True
        self.is_request_sent = True
        self.is_finished = False
        self.upstream: Upstream | None = None
        self.deadline = NEVER
        self.slot = -1
        self.looked_at = NEVER

    def __repr__(self) -> str:
        return f"<Copy {self.start.line!r}>"

    async def connect(self, endpoint: Endpoint) -> None:
        """Where no connection was warm. The copy counts as one of ``copies`` alone until this is done."""
        made = await connect(self._plane, endpoint, endpoint.pool.connect_timeout)
        if isinstance(made, Upstream):
            self.go(made, endpoint)
        else:
            self._ends("failed")

    def go(self, upstream: Upstream, endpoint: Endpoint) -> None:
        self.upstream = upstream
        self.deadline = monotonic() + self._pool.first_byte
        self._plane.wheel.place(self)
        upstream.begin(self, endpoint, self._data)

    def _ends(self, word: str) -> None:
        if not self.is_finished:
            self.is_finished = True
            self.deadline = NEVER
            self._plane.wheel.remove(self)
            self.slot = _OFF_THE_WHEEL
            self._pool.copies -= 1
            _count(self._pool, word)

    def on_deadline(self, now: float) -> None:
        """It takes too long."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.close()
        self._ends("failed")

    # -- what a connection to an endpoint says -------------------------------------------------------------------------

    def may_be_unsent(self) -> bool:
        return True

    def pause_upload(self) -> None:
        """It is all sent already."""

    def resume_upload(self) -> None:
        """It is all sent already."""

    def interim(self, head: ResponseHead) -> None:
        """Nobody waits for it."""

    def open_tunnel(self, head: ResponseHead, piece: bytes) -> None:
        """Never asked for."""

    def respond(self, head: ResponseHead, piece: bytes, trailers: bytes, done: bool) -> None:
        self._answer = head.status
        if done:
            self._ends("failed" if head.status >= 500 else "answered")

    def more(self, piece: bytes, trailers: bytes, *, done: bool) -> None:
        if done:
            self._ends("failed" if self._answer >= 500 else "answered")

    def upstream_lost(self, upstream: Upstream, kind: str) -> None:
        self.upstream = None
        self._ends("failed")
