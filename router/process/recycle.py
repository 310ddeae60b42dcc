"""Replacing a worker that asks for it: the new one serves before the old one drains, and one at a time.

The worker's side, which decides when to ask, is ``wear``.
"""

from __future__ import annotations

import signal
from typing import Final

import structlog

from router.process.children import Child
from router.process.pulse import REASONS
from router.process.restarts import OF_WISH, Restarts

SERVE_SECONDS: Final = 30.0
"""For a new worker to serve; then it is given up, and the old one stays."""
AGAIN_SECONDS: Final = 60.0
"""After one that was given up."""


class Recycler:
    """The parent's side. ``children`` is the parent's own list, in which one is exchanged for another."""

    def __init__(
        self, children: list[Child], drain_seconds: float, restarts: Restarts, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._children = children
        self._drain_seconds = drain_seconds
        self._restarts = restarts
        self._log = log
        self.coming: Child | None = None
        self.leaving: Child | None = None
        self._old: Child | None = None
        self._why = ""
        self._not_before = 0.0

    def processes(self) -> list[Child]:
        """Those beside the parent's children."""
        return [child for child in (self.coming, self.leaving) if child is not None]

    def look(self, now: float) -> bool:
        """One step, with the pulses just looked at; whether a process was started or is gone."""
        if self.leaving is not None:
            return self._see_off(self.leaving, now)
        if self.coming is not None and self._old is not None:
            return self._welcome(self.coming, self._old, now)
        if now < self._not_before:
            return False
        old = next((c for c in self._children if c.is_serving and c.pulse is not None and c.pulse.wish), None)
        if old is None or old.pulse is None or old.process is None:
            return False
        self._log.info(f"{old.name} (pid {old.process.pid}) asks to be replaced for {REASONS[old.pulse.wish]}")
        self._why = OF_WISH[old.pulse.wish]
        self._old, self.coming = old, old.successor()
        self.coming.start()
        return True

    def _welcome(self, new: Child, old: Child, now: float) -> bool:
        assert new.process is not None
        ended = new.process.poll()
        if ended is None and new.pulse is not None:
            new.pulse.look()
        if not old.is_alive or old not in self._children:
            # Dead meanwhile: the parent starts another one in its place, and that is replacement enough.
            return self._give_up(new, now, "the old one is gone")
        if new.is_serving:
            self._children[self._children.index(old)] = new
            old.end_by = now + self._drain_seconds
            self._restarts.add(self._why)
            old.signal(signal.SIGTERM)
            self.leaving, self.coming, self._old = old, None, None
            self._log.info(f"{new.name}: pid {new.process.pid} serves, the old one drains")
            return True
        if ended is not None or now - new.started_at > SERVE_SECONDS:
            return self._give_up(new, now, "the new one does not serve; the old one stays")
        return False

    def _give_up(self, new: Child, now: float, why: str) -> bool:
        self._log.error(f"{new.name} was not replaced: {why}")
        new.signal(signal.SIGKILL)
        if new.process is not None:
            new.process.wait()
        new.close()
        self.coming = self._old = None
        self._not_before = now + AGAIN_SECONDS
        return True

    def _see_off(self, old: Child, now: float) -> bool:
        assert old.process is not None
        if old.process.poll() is None:
            if now > old.end_by:
                old.signal(signal.SIGKILL)
            return False
        if old.process.returncode:
            self._log.warning(f"{old.name} (pid {old.process.pid}) was replaced; requests in flight were cut off")
        old.close()
        self.leaving = None
        return True
