"""The processes of an experiment: the router by its command line, the backends; each is hurt and ended by its id."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from tests.faults.ledger import Entry, read_ledger
from tests.running import Router
from tests.waiting import until

ROOT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 15.0
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG: Final = 1
_PAGE: Final = resource.getpagesize()
_PORTS: Final = range(20_000, 32_000)
"""Below the ephemeral ports: a connection to a dead port among those may meet itself, or a stranger."""


def ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in found:
                found.append(port)
    return found


def popen(
    command: Sequence[str], out: IO[bytes], error: IO[bytes], *, core: int | None, environment: Mapping[str, str] = {}
) -> subprocess.Popen[bytes]:
    """A process that ends with this one, on its core where it has one."""

    def in_child() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if core is not None:
            os.sched_setaffinity(0, {core})

    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=error, cwd=ROOT, env={**os.environ, **environment},
        preexec_fn=in_child,
    )  # fmt: skip


def resident(pids: Iterable[int]) -> int:
    """Bytes of all of them; one that is gone counts nothing."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return total


def descriptors(pids: Iterable[int]) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += len(os.listdir(f"/proc/{pid}/fd"))
    return total


class Backend:
    """A backend process behind one port, which stays its own while it is dead."""

    def __init__(self, name: str, port: int, directory: Path, core: int | None) -> None:
        self.name = name
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._ledger = directory / f"{name}.ledger"
        self._control = directory / f"{name}.sock"
        self._output = directory / f"{name}.out"
        self._core = core

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def start(self) -> None:
        """Return when it serves; it has good manners then."""
        command = [sys.executable, "-m", "tests.faults.backend", "--name", self.name, "--port", str(self.port)]
        command += ["--control", str(self._control), "--ledger", str(self._ledger)]
        with self._output.open("ab") as out:
            self.process = popen(command, out, out, core=self._core)
        await until(self._serves, within=START_SECONDS)

    async def _serves(self) -> bool:
        assert self.is_running, self._output.read_text()
        with contextlib.suppress(OSError):
            await self.figures()
            return True
        return False

    async def be(self, **manners: object) -> None:
        """Manners from now on (``backend.Manners``); what is not named is good, so ``be()`` heals."""
        await self._ask(manners)

    async def figures(self) -> dict[str, int]:
        """``open`` connections, ``requests``, ``in_flight``, ``received`` bytes of bodies; ``most_…`` since ``be``."""
        return await self._ask(None)

    async def _ask(self, wanted: object) -> dict[str, int]:
        reader, writer = await asyncio.open_unix_connection(str(self._control))
        writer.write(json.dumps(wanted).encode() + b"\n")
        async with asyncio.timeout(10):
            figures: dict[str, int] = json.loads(await reader.readline())
        writer.close()
        return figures

    def ledger(self) -> list[Entry]:
        """Everything it has ever seen, over all its lives."""
        return read_ledger(self._ledger)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; return when it is gone, and its port with it: some milliseconds in which the load stands still."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)

    async def heal(self) -> None:
        """As it was at the start, whatever has been done to it."""
        if self.is_running:
            self.signal(signal.SIGCONT)
            await self.be()
        else:
            await self.start()


@dataclass
class RouterProcess(Router):
    """A router started with ``ring-router run``; ``get``, ``state`` and ``metric`` block, ``look`` does not."""

    access_log: Path = field(default_factory=Path)

    async def look(self) -> dict[str, Any]:
        return await asyncio.to_thread(self.state)

    async def count(self, pattern: str) -> float:
        """The sum of all samples whose line begins with this pattern."""
        return await asyncio.to_thread(self.metric, pattern)

    async def by(self, metric: str, label: str) -> dict[str, int]:
        """A counter's samples summed by one label."""
        found: dict[str, int] = {}
        for line in (await asyncio.to_thread(self.get, "/metrics")).decode().splitlines():
            name, _, rest = line.partition("{")
            if name == metric:
                labels, _, value = rest.rpartition("} ")
                key = labels.partition(f'{label}="')[2].partition('"')[0]
                found[key] = found.get(key, 0) + round(float(value))
        return found

    def workers(self) -> list[int]:
        """The pids of the workers there are now, from /proc, so that it works when nothing answers."""
        return list(self._children("worker "))

    def family(self) -> list[int]:
        return [self.process.pid, *self._children("")]

    def _children(self, name: str) -> Iterator[int]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes()
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent == self.process.pid and command.startswith(b"ring-router: " + name.encode()):
                        yield int(entry.name)

    def said(self) -> str:
        """What it has written on standard error."""
        return self.log.read_text("utf-8", "replace")

    async def stop(self) -> int:
        """SIGTERM and, if that does not help, SIGKILL to each of its processes; its exit code."""
        family = self.family()
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(AssertionError):
                await until(lambda: self.process.poll() is not None, within=STOP_SECONDS)
        for pid in family if self.process.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self.process.wait(STOP_SECONDS)


class BlackHole:
    """A port on which connections are neither accepted nor refused: a full queue that nobody empties."""

    def __init__(self, port: int) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(0)
        self._fillers: list[socket.socket] = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            self._fillers.append(filler)

    def __enter__(self) -> BlackHole:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (*self._fillers, self._listener):
            one.close()
