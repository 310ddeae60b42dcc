"""Open-loop load: requests leave when they are due, whether or not the answers to others have come.

Latency counts from the moment a request was due. A request that finds no free connection opens one: what waits at the
router never makes others wait here.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from tests.faults.client import End, Outcome, Request, Wire, ask

P50: Final = 50.0
P99: Final = 99.0
STALL_SECONDS: Final = 0.01
"""Later than this is a stall: of the machine, or of the rig, which starts and ends processes meanwhile."""
STANDSTILL_SECONDS: Final = 0.2
"""What came due in a longer one is not sent: all at once it would be another fault, which no row asked for."""
Make = Callable[[str, int], Request]


def get(name: str, _: int) -> Request:
    return Request(name)


def mixed(name: str, number: int) -> Request:
    """GET 60 %, POST 25 %, chunks both ways 10 %, WebSocket 5 %."""
    turn = number % 20
    if turn < 12:
        return Request(name)
    if turn < 17:
        return Request(name, "POST", upload=512)
    if turn < 19:
        return Request(name, "POST", size=8192, query="framing=chunked", upload=4096, is_chunked=True)
    return Request(name, is_websocket=True)


@dataclass(frozen=True, slots=True)
class Shape:
    """``rate`` a second, of which ``fresh`` each on a connection of its own; ``kept`` connections for the rest.

    They come from the addresses ``sources`` in turn, from the machine's own without any.
    """

    rate: float = 400.0
    make: Make = mixed
    kept: int = 64
    fresh: float = 20.0
    sources: tuple[str, ...] = ("",)


class Load:
    """Runs from the beginning of its block to the end, which waits for every answer. ``phase`` marks what comes due."""

    def __init__(self, port: int, prefix: str, shape: Shape) -> None:
        self.port = port
        self.prefix = prefix
        self.shape = shape
        self.phase = ""
        self.outcomes: list[Outcome] = []
        self.in_flight: set[Outcome] = set()
        self.sent = 0
        self.stalls: list[tuple[float, float]] = []
        """When the load itself did not come to run: what was on its way then has no latency of the router's."""
        self._free: collections.deque[Wire] = collections.deque()
        self._sources = itertools.cycle(shape.sources)
        self._is_open = True
        self._group = asyncio.TaskGroup()
        self._moved = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._free.extend([await self._connect() for _ in range(self.shape.kept)])
        await self._group.__aenter__()
        if self.shape.rate:
            self._group.create_task(self._run(), name="load")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        try:
            await self._group.__aexit__(kind, error, trace)
        finally:
            while self._free:
                self._free.pop().close()

    async def _run(self) -> None:
        gap = 1 / self.shape.rate
        every = round(self.shape.rate / self.shape.fresh) if self.shape.fresh else 0
        due = time.monotonic()
        while self._is_open:
            now = time.monotonic()
            if due > now:
                await asyncio.sleep(due - now)
            now = time.monotonic()
            if now - due > STALL_SECONDS:
                self.stalls.append((due, now))
            if now - due > STANDSTILL_SECONDS:
                due = now
            self.sent += 1
            request = self.shape.make(f"{self.prefix}-{self.sent}", self.sent)
            is_fresh = bool(every and self.sent % every == 0) or request.is_websocket
            self.begin(request, due, is_fresh=is_fresh)
            due += gap

    def start(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[Any]:
        """Something beside the load that ends before the block does."""
        return self._group.create_task(work, name="beside the load")

    def begin(self, request: Request, due: float = 0.0, *, is_fresh: bool = False) -> None:
        """One request beside the load, of the phase there is now; nobody waits for its outcome."""
        self.start(self.ask(request, due, is_fresh=is_fresh, phase=self.phase))

    async def ask(
        self, request: Request, due: float = 0.0, *, is_fresh: bool = False, phase: str | None = None
    ) -> Outcome:
        """One request, counted with the others; due now unless ``due`` says when."""
        phase = self.phase if phase is None else phase
        kept = None
        while not is_fresh and kept is None and self._free:
            kept = self._free.popleft()
            if kept.reader.at_eof():  # closed while it was idle, which nobody may be blamed for
                kept.close()
                kept = None
        outcome = Outcome(request, due or time.monotonic(), phase)
        outcome.is_newcomer = kept is None
        self.in_flight.add(outcome)
        if not is_fresh and kept is None:
            try:
                kept = await self._connect()
            except OSError as error:
                outcome.end, outcome.word, outcome.ended = End.REFUSED, repr(error), time.monotonic()
                return await self._ended(outcome)
        may_be_used = await ask(kept, outcome, self._connect)
        if kept is not None:
            if may_be_used and len(self._free) < self.shape.kept:
                self._free.append(kept)
            else:
                kept.close()
        return await self._ended(outcome)

    async def note(self, outcome: Outcome) -> None:
        """Count a request that was asked in another way."""
        outcome.ended = time.monotonic()
        await self._ended(outcome)

    async def _connect(self) -> Wire:
        return await Wire.open(self.port, next(self._sources))

    async def _ended(self, outcome: Outcome) -> Outcome:
        self.in_flight.discard(outcome)
        self.outcomes.append(outcome)
        async with self._moved:
            self._moved.notify_all()
        return outcome

    async def some(self, phase: str, count: int) -> None:
        """Begin a phase, and return when the load has sent this many requests in it."""
        self.phase = phase
        goal = self.sent + count
        while self.sent < goal:
            await asyncio.sleep(1 / self.shape.rate)

    async def answers(self, phase: str, count: int) -> None:
        """Begin a phase, and return when this many requests that were due in it have ended."""
        self.phase = phase
        async with self._moved:
            await self._moved.wait_for(lambda: len(self.of(phase)) >= count)

    # -- what came of it -----------------------------------------------------------------------------------------------

    def of(self, *phases: str, method: str = "") -> list[Outcome]:
        """The outcomes of these phases (all of them without any)."""
        return [
            one
            for one in self.outcomes
            if (not phases or one.phase in phases) and (not method or one.request.method == method)
        ]

    def bad(self, *phases: str, method: str = "") -> list[Outcome]:
        """What was not the backend's own good answer: errors, breaks, refusals."""
        return [one for one in self.of(*phases, method=method) if one.end is not End.RIGHT or one.status >= 400]

    def p(self, percent: float, outcomes: list[Outcome]) -> float:
        """A percentile of their latencies, in ms, without those that met a stall of the load; 0 without any."""
        return percentile(self.unstalled(outcomes), percent)

    def unstalled(self, outcomes: list[Outcome]) -> list[Outcome]:
        return [one for one in outcomes if not self.has_stalled(one)]

    def has_stalled(self, one: Outcome) -> bool:
        return any(begin < one.ended and one.due < end for begin, end in self.stalls)


def percentile(outcomes: list[Outcome], percent: float) -> float:
    """Of the latencies, in ms; 0 without any."""
    if not outcomes:
        return 0.0
    ordered = sorted(one.took for one in outcomes)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
