"""Bytes both ways after a 101, as they are. Frames are counted, not read, so that a farewell can stand between two."""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING, Final

from router.proxy.heads import ResponseHead, replace_field
from router.proxy.upgrade import UPGRADE_LINES

if TYPE_CHECKING:
    from router.proxy.exchange import Exchange

SERVICE_RESTART: Final = (1012).to_bytes(2, "big")
"""RFC 6455 §7.4.2 and its registry: the service restarts, come back in 5 to 30 seconds."""
_MASKED: Final = 0x80
_CLOSE: Final = 0x88


class Frames:
    """Where one side's frames end (RFC 6455 §5.2)."""

    __slots__ = ("_head", "_left", "has_closed")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self.has_closed = False
        """Whether this side has said farewell."""

    @property
    def is_between(self) -> bool:
        """Whether a frame put in here would be one."""
        return not self._left and not self._head

    def feed(self, data: bytes) -> None:
        """More bytes of this side."""
        at, size = 0, len(data)
        if self._head:
            data, self._head = self._head + data, b""
            size = len(data)
        while at < size:
            if self._left:
                skipped = min(self._left, size - at)
                self._left -= skipped
                at += skipped
                continue
            length = data[at + 1] & 0x7F if size - at >= 2 else 0
            more = 2 if length == 126 else 8 if length == 127 else 0
            whole = 2 + more + (4 if size - at >= 2 and data[at + 1] & _MASKED else 0)
            if size - at < whole:
                self._head = data[at:]
                return
            if data[at] == _CLOSE:
                self.has_closed = True
            self._left = int.from_bytes(data[at + 2 : at + 2 + more], "big") if more else length
            at += whole


class Tunnel:
    """What an exchange becomes when the backend changes protocols."""

    __slots__ = ("_down", "_exchange", "_up", "opened_at")

    def __init__(self, exchange: Exchange, head: ResponseHead, piece: bytes) -> None:
        self._exchange = exchange
        self._up, self._down = Frames(), Frames()
        self.opened_at = monotonic()
        downstream, lane = exchange.downstream, exchange.lane
        lane.meter.opened()
        if lane.users is not None:
            lane.users.opened(exchange, self.opened_at)
        exchange.waited = self.opened_at - exchange.sent_at
        downstream.keep_alive = False
        exchange.sent += len(piece)
        self._down.feed(piece)
        replace_field(head.lines, b"content-length", None)  # RFC 9110 §8.6
        lines = [line for line in (*head.lines, *UPGRADE_LINES, lane.response_lines) if line]
        downstream.transport.write(b"\r\n".join((*lines, b"", piece)))

    def up(self, data: bytes) -> None:
        """The client's bytes."""
        exchange = self._exchange
        exchange.received += len(data)
        self._up.feed(data)
        if exchange.upstream is not None:
            exchange.upstream.transport.write(data)

    def down(self, data: bytes) -> None:
        """The backend's bytes."""
        exchange = self._exchange
        exchange.sent += len(data)
        self._down.feed(data)
        exchange.downstream.transport.write(data)
        if not exchange.downstream.is_write_paused:
            exchange.downstream.arm(exchange.downstream.plane.listener.tunnel_timeout)

    def restart(self) -> None:
        """Tell both sides that this end restarts, where a frame of ours can stand, and leave."""
        exchange = self._exchange
        if self._down.is_between and not self._down.has_closed:
            exchange.downstream.transport.write(bytes((_CLOSE, len(SERVICE_RESTART))) + SERVICE_RESTART)
        if exchange.upstream is not None and self._up.is_between and not self._up.has_closed:
            key = os.urandom(4)  # RFC 6455 §5.3
            said = bytes(byte ^ mask for byte, mask in zip(SERVICE_RESTART, key, strict=False))
            exchange.upstream.transport.write(bytes((_CLOSE, _MASKED | len(said))) + key + said)
        self.end()

    def end(self) -> None:
        """One side has left: what is on its way may arrive, then the other side leaves too."""
        exchange = self._exchange
        if not exchange.is_finished:
            self.leave()
            exchange.downstream.finished(monotonic())

    def leave(self) -> None:
        """The client has left, or nobody sends any more: the backend is told."""
        exchange = self._exchange
        upstream, exchange.upstream = exchange.upstream, None
        if upstream is not None:
            upstream.leave()
        exchange.settle(monotonic(), False)
