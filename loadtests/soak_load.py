"""The clients of the soak test: some dozens of connections, one request after another on each, every answer checked.

A process of its own. It counts what its clients saw by status, and what they did, so that every request can be found
again in the router's counters. What is not as planned is kept in words.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import socket
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final, cast

import uvloop

from loadtests import wire
from loadtests.rig import HOST, raise_open_files
from loadtests.soak_plan import Plan, Planner

ANSWER_SECONDS: Final = 15.0
PAUSE_SECONDS: Final = 0.002
LEAVES_MS: Final = 30
"""A client that leaves does so after up to so long."""
LONGEST: Final = 50
"""Requests of one connection."""
MESSAGES: Final = 4
PROGRESS_SECONDS: Final = 0.25
SHOWN_WRONG: Final = 20


class Client(asyncio.Protocol):
    """One connection; a new one takes its place when it ends."""

    transport: asyncio.Transport

    def __init__(self, load: Load) -> None:
        self.load = load
        self.reader = wire.Reader()
        self.plan: Plan | None = None
        self.began = 0.0
        self._left = 1 + load.planner.below(LONGEST)
        self._frames: list[bytes] = []
        self._partial = b""
        self._is_tunnel = False
        self._is_ending = False
        """Nothing is expected any more but the end of the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.load.clients.add(self)
        self._next()

    def _next(self) -> None:
        load = self.load
        if not self._left or not load.may_begin():
            self._end()
            return
        self._left -= 1
        self.plan = plan = load.planner.next(asks_close=not self._left and load.planner.below(2) == 0)
        self.began = time.monotonic()
        load.begun(plan)
        self._send(plan, 0)
        if plan.kind in ("leave_upload", "leave_waiting"):
            load.loop.call_later(load.planner.below(LEAVES_MS) / 1e3, self._leave, plan)

    def _send(self, plan: Plan, piece: int) -> None:
        if self.plan is not plan or self.transport.is_closing():
            return  # answered already: the rest is not wanted
        self.transport.write(plan.pieces[piece])
        if piece + 1 < len(plan.pieces):
            self.load.loop.call_later(PAUSE_SECONDS, self._send, plan, piece + 1)

    # -- what comes back -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        plan = self.plan
        if self._is_tunnel:
            self._frame(data)
        elif plan is None:
            self.load.wrong(None, f"{len(data)} bytes that nobody asked for: {data[:80]!r}")
            self.transport.abort()
        elif plan.kind == "leave_download":
            self._download(plan, data)
        else:
            try:
                if self.reader.feed(data, is_bodiless=plan.is_head):
                    self._answered(plan)
            except ValueError:
                self.load.wrong(plan, f"a chunk size that is none in {self.reader.head!r}")
                self.transport.abort()

    def _answered(self, plan: Plan) -> None:
        reader, load = self.reader, self.load
        load.seen(plan, reader.status)
        said = self._complaint(plan)
        if said:
            load.wrong(plan, f"{said}; {reader.head!r}, {len(reader.body)} bytes")
        is_last = b"\r\nConnection: close" in reader.head
        if reader.status == 101:
            self._is_tunnel = True
            self._frames = [
                *(wire.message(wire.payload(load.planner.below(wire.MOST), 1 + load.planner.below(125)))
                  for _ in range(1 + load.planner.below(MESSAGES))),
                wire.CLOSE_FRAME,
            ]  # fmt: skip
            rest = reader.rest
            self._speak()
            if rest:
                self._frame(rest)
            return
        if plan.mark:
            load.uploaded += plan.upload
            load.downloaded += len(reader.body) if reader.mark else 0  # what the router says itself is no service's
        if plan.asks_close and not is_last and not said:
            load.wrong(plan, f"the connection is not closed: {reader.head!r}")
        self.plan = None
        self.began = time.monotonic()
        reader.next()
        if is_last:
            self._is_ending = True  # the router has to close it
        else:
            self._next()

    def _complaint(self, plan: Plan) -> str:
        """What is wrong with the answer; empty when it is the one that was planned."""
        reader = self.reader
        if reader.status != plan.status:
            return f"not {plan.status} but {reader.status}"
        if reader.mark != plan.mark:
            return f"not the mark {plan.mark!r} but {reader.mark!r}"
        if reader.status == 101:
            key = b"Sec-WebSocket-Accept: " + plan.body
            return "" if key in reader.head else "another key's answer"
        if plan.mark and reader.body != plan.body:
            return f"not the body of {len(plan.body)} bytes"
        if not plan.mark and not reader.body.startswith(b"%d " % plan.status):
            return "not the router's own page"
        return f"{len(reader.rest)} bytes behind it" if reader.rest else ""

    def _download(self, plan: Plan, data: bytes) -> None:
        """Leave in the middle of it."""
        reader = self.reader
        if reader.feed(data):
            self.load.wrong(plan, f"a whole answer where half of one was planned: {reader.head!r}")
            self.transport.abort()
        elif reader.head and reader.seen >= plan.stays:
            if reader.status != plan.status or reader.rest != plan.body:
                self.load.wrong(plan, f"another half of an answer: {reader.head!r}, {reader.seen} bytes")
            self.load.downloaded += reader.seen
            self._leave(plan)

    def _leave(self, plan: Plan) -> None:
        """Close, or reset: half of the clients that leave are cut off."""
        if self.plan is not plan or self.transport.is_closing():
            return
        self.plan = None
        self.load.left[plan.kind] += 1
        self.load.uploaded += plan.upload
        self._is_ending = True
        if self.load.planner.below(2):
            peer = self.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # -- WebSocket -----------------------------------------------------------------------------------------------------

    def _speak(self) -> None:
        frame = wire.masked(self._frames[0])
        self.load.uploaded += len(frame)
        self.transport.write(frame)

    def _frame(self, data: bytes) -> None:
        found, self._partial = wire.frames(self._partial + data)
        for frame in found:
            self.load.downloaded += len(frame)
            if not self._frames or frame != self._frames.pop(0):
                self.load.wrong(self.plan, f"another message: {frame!r}")
                self.transport.abort()
                return
            self.load.messages += 1
            if self._frames:
                self._speak()
            else:
                self.plan = None
                self._is_ending = True

    # -- the ends ------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        self.plan = None
        self._is_ending = True
        self.transport.close()

    def look(self, now: float) -> None:
        """Nothing may take so long."""
        if now - self.began > ANSWER_SECONDS and not self.transport.is_closing():
            what = "not closed" if self._is_ending else "no answer"
            self.load.wrong(self.plan, f"{what} after {ANSWER_SECONDS:g} s")
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._is_ending:
            self.load.wrong(self.plan, f"the connection ended without an answer: {error!r}")
        self.plan = None
        self.load.ended(self)


class Load:
    """All clients, and what they count."""

    def __init__(self, port: int, requests: int, connections: int, seed: int, progress: Path) -> None:
        self.planner = Planner(seed)
        self.clients: set[Client] = set()
        self.requests = requests
        self.done = 0
        self.uploaded = self.downloaded = self.messages = self.connected = self.with_body = 0
        """Bytes of bodies, and WebSocket messages."""
        self.kinds: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        """Of what was answered by the backend, or in its place."""
        self.refused: Counter[int] = Counter()
        """Of the answers that the router had to give by itself."""
        self.left: Counter[str] = Counter()
        self.wrongs = 0
        self._shown: list[str] = []
        self._port = port
        self._connections = connections
        self._progress = progress
        self._connecting: set[asyncio.Task[None]] = set()

    async def __call__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        for _ in range(self._connections):
            self._come()
        gc.freeze()
        with self._progress.open("wb") as file:
            while not self._over.is_set():
                os.pwrite(file.fileno(), b"%12d" % self.done, 0)
                now = time.monotonic()
                for client in tuple(self.clients):
                    client.look(now)
                await asyncio.sleep(PROGRESS_SECONDS)

    def _come(self) -> None:
        task = self.loop.create_task(self._connect(), name="connect")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        try:
            await self.loop.create_connection(lambda: Client(self), HOST, self._port)
            self.connected += 1
        except OSError as error:
            self.wrong(None, f"no connection: {error}")
            await asyncio.sleep(0.1)
            self.ended(None)

    def may_begin(self) -> bool:
        return self.done < self.requests

    def begun(self, plan: Plan) -> None:
        self.done += 1
        self.kinds[plan.kind] += 1
        self.with_body += plan.has_body

    def seen(self, plan: Plan, status: int) -> None:
        (self.statuses if plan.mark else self.refused)[status] += 1

    def wrong(self, plan: Plan | None, said: str) -> None:
        self.wrongs += 1
        if len(self._shown) < SHOWN_WRONG:
            what = "" if plan is None else f"{plan.kind} {plan.number}, {plan.pieces[0][:120]!r}: "
            self._shown.append(what + said)

    def ended(self, client: Client | None) -> None:
        if client is not None:
            self.clients.discard(client)
        if self.may_begin():
            self._come()
        elif not self.clients and len(self._connecting) <= (client is None):
            self._over.set()

    def result(self) -> dict[str, Any]:
        return {
            "requests": self.done,
            "with_body": self.with_body,
            "connections": self.connected,
            "kinds": dict(sorted(self.kinds.items())),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "refused": {str(status): count for status, count in sorted(self.refused.items())},
            "left": dict(sorted(self.left.items())),
            "websocket_messages": self.messages,
            "uploaded_bytes": self.uploaded,
            "downloaded_bytes": self.downloaded,
            "wrong": self.wrongs,
            "wrong_examples": self._shown,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--progress", type=Path, required=True, help="a file for the number of requests begun")
    asked = parser.parse_args()
    raise_open_files()
    load = Load(asked.port, asked.requests, asked.connections, asked.seed, asked.progress)
    uvloop.run(load())
    print(json.dumps(load.result()))


if __name__ == "__main__":
    main()
