"""What operators change live, per service, as validated plain data: weights, versions, kills, freeze, drains, holdbacks
and what is revoked.

``control`` makes it from Redis or from the last-known-good file; ``config`` folds it into the snapshot. An absent value
means "as the config file says", never "nobody".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Live:
    """The live part of one service's rings."""

    weights: Mapping[str, int] = field(default_factory=dict)
    """Ring → basis points. A ring that is not named has the weight of the config file."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Ring → version. A ring that is not named runs the version of the config file."""
    killed: tuple[str, ...] = ()
    """Rings that nobody may be in; the default ring is never among them."""
    freeze: str = ""
    """Why widening is refused for everybody; empty when it is not."""
    revision: str = ""
    """The optional ``rev`` field of the weights hash, as it was written."""
    drained: tuple[str, ...] = ()
    """Addresses of endpoints that get no new requests: ``host:port`` or ``unix:/path``, whether they exist or not."""
    revoked: tuple[str, ...] = ()
    """Passes that count no more, sorted: ``pass:<id>``, and ``key:<id>`` for all that a key has signed."""
    revoked_until: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Of those of them that end by themselves, Unix time. It routes nobody."""
    holdbacks: Mapping[str, int] = field(default_factory=dict)
    """Ring → basis points of its users who keep the version of the next ring outward; never 0, never the default
    ring's."""
    widened_at: float = field(default=0.0, compare=False)
    """Unix time at which live weights last widened an audience; 0: not known. It routes nobody."""
