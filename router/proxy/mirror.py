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
from router.proxy.upstream import Upstream
from router.proxy.wheel import NEVER

if TYPE_CHECKING:
    from router.proxy.lane import Lane
    from router.proxy.plane import DataPlane

_BASIS_POINTS: Final = 10_000


class Mirror:
    """Where the requests of a ring are copied to."""

    __slots__ = ("_lane", "_methods", "_plane", "_spec", "in_flight")

    def __init__(self, plane: DataPlane, spec: MirrorSpec, lane: Lane) -> None:
        self._plane = plane
        self._spec = spec
        self._lane = lane
        self._methods = frozenset(method.encode() for method in spec.methods)
        self.in_flight = 0

    def copy(self, original: Exchange, data: bytes) -> None:
        """Send a copy of a request whose bytes are ``data``, if it is one to be copied."""
        spec, plane, lane = self._spec, self._plane, self._lane
        if original.start.method not in self._methods or original.websocket_key:
            return
        if spec.basis_points < _BASIS_POINTS and plane.choose(_BASIS_POINTS) >= spec.basis_points:
            return
        pool = lane.pool
        endpoint = None
        if original.received <= spec.body_bytes and self.in_flight < spec.in_flight and not pool.is_full:
            endpoint = pool.pick(plane.choose, original.key) if pool.usable else None
        if endpoint is None:
            self.count("dropped")
            return
        said = original.lane.old_request_lines if original.start.is_http10 else original.lane.request_lines
        says = lane.old_request_lines if original.start.is_http10 else lane.request_lines
        self.in_flight += 1
        copied = Copy(self, original, data.replace(said, says, 1))
        upstream = endpoint.reserve.borrow()
        if upstream is None:
            plane.spawn(copied.connect(plane, endpoint), name=f"mirror to {endpoint.spec.address}")
        else:
            copied.go(plane, upstream, endpoint)

    def count(self, word: str) -> None:
        mirrored = self._lane.pool.counters.mirrored
        mirrored[word] = mirrored.get(word, 0) + 1

    @property
    def first_byte(self) -> float:
        return self._lane.pool.first_byte


class Copy(Exchange):
    """A request that no client waits for. Of an exchange it has what a connection to an endpoint asks for."""

    __slots__ = ("_data", "_mirror", "deadline", "looked_at", "slot")

    def __init__(self, mirror: Mirror, original: Exchange, data: bytes) -> None:
        self._mirror = mirror
        self._data = data
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

    async def connect(self, plane: DataPlane, endpoint: Endpoint) -> None:
        """Where no connection was warm. The copy counts as in flight, for its mirror alone, until this is done."""
        made = await connect(plane, endpoint, endpoint.pool.connect_timeout)
        if isinstance(made, Upstream):
            self.go(plane, made, endpoint)
        else:
            self._ends("failed")

    def go(self, plane: DataPlane, upstream: Upstream, endpoint: Endpoint) -> None:
        self.upstream = upstream
        self.deadline = monotonic() + self._mirror.first_byte
        plane.wheel.place(self)
        upstream.begin(self, endpoint, self._data)

    def _ends(self, word: str) -> None:
        if not self.is_finished:
            self.is_finished = True
            self.deadline = NEVER
            self._mirror.in_flight -= 1
            self._mirror.count(word)

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
        if done:
            self._ends("failed" if head.status >= 500 else "answered")

    def more(self, piece: bytes, trailers: bytes, *, done: bool) -> None:
        if done:
            self._ends("answered")

    def upstream_lost(self, upstream: Upstream, kind: str) -> None:
        self.upstream = None
        self._ends("failed")
