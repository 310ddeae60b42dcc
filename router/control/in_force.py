"""What the instances route by, as they say in ``rings:{service}:status``: the ground on which a change is judged.

The commands ask it before they write, and an instance that starts without a memory of its own asks its fellows. It must
never make something up: what cannot be read, or is older than a minute, says nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal, cast

from redis.asyncio import Redis

from router.control.keys import key_of
from router.control.parse import basis_points_of, fit
from router.control.rules import ServiceRules
from router.core.live import Live

Engine = Literal["router", "envoy"]
"""What serves the requests of an instance."""
FRESH_SECONDS: Final = 60.0
"""An instance writes its status every ten seconds; an older one may be gone."""


async def in_force(client: Redis, rules: ServiceRules) -> Live | None:
    """What the instance that wrote last routes by; None where nobody says. Raises what redis does."""
    newest = max((await _said(client, rules)).values(), key=lambda said: said["at"], default={})
    try:
        return _live(newest, rules)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


async def instances_with(client: Redis, rules: ServiceRules, engine: Engine) -> list[str]:
    """The instances whose requests this engine serves. Raises what redis does."""
    return sorted(name for name, said in (await _said(client, rules)).items() if said.get("engine") == engine)


async def _said(client: Redis, rules: ServiceRules) -> dict[str, dict[str, Any]]:
    """Instance → what it says, if that is of the last minute."""
    fields: Mapping[bytes, bytes] = await cast("Awaitable[Any]", client.hgetall(key_of(rules.name, "status")))
    found = {}
    for name, text in fields.items():
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            said = json.loads(text)
            if said["at"] > time.time() - FRESH_SECONDS:
                found[name.decode()] = said
    return found


def _live(said: Mapping[str, Any], rules: ServiceRules) -> Live | None:
    if said.get("source", "config") == "config":
        # With rails, whoever has read Redis and routes by the config file does so on purpose: it refuses what is there.
        return Live() if rules.has_rails and said.get("mode") in ("live", "poll") else None
    weights = {ring: basis_points_of(str(value).encode()) for ring, value in said["weights"].items()}
    holdbacks = {ring: basis_points_of(str(value).encode()) for ring, value in said.get("holdbacks", {}).items()}
    live = Live(
        # The status names every ring; only what differs from the config file can have come from Redis.
        weights={r: points for r, points in weights.items() if points is not None and points != rules.weights.get(r)},
        versions={ring: name for ring, name in said["versions"].items() if rules.versions.get(ring) != name},
        killed=tuple(said["killed"]),
        freeze=str(said["freeze"]),
        drained=tuple(said.get("drained", ())),
        widened_at=float(said.get("widened_at", 0.0)),
        holdbacks={ring: points for ring, points in holdbacks.items() if points},
    )
    return fit(live, rules)
