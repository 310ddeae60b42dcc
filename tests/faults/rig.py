"""The stage of the fault table: a router by its command line, backends, load and an observer, and how a row is made.

How to add a row:

    async def refused(stage: Stage, found: Findings) -> None:
        async with stage.load() as load:                          # open loop; each request has its own id
            await load.some("before", stage.many(2000, 60))       # in the long form, in the short one
            stage["a"].kill()
            await load.some("fault", stage.many(4000, 100))
            await stage["a"].start()
            await load.some("after", stage.many(2000, 60))
        found.counted("errors", len(load.bad()), most=0)          # a figure with its limit: the verdict
        found.timed("p99", load.p(P99, load.of("fault")), most=20)

    EXPERIMENTS = [Experiment(5, "what breaks", "what is promised", "the figure", refused, Setup(endpoints=2))]

and name the module in ``tests/faults/table.py`` and in a ``tests/test_faults_….py``. The phases ``before`` and
``after`` have a meaning: invariant I4 compares them. Afterwards the invariants I1 to I7 are held against everything
that ``stage.load`` sent (``invariants.py``); ``waived`` names those that cannot hold, with the reason. What is left
broken is healed: backends are started, given good manners and continued.

* ``stage["a"]`` is a ``processes.Backend``: ``kill``, ``start``, ``signal``, ``be(**manners)``, ``figures``,
  ``ledger``. ``a``, ``b``, … are the endpoints of version v1, which ring everyone runs; ``z``, ``y``, … those of v2,
  which ring canary runs: ``X-Ring: canary``.
* ``stage.router`` is a ``processes.RouterProcess``: pids, ``look()`` (its state), ``count()`` (a metric), ``said()``
  (what it logged).
* ``stage.redis`` is a ``redis_fixture.Server`` where ``Setup.redis`` says so.
* ``stage.planned`` is a set: a row that ends workers adds their pids, or I6 complains.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

from tests.faults.client import Outcome
from tests.faults.findings import Findings
from tests.faults.ledger import Entry
from tests.faults.load import Load, Shape
from tests.faults.processes import START_SECONDS, Backend, RouterProcess, descriptors, popen, ports, resident
from tests.redis_fixture import Server
from tests.waiting import until

TIMEOUTS: Final = {"head": "10s", "idle": "75s", "body": "10s", "send": "10s", "drain": "2s"}
SERVICE_TIMEOUTS: Final = {"connect": "1s", "first_byte": "2s", "between_bytes": "2s"}
OBSERVE_SECONDS: Final = 0.2
ROUTER_CORE, OTHER_CORE = 0, 1


@dataclass(frozen=True)
class Setup:
    """What stands on the stage. ``config`` is merged into the router's config, ``service`` into the service's."""

    endpoints: int = 2
    canaries: int = 1
    workers: int = 2
    config: Mapping[str, Any] = field(default_factory=dict)
    service: Mapping[str, Any] = field(default_factory=dict)
    short_config: Mapping[str, Any] = field(default_factory=dict)
    """Merged into ``config`` in the short form."""
    redis: bool = False
    prefix: tuple[str, ...] = ()
    """Words before the router's command line: ``prlimit``, ``faketime``, …"""
    environment: Mapping[str, str] = field(default_factory=dict)
    access_log: Path | None = None
    """Where the router's standard output goes; default: a file of the stage."""


class Observer:
    """Looks at the router from outside: how fast the admin side answers, and how large its processes become."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.is_looking = True
        """Off while the router is meant to be away."""
        self.admin_seconds: list[float] = []
        self.admin_failures = 0
        self.most_resident = 0

    async def run(self) -> None:
        while True:
            if self.is_looking:
                await self._look()
            await asyncio.sleep(OBSERVE_SECONDS)

    async def _look(self) -> None:
        router, began = self._stage.router, time.monotonic()
        try:
            await asyncio.to_thread(router.get, "/live")
            self.admin_seconds.append(time.monotonic() - began)
        except OSError:
            self.admin_failures += self.is_looking and router is self._stage.router  # not one that has gone since
        self.most_resident = max(self.most_resident, await asyncio.to_thread(self._resident))

    def _resident(self) -> int:
        return resident(self._stage.router.workers())


class Stage:
    """Everything that runs; an asynchronous context manager that leaves nothing behind."""

    def __init__(self, setup: Setup = Setup(), *, is_short: bool = False) -> None:
        self.setup = setup
        self.is_short = is_short
        self.backends: dict[str, Backend] = {}
        self.redis: Server | None = None
        self.loads: list[Load] = []
        self.planned: set[int] = set()
        """Workers that an experiment ended on purpose."""
        self.observer: Observer | None = None
        """Of the row that runs."""
        self._house = contextlib.AsyncExitStack()
        self._rows = 0

    # -- coming and going ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self._build()
        except BaseException:
            await self._house.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._house.aclose()

    async def _build(self) -> None:
        is_pinned = not self.is_short and (os.cpu_count() or 1) > 1
        self.router_core, self.other_core = (ROUTER_CORE, OTHER_CORE) if is_pinned else (None, None)
        self.directory = Path(self._house.enter_context(tempfile.TemporaryDirectory(prefix="ring-router-faults-")))
        setup = self.setup
        names = ["abcdefgh"[i] for i in range(setup.endpoints)] + ["stuvwxyz"[-1 - i] for i in range(setup.canaries)]
        self.port, self.admin, redis_port, *free = ports(3 + len(names))
        if setup.redis:
            self._start_redis(redis_port)
        for name, port in zip(names, free, strict=True):
            backend = Backend(name, port, self.directory, self.other_core)
            self.backends[name] = backend
            self._house.callback(backend.kill)
        await asyncio.gather(*(backend.start() for backend in self.backends.values()))
        self.config = self.directory / "router.yaml"
        (self.directory / "state").mkdir()
        self.config.write_text(json.dumps(self.settings()))
        self.access_log = setup.access_log or self.directory / "access.log"
        await self.start_router()
        await self.settle()

    async def settle(self) -> None:
        """Some load, and what the router holds without any: the baseline of I5."""
        async with Load(self.port, "warm-up", Shape(rate=400)) as load:
            await load.answers("warm-up", self.many(200, 40))
        self.resident_before = resident(self.router.workers())
        self.descriptors_before = await self._resting_descriptors()

    def _start_redis(self, port: int) -> None:
        from router.control.redis_server import launch

        directory = self.directory / "redis"
        self.redis = Server(port, directory, launch(port, directory))
        self._house.callback(lambda: self.redis and self.redis.running.stop())

    async def start_router(self, *words: str) -> RouterProcess:
        """Start the router (again, after ``stage.router`` has ended) and return when one is ready on its address.

        ``words`` are more of its command line.
        """
        import sys

        command = [*self.setup.prefix, sys.executable, "-m", "router.cli", "run", "-c", str(self.config), *words]
        log = self.directory / "router.log"
        with self._open(self.access_log) as out, log.open("ab") as error:
            process = popen(command, out, error, core=self.router_core, environment=self.setup.environment)
        self.router = RouterProcess(process, self.config, self.port, self.admin, log, access_log=self.access_log)
        self._house.push_async_callback(self.router.stop)
        await until(self._is_ready, within=START_SECONDS)
        return self.router

    @staticmethod
    def _open(path: Path) -> IO[bytes]:
        return open(path, "ab", buffering=0)

    async def _is_ready(self) -> bool:
        assert self.router.process.poll() is None, self.router.said()
        if not await asyncio.to_thread(self.router.is_ready):
            return False
        state = await self.router.look()
        return len([one for one in state["workers"] if one["connected"]]) == self.setup.workers

    def settings(self) -> dict[str, Any]:
        """The router's config as it is written."""
        setup = self.setup
        service: dict[str, Any] = {
            "identity": [{"header": "X-User-Id"}],
            "versions": {"v1": {"endpoints": self._urls("abcdefgh")}},
            "timeouts": dict(SERVICE_TIMEOUTS),
            "rings": [{"name": "everyone", "version": "v1"}],
        }
        if setup.canaries:
            audience = [{"header": {"name": "X-Ring", "equals": "canary"}}]
            service["versions"]["v2"] = {"endpoints": self._urls("stuvwxyz")}
            service["rings"].insert(0, {"name": "canary", "version": "v2", "weight": 0, "audience": audience})
        config: dict[str, Any] = {
            "listen": f"127.0.0.1:{self.port}",
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "workers": setup.workers,
            "state_dir": str(self.directory / "state"),
            "access_log": {"format": "json"},
            "timeouts": dict(TIMEOUTS),
            "services": {"shop": _merged(service, setup.service)},
        }
        if self.redis is not None:
            config["redis"] = self.redis.url
        config = _merged(config, setup.config)
        return _merged(config, setup.short_config) if self.is_short else config

    def _urls(self, names: str) -> list[str]:
        return [f"http://127.0.0.1:{one.port}" for one in self.backends.values() if one.name in names]

    # -- for experiments -----------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Backend:
        return self.backends[name]

    def later(self, work: Callable[[], object]) -> None:
        """Do it when the stage is taken down: after the end of what is started from now on."""
        self._house.callback(work)

    def many(self, long: int, short: int) -> int:
        """A number that depends on the form."""
        return short if self.is_short else long

    def load(self, shape: Shape = Shape()) -> Load:  # noqa: B008 - it is frozen
        """Load beside which things break; all that it sends is held against the invariants."""
        load = Load(self.port, f"r{self._rows}-{len(self.loads)}", shape)
        self.loads.append(load)
        return load

    def outcomes(self) -> list[Outcome]:
        return [outcome for load in self.loads for outcome in load.outcomes]

    def ledgers(self) -> list[Entry]:
        """What all backends have seen of the ids of this row, in the order of time."""
        prefix = f"r{self._rows}-"
        found = [entry for backend in self.backends.values() for entry in backend.ledger()]
        return sorted((entry for entry in found if entry.id.startswith(prefix)), key=lambda entry: entry.at)

    @property
    def prefix(self) -> str:
        """Ids of this row begin with it."""
        return f"r{self._rows}-"

    async def _resting_descriptors(self) -> int:
        """Of the workers, when no connection is left: the pools give theirs up after some seconds."""
        lowest = descriptors(self.router.workers())
        if self.is_short:
            return lowest
        deadline = time.monotonic() + 6.0
        while time.monotonic() < deadline:
            await asyncio.sleep(OBSERVE_SECONDS)
            lowest = min(lowest, descriptors(self.router.workers()))
        return lowest

    @contextlib.asynccontextmanager
    async def row(self) -> AsyncIterator[Observer]:
        """Around one experiment: everything is well when it begins, and watched until it ends."""
        self._rows += 1
        self.loads = []
        self.planned = set()
        await asyncio.gather(*(backend.heal() for backend in self.backends.values()))
        self.workers_before = self.router.workers()
        observer = self.observer = Observer(self)
        watch = asyncio.get_running_loop().create_task(observer.run(), name="observer")
        try:
            yield observer
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
            await asyncio.gather(*(backend.heal() for backend in self.backends.values()))


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(one)
    for key, value in other.items():
        is_deep = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if is_deep else value
    return result


# -- the rows ----------------------------------------------------------------------------------------------------------

Run = Callable[[Stage, Findings], Awaitable[None]]


@dataclass(frozen=True)
class Experiment:
    """One row of the table. ``possible`` returns why it cannot run here, or nothing."""

    number: int
    fault: str
    promise: str
    figure: str
    run: Run
    setup: Setup = field(default_factory=Setup)
    waived: Mapping[str, str] = field(default_factory=dict)
    possible: Callable[[], str] = lambda: ""


@dataclass(frozen=True)
class Row:
    """A row with what was measured. ``broken`` is empty when the promise was kept."""

    experiment: Experiment
    measured: str
    broken: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def verdict(self) -> str:
        return f"skipped: {self.skipped}" if self.skipped else "**not kept**" if self.broken else "kept"

    def __str__(self) -> str:
        return f"{self.experiment.number}: {self.verdict}: {self.measured}" + "".join(f"\n    {b}" for b in self.broken)


async def perform(stage: Stage, experiment: Experiment) -> Row:
    """Run one experiment on a stage and hold the invariants against it."""
    from tests.faults.invariants import check

    reason = experiment.possible()
    if reason:
        return Row(experiment, "", skipped=reason)
    found = Findings(stage.is_short)
    async with stage.row() as observer:
        await experiment.run(stage, found)
        await check(stage, experiment, observer, found)
    return Row(experiment, "; ".join(found.figures), tuple(found.broken))


async def perform_alone(experiment: Experiment, *, is_short: bool) -> Row:
    """The same on a stage of its own."""
    reason = experiment.possible()
    if reason:
        return Row(experiment, "", skipped=reason)
    async with Stage(experiment.setup, is_short=is_short) as stage:
        return await perform(stage, experiment)
