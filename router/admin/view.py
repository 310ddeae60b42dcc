"""What the admin side is given: things to look at and levers to pull. It has no other way to the rest of the router.

Split by idea; whoever composes the control process fills all of them. Looks are cheap and never wait; what asks Redis
is ``async``, and raises ``Trouble`` where there is no answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from router.admin.bodies import Asked, Change, Done, Ordered, Reload, StartRollout
from router.admin.shapes import AuditEntry, Backends, ConfigState, Trail
from router.config.admin import AdminSettings
from router.rollout.observation import Verb
from router.rollout.progress import Progress
from router.telemetry.picture import POINTS, Fleet, Metric, Picture, Scope, Series


class Listener(Protocol):
    """Somebody who listens to requests."""

    def batches(self) -> AsyncIterator[tuple[Sequence[Any], int]]:
        """Requests (as ``shapes.Tapped``), and how many were left out; both empty as a sign of life."""

    def close(self) -> None:
        """They listen no more."""


class Health(Protocol):
    """Whether it runs, and what Prometheus wants to know."""

    def readiness(self) -> tuple[bool, str]:
        """Whether traffic may come, and a sentence."""

    def metrics(self, *, is_open: bool = False) -> bytes:
        """The Prometheus exposition; as OpenMetrics if it ``is_open``."""


class Figures(Protocol):
    """What the rings experience. ``None`` stands for "nobody asked" wherever a figure may be missing."""

    def picture(self, scope: Scope = "fleet", points: int = POINTS) -> Picture:
        """The picture of the rings, of all services, with so many points in each sparkline."""

    def series(self, service: str, ring: str, version: str | None, metric: Metric, begin: float, step: int) -> Series:
        """One metric over time, ``step`` 1 or 60 s. Raises KeyError where there is no such service, ring or version."""

    async def looked(self) -> None:
        """Wait a moment for what other instances say, where that has to be read first."""

    def fleet(self) -> Fleet:
        """All instances, as far as they are known."""


class Looks(Protocol):
    """This instance, from all sides."""

    def settings(self) -> AdminSettings:
        """The admin side's settings in force."""

    def state(self) -> dict[str, Any]:
        """Everything, as plain data."""

    def service_state(self, service: str) -> dict[str, Any] | None:
        """One service, as ``state`` has it under ``services``."""

    def backends(self) -> Backends:
        """Every endpoint, and how it is."""

    def config(self) -> ConfigState:
        """The config in force, redacted, and what is wrong with the file."""

    def explain(self, asked: Asked) -> dict[str, Any]:
        """Why a request gets its ring. Raises ``Trouble`` where no service answers for it."""

    async def trail(self, services: list[str], count: int, before: str) -> Trail:
        """Who changed what."""

    async def newest(self) -> list[AuditEntry]:
        """What was recorded since the last call, oldest first."""

    def tap(self, service: str, ring: str, rate: int) -> Listener:
        """Live requests, so many a second at the most; of all where service or ring are empty. Raises ``Trouble``."""


class Levers(Protocol):
    """What operators change. Judged by the rules that judge what is typed into Redis."""

    async def change(self, wanted: Change | Reload, actor: str) -> Done:
        """Do it, or say what it would do. Raises ``Trouble``: stale, refused, not_found, redis_away …"""


class Rollouts(Protocol):
    """Versions on their way outward. What is shown is the latest that this instance has heard."""

    def progress_of(self, service: str) -> Progress | None:
        """How the service's rollout stands, or how its last one ended; None: there was none."""

    async def start_rollout(self, service: str, wanted: StartRollout, actor: str) -> Progress:
        """Begin one. Raises ``Trouble``: refused, not_now, not_found, not_available, redis_away."""

    async def order(self, service: str, verb: Verb, wanted: Ordered, actor: str) -> Progress:
        """Ask the one that runs for something. Raises ``Trouble`` as above."""


class View(Health, Looks, Figures, Levers, Rollouts, Protocol):
    """All of it."""
