"""What a store holds of one service: the live values, where they come from, and what was refused. Plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from router.control.keys import RawHash, RawService
from router.control.parse import Refusal
from router.control.rails import outside_rails
from router.control.rules import ServiceRules, percent
from router.core.live import Live

Source = Literal["config", "disk", "redis"]


@dataclass(slots=True)
class Service:
    """The live part of one service. ``live`` routes, unless the config does not allow it."""

    rules: ServiceRules
    live: Live = field(default_factory=Live)
    source: Source = "config"
    raw: RawService | None = None
    is_read: bool = False
    """Whether Redis has been read since the start, whatever came of it."""
    fellows: Live | None = None
    """What other instances routed by when this one started without a memory of its own."""
    again_at: float = 0.0
    """Unix time at which the same read is judged again, because a widening came too soon; 0: it is not."""
    refusals: tuple[Refusal, ...] = ()
    unknown_drains: tuple[str, ...] = ()
    """Drained addresses that no endpoint has in the snapshot that routes."""
    refused_content: dict[str, tuple[RawHash, tuple[Refusal, ...]]] = field(default_factory=dict)
    """Key → what was refused last, so that a heartbeat does not count it again."""

    @property
    def ground(self) -> Live | None:
        """What a read is judged against: what this instance routes by, or what others do, or nothing that is known.

        With rails, whoever has seen a Redis without weights knows what was before the first ones: the config file's.
        """
        if self.source != "config" or (self.is_read and self.rules.has_rails):
            return self.live
        return None if self.is_read else self.fellows

    def is_news(self, key: str, content: RawHash, problems: tuple[Refusal, ...]) -> bool:
        """Whether these are other problems of ``key`` than the last, which they become; sentences may tell the time."""
        known = self.refused_content.get(key)
        self.refused_content[key] = (content, problems)
        return known is None or known[0] != content or _matter(known[1]) != _matter(problems)

    @property
    def notes(self) -> list[str]:
        """What of the live values is applied and has no effect at this moment."""
        return [say_unknown(self.unknown_drains, self.rules.name)] if self.unknown_drains else []

    @property
    def outside_rails(self) -> list[str]:
        """Rings that are applied below their floor or above their ceiling, as sentences."""
        return outside_rails(self.live, self.rules)

    def report(self, generation: int, mode: str, warnings: Iterable[str]) -> dict[str, Any]:
        """What the status in Redis says."""
        live, rules = self.live, self.rules
        return {
            "rev": live.revision,
            "generation": generation,
            "source": self.source,
            "mode": mode,
            "weights": {ring: percent(points) for ring, points in rules.effective_weights(live).items()},
            "versions": rules.effective_versions(live),
            "killed": list(live.killed),
            "freeze": live.freeze,
            "drained": list(live.drained),
            "holdbacks": {ring: percent(points) for ring, points in live.holdbacks.items()},
            "revoked": len(live.revoked),
            "widened_at": round(live.widened_at, 3),
            "notes": self.notes,
            "refused": [refusal.message for refusal in self.refusals],
            "warnings": [*warnings, *self.outside_rails],
        }


def _matter(problems: tuple[Refusal, ...]) -> list[tuple[str, str, str]]:
    return [(one.reason, one.field, one.value) for one in problems]


def say_unknown(addresses: tuple[str, ...], service: str) -> str:
    """What a drain means that drains nothing."""
    return (
        f"drain names {', '.join(addresses)}, and no endpoint of {service} has that address now; should one get it, "
        f"it is drained."
    )
