"""What every load test stands on: child processes that always end, pinned cores, CPU accounting, wrk."""

from __future__ import annotations

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
import tempfile
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
HOST: Final = "127.0.0.1"
TICK_MICROSECONDS: Final = 1_000_000 / os.sysconf("SC_CLK_TCK")
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0
WRK_MARGIN_SECONDS: Final = 20.0
USERS: Final = 5000
PORTS: Final = range(20000, 32000)
"""Below the range Linux takes for outgoing connections, so that no client's own port is in the way."""
PRIORITY: Final = 1
"""Real-time, of contestants where latency is measured; the generator is above them, and above it who watches."""
SHARES: Final = 8
"""Of the ports, one for each process of the tests; no more than so many are run."""
_given: deque[int] = deque(maxlen=500)
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class RigError(Exception):
    """The run cannot go on; the message says why."""


def cores() -> tuple[int, int]:
    """The core of the proxies, and the core of the load generator and the backend (the same one if there is one)."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[1] if len(allowed) > 1 else allowed[0]


PROXY_CORE, LOAD_CORE = cores()
CORES: Final = len(os.sched_getaffinity(0))
"""As it was at the start: a load test may pin itself later on."""


def say_cores(backend: int = LOAD_CORE) -> None:
    if PROXY_CORE == LOAD_CORE:
        print("Only 1 core: proxy, load and backend share it. CPU per request still counts, requests/s do not.")
    else:
        beside = "load and backend" if backend == LOAD_CORE else "load"
        others = "Proxies" if backend == LOAD_CORE else "Proxies and backend"
        print(f"{others} on core {PROXY_CORE}, {beside} on core {LOAD_CORE}.")


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now; all different, and others than those that this process was given lately.

    Whoever gets one listens on it later. So that nobody else gets it meanwhile, each process of pytest-xdist has ports
    of its own.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    own = PORTS[number % SHARES :: SHARES] if "PYTEST_XDIST_WORKER" in os.environ else PORTS
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for port in random.sample(own, len(own)):
            if len(ports) == count:
                _given.extend(ports)
                return ports
            if port in _given:
                continue
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                ports.append(port)
    raise RigError(f"no {count} free ports")


# -- processes ---------------------------------------------------------------------------------------------------------


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name: [1] is the parent, [11] utime, [12] stime, [19] start."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    """What a process has used since its start."""
    return sum(map(int, _stat(pid)[11:13])) * TICK_MICROSECONDS / 1e6


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += children.get(member, ())
    return found


@dataclass
class Child:
    """A process this run started, with the processes it started itself."""

    name: str
    process: subprocess.Popen[bytes]
    output: Path
    pids: list[int] = field(default_factory=list)

    def settle(self) -> None:
        """Learn who belongs to it; call it once it serves."""
        self.pids = family(self.process.pid)

    def cpu_ticks(self) -> dict[int, int]:
        """utime + stime of each of its processes. RigError when one has died: its figures would be wrong."""
        try:
            return {pid: sum(map(int, _stat(pid)[11:13])) for pid in self.pids}
        except OSError:
            raise RigError(f"a process of {self.name} died during the run:\n{self.tail()}") from None

    def rss_bytes(self) -> dict[int, int]:
        page = resource.getpagesize()
        try:
            return {pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in self.pids}
        except OSError:
            raise RigError(f"a process of {self.name} died during the run:\n{self.tail()}") from None

    def tail(self) -> str:
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-5:])

    def end(self) -> None:
        """TERM, a while to go, then KILL: itself and every descendant, each by its id."""
        with contextlib.suppress(OSError):
            born = {pid: _stat(pid)[19] for pid in family(self.process.pid)}
        if self.process.poll() is not None:
            born = {}
        else:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
        deadline = time.monotonic() + 1.0
        for pid, start in born.items():
            while _is_alive(pid, start):
                if time.monotonic() > deadline:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    break
                time.sleep(0.02)


def _is_alive(pid: int, start: str) -> bool:
    """The process with this id and this start time, so that an id used again is not taken for it."""
    try:
        stat = _stat(pid)
    except OSError:
        return False
    return stat[19] == start and stat[0] != "Z"


def in_child(core: int) -> None:
    """What a child does before it is its program: it stays on its core, and ends when its parent does."""
    os.sched_setaffinity(0, {core})
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Rig(contextlib.ExitStack):
    """One run: a temporary directory and the processes in it. Leaving it ends them all, whatever happened."""

    def __enter__(self) -> Rig:
        super().__enter__()
        self.directory = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="ring-router-load-")))
        self.directory.chmod(0o755)
        self._before = signal.signal(signal.SIGTERM, _terminated)
        raise_open_files()
        return self

    def __exit__(self, *details: Any) -> bool | None:
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # one Ctrl-C is enough: nothing stops the cleaning
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            return super().__exit__(*details)
        finally:
            signal.signal(signal.SIGINT, interrupt)
            signal.signal(signal.SIGTERM, self._before)

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        core: int,
        url: str,
        *,
        discard: bool = False,
        env: dict[str, str] | None = None,
    ) -> Child:
        """Start a process on a core and wait until it answers ``url`` with 200."""
        output = self.directory / f"{name}.out"
        with output.open("wb") as out:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if discard else out,
                stderr=out,
                cwd=ROOT,
                env=env,
                start_new_session=True,
                preexec_fn=lambda: in_child(core),
            )
        child = Child(name, process, output)
        self.callback(child.end)
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            if process.poll() is not None:
                raise RigError(f"{name} ended with code {process.returncode}:\n{child.tail()}")
            if time.monotonic() > deadline:
                raise RigError(f"{name} does not serve after {START_SECONDS:g} s:\n{child.tail()}")
            time.sleep(0.05)
        child.settle()
        return child


def _terminated(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def raise_open_files(wanted: int = 65536) -> int:
    """Raise the limit of open files as far as allowed (children inherit it); returns what it is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def fetch(url: str, headers: dict[str, str] | None = None) -> str:
    """A small GET, straight (no proxy variables)."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=5) as response:
        return str(response.read().decode())


def _answers(url: str) -> bool:
    try:
        fetch(url)
    except (OSError, urllib.error.URLError):
        return False
    return True


def resp(*words: str) -> bytes:
    """A command as Redis takes it from redis-cli (RESP2, array of bulk strings)."""
    said = [word.encode() for word in words]
    return b"*%d\r\n" % len(said) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in said)


# -- load --------------------------------------------------------------------------------------------------------------

_LUA: Final = """
local requests, n = {}, 0
init = function(args)
  for i = 0, USERS - 1 do
    local h = {["X-User-Id"] = "user-" .. i, ["Host"] = HOSTS[i % #HOSTS + 1], ["X-Tenant"] = "none"}
    if i % 50 == 0 then h["X-Ring"] = "canary" elseif i % 50 == 25 then h["Cookie"] = "session=abc; ring=canary" end
    if CLOSE then h["Connection"] = "close" end
    requests[i + 1] = wrk.format("GET", "/", h)
  end
end
request = function() n = n % USERS + 1; return requests[n] end
done = function(s, l, r)
  local e = s.errors
  io.write(string.format("\\nRESULT {\\"requests\\": %d, \\"microseconds\\": %d, \\"errors\\": %d}\\n",
    s.requests, s.duration, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def lua(hosts: Sequence[str] = ("shop.example.com",), users: int = USERS, *, close: bool = False) -> str:
    """The wrk script: a request for each of the users in turn, 2 % with the header, 2 % with the cookie of a ring.

    With ``close`` each asks for its connection to be closed, so that wrk opens one for each.
    """
    quoted = ", ".join(json.dumps(host) for host in hosts)
    return f"local USERS = {users}\nlocal CLOSE = {json.dumps(close)}\nlocal HOSTS = {{{quoted}}}\n{_LUA}"


def wrk(script: Path, port: int, seconds: float, connections: int = 32) -> dict[str, int]:
    """One closed-loop run on the load core: requests, microseconds, errors."""
    whole = max(1, round(seconds))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{whole}s", "-s", str(script), f"http://{HOST}:{port}"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=whole + WRK_MARGIN_SECONDS,
        check=False,
        start_new_session=True,
        preexec_fn=lambda: in_child(LOAD_CORE),
    )
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            result: dict[str, int] = json.loads(line.removeprefix("RESULT "))
            if not result["requests"]:
                break
            return result
    raise RigError(f"wrk got no answer from port {port}:\n{done.stdout}{done.stderr}")


def measure(child: Child, script: Path, port: int, seconds: float, connections: int = 32) -> dict[str, float]:
    """One round for one proxy: load it and count what its processes used."""
    wrk(script, port, 1, connections)  # its pools have gone cold while the others had their turn
    before = child.cpu_ticks()
    load = wrk(script, port, seconds, connections)
    after = child.cpu_ticks()
    used = {pid: (after[pid] - before[pid]) * TICK_MICROSECONDS for pid in after}
    rss = child.rss_bytes()
    return {
        "cpu_us": sum(used.values()) / load["requests"],
        "requests_per_s": load["requests"] / (load["microseconds"] / 1e6),
        "rss_mib": sum(rss.values()) / 2**20,
        "serving_rss_mib": rss[max(used, key=lambda pid: used[pid])] / 2**20,
        "errors": float(load["errors"]),
        "requests": float(load["requests"]),
    }


def turns(names: Sequence[str], rounds: int) -> Iterator[tuple[int, list[str]]]:
    """Round by round the order in which contestants go; each round another begins."""
    for number in range(rounds):
        shift = number % len(names)
        yield number, [*names[shift:], *names[:shift]]


def python_module(module: str, *arguments: str | int) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]
