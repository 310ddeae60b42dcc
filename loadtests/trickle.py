"""Slow clients: each sends one byte a second of a request's head, or of its body, until the proxy has had enough.

A process of its own on the load core (``SlowClients``), cheap beside the load that is measured. A client whose
connection has ended comes back at once, as those of an attacker do, so as many are there all the time. Each attempt is
accounted for: what it was answered, and how long after its time-out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, cast

import uvloop

from loadtests import report
from loadtests.rig import HOST, LOAD_CORE, ROOT, RigError, python_module, raise_open_files

HEAD: Final = b"GET / HTTP/1.1\r\nHost: shop.example.com\r\nX-User-Id: user-1\r\nX-Slow: " + b"a" * 4096
"""Has no end that anybody would wait for."""
UPLOAD_HOST: Final = "upload.example.com"
BODY_BYTES: Final = 100_000
BODY: Final = f"POST / HTTP/1.1\r\nHost: {UPLOAD_HOST}\r\nContent-Length: {BODY_BYTES}\r\n\r\n".encode()
BYTE_SECONDS: Final = 1.0
"""On average."""
RETRY_SECONDS: Final = 0.1
MARGIN_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Slowness:
    """How many, how slow, and when they have to be ended. Seconds; ``body_rate`` in bytes per second."""

    port: int
    clients: int = 500
    bodies: float = 0.5
    """The share of them that are slow in the body."""
    ramp: float = 5.0
    """They come evenly over so long, so that they do not all end in the same moment."""
    head_timeout: float = 5.0
    body_grace: float = 20.0
    body_rate: float = 500.0

    def allowed(self, kind: str, received: int) -> float:
        """How long an attempt may last."""
        return self.head_timeout if kind == "head" else self.body_grace + received / self.body_rate


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection from its first byte to its end; ``status`` is 0 without an answer, -1 without a connection."""

    kind: str
    status: int
    seconds: float
    late: float
    """After its time-out; below 0 when it was ended before."""


class Slow(asyncio.Protocol):
    """One attempt of one slow client."""

    transport: asyncio.Transport

    def __init__(self, crowd: Crowd, kind: str) -> None:
        self.crowd = crowd
        self.kind = kind
        self.sent = 0
        self.started = self.ended = 0.0
        self.answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.crowd.alive.add(self)
        self.started = time.monotonic()
        if self.kind == "body":
            self.transport.write(BODY)
        self._drip()

    def _drip(self) -> None:
        if self.ended or self.transport.is_closing():
            return
        self.transport.write(HEAD[self.sent : self.sent + 1] if self.kind == "head" else b"b")
        self.sent += 1
        # Nobody's clients keep step. Bytes that always come together would be a test of bursts, and not of slowness.
        self.crowd.loop.call_later(random.uniform(0.5, 1.5) * BYTE_SECONDS, self._drip)

    def data_received(self, data: bytes) -> None:
        self.ended = self.ended or time.monotonic()
        self.answer += data

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = self.ended or time.monotonic()
        status = int(self.answer[9:12]) if self.answer.startswith(b"HTTP/1.1 ") else 0
        seconds = self.ended - self.started
        allowed = self.crowd.slowness.allowed(self.kind, self.sent)
        self.crowd.alive.discard(self)
        self.crowd.ended(Attempt(self.kind, status, seconds, seconds - allowed))


class Crowd:
    """All slow clients of a run."""

    def __init__(self, slowness: Slowness) -> None:
        self.slowness = slowness
        self.alive: set[Slow] = set()
        self.attempts: list[Attempt] = []
        self.fewest = slowness.clients
        """Connected at once, from when all had come until they were told to stop."""
        self._open = 0
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_over = False

    async def __call__(self) -> None:
        """Until stdin is closed; then until the last attempt has ended."""
        self.loop = asyncio.get_running_loop()
        self._none = asyncio.Event()
        told = asyncio.Event()
        self.loop.add_reader(sys.stdin.fileno(), told.set)
        slowness = self.slowness
        for number in range(slowness.clients):
            kind = "body" if int((number + 1) * slowness.bodies) > int(number * slowness.bodies) else "head"
            self.loop.call_later(number * slowness.ramp / slowness.clients, self._come, kind)
        watch = self.loop.call_later(slowness.ramp + 1, self._watch)
        await told.wait()
        self._is_over = True
        watch.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(slowness.head_timeout, slowness.body_grace) + MARGIN_SECONDS / 2):
                while self._open:
                    self._none.clear()
                    await self._none.wait()
        for left in tuple(self.alive):  # what is still there was never answered: status 0
            left.transport.abort()
        await asyncio.sleep(0.1)

    def _come(self, kind: str) -> None:
        if not self._is_over:
            self._open += 1
            task = self.loop.create_task(self._connect(kind), name="connect")
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, kind: str) -> None:
        try:
            await self.loop.create_connection(lambda: Slow(self, kind), HOST, self.slowness.port)
        except OSError:
            await asyncio.sleep(RETRY_SECONDS)
            self.ended(Attempt(kind, -1, 0.0, 0.0))

    def _watch(self) -> None:
        """A client that is coming back is away for a moment; what counts is how many are missing for longer."""
        if not self._is_over:
            self.fewest = min(self.fewest, len(self.alive))
            self.loop.call_later(0.1, self._watch)

    def ended(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        self._open -= 1
        self._come(attempt.kind)
        if not self._open:
            self._none.set()

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = {"fewest_at_once": self.fewest}
        for kind in ("head", "body"):
            mine = [one for one in self.attempts if one.kind == kind]
            if mine:
                statuses = Counter(one.status for one in mine)
                found[kind] = {
                    "attempts": len(mine),
                    "by_status": {str(status): count for status, count in sorted(statuses.items())},
                    "seconds": report.spread(one.seconds for one in mine),
                    "late_ms": report.spread(one.late * 1e3 for one in mine),
                }
        return found


class SlowClients:
    """A crowd in a process of its own: it comes when the block begins, and is gone when it ends, whatever happened."""

    def __init__(self, slowness: Slowness) -> None:
        self.slowness = slowness
        self._command = python_module("loadtests.trickle", json.dumps({n: getattr(slowness, n) for n in _FIELDS}))

    def __enter__(self) -> SlowClients:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def result(self) -> dict[str, Any]:
        """Nobody comes back from now on; wait until the last one is gone. RigError when that fails."""
        patience = max(self.slowness.head_timeout, self.slowness.body_grace) + MARGIN_SECONDS
        out, said = self._process.communicate(timeout=patience)
        if self._process.returncode:
            raise RigError(said.strip().splitlines()[-1] if said.strip() else "the slow clients failed")
        found: dict[str, Any] = json.loads(out)
        return found


_FIELDS: Final[Sequence[str]] = tuple(Slowness.__dataclass_fields__)


def main() -> None:
    # Slow clients have time. They share the load core with the backend of the others, and must not run before it.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slowness", type=json.loads, help="fields of Slowness, as JSON; ends when stdin is closed")
    crowd = Crowd(Slowness(**parser.parse_args().slowness))
    raise_open_files()
    uvloop.run(crowd())
    print(json.dumps(crowd.result()))


if __name__ == "__main__":
    main()
