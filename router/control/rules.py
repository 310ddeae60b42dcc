"""The ground that live values stand on: what the config file says about a service's rings, and words for changes.

Pure. It holds no live value itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from router.config.compile import service_spec
from router.config.settings import Settings
from router.config.values import parse_endpoint
from router.core.live import Live
from router.core.spec import GuardSpec, ServiceSpec

WHOLE: Final = 10_000
"""Basis points in 100 percent."""
_SEPARATORS: Final = re.compile(r"[\s,]+")
_HAS_PORT: Final = re.compile(r":[0-9]{1,5}\Z")


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """What the config file says about a service's rings."""

    name: str
    rings: tuple[str, ...]
    """Inner → outer; the last one is the default ring."""
    weights: Mapping[str, int]
    """Ring → basis points of the config file, without the default ring."""
    versions: Mapping[str, str]
    """Ring → version of the config file."""
    version_names: frozenset[str]
    guard: GuardSpec = field(default_factory=GuardSpec)
    floors: Mapping[str, int] = field(default_factory=dict)
    """Ring → basis points, of those that have one; the default ring's is what the others have to leave it."""
    ceilings: Mapping[str, int] = field(default_factory=dict)

    @property
    def default_ring(self) -> str:
        return self.rings[-1]

    @property
    def has_rails(self) -> bool:
        """Whether it matters for a change what was in force before it."""
        return bool(self.guard.max_step or self.guard.min_bake)

    def effective_weights(self, live: Live) -> dict[str, int]:
        """Ring → basis points as routed, without the default ring."""
        return {ring: live.weights.get(ring, self.weights.get(ring, 0)) for ring in self.rings[:-1]}

    def effective_versions(self, live: Live) -> dict[str, str]:
        """Ring → version as routed."""
        return {ring: live.versions.get(ring, self.versions[ring]) for ring in self.rings}


def rules_of(service: ServiceSpec) -> ServiceRules:
    """The rules of a service as the config file alone describes it (a spec without live values)."""
    return ServiceRules(
        name=service.name,
        rings=tuple(ring.name for ring in service.rings),
        weights={ring.name: ring.basis_points for ring in service.rings[:-1]},
        versions={ring.name: ring.version for ring in service.rings},
        version_names=frozenset(version.name for version in service.versions),
        guard=service.guard,
        floors={ring.name: ring.floor for ring in service.rings if ring.floor},
        ceilings={ring.name: ring.ceiling for ring in service.rings if ring.ceiling < WHOLE},
    )


def service_rules(settings: Settings) -> dict[str, ServiceRules]:
    """What live values are judged by, per service."""
    return {name: rules_of(service_spec(name, service)) for name, service in settings.services.items()}


def percent(basis_points: int) -> str:
    """``1050`` → ``10.5``"""
    whole, rest = divmod(basis_points, 100)
    return f"{whole}.{rest:02d}".rstrip("0") if rest else str(whole)


def words_of(text: str) -> list[str]:
    """A list as operators write one: separated by spaces, commas, or both."""
    return [word for word in _SEPARATORS.split(text) if word]


def address_of(word: str) -> str:
    """An endpoint's address as the config has it, from whatever looks like one: ``http://A:1/`` is ``a:1``."""
    is_url = "://" in word or word.startswith("unix:")
    if not is_url and not _HAS_PORT.search(word):
        return word
    try:
        return parse_endpoint(word if is_url else f"http://{word}").address
    except ValueError:
        return word


def say_weights(rules: ServiceRules, live: Live) -> str:
    """``canary 5, early 20, everyone 75``"""
    weights = rules.effective_weights(live)
    weights[rules.default_ring] = WHOLE - sum(weights.values())
    return ", ".join(f"{ring} {percent(points)}" for ring, points in weights.items())


def say_holdbacks(live: Live) -> str:
    """As the control hash has them: ``early=50 beta=10``"""
    return " ".join(f"{ring}={percent(points)}" for ring, points in live.holdbacks.items())


def say_changes(rules: ServiceRules, before: Live, after: Live) -> list[str]:
    """What routes differently, with the old and the new value: ``canary 1 → 5 percent``."""
    words = []
    old_weights, new_weights = rules.effective_weights(before), rules.effective_weights(after)
    for ring, points in new_weights.items():
        if points != old_weights[ring]:
            words.append(f"{ring} {percent(old_weights[ring])} → {percent(points)} percent")
    old_versions, new_versions = rules.effective_versions(before), rules.effective_versions(after)
    for ring, version in new_versions.items():
        if version != old_versions[ring]:
            words.append(f"{ring} runs {old_versions[ring]} → {version}")
    if after.killed != before.killed:
        words.append(f"killed {' '.join(before.killed) or 'none'} → {' '.join(after.killed) or 'none'}")
    if after.drained != before.drained:
        words.append(f"drained {' '.join(before.drained) or 'none'} → {' '.join(after.drained) or 'none'}")
    for ring in rules.rings[:-1]:
        was, now = before.holdbacks.get(ring, 0), after.holdbacks.get(ring, 0)
        if was != now:
            words.append(f"{ring} holds back {percent(was)} → {percent(now)} percent of its users")
    if after.revoked != before.revoked:
        words.append(f"passes and keys revoked {len(before.revoked)} → {len(after.revoked)}")
    if after.freeze != before.freeze:
        words.append(f"freeze {before.freeze or 'off'} → {after.freeze or 'off'}")
    return words
