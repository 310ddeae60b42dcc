"""A process that the parent keeps alive."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import Final

from router.process.forked import Forked, fork
from router.process.pulse import Pulse, State

RESTART_SECONDS: Final = (0.0, 5.0)
"""A child that dies is started again at once; one that keeps dying, ever later, up to this."""
STABLE_SECONDS: Final = 10.0


@dataclass(slots=True)
class Child:
    """Control, or the worker of one slot: ``main()`` of a module with these arguments, in a process of its own."""

    name: str
    module: str
    arguments: list[str]
    descriptors: tuple[int, ...] = ()
    has_pulse: bool = False
    process: Forked | None = None
    pulse: Pulse | None = None
    started_at: float = 0.0
    deaths: int = 0
    start_at: float = 0.0
    is_stuck: bool = False
    """Whether it was killed for giving no sign of life."""
    end_by: float = 0.0
    """When it has to be gone, if it was told to go."""

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def is_serving(self) -> bool:
        """As of the last look at its pulse."""
        return self.is_alive and self.pulse is not None and self.pulse.state in (State.SERVING, State.INSTALLING)

    def successor(self) -> Child:
        """Another child for the same place, not started yet."""
        return Child(self.name, self.module, self.arguments, self.descriptors, self.has_pulse)

    def start(self) -> None:
        self.close()
        arguments, descriptors = self.arguments, self.descriptors
        if self.has_pulse:
            self.pulse = Pulse.create()
            arguments = [*arguments, "--pulse", str(self.pulse.descriptor)]
            descriptors = (*descriptors, self.pulse.descriptor)
        self.process = fork(self.module, arguments, descriptors, self.name)
        self.started_at = time.monotonic()
        self.is_stuck = False

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.is_alive:
            self.process.send_signal(number)

    def died(self, now: float) -> str:
        """Its process has ended: when to start it again; how it ended and when it starts, in words."""
        process = self.process
        assert process is not None
        assert process.returncode is not None
        lived = now - self.started_at
        self.deaths = 0 if lived > STABLE_SECONDS else self.deaths + 1
        first, longest = RESTART_SECONDS
        wait = first if self.deaths <= 1 else min(longest, 0.1 * 2.0 ** min(self.deaths, 10))
        self.process, self.start_at = None, now + wait
        self.close()
        return (
            f"{self.name} (pid {process.pid}) {how_it_ended(process.returncode)} after {lived:.1f} s; "
            f"starting it again {'at once' if not wait else f'in {wait:.1f} s'}"
        )

    def close(self) -> None:
        if self.pulse is not None:
            self.pulse.close()
            self.pulse = None


def how_it_ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
