"""The last known good live values of each service, on disk: a restart while Redis is away goes on as before.

One file per service in the state directory, replaced whole (write, fsync, rename, fsync of the directory), with a
checksum. It must never apply a file that does not fit exactly, never block the loop on the disk, and never be a reason
to stop: a state directory that cannot be written is reported once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from router.control.disk import Rejected, read_own, replace_whole
from router.control.parse import fit
from router.control.rules import WHOLE, ServiceRules
from router.core.live import Live
from router.telemetry.tasks import spawn

SCHEMA: Final = 1
MAX_BYTES: Final = 4 * 1024 * 1024
"""The longest that is ever written has 10,000 revocations: names of up to 133 characters, each of them twice."""
WRITE_GAP_SECONDS: Final = 1.0


def path_of(state_dir: Path, service: str) -> Path:
    return state_dir / f"live-{quote(service, safe='')}.json"


def load(state_dir: Path, rules: ServiceRules) -> Live | None:
    """The last known good values; None when there is no file. Raises ``Rejected``."""
    path = path_of(state_dir, rules.name)
    content = read_own(path, MAX_BYTES)
    return None if content is None else _decode(content, path, rules)


def _decode(content: bytes, path: Path, rules: ServiceRules) -> Live:
    try:
        document: Any = json.loads(content) if len(content) <= MAX_BYTES else None
        body, checksum = document["body"], document["checksum"]
        is_whole = checksum == _checksum(body)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Rejected(f"{path} is corrupt: it is not what was written") from None
    if not is_whole:
        raise Rejected(f"{path} is corrupt: the checksum is wrong")
    if body.get("schema") != SCHEMA:
        raise Rejected(f"{path} has schema {body.get('schema')!r}, not {SCHEMA}")
    if body.get("service") != rules.name:
        raise Rejected(f"{path} is of the service {body.get('service')!r}")
    if body.get("rings") != list(rules.rings):
        raise Rejected(f"{path} is of other rings than the config file's")
    live = _live(body["live"], path)
    if fit(live, rules) != live or not all(
        0 <= points <= WHOLE for points in (*live.weights.values(), *live.holdbacks.values())
    ):
        raise Rejected(f"{path} does not fit the config file any more")
    return live


def _live(body: dict[str, Any], path: Path) -> Live:
    try:
        return Live(
            weights={str(ring): int(points) for ring, points in body["weights"].items()},
            versions={str(ring): str(name) for ring, name in body["versions"].items()},
            killed=tuple(str(ring) for ring in body["killed"]),
            freeze=str(body["freeze"]),
            revision=str(body["revision"]),
            # Older files have none of these.
            drained=tuple(str(address) for address in body.get("drained", [])),
            revoked=tuple(str(one) for one in body.get("revoked", [])),
            revoked_until={str(one): int(until) for one, until in body.get("revoked_until", {}).items()},
            widened_at=float(body.get("widened_at", 0.0)),
            holdbacks={str(ring): int(points) for ring, points in body.get("holdbacks", {}).items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Rejected(f"{path} is corrupt: it is not what was written") from None


def _checksum(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _encode(live: Live, rules: ServiceRules, saved_at: float) -> bytes:
    body = {
        "schema": SCHEMA,
        "service": rules.name,
        "rings": list(rules.rings),
        "saved_at": round(saved_at, 3),
        "live": {
            "weights": dict(live.weights),
            "versions": dict(live.versions),
            "killed": list(live.killed),
            "freeze": live.freeze,
            "revision": live.revision,
            "drained": list(live.drained),
            "revoked": list(live.revoked),
            "revoked_until": dict(live.revoked_until),
            "widened_at": round(live.widened_at, 3),
            "holdbacks": dict(live.holdbacks),
        },
    }
    return sealed(body)


def sealed(body: dict[str, Any]) -> bytes:
    """A file's content, with its checksum."""
    return json.dumps({"body": body, "checksum": _checksum(body)}, indent=1).encode()


def save(state_dir: Path, live: Live, rules: ServiceRules, saved_at: float) -> None:
    """Replace the file whole; blocks on the disk. Raises ``OSError``."""
    replace_whole(path_of(state_dir, rules.name), _encode(live, rules, saved_at))


_Content = tuple[Live, float, Mapping[str, int], tuple[str, ...]]


def _content(live: Live, rules: ServiceRules) -> _Content:
    """What makes a file another one than it was."""
    return live, round(live.widened_at, 3), live.revoked_until, rules.rings


class Keeper:
    """Writes what it is offered: only when it differs from what is on disk, and at most once a second."""

    def __init__(
        self, state_dir: Path, on_trouble: Callable[[OSError], None], clock: Callable[[], float] = time.time
    ) -> None:
        self._state_dir = state_dir
        self._on_trouble = on_trouble
        self._clock = clock
        self._on_disk: dict[str, _Content] = {}
        self._wanted: dict[str, tuple[Live, ServiceRules]] = {}
        self._work = asyncio.Event()
        self._writing: asyncio.Task[OSError | None] | None = None
        self._is_reported = False

    def knows(self, live: Live, rules: ServiceRules) -> None:
        """This is what the file holds already."""
        self._on_disk[rules.name] = _content(live, rules)

    def offer(self, live: Live, rules: ServiceRules) -> None:
        """To be written soon, unless it is on disk already. Only values that come from a valid read of Redis."""
        is_writing = self._writing is not None and not self._writing.done()
        if self._on_disk.get(rules.name) == _content(live, rules) and not is_writing:
            self._wanted.pop(rules.name, None)
            return
        self._wanted[rules.name] = (live, rules)
        self._work.set()

    async def run(self) -> None:
        """Write for ever; after a cancellation, ``flush`` writes the rest."""
        while True:
            await self._work.wait()
            await self.flush()
            await asyncio.sleep(WRITE_GAP_SECONDS)

    async def flush(self) -> None:
        """Write what is wanted now."""
        self._work.clear()
        if self._writing is not None:
            await asyncio.wait({self._writing})
        for service, (live, rules) in list(self._wanted.items()):
            # A cancellation does not stop the thread: whoever writes next waits for it, or the older content could win.
            self._writing = spawn(self._save(live, rules), name="write last known good")
            error = await asyncio.shield(self._writing)
            if error is not None:
                self._wanted.clear()
                if not self._is_reported:
                    self._is_reported = True
                    self._on_trouble(error)
                return
            self.knows(live, rules)
            if self._wanted.get(service) == (live, rules):
                del self._wanted[service]
            self._is_reported = False

    async def _save(self, live: Live, rules: ServiceRules) -> OSError | None:
        try:
            await asyncio.to_thread(save, self._state_dir, live, rules, self._clock())
        except OSError as error:
            return error
        return None
