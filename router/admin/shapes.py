"""What the reads give, as types, beside the picture of the rings (``telemetry.picture``).

Plain data that is encoded as it is. Whoever fills it has taken out what nobody may read: passwords, secrets, keys.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from router.rollout.progress import Phase


class CheckState(msgspec.Struct, frozen=True):
    """What active checks know of an endpoint."""

    state: str
    """unknown, up or down."""
    since: float
    last_error: str
    """What the last check that failed met: ``503``, ``connection refused``."""
    checks: int
    failures: int


class BackendState(msgspec.Struct, frozen=True):
    """One endpoint of a version, as all workers of this instance together see it. Counts are since the start."""

    service: str
    version: str
    endpoint: str
    """Its address: ``host:port`` or ``unix:/path``."""
    name: str
    """What the address was looked up from; empty where the config has the address itself."""
    weight: int
    state: str
    """One or two words: up, slow start, ejected, unreachable, down by checks, drained."""
    is_well: bool
    """Whether it could be sent requests."""
    workers: dict[str, int]
    """What workers say of it → how many do."""
    active: int
    idle: int
    failures: dict[str, int]
    ejections: dict[str, int]
    check: CheckState | None
    """What active checks know; None where there are none."""


class Backends(msgspec.Struct, frozen=True):
    """All endpoints, in the order of the config."""

    at: float
    instance: str
    backends: list[BackendState]


class ConfigProblem(msgspec.Struct, frozen=True):
    """One thing wrong with the config file. ``line`` and ``column`` count from 1; 0: the file as a whole."""

    file: str
    line: int
    column: int
    message: str
    hint: str
    source_line: str
    """The line as it stands there, without passwords; a caret goes under ``column``."""


class ConfigValue(msgspec.Struct, frozen=True):
    """One value that is in force, and where it comes from."""

    path: str
    """``services.shop.rings.canary.weight``: items of a list go by their name where they have one, else by number."""
    value: Any
    """``***`` for what nobody may read."""
    origin: Literal["file", "environment", "default", "redis", "start"]
    """``redis``: live, over what the file says; ``start``: the file says something else since the start."""
    place: str
    """``router.yaml:12:9``; of a variable ``NAME at router.yaml:12:9``; of Redis the key; of a default empty."""
    file_value: Any = None
    """What the file (or the default) says, where ``origin`` is ``redis`` or ``start``."""


class ConfigChange(msgspec.Struct, frozen=True):
    """What the revision in force changed in the one before. None: the value was not there, or is not there now."""

    path: str
    before: Any
    after: Any


class ConfigState(msgspec.Struct, frozen=True):
    """The config in force, and what is wrong with the file that is not."""

    revision: int
    loaded_at: float
    path: str
    error: str
    """Empty: the file is the config in force."""
    problems: list[ConfigProblem]
    needs_restart: list[str]
    """Keys that have changed, and are only read at the start."""
    values: list[ConfigValue]
    """In the order of the schema, leaves only."""
    changed: list[ConfigChange]
    reloads: dict[str, int]
    """success, failure, unchanged → how often."""


class AuditEntry(msgspec.Struct, frozen=True):
    """One recorded change. ``before`` and ``after`` go with ``fields``, one each; ``-``: not there."""

    id: str
    service: str
    at: float
    actor: str
    """Who: ``ada@laptop`` at a command line, a token's name over the API."""
    host: str
    source: str
    """cli, api, rollout, or external: written past all of these."""
    action: str
    """set, reset, undo, versions, kill, freeze, drain, undrain, members …"""
    fields: list[str]
    before: list[str]
    after: list[str]
    reason: str
    rev: str
    sentence: str
    """``canary 5 → 10``"""
    can_undo: bool
    """Whether POST /undo would take back this one: the last change of the weights."""


class Trail(msgspec.Struct, frozen=True):
    """Newest first. ``is_complete`` false: Redis is away, and these are only the ones that this instance remembers."""

    entries: list[AuditEntry]
    is_complete: bool
    next: dict[str, str] = {}
    """Service → what ``before`` has to be for the next page; without those that have no more."""


class Tapped(msgspec.Struct, frozen=True):
    """One sampled request, when it is over. ``identity`` is a keyed hash of the user's key; empty: nobody is known."""

    at: float
    service: str
    method: str
    path: str
    """Without its query."""
    ring: str
    version: str
    reason: str
    status: int
    duration: float
    """Seconds; of a WebSocket until it was open."""
    identity: str


class Dropped(msgspec.Struct, frozen=True):
    """So many requests were wanted, and left out, since the last event."""

    dropped: int


class RolloutSummary(msgspec.Struct, frozen=True):
    """One service's rollout, or its last one, in a line."""

    service: str
    id: str
    phase: Phase
    why: str
    """Of a pause; else empty."""
    mode: Literal["enforce", "observe"]
    stable: str
    candidate: str
    step: int
    """Index of the current one of ``steps``."""
    steps: int
    headline: str
    started_at: float
    started_by: str
    ended_at: float | None


class Rollouts(msgspec.Struct, frozen=True):
    """In the order of the config; services that never had one are left out."""

    rollouts: list[RolloutSummary]


NewsKind = Literal["routing", "config", "store", "warning", "rollout"]


class News(msgspec.Struct, frozen=True):
    """Something is other than it was. ``service`` None: of the router as a whole."""

    at: float
    kind: NewsKind
    service: str | None
    sentences: list[str]
    """Empty: figures alone are other ones, as a rollout's are at each of its ticks."""
    generation: int


class Snapshot(msgspec.Struct, frozen=True):
    """The first event of a stream: everything, so that whoever comes back needs nothing else."""

    state: dict[str, Any]
    """As GET /state, without its ``snapshot``."""
    picture: dict[str, Any]
    """As GET /rings."""
