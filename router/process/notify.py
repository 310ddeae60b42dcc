"""What systemd is told (sd_notify(3)): one datagram each, and nothing at all where nobody listens."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass


def notify(*lines: str) -> None:
    """Send assignments such as READY=1 to $NOTIFY_SOCKET."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto("\n".join(lines).encode(), "\0" + path[1:] if path[0] == "@" else path)


@dataclass(slots=True)
class Watchdog:
    """systemd's watchdog over the parent (sd_watchdog_enabled(3)); the parent's own is the one over the workers.

    ``seconds`` between two signs of life; 0: nobody waits for any.
    """

    seconds: float = 0.0
    _beaten_at: float = float("-inf")

    @classmethod
    def wanted(cls, environment: Mapping[str, str]) -> Watchdog:
        """A third of what is allowed: one sign may come late. $WATCHDOG_PID is not looked at: who takes over has
        inherited it from the one before, and is the one who has to give the signs from then on."""
        allowed = environment.get("WATCHDOG_USEC", "")
        return cls(int(allowed) / 3e6 if allowed.isdigit() else 0.0)

    def beat(self) -> None:
        """Called often; says WATCHDOG=1 when it is time."""
        now = time.monotonic()
        if self.seconds and now - self._beaten_at >= self.seconds:
            self._beaten_at = now
            notify("WATCHDOG=1")
