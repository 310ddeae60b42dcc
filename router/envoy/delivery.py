"""Puts resources where Envoy finds them, in an order that breaks no request, and waits until they are in force.

Clusters come first, with those that go as well; then routes and listeners, once every Envoy that can be asked has the
clusters. What an Envoy refuses is taken back: a file that is left behind would be what it starts with.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xxhash import xxh64_hexdigest

from router.envoy.admin import WARMING, Admin, AwayError
from router.envoy.listeners import routes_of
from router.envoy.messages import Json
from router.envoy.resources import CLUSTERS, LISTENERS, Resources, document
from router.envoy.stats import Reading

ASK_SECONDS: Final = 0.02
"""Between two questions whether a change is in force."""
WAIT_SECONDS: Final = 5.0
"""For an Envoy to take a file in; one with ten thousand clusters takes some."""
KEPT_SECONDS: Final = 30.0
"""Clusters that no route leads to any more are kept so long: for requests in flight, and to be counted to the end."""
_STATISTICS: Final = {CLUSTERS: "cds", LISTENERS: "lds"}


def _statistics(name: str) -> str:
    """What a file is called in Envoy's statistics: ``rds.strangers`` for the routes of that name."""
    return _STATISTICS.get(name) or f"rds.{routes_of(name)}"


class RefusedError(Exception):
    """An Envoy does not want it; the text says why, as far as it tells."""


@dataclass(slots=True)
class _File:
    """What is in force, or was meant to be."""

    version: str
    resources: tuple[Json, ...]


class Delivery:
    """Into one directory, for all Envoys that read there."""

    def __init__(self, directory: Path, envoys: Iterable[Admin]) -> None:
        self._directory = directory
        self._envoys = tuple(envoys)
        self._files: dict[str, _File] = {}
        self._tidy_at = 0.0
        self._wanted: Resources | None = None

    async def deliver(self, made: Resources, generation: int) -> list[str]:
        """Who does not route by it yet, and why, as sentences; none: every Envoy does. Can be asked again and again.

        Raises RefusedError, after which everything is as it was, and OSError.
        """
        wanted = made.by_file()
        self._files = {name: self._files.get(name) or _read(self._directory / name) for name in wanted}
        before = dict(self._files)
        try:
            late = await self._put({CLUSTERS: self._with_those_that_go(wanted.pop(CLUSTERS))}, generation)
            if late:
                return late
            await self._put(wanted, generation)
        except RefusedError:
            self._take_back(before)
            raise
        self._wanted = made
        if len(self._files[CLUSTERS].resources) > len(made.clusters):
            self._tidy_at = self._tidy_at or time.monotonic() + KEPT_SECONDS
        return await self.missing()

    async def tidy(self, generation: int) -> None:
        """Take away clusters that nobody needs any more, when it is time. Raises OSError."""
        if self._wanted is not None and self._tidy_at and time.monotonic() > self._tidy_at:
            self._tidy_at = 0.0
            await self._put({CLUSTERS: self._wanted.clusters}, generation)

    async def missing(self) -> list[str]:
        """Those Envoys that do not route by what was delivered last, and why."""
        found = await asyncio.gather(*(self._stands_against(one, tuple(self._files)) for one in self._envoys))
        return [why for why in found if why]

    def _with_those_that_go(self, clusters: tuple[Json, ...]) -> tuple[Json, ...]:
        known = {one["name"] for one in clusters}
        return clusters + tuple(one for one in self._files[CLUSTERS].resources if one["name"] not in known)

    async def _put(self, wanted: dict[str, tuple[Json, ...]], generation: int) -> list[str]:
        """Write what has changed, and wait for those who answer; who of them is late. Raises RefusedError, OSError."""
        changed = [name for name, resources in wanted.items() if resources != self._files[name].resources]
        counted = await self._refusals(changed)
        for name in changed:
            version = f"{generation}.{xxh64_hexdigest(document('', wanted[name]))}"
            self._files[name] = _File(version, wanted[name])
            self._write(name)
        return await self._wait(list(wanted), changed, counted)

    async def _wait(self, names: list[str], changed: list[str], counted: dict[str, int]) -> list[str]:
        waited_until = time.monotonic() + WAIT_SECONDS
        while True:
            late = []
            for envoy in self._envoys:
                reading = await _in_force(envoy)
                if reading is None or self._has(reading, names):
                    continue
                late.append(f"Envoy at {envoy.address} has not taken in {' and '.join(names)} for {WAIT_SECONDS:g} s")
                refused = [name for name in changed if self._is_refused(reading, name, counted, envoy.address)]
                if refused:
                    raise RefusedError(await _refusal(envoy, refused))
            if not late or time.monotonic() > waited_until:
                return late
            await asyncio.sleep(ASK_SECONDS)

    def _is_refused(self, reading: Reading, name: str, counted: dict[str, int], address: str) -> bool:
        return reading.refusals(_statistics(name)) > counted.get(f"{address} {name}", 0)

    async def _refusals(self, names: list[str]) -> dict[str, int]:
        """How often each Envoy has refused each file until now."""
        found: dict[str, int] = {}
        for envoy in self._envoys:
            reading = await _in_force(envoy)
            if reading is not None:
                found |= {f"{envoy.address} {name}": reading.refusals(_statistics(name)) for name in names}
        return found

    def _has(self, reading: Reading, names: Iterable[str]) -> bool:
        """Whether it has these files, and nothing of them waits for something else."""
        if any(reading.numbers.get(name) for name in WARMING):
            return False
        for name in names:
            versions = reading.versions(_statistics(name))
            if not versions and name in _STATISTICS:  # routes that no listener asks for are in nobody's statistics
                return False
            if any(version != self._files[name].version for version in versions):
                return False
        return True

    async def _stands_against(self, envoy: Admin, names: tuple[str, ...]) -> str:
        try:
            reading = await envoy.in_force()
        except AwayError as error:
            return f"Envoy at {envoy.address} is away: {error}"
        return "" if self._has(reading, names) else f"Envoy at {envoy.address} routes by something older"

    def _take_back(self, before: dict[str, _File]) -> None:
        for name, file in before.items():
            if file.version and file is not self._files[name]:
                self._files[name] = file
                self._write(name)

    def _write(self, name: str) -> None:
        """Moved into its place as a whole."""
        file = self._files[name]
        new = self._directory / f".{name}.new"
        new.write_bytes(document(file.version, file.resources))
        os.replace(new, self._directory / name)


async def _in_force(envoy: Admin) -> Reading | None:
    try:
        return await envoy.in_force()
    except AwayError:
        return None


async def _refusal(envoy: Admin, names: list[str]) -> str:
    reasons: list[str] = []
    with contextlib.suppress(AwayError):
        reasons = await envoy.reasons() if LISTENERS in names else []
    why = "; ".join(reasons) or "why is in its log"
    return f"Envoy at {envoy.address} refuses {' and '.join(names)}: {why}"


def _read(path: Path) -> _File:
    """What a bridge before this one has left there."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        found = json.loads(path.read_bytes())
        return _File(found["version_info"], tuple(found["resources"]))
    return _File("", ())
