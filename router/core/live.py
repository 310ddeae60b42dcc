"""What operators change live, per service, as validated plain data: weights, versions, kills, freeze, drains.

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
    """Passes that count no more: ``pass:<id>``, ``key:<id>``."""
