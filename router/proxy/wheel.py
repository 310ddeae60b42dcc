"""Deadlines for every connection of a worker with one timer: a timing wheel (Varghese & Lauck, SOSP 1987).

A connection's deadline moves with each request, so moving it later must cost a store and nothing else: the wheel looks
again when the old slot comes up. Only a deadline that comes nearer moves between slots, which happens once per
connection and not once per request. Deadlines fire up to two ticks late, never early. Time in which
the process stood still (a paused machine, a loop that was blocked) is given back, up to a second of it each time and
for some seconds in a row: whoever was waited for may have stood still as well, and what came meanwhile is not read yet.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from types import TracebackType
from typing import Final, Protocol

TICK_SECONDS: Final = 0.05
HELD_UP_SECONDS: Final = 4 * TICK_SECONDS
"""A turn this late means that the process stood still, and perhaps all of the machine."""
LONGEST_REST_SECONDS: Final = 1.0
LONGEST_RESTS_SECONDS: Final = 5.0
"""Of rests one behind the other: a loop that is late for good must not be one without deadlines."""
NEVER: Final = float("inf")
_HORIZON_SECONDS: Final = 60.0


class Timed(Protocol):
    """Something with a deadline on the monotonic clock; ``slot`` and ``looked_at`` belong to the wheel.

    Whoever moves the deadline to before ``looked_at`` calls ``sooner``; moving it later needs nothing.
    """

    deadline: float
    slot: int
    looked_at: float

    def on_deadline(self, now: float) -> None:
        """The deadline has passed. May set a new one; the wheel keeps the object until ``remove``."""


class Wheel:
    """The deadlines of one event loop."""

    __slots__ = ("_is_working", "_loop", "_rests_since", "_rests_until", "_slots", "_tick", "_timer", "_turns_at")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Timed]] = {}
        self._tick = int(monotonic() / TICK_SECONDS)
        self._timer: asyncio.TimerHandle | None = None
        self._turns_at = NEVER
        self._is_working = False
        self._rests_since = self._rests_until = 0.0

    def start(self) -> None:
        self._set()

    def _set(self) -> None:
        self._turns_at = monotonic() + TICK_SECONDS
        self._timer = self._loop.call_later(TICK_SECONDS, self._turn)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slots.clear()

    def place(self, timed: Timed) -> None:
        """Put into the slot of its deadline; at most a horizon ahead, where it is looked at again."""
        horizon = monotonic() + _HORIZON_SECONDS
        slot = max(int(min(timed.deadline, horizon) / TICK_SECONDS) + 1, self._tick + 1)
        timed.slot = slot
        timed.looked_at = (slot - 1) * TICK_SECONDS
        members = self._slots.get(slot)
        if members is None:
            members = self._slots[slot] = set()
        members.add(timed)

    def sooner(self, timed: Timed) -> None:
        """The deadline has come nearer than the slot: move."""
        self.remove(timed)
        self.place(timed)

    def remove(self, timed: Timed) -> None:
        members = self._slots.get(timed.slot)
        if members is not None:
            members.discard(timed)

    def _turn(self) -> None:
        # First: whatever goes wrong below, the deadlines of the other connections must go on.
        now, turns_at = monotonic(), self._turns_at
        self._set()
        if self._rests(now, now - turns_at):
            return
        if not self._is_working:
            self._work()

    def _rests(self, now: float, late: float) -> bool:
        """Whether time is being given back, after a turn that came ``late`` by so many seconds."""
        if late <= HELD_UP_SECONDS:
            if now >= self._rests_until:
                self._rests_until = 0.0
        elif not self._rests_until:
            self._rests_since, self._rests_until = now, now + min(late, LONGEST_REST_SECONDS)
        elif now < self._rests_since + LONGEST_RESTS_SECONDS:
            self._rests_until = now + min(late, LONGEST_REST_SECONDS)
        return now < self._rests_until

    def _work(self) -> None:
        """Look at whoever is due, until a deadline fires: those who have something to read come before the next one.

        Ending a hundred slow clients in one go would make everybody else wait for it.
        """
        self._is_working = False
        now = monotonic()
        late = now - self._turns_at
        if late > HELD_UP_SECONDS and self._rests(now, late):
            return  # stood still between two deadlines
        due = int(now / TICK_SECONDS)
        while True:
            members = self._slots.get(self._tick)
            while members:
                timed = members.pop()
                timed.slot = -1
                has_fired = timed.deadline <= now
                if has_fired:
                    self._is_working = True
                    self._loop.call_soon(self._work)
                    self._fire(timed, now)
                if timed.slot == -1:
                    self.place(timed)
                if has_fired:
                    return
            self._slots.pop(self._tick, None)
            if self._tick >= due:
                return
            self._tick += 1

    def _fire(self, timed: Timed, now: float) -> None:
        timed.deadline = NEVER
        try:
            timed.on_deadline(now)
        except BaseException:
            self.place(timed)  # whoever raises must not lose its deadlines
            raise


class Patience:
    """``asyncio.timeout`` by the clock of a wheel that turns: ``async with``, TimeoutError after ``seconds``."""

    __slots__ = ("_timeout", "_wheel", "deadline", "looked_at", "slot")

    def __init__(self, wheel: Wheel, seconds: float) -> None:
        self._wheel = wheel
        self._timeout = asyncio.timeout(None)
        self.deadline = monotonic() + seconds
        self.slot = -1
        self.looked_at = 0.0

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._wheel.place(self)

    def on_deadline(self, now: float) -> None:
        self._timeout.reschedule(0.0)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._wheel.remove(self)
        await self._timeout.__aexit__(kind, error, traceback)
