"""The hot path without a kernel: one request and its response through the connection classes, in this process.

``python -m loadtests.replay`` prints µs and function calls per exchange; ``--profile`` says where they go. Sockets are
replaced by objects that swallow what is written, so what is left is this project's own code.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import statistics
import time
from typing import Any, Final

import uvloop

from router.core.audience import ConditionSpec, IdentitySpec
from router.core.records import NO_LOG, AccessLogSpec
from router.core.spec import EndpointSpec, RingSpec, ServiceSpec, SnapshotSpec, VersionSpec
from router.proxy.downstream import Downstream
from router.proxy.plane import DataPlane
from router.proxy.upstream import Upstream
from router.telemetry.access_log import AccessLog
from router.telemetry.log_sink import Sink
from router.telemetry.messages import Watched, frame

USERS: Final = 5_000
"""More than a worker remembers lines of: a user's own line is always a new one."""
REQUESTS = [
    (
        b"GET /path?x=%d HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: wrk\r\nAccept: */*\r\n"
        b"X-User-Id: user-%d\r\n\r\n" % (i, i)
    )
    for i in range(USERS)
]
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 11:34:13 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 1024\r\nConnection: keep-alive\r\n\r\n" + b"x" * 1024
)
SERVICE = ServiceSpec(
    name="shop",
    versions=(
        VersionSpec("v1", (EndpointSpec("127.0.0.1", 1),)),
        VersionSpec("v2", (EndpointSpec("127.0.0.1", 2),)),
    ),
    rings=(
        RingSpec(
            "canary",
            "v2",
            500,
            (
                ConditionSpec("header", "X-Ring", "equals", ("canary",)),
                ConditionSpec("cookie", "ring", "equals", ("canary",)),
            ),
        ),
        RingSpec("early", "v2", 2000),
        RingSpec("everyone", "v1"),
    ),
    identity=(IdentitySpec("header", "X-User-Id"), IdentitySpec("cookie", "uid")),
)


class Nowhere:
    """A transport that swallows what is written and remembers how much it was."""

    written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def get_extra_info(self, _name: str) -> Any:
        return ("127.0.0.1", 1)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None: ...

    def close(self) -> None: ...


class Replay:
    """A plane with a warm connection per endpoint and one client."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.plane = DataPlane(loop, lambda work, name: loop.create_task(work, name=name))
        self.plane.install(SnapshotSpec(1, (SERVICE,), access_log=NO_LOG))
        self.client = Downstream(self.plane, self.plane.door(0), b"")
        self.client.connection_made(Nowhere())  # type: ignore[arg-type]
        self.warm: list[Upstream] = []
        for endpoint in self.plane.pools.endpoints.values():
            upstream = Upstream(endpoint, self.plane.wheel)
            upstream.connection_made(Nowhere())  # type: ignore[arg-type]
            upstream.rest_in_pool()
            self.warm.append(upstream)

    def exchange(self, i: int) -> None:
        """One request there, one response back."""
        self.client.data_received(REQUESTS[i % USERS])
        exchange = self.client.exchange
        assert exchange is not None
        assert exchange.upstream is not None
        exchange.upstream.data_received(RESPONSE)

    def profile(self, size: int) -> pstats.Stats:
        """Where ``size`` exchanges spend their time; the counts are the same on every machine."""
        profiler = cProfile.Profile()
        profiler.enable()
        for i in range(size):
            self.exchange(i)
        profiler.disable()
        return pstats.Stats(profiler)


def calls(stats: pstats.Stats) -> int:
    """All function calls of a profile."""
    total: int = stats.total_calls  # type: ignore[attr-defined]
    return total


async def measure(rounds: int, size: int, *, profile: bool) -> None:
    replay = Replay()
    for i in range(2_000):
        replay.exchange(i)
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        for i in range(size):
            replay.exchange(i)
        taken.append((time.perf_counter() - started) / size * 1e6)
    print(f"{statistics.median(taken):.2f} µs per exchange (median of {rounds}, lowest {min(taken):.2f})")
    stats = replay.profile(size)
    print(f"{calls(stats) / size:.1f} function calls per exchange")
    if profile:
        stats.sort_stats("tottime").print_stats(28)
    replay.plane.close()


LOG_ROUNDS: Final = 120
LOG_SIZE: Final = 2_000
LOG_PAUSE_SECONDS: Final = 0.06
"""For the log's thread to write: its time counts as well."""


def measure_log() -> dict[str, float]:
    """CPU µs of an exchange more than without an access log, by form: medians of differences, in one process.

    Every request asks for the same, as those of ``access_log`` do.
    """
    replay = Replay()
    out = os.open(os.devnull, os.O_WRONLY)
    specs = {"off": NO_LOG, "json": AccessLogSpec("json"), "ecs": AccessLogSpec("ecs"),
             "combined": AccessLogSpec("combined"),
             "json, 1 %": AccessLogSpec(rates=(1.0, 0.01, 1.0, 1.0, 1.0)),
             "json, hashed": AccessLogSpec(identity_key=b"k" * 32)}  # fmt: skip
    logs = {name: AccessLog(spec, Sink(out)) if spec != NO_LOG else None for name, spec in specs.items()}
    taken: dict[str, list[float]] = {name: [] for name in specs}
    for number in range(LOG_ROUNDS):
        names = list(specs)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            log = replay.plane.access_log = logs[name]
            started = time.process_time()
            for _ in range(LOG_SIZE):
                replay.exchange(0)
            if log is not None:
                log.flush()
            time.sleep(LOG_PAUSE_SECONDS)
            taken[name].append((time.process_time() - started) / LOG_SIZE * 1e6)
    replay.plane.close()
    pairs = {name: zip(found, taken["off"], strict=True) for name, found in taken.items() if name != "off"}
    return {name: statistics.median(one - off for one, off in pair) for name, pair in pairs.items()}


def measure_watch() -> dict[str, tuple[float, float]]:
    """µs of CPU of an exchange more than without a rollout, and as a ratio; by what part of the control is counted.

    Of these users 25 percent have the candidate. Medians of differences, in one process; reports included.
    """
    replay = Replay()
    watches = {"nothing": (), "all": (Watched("shop", "v2", 1_000_000),), "1 %": (Watched("shop", "v2", 10_000),)}
    taken: dict[str, list[float]] = {name: [] for name in watches}
    for number in range(LOG_ROUNDS):
        names = list(watches)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            replay.plane.watch(watches[name])
            started = time.process_time()
            for i in range(LOG_SIZE):
                replay.exchange(number * LOG_SIZE + i)
            users = replay.plane.collect_users()
            if users is not None:
                frame(users)
            taken[name].append((time.process_time() - started) / LOG_SIZE * 1e6)
    replay.plane.close()
    nothing = taken.pop("nothing")
    return {
        name: (
            statistics.median(one - off for one, off in zip(found, nothing, strict=True)),
            statistics.median(one / off for one, off in zip(found, nothing, strict=True)),
        )
        for name, found in taken.items()
    }


async def show_watch() -> None:
    for name, (more, ratio) in measure_watch().items():
        print(f"a rollout that counts {name} of the control: {more:.2f} µs of CPU more per exchange, {ratio:.2f} times")


async def show_log() -> None:
    for name, more in measure_log().items():
        print(f"access log {name}: {more:.2f} µs of CPU more per exchange (median of {LOG_ROUNDS})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--access-log", action="store_true", help="what an access log adds, to nowhere")
    parser.add_argument("--watched", action="store_true", help="what a rollout adds that watches the service")
    options = parser.parse_args()
    if options.watched:
        uvloop.run(show_watch())
    elif options.access_log:
        uvloop.run(show_log())
    else:
        uvloop.run(measure(options.rounds, options.size, profile=options.profile))


if __name__ == "__main__":
    main()
