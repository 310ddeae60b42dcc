"""What a service gets now, out of the ten-second buckets that the instances write: for those who want to look ahead.

It reads Redis and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from router.control.keys import key_of
from router.control.people import estimate
from router.control.rules import WHOLE, ServiceRules
from router.control.weights import read_current
from router.rollout.simulation import RingNow, Traffic
from router.telemetry.buckets import BUCKET_SECONDS, Piece, Pieces, bucket_of, merged, unpack

BUCKETS_LOOKED_AT: Final = 30
"""Five minutes."""
CLIENT_LEFT: Final = 499


async def traffic_now(
    client: Redis, rules: ServiceRules, stable: str, now: float
) -> tuple[Traffic, tuple[RingNow, ...]]:
    """What came in the last five minutes (or since the first bucket of them with any), and the rings as they are
    routed. Raises what redis-py does."""
    last = bucket_of(now) - 1  # the present one still fills
    async with client.pipeline(transaction=False) as pipe:
        for number in range(last - BUCKETS_LOOKED_AT + 1, last + 1):
            pipe.hgetall(f"{key_of(rules.name, 'stats')}:{number}")
        answers: list[Any] = await pipe.execute(raise_on_error=False)
    buckets = [_pieces(answer) if isinstance(answer, Mapping) else {} for answer in answers]
    while buckets and not buckets[0]:
        del buckets[0]
    total = merged(buckets)
    people = await estimate(client, rules.name, [], now)
    control = Piece({}, {}, {})
    for (_, version), piece in total.items():
        if version == stable:
            control.add(piece)
    outcomes = {
        "errors": control.errors,
        "http_4xx": sum(count for code, count in control.codes.items() if 400 <= code < CLIENT_LEFT),
        "aborts": control.codes.get(CLIENT_LEFT, 0),
    }
    traffic = Traffic(
        seconds=float(len(buckets) * BUCKET_SECONDS),
        requests=sum(piece.requests for piece in total.values()),
        people=None if people is None else people.everybody,
        stable_requests=control.requests,
        stable_outcomes=outcomes,
        stable_histogram=control.histogram,
    )
    return traffic, await _rings(client, rules, total)


def _pieces(fields: Mapping[bytes, bytes]) -> Pieces:
    """Of all instances together; what is not of this router says nothing."""
    said = []
    for raw in fields.values():
        with suppress(msgspec.DecodeError, ValueError):
            said.append(unpack(raw))
    return merged(said)


async def _rings(client: Redis, rules: ServiceRules, total: Pieces) -> tuple[RingNow, ...]:
    live = (await read_current(client, rules)).parsed.live
    weights, versions = rules.effective_weights(live), rules.effective_versions(live)
    weights[rules.default_ring] = WHOLE - sum(weights.values())
    requests = {ring: sum(piece.requests for (name, _), piece in total.items() if name == ring) for ring in rules.rings}
    return tuple(RingNow(ring, weights[ring], versions[ring], requests[ring]) for ring in rules.rings)
