"""The parent: holds the listening sockets, starts control and the workers, restarts what dies, forwards signals.

It has no network code of its own. The sockets are its own, one SO_REUSEPORT socket per worker, so that a dead worker's
accept queue survives it. It waits for signals with them blocked, which leaves no race between a signal and a look; four
times a second it looks at the workers' pulses, and whether somebody wants to take over.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from router.config.values import LONGEST_SOCKET_PATH, Address
from router.process import orphans, sidecar
from router.process.children import Child, how_it_ended
from router.process.claims import Predecessor, Successor
from router.process.notify import Watchdog, notify
from router.process.ownership import Sockets
from router.process.pulse import State
from router.process.recycle import Recycler
from router.process.restarts import CONTROL, CRASH, WATCHDOG, Restarts, restarts_page
from router.process.sockets import ListenError
from router.proxy.headcount import Headcount, headcount_page

LONGEST_TMPDIR: Final = LONGEST_SOCKET_PATH - len("/ring-router-12345678/control.sock")
WATCHED: Final = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD
)  # fmt: skip
LOOK_SECONDS: Final = 0.25
LATE_SECONDS: Final = 1.0
"""A look this late was late by the parent's own fault: it was stopped, or the machine was."""
INSTALL_SECONDS: Final = 30.0
"""For a worker to take in a snapshot; ten thousand services take some seconds."""
CONTROL_STOP_SECONDS: Final = 5.0
KILL_MARGIN_SECONDS: Final = 2.0
TAKE_OVER_SECONDS: Final = 30.0
"""For the new workers to serve; then the take-over is given up."""
TAKE_OVER_DEATHS: Final = 3
"""Of one child, after which it is given up as well."""


@dataclass(slots=True)
class Manner:
    """How processes are watched and ended; seconds. ``watchdog`` 0: never."""

    drain: float = 30.0
    watchdog: float = 2.0
    orphans: float = 30.0
    delay: float = 0.0
    deadline: float = 30.0
    app: Address | None = None
    inbound: frozenset[int] = frozenset()
    """The listeners, by number, that close first on SIGTERM."""


@dataclass(frozen=True, slots=True)
class Envoys:
    """Those that serve in the place of workers: the directory that they watch, and their admin sides (host:port)."""

    directory: Path
    admin: tuple[str, ...]


@dataclass(slots=True)
class Parent:
    """One running router. With ``envoys`` its one worker is the bridge to them, and the addresses are theirs."""

    config: Path
    addresses: list[Address]
    workers: int
    manner: Manner
    admin: Address | None = None
    take_over: bool = False
    envoys: Envoys | None = None
    children: list[Child] = field(default_factory=list)
    _sockets: Sockets = field(init=False)
    _predecessor: Predecessor | None = None
    _successor: Successor | None = None
    _upgrading: subprocess.Popen[bytes] | None = None
    _orphans: orphans.Orphans = field(default_factory=orphans.Orphans)
    _recycler: Recycler = field(init=False)
    _restarts: Restarts = field(init=False)
    _headcount: int = field(init=False)
    _runtime: Path = field(init=False)
    _looked_at: float = 0.0
    _awake_since: float = 0.0
    _is_serving: bool = False
    _watchdog: Watchdog = field(default_factory=Watchdog)
    _log: structlog.stdlib.BoundLogger = field(default_factory=structlog.get_logger)

    def run(self, announce: Callable[[], None] | None = None) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code. Raises ListenError before anything is started."""
        # Blocked before the first child: a signal that comes early waits instead of killing.
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        raise_open_files()
        temporary = tempfile.gettempdir()
        if len(os.fsencode(temporary)) > LONGEST_TMPDIR:
            raise ListenError(f"{temporary} is too long for a socket in it: set TMPDIR to another directory")
        if self.take_over:
            self._predecessor = Predecessor.find(self.addresses)
            if self._predecessor is None:
                self._log.info("nobody listens there who could be taken over from: starting as usual")
        self._sockets = Sockets([] if self.envoys is not None else self.addresses, self.workers, self.admin)
        self._orphans = self._sockets.obtain(self._predecessor)
        self._successor = Successor(self._sockets.claims)
        self._runtime = Path(tempfile.mkdtemp(prefix=orphans.PREFIX))
        try:
            self._create_children()
            for child in reversed(self.children):  # control is the largest, and the workers need none of it
                child.start()
            self._note()
            if announce is not None:
                announce()
            return self._watch()
        finally:
            for child in (*self.children, *self._recycler.processes()):
                child.signal(signal.SIGKILL)
            shutil.rmtree(self._runtime, ignore_errors=True)
            self._sockets.remove_files()

    def _create_children(self) -> None:
        common = ["--parent", str(os.getpid()), "--runtime", str(self._runtime)]
        admin = self._sockets.admin
        control = [*common, "--config", str(self.config), "--workers", str(self.workers),
                   "--listen", *map(str, self.addresses)]  # fmt: skip
        restarts = restarts_page()
        self._restarts = Restarts(restarts)
        control += ["--restarts", str(restarts)]
        if self.envoys is not None:
            control += ["--engine", "envoy"]
        if admin is not None:
            control += ["--admin-fd", str(admin.fileno())]
        if self._predecessor is not None:
            control.append("--waits")
        inherited = (restarts,) if admin is None else (restarts, admin.fileno())
        self.children.append(Child("control", "router.process.control", control, inherited))
        self._recycler = Recycler(self.children, self.manner.drain + KILL_MARGIN_SECONDS, self._restarts, self._log)
        if self.envoys is not None:
            bridge = [*common, "--directory", str(self.envoys.directory), "--admin", *self.envoys.admin]
            self._headcount = headcount_page(self.workers)
            self.children.append(Child("bridge", "router.process.bridge", bridge, has_pulse=True))
            return
        headcount = self._headcount = headcount_page(self.workers)
        descriptors = (*self._sockets.descriptors(), headcount)
        for slot in range(self.workers):
            listen = self._sockets.of_worker(slot)
            worker = [*common, "--slot", str(slot), "--workers", str(self.workers), "--headcount", str(headcount),
                      "--orphans", str(self.manner.orphans), "--listen", *listen]  # fmt: skip
            self.children.append(Child(f"worker {slot}", "router.process.worker", worker, descriptors, has_pulse=True))

    def _note(self) -> None:
        """For a later parent, should this one be killed."""
        control, *workers = self.children
        coming = [self._recycler.coming] if self._recycler.coming is not None else []
        pids = [c.process.pid for c in (*workers, *coming) if c.process is not None]  # who leaves, leaves by itself
        with contextlib.suppress(OSError):
            pid = control.process.pid if control.process is not None else 0
            orphans.note(self._runtime, [str(address) for address in self.addresses], pid, pids)

    # -- as long as it runs --------------------------------------------------------------------------------------------

    def _watch(self) -> int:
        started = time.monotonic()
        while True:
            received = self._wait(LOOK_SECONDS)
            if received in (signal.SIGTERM, signal.SIGINT):
                return self._stop()
            if received == signal.SIGHUP:
                self.children[0].signal(signal.SIGHUP)
            if received == signal.SIGUSR1:  # workers hear of it as SIGHUP: their SIGUSR1 is the parent's death
                for child in (*self.children[1:], *self._recycler.processes()):
                    child.signal(signal.SIGHUP)
            if received == signal.SIGUSR2:
                self._upgrade()
            if self._look():
                return self._yield()
            if self._predecessor is not None and not self._is_serving and self._cannot_take_over(started):
                return self._abandon()

    def _upgrade(self) -> None:
        """Start the program anew, as it is installed now; it takes over."""
        if self.envoys is not None:
            self._log.warning("nothing is to be taken over: Envoy serves on while the router is restarted")
            return
        if self._upgrading is not None and self._upgrading.poll() is None:
            self._log.warning(f"pid {self._upgrading.pid} is about to take over already")
            return
        # -P: a folder called `router` where the operator happens to stand is none of ours.
        command = [sys.executable, "-P", "-m", "router.cli", "run", "-c", str(self.config), "--take-over"]
        self._upgrading = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
        self._log.info(f"pid {self._upgrading.pid} was started to take over")

    def _wait(self, seconds: float) -> int:
        """A signal, or 0 when there was none for so long, or a child is to be started sooner."""
        now = time.monotonic()
        wake_at = min((c.start_at for c in self.children if not c.is_alive), default=now + seconds)
        received = signal.sigtimedwait(WATCHED, max(0.0, min(seconds, wake_at - now)))
        return 0 if received is None else received.si_signo

    def _look(self) -> bool:
        """One round: who is dead, who is stuck, who is worn out. Whether somebody else serves in this one's place."""
        now = time.monotonic()
        if now - self._looked_at > LATE_SECONDS:
            self._awake_since = now
        self._looked_at = now
        if self._upgrading is not None and self._upgrading.poll() is not None:
            self._log.error(
                f"pid {self._upgrading.pid} {how_it_ended(self._upgrading.returncode)}: nothing has changed"
            )
            self._upgrading = None
        has_changed = self._restart_dead(now)
        self._feel_pulses(now)
        has_changed = self._recycler.look(now) or has_changed
        if has_changed:
            self._note()
        workers = self.children[1:]
        if not self._is_serving and all(child.is_serving for child in workers):
            self._serve()
        self._watchdog.beat()
        successor = self._successor
        if successor is None:
            return False
        serves = successor.look(self._sockets.offers())
        if successor.said:
            self._log.info(successor.said)
        return serves

    def _restart_dead(self, now: float) -> bool:
        has_changed = False
        for child in self.children:
            if child.process is not None and child.process.poll() is not None:
                self._log.error(child.died(now))
                if child.has_pulse:  # its clients are gone, whenever its successor begins to count
                    Headcount(self.children.index(child) - 1, self.workers, self._headcount).note(0)
                self._restarts.add(CONTROL if not child.has_pulse else WATCHDOG if child.is_stuck else CRASH)
            if child.process is None and child.start_at <= now:
                child.start()
                has_changed = True
        return has_changed

    def _feel_pulses(self, now: float) -> None:
        limits = {State.SERVING: self.manner.watchdog, State.INSTALLING: INSTALL_SECONDS}
        for child in self.children:
            if not child.is_alive or child.pulse is None or child.process is None:
                continue
            beat = child.pulse.look()
            # Only the silence that the parent was awake to hear counts.
            silent = now - max(beat, self._awake_since)
            limit = limits.get(child.pulse.state, 0.0)
            if self.manner.watchdog and limit and silent > limit:
                self._log.error(
                    f"{child.name} (pid {child.process.pid}) gave no sign of life for {silent:.1f} s: killed"
                )
                child.is_stuck = True
                child.signal(signal.SIGKILL)

    def _serve(self) -> None:
        """All workers serve, for the first time: those before may go."""
        self._is_serving = True
        self._watchdog = Watchdog.wanted(os.environ)  # until now systemd listened to the one before, if to anybody
        before = self._predecessor
        if before is not None:
            self._log.info(f"took over from pid {before.pid}")
            if not before.relieve():
                self._log.warning(f"pid {before.pid} did not say that it ends")
            self._sockets.inherit()
            self._successor = Successor(self._sockets.claims)
            notify(f"MAINPID={os.getpid()}", "READY=1")
        else:
            notify("READY=1")
        count = self._orphans.relieve()
        if count:
            self._log.info(f"{count} workers of a dead parent were told to end")

    # -- the end -------------------------------------------------------------------------------------------------------

    def _cannot_take_over(self, started: float) -> bool:
        is_late = time.monotonic() - started > TAKE_OVER_SECONDS
        return is_late or any(child.deaths >= TAKE_OVER_DEATHS for child in self.children)

    def _abandon(self) -> int:
        """The new workers do not serve: leave everything to the router that runs."""
        assert self._predecessor is not None
        self._log.error(f"the new workers do not serve: pid {self._predecessor.pid} goes on")
        for child in self.children:
            child.signal(signal.SIGTERM)
        self._await_end(self.children, self.manner.drain + KILL_MARGIN_SECONDS)
        self._predecessor.close()
        return 1

    def _yield(self) -> int:
        """Another router serves on the same sockets."""
        assert self._successor is not None
        self._log.info(f"pid {self._successor.pid} has taken over")
        self._sockets.leave_files()
        self._restarts.yield_to_others()
        self.children[0].signal(signal.SIGUSR2)
        notify(f"MAINPID={self._successor.pid}")  # said by the one whom systemd believes until now
        self._successor.yield_to()
        self._watchdog = Watchdog()  # its signs count now
        return self._drain()

    def _stop(self) -> int:
        """Say no to readiness probes, drain the workers, end control. A second signal ends everything now."""
        notify("STOPPING=1")
        manner = self.manner
        self.children[0].signal(signal.SIGUSR1)
        if manner.delay:
            self._log.info(f"stopping in {manner.delay:g} s: /ready says so, everything is still served")
            if not self._go_on(time.monotonic() + manner.delay, lambda: False):
                return self._break_off()
        if manner.app is not None:
            app = manner.app
            self._log.info(f"stopping: inbound listeners are closed; the others serve until {app} is gone")
            for child in self.children[1:]:
                child.signal(signal.SIGUSR2)
            self._sockets.close(manner.inbound)
            if not self._go_on(time.monotonic() + manner.deadline, lambda: not sidecar.is_there(app)):
                return self._break_off()
        return self._drain()

    def _go_on(self, until: float, is_enough: Callable[[], bool]) -> bool:
        """Watch over the children meanwhile; False when a second signal says that there is no more time."""
        while time.monotonic() < until and not is_enough():
            if self._wait(min(LOOK_SECONDS, max(0.0, until - time.monotonic()))) in (signal.SIGTERM, signal.SIGINT):
                return False
            self._look()
        return True

    def _drain(self) -> int:
        control, *workers = self.children
        coming = self._recycler.coming
        if coming is not None:
            if coming.pulse is not None:
                coming.pulse.look()
            if coming.is_serving:  # it has clients of its own already
                workers.append(coming)
            else:
                coming.signal(signal.SIGKILL)
        self._log.info(f"stopping: requests in flight have {self.manner.drain:g} s to finish; signal again to stop now")
        for child in workers:
            child.signal(signal.SIGTERM)
        if self._recycler.leaving is not None:
            workers.append(self._recycler.leaving)  # it was told already: a second signal would cut it short
        if self._successor is not None:
            self._successor.close()
        self._sockets.close()
        clean = self._await_end(workers, self.manner.drain + KILL_MARGIN_SECONDS)
        control.signal(signal.SIGTERM)
        clean = self._await_end([control], CONTROL_STOP_SECONDS) and clean
        self._log.info("stopped" if clean else "stopped; requests in flight were cut off")
        return 0 if clean else 1

    def _break_off(self) -> int:
        self._log.warning("stopped at once; requests in flight were cut off")
        return 1

    def _await_end(self, children: list[Child], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while any(child.process is not None and child.process.poll() is None for child in children):
            self._watchdog.beat()
            left = deadline - time.monotonic()
            received = signal.sigtimedwait(WATCHED, max(0.0, min(left, LOOK_SECONDS)))
            if left <= 0 or (received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT)):
                for child in children:
                    child.signal(signal.SIGKILL)
                for child in children:
                    if child.process is not None:
                        child.process.wait()
                return False
        return all(child.process is None or child.process.returncode == 0 for child in children)


def raise_open_files() -> None:
    """As many open files as allowed, as HAProxy and nginx do it; the children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
